/*
 * set_clock - a wall clock that is set while a program runs, and nothing else: preloaded into a server under test.
 *
 *     SET_CLOCK=FILE    FILE holds eight bytes: by how many milliseconds the wall clock is ahead (of this machine's
 * order)
 *
 * The file is mapped, so whoever writes to it sets the clock of all who run with it, at once. The steady clocks stay.
 *
 * Threads: any.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const _Atomic int64_t *ahead_ms;

static void map(void)
{
    const char *path = getenv("SET_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *at = mmap(NULL, sizeof *ahead_ms, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    ahead_ms = at != MAP_FAILED ? at : NULL;
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int result = (int)syscall(SYS_clock_gettime, clock, t);
    pthread_once(&once, map);
    if (result == 0 && ahead_ms && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ms = *ahead_ms;
        t->tv_sec += ms / 1000;
        t->tv_nsec += ms % 1000 * 1000000;
        if (t->tv_nsec < 0 || t->tv_nsec >= 1000000000) {
            t->tv_sec += t->tv_nsec < 0 ? -1 : 1;
            t->tv_nsec += t->tv_nsec < 0 ? 1000000000 : -1000000000;
        }
    }
    return result;
}
