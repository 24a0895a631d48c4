/*
 * disk_shared - what nodes do to an upload in a directory that they share: pass its fence, take it over, end it.
 *
 * Nothing here is locked, since a node may be stopped at any point and must hang no other. What keeps nodes apart is
 * that each step is one system call which is atomic on the file system, and about a file, never about whoever has its
 * name just then.
 *
 * The fence. A file carries the epochs of its latest writers, an attribute each: who claimed the upload, was held up,
 * and opens the file after its successor has come, must not cut what that one wrote. A writer adds its own and looks
 * for a higher one then; of two that come at a time, the later looker sees the other, and lower ones are taken away
 * only by who has seen that it is the highest. So the highest epoch that ever passed stays. (A file system without
 * attributes leaves that to the clocks: the node would have to be held up for as long as its successor writes.)
 *
 * Two names. Committing gives the open file a second name, the blob's, and takes the upload's away afterwards. A crash
 * in between leaves both on one file; so an upload whose file has another name is never written, but copied first.
 */
#include "backends/disk/disk_shared.h"

#include "backends/disk/disk_marks.h"
#include "backends/disk/file/durable_file.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define COPY_BYTES     (1u << 20)
#define COMPARE_BYTES  (size_t)(256u << 10)
#define FENCE_PREFIX   "user.blobd.epoch."
#define FENCE_NAME_MAX (sizeof FENCE_PREFIX + 16)
#define FENCE_LIST_MAX 16384
/* Of versions that kept one attribute; big-endian. */
#define FENCE_OLD      "user.blobd.epoch"
#define ASIDE_TRIES    50
#define ASIDE_PAUSE_NS 10000000

/* ---- the fence ---- */

static void fence_name(uint64_t epoch, char out[FENCE_NAME_MAX])
{
    snprintf(out, FENCE_NAME_MAX, FENCE_PREFIX "%016" PRIx64, epoch);
}

static bool fence_epoch(const char *name, uint64_t *epoch)
{
    int end = 0;
    return sscanf(name, FENCE_PREFIX "%16" SCNx64 "%n", epoch, &end) == 1 && name[end] == '\0';
}

/* The names of a file's attributes, one after the other; none where there can be none. */
static enum blob_status list_attributes(int fd, char list[FENCE_LIST_MAX], size_t *len, const char *path,
                                        struct blob_error *err)
{
    ssize_t n = flistxattr(fd, list, FENCE_LIST_MAX);
    if (n < 0 && errno != ENOTSUP)
        return file_fail(err, errno, "list the attributes of", path);
    *len = n < 0 ? 0 : (size_t)n;
    return BLOB_OK;
}

static uint64_t old_fence(int fd)
{
    uint8_t bytes[8];
    uint64_t epoch = 0;
    if (fgetxattr(fd, FENCE_OLD, bytes, sizeof bytes) != (ssize_t)sizeof bytes)
        return 0;
    for (size_t i = 0; i < sizeof bytes; i++)
        epoch = epoch << 8 | bytes[i];
    return epoch;
}

static uint64_t highest(int fd, const char *list, size_t len)
{
    uint64_t most = old_fence(fd), epoch;
    for (size_t at = 0; at < len; at += strlen(list + at) + 1)
        if (fence_epoch(list + at, &epoch) && epoch > most)
            most = epoch;
    return most;
}

enum blob_status disk_fence_highest(int fd, uint64_t *epoch, const char *path, struct blob_error *err)
{
    char list[FENCE_LIST_MAX];
    size_t len = 0;
    enum blob_status st = list_attributes(fd, list, &len, path, err);
    if (st == BLOB_OK)
        *epoch = highest(fd, list, len);
    return st;
}

