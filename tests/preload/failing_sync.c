/*
 * failing_sync - a disk whose n-th sync fails: preloaded into a server under test, so that what it makes of a failed
 * sync is seen on the program that is shipped.
 *
 *     FAILING_SYNC=3:uploads/    the third sync of a file whose path has "uploads/" in it fails, once, with EIO
 *     FAILING_SYNC=1:.db$        the first of a file whose path ends in ".db"
 *     FAILING_SYNC=1:syncfs      the first syncfs()
 *
 * As Linux does it, a failed sync is told once, and forgotten: the next one finds nothing to write and succeeds. And as
 * some file systems do, the pages that could not be written are dropped: what was written since the last sync that went
 * well is put back to what it was, or to zeros where the file was shorter. A failure to write content is told by the
 * next syncfs() too. Names are left as they are.
 *
 * Threads: any. The order of a write and of the noting of it is that of the lock.
 */
/* pwrite and pwrite64 are two names here, as they are to the linker. */
#undef _FILE_OFFSET_BITS

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define PATH_CHARS 512

/* What stood where something was written that no sync has covered yet. */
struct change {
    struct change *older;
    dev_t dev;
    ino_t inode;
    int fd; /* of our own */
    off_t at;
    size_t len;
    char before[];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct change *changes;
static bool told_by_syncfs;
static unsigned seen;

static void path_of(int fd, char path[PATH_CHARS])
{
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_CHARS - 1);
    path[n > 0 ? n : 0] = '\0';
}

/* Whose syncs fail, or NULL; *nth: which of them. */
static const char *asked(unsigned *nth)
{
    const char *text = getenv("FAILING_SYNC");
    const char *where = text ? strchr(text, ':') : NULL;
    if (!where)
        return NULL;
    *nth = (unsigned)strtoul(text, NULL, 10);
    return where + 1;
}

/* With the lock held: what is at [at, at + len) now, before it is written. */
static void note(int fd, off_t at, size_t len)
{
    char path[PATH_CHARS], link[32];
    struct stat sb;
    unsigned nth;
    if (!asked(&nth) || len == 0 || fstat(fd, &sb) != 0 || !S_ISREG(sb.st_mode))
        return;
    path_of(fd, path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    struct change *c = calloc(1, sizeof *c + len);
    int own = (int)syscall(SYS_openat, AT_FDCWD, link, O_RDWR | O_CLOEXEC, 0);
    if (!c || own < 0) {
        free(c);
        if (own >= 0)
            close(own);
        return;
    }
    *c = (struct change){.older = changes, .dev = sb.st_dev, .inode = sb.st_ino, .fd = own, .at = at, .len = len};
    for (size_t done = 0; done < len;) {
        ssize_t n = syscall(SYS_pread64, own, c->before + done, len - done, at + (off_t)done);
        if (n <= 0)
            break;
        done += (size_t)n;
    }
    changes = c;
}

/* With the lock held: forgets the changes of a file (of all: sb NULL), undoing them, the newest first, where dropped.
 */
static void settle(const struct stat *sb, bool dropped)
{
    struct change **at = &changes;
    while (*at) {
        struct change *c = *at;
        if (sb && (c->dev != sb->st_dev || c->inode != sb->st_ino)) {
            at = &c->older;
            continue;
        }
        for (size_t done = 0; dropped && done < c->len;) {
            ssize_t n = syscall(SYS_pwrite64, c->fd, c->before + done, c->len - done, c->at + (off_t)done);
            if (n <= 0)
                break;
            done += (size_t)n;
        }
        *at = c->older;
        close(c->fd);
        free(c);
    }
}

static bool matches(const char *path, const char *where)
{
    size_t path_len = strlen(path), len = strlen(where);
    if (len == 0 || where[len - 1] != '$')
        return strstr(path, where) != NULL;
    return path_len >= len - 1 && strncmp(path + path_len - (len - 1), where, len - 1) == 0;
}

static int failed(void)
{
    errno = EIO;
    return -1;
}

static int sync_file(int fd, long call)
{
    char path[PATH_CHARS];
    struct stat sb;
    unsigned nth = 0;
    const char *where = asked(&nth);
    if (!where)
        return (int)syscall(call, fd);
    path_of(fd, path);
    pthread_mutex_lock(&lock);
    bool fails = matches(path, where) && ++seen == nth;
    bool known = fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode);
    if (known)
        settle(&sb, fails);
    told_by_syncfs = told_by_syncfs || (fails && known);
    pthread_mutex_unlock(&lock);
    if (!fails)
        return (int)syscall(call, fd);
    fprintf(stderr, "failing_sync: sync %u fails: %s\n", nth, path);
    return failed();
}

int fsync(int fd)
{
    return sync_file(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return sync_file(fd, SYS_fdatasync);
}

int syncfs(int fd)
{
    unsigned nth = 0;
    const char *where = asked(&nth);
    if (!where)
        return (int)syscall(SYS_syncfs, fd);
    pthread_mutex_lock(&lock);
    bool fails = strcmp(where, "syncfs") == 0 && ++seen == nth;
    bool late = told_by_syncfs;
    told_by_syncfs = false;
    settle(NULL, fails);
    pthread_mutex_unlock(&lock);
    if (fails || late) {
        fprintf(stderr, "failing_sync: syncfs fails\n");
        return failed();
    }
    return (int)syscall(SYS_syncfs, fd);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t at)
{
    pthread_mutex_lock(&lock);
    note(fd, at, len);
    ssize_t n = syscall(SYS_pwrite64, fd, data, len, at);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t pwrite64(int fd, const void *data, size_t len, off_t at)
{
    return pwrite(fd, data, len, at);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at)
{
    size_t len = 0;
    for (int i = 0; i < count; i++)
        len += parts[i].iov_len;
    pthread_mutex_lock(&lock);
    note(fd, at, len);
    ssize_t n = syscall(SYS_pwritev, fd, parts, (unsigned long)count, (unsigned long)at, 0ul);
    pthread_mutex_unlock(&lock);
    return n;
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at)
{
    return pwritev(fd, parts, count, at);
}
