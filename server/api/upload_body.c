/*
 * upload_body - a body's pieces on their way from the loop to its upload's lane, and the answer back.
 *
 * Invariants. One job of a body is queued or running at most (`scheduled`), in the upload's lane, so what only jobs
 * touch needs no lock. The lock guards the queue of pieces and the flags that decide whether a job is needed; whoever
 * changes those looks, under the same lock, whether to submit one. Once the last job has posted `done`, `scheduled`
 * stays set, so no other follows.
 *
 * Tasks run on the loop in the order they were posted. `stop` may be posted by another upload's begin or by shutdown,
 * at any time before `done` is handled; the answer, which frees everything, waits for it.
 *
 * A complete whose body has no told length is begun when it is clear whether it brings a byte, where that matters: it
 * is let in first (`asked`), and its first piece or its end decides (`begun`).
 */
#include "server/api/upload_body.h"

#include "core/check.h"
#include "core/log.h"
#include "core/worker_pool.h"
#include "server/api/exchange.h"
#include "server/api/exchange_hop.h"
#include "server/api/response.h"
#include "server/api/service.h"
#include "server/api/upload_answer.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/uio.h>

#define BODY_MAGIC 0x626f6479u

/* A body up to this length, without Expect, is read before anything is asked of a worker. */
#define SMALL_BODY_BYTES (256u << 10)

/* So much is written at once, of what has come; what is being written must leave the loop pieces to read into. */
#define BATCH_BYTES  (1u << 20)
#define BATCH_PIECES 16

#define NOTHING_CAME "; nothing of it had arrived"

struct upload_body {
    unsigned magic;
    struct exchange *x;
    struct upload_request request;
    struct worker_lane *lane;
    struct worker_job job;
    struct http_task begun_task, stop_task, done_task;
    struct upload_body *next, **link; /* upload_calls' lock */

    /* The loop's. */
    bool small;    /* nothing is submitted until the body has come whole, or does not come at once */
    bool admitted; /* the first job was accepted by the pool */
    bool reading;
    bool stopped, answered_late;
    bool cut_by_stop; /* it was that, and not the wire, that ended the body */
    uint64_t received_bytes;
    enum http_body_end wire_end;

    pthread_mutex_t lock;
    struct http_piece *first, **last;
    bool scheduled;
    bool ended; /* no piece comes any more; how is set */
    enum upload_body_end how;
    bool stop_posted;

    /* The jobs', and from `done` on the loop's. */
    bool asked; /* for a begin, which may have been put off till the first byte */
    bool begun;
    struct upload_append *append;
    enum api_code code;
    struct upload_result result;
};

struct upload_calls {
    pthread_mutex_t lock;
    struct upload_body *first;
};

#define BODY_OF(pointer, member) body_check(CONTAINER_OF(pointer, struct upload_body, member))

static struct upload_body *body_check(void *pointer)
{
    struct upload_body *b = pointer;
    MAGIC_OK(b, BODY_MAGIC);
    return b;
}

static bool has_body(const struct upload_body *b)
{
    return !b->request.body_known || b->request.body_length > 0;
}

static bool asks_first(const struct upload_body *b)
{
    return has_body(b) && !b->small;
}

/* ---- the list of calls ---- */

struct upload_calls *upload_calls_new(void)
{
    struct upload_calls *calls = calloc(1, sizeof *calls);
    if (calls != NULL)
        pthread_mutex_init(&calls->lock, NULL);
    return calls;
}

void upload_calls_free(struct upload_calls *calls)
{
    if (calls == NULL)
        return;
    CHECK(calls->first == NULL);
    pthread_mutex_destroy(&calls->lock);
    free(calls);
}

static void calls_add(struct upload_calls *calls, struct upload_body *b)
{
    pthread_mutex_lock(&calls->lock);
    b->next = calls->first;
    if (b->next != NULL)
        b->next->link = &b->next;
    b->link = &calls->first;
    calls->first = b;
    pthread_mutex_unlock(&calls->lock);
}

static void calls_remove(struct upload_calls *calls, struct upload_body *b)
{
    pthread_mutex_lock(&calls->lock);
    *b->link = b->next;
    if (b->next != NULL)
        b->next->link = b->link;
    pthread_mutex_unlock(&calls->lock);
}

/* ---- stopping, from any thread ---- */

static void body_stop(struct upload_body *b)
{
    pthread_mutex_lock(&b->lock);
    bool post = !b->stop_posted;
    b->stop_posted = true;
    if (post)
        http_loop_post(http_request_loop(b->x->req), &b->stop_task);
    pthread_mutex_unlock(&b->lock);
}

