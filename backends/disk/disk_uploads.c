/*
 * disk_uploads - staged uploads: a file each, appended to, and renamed when it is finished.
 *
 * Bytes go to the file at once. A flush of a little makes them durable by putting them into the journal as well (the
 * file follows at the next checkpoint); a flush of much syncs the file, whose write-back was begun while it grew, and
 * its name. Committing renames the file: nothing is copied, so it costs the same for any size.
 *
 * A lazy flush of much is synced all the same: any later durable operation, of any upload, would have to do it
 * otherwise.
 *
 * Invariants: what is in [0, flushed) of a writer's file is durable, or in the journal at or before its end. A file in
 * uploads/ may be longer than what was flushed, which its mark tells (disk_marks); staged_open cuts it.
 */
#include "backends/disk/disk_impl.h"
#include "backends/disk/disk_marks.h"
#include "backends/disk/disk_shared.h"
#include "backends/disk/file/disk_bytes.h"
#include "backends/disk/file/durable_file.h"
#include "core/check.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITER_MAGIC     0x64736b77u
#define WRITE_BACK_BYTES (4u << 20)
#define WRITE_PARTS      4

struct disk_writer {
    struct blob_writer base;
    unsigned magic;
    struct uuid id;
    struct disk_path path;
    int fd;
    ino_t inode;
    uint64_t flushed;
    uint64_t written_back; /* write-back was begun up to here */
    bool name_synced;      /* its entry in uploads/ */
    bool journal_only; /* of what was flushed, the journal may have bytes that the file's own syncs have not covered */
    pthread_mutex_t direct_lock;
    struct direct_file *direct; /* NULL until used; a flush beside a write may want what it holds */
    bool direct_refused;
    enum blob_status lost; /* a sync of the file has failed: nothing beyond `flushed` can be believed */
    struct blob_error lost_error;
};

static struct disk_writer *writer_of(struct blob_writer *base)
{
    struct disk_writer *w = (struct disk_writer *)base;
    MAGIC_OK(w, WRITER_MAGIC);
    return w;
}

static enum blob_status writer_lost(const struct disk_writer *w, struct blob_error *err)
{
    if (err)
        *err = w->lost_error;
    return w->lost;
}

/* ---- opening ---- */

static enum blob_status cut_file(int fd, uint64_t offset, const char *path, struct blob_error *err)
{
    return ftruncate(fd, (off_t)offset) == 0 ? BLOB_OK : file_fail(err, errno, "cut", path);
}

/*
 * Takes back what was flushed beyond offset. Durable before anything can be written in its place: a start would bring
 * it back, or a mixture.
 */
static enum blob_status take_back(struct disk_store *s, int fd, const struct uuid *id, const struct disk_path *path,
                                  uint64_t offset, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    if (s->journal) {
        const struct disk_mark_entry entry = {.kind = JOURNAL_TRUNCATE, .offset = offset, .flushed = offset};
        struct journal_ticket ticket;
        st = disk_marks_journal(s, id, &entry, &ticket, err);
        if (st == BLOB_OK)
            st = disk_journal_wait(s->journal, ticket.lsn, err);
        return st == BLOB_OK ? cut_file(fd, offset, path->text, err) : st;
    }
    st = disk_mark_set(fd, offset, path->text, err);
    if (st == BLOB_OK)
        st = cut_file(fd, offset, path->text, err);
    return st == BLOB_OK ? file_sync_all(fd, path->text, err) : st;
}

/* Brings an open file back to from->offset. */
static enum blob_status go_back(struct disk_store *s, int fd, const struct uuid *id, const struct disk_path *path,
                                const struct upload_mark *from, uint64_t epoch, int *own, struct stat *sb,
                                struct blob_error *err)
{
    uint64_t size = (uint64_t)sb->st_size, flushed = 0, lsn;
    enum blob_status st = size > 0 ? disk_mark_flushed(s, path, fd, size, &flushed, &lsn, err) : BLOB_OK;
    if (st != BLOB_OK)
        return st;
    if (flushed < from->offset)
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "%s has less than %" PRIu64 " bytes", path->text, from->offset);
    if (s->shared)
        st = disk_fence_pass(fd, epoch, path->text, err);
    if (st != BLOB_OK)
        return st;
    bool moves = (s->shared && from->contended) || sb->st_nlink > 1;
    if (moves)
        st = disk_take_over(s, path, fd, from->offset, epoch, own, err);
    if (st != BLOB_OK || (moves && !s->journal))
        return st;
    if (flushed > from->offset)
        return take_back(s, moves ? *own : fd, id, path, from->offset, err);
    if (moves)
        return BLOB_OK;
    return size > from->offset ? cut_file(fd, from->offset, path->text, err) : BLOB_OK;
}

