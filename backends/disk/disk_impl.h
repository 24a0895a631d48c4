/*
 * disk_impl - what the source files of the disk store share. Included by backends/disk/ only.
 *
 * Public names (in blobs/, and in records/ where there is no journal) change in one way only, a struct disk_change: a
 * rename onto the name, or a removal. With the journal a change is written there, waited for, and then carried out; so
 * a public name never shows, nor will show after a crash, what is not durable. A lazy change stays pending in its
 * stripe until a later sync has covered it, and is carried out by whoever comes next: a thread that finished a durable
 * operation, a reader of the same stripe, a listing, or the checkpoint. Without the journal every change is synced and
 * carried out at once.
 *
 * Stripes: STRIPES mutexes, picked by the hash of the name. Whoever changes a name holds its stripe from looking at it
 * to having carried out (or queued) the change. Lock order: one stripe, then the journal's lock. Nobody holds two
 * stripes.
 */
#ifndef BLOBD_BACKENDS_DISK_DISK_IMPL_H
#define BLOBD_BACKENDS_DISK_DISK_IMPL_H

#include "backends/disk/disk_layout.h"
#include "backends/disk/disk_store.h"
#include "backends/disk/file/direct_file.h"
#include "backends/disk/journal/disk_journal.h"
#include "backends/disk/key_set.h"
#include "core/blob_store.h"
#include "core/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/uio.h>

#define DISK_MAGIC        0x6469736bu
#define STRIPES           1024u
#define STRIPE_WORDS      (STRIPES / 64)
/* Flushes of at most this many bytes go through the journal; larger ones sync their file. */
#define JOURNAL_FLUSH_MAX (128u << 10)

struct disk_change {
    struct disk_change *next;
    struct journal_ticket ticket;
    struct disk_path from; /* "": `to` is removed */
    struct disk_path to;
};

struct disk_stripe {
    pthread_mutex_t lock;
    struct disk_change *head, *tail; /* pending, in order */
};

struct disk_store {
    struct blob_store base;
    unsigned magic;
    int root_fd, lock_fd;
    bool shared;
    uint64_t keep_cached_bytes;
    size_t direct_min_bytes;
    struct direct_pool *direct; /* NULL where nodes share the file system */
    uint64_t reserve_bytes;
    struct logger *log;
    struct disk_journal *journal;   /* NULL: every change is synced by itself */
    struct disk_marks *marks;       /* with the journal: flushed offsets that the files do not tell yet */
    bool attributes;                /* the file system keeps some with a file */
    struct disk_memtable *memtable; /* with the journal: records that wait for their files */
    struct disk_crowds *crowds;     /* NULL: nodes share the store, or no memory */
    _Atomic uint64_t names_read;    /* of directories of records, since it was opened */
    struct disk_stripe stripes[STRIPES];
    _Atomic uint64_t pending[STRIPE_WORDS]; /* a bit for each stripe that has pending changes */
    struct key_set ending_uploads;          /* by path: a pending change ends them */
    struct key_set known_dirs;              /* made, and durable where that matters */
    struct key_set unsynced;                /* without the journal: names whose change is not known to be durable */
    atomic_uint_fast64_t tmp_serial;
    char tmp_tag[32];           /* differs from that of any other process, on any node */
    pthread_mutex_t break_lock; /* guards the next two */
    enum blob_status broken;    /* why nothing more can be made durable; BLOB_OK: it can */
    struct blob_error broken_error;
    _Atomic int64_t free_asked_us;
    _Atomic uint64_t free_bytes;
};

static inline struct iovec disk_part(const void *data, size_t len)
{
    return (struct iovec){(void *)(uintptr_t)data, len};
}

/* ---- disk_handle.c ---- */

/* The store behind its base; a base that is not a disk store's is a bug. */
struct disk_store *disk_of(struct blob_store *base);
/* A name in tmp/ that no other process uses, on any node, and that this one has not given before. */
void disk_tmp_path(struct disk_store *s, struct disk_path *out);
/* Does the disk have room for `bytes` more and still keep reserve_bytes free? The answer may be a second old. NO_SPACE.
 */
enum blob_status disk_fits(struct disk_store *s, uint64_t bytes, uint64_t reserve_bytes,
                           struct blob_error *err) BLOB_MUST_CHECK;

/* ---- disk_syncs.c ---- */

/* To be called after a failed sync. Nobody can tell what that sync has lost, so nothing more becomes durable until the
 * store is opened again. */
void disk_break(struct disk_store *s, enum blob_status st, const struct blob_error *why);
/* Returns BLOB_OK, or the reason why the store is broken. */
enum blob_status disk_unbroken(struct disk_store *s, struct blob_error *err) BLOB_MUST_CHECK;
/* The first syncs the names in the directory at path, the second those in the directory that holds path. A failure
 * breaks the store. */
