/*
 * power_rig - a disk that can lose power: it records every change that the disk store makes to files and names, with
 * every sync, and can afterwards build what might be left of them had the power failed at any moment.
 *
 * How. The system calls are defined here, in the test program, so the store's calls come here first (a program's own
 * definitions win over the C library's). They are carried out, and recorded in one order. Syncs are recorded with their
 * beginning and end, and not carried out: that the store runs on a real disk does not matter.
 *
 * What survives at moment k. Of a file: each page as it was at some moment between the last sync of the file that had
 * begun and ended by k, and k; its size likewise, and its attributes, which only fsync() and syncfs() promise. Of a
 * directory: its names as of such a moment, by its own syncs; a rename is whole or not there. Names in a directory
 * whose own name is lost are lost. How far beyond what was synced things got is drawn at random: nothing, everything,
 * or anything between. That is harsher than any one file system.
 *
 * Threads: recording from any. One recording at a time. Source: POSIX.1-2017 fsync(): what it does not promise is lost
 * here.
 */
#ifndef BLOBD_TESTS_POWER_RIG_H
#define BLOBD_TESTS_POWER_RIG_H

#include "core/check.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define RIG_FDS      1024
#define RIG_NAMES    16384
#define RIG_INODES   32768
#define RIG_DIRS     4096
#define RIG_OPS      400000
#define RIG_PAGE     4096u
#define RIG_PATH     240
#define RIG_ALL      (-1)
#define RIG_NO_INODE (-2)

enum rig_kind {
    RIG_WRITE,
    RIG_CUT,
    RIG_ATTRIBUTE,
    RIG_LINK,
    RIG_RENAME,
    RIG_UNLINK,
    RIG_MKDIR,
    RIG_SYNC_FILE,
    RIG_SYNC_DIR
};

struct rig_op {
    enum rig_kind kind;
    int inode; /* of a file; RIG_ALL: every file and directory */
    int dir;   /* whose names change or are synced */
    char *name, *from;
    uint64_t offset;
    size_t len;
    uint8_t *data;
    size_t begin; /* syncs: when it began */
    bool whole;   /* syncs of files: attributes too */
};

struct rig_fd {
    bool used, is_dir;
    int inode; /* files */
    char path[RIG_PATH];
};

struct rig {
    pthread_mutex_t lock;
    bool recording;
    bool lying; /* syncs are answered, and do nothing */
    char root[RIG_PATH];
    struct rig_fd fds[RIG_FDS];
    struct {
        char path[RIG_PATH];
        int inode; /* RIG_NO_INODE: removed */
    } * names;
    size_t name_count;
    char (*dirs)[RIG_PATH];
    int dir_count, inode_count;
    struct rig_op *ops;
    size_t op_count;
};

static struct rig rig = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- what is known; the lock is held ---- */

static int rig_dir(const char *path)
{
    for (int i = 0; i < rig.dir_count; i++)
        if (strcmp(rig.dirs[i], path) == 0)
            return i;
    CHECK(rig.dir_count < RIG_DIRS && strlen(path) < RIG_PATH);
    strncat(rig.dirs[rig.dir_count], path, RIG_PATH - 1);
    return rig.dir_count++;
}

static int rig_parent(const char *path)
{
    char parent[RIG_PATH] = "";
    const char *slash = strrchr(path, '/');
    if (slash)
        memcpy(parent, path, (size_t)(slash - path));
    return rig_dir(parent);
}

static int *rig_name(const char *path)
{
    for (size_t i = rig.name_count; i-- > 0;)
        if (strcmp(rig.names[i].path, path) == 0)
            return &rig.names[i].inode;
    CHECK(rig.name_count < RIG_NAMES);
    memcpy(rig.names[rig.name_count].path, path, strlen(path) + 1);
    rig.names[rig.name_count].inode = RIG_NO_INODE;
    return &rig.names[rig.name_count++].inode;
}

/* The path below the root; false: not ours. */
static bool rig_path(int dirfd, const char *path, char out[RIG_PATH])
{
    if (!rig.recording || dirfd < 0 || dirfd >= RIG_FDS || !rig.fds[dirfd].used || !rig.fds[dirfd].is_dir)
        return false;
    const char *base = rig.fds[dirfd].path;
    if (strcmp(path, ".") == 0)
        path = "";
    int n = snprintf(out, RIG_PATH, "%s%s%s", base, base[0] && path[0] ? "/" : "", path);
    CHECK(n < RIG_PATH);
    if (n > 0 && out[n - 1] == '/')
        out[n - 1] = '\0';
    return true;
}

