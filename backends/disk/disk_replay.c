/*
 * disk_replay - recovery: makes the disk say what the journal says.
 *
 * After a power loss the files may show any mixture of the changes since the last checkpoint, later ones without
 * earlier ones too. So the journal is not run through step by step, which would undo what is there already (a REMOVE
 * before a later COMMIT of the same content, say). It is folded first: entries are sorted by the name they are about,
 * the last state of each name is found, and only that is made true. Doing so twice, or on a disk that had it all,
 * changes nothing.
 *
 * Content. An upload's DATA entries are written to where the upload is by then: its own file, or the blob it became.
 * What was too large for the journal was synced before an entry said so. A blob whose size is not the committed one
 * after that must not be served: it is moved to damaged/ and reported; with an intact file system it does not happen.
 *
 * Room. Records that only the journal had become files, and directories grow. On a disk that is about full the segments
 * that hold nothing to be replayed are given up for that first; they are made again when there is room.
 */
#include "backends/disk/disk_impl.h"
#include "backends/disk/disk_marks.h"
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
#include <sys/statvfs.h>
#include <unistd.h>

#define REPLAY_TMP DISK_TMP "/replay"
#define ROOM_BYTES (64u << 20)

enum about { ABOUT_UPLOAD, ABOUT_BLOB, ABOUT_RECORD };

struct event {
    enum about about;
    const uint8_t *name;
    size_t name_len;
    size_t entry;
};

struct replay {
    int root_fd;
    struct logger *log;
    struct journal_log journal;
    struct event *events;
    size_t count;
    bool *dropped; /* of an entry: aborted, or a commit that is not its digest's last word */
};

/* ---- the bodies; a checked sum says that they are ours, so a wrong length is a bug or another version ---- */

static const struct {
    uint32_t min_len;
    bool more; /* than that may follow */
} bodies[] = {
    [JOURNAL_DATA] = {UUID_CHARS + 8, true},
    [JOURNAL_FLUSHED] = {UUID_CHARS + 8, false},
    [JOURNAL_TRUNCATE] = {UUID_CHARS + 8, false},
    [JOURNAL_DISCARD] = {UUID_CHARS, false},
    [JOURNAL_COMMIT] = {UUID_CHARS + DIGEST_BYTES + 16, false},
    [JOURNAL_TOUCH] = {DIGEST_BYTES + 8, false},
    [JOURNAL_REMOVE] = {DIGEST_BYTES, false},
    [JOURNAL_PUT] = {2, true},
    [JOURNAL_DELETE] = {1, true},
    [JOURNAL_ABORT] = {8, false},
};

static bool body_whole(const struct journal_entry *e)
{
    if ((size_t)e->kind >= sizeof bodies / sizeof bodies[0] || bodies[e->kind].min_len == 0)
        return false;
    if (e->len < bodies[e->kind].min_len || (e->len > bodies[e->kind].min_len && !bodies[e->kind].more))
        return false;
    return e->kind != JOURNAL_PUT || (size_t)e->body[0] + 1 <= e->len;
}

static void entry_id(const struct journal_entry *e, struct uuid *out)
{
    memcpy(out->text, e->body, UUID_CHARS);
    out->text[UUID_CHARS] = '\0';
}

static void entry_digest(const struct journal_entry *e, struct digest *out)
{
    memcpy(out->bytes, e->body + (e->kind == JOURNAL_COMMIT ? UUID_CHARS : 0), DIGEST_BYTES);
}

static uint64_t data_offset(const struct journal_entry *e)
{
    return get_le(e->body + UUID_CHARS, 8);
}

/* ---- sorting ---- */

static int event_compare(const void *a, const void *b)
{
    const struct event *x = a, *y = b;
    if (x->about != y->about)
        return x->about < y->about ? -1 : 1;
    size_t len = x->name_len < y->name_len ? x->name_len : y->name_len;
    int order = memcmp(x->name, y->name, len);
    if (order != 0)
        return order;
    if (x->name_len != y->name_len)
        return x->name_len < y->name_len ? -1 : 1;
    return x->entry < y->entry ? -1 : 1;
}

