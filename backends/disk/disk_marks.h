/*
 * disk_marks - how far each staged upload is durable, kept durably.
 *
 * After a power cut a staged file may be longer than what was flushed, with anything in it: a file's length is no
 * promise. So the flushed offset is kept beside the content, where it costs no sync of its own:
 *
 *   with the journal   its entries tell it; while an upload has entries in segments that are not freed yet, it is in a
 *                      table here, and goes to an attribute of the file at the checkpoint that frees them, made durable
 *                      by the same syncfs()
 *   without            it is set before the sync that makes the content durable, with a sum of what that sync covers;
 *                      one that survived without its content does not check, and the flush before counts. Where so
 *                      much is flushed that summing it would cost more than a sync, it is set and synced afterwards
 *
 *     user.blobd.flushed    u64 from  u64 flushed  u32 sum of [from, flushed), CRC-32C  u32 sum of these 20 bytes
 *
 * Little-endian. No attribute: nothing was flushed. That holds in a store that no version without marks has used since:
 * the file `lock` says so, see disk_uploads_adopt().
 *
 * Threads: any. Locks: a shard's, then the journal's; no shard's is held while the journal may wait. Errors: where the
 * file system has no attributes, the length counts, as it did before there were marks.
 */
#ifndef BLOBD_BACKENDS_DISK_DISK_MARKS_H
#define BLOBD_BACKENDS_DISK_DISK_MARKS_H

#include "backends/disk/disk_impl.h"

struct disk_marks;

/* For a store with a journal; NULL: out of memory. */
struct disk_marks *disk_marks_new(struct disk_store *store);
/* What is still in it stays in the journal. NULL is fine. */
void disk_marks_free(struct disk_marks *m);

/* An entry after which `flushed` bytes of the upload are durable, as soon as it is: see disk_journal_append(). */
struct disk_mark_entry {
    enum journal_kind kind; /* DATA, FLUSHED or TRUNCATE */
    uint64_t offset;        /* in the entry */
    const void *data;       /* of DATA, else NULL */
    size_t len;
    uint64_t flushed;
};
enum blob_status disk_marks_journal(struct disk_store *s, const struct uuid *id, const struct disk_mark_entry *entry,
                                    struct journal_ticket *out, struct blob_error *err) BLOB_MUST_CHECK;
/* The upload is ended, carried out. path_hash: key_hash() of its path. */
void disk_marks_drop(struct disk_marks *m, uint64_t path_hash);
/* Writes the attributes of what is durable, without waiting: for a checkpoint. The first failure; what failed stays. */
enum blob_status disk_marks_settle(struct disk_marks *m, struct blob_error *err);
/* Does the journal have bytes of this upload that no sync of its file has covered? */
bool disk_marks_journal_only(struct disk_store *s, const struct disk_path *path);

/* Without the journal, with everything up to `flushed` in the file: makes that durable, and its mark. from: what was so
 * before. The descriptor's syncs must not have failed. */
enum blob_status disk_mark_sync(struct disk_store *s, int fd, uint64_t from, uint64_t flushed, const char *path,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* Does the file system of this file keep attributes? */
bool disk_mark_try(int fd);
/* Sets the attribute; durable with the next sync of all that is known of the file. */
enum blob_status disk_mark_set(int fd, uint64_t flushed, const char *path, struct blob_error *err) BLOB_MUST_CHECK;

/* How many bytes of an upload's file, which has `size`, are durable; *lsn: once the journal is, so far (0: already). */
enum blob_status disk_mark_flushed(struct disk_store *s, const struct disk_path *path, int fd, uint64_t size,
                                   uint64_t *flushed, uint64_t *lsn, struct blob_error *err) BLOB_MUST_CHECK;

/* Writes this process into `lock`. kept: as it was found, or is from now on. */
enum blob_status disk_lock_write(struct disk_store *s, bool kept, struct blob_error *err) BLOB_MUST_CHECK;
/* Does `lock` say that all who have used the store since it was adopted keep marks? */
bool disk_lock_says_kept(const struct disk_store *s);

#endif