enum blob_status disk_dir_sync(struct disk_store *s, const char *path, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status disk_dir_sync_parent(struct disk_store *s, const char *path, struct blob_error *err) BLOB_MUST_CHECK;
/* Syncs the names of all directories above path's last part. */
enum blob_status disk_dirs_sync_above(struct disk_store *s, const char *path, struct blob_error *err) BLOB_MUST_CHECK;
/* Both are for a store without the journal. disk_name_changes() notes that a name is about to change; it fails where
 * nothing can be made durable any more. disk_name_is_durable() notes that the change is durable, or was not made. */
enum blob_status disk_name_changes(struct disk_store *s, const struct disk_path *path,
                                   struct blob_error *err) BLOB_MUST_CHECK;
void disk_name_is_durable(struct disk_store *s, const struct disk_path *path);
/* After OK a caller may promise that the name is there, or that it is not: a change of it that is not known to be
 * durable is made durable here. */
enum blob_status disk_name_durable(struct disk_store *s, const struct disk_path *path,
                                   struct blob_error *err) BLOB_MUST_CHECK;

/* ---- disk_changes.c ---- */

unsigned disk_stripe_of(const struct disk_path *path);
/* Locks a stripe in which nothing is pending. On failure it is not locked. */
enum blob_status disk_stripe_enter(struct disk_store *s, unsigned stripe, struct blob_error *err) BLOB_MUST_CHECK;
/* Unlocks, and carries out what is pending elsewhere and durable by now. Whoever has changed a name leaves by it. */
void disk_stripe_leave(struct disk_store *s, unsigned stripe);
/* Only unlocks. It is for a caller that has changed no name. */
void disk_stripe_unlock(struct disk_store *s, unsigned stripe);
/* The first carries out what is pending on this name, the second all that is pending. After OK the disk shows what was
 * last written. */
enum blob_status disk_settle(struct disk_store *s, const struct disk_path *path,
                             struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status disk_settle_all(struct disk_store *s, struct blob_error *err) BLOB_MUST_CHECK;
/* Carries out what is durable, without waiting. Returns the first failure; a change that failed stays pending. */
enum blob_status disk_settle_durable(struct disk_store *s, struct blob_error *err);
/* Runs a change in a stripe that was entered: journals it, and carries it out or queues it. The content of `from` must
 * be durable, in its file or in the journal. */
struct disk_entry {
    enum journal_kind kind;
    int count;
    struct iovec parts[4];
};
enum blob_status disk_change_run(struct disk_store *s, unsigned stripe, const struct disk_change *change,
                                 const struct disk_entry *entry, unsigned flags,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* Is a pending change going to end this upload? */
bool disk_upload_ending(struct disk_store *s, const struct disk_path *upload);
/* Makes the directories above path where they are missing. Without the journal their names are durable on OK. */
enum blob_status disk_parents(struct disk_store *s, const struct disk_path *path,
                              struct blob_error *err) BLOB_MUST_CHECK;
/* Frees the changes that were never carried out. Only closing calls it. */
void disk_changes_release(struct disk_store *s);

/* ---- the callbacks ---- */

enum blob_status disk_upload_open(struct blob_store *base, const struct uuid *id, const struct upload_mark *from,
                                  uint64_t epoch, struct blob_writer **out, struct blob_error *err);
enum blob_status disk_write(struct blob_writer *base, const struct iovec *parts, int count, struct blob_error *err);
enum blob_status disk_flush(struct blob_writer *base, uint64_t offset, const void *keep, size_t keep_len,
                            unsigned flags, struct upload_mark *mark, struct blob_error *err);
enum blob_status disk_commit(struct blob_writer *base, const struct digest *digest, unsigned flags,
                             struct blob_error *err);
void disk_writer_close(struct blob_writer *base);
enum blob_status disk_upload_stat(struct blob_store *base, const struct uuid *id, struct staged_stat *out,
                                  struct blob_error *err);
enum blob_status disk_upload_read(struct blob_store *base, const struct uuid *id, uint64_t offset, void *buf,
                                  size_t len, size_t *got, struct blob_error *err);
enum blob_status disk_upload_discard(struct blob_store *base, const struct uuid *id, const struct upload_mark *mark,
                                     struct blob_error *err);
enum blob_status disk_upload_list(struct blob_store *base, staged_list_fn *fn, void *arg, struct blob_error *err);

enum blob_status disk_blob_stat(struct blob_store *base, const struct digest *digest, struct blob_info *out,
                                struct blob_error *err);
enum blob_status disk_blob_open(struct blob_store *base, const struct digest *digest, struct blob_reader **out,
                                struct blob_info *info, struct blob_error *err);
enum blob_status disk_reader_read(struct blob_reader *base, uint64_t offset, void *buf, size_t len,
                                  struct blob_error *err);
int disk_reader_fd(const struct blob_reader *base);
void disk_reader_close(struct blob_reader *base);
enum blob_status disk_blob_touch(struct blob_store *base, const struct digest *digest, int64_t *touched_ms,
                                 struct blob_error *err);
enum blob_status disk_blob_remove(struct blob_store *base, const struct digest *digest, int64_t before_ms,
                                  struct blob_error *err);
enum blob_status disk_blob_set_aside(struct blob_store *base, const struct digest *digest, int64_t touched_ms,
                                     struct blob_error *err);
enum blob_status disk_blob_list(struct blob_store *base, const struct digest *after, blob_list_fn *fn, void *arg,
                                struct blob_error *err);

enum blob_status disk_record_put(struct blob_store *base, const char *key, const void *value, size_t len,
                                 unsigned flags, struct blob_error *err);
enum blob_status disk_record_get(struct blob_store *base, const char *key, struct bytebuf *out, struct blob_error *err);
enum blob_status disk_record_delete(struct blob_store *base, const char *key, unsigned flags, struct blob_error *err);
enum blob_status disk_record_list(struct blob_store *base, const char *prefix, const char *after, size_t limit,
                                  bool with_values, record_list_fn *fn, void *arg, struct blob_error *err);

/* ---- disk_record_file.c ---- */

/* Appends the content of the record's file to out. NOT_FOUND. */
enum blob_status disk_record_read(struct disk_store *s, const struct disk_path *path, struct bytebuf *out,
                                  struct blob_error *err) BLOB_MUST_CHECK;
/* Writes the file in place. The caller keeps readers away from it, and the journal writes it again after a crash. */
enum blob_status disk_record_write(struct disk_store *s, const struct disk_path *path, const void *value, size_t len,
                                   struct blob_error *err) BLOB_MUST_CHECK;

/* ---- disk_self_check.c ---- */

/* Refuses a file system that lacks what the store relies on. A full file system passes. */
enum blob_status disk_probe(struct disk_store *s, const char *root, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status disk_self_check(struct blob_store *base, store_report_fn *report, void *arg, struct blob_error *err);

/* ---- disk_uploads.c and disk_blobs.c, beside their callbacks ---- */

/*
 * Opening calls it after recovery, while nobody else uses the store. Where a version without marks may have used the
 * store, it takes the length of each staged upload for its mark, and says in `lock` that marks are kept.
 */
enum blob_status disk_uploads_adopt(struct disk_store *s, struct blob_error *err) BLOB_MUST_CHECK;

/* Touches a blob that is there. The caller has entered the blob's stripe. The touch is durable with the journal's next
 * sync, or at once where there is no journal. touched_ms may be NULL. NOT_FOUND. */
enum blob_status disk_blob_touch_locked(struct disk_store *s, const struct digest *digest, const struct disk_path *path,
                                        int64_t *touched_ms, struct blob_error *err) BLOB_MUST_CHECK;
/* Puts back what a node that died was about to remove from shared storage. */
enum blob_status disk_blobs_restore(struct disk_store *s, struct blob_error *err) BLOB_MUST_CHECK;

/* ---- disk_names.c ---- */

/* The names in a directory, sorted; "." and ".." are left out. A directory that is missing is empty. */
struct disk_names {
    char **names;
    size_t count, cap;
    size_t met; /* in the directory, whether kept here or not */
};
enum blob_status disk_names_read(int root_fd, const char *path, int (*compare)(const char *, const char *),
                                 struct disk_names *out, struct blob_error *err) BLOB_MUST_CHECK;
/* Says which names are kept: the first `most` of those that begin with prefix and sort behind `after` ("": all). The
 * others are read from the directory, and cost no more. */
struct disk_names_range {
    const char *prefix, *after;
    size_t most; /* SIZE_MAX: no bound */
};
enum blob_status disk_names_read_range(int root_fd, const char *path, int (*compare)(const char *, const char *),
                                       const struct disk_names_range *range, struct disk_names *out,
                                       struct blob_error *err) BLOB_MUST_CHECK;
/* Returns false if there is no memory. */
bool disk_names_add(struct disk_names *names, const char *name);
/* Takes the names in gone out of the sorted names and puts those in added in. It sorts gone and added as well. Returns
 * false if there is no memory. */
bool disk_names_merge(struct disk_names *names, struct disk_names *gone, struct disk_names *added,
                      int (*compare)(const char *, const char *));
void disk_names_release(struct disk_names *names);

/* ---- disk_replay.c ---- */

/* Carries out what the journal says. On OK everything is synced, and *next_segment is what journal_options need: 1
 * where there was no journal. */
enum blob_status disk_replay(int root_fd, struct logger *log, uint64_t *next_segment,
                             struct blob_error *err) BLOB_MUST_CHECK;

#endif
