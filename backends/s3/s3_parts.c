/*
 * s3_parts - the parts of one writer: bytes in, parts out.
 *
 * Writing copies into the slot of the part being filled, whose buffer grows with what it holds; a full slot is sent by
 * the store's pool, several at a time. What a flush has put into segments need not stay in memory: where memory is
 * short it is dropped, and read back when its part is sent.
 *
 * Invariant. Slots are contiguous, in order, and begin where the parts of `state` end.
 */
#include "backends/s3/s3_writer.h"

#include "backends/crc32c.h"
#include "core/check.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENT_TRIES 3
#define FIRST_CAP     (64u * 1024)
#define GROWN_CAP     (1024u * 1024) /* larger slots, and those behind a part that is not flushed, take a whole part's */

/* ---- slots ---- */

static void buffer_free(struct part_slot *slot)
{
    struct s3_memory *m = &slot->writer->store->memory;
    if (slot->whole) {
        s3_memory_part_free(m, slot->buf, slot->held);
    } else {
        s3_memory_drop(m, slot->held);
        free(slot->buf);
    }
    slot->whole = false;
    slot->buf = NULL;
    slot->cap = slot->held = 0;
}

static void slot_free(struct part_slot *slot)
{
    buffer_free(slot);
    free(slot);
}

/* The slot for the bytes from `have` on, within the part that begins at start. NULL without memory. */
static struct part_slot *slot_add(struct s3_writer *w, uint64_t start, uint64_t have)
{
    struct part_slot *slot = calloc(1, sizeof *slot);
    if (!slot)
        return NULL;
    slot->writer = w;
    slot->start = start;
    slot->have = have;
    if (w->slots.last)
        w->slots.last->next = slot;
    else
        w->slots.first = slot;
    w->slots.last = slot;
    return slot;
}

static uint64_t part_end(const struct s3_writer *w, const struct part_slot *slot)
{
    return slot->start + w->state.part_size;
}

static bool slot_reserve(const struct s3_writer *w, struct part_slot *slot, size_t more)
{
    if (more <= slot->cap - slot->len)
        return true;
    size_t cap = slot->cap > FIRST_CAP ? slot->cap : FIRST_CAP, most = (size_t)(part_end(w, slot) - slot->have),
           held = 0;
    while (cap < slot->len + more)
        cap *= 2;
    if (cap > most)
        cap = most;
    bool whole = (cap > GROWN_CAP || slot != w->slots.first) && most <= w->store->part_size;
    uint8_t *buf = whole ? s3_memory_part(&w->store->memory, &held) : realloc(slot->buf, cap);
    if (!buf)
        return false;
    if (whole) {
        if (slot->len > 0)
            memcpy(buf, slot->buf, slot->len);
        buffer_free(slot);
        slot->whole = true;
        slot->held = held;
        cap = most;
    }
    slot->buf = buf;
    slot->cap = cap;
    return true;
}

/* Counts what has been written to the slot's buffer. */
static void slot_count(struct part_slot *slot)
{
    size_t touched = slot->whole ? s3_memory_touched(slot->len) : slot->len;
    if (touched > slot->cap)
        touched = slot->cap;
    if (touched <= slot->held)
        return;
    s3_memory_hold(&slot->writer->store->memory, touched - slot->held);
    slot->held = touched;
}

/* ---- sending ---- */

/* Bytes of one segment. A whole one is read again when it comes damaged. */
static enum blob_status read_segment(struct s3_store *s, const struct s3_key *key,
                                     const struct s3_staged_segment *segment, uint64_t in, uint8_t *out, size_t len,
                                     struct blob_error *err)
{
    bool whole = len == segment->length;
    for (int tries = 0; tries < SEGMENT_TRIES; tries++) {
        size_t got;
        enum blob_status st =
            s3_get_range(s->client, key->text, S3_STAGED_HEADER_BYTES + in, len, out, &got, NULL, err);
        if (st == BLOB_OK && got != len)
            st = blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s is shorter than its upload says", key->text);
        if (st != BLOB_OK || !whole || crc32c(0, out, len) == segment->crc32c)
            return st;
    }
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s: other bytes come back than were written", key->text);
}

/* Bytes of an upload's segments: [offset, offset + len) must lie in them. Who asks for less than whole segments must
 * check by other means what comes. */
static enum blob_status read_segments(struct s3_store *s, const struct uuid *id, const struct s3_staged *state,
                                      uint64_t offset, uint8_t *out, size_t len, struct blob_error *err)
{
    for (unsigned i = 0; i < state->segment_count && len > 0; i++) {
        uint64_t begin;
        struct s3_key k = s3_staged_segment_key(id, state, i, &begin);
        const struct s3_staged_segment *segment = &state->segments[i];
        uint64_t end = begin + segment->length;
        if (offset >= end || offset < begin)
            continue;
        size_t n = end - offset < len ? (size_t)(end - offset) : len;
        enum blob_status st = read_segment(s, &k, segment, offset - begin, out, n, err);
        if (st != BLOB_OK)
            return st;
        offset += n;
        out += n;
        len -= n;
    }
    return len == 0
               ? BLOB_OK
               : blob_fail(err, BLOB_E_CORRUPT, 0, "upload %s: staged bytes are not where they should be", id->text);
}

