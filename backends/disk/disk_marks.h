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

/* Makes the table of a store with a journal. NULL: there is no memory. */
struct disk_marks *disk_marks_new(struct disk_store *store);
/* Frees the table. The journal keeps what is still in it. NULL is fine. */
void disk_marks_free(struct disk_marks *m);

/* A journal entry. As soon as it is durable, so are `flushed` bytes of the upload: see disk_journal_append(). */
struct disk_mark_entry {
    enum journal_kind kind; /* DATA, FLUSHED or TRUNCATE */
    uint64_t offset;        /* in the entry */
    const void *data;       /* of DATA, else NULL */
    size_t len;
    uint64_t flushed;
};
enum blob_status disk_marks_journal(struct disk_store *s, const struct uuid *id, const struct disk_mark_entry *entry,
                                    struct journal_ticket *out, struct blob_error *err) BLOB_MUST_CHECK;
/* Forgets an upload whose end has been carried out. path_hash is key_hash() of its path. */
void disk_marks_drop(struct disk_marks *m, uint64_t path_hash);
/* Writes the attributes of what is durable, without waiting, for a checkpoint. Returns the first failure; a mark that
 * failed stays in the table. */
enum blob_status disk_marks_settle(struct disk_marks *m, struct blob_error *err);
/* Does the journal have bytes of this upload that no sync of its file has covered? */
bool disk_marks_journal_only(struct disk_store *s, const struct disk_path *path);

/* Without the journal, and with everything up to `flushed` in the file, makes that and its mark durable. `from` is how
 * much was durable before. No sync of this descriptor may have failed. */
enum blob_status disk_mark_sync(struct disk_store *s, int fd, uint64_t from, uint64_t flushed, const char *path,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* Does the file system of this file keep attributes? */
bool disk_mark_try(int fd);
/* Sets the attribute. It is durable with the next file_sync_all() of the file, or tree_sync(). */
enum blob_status disk_mark_set(int fd, uint64_t flushed, const char *path, struct blob_error *err) BLOB_MUST_CHECK;

/* Tells how many of the `size` bytes of an upload's file are durable. If *lsn is not 0, they are so only once the
 * journal is durable up to *lsn. */
enum blob_status disk_mark_flushed(struct disk_store *s, const struct disk_path *path, int fd, uint64_t size,
                                   uint64_t *flushed, uint64_t *lsn, struct blob_error *err) BLOB_MUST_CHECK;

/* Writes this process into `lock`. kept says whether marks are kept: as `lock` was found, or from now on. */
enum blob_status disk_lock_write(struct disk_store *s, bool kept, struct blob_error *err) BLOB_MUST_CHECK;
/* Does `lock` say that all who have used the store since it was adopted keep marks? */
bool disk_lock_says_kept(const struct disk_store *s);

#endif