static void event_add(struct replay *r, enum about about, const uint8_t *name, size_t len, size_t entry)
{
    r->events[r->count++] = (struct event){.about = about, .name = name, .name_len = len, .entry = entry};
}

static void entry_sort(struct replay *r, size_t i)
{
    const struct journal_entry *e = &r->journal.entries[i];
    switch (e->kind) {
    case JOURNAL_COMMIT:
        event_add(r, ABOUT_BLOB, e->body + UUID_CHARS, DIGEST_BYTES, i);
        event_add(r, ABOUT_UPLOAD, e->body, UUID_CHARS, i);
        break;
    case JOURNAL_DATA:
    case JOURNAL_FLUSHED:
    case JOURNAL_TRUNCATE:
    case JOURNAL_DISCARD:
        event_add(r, ABOUT_UPLOAD, e->body, UUID_CHARS, i);
        break;
    case JOURNAL_TOUCH:
    case JOURNAL_REMOVE:
        event_add(r, ABOUT_BLOB, e->body, DIGEST_BYTES, i);
        break;
    case JOURNAL_PUT:
        event_add(r, ABOUT_RECORD, e->body + 1, e->body[0], i);
        break;
    case JOURNAL_DELETE:
        event_add(r, ABOUT_RECORD, e->body, e->len, i);
        break;
    case JOURNAL_ABORT:
    case JOURNAL_SEAL:
    case JOURNAL_KEY:
        break;
    }
}

static void drop_aborted(struct replay *r)
{
    for (size_t i = 0; i < r->journal.count; i++) {
        if (r->journal.entries[i].kind != JOURNAL_ABORT)
            continue;
        uint64_t begin = get_le(r->journal.entries[i].body, 8);
        for (size_t k = i; k-- > 0;)
            if (r->journal.entries[k].begin == begin)
                r->dropped[k] = true;
    }
}

static enum blob_status sort_entries(struct replay *r, struct blob_error *err)
{
    size_t n = r->journal.count;
    r->events = calloc(2 * n, sizeof *r->events);
    r->dropped = calloc(n, sizeof *r->dropped);
    if (!r->events || !r->dropped)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "journal of %zu entries", n);
    for (size_t i = 0; i < n; i++)
        if (!body_whole(&r->journal.entries[i]))
            return blob_fail(err, BLOB_E_CORRUPT, 0, "journal: an entry of kind %d is malformed",
                             (int)r->journal.entries[i].kind);
    drop_aborted(r);
    for (size_t i = 0; i < n; i++)
        if (!r->dropped[i])
            entry_sort(r, i);
    qsort(r->events, r->count, sizeof *r->events, event_compare);
    return BLOB_OK;
}

/* The end of the group of events that begins at `from`: all about the same name. */
static size_t group_end(const struct replay *r, size_t from)
{
    const struct event *first = &r->events[from];
    size_t end = from + 1;
    while (end < r->count && r->events[end].about == first->about && r->events[end].name_len == first->name_len &&
           memcmp(r->events[end].name, first->name, first->name_len) == 0)
        end++;
    return end;
}

static const struct journal_entry *event_entry(const struct replay *r, size_t event)
{
    return &r->journal.entries[r->events[event].entry];
}

/* ---- uploads, and the blobs they became ---- */

/* What becomes of an upload: events [data, end) hold its content, since it was last begun. */
struct upload_fate {
    struct uuid id;
    size_t data, end;
    uint64_t size; /* flushed up to here */
    bool discarded, has_data;
    const struct journal_entry *commit;
    size_t commit_entry;
};

