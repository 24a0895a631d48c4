/*
 * s3_memory - how the S3 store shares out its part of server.max_memory, and its buffers for parts.
 *
 * Counted is what is resident: of a fresh buffer what was written to it, of a used one all of it. Used ones are kept
 * where that stays within the share, and a few beyond it: clearing fresh pages takes longer than hashing. Fresh ones
 * are in large pages, where the system has them, since small ones cost a page fault each besides.
 */
#include "backends/s3/s3_memory.h"

#include "core/check.h"

#include <stdlib.h>
#include <sys/mman.h>

#define LARGE_PAGE_BYTES ((size_t)2 << 20)
#define DIRTY_MIN_BYTES  (16u << 10)
#define SPARE_PART       8 /* of the share may be spare when parts hold all of it */

struct spare {
    struct spare *next;
};

void s3_memory_init(struct s3_memory *m, size_t bytes, size_t part_size, atomic_size_t *dirty_bytes)
{
    *m = (struct s3_memory){.part_size = part_size, .parts_share = bytes / 4 * 3, .dirty_bytes = dirty_bytes};
    CHECK(pthread_mutex_init(&m->lock, NULL) == 0);
    CHECK(pthread_cond_init(&m->sent, NULL) == 0);
}

void s3_memory_release(struct s3_memory *m)
{
    s3_memory_trim(m);
    pthread_cond_destroy(&m->sent);
    pthread_mutex_destroy(&m->lock);
}

/* With the lock held, after any change: when memory is short, an even share of half of it brings it down. */
static void tell(struct s3_memory *m)
{
    size_t most = 0;
    if (m->held > m->parts_share) {
        most = m->parts_share / 2 / (m->writers ? m->writers : 1);
        most = most > DIRTY_MIN_BYTES ? most : DIRTY_MIN_BYTES;
    }
    atomic_store(m->dirty_bytes, most);
}

void s3_memory_writer(struct s3_memory *m, bool opens)
{
    pthread_mutex_lock(&m->lock);
    m->writers += opens ? 1u : -1u;
    tell(m);
    pthread_mutex_unlock(&m->lock);
}

uint8_t *s3_memory_block(size_t bytes)
{
    void *block;
    if (bytes < LARGE_PAGE_BYTES)
        return malloc(bytes);
    if (posix_memalign(&block, LARGE_PAGE_BYTES, bytes) != 0)
        return NULL;
    /* Refused where there are no large pages: then it is memory as any other. */
    (void)madvise(block, bytes / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES, MADV_HUGEPAGE);
    return block;
}

size_t s3_memory_touched(size_t bytes)
{
    return (bytes + LARGE_PAGE_BYTES - 1) / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES;
}

/* With the lock held: a spare buffer, no longer on the list; NULL: there is none. */
static struct spare *take_spare(struct s3_memory *m)
{
    struct spare *spare = m->spares;
    if (spare) {
        m->spares = spare->next;
        m->spare_bytes -= m->part_size;
    }
    return spare;
}

/* With the lock held: may there be so much more spare? What is about to be used anew may, also beyond the share. */
static bool may_spare(const struct s3_memory *m, size_t more)
{
    size_t bytes = m->spare_bytes + more;
    return m->held + bytes <= m->parts_share || bytes <= m->parts_share / SPARE_PART;
}

uint8_t *s3_memory_part(struct s3_memory *m, size_t *held)
{
    pthread_mutex_lock(&m->lock);
    struct spare *spare = take_spare(m);
    if (spare) {
        m->held += m->part_size;
        tell(m);
    }
    pthread_mutex_unlock(&m->lock);
    *held = spare ? m->part_size : 0;
    return spare ? (uint8_t *)spare : s3_memory_block(m->part_size);
}

void s3_memory_part_free(struct s3_memory *m, uint8_t *buf, size_t held)
{
    struct spare *spare = (struct spare *)(void *)buf;
    pthread_mutex_lock(&m->lock);
    m->held -= held;
    bool keep = may_spare(m, m->part_size);
    if (keep) {
        spare->next = m->spares;
        m->spares = spare;
        m->spare_bytes += m->part_size;
    }
    tell(m);
    pthread_mutex_unlock(&m->lock);
    if (!keep)
        free(buf);
}

void s3_memory_hold(struct s3_memory *m, size_t bytes)
{
    struct spare *spare = NULL;
    pthread_mutex_lock(&m->lock);
    m->held += bytes;
    if (!may_spare(m, 0))
        spare = take_spare(m);
    tell(m);
    pthread_mutex_unlock(&m->lock);
    free(spare);
}

void s3_memory_drop(struct s3_memory *m, size_t bytes)
{
    pthread_mutex_lock(&m->lock);
    CHECK(m->held >= bytes);
    m->held -= bytes;
    tell(m);
    pthread_mutex_unlock(&m->lock);
}

bool s3_memory_is_short(const struct s3_memory *m)
{
    return atomic_load(m->dirty_bytes) != 0;
}

unsigned s3_memory_parallel(struct s3_memory *m, bool sends)
{
    pthread_mutex_lock(&m->lock);
    size_t senders = m->senders + !sends, parts = m->parts_share / 2 / m->part_size;
    pthread_mutex_unlock(&m->lock);
    return parts > senders ? (unsigned)(parts / senders) : 1;
}

void s3_memory_sender(struct s3_memory *m, bool begins)
{
    pthread_mutex_lock(&m->lock);
    m->senders += begins ? 1u : -1u;
    pthread_mutex_unlock(&m->lock);
}

void s3_memory_send(struct s3_memory *m, size_t bytes)
{
    pthread_mutex_lock(&m->lock);
    while (m->sending > 0 && m->sending + bytes > m->parts_share / 2)
        pthread_cond_wait(&m->sent, &m->lock);
    m->sending += bytes;
    pthread_mutex_unlock(&m->lock);
}

void s3_memory_sent(struct s3_memory *m, size_t bytes)
{
    pthread_mutex_lock(&m->lock);
    m->sending -= bytes;
    pthread_cond_broadcast(&m->sent);
    pthread_mutex_unlock(&m->lock);
}

void s3_memory_trim(struct s3_memory *m)
{
    pthread_mutex_lock(&m->lock);
    struct spare *spare = m->spares;
    m->spares = NULL;
    m->spare_bytes = 0;
    pthread_mutex_unlock(&m->lock);
    while (spare) {
        struct spare *next = spare->next;
        free(spare);
        spare = next;
    }
}