static enum blob_status upload_fd(struct disk_store *s, const struct uuid *id, const struct disk_path *path,
                                  const struct upload_mark *from, uint64_t epoch, int *out, struct stat *sb,
                                  struct blob_error *err)
{
    enum blob_status st = from->offset == 0 ? disk_parents(s, path, err) : BLOB_OK;
    if (st != BLOB_OK)
        return st;
    int fd = openat(s->root_fd, path->text, O_RDWR | O_CLOEXEC | (from->offset == 0 ? O_CREAT : 0), 0640);
    if (fd < 0)
        return file_fail(err, errno, "open", path->text);
    int own = -1;
    st = fstat(fd, sb) == 0 ? go_back(s, fd, id, path, from, epoch, &own, sb, err)
                            : file_fail(err, errno, "stat", path->text);
    if (own >= 0) {
        close(fd);
        fd = own;
    }
    if (st == BLOB_OK && own >= 0) {
        st = fstat(fd, sb) == 0 ? BLOB_OK : file_fail(err, errno, "stat", path->text);
    }
    if (st != BLOB_OK) {
        close(fd);
        return st;
    }
    *out = fd;
    return BLOB_OK;
}

enum blob_status disk_upload_open(struct blob_store *base, const struct uuid *id, const struct upload_mark *from,
                                  uint64_t epoch, struct blob_writer **out, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct disk_writer *w = calloc(1, sizeof *w);
    if (!w)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "upload %s", id->text);
    *w = (struct disk_writer){.base = {.store = base, .position = from->offset},
                              .magic = WRITER_MAGIC,
                              .id = *id,
                              .flushed = from->offset,
                              .written_back = from->offset,
                              .journal_only = false};
    pthread_mutex_init(&w->direct_lock, NULL);
    disk_upload_path(id, &w->path);
    w->journal_only = from->offset > 0 && disk_marks_journal_only(s, &w->path);
    struct stat sb = {0};
    enum blob_status st = disk_upload_ending(s, &w->path) ? disk_settle_all(s, err) : BLOB_OK;
    if (st == BLOB_OK)
        st = upload_fd(s, id, &w->path, from, epoch, &w->fd, &sb, err);
    if (st != BLOB_OK) {
        pthread_mutex_destroy(&w->direct_lock);
        free(w);
        return st;
    }
    w->inode = sb.st_ino;
    *out = &w->base;
    return BLOB_OK;
}

/* ---- writing and flushing ---- */

/* Opens the file once more, past the page cache. Another file may have the upload's name by now, where it was taken
 * over: then it is not used. */
static bool open_direct(struct disk_store *s, struct disk_writer *w)
{
    struct stat sb;
    int fd = openat(s->root_fd, w->path.text, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &sb) == 0 && sb.st_ino == w->inode)
        return direct_file_new(s->direct, fd, w->fd, &w->direct, NULL) == BLOB_OK;
    if (fd >= 0)
        close(fd);
    return false;
}

/* Writes with direct_lock held. UNSUPPORTED: the caller writes by the page cache. */
static enum blob_status write_direct(struct disk_store *s, struct disk_writer *w, const struct iovec *parts, int count,
                                     struct blob_error *err)
{
    if (!w->direct && (w->direct_refused || !open_direct(s, w))) {
        w->direct_refused = true;
        return BLOB_E_UNSUPPORTED;
    }
    return direct_file_write(w->direct, parts, count, w->base.position, w->path.text, err);
}