/* The slot's part as one buffer: its own, or a new one (*own) with what lies in segments before it. */
static enum blob_status whole_part(struct part_slot *slot, uint8_t **buf, bool *own, struct blob_error *err)
{
    struct s3_writer *w = slot->writer;
    size_t head = (size_t)(slot->have - slot->start), size = w->from.part_size;
    if (head == 0) {
        *buf = slot->buf;
        *own = false;
        return BLOB_OK;
    }
    uint8_t *part = malloc(size);
    if (!part)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part");
    pthread_mutex_lock(&w->lock);
    struct s3_staged state = w->state; /* its objects stay while this slot is on its way */
    pthread_mutex_unlock(&w->lock);
    enum blob_status st = read_segments(w->store, &w->id, &state, slot->start, part, head, err);
    if (st != BLOB_OK) {
        free(part);
        return st;
    }
    memcpy(part + head, slot->buf, slot->len);
    s3_memory_hold(&w->store->memory, size);
    *buf = part;
    *own = true;
    return BLOB_OK;
}

static enum blob_status put_part(struct part_slot *slot, const struct s3_body *body, struct blob_error *err)
{
    struct s3_writer *w = slot->writer;
    struct s3_store *s = w->store;
    enum blob_status st;
    if (s->multipart) {
        struct s3_key k = s3_staged_data_key(&w->id);
        struct s3_part part;
        st = s3_multipart_put(s->client, k.text, w->upload_id, slot->number, body, &part, err);
        if (st == BLOB_OK)
            memcpy(slot->etag, part.etag, sizeof slot->etag);
    } else {
        struct s3_key k = s3_staged_piece_key(&w->id, slot->number, slot->epoch);
        struct s3_object object;
        st = s3_put(s->client, k.text, body, NULL, &object, err);
        if (st == BLOB_OK)
            memcpy(slot->etag, object.etag, sizeof slot->etag);
    }
    return st;
}