enum blob_status disk_fence_pass(int fd, uint64_t epoch, const char *path, struct blob_error *err)
{
    char mine[FENCE_NAME_MAX], list[FENCE_LIST_MAX];
    size_t len = 0;
    uint64_t other;
    fence_name(epoch, mine);
    if (fsetxattr(fd, mine, "1", 1, 0) != 0)
        return errno == ENOTSUP ? BLOB_OK : file_fail(err, errno, "mark", path);
    enum blob_status st = list_attributes(fd, list, &len, path, err);
    if (st != BLOB_OK)
        return st;
    if (highest(fd, list, len) > epoch) {
        fremovexattr(fd, mine);
        return blob_fail(err, BLOB_E_CONFLICT, 0, "%s has a newer writer", path);
    }
    for (size_t at = 0; at < len; at += strlen(list + at) + 1)
        if (fence_epoch(list + at, &other) && other < epoch)
            fremovexattr(fd, list + at);
    return BLOB_OK;
}

/* ---- taking over ---- */

static enum blob_status copy_bytes(int from, int to, uint64_t bytes, const char *path, struct blob_error *err)
{
    char *buf = malloc(COPY_BYTES);
    enum blob_status st = buf ? BLOB_OK : blob_fail(err, BLOB_E_NO_MEMORY, 0, "%s", path);
    for (uint64_t at = 0; st == BLOB_OK && at < bytes;) {
        size_t want = bytes - at < COPY_BYTES ? (size_t)(bytes - at) : COPY_BYTES, got = 0;
        st = file_read_at(from, buf, want, at, &got, path, err);
        if (st == BLOB_OK && got < want)
            st = blob_fail(err, BLOB_E_NOT_FOUND, 0, "%s became shorter than %" PRIu64, path, bytes);
        if (st == BLOB_OK)
            st = file_write_at(to, buf, got, at, path, err);
        at += got;
    }
    free(buf);
    return st;
}

enum blob_status disk_take_over(struct disk_store *s, const struct disk_path *path, int old_fd, uint64_t offset,
                                uint64_t epoch, int *out, struct blob_error *err)
{
    struct disk_path tmp;
    disk_tmp_path(s, &tmp);
    int fd = openat(s->root_fd, tmp.text, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0)
        return file_fail(err, errno, "create", tmp.text);
    enum blob_status st = s->shared ? disk_fence_pass(fd, epoch, tmp.text, err) : BLOB_OK;
    if (st == BLOB_OK)
        st = copy_bytes(old_fd, fd, offset, path->text, err);
    if (st == BLOB_OK)
        st = disk_mark_set(fd, offset, tmp.text, err);
    if (st == BLOB_OK)
        st = file_sync_all(fd, tmp.text, err);
    if (st == BLOB_OK)
        st = file_rename(s->root_fd, tmp.text, path->text, err);
    if (st == BLOB_OK)
        st = disk_dir_sync_parent(s, path->text, err);
    if (st != BLOB_OK) {
        unlinkat(s->root_fd, tmp.text, 0);
        close(fd);
        return st;
    }
    *out = fd;
    return BLOB_OK;
}

/* ---- whose the name is ---- */

/* Has the file no name any more? (A network file system may not find it then.) */
static bool nameless(int fd)
{
    struct stat sb;
    return fstat(fd, &sb) == 0 ? sb.st_nlink == 0 : errno == ESTALE;
}

enum blob_status disk_still_named(struct disk_store *s, int fd, ino_t inode, const struct disk_path *upload,
                                  struct blob_error *err)
{
    struct stat sb;
    int result = fstatat(s->root_fd, upload->text, &sb, 0);
    /* Moved aside for a moment, by one who takes it for another file. */
    for (int i = 0; result != 0 && errno == ENOENT && s->shared && i < ASIDE_TRIES && !nameless(fd); i++) {
        const struct timespec pause = {.tv_nsec = ASIDE_PAUSE_NS};
        nanosleep(&pause, NULL);
        result = fstatat(s->root_fd, upload->text, &sb, 0);
    }
    if (result != 0)
        return errno == ENOENT ? blob_fail(err, BLOB_E_NOT_FOUND, 0, "%s was discarded", upload->text)
                               : file_fail(err, errno, "stat", upload->text);
    if (sb.st_ino != inode)
        return blob_fail(err, BLOB_E_CONFLICT, 0, "%s was taken over", upload->text);
    return BLOB_OK;
}