static void fold_upload(const struct replay *r, size_t from, size_t end, struct upload_fate *fate)
{
    *fate = (struct upload_fate){.data = from, .end = end};
    entry_id(event_entry(r, from), &fate->id);
    for (size_t i = from; i < end; i++) {
        const struct journal_entry *e = event_entry(r, i);
        if (fate->discarded) {
            fate->discarded = fate->has_data = false;
            fate->data = i;
        }
        switch (e->kind) {
        case JOURNAL_DATA:
            fate->size = data_offset(e) + (e->len - bodies[JOURNAL_DATA].min_len);
            fate->has_data = true;
            break;
        case JOURNAL_FLUSHED:
        case JOURNAL_TRUNCATE:
            fate->size = data_offset(e);
            break;
        case JOURNAL_COMMIT:
            fate->commit = e;
            fate->commit_entry = r->events[i].entry;
            break;
        default:
            fate->discarded = true;
            fate->commit = NULL;
        }
    }
}

/* Writes the upload's DATA to a file, as far as it joins what is there; then *size is the file's. */
static enum blob_status write_data(const struct replay *r, const struct upload_fate *fate, int fd, const char *path,
                                   uint64_t *size, struct blob_error *err)
{
    struct stat sb;
    if (fstat(fd, &sb) != 0)
        return file_fail(err, errno, "stat", path);
    uint64_t have = (uint64_t)sb.st_size;
    for (size_t i = fate->data; i < fate->end; i++) {
        const struct journal_entry *e = event_entry(r, i);
        if (e->kind != JOURNAL_DATA)
            continue;
        uint64_t offset = data_offset(e);
        size_t len = e->len - bodies[JOURNAL_DATA].min_len;
        if (offset > have) {
            log_line(r->log, LOG_ERROR, NULL, "%s: bytes %" PRIu64 " to %" PRIu64 " are missing", path, have, offset);
            break;
        }
        enum blob_status st = file_write_at(fd, e->body + bodies[JOURNAL_DATA].min_len, len, offset, path, err);
        if (st != BLOB_OK)
            return st;
        have = offset + len > have ? offset + len : have;
    }
    *size = have;
    return BLOB_OK;
}

/* Opens path, writes the DATA, cuts what is beyond fate->size. NOT_FOUND: it is not there (and not to be made). */
static enum blob_status restore_file(const struct replay *r, const struct upload_fate *fate, const char *path,
                                     bool create, uint64_t *size, struct blob_error *err)
{
    enum blob_status st = create ? dir_make_parents(r->root_fd, path, false, err) : BLOB_OK;
    if (st != BLOB_OK)
        return st;
    int fd = openat(r->root_fd, path, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0640);
    if (fd < 0)
        return file_fail(err, errno, "open", path);
    uint64_t want = fate->commit ? get_le(fate->commit->body + UUID_CHARS + DIGEST_BYTES, 8) : fate->size;
    st = write_data(r, fate, fd, path, size, err);
    if (st == BLOB_OK && *size > want) {
        if (ftruncate(fd, (off_t)want) != 0)
            st = file_fail(err, errno, "truncate", path);
        *size = want;
    }
    if (st == BLOB_OK && !fate->commit)
        st = disk_mark_set(fd, *size, path, err);
    close(fd);
    return st;
}

static enum blob_status move_damaged(const struct replay *r, const char *path, struct blob_error *err)
{
    char aside[DISK_PATH_MAX + sizeof DISK_DAMAGED];
    const char *slash = strrchr(path, '/');
    snprintf(aside, sizeof aside, DISK_DAMAGED "/%s", slash ? slash + 1 : path);
    log_line(r->log, LOG_ERROR, NULL, "recovery: the content of %s is not whole; it is kept as %s", path, aside);
    enum blob_status st = dir_make_parents(r->root_fd, aside, false, err);
    return st == BLOB_OK ? file_rename(r->root_fd, path, aside, err) : st;
}

