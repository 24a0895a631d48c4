/*
 * blob_stream - the first piece is read before the head is sent, so that a store that fails at once is answered with a
 * status and not with a broken connection.
 *
 * Pieces are lent to the connection, not copied: copying into fresh pages took more than all else. So a piece is read
 * into again when the last of it is out.
 *
 * Invariants. `current` is the loop's. `ahead` and the cursor belong to the job while `reading`, to the loop otherwise.
 * The stream is freed once the answer is closed, nothing is lent, no job is under way and no function of ours is on the
 * stack (`pins`): pushing can close the answer before it returns.
 */
#include "server/blob_stream.h"

#include "core/check.h"
#include "core/log.h"
#include "core/worker_pool.h"
#include "server/blob_answer.h"
#include "server/exchange.h"
#include "server/response.h"
#include "server/service.h"

#include <stdatomic.h>
#include <stdlib.h>

#define STREAM_MAGIC    0x7374726du
#define PIECE_MAX_BYTES ((size_t)1 << 20)
#define PIECE_MIN_BYTES ((size_t)64 << 10)

struct stream_budget {
    size_t bytes;
    atomic_size_t streams;
};

struct piece {
    struct blob_stream *stream;
    uint8_t *data; /* piece_bytes of it; NULL until used */
    size_t len, at;
    unsigned lent; /* pushes whose bytes are not all out yet */
};

struct blob_stream {
    unsigned magic;
    struct service *svc;
    struct http_loop *loop;
    struct exchange *x;       /* until the head is sent */
    struct http_request *req; /* until closed */
    struct blob_entry *entry;
    struct selection sel;
    size_t piece_bytes;
    struct blob_cursor cursor; /* the job's while `reading`, the loop's otherwise */
    struct piece pieces[2];
    struct piece *current, *ahead; /* one of them each */
    size_t wanted;                 /* 0: no want is outstanding */
    bool reading, closed;
    unsigned pins;
    struct worker_job job;
    struct http_task task;

    /* The job's. */
    bool verify;
    bool mismatch; /* what came does not have the digest */
    struct hash hash;
    enum blob_status status;
    struct blob_error error;
};

/* ---- the budget ---------------------------------------------------------------------------------------------------
 */

struct stream_budget *stream_budget_new(size_t bytes)
{
    struct stream_budget *budget = calloc(1, sizeof *budget);
    if (budget != NULL)
        budget->bytes = bytes;
    return budget;
}

void stream_budget_free(struct stream_budget *budget)
{
    free(budget);
}

/* How large one stream's pieces may be; 0: no stream fits any more. What is taken is given back by budget_return(). */
static size_t budget_take(struct stream_budget *budget)
{
    size_t streams = atomic_fetch_add(&budget->streams, 1) + 1;
    /* Earlier streams keep their larger pieces: what this one is offered is half an even share. */
    size_t share = budget->bytes / (4 * streams);
    if (share >= PIECE_MIN_BYTES)
        return share < PIECE_MAX_BYTES ? share : PIECE_MAX_BYTES;
    atomic_fetch_sub(&budget->streams, 1);
    return 0;
}

static void budget_return(struct stream_budget *budget)
{
    atomic_fetch_sub(&budget->streams, 1);
}

/* ---- its life -----------------------------------------------------------------------------------------------------
 */

static void stream_free(struct blob_stream *s)
{
    budget_return(s->svc->streams);
    cursor_end(&s->cursor);
    blob_answer_release(s->entry);
    free(s->pieces[0].data);
    free(s->pieces[1].data);
    s->magic = 0;
    free(s);
}

static void stream_unpin(struct blob_stream *s)
{
    s->pins--;
    if (s->pins == 0 && s->closed && !s->reading && s->pieces[0].lent == 0 && s->pieces[1].lent == 0)
        stream_free(s);
}

static struct blob_stream *stream_new(struct exchange *x, struct blob_entry *entry, const struct selection *sel)
{
    size_t piece_bytes = budget_take(x->svc->streams);
    if (piece_bytes == 0)
        return NULL;
    struct blob_stream *s = calloc(1, sizeof *s);
    if (s == NULL) {
        budget_return(x->svc->streams);
        return NULL;
    }
    s->magic = STREAM_MAGIC;
    s->svc = x->svc;
    s->loop = http_request_loop(x->req);
    s->x = x;
    s->req = x->req;
    s->entry = entry;
    s->sel = *sel;
    s->piece_bytes = sel->length < piece_bytes ? (size_t)sel->length : piece_bytes;
    cursor_begin(&s->cursor, entry->reader, sel->first, sel->length);
    s->verify = sel->length == entry->size;
    hash_init(&s->hash);
    s->pieces[0].stream = s->pieces[1].stream = s;
    s->current = &s->pieces[0];
    s->ahead = &s->pieces[1];
    return s;
}

