/*
 * blob_stream - the first piece is read before the head is sent, so that a store that fails at once is answered with a
 * status and not with a broken connection.
 *
 * Pieces are lent to the connection, not copied: copying into fresh pages took more than all else. So a piece is read
 * into again when the last of it is out.
 *
 * Memory is counted in stream_budget.h. When somebody else needs it, a stream whose client takes nothing gives all of
 * it back (stream_trim): what its connection was lent and has not sent is taken back, and the stream goes on from
 * there, its hash too, when the client takes more. From then on it is slow, as far as anybody knows: it fetches little
 * at a time, the next when the last is out, and by a range each time, since an answer that is left half read costs a
 * connection to the store and what was under way on it. It is taken for quick again, step by step, while its pieces
 * leave at once.
 *
 * Invariants. `current` is the loop's. `ahead` and the cursor belong to the job while `reading`, to the loop otherwise.
 * The stream is freed once the answer is closed, nothing is lent, no job is under way, the budget has told nothing that
 * was not heard yet, and no function of ours is on the stack (`pins`): pushing can close the answer before it returns.
 */
#include "server/api/blob_stream.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/worker_pool.h"
#include "server/api/blob_answer.h"
#include "server/api/exchange.h"
#include "server/api/response.h"
#include "server/api/service.h"
#include "server/stream_budget.h"

#include <stdlib.h>

#define STREAM_MAGIC 0x7374726du
#define PROMPT_US    100000 /* a piece that is out by then was not waited for */

struct piece {
    struct blob_stream *stream;
    uint8_t *data;   /* NULL until it is read into */
    size_t size;     /* of data, taken from the budget; 0: none */
    uint64_t offset; /* of data's first byte in the blob */
    size_t len, at;
    unsigned lent;      /* pushes whose bytes are not all out yet */
    int64_t since_us;   /* when it was there */
    struct hash before; /* of the blob, up to offset */
};

struct blob_stream {
    unsigned magic;
    struct service *svc;
    struct http_loop *loop;
    struct exchange *x;       /* until the head is sent */
    struct http_request *req; /* until closed */
    struct blob_entry *entry;
    struct selection sel;
    uint64_t next, end;        /* what is read next, and up to where */
    uint64_t pushed;           /* up to here */
    struct blob_cursor cursor; /* the job's while `reading`, the loop's otherwise */
    struct piece pieces[2];
    struct piece *current, *ahead; /* one of them each */
    size_t wanted;                 /* 0: no want is outstanding */
    bool reading, waiting, trimming, closed;
    unsigned prompt; /* of a slow one: pieces in a row that were out at once */
    unsigned pins;
    struct worker_job job;
    struct http_task task;
    struct stream_share share;
    struct http_task trim_task, grant_task;

    /* The job's. */
    bool verify;
    bool mismatch; /* what came does not have the digest */
    struct hash hash;
    enum blob_status status;
    struct blob_error error;
};

static void stream_trim(struct http_task *task);
static void stream_granted(struct http_task *task);

/* ---- its life ---- */

static void tell_trim(struct stream_share *share)
{
    struct blob_stream *s = CONTAINER_OF(share, struct blob_stream, share);
    http_loop_post(s->loop, &s->trim_task);
}

static void tell_grant(struct stream_share *share)
{
    struct blob_stream *s = CONTAINER_OF(share, struct blob_stream, share);
    http_loop_post(s->loop, &s->grant_task);
}

static void piece_drop(struct blob_stream *s, struct piece *piece)
{
    CHECK(piece->lent == 0);
    free(piece->data);
    if (piece->size > 0)
        stream_budget_give(s->svc->streams, &s->share, piece->size);
    piece->data = NULL;
    piece->size = piece->len = piece->at = 0;
}

static void stream_free(struct blob_stream *s)
{
    cursor_end(&s->cursor);
    blob_answer_release(s->entry);
    s->magic = 0;
    free(s);
}

/* Nobody asks for it any more. */
static void stream_leave(struct blob_stream *s)
{
    piece_drop(s, &s->pieces[0]);
    piece_drop(s, &s->pieces[1]);
    if (stream_budget_leave(s->svc->streams, &s->share))
        stream_free(s);
}

static void stream_unpin(struct blob_stream *s)
{
    s->pins--;
    if (s->pins > 0 || s->reading || s->x != NULL)
        return;
    if (!s->closed)
        stream_budget_rest(s->svc->streams, &s->share);
    else if (s->pieces[0].lent == 0 && s->pieces[1].lent == 0)
        stream_leave(s);
}

