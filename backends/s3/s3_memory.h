/*
 * s3_memory - how the S3 store shares out its part of server.max_memory, and its buffers for parts.
 *
 * Three quarters are for parts, whether they are being filled, on their way, or spare buffers; the rest is left to what
 * is not counted: libcurl's buffers, staged bytes on their way out and back. Nothing is reserved.
 *
 * Filling is never made to wait: those who would wait might hold what the others wait for. When parts hold more than
 * their share, memory is *short*: blob_store.dirty_bytes then tells core how much a writer may hold before it is
 * flushed, and flushed bytes, which S3 has, are dropped.
 *
 * Threads: any. Its lock is the last to be taken. Units: bytes.
 */
#ifndef BLOBD_BACKENDS_S3_S3_MEMORY_H
#define BLOBD_BACKENDS_S3_S3_MEMORY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct s3_memory {
    size_t part_size;
    size_t parts_share;
    atomic_size_t *dirty_bytes; /* the store's; borrowed */
    pthread_mutex_t lock;
    pthread_cond_t sent;
    size_t held;          /* guarded by lock: by parts */
    size_t sending;       /* guarded by lock: of these, on their way */
    struct spare *spares; /* guarded by lock: whole parts' buffers, kept since fresh pages cost more than copying */
    size_t spare_bytes;   /* guarded by lock */
    unsigned writers;     /* guarded by lock: open */
    unsigned senders;     /* guarded by lock: with parts on their way */
};

void s3_memory_init(struct s3_memory *m, size_t bytes, size_t part_size, atomic_size_t *dirty_bytes);
void s3_memory_release(struct s3_memory *m);

/* Fresh memory, for free(); NULL without. Blocks from 2 MiB are in large pages where they can be. */
uint8_t *s3_memory_block(size_t bytes);
/* How much of such a block is resident once its first bytes were written. */
size_t s3_memory_touched(size_t bytes);

/* A writer opens, or closes. */
void s3_memory_writer(struct s3_memory *m, bool opens);

/* A buffer of part_size; NULL without memory. *held: how much of it counts already, its pages having been used. */
uint8_t *s3_memory_part(struct s3_memory *m, size_t *held);
/* Takes buf back, of which held was counted. */
void s3_memory_part_free(struct s3_memory *m, uint8_t *buf, size_t held);
/* Counts bytes that a part holds now, or no longer. */
void s3_memory_hold(struct s3_memory *m, size_t bytes);
void s3_memory_drop(struct s3_memory *m, size_t bytes);
/* Do parts hold more than their share? */
bool s3_memory_is_short(const struct s3_memory *m);

/* A writer begins to have parts on their way, or has none any more. */
void s3_memory_sender(struct s3_memory *m, bool begins);
/* An even share of the parts that may be on their way, one at least, for a writer that has some or would be the next.
 */
unsigned s3_memory_parallel(struct s3_memory *m, bool sends);
/* Waits until so much more may be on its way; what is on its way always arrives or fails by itself. */
void s3_memory_send(struct s3_memory *m, size_t bytes);
void s3_memory_sent(struct s3_memory *m, size_t bytes);

/* Frees the buffers that nobody uses. */
void s3_memory_trim(struct s3_memory *m);

#endif
