/*
 * disk_self_check - tries on the real disk what the store relies on, for blobd --check-storage; and at each start,
 * without the figures, what makes a file system unfit.
 *
 * It works in tmp/, under names of its own, and leaves nothing behind.
 */
#include "backends/disk/disk_impl.h"
#include "backends/disk/disk_shared.h"
#include "backends/disk/file/durable_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define PROBE_BYTES 16384
#define SYNC_ROUNDS 20

struct probe {
    struct disk_store *s;
    struct disk_path file, renamed;
    store_report_fn *report;
    void *arg;
    enum blob_status first;
    struct blob_error *err;
};

static bool report(struct probe *p, enum blob_status st, const char *what, const char *meaning,
                   const struct blob_error *why)
{
    if (st == BLOB_OK) {
        p->report(true, what, meaning, p->arg);
        return true;
    }
    p->report(false, what, why->text, p->arg);
    if (p->first == BLOB_OK) {
        p->first = st;
        if (p->err)
            *p->err = *why;
    }
    return false;
}

static enum blob_status write_and_read_back(struct probe *p, struct blob_error *why)
{
    char written[PROBE_BYTES], read_back[PROBE_BYTES];
    memset(written, 0x5a, sizeof written);
    enum blob_status st = file_create(p->s->root_fd, p->file.text, written, sizeof written, true, why);
    if (st != BLOB_OK)
        return st;
    int fd = openat(p->s->root_fd, p->file.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(why, errno, "open", p->file.text);
    size_t got = 0;
    st = file_read_at(fd, read_back, sizeof read_back, 0, &got, p->file.text, why);
    close(fd);
    if (st == BLOB_OK && (got != sizeof written || memcmp(written, read_back, got) != 0))
        st = blob_fail(why, BLOB_E_CORRUPT, 0, "%s reads back differently", p->file.text);
    return st;
}

static enum blob_status rename_and_link(struct probe *p, struct blob_error *why)
{
    enum blob_status st = file_rename(p->s->root_fd, p->file.text, p->renamed.text, why);
    if (st == BLOB_OK)
        st = dir_sync(p->s->root_fd, DISK_TMP, why);
    if (st != BLOB_OK)
        return st;
    if (linkat(p->s->root_fd, p->renamed.text, p->s->root_fd, p->file.text, 0) != 0)
        return file_fail(why, errno, "link", p->file.text);
    if (linkat(p->s->root_fd, p->renamed.text, p->s->root_fd, p->file.text, 0) == 0)
        return blob_fail(why, BLOB_E_UNSUPPORTED, 0, "link() replaces a file that is there");
    return BLOB_OK;
}

/* What nodes that share the directory commit by. */
static enum blob_status link_open_file(struct probe *p, struct blob_error *why)
{
    int fd = openat(p->s->root_fd, p->renamed.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(why, errno, "open", p->renamed.text);
    unlinkat(p->s->root_fd, p->file.text, 0);
    enum blob_status st = disk_link_open_file(p->s, fd, &p->file, why);
    close(fd);
    return st;
}

static enum blob_status keeps_times(struct probe *p, struct blob_error *why)
{
    const int64_t ms = INT64_C(1700000000123);
    struct stat sb;
    enum blob_status st = file_set_mtime(p->s->root_fd, p->renamed.text, ms, why);
    if (st != BLOB_OK)
        return st;
    if (fstatat(p->s->root_fd, p->renamed.text, &sb, 0) != 0)
        return file_fail(why, errno, "stat", p->renamed.text);
    if (file_mtime_ms(&sb) != ms)
        return blob_fail(why, BLOB_E_UNSUPPORTED, 0, "a file's time is not kept to the millisecond");
    return BLOB_OK;
}

/* Content and records are renamed between these directories: one that is a mount of its own, or a link to another disk,
 * would take uploads and never finish them. */
static enum blob_status moves_between(struct probe *p, struct blob_error *why)
{
    static const char *const dirs[] = {DISK_UPLOADS, DISK_BLOBS, DISK_RECORDS};
    for (size_t i = 0; i < sizeof dirs / sizeof dirs[0]; i++) {
        char there[DISK_PATH_MAX + 32];
        snprintf(there, sizeof there, "%s/%s", dirs[i], strrchr(p->renamed.text, '/') + 1);
        if (renameat(p->s->root_fd, p->renamed.text, p->s->root_fd, there) != 0)
            return blob_fail(why, errno == EXDEV ? BLOB_E_UNSUPPORTED : blob_status_from_errno(errno), errno,
                             "move a file from " DISK_TMP "/ to %s/, which must be on one file system", dirs[i]);
        if (renameat(p->s->root_fd, there, p->s->root_fd, p->renamed.text) != 0)
            return blob_fail(why, blob_status_from_errno(errno), errno, "move a file back from %s/", dirs[i]);
    }
    return BLOB_OK;
}

/* The mean of some syncs of a small overwrite. */
static enum blob_status time_syncs(struct probe *p, int64_t *mean_us, struct blob_error *why)
{
    int fd = openat(p->s->root_fd, p->renamed.text, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(why, errno, "open", p->renamed.text);
    int64_t began_us = clock_steady_us();
    enum blob_status st = BLOB_OK;
    for (int i = 0; st == BLOB_OK && i < SYNC_ROUNDS; i++) {
        st = file_write_at(fd, &i, sizeof i, 0, p->renamed.text, why);
        if (st == BLOB_OK)
            st = file_sync(fd, p->renamed.text, why);
    }
    close(fd);
    *mean_us = (clock_steady_us() - began_us) / SYNC_ROUNDS;
    return st;
}

/* Either way is well: where it cannot be, large uploads go through the page cache. */
static bool passes_page_cache(struct probe *p)
{
    _Alignas(DIRECT_PAGE) char page[DIRECT_PAGE] = {0};
    int fd = p->s->direct ? openat(p->s->root_fd, p->renamed.text, O_WRONLY | O_DIRECT | O_CLOEXEC) : -1;
    if (fd < 0)
        return false;
    bool passes = pwrite(fd, page, sizeof page, 0) == (ssize_t)sizeof page;
    close(fd);
    return passes;
}

static void check_room(struct probe *p)
{
    struct blob_error why;
    struct statvfs vfs;
    char meaning[160];
    enum blob_status st = BLOB_OK;
    if (fstatvfs(p->s->root_fd, &vfs) != 0) {
        st = file_fail(&why, errno, "look at", "the storage root");
    } else {
        uint64_t free_mib = ((uint64_t)vfs.f_bavail * vfs.f_frsize) >> 20, reserve_mib = p->s->reserve_bytes >> 20;
        snprintf(meaning, sizeof meaning,
                 "%" PRIu64 " MiB free, %" PRIu64 " MiB of it kept in reserve; %" PRIu64 " more files", free_mib,
                 reserve_mib, (uint64_t)vfs.f_favail);
        if (free_mib <= reserve_mib)
            st = blob_fail(&why, BLOB_E_NO_SPACE, 0, "%s: uploads are refused", meaning);
    }
    report(p, st, "free space", meaning, &why);
}

enum blob_status disk_self_check(struct blob_store *base, store_report_fn *fn, void *arg, struct blob_error *err)
{
    struct probe p = {.s = disk_of(base), .report = fn, .arg = arg, .first = BLOB_OK, .err = err};
    struct blob_error why = {0};
    char meaning[160];
    disk_tmp_path(p.s, &p.file);
    disk_tmp_path(p.s, &p.renamed);
    check_room(&p);
    if (report(&p, write_and_read_back(&p, &why), "write, fsync, read back", "content can be made durable", &why) &&
        report(&p, rename_and_link(&p, &why), "rename, link, fsync of the directory",
               "finished content and records appear whole or not at all", &why)) {
        if (p.s->shared)
            report(&p, link_open_file(&p, &why), "link of an open file (by /proc/self/fd)",
                   "a node that lost an upload cannot finish another's", &why);
        report(&p, moves_between(&p, &why), "rename between directories", "content moves without being copied", &why);
        report(&p, keeps_times(&p, &why), "file times", "the grace time of unused content is kept", &why);
        int64_t mean_us = 0;
        enum blob_status st = time_syncs(&p, &mean_us, &why);
        snprintf(meaning, sizeof meaning, "%" PRId64 " microseconds each; %s", mean_us,
                 mean_us < 20 ? "so fast that this disk may not be durable (memory, or a cache that ignores flushes)"
                              : "uploads that finish together share one");
        report(&p, st, "time of a sync", meaning, &why);
        report(&p, BLOB_OK, "attributes",
               p.s->attributes ? "kept: uploads tell how far they are durable"
                               : "not kept: after a power cut an upload may be told longer than it is",
               NULL);
        report(&p, BLOB_OK, "large writes",
               passes_page_cache(&p) ? "pass by the page cache (O_DIRECT)"
                                     : "go through the page cache: O_DIRECT is not to be had here, or nodes share it",
               NULL);
    }
    unlinkat(p.s->root_fd, p.file.text, 0);
    unlinkat(p.s->root_fd, p.renamed.text, 0);
    if (p.s->journal)
        report(&p, disk_journal_checkpoint(p.s->journal, &why), "journal", "small changes share their syncs", &why);
    return p.first;
}

enum blob_status disk_probe(struct disk_store *s, const char *root, struct blob_error *err)
{
    struct probe p = {.s = s};
    struct blob_error why = {.text = ""};
    disk_tmp_path(s, &p.file);
    disk_tmp_path(s, &p.renamed);
    enum blob_status st = write_and_read_back(&p, &why);
    if (st == BLOB_OK)
        st = rename_and_link(&p, &why);
    if (st == BLOB_OK && s->shared)
        st = link_open_file(&p, &why);
    if (st == BLOB_OK)
        st = moves_between(&p, &why);
    if (st == BLOB_OK)
        st = keeps_times(&p, &why);
    unlinkat(s->root_fd, p.file.text, 0);
    unlinkat(s->root_fd, p.renamed.text, 0);
    if (st == BLOB_OK || st == BLOB_E_NO_SPACE) /* what is stored can be served all the same */
        return BLOB_OK;
    return blob_fail(err, st, 0, "the file system of %.60s lacks what blobd relies on (docs/storage.md): %.130s", root,
                     why.text);
}