static void body_superseded(void *arg)
{
    body_stop(body_check(arg));
}

void upload_calls_stop(struct upload_calls *calls)
{
    pthread_mutex_lock(&calls->lock);
    for (struct upload_body *b = calls->first; b != NULL; b = b->next)
        body_stop(b);
    pthread_mutex_unlock(&calls->lock);
}

/* ---- on a worker, in the lane ---- */

static void body_finish(struct upload_body *b)
{
    http_loop_post(http_request_loop(b->x->req), &b->done_task);
}

/* Nothing of the body is there yet, and it may be that nothing comes: a complete is judged by that. */
static bool may_be_empty(const struct upload_body *b)
{
    return b->request.completes && !b->request.body_known && !b->request.body_begun;
}

/* Is there room for the body, as far as its length is known? Where not, the answer says where the upload stands. */
static enum api_code check_room(struct upload_body *b)
{
    struct blob_error err;
    if (!has_body(b))
        return API_OK;
    uint64_t bytes = b->request.body_known ? b->request.body_length : 1;
    enum blob_status st = blob_store_room(b->x->svc->store, bytes, &err);
    if (st == BLOB_OK)
        return API_OK;
    log_line(b->x->svc->log, LOG_WARN, http_request_id(b->x->req), "upload %s: %s", b->request.id.text, err.text);
    struct api_error unknown;
    b->result.has_view =
        upload_status(b->x->svc->uploads, &b->request.id, b->request.who, &b->result.view, &unknown) == API_OK;
    return api_fail_status(&b->x->err, st);
}

static void release(struct upload_body *b, struct http_piece *piece)
{
    for (struct http_piece *next; piece != NULL; piece = next) {
        next = piece->next;
        http_piece_release(b->x->svc->http, piece);
    }
}

/* What is known of the body by now. */
struct seen {
    struct http_piece *pieces;
    bool ended;
    enum upload_body_end how;
};

/* False: refused, or answered already. What can only be told when the body's first byte or its end is there is put off
 * till then: not begun. */
static bool body_begin(struct upload_body *b, const struct seen *seen)
{
    struct upload_request *req = &b->request;
    req->body_begun = seen->pieces != NULL;
    if (seen->ended && seen->how == UPLOAD_BODY_WHOLE && seen->pieces == NULL)
        req->body_known = true; /* its length is 0 */
    bool unclear = may_be_empty(b);
    b->code = check_room(b);
    bool waits = unclear && b->code != API_OK;
    if (b->code == API_OK) {
        b->code = upload_append_begin(b->x->svc->uploads, req, &b->append, &b->result, &b->x->err);
        waits = b->code == API_OK && b->result.waits;
    }
    b->begun = !waits;
    if (waits)
        b->code = seen->ended ? API_BAD_REQUEST : API_OK; /* cut: explain_cut() says how */
    return b->code == API_OK && (waits || b->append != NULL);
}

/* Takes off the pieces that are written at once, and names their bytes. */
static int take_batch(struct http_piece **from, struct iovec parts[BATCH_PIECES])
{
    size_t bytes = 0;
    int count = 0;
    for (; *from != NULL && count < BATCH_PIECES && bytes < BATCH_BYTES; *from = (*from)->next) {
        parts[count++] = (struct iovec){.iov_base = (*from)->data, .iov_len = (*from)->len};
        bytes += (*from)->len;
    }
    return count;
}

/* Gives back every piece, also after a failure. */
static void body_write(struct upload_body *b, struct http_piece *piece)
{
    while (piece != NULL) {
        struct http_piece *end = piece, *next;
        struct iovec parts[BATCH_PIECES];
        int count = take_batch(&end, parts);
        if (b->code == API_OK)
            b->code = upload_append_write(b->append, parts, count, &b->x->err);
        for (; piece != end; piece = next) {
            next = piece->next;
            http_piece_release(b->x->svc->http, piece);
        }
    }
}

static void body_end(struct upload_body *b, enum upload_body_end how)
{
    struct api_error write_err = b->x->err;
    enum api_code write_code = b->code;
    if (write_code != API_OK)
        how = UPLOAD_BODY_FAILED;
    b->code = upload_append_end(b->append, how, &b->result, &b->x->err);
    b->append = NULL;
    if (b->code == API_OK && write_code != API_OK) {
        b->code = write_code;
        b->x->err = write_err;
    }
}

