/* durable_file - system calls with their errors told; every change of the disk backend to the disk passes here. */
#include "backends/disk/file/durable_file.h"

#include "core/check.h"
#include "core/fault.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PARENT_MAX 512

enum blob_status file_fail(struct blob_error *err, int error, const char *what, const char *path)
{
    return blob_fail(err, blob_status_from_errno(error), error, "%s %s", what, path);
}

/* Takes n bytes off the beginning of parts, and empty ones. */
static void parts_skip(struct iovec **parts, int *count, size_t n)
{
    while (*count > 0 && n >= (*parts)->iov_len) {
        n -= (*parts)->iov_len;
        (*parts)++;
        (*count)--;
    }
    if (*count > 0) {
        (*parts)->iov_base = (char *)(*parts)->iov_base + n;
        (*parts)->iov_len -= n;
    }
}

enum blob_status file_write_parts_at(int fd, struct iovec *parts, int count, uint64_t offset, const char *what,
                                     struct blob_error *err)
{
    int fault = FAULT_POINT("disk.write");
    if (fault)
        return file_fail(err, fault, "write", what);
    parts_skip(&parts, &count, 0);
    while (count > 0) {
        ssize_t n = pwritev(fd, parts, count, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return file_fail(err, n < 0 ? errno : ENOSPC, "write", what);
        offset += (uint64_t)n;
        parts_skip(&parts, &count, (size_t)n);
    }
    return BLOB_OK;
}

enum blob_status file_write_at(int fd, const void *data, size_t len, uint64_t offset, const char *what,
                               struct blob_error *err)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = len};
    return file_write_parts_at(fd, &part, 1, offset, what, err);
}

enum blob_status file_read_at(int fd, void *buf, size_t len, uint64_t offset, size_t *got, const char *what,
                              struct blob_error *err)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return file_fail(err, errno, "read", what);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *got = done;
    return BLOB_OK;
}

enum blob_status file_sync(int fd, const char *what, struct blob_error *err)
{
    int fault = FAULT_POINT("disk.sync");
    if (fault)
        return file_fail(err, fault, "sync", what);
    return fdatasync(fd) == 0 ? BLOB_OK : file_fail(err, errno, "sync", what);
}

enum blob_status file_sync_all(int fd, const char *what, struct blob_error *err)
{
    int fault = FAULT_POINT("disk.sync");
    if (fault)
        return file_fail(err, fault, "sync", what);
    return fsync(fd) == 0 ? BLOB_OK : file_fail(err, errno, "sync", what);
}

enum blob_status dir_sync(int dirfd, const char *path, struct blob_error *err)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(err, errno, "open directory", path);
    enum blob_status st = file_sync_all(fd, path, err);
    close(fd);
    return st;
}

/* The part before the last '/', or "." */
static void parent_of(const char *path, char out[PARENT_MAX])
{
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 1;
    CHECK(len > 0 && len < PARENT_MAX);
    memcpy(out, slash ? path : ".", len);
    out[len] = '\0';
}

enum blob_status dir_sync_parent(int dirfd, const char *path, struct blob_error *err)
{
    char parent[PARENT_MAX];
    parent_of(path, parent);
    return dir_sync(dirfd, parent, err);
}

enum blob_status tree_sync(int fd, const char *what, struct blob_error *err)
{
    int fault = FAULT_POINT("disk.sync");
    if (fault)
        return file_fail(err, fault, "sync", what);
    return syncfs(fd) == 0 ? BLOB_OK : file_fail(err, errno, "sync", what);
}

enum blob_status dir_make_parents(int dirfd, const char *path, bool sync, struct blob_error *err)
{
    int fault = FAULT_POINT("disk.mkdir");
    if (fault)
        return file_fail(err, fault, "make directories for", path);
    char part[PARENT_MAX];
    CHECK(strlen(path) < sizeof part);
    const char *last = strrchr(path, '/');
    if (!sync && last) {
        /* Mostly only the lowest is missing. */
        memcpy(part, path, (size_t)(last - path));
        part[last - path] = '\0';
        if (mkdirat(dirfd, part, 0750) == 0 || errno == EEXIST)
            return BLOB_OK;
        if (errno != ENOENT)
            return file_fail(err, errno, "make directory", part);
    }
    for (const char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        size_t len = (size_t)(slash - path);
        memcpy(part, path, len);
        part[len] = '\0';
        if (mkdirat(dirfd, part, 0750) != 0 && errno != EEXIST)
            return file_fail(err, errno, "make directory", part);
        enum blob_status st = sync ? dir_sync_parent(dirfd, part, err) : BLOB_OK;
        if (st != BLOB_OK)
            return st;
    }
    return BLOB_OK;
}

void dir_spread(int dirfd, const char *path)
{
    int fd = openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    int flags = 0;
    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && !(flags & FS_TOPDIR_FL)) {
        flags |= FS_TOPDIR_FL;
        int refused = ioctl(fd, FS_IOC_SETFLAGS, &flags);
        (void)refused;
    }
    close(fd);
}

enum blob_status file_create(int dirfd, const char *path, const void *data, size_t len, bool sync,
                             struct blob_error *err)
{
    int fd = openat(dirfd, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0)
        return file_fail(err, errno, "create", path);
    enum blob_status st = file_write_at(fd, data, len, 0, path, err);
    if (st == BLOB_OK && sync)
        st = file_sync(fd, path, err);
    close(fd);
    if (st != BLOB_OK)
        unlinkat(dirfd, path, 0);
    return st;
}

enum blob_status file_rename(int dirfd, const char *from, const char *to, struct blob_error *err)
{
    int fault = FAULT_POINT("disk.rename");
    if (fault)
        return file_fail(err, fault, "rename to", to);
    return renameat(dirfd, from, dirfd, to) == 0 ? BLOB_OK : file_fail(err, errno, "rename to", to);
}

enum blob_status file_remove(int dirfd, const char *path, struct blob_error *err)
{
    return unlinkat(dirfd, path, 0) == 0 || errno == ENOENT ? BLOB_OK : file_fail(err, errno, "remove", path);
}

int64_t file_mtime_ms(const struct stat *sb)
{
    return (int64_t)sb->st_mtim.tv_sec * 1000 + sb->st_mtim.tv_nsec / 1000000;
}

enum blob_status file_set_mtime(int dirfd, const char *path, int64_t ms, struct blob_error *err)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                      {.tv_sec = (time_t)(ms / 1000), .tv_nsec = ms % 1000 * 1000000}};
    return utimensat(dirfd, path, times, 0) == 0 ? BLOB_OK : file_fail(err, errno, "touch", path);
}
