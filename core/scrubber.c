/*
 * scrubber - a walk that can be left at any byte: the digests of the next blobs, one open blob, its running hash.
 * Listing is by batches, so that blobs that come and go meanwhile do no harm; one that is gone when its turn comes is
 * passed over.
 */
#include "core/scrubber.h"

#include "core/blob_cache.h"
#include "core/check.h"
#include "core/log.h"
#include "core/metrics.h"

#include <stdlib.h>
#include <string.h>

#define BATCH       256
#define PIECE_BYTES (256u * 1024)

struct scrubber {
    struct blob_store *store;
    struct blob_cache *cache;
    struct logger *log;
    struct metric *corrupt, *scrubbed;
    uint64_t damaged;
    struct digest batch[BATCH];
    size_t count, pos;
    bool begun;         /* last is set */
    struct digest last; /* the last of the batches so far */
    struct blob_reader *reader;
    struct blob_cursor cursor; /* on it */
    struct hash hash;
    uint8_t piece[PIECE_BYTES];
};

struct scrubber *scrubber_new(struct blob_store *store, struct blob_cache *cache, struct logger *log,
                              struct metrics *metrics)
{
    struct scrubber *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    s->store = store;
    s->cache = cache;
    s->log = log;
    if (metrics) {
        s->corrupt = metrics_counter(metrics, "blobd_corrupt_blobs_total",
                                     "Blobs found missing or damaged although a file names them", NULL);
        s->scrubbed =
            metrics_counter(metrics, "blobd_janitor_scrubbed_bytes_total", "Bytes re-read against their digests", NULL);
    }
    return s;
}

void scrubber_free(struct scrubber *s)
{
    if (!s)
        return;
    cursor_end(&s->cursor);
    reader_close(s->reader);
    free(s);
}

uint64_t scrubber_damaged(const struct scrubber *s)
{
    return s->damaged;
}

static bool note_blob(const struct digest *digest, const struct blob_info *info, void *arg)
{
    (void)info;
    struct scrubber *s = arg;
    s->batch[s->count++] = *digest;
    return s->count < BATCH;
}

static enum blob_status next_batch(struct scrubber *s, struct blob_error *err)
{
    s->count = s->pos = 0;
    enum blob_status st = blob_list(s->store, s->begun ? &s->last : NULL, note_blob, s, err);
    if (st != BLOB_OK) {
        s->count = 0;
        return st;
    }
    s->begun = s->count > 0;
    if (s->begun)
        s->last = s->batch[s->count - 1];
    return BLOB_OK;
}

static void report(struct scrubber *s, const char *what)
{
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(&s->batch[s->pos], hex);
    log_line(s->log, LOG_ERROR, NULL, "blob %s %s", hex, what);
    s->damaged++;
    metric_add(s->corrupt, 1);
    if (s->cache)
        blob_cache_invalidate(s->cache, &s->batch[s->pos]);
}

static void leave_blob(struct scrubber *s)
{
    cursor_end(&s->cursor);
    reader_close(s->reader);
    s->reader = NULL;
    s->pos++;
}

static void judge(struct scrubber *s)
{
    struct digest actual;
    hash_peek(&s->hash, &actual);
    if (!digest_equal(&actual, &s->batch[s->pos]))
        report(s, "does not match its digest");
    leave_blob(s);
}

/* The next piece of the blob at hand; with its last one, the verdict. */
static enum blob_status read_piece(struct scrubber *s, uint64_t max_bytes, uint64_t *got, struct blob_error *err)
{
    uint64_t left = s->cursor.end - s->cursor.at;
    size_t len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    if (len > max_bytes)
        len = (size_t)max_bytes;
    if (len > 0) {
        enum blob_status st = cursor_read(&s->cursor, s->piece, len, err);
        if (st == BLOB_E_CORRUPT || st == BLOB_E_NOT_FOUND) {
            if (st == BLOB_E_CORRUPT)
                report(s, "is cut short");
            leave_blob(s);
            *got = 0;
            return BLOB_OK;
        }
        if (st != BLOB_OK) {
            leave_blob(s);
            return st;
        }
        hash_update(&s->hash, s->piece, len);
    }
    metric_add(s->scrubbed, (int64_t)len);
    *got = len;
    if (len == left)
        judge(s);
    return BLOB_OK;
}

/* The blob whose turn it is; one that is gone, or cannot be opened now, is passed over. */
static enum blob_status open_blob(struct scrubber *s, bool *there, struct blob_error *err)
{
    struct blob_info info;
    enum blob_status st = blob_open(s->store, &s->batch[s->pos], &s->reader, &info, err);
    *there = st == BLOB_OK;
    if (*there) {
        hash_init(&s->hash);
        cursor_begin(&s->cursor, s->reader, 0, s->reader->size);
    } else {
        s->pos++;
    }
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

enum blob_status scrubber_step(struct scrubber *s, uint64_t max_bytes, uint64_t *read, bool *round_ended,
                               struct blob_error *err)
{
    uint64_t total = 0;
    while (total < max_bytes) {
        if (s->pos == s->count) {
            enum blob_status st = next_batch(s, err);
            if (st != BLOB_OK)
                return st;
            if (s->count == 0) {
                *read = total;
                *round_ended = true;
                return BLOB_OK;
            }
        }
        bool there = true;
        if (!s->reader) {
            enum blob_status st = open_blob(s, &there, err);
            if (st != BLOB_OK)
                return st;
        }
        if (!there)
            continue;
        uint64_t got;
        enum blob_status st = read_piece(s, max_bytes - total, &got, err);
        if (st != BLOB_OK)
            return st;
        total += got;
    }
    *read = total;
    *round_ended = false;
    return BLOB_OK;
}