/* ---- on a worker --------------------------------------------------------------------------------------------------
 */

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
        piece->data = malloc(s->piece_bytes);
        if (piece->data == NULL) {
            s->status = blob_fail(&s->error, BLOB_E_NO_MEMORY, 0, "no memory for a piece");
            return;
        }
    }
    uint64_t left = s->cursor.end - s->cursor.at;
    piece->len = left < s->piece_bytes ? (size_t)left : s->piece_bytes;
    piece->at = 0;
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
    struct blob_stream *s = (struct blob_stream *)(void *)((char *)job - offsetof(struct blob_stream, job));
    MAGIC_OK(s, STREAM_MAGIC);
    stream_read(s, s->ahead);
    if (s->mismatch && s->sel.length <= s->piece_bytes)
        stream_read_again(s);
    if (s->mismatch || s->status == BLOB_E_CORRUPT) /* on its way, or where it is stored: that is found out beside */
        blob_cache_suspect(s->svc->cache, &s->entry->digest);
    http_loop_post(s->loop, &s->task);
}

/* ---- on the loop --------------------------------------------------------------------------------------------------
 */

static void stream_log(const struct blob_stream *s, const char *request_id)
{
    const struct blob_headers *h = s->entry->extra;
    log_line(s->svc->log, LOG_ERROR, request_id, "download of %s: %s", h->etag_opaque, s->error.text);
}

static bool piece_empty(const struct piece *piece)
{
    return piece->at == piece->len;
}

static void stream_read_ahead(struct blob_stream *s)
{
    if (s->reading || s->closed || !piece_empty(s->ahead) || s->ahead->lent > 0 || s->cursor.at == s->cursor.end ||
        s->status != BLOB_OK)
        return;
    s->reading = true;
    worker_pool_submit(s->svc->pool, NULL, &s->job);
}

static void stream_swap(struct blob_stream *s)
{
    struct piece *empty = s->current;
    empty->at = empty->len = 0;
    s->current = s->ahead;
    s->ahead = empty;
}

static void piece_released(void *arg)
{
    struct piece *piece = arg;
    struct blob_stream *s = piece->stream;
    MAGIC_OK(s, STREAM_MAGIC);
    piece->lent--;
    s->pins++;
    stream_read_ahead(s);
    stream_unpin(s);
}

/* Answers an outstanding want, if there is something to answer it with. Under a pin. */
static void stream_pump(struct blob_stream *s)
{
    while (s->wanted > 0) {
        if (piece_empty(s->current) && !s->reading && s->status != BLOB_OK) {
            s->wanted = 0;
            http_stream_abort(s->req);
            return;
        }
        if (piece_empty(s->current) && !s->reading && !piece_empty(s->ahead))
            stream_swap(s);
        stream_read_ahead(s);
        if (piece_empty(s->current))
            return;
        struct piece *piece = s->current;
        size_t left = piece->len - piece->at, n = left < s->wanted ? left : s->wanted;
        const uint8_t *data = piece->data + piece->at;
        piece->at += n;
        piece->lent++;
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
    struct blob_stream *s = (struct blob_stream *)(void *)((char *)task - offsetof(struct blob_stream, task));
    MAGIC_OK(s, STREAM_MAGIC);
    return s;
}

static void stream_task(struct http_task *task)
{
    struct blob_stream *s = stream_of_task(task);
    s->reading = false;
    if (s->status != BLOB_OK) {
        s->ahead->at = s->ahead->len = 0;
        stream_log(s, s->closed ? NULL : http_request_id(s->req));
    }
    s->pins++;
    stream_pump(s);
    stream_unpin(s);
}

/* The first piece is there, or cannot be had. */
static void stream_first(struct http_task *task)
{
    struct blob_stream *s = stream_of_task(task);
    struct exchange *x = s->x;
    s->reading = false;
    s->task.run = stream_task;
    if (s->status != BLOB_OK) {
        stream_log(s, http_request_id(s->req));
        api_fail_status(&x->err, s->status);
        stream_free(s);
        response_error(x, &x->err);
        return;
    }
    stream_swap(s);
    const struct http_source source = {.want = stream_want, .closed = stream_closed, .arg = s};
    blob_answer_headers(x, s->entry, &s->sel);
    http_reply_stream(s->req, s->sel.status, s->sel.length, &source);
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
    s->reading = true;
    if (worker_pool_try_submit(s->svc->pool, NULL, &s->job) != BLOB_OK) {
        stream_free(s);
        response_busy(x);
    }
}