static enum blob_status write_cached(struct disk_writer *w, const struct iovec *parts, int count,
                                     struct blob_error *err)
{
    enum blob_status st = w->direct ? direct_file_settle(w->direct, w->path.text, err) : BLOB_OK;
    uint64_t end = w->base.position;
    for (int i = 0; i < count && st == BLOB_OK; i += WRITE_PARTS) {
        struct iovec run[WRITE_PARTS];
        int n = count - i < WRITE_PARTS ? count - i : WRITE_PARTS;
        memcpy(run, parts + i, (size_t)n * sizeof run[0]);
        st = file_write_parts_at(w->fd, run, n, end, w->path.text, err);
        end += parts_bytes(parts + i, n);
    }
    if (st != BLOB_OK)
        return st;
    if (end - w->written_back >= WRITE_BACK_BYTES) {
        sync_file_range(w->fd, (off_t)w->written_back, (off_t)(end - w->written_back), SYNC_FILE_RANGE_WRITE);
        w->written_back = end;
    }
    return BLOB_OK;
}

enum blob_status disk_write(struct blob_writer *base, const struct iovec *parts, int count, struct blob_error *err)
{
    struct disk_writer *w = writer_of(base);
    struct disk_store *s = disk_of(base->store);
    uint64_t position = base->position;
    size_t len = parts_bytes(parts, count);
    enum blob_status st = BLOB_E_UNSUPPORTED;
    pthread_mutex_lock(&w->direct_lock);
    if (s->direct && position >= s->keep_cached_bytes && len >= s->direct_min_bytes)
        st = write_direct(s, w, parts, count, err);
    if (st == BLOB_E_UNSUPPORTED)
        st = write_cached(w, parts, count, err);
    if (st == BLOB_OK) {
        __atomic_store_n(&base->position, position + len, __ATOMIC_RELEASE);
    } else {
        /* Some bytes may have been written. If they cannot be cut here, the next opening cuts them. */
        int cut = ftruncate(w->fd, (off_t)(w->direct ? direct_file_in_file(w->direct, position) : position));
        (void)cut;
    }
    pthread_mutex_unlock(&w->direct_lock);
    return st;
}

/* Makes the upload's name durable. With the journal its directory may be new, and that one's name not durable yet. */
static enum blob_status sync_upload_name(struct disk_store *s, const struct disk_writer *w, struct blob_error *err)
{
    enum blob_status st = disk_dir_sync_parent(s, w->path.text, err);
    return st == BLOB_OK && s->journal ? disk_dir_sync(s, DISK_UPLOADS, err) : st;
}

/* Pages that leave come back with the next bytes. New ones may cost far more than the copy into them, on a virtual
 * machine whose host gives and takes memory. */
static void leave_cache(const struct disk_store *s, const struct disk_writer *w, uint64_t offset)
{
    uint64_t from = w->flushed > s->keep_cached_bytes ? w->flushed : s->keep_cached_bytes;
    if (offset > from)
        posix_fadvise(w->fd, (off_t)from, (off_t)(offset - from), POSIX_FADV_DONTNEED);
}

/*
 * The kernel tells it once, and takes the pages for clean: another sync would succeed, and mean nothing. So it is this
 * writer's end. With the journal, pages of what came by it before may have gone too: that is there until a start puts
 * it back, so the journal must not let go of it.
 */
static enum blob_status sync_failed(struct disk_store *s, struct disk_writer *w, enum blob_status st,
                                    const struct blob_error *why, struct blob_error *err)
{
    w->lost = st;
    w->lost_error = *why;
    if (w->journal_only)
        disk_break(s, st, why);
    return writer_lost(w, err);
}

static enum blob_status sync_upload(struct disk_store *s, struct disk_writer *w, uint64_t offset, bool ends,
                                    struct blob_error *err)
{
    struct blob_error why = {0};
    enum blob_status st = s->journal || ends ? file_sync(w->fd, w->path.text, &why)
                                             : disk_mark_sync(s, w->fd, w->flushed, offset, w->path.text, &why);
    if (st != BLOB_OK)
        return sync_failed(s, w, st, &why, err);
    w->journal_only = false;
    if (!w->name_synced)
        st = sync_upload_name(s, w, err);
    if (st != BLOB_OK)
        return st;
    w->name_synced = true;
    leave_cache(s, w, offset);
    const struct disk_mark_entry entry = {.kind = JOURNAL_FLUSHED, .offset = offset, .flushed = offset};
    struct journal_ticket ticket;
    return s->journal ? disk_marks_journal(s, &w->id, &entry, &ticket, err) : BLOB_OK;
}