static struct seen body_take(struct upload_body *b)
{
    pthread_mutex_lock(&b->lock);
    struct seen seen = {.pieces = b->first, .ended = b->ended, .how = b->how};
    b->first = NULL;
    b->last = &b->first;
    pthread_mutex_unlock(&b->lock);
    return seen;
}

static void body_run(struct worker_job *job)
{
    struct upload_body *b = BODY_OF(job, job);
    struct seen seen = body_take(b);
    if (!b->begun && !body_begin(b, &seen)) {
        release(b, seen.pieces);
        body_finish(b);
        return;
    }
    if (!b->asked && asks_first(b))
        http_loop_post(http_request_loop(b->x->req), &b->begun_task);
    b->asked = true;

    body_write(b, seen.pieces);
    if (seen.ended || b->code != API_OK) {
        body_end(b, seen.how);
        body_finish(b);
        return;
    }
    pthread_mutex_lock(&b->lock);
    bool more = b->first != NULL || b->ended;
    b->scheduled = more;
    pthread_mutex_unlock(&b->lock);
    if (more)
        worker_pool_submit(b->x->svc->pool, b->lane, &b->job);
}

/* ---- on the loop ---- */

static void release_pieces(struct upload_body *b)
{
    release(b, b->first);
    b->first = NULL;
    b->last = &b->first;
}

/* What each end on the wire means to the upload, and to the client. */
static const struct {
    enum upload_body_end how;
    enum api_code code;
    const char *text;
} ends[] = {
    [HTTP_BODY_COMPLETE] = {UPLOAD_BODY_WHOLE, API_OK, ""},
    [HTTP_BODY_CUT] = {UPLOAD_BODY_CUT, API_BAD_REQUEST, "the connection ended before the body"},
    [HTTP_BODY_STALLED] = {UPLOAD_BODY_CUT, API_REQUEST_TIMEOUT, "no more of the body came in time"},
    [HTTP_BODY_TOO_SLOW] = {UPLOAD_BODY_CUT, API_REQUEST_TIMEOUT, "the body came too slowly"},
    [HTTP_BODY_MALFORMED] = {UPLOAD_BODY_FAILED, API_BAD_REQUEST, "the body's chunked framing is broken"},
    [HTTP_BODY_NO_MEMORY] = {UPLOAD_BODY_CUT, API_UNAVAILABLE, "the server has no memory to read the body"},
};

/* Why the body did not come whole. */
static enum api_code end_fail(struct upload_body *b, const char *kept)
{
    struct api_error *err = &b->x->err;
    if (!b->cut_by_stop)
        api_fail(err, ends[b->wire_end].code, "%s%s", ends[b->wire_end].text, kept);
    else if (atomic_load(&b->x->svc->draining))
        api_fail(err, API_UNAVAILABLE, "the server is stopping%s", kept);
    else
        api_fail(err, API_UPLOAD_SUPERSEDED, "a newer request continues this upload");
    if (err->code == API_UNAVAILABLE)
        err->retry_after_s = 1;
    return err->code;
}

/* The upload has nothing to say but that the body ended early: how, it does not know. What else it says stands: bytes
 * that were refused before, a newer request, a store or session that is away. */
static void explain_cut(struct upload_body *b)
{
    bool cut = b->cut_by_stop || b->wire_end != HTTP_BODY_COMPLETE;
    if (cut && b->code == API_BAD_REQUEST)
        b->code = end_fail(b, b->begun ? "; what arrived is kept" : NOTHING_CAME);
}

/* The last act: the answer frees b with its exchange. */
static void body_answer(struct upload_body *b)
{
    struct exchange *x = b->x;
    explain_cut(b);
    pthread_mutex_destroy(&b->lock);
    b->magic = 0;
    const struct upload_view *view = b->result.has_view ? &b->result.view : NULL;
    if (b->code != API_OK) {
        x->err.code = b->code;
        upload_answer_error(x, view);
    } else if (b->result.completed) {
        upload_answer_completed(x, &b->result.file, view);
    } else {
        CHECK(view != NULL);
        upload_answer_view(x, 203, view);
    }
}

static void body_done(struct http_task *task)
{
    struct upload_body *b = BODY_OF(task, done_task);
    if (b->reading)
        http_request_stop_body(b->x->req);
    b->reading = false;
    release_pieces(b);
    calls_remove(b->x->svc->upload_calls, b);
    b->answered_late = b->stop_posted && !b->stopped;
    if (!b->answered_late)
        body_answer(b);
}