static struct rig_op *rig_add(enum rig_kind kind, int inode, int dir, const char *name, const char *from)
{
    CHECK(rig.op_count < RIG_OPS);
    struct rig_op *op = &rig.ops[rig.op_count++];
    *op = (struct rig_op){.kind = kind, .inode = inode, .dir = dir};
    op->name = name ? strdup(name) : NULL;
    op->from = from ? strdup(from) : NULL;
    return op;
}

static void rig_opened(int fd, const char *path, bool is_dir)
{
    CHECK(fd < RIG_FDS);
    rig.fds[fd] = (struct rig_fd){.used = true, .is_dir = is_dir, .inode = RIG_NO_INODE};
    memcpy(rig.fds[fd].path, path, strlen(path) + 1);
    if (is_dir)
        return;
    int *inode = rig_name(path);
    if (*inode == RIG_NO_INODE) {
        CHECK(rig.inode_count < RIG_INODES);
        *inode = rig.inode_count++;
        rig_add(RIG_LINK, *inode, rig_parent(path), path, NULL);
    }
    rig.fds[fd].inode = *inode;
}

static int rig_file(int fd)
{
    return rig.recording && fd >= 0 && fd < RIG_FDS && rig.fds[fd].used && !rig.fds[fd].is_dir ? rig.fds[fd].inode
                                                                                               : RIG_NO_INODE;
}

static void rig_write(int inode, const void *data, size_t len, uint64_t offset)
{
    struct rig_op *op = rig_add(RIG_WRITE, inode, -1, NULL, NULL);
    op->data = malloc(len + 1);
    CHECK(op->data);
    memcpy(op->data, data, len);
    op->len = len;
    op->offset = offset;
}

/* Now, as a moment to lose power at, or to have something acknowledged by. */
static size_t rig_now(void)
{
    pthread_mutex_lock(&rig.lock);
    size_t now = rig.op_count;
    pthread_mutex_unlock(&rig.lock);
    return now;
}

/* ---- the system calls ---- */