static enum blob_status journal_range(struct disk_store *s, struct disk_writer *w, uint64_t offset,
                                      struct blob_error *err)
{
    size_t len = (size_t)(offset - w->flushed), got = 0;
    char *buf = malloc(len);
    if (!buf)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "%s", w->path.text);
    enum blob_status st = file_read_at(w->fd, buf, len, w->flushed, &got, w->path.text, err);
    if (st == BLOB_OK && got < len)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "%s is shorter than what was written", w->path.text);
    const struct disk_mark_entry entry = {
        .kind = JOURNAL_DATA, .offset = w->flushed, .data = buf, .len = len, .flushed = offset};
    struct journal_ticket ticket;
    if (st == BLOB_OK)
        st = disk_marks_journal(s, &w->id, &entry, &ticket, err);
    free(buf);
    w->journal_only = w->journal_only || st == BLOB_OK;
    return st;
}

/* What is to be flushed must be in the file. A write may go on beside this flush, but not while the bytes that
 * direct_file holds are put there. */
static enum blob_status settle_direct(struct disk_writer *w, uint64_t offset, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    pthread_mutex_lock(&w->direct_lock);
    if (w->direct && offset > direct_file_in_file(w->direct, w->base.position))
        st = direct_file_settle(w->direct, w->path.text, err);
    pthread_mutex_unlock(&w->direct_lock);
    return st;
}

/* Brings [flushed, offset) to the disk or to the journal. ends is set for a commit, which needs no mark. */
static enum blob_status flush_range(struct disk_store *s, struct disk_writer *w, uint64_t offset, bool ends,
                                    struct blob_error *err)
{
    if (w->lost != BLOB_OK)
        return writer_lost(w, err);
    if (offset <= w->flushed)
        return BLOB_OK;
    enum blob_status st = settle_direct(w, offset, err);
    bool small = s->journal && offset - w->flushed <= JOURNAL_FLUSH_MAX;
    if (st == BLOB_OK)
        st = small ? journal_range(s, w, offset, err) : sync_upload(s, w, offset, ends, err);
    if (st == BLOB_OK && (s->journal || !ends))
        w->flushed = offset;
    return st;
}

enum blob_status disk_flush(struct blob_writer *base, uint64_t offset, const void *keep, size_t keep_len,
                            unsigned flags, struct upload_mark *mark, struct blob_error *err)
{
    (void)keep;
    (void)keep_len;
    struct disk_writer *w = writer_of(base);
    struct disk_store *s = disk_of(base->store);
    enum blob_status st = flush_range(s, w, offset, false, err);
    if (st == BLOB_OK && s->shared)
        st = disk_still_named(s, w->fd, w->inode, &w->path, err);
    if (st == BLOB_OK && s->journal && !(flags & BLOB_LAZY)) {
        st = disk_journal_wait(s->journal, disk_journal_end(s->journal), err);
        disk_settle_durable(s, NULL);
    }
    if (st != BLOB_OK)
        return st;
    *mark = (struct upload_mark){.offset = offset};
    return BLOB_OK;
}

void disk_writer_close(struct blob_writer *base)
{
    struct disk_writer *w = writer_of(base);
    struct disk_store *s = disk_of(base->store);
    /* Where nodes share the file it may be another's by now; the next to open it cuts it. */
    if (w->lost != BLOB_OK && !s->shared && ftruncate(w->fd, (off_t)w->flushed) != 0)
        log_line(s->log, LOG_WARN, NULL, "%s was not cut: %s", w->path.text, strerrordesc_np(errno));
    direct_file_free(w->direct);
    close(w->fd);
    pthread_mutex_destroy(&w->direct_lock);
    free(w);
}

/* ---- committing ---- */

/* Another node's readers may lose a file that is replaced, so where nodes share the storage, what is there stays if it
 * is right. It is touched, and the upload ends. NOT_FOUND: it is not there, or was just removed. */
static enum blob_status commit_present(struct disk_store *s, const struct disk_writer *w, const struct digest *digest,
                                       const struct disk_path *blob, struct blob_error *err)
{
    struct stat sb;
    enum blob_status st = disk_blob_touch_locked(s, digest, blob, NULL, err);
    /* Another node may have moved it aside to remove it: had it been touched in time, it would be back. */
    if (st == BLOB_OK && fstatat(s->root_fd, blob->text, &sb, 0) != 0)
        st = errno == ENOENT ? BLOB_E_NOT_FOUND : file_fail(err, errno, "stat", blob->text);
    return st == BLOB_OK ? disk_end_upload(s, w->inode, &w->path, err) : st;
}