static struct blob_stream *stream_new(struct exchange *x, struct blob_entry *entry, const struct selection *sel)
{
    struct blob_stream *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->magic = STREAM_MAGIC;
    s->svc = x->svc;
    s->loop = http_request_loop(x->req);
    s->x = x;
    s->req = x->req;
    s->entry = entry;
    s->sel = *sel;
    s->next = s->pushed = sel->first;
    s->end = sel->first + sel->length;
    s->verify = sel->length == entry->size;
    hash_init(&s->hash);
    s->pieces[0].stream = s->pieces[1].stream = s;
    s->current = &s->pieces[0];
    s->ahead = &s->pieces[1];
    s->share.trim = tell_trim;
    s->share.grant = tell_grant;
    s->trim_task.run = stream_trim;
    s->grant_task.run = stream_granted;
    return s;
}

/* ---- on a worker ---- */

static void stream_verify(struct blob_stream *s, const struct piece *piece)
{
    struct digest actual;
    hash_update(&s->hash, piece->data, piece->len);
    if (hash_length(&s->hash) < s->entry->size)
        return;
    hash_peek(&s->hash, &actual);
    if (digest_equal(&actual, &s->entry->digest))
        return;
    s->mismatch = true;
    s->status =
        blob_fail(&s->error, BLOB_E_UNAVAILABLE, 0, "the bytes that came from the store do not have this digest");
    blob_cache_invalidate(s->svc->cache, &s->entry->digest);
}

static void stream_read(struct blob_stream *s, struct piece *piece)
{
    if (piece->data == NULL) {
        piece->data = malloc(piece->size);
        if (piece->data == NULL) {
            s->status = blob_fail(&s->error, BLOB_E_NO_MEMORY, 0, "no memory for a piece");
            return;
        }
    }
    uint64_t left = s->cursor.end - s->cursor.at;
    piece->offset = s->cursor.at;
    piece->len = left < piece->size ? (size_t)left : piece->size;
    piece->at = 0;
    piece->before = s->hash;
    s->status = cursor_read(&s->cursor, piece->data, piece->len, &s->error);
    if (s->status == BLOB_OK && s->verify)
        stream_verify(s, piece);
}

/*
 * What does not have its digest, though it is all in the first piece and the head is not sent yet: it comes from afar
 * and may have been damaged on its way, so it is fetched once more.
 */
static void stream_read_again(struct blob_stream *s)
{
    cursor_end(&s->cursor);
    cursor_begin(&s->cursor, s->entry->reader, s->sel.first, s->sel.length);
    hash_init(&s->hash);
    s->mismatch = false;
    stream_read(s, s->ahead);
}

static void stream_job(struct worker_job *job)
{
    struct blob_stream *s = CONTAINER_OF(job, struct blob_stream, job);
    MAGIC_OK(s, STREAM_MAGIC);
    stream_read(s, s->ahead);
    if (s->mismatch && s->x != NULL)
        stream_read_again(s);
    if (s->mismatch || s->status == BLOB_E_CORRUPT) /* on its way, or where it is stored: that is found out beside */
        blob_cache_suspect(s->svc->cache, &s->entry->digest);
    http_loop_post(s->loop, &s->task);
}

/* ---- on the loop: reading ---- */

static void stream_log(const struct blob_stream *s, const char *request_id)
{
    const struct blob_headers *h = s->entry->extra;
    log_line(s->svc->log, LOG_ERROR, request_id, "download of %s: %s", h->etag_opaque, s->error.text);
}

static bool piece_empty(const struct piece *piece)
{
    return piece->at == piece->len;
}

static void stream_swap(struct blob_stream *s)
{
    struct piece *empty = s->current;
    s->current = s->ahead;
    s->ahead = empty;
}

/* How large the next piece should be. */
static size_t stream_piece(struct blob_stream *s)
{
    size_t size = stream_budget_piece(s->svc->streams, &s->share);
    if (!s->share.slow)
        return size;
    for (unsigned n = s->prompt; n > 0 && size < STREAM_PIECE_MAX; n--)
        size *= 2;
    if (size < STREAM_PIECE_MAX)
        return size;
    stream_budget_set_slow(s->svc->streams, &s->share, false);
    return stream_budget_piece(s->svc->streams, &s->share);
}

/* Memory for the next piece, as much as suits; false: it is waited for, or not worth it, or not to be had. */
static bool stream_room(struct blob_stream *s)
{
    struct piece *piece = s->ahead;
    uint64_t left = s->end - s->next;
    size_t suits = stream_piece(s), most = left < suits ? (size_t)left : suits, got;
    bool starves = s->wanted > 0 && piece_empty(s->current);
    if (piece->size > 0 && piece->size / 2 <= suits && piece->size >= most / 2)
        return true;
    if (piece->size / 2 > suits)
        piece_drop(s, piece);
    size_t least = most < STREAM_PIECE_MIN ? most : STREAM_PIECE_MIN;
    enum stream_need need = s->x != NULL ? STREAM_BEGINS : STREAM_MUST;
    if (piece->size > 0 || (s->x == NULL && !starves)) {
        need = STREAM_IF_FREE;
        least = most / 2 > piece->size ? most / 2 : least;
    }
    enum stream_answer answer = stream_budget_ask(s->svc->streams, &s->share, need, most, least, &got);
    if (answer == STREAM_TAKEN) {
        piece_drop(s, piece);
        piece->size = got;
    }
    s->waiting = answer == STREAM_WAITS;
    if (answer == STREAM_REFUSED && need != STREAM_IF_FREE)
        s->status = blob_fail(&s->error, BLOB_E_UNAVAILABLE, 0, "no memory is free for downloads");
    return piece->size > 0;
}