/* The pool is full and nothing has begun. */
static void body_refuse(struct upload_body *b)
{
    b->code = api_fail(&b->x->err, API_UNAVAILABLE, "the server is busy; try again");
    b->x->err.retry_after_s = 1;
    body_done(&b->done_task);
}

/* Nothing has begun, and no byte came: the upload must not hear of it, or a request that died under its head would stop
 * the one that was sent in its place. */
static void body_never_came(struct upload_body *b)
{
    b->code = end_fail(b, NOTHING_CAME);
    body_done(&b->done_task);
}

static void body_submit(struct upload_body *b)
{
    struct worker_pool *pool = b->x->svc->pool;
    if (b->admitted) {
        worker_pool_submit(pool, b->lane, &b->job);
        return;
    }
    b->admitted = true;
    if (worker_pool_try_submit(pool, b->lane, &b->job) != BLOB_OK)
        body_refuse(b);
}

/* Adds a piece (NULL: the end is near), and submits a job where one is needed. */
static void body_feed(struct upload_body *b, struct http_piece *piece, bool wait)
{
    pthread_mutex_lock(&b->lock);
    if (piece != NULL) {
        piece->next = NULL;
        *b->last = piece;
        b->last = &piece->next;
    }
    bool submit = !b->scheduled && !wait;
    b->scheduled = b->scheduled || submit;
    pthread_mutex_unlock(&b->lock);
    if (submit)
        body_submit(b);
}

static void body_set_end(struct upload_body *b, enum upload_body_end how)
{
    pthread_mutex_lock(&b->lock);
    b->ended = true;
    b->how = how;
    pthread_mutex_unlock(&b->lock);
}

static void on_piece(struct http_request *req, struct http_piece *piece, void *arg)
{
    struct upload_body *b = body_check(arg);
    (void)req;
    b->received_bytes += piece->len;
    /* The end of a small body that is whole follows at once. */
    body_feed(b, piece, b->small && b->received_bytes == b->request.body_length);
}

static void on_end(struct http_request *req, enum http_body_end end, void *arg)
{
    struct upload_body *b = body_check(arg);
    (void)req;
    b->reading = false;
    b->wire_end = end;
    if (end != HTTP_BODY_COMPLETE && !b->admitted) {
        body_never_came(b);
        return;
    }
    body_set_end(b, ends[end].how);
    body_feed(b, NULL, false);
}

static void body_read(struct upload_body *b)
{
    const struct http_body_reader reader = {.offset = b->append != NULL ? upload_append_offset(b->append) : 0,
                                            .on_piece = on_piece,
                                            .on_end = on_end,
                                            .arg = b};
    b->reading = true;
    http_request_read_body(b->x->req, &reader, b->x->svc->body_window_bytes);
}

static void body_begun(struct http_task *task)
{
    struct upload_body *b = BODY_OF(task, begun_task);
    if (!b->stopped)
        body_read(b);
}

static void body_stopped(struct http_task *task)
{
    struct upload_body *b = BODY_OF(task, stop_task);
    b->stopped = true;
    if (b->answered_late) {
        body_answer(b);
        return;
    }
    if (b->reading)
        http_request_stop_body(b->x->req);
    else if (b->ended)
        return;
    b->reading = false;
    b->cut_by_stop = true;
    if (!b->admitted) {
        body_never_came(b);
        return;
    }
    body_set_end(b, UPLOAD_BODY_CUT);
    body_feed(b, NULL, false);
}

void upload_body_start(struct exchange *x, const struct upload_request *req)
{
    struct upload_body *b = exchange_state(x, sizeof *b);
    if (b == NULL)
        return;
    b->magic = BODY_MAGIC;
    b->x = x;
    b->request = *req;
    b->request.superseded = body_superseded;
    b->request.arg = b;
    b->lane = upload_lane(x->svc->uploads, &req->id);
    b->job.run = body_run;
    b->begun_task.run = body_begun;
    b->stop_task.run = body_stopped;
    b->done_task.run = body_done;
    b->last = &b->first;
    pthread_mutex_init(&b->lock, NULL);
    calls_add(x->svc->upload_calls, b);

    b->small = has_body(b) && b->request.body_known && b->request.body_length <= SMALL_BODY_BYTES &&
               !http_request_expects_continue(x->req);
    if (b->small) {
        body_read(b);
        return;
    }
    if (!has_body(b))
        body_set_end(b, UPLOAD_BODY_WHOLE);
    body_feed(b, NULL, false);
}