static int rig_real_openat(int dirfd, const char *path, int flags, mode_t mode)
{
    return (int)syscall(SYS_openat, dirfd, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list ap;
    va_start(ap, flags);
    if (flags & O_CREAT)
        mode = va_arg(ap, mode_t);
    va_end(ap);
    pthread_mutex_lock(&rig.lock);
    int fd = rig_real_openat(AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < RIG_FDS)
        rig.fds[fd].used = false;
    if (fd >= 0 && rig.recording && strcmp(path, rig.root) == 0)
        rig_opened(fd, "", true);
    pthread_mutex_unlock(&rig.lock);
    return fd;
}

int openat(int dirfd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list ap;
    va_start(ap, flags);
    if (flags & O_CREAT)
        mode = va_arg(ap, mode_t);
    va_end(ap);
    char whole[RIG_PATH];
    pthread_mutex_lock(&rig.lock);
    bool ours = rig_path(dirfd, path, whole);
    int fd = rig_real_openat(dirfd, path, flags, mode);
    if (fd >= 0 && fd < RIG_FDS)
        rig.fds[fd].used = false;
    if (fd >= 0 && ours)
        rig_opened(fd, whole, (flags & O_DIRECTORY) != 0);
    pthread_mutex_unlock(&rig.lock);
    return fd;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
    pthread_mutex_lock(&rig.lock);
    ssize_t n = syscall(SYS_pwrite64, fd, data, len, offset);
    if (n > 0 && rig_file(fd) >= 0)
        rig_write(rig_file(fd), data, (size_t)n, (uint64_t)offset);
    pthread_mutex_unlock(&rig.lock);
    return n;
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
    pthread_mutex_lock(&rig.lock);
    ssize_t n = syscall(SYS_pwritev, fd, iov, count, offset, 0);
    if (n > 0 && rig_file(fd) >= 0) {
        uint64_t at = (uint64_t)offset;
        for (int i = 0; i < count; i++) {
            rig_write(rig_file(fd), iov[i].iov_base, iov[i].iov_len, at);
            at += iov[i].iov_len;
        }
    }
    pthread_mutex_unlock(&rig.lock);
    return n;
}

int ftruncate(int fd, off_t size)
{
    pthread_mutex_lock(&rig.lock);
    int result = (int)syscall(SYS_ftruncate, fd, size);
    if (result == 0 && rig_file(fd) >= 0)
        rig_add(RIG_CUT, rig_file(fd), -1, NULL, NULL)->offset = (uint64_t)size;
    pthread_mutex_unlock(&rig.lock);
    return result;
}

int fsetxattr(int fd, const char *name, const void *value, size_t len, int flags)
{
    pthread_mutex_lock(&rig.lock);
    int result = (int)syscall(SYS_fsetxattr, fd, name, value, len, flags);
    if (result == 0 && rig_file(fd) >= 0) {
        struct rig_op *op = rig_add(RIG_ATTRIBUTE, rig_file(fd), -1, name, NULL);
        op->data = malloc(len + 1);
        CHECK(op->data);
        memcpy(op->data, value, len);
        op->len = len;
    }
    pthread_mutex_unlock(&rig.lock);
    return result;
}

static void rig_renamed(const char *from, const char *to)
{
    int *source = rig_name(from), inode = *source;
    *source = RIG_NO_INODE;
    *rig_name(to) = inode;
    rig_add(RIG_RENAME, inode, rig_parent(to), to, from);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    char whole_from[RIG_PATH], whole_to[RIG_PATH];
    pthread_mutex_lock(&rig.lock);
    bool ours = rig_path(from_fd, from, whole_from) && rig_path(to_fd, to, whole_to);
    int result = (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0);
    if (result == 0 && ours)
        rig_renamed(whole_from, whole_to);
    pthread_mutex_unlock(&rig.lock);
    return result;
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    char whole_from[RIG_PATH], whole_to[RIG_PATH];
    pthread_mutex_lock(&rig.lock);
    int fd = -1, inode = sscanf(from, "/proc/self/fd/%d", &fd) == 1 ? rig_file(fd) : RIG_NO_INODE;
    bool ours = rig_path(to_fd, to, whole_to) && (inode >= 0 || rig_path(from_fd, from, whole_from));
    int result = (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
    if (result == 0 && ours) {
        inode = inode >= 0 ? inode : *rig_name(whole_from);
        *rig_name(whole_to) = inode;
        rig_add(RIG_LINK, inode, rig_parent(whole_to), whole_to, NULL);
    }
    pthread_mutex_unlock(&rig.lock);
    return result;
}

int unlinkat(int dirfd, const char *path, int flags)
{
    char whole[RIG_PATH];
    pthread_mutex_lock(&rig.lock);
    bool ours = rig_path(dirfd, path, whole);
    int result = (int)syscall(SYS_unlinkat, dirfd, path, flags);
    if (result == 0 && ours) {
        *rig_name(whole) = RIG_NO_INODE;
        rig_add(RIG_UNLINK, RIG_NO_INODE, rig_parent(whole), whole, NULL);
    }
    pthread_mutex_unlock(&rig.lock);
    return result;
}

int mkdirat(int dirfd, const char *path, mode_t mode)
{
    char whole[RIG_PATH];
    pthread_mutex_lock(&rig.lock);
    bool ours = rig_path(dirfd, path, whole);
    int result = (int)syscall(SYS_mkdirat, dirfd, path, mode);
    if (result == 0 && ours) {
        rig_dir(whole);
        rig_add(RIG_MKDIR, RIG_NO_INODE, rig_parent(whole), whole, NULL);
    }
    pthread_mutex_unlock(&rig.lock);
    return result;
}

/* Takes a while, in which others go on; what was written before it began is durable when it has ended. */
static int rig_sync(int fd, bool all, bool whole)
{
    pthread_mutex_lock(&rig.lock);
    bool ours = rig.recording && fd >= 0 && fd < RIG_FDS && rig.fds[fd].used;
    size_t begin = rig.op_count;
    struct rig_fd target = ours ? rig.fds[fd] : (struct rig_fd){.used = false};
    pthread_mutex_unlock(&rig.lock);
    usleep(200);
    if (!ours || rig.lying)
        return 0;
    pthread_mutex_lock(&rig.lock);
    struct rig_op *op;
    if (all)
        op = rig_add(RIG_SYNC_FILE, RIG_ALL, RIG_ALL, NULL, NULL);
    else if (target.is_dir)
        op = rig_add(RIG_SYNC_DIR, RIG_NO_INODE, rig_dir(target.path), NULL, NULL);
    else
        op = rig_add(RIG_SYNC_FILE, target.inode, -1, NULL, NULL);
    op->begin = begin;
    op->whole = whole;
    pthread_mutex_unlock(&rig.lock);
    return 0;
}

int fdatasync(int fd)
{
    return rig_sync(fd, false, false);
}

int fsync(int fd)
{
    return rig_sync(fd, false, true);
}

int syncfs(int fd)
{
    return rig_sync(fd, true, true);
}

/* ---- recording ---- */

static void rig_start(const char *root)
{
    rig.names = calloc(RIG_NAMES, sizeof *rig.names);
    rig.dirs = calloc(RIG_DIRS, sizeof *rig.dirs);
    rig.ops = calloc(RIG_OPS, sizeof *rig.ops);
    CHECK(rig.names && rig.dirs && rig.ops && strlen(root) < RIG_PATH);
    memcpy(rig.root, root, strlen(root) + 1);
    rig.name_count = rig.op_count = 0;
    rig.dir_count = rig.inode_count = 0;
    rig_dir("");
    rig.recording = true;
}

static void rig_stop(void)
{
    pthread_mutex_lock(&rig.lock);
    rig.recording = false;
    memset(rig.fds, 0, sizeof rig.fds);
    pthread_mutex_unlock(&rig.lock);
}

static void rig_release(void)
{
    for (size_t i = 0; i < rig.op_count; i++) {
        free(rig.ops[i].name);
        free(rig.ops[i].from);
        free(rig.ops[i].data);
    }
    free(rig.names);
    free(rig.dirs);
    free(rig.ops);
}

/* ---- what is left ---- */

enum rig_luck { RIG_NOTHING, RIG_EVERYTHING, RIG_NAMES_ONLY, RIG_CONTENT_ONLY, RIG_ANYTHING, RIG_LUCKS };

struct rig_left {
    size_t moment;
    enum rig_luck luck;
    unsigned seed;
    size_t *file_synced, *attributes_synced, *dir_until; /* by inode, by inode, by directory */
    int *names;                                          /* inode by index in rig.names */
    bool *dir_there;
};

static size_t rig_draw(struct rig_left *left, size_t from, bool is_name)
{
    if (left->luck == RIG_EVERYTHING || left->luck == (is_name ? RIG_NAMES_ONLY : RIG_CONTENT_ONLY))
        return left->moment;
    if (left->luck != RIG_ANYTHING || from >= left->moment)
        return from;
    switch (rand_r(&left->seed) % 3) {
    case 0:
        return from;
    case 1:
        return left->moment;
    default:
        return from + (size_t)rand_r(&left->seed) % (left->moment - from + 1);
    }
}

static size_t rig_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

static void rig_find_synced(struct rig_left *left)
{
    for (size_t i = 0; i < left->moment; i++) {
        const struct rig_op *op = &rig.ops[i];
        if (op->kind != RIG_SYNC_FILE && op->kind != RIG_SYNC_DIR)
            continue;
        for (int n = 0; n < rig.inode_count; n++)
            if (op->inode == RIG_ALL || op->inode == n)
                left->file_synced[n] = rig_max(left->file_synced[n], op->begin);
        for (int n = 0; n < rig.inode_count; n++)
            if (op->whole && (op->inode == RIG_ALL || op->inode == n))
                left->attributes_synced[n] = rig_max(left->attributes_synced[n], op->begin);
        for (int n = 0; n < rig.dir_count; n++)
            if (op->inode == RIG_ALL || (op->kind == RIG_SYNC_DIR && op->dir == n))
                left->dir_until[n] = rig_max(left->dir_until[n], op->begin);
    }
    for (int n = 0; n < rig.dir_count; n++)
        left->dir_until[n] = rig_draw(left, left->dir_until[n], true);
}

static size_t rig_name_index(const char *path)
{
    for (size_t i = 0; i < rig.name_count; i++)
        if (strcmp(rig.names[i].path, path) == 0)
            return i;
    CHECK(false);
    return 0;
}

static void rig_find_names(struct rig_left *left)
{
    left->dir_there[rig_dir("")] = true;
    for (size_t i = 0; i < left->moment; i++) {
        const struct rig_op *op = &rig.ops[i];
        if (op->kind < RIG_LINK || op->kind > RIG_MKDIR || i >= left->dir_until[op->dir])
            continue;
        /* Into a directory that is lost: then the rename has not happened, and the name is where it was. */
        if (op->kind == RIG_RENAME && !left->dir_there[op->dir])
            continue;
        if (op->kind == RIG_MKDIR) {
            left->dir_there[rig_dir(op->name)] = left->dir_there[op->dir];
            continue;
        }
        if (op->kind == RIG_RENAME)
            left->names[rig_name_index(op->from)] = RIG_NO_INODE;
        left->names[rig_name_index(op->name)] = op->inode;
    }
}

/* Writes the file of an inode, as far as it survived. */
static void rig_build_file(struct rig_left *left, int inode, const char *path)
{
    uint64_t end = 0, size = 0;
    size_t size_until = rig_draw(left, left->file_synced[inode], false);
    for (size_t i = 0; i < left->moment; i++) {
        const struct rig_op *op = &rig.ops[i];
        if (op->inode != inode || (op->kind != RIG_WRITE && op->kind != RIG_CUT))
            continue;
        if (op->kind == RIG_WRITE && op->offset + op->len > end)
            end = op->offset + op->len;
        if (i < size_until)
            size = op->kind == RIG_CUT ? op->offset : rig_max(size, op->offset + op->len);
    }
    size_t pages = (size_t)(end / RIG_PAGE) + 1;
    size_t *until = calloc(pages, sizeof *until);
    uint8_t *bytes = calloc(pages, RIG_PAGE);
    CHECK(until && bytes);
    for (size_t p = 0; p < pages; p++)
        until[p] = rig_draw(left, left->file_synced[inode], false);
    for (size_t i = 0; i < left->moment; i++) {
        const struct rig_op *op = &rig.ops[i];
        if (op->inode != inode || (op->kind != RIG_WRITE && op->kind != RIG_CUT))
            continue;
        uint64_t op_end = op->kind == RIG_WRITE ? op->offset + op->len : end;
        for (uint64_t at = op->offset; at < op_end;) {
            uint64_t next = (at / RIG_PAGE + 1) * RIG_PAGE < op_end ? (at / RIG_PAGE + 1) * RIG_PAGE : op_end;
            if (i < until[at / RIG_PAGE] && op->kind == RIG_WRITE)
                memcpy(bytes + at, op->data + (at - op->offset), (size_t)(next - at));
            else if (i < until[at / RIG_PAGE])
                memset(bytes + at, 0, (size_t)(next - at));
            at = next;
        }
    }
    int fd = rig_real_openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    if (size > 0 && size <= pages * RIG_PAGE)
        CHECK(syscall(SYS_pwrite64, fd, bytes, (size_t)size, 0) == (ssize_t)size);
    size_t attributes_until = rig_draw(left, left->attributes_synced[inode], true);
    for (size_t i = 0; i < attributes_until; i++) {
        const struct rig_op *op = &rig.ops[i];
        if (op->inode == inode && op->kind == RIG_ATTRIBUTE)
            CHECK(syscall(SYS_fsetxattr, fd, op->name, op->data, op->len, 0) == 0);
    }
    close(fd);
    free(until);
    free(bytes);
}

/* Makes, in an empty directory, what is left had the power failed at `moment`. Not while recording. */
static void rig_build(const char *into, size_t moment, enum rig_luck luck, unsigned seed)
{
    struct rig_left left = {.moment = moment, .luck = luck, .seed = seed};
    left.file_synced = calloc((size_t)rig.inode_count + 1, sizeof *left.file_synced);
    left.attributes_synced = calloc((size_t)rig.inode_count + 1, sizeof *left.attributes_synced);
    left.dir_until = calloc(RIG_DIRS, sizeof *left.dir_until);
    left.names = calloc(rig.name_count + 1, sizeof *left.names);
    left.dir_there = calloc(RIG_DIRS, sizeof *left.dir_there);
    CHECK(left.file_synced && left.attributes_synced && left.dir_until && left.names && left.dir_there);
    for (size_t i = 0; i < rig.name_count; i++)
        left.names[i] = RIG_NO_INODE;
    rig_find_synced(&left);
    rig_find_names(&left);
    char path[2 * RIG_PATH];
    for (int i = 1; i < rig.dir_count; i++) {
        snprintf(path, sizeof path, "%s/%s", into, rig.dirs[i]);
        if (left.dir_there[i])
            CHECK(mkdir(path, 0700) == 0 || errno == EEXIST);
    }
    for (size_t i = 0; i < rig.name_count; i++) {
        if (left.names[i] < 0 || !left.dir_there[rig_parent(rig.names[i].path)])
            continue;
        snprintf(path, sizeof path, "%s/%s", into, rig.names[i].path);
        rig_build_file(&left, left.names[i], path);
    }
    free(left.file_synced);
    free(left.attributes_synced);
    free(left.dir_until);
    free(left.names);
    free(left.dir_there);
}

#endif