/* Slow streams, of which there may be thousands, read by no more than half of the workers. Where they are many, it is
 * chance that spreads them. */
static struct worker_lane *slow_lane(struct blob_stream *s)
{
    unsigned lanes = worker_pool_threads(s->svc->pool) / 2;
    if (lanes > SERVICE_SLOW_LANES)
        lanes = SERVICE_SLOW_LANES;
    return &s->svc->slow_reads[lanes > 1 ? (uintptr_t)s / 64 % lanes : 0];
}

/* What is read next may not be what follows in the cursor; and a slow stream asks the store for no more than it reads.
 */
static bool stream_submit(struct blob_stream *s)
{
    uint64_t left = s->end - s->next;
    if (s->cursor.at == s->cursor.end || s->cursor.at != s->next) {
        cursor_end(&s->cursor);
        cursor_begin(&s->cursor, s->entry->reader, s->next,
                     s->share.slow && s->ahead->size < left ? s->ahead->size : left);
    }
    s->reading = true;
    stream_budget_busy(s->svc->streams, &s->share);
    if (s->x != NULL)
        return worker_pool_try_submit(s->svc->pool, NULL, &s->job) == BLOB_OK;
    worker_pool_submit(s->svc->pool, s->share.slow ? slow_lane(s) : NULL, &s->job);
    return true;
}

static void stream_read_ahead(struct blob_stream *s)
{
    if (s->reading || s->waiting || s->trimming || s->closed || s->next == s->end || s->status != BLOB_OK)
        return;
    if (!piece_empty(s->ahead) || s->ahead->lent > 0)
        return;
    if (s->share.slow && (!piece_empty(s->current) || s->current->lent > 0))
        return;
    if (s->ahead->size == 0 && piece_empty(s->current) && s->current->lent == 0)
        stream_swap(s); /* there is memory for one alone */
    if (stream_room(s))
        stream_submit(s);
}

/* ---- on the loop: writing ---- */

/* All of it is out. */
static void piece_done(struct blob_stream *s, const struct piece *piece)
{
    if (s->share.slow)
        s->prompt = clock_steady_us() - piece->since_us < PROMPT_US ? s->prompt + 1 : 0;
}

static void piece_released(void *arg)
{
    struct piece *piece = arg;
    struct blob_stream *s = piece->stream;
    MAGIC_OK(s, STREAM_MAGIC);
    piece->lent--;
    if (s->trimming)
        return;
    s->pins++;
    if (piece->lent == 0 && piece_empty(piece))
        piece_done(s, piece);
    stream_read_ahead(s);
    stream_unpin(s);
}

/* Answers an outstanding want, if there is something to answer it with. Under a pin. */
static void stream_pump(struct blob_stream *s)
{
    while (s->wanted > 0) {
        if (piece_empty(s->current) && !s->reading && s->status == BLOB_OK && !piece_empty(s->ahead))
            stream_swap(s);
        stream_read_ahead(s);
        if (piece_empty(s->current) && !s->reading && s->status != BLOB_OK) {
            s->wanted = 0;
            http_stream_abort(s->req);
            return;
        }
        if (piece_empty(s->current))
            return;
        struct piece *piece = s->current;
        size_t left = piece->len - piece->at, n = left < s->wanted ? left : s->wanted;
        const uint8_t *data = piece->data + piece->at;
        piece->at += n;
        piece->lent++;
        s->pushed += n;
        s->wanted = 0;
        http_stream_push(s->req, data, n, piece_released, piece);
    }
}

static void stream_want(struct http_request *req, size_t max_bytes, void *arg)
{
    struct blob_stream *s = arg;
    MAGIC_OK(s, STREAM_MAGIC);
    (void)req;
    s->wanted = max_bytes;
    if (s->pins > 0)
        return; /* the pump further down the stack goes on with it */
    s->pins++;
    stream_pump(s);
    stream_unpin(s);
}

static void stream_closed(void *arg)
{
    struct blob_stream *s = arg;
    MAGIC_OK(s, STREAM_MAGIC);
    s->pins++;
    s->closed = true;
    s->req = NULL;
    stream_unpin(s);
}

