/*
 * s3_cursor - downloads: one request for all that a cursor will read, whose answer is taken as it is read.
 *
 * Between two reads the stream rests: nobody receives, and TCP makes S3 wait. Streams hold connections, so there are
 * only so many. When they are all taken, the one that has rested longest, and long enough to be a slow client's, is
 * given up for the new one; whoever has lost his reads by ranges for a while, a request for each read, since what lay
 * in the kernel's buffers has to be sent again. So does a cursor whose stream could not be had, or broke early. Reading
 * by ranges is also what tries again and tells what is wrong: a stream's failure is nobody's but its own.
 *
 * A stream in use is the cursor's; a resting one is on the store's list, under its lock, where another may take it.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/check.h"
#include "core/clock.h"

#include <stdlib.h>

#define CURSOR_MAGIC 0x53336375u
#define RESTED_US    2000000
#define WORTH_BYTES  (16u << 20) /* what a stream should give before it ends, or ranges after it did not */

struct s3_cursor {
    unsigned magic;
    struct s3_stream *stream; /* NULL: none */
    uint64_t given;           /* by this stream */
    uint64_t ranges_end;      /* no other stream before this offset */
    /* Guarded by the store's lock. */
    bool resting; /* the stream is on the list */
    bool lost;    /* another has taken it from there */
    int64_t since_us;
    struct s3_cursor *older, *newer;
};

static struct s3_cursor *cursor_of(const struct blob_cursor *c)
{
    struct s3_cursor *own = c->own;
    MAGIC_OK(own, CURSOR_MAGIC);
    return own;
}

/* ---- the streams at rest; with the store's lock held ---- */

static void unlink_resting(struct s3_store *s, struct s3_cursor *own)
{
    *(own->older ? &own->older->newer : &s->rest_oldest) = own->newer;
    *(own->newer ? &own->newer->older : &s->rest_newest) = own->older;
    own->resting = false;
}

static void link_resting(struct s3_store *s, struct s3_cursor *own)
{
    own->older = s->rest_newest;
    own->newer = NULL;
    *(own->older ? &own->older->newer : &s->rest_oldest) = own;
    s->rest_newest = own;
    own->since_us = clock_steady_us();
    own->resting = true;
}

/* The stream of the one that has rested longest, if that is long enough; its place is the caller's. */
static struct s3_stream *take_from_slowest(struct s3_store *s)
{
    struct s3_cursor *slow = s->rest_oldest;
    if (!slow || clock_steady_us() - slow->since_us < RESTED_US)
        return NULL;
    unlink_resting(s, slow);
    struct s3_stream *stream = slow->stream;
    slow->stream = NULL;
    slow->lost = true;
    return stream;
}

/* ---- a cursor's stream ---- */

/* A place among the streams. false: all are in use. */
static bool take_place(struct s3_store *s)
{
    struct s3_stream *slow = NULL;
    pthread_mutex_lock(&s->lock);
    bool free_place = s->streams < s->streams_max;
    if (free_place)
        s->streams++;
    else
        slow = take_from_slowest(s);
    pthread_mutex_unlock(&s->lock);
    s3_stream_close(slow);
    return free_place || slow;
}

static void give_place_back(struct s3_store *s)
{
    pthread_mutex_lock(&s->lock);
    s->streams--;
    pthread_mutex_unlock(&s->lock);
}

static void rest(struct s3_store *s, struct s3_cursor *own)
{
    pthread_mutex_lock(&s->lock);
    link_resting(s, own);
    pthread_mutex_unlock(&s->lock);
}

/* Its stream is the cursor's again, unless somebody has taken it. */
static void wake(struct s3_store *s, struct s3_cursor *own, uint64_t at)
{
    pthread_mutex_lock(&s->lock);
    if (own->resting)
        unlink_resting(s, own);
    if (own->lost)
        own->ranges_end = at + WORTH_BYTES;
    own->lost = false;
    pthread_mutex_unlock(&s->lock);
}

static void end_stream(struct s3_store *s, struct s3_cursor *own)
{
    if (!own->stream)
        return;
    s3_stream_close(own->stream);
    own->stream = NULL;
    give_place_back(s);
}

static void begin_stream(struct s3_store *s, struct s3_cursor *own, const struct blob_cursor *c)
{
    struct blob_error ignored;
    if (!take_place(s))
        return;
    own->given = 0;
    if (s3_reader_stream(c->reader, c->at, c->end - c->at, &own->stream, &ignored) == BLOB_OK)
        return;
    give_place_back(s);
    own->ranges_end = c->at + WORTH_BYTES;
}

static struct s3_cursor *need_own(struct blob_cursor *c)
{
    if (c->own)
        return cursor_of(c);
    struct s3_cursor *own = calloc(1, sizeof *own);
    if (own)
        own->magic = CURSOR_MAGIC;
    c->own = own;
    return own;
}

/* From the stream, when there is one. */
static bool read_stream(struct s3_store *s, struct s3_cursor *own, const struct blob_cursor *c, void *buf, size_t len)
{
    struct blob_error ignored;
    if (!own->stream)
        return false;
    if (s3_stream_read(own->stream, buf, len, &ignored) != BLOB_OK) {
        end_stream(s, own);
        if (own->given < WORTH_BYTES)
            own->ranges_end = c->at + WORTH_BYTES;
        return false;
    }
    own->given += len;
    if (c->at + len < c->end)
        rest(s, own);
    else
        end_stream(s, own);
    return true;
}

enum blob_status s3_cursor_read(struct blob_cursor *c, void *buf, size_t len, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(c->reader->store);
    bool last = c->at + len == c->end;
    struct s3_cursor *own = last && !c->own ? NULL : need_own(c); /* what is read at once needs no stream */
    if (own) {
        wake(s, own, c->at);
        if (!own->stream && c->at >= own->ranges_end && !last)
            begin_stream(s, own, c);
        if (read_stream(s, own, c, buf, len))
            return BLOB_OK;
    }
    return s3_reader_read(c->reader, c->at, buf, len, err);
}

void s3_cursor_end(struct blob_cursor *c)
{
    if (!c->own)
        return;
    struct s3_cursor *own = cursor_of(c);
    struct s3_store *s = s3_store_of(c->reader->store);
    wake(s, own, c->at);
    end_stream(s, own);
    own->magic = 0;
    free(own);
}