/* ---- ending ---- */

/* Removes the upload's name while it is that of this file: it is moved aside, looked at, and put back if it is not. */
enum blob_status disk_end_upload(struct disk_store *s, ino_t inode, const struct disk_path *upload,
                                 struct blob_error *err)
{
    struct disk_path aside;
    struct stat sb;
    if (fstatat(s->root_fd, upload->text, &sb, 0) != 0)
        return errno == ENOENT ? BLOB_OK : file_fail(err, errno, "stat", upload->text);
    if (sb.st_ino != inode)
        return BLOB_OK;
    disk_tmp_path(s, &aside);
    if (renameat(s->root_fd, upload->text, s->root_fd, aside.text) != 0)
        return errno == ENOENT ? BLOB_OK : file_fail(err, errno, "move aside", upload->text);
    if (fstatat(s->root_fd, aside.text, &sb, 0) != 0)
        return file_fail(err, errno, "stat", aside.text);
    if (sb.st_ino != inode && linkat(s->root_fd, aside.text, s->root_fd, upload->text, 0) != 0 && errno != EEXIST)
        return file_fail(err, errno, "put back", upload->text);
    enum blob_status st = file_remove(s->root_fd, aside.text, err);
    return st == BLOB_OK ? disk_dir_sync_parent(s, upload->text, err) : st;
}

bool disk_same_content(struct disk_store *s, int fd, uint64_t size, const struct disk_path *blob)
{
    struct stat sb;
    int other = openat(s->root_fd, blob->text, O_RDONLY | O_CLOEXEC);
    char *buf = other >= 0 ? malloc(2 * COMPARE_BYTES) : NULL;
    bool same = buf && fstat(other, &sb) == 0 && (uint64_t)sb.st_size == size;
    for (uint64_t at = 0; same && at < size; at += COMPARE_BYTES) {
        size_t len = size - at < COMPARE_BYTES ? (size_t)(size - at) : COMPARE_BYTES, got = 0, there = 0;
        same = file_read_at(fd, buf, len, at, &got, "upload", NULL) == BLOB_OK &&
               file_read_at(other, buf + COMPARE_BYTES, len, at, &there, blob->text, NULL) == BLOB_OK && got == len &&
               there == len && memcmp(buf, buf + COMPARE_BYTES, len) == 0;
    }
    free(buf);
    if (other >= 0)
        close(other);
    return same;
}

enum blob_status disk_link_open_file(struct disk_store *s, int fd, const struct disk_path *as, struct blob_error *err)
{
    char self[32];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, self, s->root_fd, as->text, AT_SYMLINK_FOLLOW) == 0)
        return BLOB_OK;
    int error = errno;
    if (nameless(fd))
        return blob_fail(err, BLOB_E_CONFLICT, 0, "%s: the open file has no name any more", as->text);
    return file_fail(err, error, "link an open file as", as->text);
}

enum blob_status disk_commit_open_file(struct disk_store *s, int fd, ino_t inode, int64_t touched_ms,
                                       const struct disk_path *upload, const struct disk_path *blob,
                                       struct blob_error *err)
{
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                      {.tv_sec = (time_t)(touched_ms / 1000), .tv_nsec = touched_ms % 1000 * 1000000}};
    struct disk_path tmp;
    if (futimens(fd, times) != 0)
        return file_fail(err, errno, "touch", upload->text);
    enum blob_status st = disk_parents(s, blob, err);
    if (st != BLOB_OK)
        return st;
    disk_tmp_path(s, &tmp);
    st = disk_link_open_file(s, fd, &tmp, err);
    if (st != BLOB_OK)
        return st;
    st = file_rename(s->root_fd, tmp.text, blob->text, err);
    if (st == BLOB_OK)
        st = disk_dir_sync_parent(s, blob->text, err);
    unlinkat(s->root_fd, tmp.text, 0); /* also where both were one file's names: then rename() does nothing */
    return st == BLOB_OK ? disk_end_upload(s, inode, upload, err) : st;
}