/* The blob's name is given to the upload's file, whatever has it: what was there may be damaged, and readers of it keep
 * what they have open. It costs no more than to drop the upload. */
static enum blob_status commit_new(struct disk_store *s, const struct disk_writer *w, unsigned stripe,
                                   const struct digest *digest, const struct disk_path *blob, unsigned flags,
                                   struct blob_error *err)
{
    struct stat sb;
    int64_t now_ms =
        fstatat(s->root_fd, blob->text, &sb, 0) == 0 ? clock_wall_ms_after(file_mtime_ms(&sb)) : clock_wall_ms();
    if (s->shared)
        return disk_commit_open_file(s, w->fd, w->inode, now_ms, &w->path, blob, err);
    enum blob_status st = file_set_mtime(s->root_fd, w->path.text, now_ms, err);
    if (st != BLOB_OK)
        return st;
    uint8_t numbers[16];
    put_le(numbers, w->base.position, 8);
    put_le(numbers + 8, (uint64_t)now_ms, 8);
    const struct disk_change change = {.from = w->path, .to = *blob};
    const struct disk_entry entry = {.kind = JOURNAL_COMMIT,
                                     .count = 3,
                                     .parts = {disk_part(w->id.text, UUID_CHARS),
                                               disk_part(digest->bytes, DIGEST_BYTES),
                                               disk_part(numbers, sizeof numbers)}};
    return disk_change_run(s, stripe, &change, &entry, flags, err);
}

enum blob_status disk_commit(struct blob_writer *base, const struct digest *digest, unsigned flags,
                             struct blob_error *err)
{
    struct disk_writer *w = writer_of(base);
    struct disk_store *s = disk_of(base->store);
    enum blob_status st = flush_range(s, w, base->position, true, err);
    if (st != BLOB_OK)
        return st;
    struct disk_path blob;
    disk_blob_path(digest, &blob);
    bool present = s->shared && disk_same_content(s, w->fd, base->position, &blob);
    unsigned stripe = disk_stripe_of(&blob);
    st = disk_stripe_enter(s, stripe, err);
    if (st != BLOB_OK)
        return st;
    st = disk_still_named(s, w->fd, w->inode, &w->path, err);
    if (st == BLOB_OK) {
        st = present ? commit_present(s, w, digest, &blob, err) : BLOB_E_NOT_FOUND;
        if (st == BLOB_E_NOT_FOUND)
            st = commit_new(s, w, stripe, digest, &blob, flags, err);
    }
    disk_stripe_leave(s, stripe);
    if (st == BLOB_OK)
        disk_writer_close(base);
    return st;
}

/* ---- without a writer ---- */

/* No upload is shown that a pending change is about to end. */
static enum blob_status settle_upload(struct disk_store *s, const struct uuid *id, struct disk_path *path,
                                      struct blob_error *err)
{
    disk_upload_path(id, path);
    return disk_upload_ending(s, path) ? disk_settle_all(s, err) : BLOB_OK;
}