static struct blob_stream *stream_of_task(struct http_task *task)
{
    struct blob_stream *s = CONTAINER_OF(task, struct blob_stream, task);
    MAGIC_OK(s, STREAM_MAGIC);
    return s;
}

static void stream_task(struct http_task *task)
{
    struct blob_stream *s = stream_of_task(task);
    s->reading = false;
    s->ahead->since_us = clock_steady_us();
    if (s->status == BLOB_OK) {
        s->next = s->cursor.at;
    } else {
        s->ahead->at = s->ahead->len = 0;
        stream_log(s, s->closed ? NULL : http_request_id(s->req));
    }
    s->pins++;
    stream_pump(s);
    stream_unpin(s);
}

/* ---- on the loop: what the budget tells ---- */

/* As if nothing from pos on had been read yet. */
static void stream_go_back(struct blob_stream *s, uint64_t pos)
{
    for (size_t i = 0; i < 2; i++) {
        const struct piece *piece = &s->pieces[i];
        if (pos < piece->offset || pos - piece->offset >= piece->len)
            continue;
        s->next = pos;
        s->hash = piece->before;
        if (s->verify)
            hash_update(&s->hash, piece->data, (size_t)(pos - piece->offset));
    }
    s->pushed = pos;
}

/* Somebody needs the memory, and this one's client takes nothing. */
static void stream_trim(struct http_task *task)
{
    struct blob_stream *s = CONTAINER_OF(task, struct blob_stream, trim_task);
    MAGIC_OK(s, STREAM_MAGIC);
    uint64_t back;
    s->pins++;
    if (!s->closed && !s->reading) {
        s->trimming = true;
        if (http_stream_take_back(s->req, &back)) {
            s->wanted = 0;
            if (s->waiting && stream_budget_forget(s->svc->streams, &s->share))
                s->waiting = false;
            stream_go_back(s, s->pushed - back);
            piece_drop(s, &s->pieces[0]);
            piece_drop(s, &s->pieces[1]);
            s->prompt = 0;
            stream_budget_set_slow(s->svc->streams, &s->share, true);
        } else if (s->wanted > 0) { /* the client is gone, or there is no memory to go on with */
            s->wanted = 0;
            http_stream_abort(s->req);
        }
        s->trimming = false;
    }
    stream_budget_trimmed(s->svc->streams, &s->share);
    stream_unpin(s);
}

/* The first piece is there, or cannot be had. */
static void stream_first(struct http_task *task)
{
    struct blob_stream *s = stream_of_task(task);
    struct exchange *x = s->x;
    s->reading = false;
    s->x = NULL;
    if (s->status != BLOB_OK) {
        stream_log(s, http_request_id(s->req));
        api_fail_status(&x->err, s->status);
        stream_leave(s);
        response_error(x, &x->err);
        return;
    }
    s->next = s->cursor.at;
    s->ahead->since_us = clock_steady_us();
    s->task.run = stream_task;
    stream_swap(s);
    const struct http_source source = {.want = stream_want, .closed = stream_closed, .arg = s};
    blob_answer_headers(x, s->entry, &s->sel);
    s->pins++;
    http_reply_stream(s->req, s->sel.status, s->sel.length, &source);
    stream_pump(s);
    stream_unpin(s);
}

/* There is memory for the first piece, or none and no more to wait for; or the workers are busy. */
static void stream_begin(struct blob_stream *s)
{
    struct exchange *x = s->x;
    if (s->ahead->size > 0 && stream_submit(s))
        return;
    s->reading = false;
    s->x = NULL;
    stream_leave(s);
    response_busy(x);
}

/* What was waited for is there; or, after the end of waiting, is not. */
static void stream_granted(struct http_task *task)
{
    struct blob_stream *s = CONTAINER_OF(task, struct blob_stream, grant_task);
    MAGIC_OK(s, STREAM_MAGIC);
    size_t bytes = stream_budget_granted(s->svc->streams, &s->share);
    s->waiting = false;
    s->pins++;
    s->ahead->size = bytes;
    if (s->x != NULL) {
        s->pins--;
        stream_begin(s);
        return;
    }
    if (bytes == 0 && s->status == BLOB_OK)
        s->status = blob_fail(&s->error, BLOB_E_UNAVAILABLE, 0, "the server ends");
    if (s->wanted == 0) /* it was trimmed meanwhile, or its client has gone */
        piece_drop(s, s->ahead);
    else if (bytes > 0)
        stream_submit(s);
    stream_pump(s);
    stream_unpin(s);
}

void blob_stream_start(struct exchange *x, struct blob_entry *entry, const struct selection *sel)
{
    struct blob_stream *s = stream_new(x, entry, sel);
    if (s == NULL) {
        blob_answer_release(entry);
        response_busy(x);
        return;
    }
    s->job.run = stream_job;
    s->task.run = stream_first;
    if (stream_room(s) || !s->waiting)
        stream_begin(s);
}
