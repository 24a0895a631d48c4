/* clock - thin over clock_gettime(2), so that units and clock ids are chosen in one place. */
#include "core/clock.h"

#include "core/check.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"

#define READ_TRIES  10
#define READ_MAX_US 100000

int64_t clock_wall_ms(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_REALTIME, &t) == 0);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t clock_wall_ms_after(int64_t last_ms)
{
    int64_t now_ms = clock_wall_ms();
    return now_ms > last_ms ? now_ms : last_ms + 1;
}

int64_t clock_wall_us(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_REALTIME, &t) == 0);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_steady_us(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_boot_ms(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_BOOTTIME, &t) == 0);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Both are read at one moment: not with a pause of the thread's in between. */
int64_t clock_wall_offset_us(void)
{
    int64_t before_us, wall_us;
    int tries = 0;
    do {
        before_us = clock_steady_us();
        wall_us = clock_wall_us();
    } while (clock_steady_us() - before_us > READ_MAX_US && ++tries < READ_TRIES);
    return wall_us - before_us;
}

void clock_boot_id(char id[CLOCK_BOOT_ID_MAX])
{
    id[0] = '\0';
    int fd = open(BOOT_ID_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, id, CLOCK_BOOT_ID_MAX - 1);
    id[n == CLOCK_BOOT_ID_MAX - 1 ? n : 0] = '\0';
    close(fd);
}
