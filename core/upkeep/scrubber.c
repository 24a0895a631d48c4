/*
 * scrubber - a walk that can be left at any byte: the digests of the next blobs, one open blob, its running hash.
 * Listing is by batches, so that blobs that come and go meanwhile do no harm; one that is gone when its turn comes is
 * passed over. One that is wrong is begun again (`tries`), as is one that a download has found wrong before; the page
 * cache is told to forget it, so that memory that went bad is not taken for the disk.
 */
#include "core/upkeep/scrubber.h"

#include "core/check.h"
#include "core/files/blob_cache.h"
#include "core/log.h"
#include "core/metrics.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define BATCH           256
#define TRIES           2
#define REMOTE_PAUSE_MS 5000 /* what is wrong on its way may pass */
#define PIECE_BYTES     (256u * 1024)

struct scrubber {
    struct blob_store *store;
    struct blob_cache *cache;
    struct logger *log;
    struct metric *corrupt, *scrubbed;
    scrub_seen_fn *seen;
    void *seen_arg;
    uint64_t damaged;
    struct digest batch[BATCH];
    size_t count, pos;
    bool begun;         /* last is set */
    struct digest last; /* the last of the batches so far */
    bool at_hand;       /* the next three are set */
    struct digest digest;
    unsigned tries;
    int64_t touched_ms; /* as it was opened last */
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

void scrubber_watch(struct scrubber *s, scrub_seen_fn *fn, void *arg)
{
    s->seen = fn;
    s->seen_arg = arg;
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

static void close_blob(struct scrubber *s)
{
    cursor_end(&s->cursor);
    reader_close(s->reader);
    s->reader = NULL;
}

/* Done with the blob at hand. */
static void leave_blob(struct scrubber *s, enum scrub_verdict verdict, const char *text)
{
    if (s->seen)
        s->seen(&s->digest, s->reader ? s->reader->size : 0, verdict, text, s->seen_arg);
    close_blob(s);
    s->at_hand = false;
}

/* Wrong again. CONFLICT, NOT_FOUND: it was replaced or removed meanwhile, and is none of ours. */
static void condemn(struct scrubber *s, const char *what)
{
    char hex[DIGEST_HEX_CHARS + 1];
    struct blob_error err;
    digest_hex(&s->digest, hex);
    enum blob_status st = blob_set_aside(s->store, &s->digest, s->touched_ms, &err);
    if (s->cache)
        blob_cache_invalidate(s->cache, &s->digest);
    if (st == BLOB_E_CONFLICT || st == BLOB_E_NOT_FOUND) {
        leave_blob(s, SCRUB_SOUND, "");
        return;
    }
    s->damaged++;
    metric_add(s->corrupt, 1);
    if (st == BLOB_OK)
        log_line(s->log, LOG_ERROR, NULL, "blob %s %s; it is set aside, and an upload of the same content heals it",
                 hex, what);
    else
        log_line(s->log, LOG_ERROR, NULL, "blob %s %s, and could not be set aside: %s", hex, what, err.text);
    leave_blob(s, st == BLOB_OK ? SCRUB_DAMAGED : SCRUB_LEFT, st == BLOB_OK ? what : err.text);
}

static void is_wrong(struct scrubber *s, const char *what)
{
    if (s->tries >= TRIES) {
        condemn(s, what);
        return;
    }
    int fd = reader_fd(s->reader);
    if (fd >= 0)
        (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close_blob(s);
    s->tries++;
}

static void judge(struct scrubber *s)
{
    struct digest actual;
    hash_peek(&s->hash, &actual);
    if (digest_equal(&actual, &s->digest))
        leave_blob(s, SCRUB_SOUND, "");
    else
        is_wrong(s, "does not match its digest");
}

/* The next piece of the blob at hand; with its last one, the verdict. */
static enum blob_status read_piece(struct scrubber *s, uint64_t max_bytes, uint64_t *got, struct blob_error *err)
{
    uint64_t left = s->cursor.end - s->cursor.at;
    size_t len = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    *got = 0;
    if (len > max_bytes)
        len = (size_t)max_bytes;
    if (len > 0) {
        enum blob_status st = cursor_read(&s->cursor, s->piece, len, err);
        if (st == BLOB_E_CORRUPT) {
            is_wrong(s, "is cut short");
            return BLOB_OK;
        }
        if (st == BLOB_E_NOT_FOUND) {
            leave_blob(s, SCRUB_SOUND, "");
            return BLOB_OK;
        }
        if (st != BLOB_OK) {
            leave_blob(s, SCRUB_UNREADABLE, err ? err->text : "");
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

/* The blob at hand; one that is gone, or cannot be opened now, is passed over. */
static enum blob_status open_blob(struct scrubber *s, struct blob_error *err)
{
    struct blob_info info;
    enum blob_status st = blob_open(s->store, &s->digest, &s->reader, &info, err);
    if (st == BLOB_OK) {
        s->touched_ms = info.touched_ms;
        hash_init(&s->hash);
        cursor_begin(&s->cursor, s->reader, 0, s->reader->size);
        return BLOB_OK;
    }
    s->reader = NULL;
    if (st == BLOB_E_NOT_FOUND) {
        s->at_hand = false;
        return BLOB_OK;
    }
    leave_blob(s, SCRUB_UNREADABLE, err ? err->text : "");
    return st;
}

/* The next blob, unless one is at hand. */
static enum blob_status pick(struct scrubber *s, bool suspects_only, struct blob_error *err)
{
    if (s->at_hand)
        return BLOB_OK;
    /* A suspect was read by who told of it; from afar that tells less. */
    bool remote = s->store->caps & STORE_REMOTE;
    s->tries = remote ? 1 : TRIES;
    s->at_hand = s->cache && blob_cache_next_suspect(s->cache, remote ? REMOTE_PAUSE_MS : 0, &s->digest);
    if (s->at_hand || suspects_only)
        return BLOB_OK;
    if (s->pos == s->count) {
        enum blob_status st = next_batch(s, err);
        if (st != BLOB_OK)
            return st;
    }
    s->at_hand = s->pos < s->count;
    if (s->at_hand)
        s->digest = s->batch[s->pos++];
    s->tries = 1;
    return BLOB_OK;
}

static enum blob_status step(struct scrubber *s, bool suspects_only, uint64_t max_bytes, uint64_t *read, bool *ended,
                             struct blob_error *err)
{
    *read = 0;
    *ended = false;
    while (*read < max_bytes) {
        enum blob_status st = pick(s, suspects_only, err);
        if (st != BLOB_OK)
            return st;
        *ended = !s->at_hand;
        if (*ended)
            return BLOB_OK;
        uint64_t got = 0;
        if (!s->reader)
            st = open_blob(s, err);
        if (st == BLOB_OK && s->reader)
            st = read_piece(s, max_bytes - *read, &got, err);
        if (st != BLOB_OK)
            return st;
        *read += got;
    }
    return BLOB_OK;
}

enum blob_status scrubber_step(struct scrubber *s, uint64_t max_bytes, uint64_t *read, bool *round_ended,
                               struct blob_error *err)
{
    return step(s, false, max_bytes, read, round_ended, err);
}

enum blob_status scrubber_recheck(struct scrubber *s, uint64_t max_bytes, uint64_t *read, bool *idle,
                                  struct blob_error *err)
{
    return step(s, true, max_bytes, read, idle, err);
}
