/*
 * disk_store - opening, closing and what concerns the store as a whole.
 *
 * Opening, in this order: the root, the lock, store.json, the directories, recovery (disk_replay), leftovers, the
 * journal. An unshared store is locked for good; a shared one is locked exclusively for recovery where nobody else has
 * it, and then held shared: the first node recovers, the others wait for it.
 */
#include "backends/disk/disk_store.h"

#include "backends/disk/disk_crowds.h"
#include "backends/disk/disk_impl.h"
#include "backends/disk/disk_marks.h"
#include "backends/disk/disk_memtable.h"
#include "backends/disk/file/durable_file.h"
#include "backends/disk/journal/disk_journal_format.h"
#include "core/check.h"
#include "core/log.h"
#include "core/text/parse.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define FORMAT_VERSION   2
#define LOCK_TRIES       100
#define LOCK_PAUSE_MS    50
#define SEGMENT_BYTES    (16u << 20)
#define SEGMENTS         16
#define CHECKPOINT_MS    5000
#define DIRECT_MIN_BYTES ((size_t)128 << 10)
#define DIRECT_BUFFERS   4
#define STORE_FILE_BYTES 256

/* ---- the lock ---- */

static enum blob_status lock_refused(const struct disk_store *s, const char *root, struct blob_error *err)
{
    char pid[16] = "?";
    size_t got = 0;
    if (file_read_at(s->lock_fd, pid, sizeof pid - 1, 0, &got, DISK_LOCK_FILE, NULL) == BLOB_OK && got > 0) {
        pid[got] = '\0';
        pid[strcspn(pid, " \n")] = '\0';
    }
    return blob_fail(err, BLOB_E_CONFLICT, 0, "%s is in use by process %s%s", root, pid,
                     s->shared ? ", which does not share it" : "; only one can use it unless all share it");
}

/* Locks the store. If *first is set, nobody else has it open, and the lock is exclusive even if the store is shared:
 * the caller recovers it then. */
static enum blob_status lock_store(struct disk_store *s, const char *root, bool *first, struct blob_error *err)
{
    s->lock_fd = openat(s->root_fd, DISK_LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (s->lock_fd < 0)
        return file_fail(err, errno, "open lock of", root);
    for (int i = 0; i < LOCK_TRIES; i++) {
        *first = flock(s->lock_fd, LOCK_EX | LOCK_NB) == 0;
        if (*first || (s->shared && flock(s->lock_fd, LOCK_SH | LOCK_NB) == 0))
            break;
        if (errno != EWOULDBLOCK)
            return file_fail(err, errno, "lock", root);
        /* Another node that shares it may be recovering it. */
        if (!s->shared || i == LOCK_TRIES - 1)
            return lock_refused(s, root, err);
        const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
        nanosleep(&pause, NULL);
    }
    return disk_lock_write(s, disk_lock_says_kept(s), err);
}

static enum blob_status share_lock(struct disk_store *s, const char *root, struct blob_error *err)
{
    return flock(s->lock_fd, LOCK_SH) == 0 ? BLOB_OK : file_fail(err, errno, "share lock of", root);
}

/* ---- store.json ---- */

static enum blob_status create_store_file(struct disk_store *s, struct blob_error *err)
{
    struct uuid id;
    char text[STORE_FILE_BYTES];
    struct disk_path tmp;
    uuid_new(&id);
    int len = snprintf(text, sizeof text, "{\"format\": %d, \"store_id\": \"%s\"}\n", FORMAT_VERSION, id.text);
    disk_tmp_path(s, &tmp);
    enum blob_status st = dir_make_parents(s->root_fd, tmp.text, true, err);
    if (st == BLOB_OK)
        st = file_create(s->root_fd, tmp.text, text, (size_t)len, true, err);
    if (st != BLOB_OK)
        return st;
    /* link() decides between nodes that both find a new store. */
    if (linkat(s->root_fd, tmp.text, s->root_fd, DISK_STORE_FILE, 0) != 0 && errno != EEXIST)
        st = file_fail(err, errno, "create", DISK_STORE_FILE);
    unlinkat(s->root_fd, tmp.text, 0);
    if (st == BLOB_OK)
        st = dir_sync(s->root_fd, ".", err);
    /* If the next try found the file, it would take it for durable. */
    if (st != BLOB_OK)
        unlinkat(s->root_fd, DISK_STORE_FILE, 0);
    return st;
}

static enum blob_status parse_store_file(struct disk_store *s, const char *text, size_t len, struct blob_error *err)
{
    json_error_t why;
    json_t *json = json_loadb(text, len, 0, &why);
    json_int_t format = 0;
    const char *id_text = "";
    struct uuid id;
    enum blob_status st = BLOB_OK;
    if (!json || json_unpack(json, "{s:I, s:s}", "format", &format, "store_id", &id_text) != 0 ||
        uuid_parse(id_text, &id) != BLOB_OK)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, DISK_STORE_FILE " is not a blob store's");
    else if (format != FORMAT_VERSION)
        st = blob_fail(err, BLOB_E_UNSUPPORTED, 0, DISK_STORE_FILE " has format %" JSON_INTEGER_FORMAT ", not %d",
                       format, FORMAT_VERSION);
    else
        memcpy(s->base.store_id, id.text, sizeof id.text);
    json_decref(json);
    return st;
}