static enum blob_status restore_blob(const struct replay *r, const struct upload_fate *fate,
                                     const struct disk_path *upload, struct blob_error *err)
{
    struct digest digest;
    struct disk_path blob;
    entry_digest(fate->commit, &digest);
    disk_blob_path(&digest, &blob);
    uint64_t want = get_le(fate->commit->body + UUID_CHARS + DIGEST_BYTES, 8), size = 0;
    int64_t touched_ms = (int64_t)get_le(fate->commit->body + UUID_CHARS + DIGEST_BYTES + 8, 8);
    bool staged = faccessat(r->root_fd, upload->text, F_OK, 0) == 0;
    bool renamed = !staged && faccessat(r->root_fd, blob.text, F_OK, 0) == 0;
    const char *path = renamed ? blob.text : upload->text;
    enum blob_status st = restore_file(r, fate, path, !staged && !renamed, &size, err);
    if (st != BLOB_OK)
        return st;
    if (size != want)
        return move_damaged(r, path, err);
    st = file_set_mtime(r->root_fd, path, touched_ms, err);
    if (st != BLOB_OK || renamed)
        return st;
    st = dir_make_parents(r->root_fd, blob.text, false, err);
    return st == BLOB_OK ? file_rename(r->root_fd, upload->text, blob.text, err) : st;
}