enum blob_status disk_upload_stat(struct blob_store *base, const struct uuid *id, struct staged_stat *out,
                                  struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    enum blob_status st = settle_upload(s, id, &path, err);
    if (st != BLOB_OK)
        return st;
    int fd = openat(s->root_fd, path.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(err, errno, "open", path.text);
    struct stat sb;
    uint64_t flushed, lsn = 0, epoch = 0;
    st = fstat(fd, &sb) == 0 ? disk_mark_flushed(s, &path, fd, (uint64_t)sb.st_size, &flushed, &lsn, err)
                             : file_fail(err, errno, "stat", path.text);
    if (st == BLOB_OK && s->shared)
        st = disk_fence_highest(fd, &epoch, path.text, err);
    close(fd);
    if (st == BLOB_OK && lsn != 0)
        st = disk_journal_wait(s->journal, lsn, err);
    if (st == BLOB_OK)
        *out = (struct staged_stat){.mark = {.offset = flushed}, .modified_ms = file_mtime_ms(&sb), .epoch = epoch};
    return st;
}

enum blob_status disk_upload_read(struct blob_store *base, const struct uuid *id, uint64_t offset, void *buf,
                                  size_t len, size_t *got, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    enum blob_status st = settle_upload(s, id, &path, err);
    if (st != BLOB_OK)
        return st;
    int fd = openat(s->root_fd, path.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(err, errno, "open", path.text);
    st = file_read_at(fd, buf, len, offset, got, path.text, err);
    close(fd);
    return st;
}

enum blob_status disk_upload_discard(struct blob_store *base, const struct uuid *id, const struct upload_mark *mark,
                                     struct blob_error *err)
{
    (void)mark;
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    enum blob_status st = settle_upload(s, id, &path, err);
    if (st != BLOB_OK)
        return st;
    unsigned stripe = disk_stripe_of(&path);
    st = disk_stripe_enter(s, stripe, err);
    if (st != BLOB_OK)
        return st;
    if (faccessat(s->root_fd, path.text, F_OK, 0) == 0) {
        const struct disk_change change = {.to = path};
        const struct disk_entry entry = {
            .kind = JOURNAL_DISCARD, .count = 1, .parts = {disk_part(id->text, UUID_CHARS)}};
        st = disk_change_run(s, stripe, &change, &entry, 0, err);
    } else if (errno != ENOENT) {
        st = file_fail(err, errno, "look for", path.text);
    }
    disk_stripe_leave(s, stripe);
    return st;
}

static enum blob_status list_uploads_in(struct disk_store *s, const char *dir, staged_list_fn *fn, void *arg,
                                        bool *more, struct blob_error *err)
{
    char path[DISK_PATH_MAX];
    snprintf(path, sizeof path, DISK_UPLOADS "/%s", dir);
    struct disk_names names;
    enum blob_status st = disk_names_read(s->root_fd, path, strcmp, &names, err);
    if (st != BLOB_OK)
        return st;
    for (size_t i = 0; st == BLOB_OK && *more && i < names.count; i++) {
        struct uuid id;
        struct disk_path upload;
        struct stat sb;
        if (uuid_parse(names.names[i], &id) != BLOB_OK)
            continue;
        disk_upload_path(&id, &upload);
        if (fstatat(s->root_fd, upload.text, &sb, 0) == 0)
            *more = fn(&id, (uint64_t)sb.st_size, file_mtime_ms(&sb), arg);
        else if (errno != ENOENT)
            st = file_fail(err, errno, "stat", upload.text);
    }
    disk_names_release(&names);
    return st;
}

enum blob_status disk_upload_list(struct blob_store *base, staged_list_fn *fn, void *arg, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    enum blob_status st = disk_settle_all(s, err);
    struct disk_names dirs;
    if (st == BLOB_OK)
        st = disk_names_read(s->root_fd, DISK_UPLOADS, strcmp, &dirs, err);
    if (st != BLOB_OK)
        return st;
    bool more = true;
    for (size_t i = 0; st == BLOB_OK && more && i < dirs.count; i++)
        if (strlen(dirs.names[i]) == 2)
            st = list_uploads_in(s, dirs.names[i], fn, arg, &more, err);
    disk_names_release(&dirs);
    return st;
}

/* ---- stores of a version without marks ---- */

struct adoption {
    struct disk_store *store;
    enum blob_status st;
};

static bool adopt_upload(const struct uuid *id, uint64_t bytes, int64_t modified_ms, void *arg)
{
    struct adoption *adoption = arg;
    struct disk_store *s = adoption->store;
    struct disk_path path;
    (void)modified_ms;
    disk_upload_path(id, &path);
    int fd = openat(s->root_fd, path.text, O_RDONLY | O_CLOEXEC);
    adoption->st = fd >= 0 ? disk_mark_set(fd, bytes, path.text, NULL) : blob_status_from_errno(errno);
    if (fd >= 0)
        close(fd);
    return adoption->st == BLOB_OK;
}

enum blob_status disk_uploads_adopt(struct disk_store *s, struct blob_error *err)
{
    if (!s->attributes || disk_lock_says_kept(s))
        return BLOB_OK;
    struct adoption adoption = {.store = s};
    enum blob_status st = disk_upload_list(&s->base, adopt_upload, &adoption, err);
    if (st == BLOB_OK && adoption.st != BLOB_OK)
        st = blob_fail(err, adoption.st, 0, "mark what is staged");
    if (st == BLOB_OK)
        st = tree_sync(s->root_fd, "storage root", err);
    if (st == BLOB_OK)
        st = disk_lock_write(s, true, err);
    return st == BLOB_OK ? file_sync(s->lock_fd, DISK_LOCK_FILE, err) : st;
}
