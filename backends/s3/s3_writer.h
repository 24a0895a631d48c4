/*
 * s3_writer - the writer of the S3 store, as its three files share it: s3_parts.c (bytes in, parts out), s3_writer.c
 * (flushes, opening), s3_commit.c (the end).
 */
#ifndef BLOBD_BACKENDS_S3_S3_WRITER_H
#define BLOBD_BACKENDS_S3_S3_WRITER_H

#include "backends/s3/s3_store_internal.h"

#define S3_WRITER_MAGIC 0x53337772u

enum slot_state { SLOT_FILLING, SLOT_FULL, SLOT_SENDING, SLOT_SENT, SLOT_FAILED };

/*
 * One part of an upload. It is kept until a flush has passed its end, since a flush inside it needs its first bytes
 * once more. buf holds [have, have + len); [start, have) lies in the segments of `state`.
 *
 *     SLOT_FILLING  takes bytes: the last slot
 *     SLOT_FULL     waits to be sent
 *     SLOT_SENDING  is being sent by a thread of the store's pool; nobody changes buf then
 *     SLOT_SENT     S3 has it, under etag
 *     SLOT_FAILED   could not be sent, as status and err tell; settling sends it again
 */
struct part_slot {
    struct worker_job job;
    struct part_slot *next;
    struct s3_writer *writer;
    enum slot_state state;
    uint32_t number;
    uint64_t epoch;
    uint64_t start, have;
    uint8_t *buf;
    size_t len, cap;
    bool whole;  /* buf is one of s3_memory's, of a whole part */
    size_t held; /* what s3_memory counts of it */
    char etag[S3_ETAG_MAX];
    enum blob_status status; /* of a failed one */
    struct blob_error err;
};

/* The parts that begin at s3_staged_parts_end(&state), in order; the last one is filling. For s3_parts.c alone; guarded
 * by the writer's lock. */
struct s3_slots {
    struct part_slot *first, *last;
    unsigned sending; /* how many are SLOT_SENDING */
};

struct s3_writer {
    struct blob_writer base;
    unsigned magic;
    struct s3_store *store;
    struct s3_writer *next_open, **at_open; /* the store's list of them, guarded by its lock */
    struct uuid id;
    uint64_t epoch;
    struct s3_staged from; /* what it was opened at; its objects stay, so that core can go back to it */
    pthread_mutex_t order; /* taken first: one thread at a time numbers parts and sends them */
    pthread_mutex_t lock;  /* guards what follows; slots' states too */
    pthread_cond_t changed;
    struct s3_staged state;  /* as of the last flush */
    struct s3_staged before; /* as of the one before it */
    bool staged;             /* there may be objects below staging/<id>/ */
    bool anchored;           /* its anchor is there; touched by flushes and commits alone, one at a time */
    uint32_t sequence;       /* of the last state object written */
    struct s3_slots slots;
    char upload_id[S3_STAGED_UPLOAD_ID_MAX + 1];
    uint32_t next_number;
    uint64_t run_epoch; /* of the run that its parts belong to */
    /* core's keep bytes with `state`; known is false until they are written or read */
    bool keep_known;
    uint32_t keep_len;
    uint8_t keep[UPLOAD_KEEP_MAX];
};

struct s3_writer *s3_writer_of(struct blob_writer *base);

/* ---- s3_parts.c ---- */

/* Copies the bytes behind what was written so far, and sends the parts that are full. On failure nothing is taken. */
enum blob_status s3_writer_take(struct s3_writer *w, const struct iovec *iov, int count,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* Waits until every full part is sent, sending failed ones again first. */
enum blob_status s3_writer_settle(struct s3_writer *w, uint64_t end, struct blob_error *err) BLOB_MUST_CHECK;
/* Copies [offset, offset + len), all of which lies in slots or in segments of the state. */
enum blob_status s3_writer_copy(struct s3_writer *w, uint64_t offset, uint8_t *out, size_t len,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* With the lock held: frees the parts that end at or below `end`. */
void s3_writer_forget_parts(struct s3_writer *w, uint64_t end);
/* With the lock held, where memory is short: frees what is below `end` of the part being filled; the state has it. */
void s3_writer_forget_staged(struct s3_writer *w, uint64_t end);
/* Is a part on its way that takes bytes from segments? They must not be deleted then. */
bool s3_writer_sends_staged(struct s3_writer *w);

/* Gives the state as it is with all sent parts whose end is at most `end`, and no segments behind them. */
void s3_writer_advance(struct s3_writer *w, uint64_t end, struct s3_staged *out);
/* The whole content, of size bytes, if one part in memory holds it, or NULL. It is valid until the next write or flush.
 */
const uint8_t *s3_writer_in_memory(const struct s3_writer *w, size_t size);
/* Does the first of the parts in memory have a number, so that S3 may have it? */
bool s3_writer_has_numbered(const struct s3_writer *w);
/* With the lock held: waits until no part is on its way. */
void s3_writer_await_sending(struct s3_writer *w);

/* ---- s3_writer.c ---- */

/* Writes a state object: its header, and [from, from + len) behind it. next->sequence and offset are set. */
enum blob_status s3_writer_put_state(struct s3_writer *w, struct s3_staged *next, const void *keep, size_t keep_len,
                                     uint64_t from, size_t len, struct blob_error *err) BLOB_MUST_CHECK;
void s3_writer_set_keep(struct s3_writer *w, const void *keep, size_t len);
/* Reads the keep bytes of what it was opened at, unless they are known. */
enum blob_status s3_writer_need_keep(struct s3_writer *w, struct blob_error *err) BLOB_MUST_CHECK;
void s3_writer_free(struct s3_writer *w);

#endif