static enum blob_status replay_upload(const struct replay *r, size_t from, size_t end, struct blob_error *err)
{
    struct upload_fate fate;
    struct disk_path path;
    fold_upload(r, from, end, &fate);
    disk_upload_path(&fate.id, &path);
    if (fate.discarded || (fate.commit && r->dropped[fate.commit_entry]))
        return file_remove(r->root_fd, path.text, err);
    if (fate.commit)
        return restore_blob(r, &fate, &path, err);
    uint64_t size;
    enum blob_status st = restore_file(r, &fate, path.text, fate.has_data, &size, err);
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

/* ---- blobs ---- */

/* Only the last of a digest's commits and removals counts. */
static void fold_blob(struct replay *r, size_t from, size_t end)
{
    bool last = true;
    for (size_t i = end; i-- > from;) {
        if (event_entry(r, i)->kind == JOURNAL_TOUCH)
            continue;
        r->dropped[r->events[i].entry] = !last;
        last = false;
    }
}

static enum blob_status replay_blob(const struct replay *r, size_t from, size_t end, struct blob_error *err)
{
    const struct journal_entry *touch = NULL;
    bool removed = false;
    for (size_t i = from; i < end; i++) {
        const struct journal_entry *e = event_entry(r, i);
        if (e->kind == JOURNAL_TOUCH)
            touch = e;
        else
            removed = e->kind == JOURNAL_REMOVE;
    }
    struct digest digest;
    struct disk_path path;
    entry_digest(event_entry(r, from), &digest);
    disk_blob_path(&digest, &path);
    if (removed)
        return file_remove(r->root_fd, path.text, err);
    struct stat sb;
    if (!touch || fstatat(r->root_fd, path.text, &sb, 0) != 0)
        return BLOB_OK;
    int64_t touched_ms = (int64_t)get_le(touch->body + DIGEST_BYTES, 8);
    return touched_ms > file_mtime_ms(&sb) ? file_set_mtime(r->root_fd, path.text, touched_ms, err) : BLOB_OK;
}

/* ---- records ---- */

static bool record_is(const struct replay *r, const char *path, const uint8_t *value, size_t len)
{
    int fd = openat(r->root_fd, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    char buf[RECORD_VALUE_MAX + 1];
    size_t got = 0;
    /* After a write that failed, the page cache may show what the disk does not have. */
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    bool same =
        file_read_at(fd, buf, sizeof buf, 0, &got, path, NULL) == BLOB_OK && got == len && memcmp(buf, value, len) == 0;
    close(fd);
    return same;
}

static enum blob_status replay_record(const struct replay *r, size_t end, struct blob_error *err)
{
    const struct journal_entry *e = event_entry(r, end - 1);
    char key[RECORD_KEY_MAX + 1];
    size_t key_len = r->events[end - 1].name_len;
    if (key_len > RECORD_KEY_MAX)
        return blob_fail(err, BLOB_E_CORRUPT, 0, "journal: a key of %zu bytes", key_len);
    memcpy(key, r->events[end - 1].name, key_len);
    key[key_len] = '\0';
    if (!record_key_valid(key))
        return blob_fail(err, BLOB_E_CORRUPT, 0, "journal: a key that is none");
    struct disk_path path;
    disk_record_path(key, &path);
    if (e->kind == JOURNAL_DELETE)
        return file_remove(r->root_fd, path.text, err);
    const uint8_t *value = e->body + 1 + key_len;
    size_t len = e->len - 1 - key_len;
    if (len > RECORD_VALUE_MAX)
        return blob_fail(err, BLOB_E_CORRUPT, 0, "journal: record %s has %zu bytes", key, len);
    if (record_is(r, path.text, value, len))
        return BLOB_OK;
    enum blob_status st = file_remove(r->root_fd, REPLAY_TMP, err);
    if (st == BLOB_OK)
        st = file_create(r->root_fd, REPLAY_TMP, value, len, false, err);
    if (st == BLOB_OK)
        st = dir_make_parents(r->root_fd, path.text, false, err);
    return st == BLOB_OK ? file_rename(r->root_fd, REPLAY_TMP, path.text, err) : st;
}

/* ---- all of it ---- */

static enum blob_status carry_out(struct replay *r, struct blob_error *err)
{
    for (size_t i = 0, end; i < r->count; i = end) {
        end = group_end(r, i);
        if (r->events[i].about == ABOUT_BLOB)
            fold_blob(r, i, end);
    }
    enum blob_status st = BLOB_OK;
    /* Sorted: uploads first, so that a blob is in its place when its touch is carried out. */
    for (size_t i = 0, end; st == BLOB_OK && i < r->count; i = end) {
        end = group_end(r, i);
        if (r->events[i].about == ABOUT_UPLOAD)
            st = replay_upload(r, i, end, err);
        else if (r->events[i].about == ABOUT_BLOB)
            st = replay_blob(r, i, end, err);
        else
            st = replay_record(r, end, err);
    }
    return st;
}

/* Is there less room than recovery, and the sessions' files after it, might take? */
static bool room_is_short(int root_fd)
{
    struct statvfs fs;
    return fstatvfs(root_fd, &fs) == 0 && (uint64_t)fs.f_bavail * fs.f_frsize < ROOM_BYTES;
}

/* Nothing can tell which it is, and the operator may know whether the power was cut. */
static void keep_torn(const struct replay *r)
{
    struct blob_error why = {.text = "they are kept as " DISK_DAMAGED "/journal-<number>"};
    if (r->journal.torn == 0)
        return;
    enum blob_status st = journal_log_set_aside(r->root_fd, &r->journal, DISK_DAMAGED, &why);
    log_line(
        r->log, LOG_ERROR, NULL,
        "recovery: journal segment %" PRIu64 " cannot be read to its end, and segment %" PRIu64
        " behind it has entries: unless the power was cut, the segment is damaged, and what was acknowledged after "
        "that place and not checkpointed yet is lost; %s%s",
        r->journal.torn, r->journal.behind, st == BLOB_OK ? "" : "they cannot be kept: ", why.text);
}

enum blob_status disk_replay(int root_fd, struct logger *log, uint64_t *next_segment, struct blob_error *err)
{
    struct replay r = {.root_fd = root_fd, .log = log};
    enum blob_status st = journal_log_read(root_fd, &r.journal, err);
    if (st != BLOB_OK)
        return st;
    if (room_is_short(root_fd))
        journal_log_give_room(root_fd, &r.journal);
    if (r.journal.count > 0) {
        int64_t began_us = clock_steady_us();
        st = sort_entries(&r, err);
        if (st == BLOB_OK)
            st = carry_out(&r, err);
        if (st == BLOB_OK)
            log_line(log, LOG_INFO, NULL, "recovery: %zu journal entries carried out in %" PRId64 " ms",
                     r.journal.count, (clock_steady_us() - began_us) / 1000);
    }
    if (st == BLOB_OK)
        st = tree_sync(root_fd, "storage root", err);
    if (st == BLOB_OK)
        keep_torn(&r);
    if (st == BLOB_OK)
        *next_segment = r.journal.next_segment ? r.journal.next_segment : 1;
    journal_log_release(&r.journal);
    free(r.events);
    free(r.dropped);
    return st;
}