static enum blob_status read_store_file(struct disk_store *s, struct blob_error *err)
{
    int fd = openat(s->root_fd, DISK_STORE_FILE, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(err, errno, "open", DISK_STORE_FILE);
    char text[STORE_FILE_BYTES];
    size_t got = 0;
    enum blob_status st = file_read_at(fd, text, sizeof text, 0, &got, DISK_STORE_FILE, err);
    close(fd);
    return st == BLOB_OK ? parse_store_file(s, text, got, err) : st;
}

/* Blobs without a store.json are a store that lost it, not a new one. */
static enum blob_status check_new_root(struct disk_store *s, const char *root, struct blob_error *err)
{
    if (faccessat(s->root_fd, DISK_BLOBS, F_OK, 0) == 0)
        return blob_fail(err, BLOB_E_CORRUPT, 0, "%s has blobs, but no " DISK_STORE_FILE, root);
    return errno == ENOENT ? BLOB_OK : file_fail(err, errno, "look into", root);
}

static enum blob_status load_store_file(struct disk_store *s, const char *root, struct blob_error *err)
{
    enum blob_status st = read_store_file(s, err);
    if (st != BLOB_E_NOT_FOUND)
        return st;
    st = check_new_root(s, root, err);
    if (st == BLOB_OK)
        st = create_store_file(s, err);
    return st == BLOB_OK ? read_store_file(s, err) : st;
}

/* ---- leftovers ---- */

/* Removes temporary files that were last changed before before_ms. If spare is set, files of this process are kept. */
static enum blob_status remove_leftovers(struct disk_store *s, int64_t before_ms, bool spare, struct blob_error *err)
{
    struct disk_names names;
    enum blob_status st = disk_names_read(s->root_fd, DISK_TMP, strcmp, &names, err);
    if (st != BLOB_OK)
        return st;
    for (size_t i = 0; st == BLOB_OK && i < names.count; i++) {
        char path[DISK_PATH_MAX + 32];
        struct stat sb;
        if (spare && strncmp(names.names[i], s->tmp_tag, strlen(s->tmp_tag)) == 0)
            continue;
        if (snprintf(path, sizeof path, DISK_TMP "/%s", names.names[i]) >= (int)sizeof path ||
            fstatat(s->root_fd, path, &sb, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(sb.st_mode))
            continue;
        /* ctime: a blob moved aside keeps its mtime. */
        int64_t changed_ms = (int64_t)sb.st_ctim.tv_sec * 1000 + sb.st_ctim.tv_nsec / 1000000;
        if (changed_ms < before_ms)
            st = file_remove(s->root_fd, path, err);
    }
    disk_names_release(&names);
    return st;
}

/* ---- opening ---- */

static enum blob_status open_root(struct disk_store *s, const char *root, struct blob_error *err)
{
    int error = mkdir(root, 0750) == 0 ? 0 : errno;
    if (error == ENOENT)
        return blob_fail(err, BLOB_E_NOT_FOUND, 0,
                         "storage.disk.root %s cannot be made: the directory that it is to be in does not exist; make "
                         "that, or correct the setting",
                         root);
    if (error != 0 && error != EEXIST)
        return file_fail(err, error, "storage.disk.root: make", root);
    s->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return s->root_fd >= 0 ? BLOB_OK : file_fail(err, errno, "storage.disk.root: open", root);
}

static enum blob_status recover(struct disk_store *s, uint64_t *next_segment, struct blob_error *err)
{
    enum blob_status st = disk_replay(s->root_fd, s->log, next_segment, err);
    if (st == BLOB_OK)
        st = disk_blobs_restore(s, err);
    return st == BLOB_OK ? remove_leftovers(s, INT64_MAX, false, err) : st;
}

static enum blob_status settle_for_checkpoint(void *arg, struct blob_error *err)
{
    struct disk_store *s = disk_of(arg);
    enum blob_status st = disk_settle_durable(s, err);
    enum blob_status records = disk_memtable_settle(s->memtable, st == BLOB_OK ? err : NULL);
    st = st == BLOB_OK ? records : st;
    enum blob_status marks = disk_marks_settle(s->marks, st == BLOB_OK ? err : NULL);
    return st == BLOB_OK ? marks : st;
}

static enum blob_status open_journal(struct disk_store *s, const struct disk_options *opt, uint64_t first_segment,
                                     struct blob_error *err)
{
    const struct journal_options journal = {
        .root_fd = s->root_fd,
        .segment_bytes = opt->journal_segment_bytes ? opt->journal_segment_bytes : SEGMENT_BYTES,
        .max_segments = opt->journal_segments ? opt->journal_segments : SEGMENTS,
        .checkpoint_ms = opt->checkpoint_ms ? opt->checkpoint_ms : CHECKPOINT_MS,
        .first_segment = first_segment,
        .log = opt->log,
        .settle = settle_for_checkpoint,
        .arg = &s->base,
    };
    s->memtable = disk_memtable_new(s);
    s->marks = disk_marks_new(s);
    if (!s->memtable || !s->marks)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "disk store");
    return disk_journal_open(&journal, &s->journal, err);
}

/* Does the file system keep attributes? If not, a power cut may leave uploads longer than what was acknowledged. */
static bool keeps_attributes(struct disk_store *s)
{
    bool keeps = disk_mark_try(s->lock_fd);
    if (!keeps)
        log_line(s->log, LOG_WARN, NULL,
                 "the storage's file system keeps no attributes (user.*): how far uploads are durable is told by their "
                 "length, which a power cut may leave too long");
    return keeps;
}

/* Removes what a crash left of a journal that was given up. Failing is no harm: it only takes room. */
static void remove_old_journal(struct disk_store *s)
{
    struct blob_error why;
    if (journal_log_remove_old(s->root_fd, &why) != BLOB_OK)
        log_line(s->log, LOG_WARN, NULL, "%s", why.text);
}

static enum blob_status open_locked(struct disk_store *s, const struct disk_options *opt, bool first,
                                    struct blob_error *err)
{
    s->attributes = keeps_attributes(s);
    enum blob_status st = load_store_file(s, opt->root, err);
    if (st == BLOB_OK)
        st = dir_make_parents(s->root_fd, DISK_UPLOADS "/", false, err);
    if (st == BLOB_OK)
        st = dir_make_parents(s->root_fd, DISK_BLOBS "/", false, err);
    if (st == BLOB_OK)
        st = dir_make_parents(s->root_fd, DISK_RECORDS "/", false, err);
    if (st == BLOB_OK)
        st = dir_make_parents(s->root_fd, DISK_TMP "/", false, err);
    if (st == BLOB_OK)
        st = dir_sync(s->root_fd, ".", err);
    dir_spread(s->root_fd, DISK_UPLOADS);
    dir_spread(s->root_fd, DISK_BLOBS);
    if (st == BLOB_OK && opt->probe)
        st = disk_probe(s, opt->root, err);
    uint64_t next_segment = 1;
    if (st == BLOB_OK && first)
        st = recover(s, &next_segment, err);
    if (st == BLOB_OK && first)
        st = disk_uploads_adopt(s, err);
    bool journal = opt->journal && !opt->shared;
    if (st == BLOB_OK && first && !journal)
        st = journal_log_remove(s->root_fd, err);
    if (st == BLOB_OK && journal)
        remove_old_journal(s);
    if (st == BLOB_OK && journal)
        st = open_journal(s, opt, next_segment, err);
    if (st == BLOB_OK && opt->shared)
        st = share_lock(s, opt->root, err);
    return st;
}

static void store_release(struct disk_store *s)
{
    disk_changes_release(s);
    disk_memtable_free(s->memtable);
    disk_crowds_free(s->crowds);
    disk_marks_free(s->marks);
    pthread_mutex_destroy(&s->break_lock);
    key_set_release(&s->known_dirs);
    key_set_release(&s->unsynced);
    key_set_release(&s->ending_uploads);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    if (s->root_fd >= 0)
        close(s->root_fd);
    direct_pool_free(s->direct);
    free(s);
}

static void disk_close(struct blob_store *base)
{
    struct disk_store *s = disk_of(base);
    disk_journal_close(s->journal);
    store_release(s);
}

/* ---- the store as a whole ---- */

static enum blob_status disk_check(struct blob_store *base, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct statvfs vfs;
    if (faccessat(s->root_fd, DISK_STORE_FILE, R_OK, 0) != 0)
        return blob_fail(err, BLOB_E_UNAVAILABLE, errno, "look for " DISK_STORE_FILE);
    if (fstatvfs(s->root_fd, &vfs) != 0)
        return blob_fail(err, BLOB_E_UNAVAILABLE, errno, "look at the storage root");
    if (vfs.f_flag & ST_RDONLY)
        return blob_fail(err, BLOB_E_UNAVAILABLE, EROFS, "storage root");
    enum blob_status st = disk_unbroken(s, err);
    return st == BLOB_OK && s->journal ? disk_journal_check(s->journal, err) : st;
}

static enum blob_status disk_room(struct blob_store *base, uint64_t bytes, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    return disk_fits(s, bytes, s->reserve_bytes, err);
}

static enum blob_status disk_sweep(struct blob_store *base, int64_t before_ms, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    disk_crowds_look_for(s, s->crowds);
    return remove_leftovers(s, before_ms, true, err);
}

uint64_t disk_store_names_read(struct blob_store *base)
{
    return atomic_load(&disk_of(base)->names_read);
}

static const struct blob_store_ops disk_ops = {
    .name = "disk",
    .close = disk_close,
    .check = disk_check,
    .room = disk_room,
    .sweep = disk_sweep,
    .self_check = disk_self_check,
    .staged_open = disk_upload_open,
    .writer_write = disk_write,
    .writer_flush = disk_flush,
    .writer_commit = disk_commit,
    .writer_close = disk_writer_close,
    .staged_stat = disk_upload_stat,
    .staged_read = disk_upload_read,
    .staged_discard = disk_upload_discard,
    .staged_list = disk_upload_list,
    .blob_stat = disk_blob_stat,
    .blob_open = disk_blob_open,
    .reader_read = disk_reader_read,
    .reader_fd = disk_reader_fd,
    .reader_close = disk_reader_close,
    .blob_touch = disk_blob_touch,
    .blob_remove = disk_blob_remove,
    .blob_set_aside = disk_blob_set_aside,
    .blob_list = disk_blob_list,
    .record_put = disk_record_put,
    .record_get = disk_record_get,
    .record_delete = disk_record_delete,
    .record_list = disk_record_list,
};

enum blob_status disk_store_open(const struct disk_options *opt, struct blob_store **out, struct blob_error *err)
{
    CHECK(opt && opt->root && out);
    struct disk_store *s = calloc(1, sizeof *s);
    if (!s)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "disk store");
    s->base.ops = &disk_ops;
    s->base.caps = STORE_READ_STAGED | STORE_HAS_FD | (opt->shared ? STORE_SHARED : 0);
    s->magic = DISK_MAGIC;
    s->root_fd = s->lock_fd = -1;
    s->shared = opt->shared;
    s->keep_cached_bytes = opt->keep_cached_bytes;
    s->reserve_bytes = opt->reserve_bytes;
    s->log = opt->log;
    s->direct_min_bytes = opt->direct_min_bytes ? opt->direct_min_bytes : DIRECT_MIN_BYTES;
    if (!opt->shared)
        s->direct = direct_pool_new(DIRECT_BUFFERS);
    for (unsigned i = 0; i < STRIPES; i++)
        pthread_mutex_init(&s->stripes[i].lock, NULL);
    pthread_mutex_init(&s->break_lock, NULL);
    key_set_init(&s->known_dirs);
    key_set_init(&s->unsynced);
    key_set_init(&s->ending_uploads);
    struct uuid tag;
    uuid_new(&tag);
    snprintf(s->tmp_tag, sizeof s->tmp_tag, "%lx-%.8s", (unsigned long)getpid(), tag.text);
    if (!opt->shared)
        s->crowds = disk_crowds_new(s, opt->root); /* without memory: it does without */
    bool first = false;
    enum blob_status st = open_root(s, opt->root, err);
    if (st == BLOB_OK)
        st = lock_store(s, opt->root, &first, err);
    if (st == BLOB_OK)
        st = open_locked(s, opt, first, err);
    if (st != BLOB_OK) {
        store_release(s);
        return st;
    }
    *out = &s->base;
    return BLOB_OK;
}