/* On a thread of the pool. */
static void slot_send(struct worker_job *job)
{
    struct part_slot *slot = (struct part_slot *)((char *)job - offsetof(struct part_slot, job));
    struct s3_writer *w = slot->writer;
    uint8_t *buf;
    bool own;
    enum blob_status st = whole_part(slot, &buf, &own, &slot->err);
    if (st == BLOB_OK) {
        st = put_part(slot, &(struct s3_body){.data = buf, .length = w->from.part_size}, &slot->err);
        if (own) {
            s3_memory_drop(&w->store->memory, w->from.part_size);
            free(buf);
        }
    }
    s3_memory_sent(&w->store->memory, w->from.part_size);
    pthread_mutex_lock(&w->lock);
    slot->status = st;
    slot->state = st == BLOB_OK ? SLOT_SENT : SLOT_FAILED;
    if (--w->slots.sending == 0)
        s3_memory_sender(&w->store->memory, false);
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

/* The multipart upload that parts go to; made when the first one is full. */
static enum blob_status need_upload_id(struct s3_writer *w, struct blob_error *err)
{
    char id[S3_UPLOAD_ID_MAX];
    struct s3_key k = s3_staged_data_key(&w->id);
    if (!w->store->multipart || w->upload_id[0])
        return BLOB_OK;
    enum blob_status st = s3_multipart_create(w->store->client, k.text, id, err);
    if (st != BLOB_OK)
        return st;
    if (strlen(id) > S3_STAGED_UPLOAD_ID_MAX)
        return blob_fail(err, BLOB_E_UNSUPPORTED, 0, "the endpoint's upload ids are over %d bytes",
                         S3_STAGED_UPLOAD_ID_MAX);
    pthread_mutex_lock(&w->lock);
    memcpy(w->upload_id, id, strlen(id) + 1);
    pthread_mutex_unlock(&w->lock);
    return BLOB_OK;
}

/* With the lock held. */
static struct part_slot *next_to_send(const struct s3_writer *w)
{
    struct part_slot *slot = w->slots.first;
    while (slot && slot->state != SLOT_FULL)
        slot = slot->next;
    return slot;
}

/* With the lock held. */
static unsigned parts_at_once(const struct s3_writer *w)
{
    unsigned share = s3_memory_parallel(&w->store->memory, w->slots.sending > 0);
    return share < w->store->parallel_parts ? share : w->store->parallel_parts;
}

/* Sends full slots; waits while too many are on their way. */
static enum blob_status send_full(struct s3_writer *w, struct blob_error *err)
{
    for (;;) {
        pthread_mutex_lock(&w->lock);
        struct part_slot *slot = next_to_send(w);
        while (slot && w->slots.sending >= parts_at_once(w))
            pthread_cond_wait(&w->changed, &w->lock);
        pthread_mutex_unlock(&w->lock);
        if (!slot)
            return BLOB_OK;
        enum blob_status st = need_upload_id(w, err);
        if (st == BLOB_OK && slot->number == 0 && w->next_number > S3_PART_MAX)
            st = blob_fail(err, BLOB_E_TOO_LARGE, 0, "upload %s: S3 takes %d parts of storage.s3.part_size at most",
                           w->id.text, S3_PART_MAX);
        if (st != BLOB_OK)
            return st;
        s3_memory_send(&w->store->memory, w->from.part_size);
        pthread_mutex_lock(&w->lock);
        if (slot->number == 0) {
            slot->number = w->next_number++;
            slot->epoch = w->run_epoch;
        }
        w->staged |= !w->store->multipart; /* as a piece */
        slot->state = SLOT_SENDING;
        slot->job.run = slot_send;
        if (w->slots.sending++ == 0)
            s3_memory_sender(&w->store->memory, true);
        pthread_mutex_unlock(&w->lock);
        worker_pool_submit(w->store->pool, NULL, &slot->job);
    }
}

static enum blob_status kick(struct s3_writer *w, struct blob_error *err)
{
    pthread_mutex_lock(&w->order);
    enum blob_status st = send_full(w, err);
    pthread_mutex_unlock(&w->order);
    return st;
}

/* With the lock held. */
static const struct part_slot *first_failed(const struct s3_writer *w, uint64_t end)
{
    for (const struct part_slot *slot = w->slots.first; slot && part_end(w, slot) <= end; slot = slot->next) {
        if (slot->state == SLOT_FAILED)
            return slot;
    }
    return NULL;
}

static bool all_sent(const struct s3_writer *w, uint64_t end)
{
    for (const struct part_slot *slot = w->slots.first; slot && part_end(w, slot) <= end; slot = slot->next) {
        if (slot->state != SLOT_SENT)
            return false;
    }
    return true;
}

enum blob_status s3_writer_settle(struct s3_writer *w, uint64_t end, struct blob_error *err)
{
    pthread_mutex_lock(&w->lock);
    for (struct part_slot *slot = w->slots.first; slot; slot = slot->next) {
        if (slot->state == SLOT_FAILED)
            slot->state = SLOT_FULL;
    }
    pthread_mutex_unlock(&w->lock);
    enum blob_status st = kick(w, err);
    if (st != BLOB_OK)
        return st;
    pthread_mutex_lock(&w->lock);
    const struct part_slot *failed = NULL;
    while (!all_sent(w, end) && !(failed = first_failed(w, end)))
        pthread_cond_wait(&w->changed, &w->lock);
    if (failed) {
        st = failed->status;
        if (err)
            *err = failed->err;
    }
    pthread_mutex_unlock(&w->lock);
    return st;
}

/* ---- writing ---- */

/* Slots with room for len bytes more; on failure nothing has been written, and empty slots do no harm. */
static bool reserve(struct s3_writer *w, size_t len)
{
    uint64_t at = w->base.position;
    while (len > 0) {
        struct part_slot *slot = w->slots.first;
        while (slot && part_end(w, slot) <= at)
            slot = slot->next;
        if (!slot)
            slot = slot_add(w, at - at % w->from.part_size, at);
        if (!slot)
            return false;
        uint64_t left = part_end(w, slot) - at;
        size_t n = left < len ? (size_t)left : len;
        if (!slot_reserve(w, slot, n))
            return false;
        at += n;
        len -= n;
    }
    return true;
}

static void copy_in(struct s3_writer *w, const uint8_t *data, size_t len)
{
    uint64_t at = w->base.position;
    for (struct part_slot *slot = w->slots.first; len > 0; slot = slot->next) {
        if (part_end(w, slot) <= at)
            continue;
        uint64_t left = part_end(w, slot) - at;
        size_t n = left < len ? (size_t)left : len;
        memcpy(slot->buf + slot->len, data, n);
        slot->len += n;
        slot_count(slot);
        if (n == left)
            slot->state = SLOT_FULL;
        at += n;
        data += n;
        len -= n;
    }
    __atomic_store_n(&w->base.position, at, __ATOMIC_RELEASE);
}

enum blob_status s3_writer_take(struct s3_writer *w, const struct iovec *iov, int count, struct blob_error *err)
{
    size_t len = parts_bytes(iov, count);
    /* What is full from before goes first: when it cannot, this is where it is told. */
    enum blob_status st = kick(w, err);
    if (st != BLOB_OK)
        return st;
    pthread_mutex_lock(&w->lock);
    const struct part_slot *failed = first_failed(w, UINT64_MAX);
    if (failed) {
        st = failed->status;
        if (err)
            *err = failed->err;
        pthread_mutex_unlock(&w->lock);
        return st;
    }
    bool reserved = reserve(w, len);
    for (int i = 0; i < count && reserved; i++)
        copy_in(w, iov[i].iov_base, iov[i].iov_len);
    pthread_mutex_unlock(&w->lock);
    if (!reserved)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part");
    struct blob_error ignored; /* the bytes are taken; the next call tells */
    st = kick(w, &ignored);
    (void)st;
    return BLOB_OK;
}

enum blob_status s3_writer_copy(struct s3_writer *w, uint64_t offset, uint8_t *out, size_t len, struct blob_error *err)
{
    /* First what no slot holds: it is in segments of the state, all of them before the slots' bytes. */
    pthread_mutex_lock(&w->lock);
    uint64_t held = w->slots.first ? w->slots.first->have : UINT64_MAX;
    pthread_mutex_unlock(&w->lock);
    if (offset < held && len > 0) {
        size_t n = held - offset < len ? (size_t)(held - offset) : len;
        enum blob_status st = read_segments(w->store, &w->id, &w->state, offset, out, n, err);
        if (st != BLOB_OK)
            return st;
        offset += n;
        out += n;
        len -= n;
    }
    pthread_mutex_lock(&w->lock);
    for (const struct part_slot *slot = w->slots.first; slot && len > 0; slot = slot->next) {
        uint64_t end = slot->have + slot->len;
        if (offset >= end)
            continue;
        CHECK(offset >= slot->have);
        size_t n = end - offset < len ? (size_t)(end - offset) : len;
        memcpy(out, slot->buf + (offset - slot->have), n);
        offset += n;
        out += n;
        len -= n;
    }
    pthread_mutex_unlock(&w->lock);
    CHECK(len == 0);
    return BLOB_OK;
}

/* ---- what is durable leaves memory ---- */

void s3_writer_forget_parts(struct s3_writer *w, uint64_t end)
{
    while (w->slots.first && part_end(w, w->slots.first) <= end) {
        struct part_slot *slot = w->slots.first;
        w->slots.first = slot->next;
        if (!w->slots.first)
            w->slots.last = NULL;
        slot_free(slot);
    }
}

void s3_writer_forget_staged(struct s3_writer *w, uint64_t end)
{
    struct part_slot *slot = w->slots.first;
    if (!slot || slot->state != SLOT_FILLING || slot->have >= end || !s3_memory_is_short(&w->store->memory))
        return;
    uint64_t gone = end - slot->have;
    CHECK(gone <= slot->len);
    size_t rest = slot->len - (size_t)gone;
    uint8_t *buf = rest > 0 ? malloc(rest) : NULL;
    if (rest > 0 && !buf)
        return;
    if (rest > 0)
        memcpy(buf, slot->buf + gone, rest);
    buffer_free(slot);
    slot->buf = buf;
    slot->have = end;
    slot->len = slot->cap = rest;
    slot_count(slot);
}

bool s3_writer_sends_staged(struct s3_writer *w)
{
    bool any = false;
    pthread_mutex_lock(&w->lock);
    for (const struct part_slot *slot = w->slots.first; slot && !any; slot = slot->next)
        any = slot->state == SLOT_SENDING && slot->have > slot->start;
    pthread_mutex_unlock(&w->lock);
    return any;
}

/* ---- what the rest of the writer asks of its parts ---- */

void s3_writer_advance(struct s3_writer *w, uint64_t end, struct s3_staged *out)
{
    pthread_mutex_lock(&w->lock);
    *out = w->state;
    memcpy(out->upload_id, w->upload_id, sizeof out->upload_id);
    bool any = false;
    for (const struct part_slot *slot = w->slots.first; slot && slot->start + out->part_size <= end;
         slot = slot->next) {
        CHECK(slot->state == SLOT_SENT);
        s3_staged_add_part(out, slot->number, slot->epoch, slot->etag);
        any = true;
    }
    pthread_mutex_unlock(&w->lock);
    if (any)
        out->segment_count = 0; /* they lie in the parts now */
}

const uint8_t *s3_writer_in_memory(const struct s3_writer *w, size_t size)
{
    const struct part_slot *slot = w->slots.first;
    return slot && slot->start == 0 && slot->have == 0 && slot->len == size ? slot->buf : NULL;
}

bool s3_writer_has_numbered(const struct s3_writer *w)
{
    return w->slots.first && w->slots.first->number;
}

void s3_writer_await_sending(struct s3_writer *w)
{
    while (w->slots.sending > 0)
        pthread_cond_wait(&w->changed, &w->lock);
}
