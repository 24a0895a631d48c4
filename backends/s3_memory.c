/*
 * s3_memory - how the S3 store shares out its part of server.max_memory, and its buffers for parts.
 *
 * Counted is what is resident: of a fresh buffer what was written to it, of a used one all of it. Used ones are kept
 * and handed out where that stays within the share; beyond it, fresh ones cost less memory.
 */
#include "backends/s3_memory.h"

#include "core/check.h"

#include <stdlib.h>

#define DIRTY_MIN_BYTES  (16u << 10)
#define WINDOW_MIN_BYTES (256u << 10)
#define WINDOW_MAX_BYTES (4u << 20)

struct spare {
    struct spare *next;
};

void s3_memory_init(struct s3_memory *m, size_t bytes, size_t part_size, atomic_size_t *dirty_bytes)
{
    *m = (struct s3_memory){
        .part_size = part_size, .parts_share = bytes / 4 * 3, .windows_share = bytes / 4, .dirty_bytes = dirty_bytes};
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

uint8_t *s3_memory_part(struct s3_memory *m, size_t *held)
{
    pthread_mutex_lock(&m->lock);
    struct spare *spare = m->held + m->part_size <= m->parts_share ? m->spares : NULL;
    if (spare) {
        m->spares = spare->next;
        m->spare_bytes -= m->part_size;
        m->held += m->part_size;
        tell(m);
    }
    pthread_mutex_unlock(&m->lock);
    *held = spare ? m->part_size : 0;
    return spare ? (uint8_t *)spare : malloc(m->part_size);
}

void s3_memory_part_free(struct s3_memory *m, uint8_t *buf, size_t held)
{
    struct spare *spare = (struct spare *)(void *)buf;
    pthread_mutex_lock(&m->lock);
    m->held -= held;
    bool keep = m->held + m->spare_bytes + m->part_size <= m->parts_share;
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
    if (m->held + m->spare_bytes > m->parts_share && m->spares) {
        spare = m->spares;
        m->spares = spare->next;
        m->spare_bytes -= m->part_size;
    }
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

size_t s3_memory_window(const struct s3_memory *m, unsigned readers)
{
    size_t share = m->windows_share / (readers > 0 ? readers : 1) / 4;
    return share < WINDOW_MIN_BYTES ? WINDOW_MIN_BYTES : share > WINDOW_MAX_BYTES ? WINDOW_MAX_BYTES : share;
}
