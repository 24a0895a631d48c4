/*
 * disk_journal - the write-ahead journal of a disk store: many small changes made durable by one shared fdatasync.
 *
 * A change is appended (into the page cache: it survives kill -9 from then on) and becomes durable when somebody waits
 * for it. Waiters share: the first one syncs for all that was appended before, the others sleep until their part is
 * done, and those who came meanwhile are the next batch. Order is kept: what is durable is always a prefix of what was
 * appended.
 *
 * Format. journal/<nn> are segments of equal size, written with zeros once and then reused, so that a sync has no
 * metadata to write. A segment begins with a header, made durable before the first entry; the key of the entries'
 * checks follows, and the entries: header (length, kind, check), body. Each check covers the one before. After a sync
 * has begun the next entry starts at a multiple of 4096, so that no block that is durable is written again. The last
 * entry of a full segment is SEAL. Reading stops at the first entry that does not check: a torn tail, never
 * acknowledged. The bytes are in disk_journal_format.h.
 *
 * The key is written with the first entry, not before: a journal that has been closed has none, and any version opens
 * it.
 *
 * Checkpoint. Now and then, and when segments run short, a thread of the journal's own asks the store to carry out what
 * is still pending, waits until every pinned entry of the older segments has been carried out, syncs the file system
 * and frees those segments.
 *
 * Threads: append, wait, pin, unpin from any; open and close from one. Ownership: arguments are borrowed. Errors: a
 * sync that failed leaves the page cache in an unknown state, so the journal is broken from then on: every later append
 * or wait gives the same error until the store is opened again.
 */
#ifndef BLOBD_BACKENDS_DISK_JOURNAL_DISK_JOURNAL_H
#define BLOBD_BACKENDS_DISK_JOURNAL_DISK_JOURNAL_H

#include "backends/disk/journal/disk_journal_format.h"
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

struct disk_journal;
struct iovec;
struct logger;

struct journal_options {
    int root_fd;            /* borrowed until close */
    uint64_t segment_bytes; /* 1 MiB at least */
    unsigned max_segments;  /* 3 at least; appending waits for a checkpoint when all are full */
    int64_t checkpoint_ms;  /* after this time with changes they are checkpointed */
    uint64_t first_segment; /* at least 1, greater than any number used before: journal_log's next_segment */
    struct logger *log;     /* may be NULL */
    /* Carries out what is appended and pending, as far as it can without waiting for a lock. The first failure. */
    enum blob_status (*settle)(void *arg, struct blob_error *err);
    void *arg;
};

/* Where an entry begins and ends, as segment number << 32 | offset: grows with every entry; lsn is waited for. */
struct journal_ticket {
    uint64_t begin, lsn;
};

/* What older segments say has been carried out and synced (see journal_log): they are free to be reused. */
enum blob_status disk_journal_open(const struct journal_options *opt, struct disk_journal **out,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Checkpoints, so that the next opening has nothing to do; nothing may be pinned. Frees. */
void disk_journal_close(struct disk_journal *j);

/*
 * Appends one entry whose body is the parts joined. With pin, its segment is kept until disk_journal_unpin(): for
 * changes that are carried out after they are durable. The others have been carried out before they are appended.
 */
enum blob_status disk_journal_append(struct disk_journal *j, enum journal_kind kind, const struct iovec *parts,
                                     int count, bool pin, struct journal_ticket *out,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* Returns when everything up to lsn is durable. */
enum blob_status disk_journal_wait(struct disk_journal *j, uint64_t lsn, struct blob_error *err) BLOB_MUST_CHECK;
/* Breaks it as a failed sync of its own does: something it answers for was lost. */
void disk_journal_fail(struct disk_journal *j, enum blob_status st, const struct blob_error *why);
void disk_journal_unpin(struct disk_journal *j, const struct journal_ticket *ticket);
/* Everything up to here is durable. */
uint64_t disk_journal_durable(const struct disk_journal *j);
/* NO_SPACE: after a start on a full disk there is one segment alone, so that another start would find none to give up
 * for the files that what is journaled now will need. */
enum blob_status disk_journal_spare(struct disk_journal *j, struct blob_error *err) BLOB_MUST_CHECK;
/* Everything appended is below or at this. */
uint64_t disk_journal_end(const struct disk_journal *j);
/* OK, or why the journal is broken. */
enum blob_status disk_journal_check(struct disk_journal *j, struct blob_error *err) BLOB_MUST_CHECK;
/* Now; waits for it. */
enum blob_status disk_journal_checkpoint(struct disk_journal *j, struct blob_error *err) BLOB_MUST_CHECK;

/* ---- reading, at start ---- */

struct journal_entry {
    uint64_t begin; /* its position, as in struct journal_ticket */
    enum journal_kind kind;
    uint32_t len;
    const uint8_t *body; /* borrowed from the log */
};

struct journal_map {
    char name[4];
    const uint8_t *data;
    size_t size;
    uint64_t number, oldest;
};

struct journal_log {
    struct journal_entry *entries; /* in order */
    size_t count, cap;
    uint64_t next_segment; /* 0: there is no journal */
    /* The number of a segment whose entries end before its end, although a later one, behind, has entries: 0: none.
     * Then either the power was cut before any of them was acknowledged, or the segment is damaged. */
    uint64_t torn, behind;
    struct journal_map *maps;
    size_t map_count;
};

/* Reads what is to be replayed; none is not an error. The segments are mapped until release. */
enum blob_status journal_log_read(int root_fd, struct journal_log *out, struct blob_error *err) BLOB_MUST_CHECK;
/* Where a segment is torn: keeps it and those behind it, as `into`/journal-<number>, for whoever wants to look into
 * them; else the journal would write over them. After what was read has been carried out and synced. */
enum blob_status journal_log_set_aside(int root_fd, const struct journal_log *log, const char *into,
                                       struct blob_error *err) BLOB_MUST_CHECK;
/*
 * Gives the disk back the segments that hold nothing to be replayed, all but one of what there are: on a disk that is
 * full, recovery goes on in their room.
 */
void journal_log_give_room(int root_fd, struct journal_log *log);
void journal_log_release(struct journal_log *log);
/* Removes every segment. What they say has been carried out and synced. */
enum blob_status journal_log_remove(int root_fd, struct blob_error *err) BLOB_MUST_CHECK;
/* Removes what a crash left of such a removal. */
enum blob_status journal_log_remove_old(int root_fd, struct blob_error *err) BLOB_MUST_CHECK;

#endif
