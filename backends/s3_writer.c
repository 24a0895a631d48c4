/*
 * s3_writer - bytes in: memory, parts sent in parallel, a state object at each flush.
 *
 * Writing copies into the slot of the part being filled; a full slot is sent by the store's pool. A flush waits for the
 * parts below its offset, then writes one state object that holds the state, core's keep bytes, and the remainder that
 * no part and no earlier segment holds. So a flush costs one request besides the parts.
 *
 * Invariants. Slots are contiguous, in order, and begin where the parts of `state` end. Objects that `from` or `state`
 * name are never deleted by this writer, so a mark that core still holds stays good: those of an append that is rolled
 * back, and those of a successor that took the upload over while this writer did not know. What an earlier flush of
 * this writer wrote and nothing names any more goes at the next flush, since core has stored the mark in between.
 * State objects carry the writer's epoch, and pieces the run's: a late writer cannot overwrite its successor's.
 */
#include "backends/s3_writer.h"

#include "core/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAKEOVER_GAP 32 /* more parts than a fenced writer can have on their way */
#define FIRST_CAP    (64u * 1024)
#define GROWN_CAP    (1024u * 1024) /* larger slots take a buffer for a whole part */
#define SPARE_SHARE  4

static struct s3_writer *writer_of(struct blob_writer *base)
{
    struct s3_writer *w = (struct s3_writer *)base;
    MAGIC_OK(w, S3_WRITER_MAGIC);
    return w;
}

/* ---- memory for parts on their way ---- */

/* Waits for a share of the store's memory. A writer that has nothing on its way gets one at once, so that all move. */
static void take_room(struct s3_store *s, size_t bytes, bool at_once)
{
    pthread_mutex_lock(&s->lock);
    while (!at_once && s->parts_bytes > 0 && s->parts_bytes + bytes > s->memory_bytes)
        pthread_cond_wait(&s->room, &s->lock);
    s->parts_bytes += bytes;
    pthread_mutex_unlock(&s->lock);
}

static void give_room(struct s3_store *s, size_t bytes)
{
    pthread_mutex_lock(&s->lock);
    s->parts_bytes -= bytes;
    pthread_cond_broadcast(&s->room);
    pthread_mutex_unlock(&s->lock);
}

struct spare {
    struct spare *next;
};

uint8_t *s3_part_buffer(struct s3_store *s)
{
    pthread_mutex_lock(&s->lock);
    struct spare *spare = s->spares;
    if (spare) {
        s->spares = spare->next;
        s->spare_bytes -= s->part_size;
    }
    pthread_mutex_unlock(&s->lock);
    return spare ? (uint8_t *)spare : malloc(s->part_size);
}

void s3_part_buffer_free(struct s3_store *s, uint8_t *buf)
{
    struct spare *spare = (struct spare *)(void *)buf;
    pthread_mutex_lock(&s->lock);
    bool keep = s->spare_bytes + s->part_size <= s->memory_bytes / SPARE_SHARE;
    if (keep) {
        spare->next = s->spares;
        s->spares = spare;
        s->spare_bytes += s->part_size;
    }
    pthread_mutex_unlock(&s->lock);
    if (!keep)
        free(buf);
}

void s3_part_buffers_trim(struct s3_store *s)
{
    pthread_mutex_lock(&s->lock);
    struct spare *spare = s->spares;
    s->spares = NULL;
    s->spare_bytes = 0;
    pthread_mutex_unlock(&s->lock);
    while (spare) {
        struct spare *next = spare->next;
        free(spare);
        spare = next;
    }
}

/* ---- slots ---- */

static void buffer_free(struct part_slot *slot)
{
    if (slot->pooled)
        s3_part_buffer_free(slot->writer->store, slot->buf);
    else
        free(slot->buf);
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
    if (w->last)
        w->last->next = slot;
    else
        w->first = slot;
    w->last = slot;
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
    size_t cap = slot->cap ? slot->cap : FIRST_CAP, most = (size_t)(part_end(w, slot) - slot->have);
    while (cap < slot->len + more)
        cap *= 2;
    if (cap > most)
        cap = most;
    bool pooled = cap > GROWN_CAP && most <= w->store->part_size;
    uint8_t *buf = pooled ? s3_part_buffer(w->store) : realloc(slot->buf, cap);
    if (!buf)
        return false;
    if (pooled) {
        if (slot->len > 0)
            memcpy(buf, slot->buf, slot->len);
        free(slot->buf);
        slot->pooled = true;
        cap = most;
    }
    slot->buf = buf;
    slot->cap = cap;
    return true;
}

/* Bytes of an upload's segments: [offset, offset + len) must lie in them. */
static enum blob_status read_segments(struct s3_store *s, const struct uuid *id, const struct staged *state,
                                      uint64_t offset, uint8_t *out, size_t len, struct blob_error *err)
{
    for (unsigned i = 0; i < state->segment_count && len > 0; i++) {
        uint64_t begin;
        struct s3_key k = staged_segment_key(id, state, i, &begin);
        uint64_t end = begin + state->segments[i].length;
        if (offset >= end || offset < begin)
            continue;
        size_t n = end - offset < len ? (size_t)(end - offset) : len, got;
        enum blob_status st =
            s3_get_range(s->client, k.text, STAGED_HEADER_BYTES + (offset - begin), n, out, &got, NULL, err);
        if (st == BLOB_OK && got != n)
            st = blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s is shorter than its upload says", k.text);
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

/* Puts what lies in segments before what the slot holds. */
static enum blob_status slot_load_head(struct s3_writer *w, struct part_slot *slot, struct blob_error *err)
{
    size_t head = (size_t)(slot->have - slot->start);
    if (head == 0)
        return BLOB_OK;
    uint8_t *buf = malloc(w->from.part_size);
    if (!buf)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part");
    enum blob_status st = read_segments(w->store, &w->id, &w->from, slot->start, buf, head, err);
    if (st != BLOB_OK) {
        free(buf);
        return st;
    }
    memcpy(buf + head, slot->buf, slot->len);
    pthread_mutex_lock(&w->lock); /* a flush may be reading it */
    buffer_free(slot);
    slot->pooled = false;
    slot->buf = buf;
    slot->cap = w->from.part_size;
    slot->len += head;
    slot->have = slot->start;
    pthread_mutex_unlock(&w->lock);
    return BLOB_OK;
}

/* On a thread of the pool. */
static void slot_send(struct worker_job *job)
{
    struct part_slot *slot = (struct part_slot *)((char *)job - offsetof(struct part_slot, job));
    struct s3_writer *w = slot->writer;
    struct s3_store *s = w->store;
    enum blob_status st = slot_load_head(w, slot, &slot->err);
    if (st == BLOB_OK) {
        const struct s3_body body = {.data = slot->buf, .length = slot->len};
        if (s->multipart) {
            struct s3_key k = staged_data_key(&w->id);
            struct s3_part part;
            st = s3_multipart_put(s->client, k.text, w->upload_id, slot->number, &body, &part, &slot->err);
            if (st == BLOB_OK)
                memcpy(slot->etag, part.etag, sizeof slot->etag);
        } else {
            struct s3_key k = staged_piece_key(&w->id, slot->number, slot->epoch);
            struct s3_object object;
            st = s3_put(s->client, k.text, &body, NULL, &object, &slot->err);
            if (st == BLOB_OK)
                memcpy(slot->etag, object.etag, sizeof slot->etag);
        }
    }
    give_room(s, w->from.part_size);
    pthread_mutex_lock(&w->lock);
    slot->status = st;
    slot->state = st == BLOB_OK ? SLOT_SENT : SLOT_FAILED;
    w->sending--;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

/* The multipart upload that parts go to; made when the first one is full. */
static enum blob_status need_upload_id(struct s3_writer *w, struct blob_error *err)
{
    char id[S3_UPLOAD_ID_MAX];
    struct s3_key k = staged_data_key(&w->id);
    if (!w->store->multipart || w->upload_id[0])
        return BLOB_OK;
    enum blob_status st = s3_multipart_create(w->store->client, k.text, id, err);
    if (st != BLOB_OK)
        return st;
    if (strlen(id) > STAGED_UPLOAD_ID_MAX)
        return blob_fail(err, BLOB_E_UNSUPPORTED, 0, "the endpoint's upload ids are over %d bytes",
                         STAGED_UPLOAD_ID_MAX);
    pthread_mutex_lock(&w->lock);
    memcpy(w->upload_id, id, strlen(id) + 1);
    pthread_mutex_unlock(&w->lock);
    return BLOB_OK;
}

/* With the lock held. */
static struct part_slot *next_to_send(const struct s3_writer *w)
{
    struct part_slot *slot = w->first;
    while (slot && slot->state != SLOT_FULL)
        slot = slot->next;
    return slot;
}

/* Sends full slots; waits while too many are on their way. */
static enum blob_status send_full(struct s3_writer *w, struct blob_error *err)
{
    for (;;) {
        pthread_mutex_lock(&w->lock);
        while (w->sending >= w->store->parallel_parts)
            pthread_cond_wait(&w->changed, &w->lock);
        struct part_slot *slot = next_to_send(w);
        bool alone = w->sending == 0;
        pthread_mutex_unlock(&w->lock);
        if (!slot)
            return BLOB_OK;
        enum blob_status st = need_upload_id(w, err);
        if (st == BLOB_OK && slot->number == 0 && w->next_number > S3_PART_MAX)
            st = blob_fail(err, BLOB_E_TOO_LARGE, 0, "upload %s: S3 takes %d parts of storage.s3.part_size at most",
                           w->id.text, S3_PART_MAX);
        if (st != BLOB_OK)
            return st;
        take_room(w->store, w->from.part_size, alone);
        pthread_mutex_lock(&w->lock);
        if (slot->number == 0) {
            slot->number = w->next_number++;
            slot->epoch = w->run_epoch;
        }
        w->staged |= !w->store->multipart; /* as a piece */
        slot->state = SLOT_SENDING;
        slot->job.run = slot_send;
        w->sending++;
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
    for (const struct part_slot *slot = w->first; slot && part_end(w, slot) <= end; slot = slot->next) {
        if (slot->state == SLOT_FAILED)
            return slot;
    }
    return NULL;
}

static bool all_sent(const struct s3_writer *w, uint64_t end)
{
    for (const struct part_slot *slot = w->first; slot && part_end(w, slot) <= end; slot = slot->next) {
        if (slot->state != SLOT_SENT)
            return false;
    }
    return true;
}

enum blob_status s3_writer_settle(struct s3_writer *w, uint64_t end, struct blob_error *err)
{
    pthread_mutex_lock(&w->lock);
    for (struct part_slot *slot = w->first; slot; slot = slot->next) {
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
        struct part_slot *slot = w->first;
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
    for (struct part_slot *slot = w->first; len > 0; slot = slot->next) {
        if (part_end(w, slot) <= at)
            continue;
        uint64_t left = part_end(w, slot) - at;
        size_t n = left < len ? (size_t)left : len;
        memcpy(slot->buf + slot->len, data, n);
        slot->len += n;
        if (n == left)
            slot->state = SLOT_FULL;
        at += n;
        data += n;
        len -= n;
    }
    __atomic_store_n(&w->base.position, at, __ATOMIC_RELEASE);
}

enum blob_status s3_writer_write(struct blob_writer *base, const void *data, size_t len, struct blob_error *err)
{
    struct s3_writer *w = writer_of(base);
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
    if (reserved)
        copy_in(w, data, len);
    pthread_mutex_unlock(&w->lock);
    if (!reserved)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part");
    struct blob_error ignored; /* the bytes are taken; the next call tells */
    st = kick(w, &ignored);
    (void)st;
    return BLOB_OK;
}

/* ---- flushing ---- */

enum blob_status s3_writer_copy(struct s3_writer *w, uint64_t offset, uint8_t *out, size_t len, struct blob_error *err)
{
    /* First what no slot holds: it is in segments of the state, all of them before the slots' bytes. */
    pthread_mutex_lock(&w->lock);
    uint64_t held = w->first ? w->first->have : UINT64_MAX;
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
    for (const struct part_slot *slot = w->first; slot && len > 0; slot = slot->next) {
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

void s3_writer_advance(struct s3_writer *w, uint64_t end, struct staged *out)
{
    pthread_mutex_lock(&w->lock);
    *out = w->state;
    memcpy(out->upload_id, w->upload_id, sizeof out->upload_id);
    bool any = false;
    for (const struct part_slot *slot = w->first; slot && part_end(w, slot) <= end; slot = slot->next) {
        CHECK(slot->state == SLOT_SENT);
        staged_add_part(out, slot->number, slot->epoch, slot->etag);
        any = true;
    }
    pthread_mutex_unlock(&w->lock);
    if (any)
        out->segment_count = 0; /* they lie in the parts now */
}

/* How many of the last segments are written anew together with what is added: none while there is room; then those
 * that are not much larger, so that in the long run each byte is moved a few times only. */
static unsigned segments_to_absorb(const struct staged *s, uint64_t added)
{
    unsigned n = 0;
    if (s->segment_count < STAGED_SEGMENTS_MAX)
        return 0;
    uint64_t total = added;
    while (n < s->segment_count && (n < 2 || s->segments[s->segment_count - 1 - n].length <= 2 * total)) {
        total += s->segments[s->segment_count - 1 - n].length;
        n++;
    }
    return n;
}

enum blob_status s3_writer_put_state(struct s3_writer *w, struct staged *next, const void *keep, size_t keep_len,
                                     uint64_t from, size_t len, struct blob_error *err)
{
    uint8_t *object = malloc(STAGED_HEADER_BYTES + len);
    if (!object)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 state object");
    next->epoch = w->epoch;
    next->sequence = w->sequence + 1;
    next->offset = from + len;
    if (len > 0)
        next->segments[next->segment_count++] =
            (struct staged_segment){.epoch = w->epoch, .sequence = next->sequence, .length = (uint32_t)len};
    staged_write_header(next, keep, keep_len, object);
    enum blob_status st = s3_writer_copy(w, from, object + STAGED_HEADER_BYTES, len, err);
    if (st == BLOB_OK) {
        struct s3_key k = staged_state_key(&w->id, next->epoch, next->sequence, next->offset);
        const struct s3_body body = {.data = object, .length = STAGED_HEADER_BYTES + len};
        st = s3_put(w->store->client, k.text, &body, NULL, NULL, err);
    }
    free(object);
    w->staged = true; /* also after a failure: it may have arrived */
    if (st == BLOB_OK)
        w->sequence++;
    return st;
}

static bool names(const struct staged *s, uint64_t epoch, uint32_t sequence)
{
    if (s->epoch == epoch && s->sequence == sequence)
        return true;
    for (unsigned i = 0; i < s->segment_count; i++) {
        if (s->segments[i].epoch == epoch && s->segments[i].sequence == sequence)
            return true;
    }
    return false;
}

/* Deletes those of old's objects that this writer wrote and neither now nor `from` names. What cannot be deleted goes
 * with the upload. */
static void drop_superseded(struct s3_writer *w, const struct staged *old, const struct staged *now)
{
    struct blob_error ignored;
    struct s3_key keys[STAGED_SEGMENTS_MAX + 1];
    unsigned count = 0;
    for (unsigned i = 0; i < old->segment_count; i++) {
        const struct staged_segment *g = &old->segments[i];
        uint64_t offset;
        struct s3_key k = staged_segment_key(&w->id, old, i, &offset);
        if (g->epoch == w->epoch && !names(now, g->epoch, g->sequence) && !names(&w->from, g->epoch, g->sequence))
            keys[count++] = k;
    }
    if (old->sequence && old->epoch == w->epoch && !names(now, old->epoch, old->sequence) &&
        !names(&w->from, old->epoch, old->sequence))
        keys[count++] = staged_state_key(&w->id, old->epoch, old->sequence, old->offset);
    for (unsigned i = 0; i < count; i++) {
        if (s3_delete(w->store->client, keys[i].text, &ignored) != BLOB_OK)
            return;
    }
}

/* The flush is durable: what lies below its parts is not needed in memory any more. */
static void adopt(struct s3_writer *w, const struct staged *next)
{
    pthread_mutex_lock(&w->lock);
    uint64_t end = staged_parts_end(next);
    while (w->first && part_end(w, w->first) <= end) {
        struct part_slot *slot = w->first;
        w->first = slot->next;
        if (!w->first)
            w->last = NULL;
        slot_free(slot);
    }
    w->state = *next;
    pthread_mutex_unlock(&w->lock);
}

enum blob_status s3_writer_flush(struct blob_writer *base, uint64_t offset, const void *keep, size_t keep_len,
                                 unsigned flags, struct upload_mark *mark, struct blob_error *err)
{
    (void)flags;
    struct s3_writer *w = writer_of(base);
    enum blob_status st = s3_writer_settle(w, offset, err);
    if (st != BLOB_OK)
        return st;
    struct staged next, old = w->state;
    s3_writer_advance(w, offset, &next);
    uint64_t from = staged_parts_end(&next);
    for (unsigned i = 0; i < next.segment_count; i++)
        from += next.segments[i].length;
    CHECK(from <= offset);
    for (unsigned n = segments_to_absorb(&next, offset - from); n > 0; n--)
        from -= next.segments[--next.segment_count].length;
    st = s3_writer_put_state(w, &next, keep, keep_len, from, (size_t)(offset - from), err);
    if (st != BLOB_OK)
        return st;
    w->keep_known = true;
    w->keep_len = (uint32_t)keep_len;
    if (keep_len > 0)
        memcpy(w->keep, keep, keep_len);
    adopt(w, &next);
    drop_superseded(w, &old, &next);
    staged_to_mark(&next, mark);
    return BLOB_OK;
}

/* ---- open and close ---- */

/* State objects of an upload that a mark does not name, in order of their keys. */
struct strays {
    struct s3_key *keys;
    size_t count;
};

static bool stray_add(struct strays *strays, const struct s3_key *key)
{
    struct s3_key *keys = reallocarray(strays->keys, strays->count + 1, sizeof *keys);
    if (!keys)
        return false;
    keys[strays->count++] = *key;
    strays->keys = keys;
    return true;
}

/* How many state objects a mark needs; one at the beginning of the upload none. */
static unsigned named_count(const struct staged *from)
{
    if (from->offset == 0)
        return 0;
    unsigned n = from->segment_count;
    for (unsigned i = 0; i < from->segment_count; i++) {
        if (from->segments[i].epoch == from->epoch && from->segments[i].sequence == from->sequence)
            return n;
    }
    return n + (from->sequence != 0);
}

static enum blob_status look_around(struct s3_writer *w, struct strays *strays, unsigned *found, struct blob_error *err)
{
    struct s3_key prefix = staged_state_prefix(&w->id), after = {""};
    for (bool more = true; more;) {
        struct s3_page page;
        enum blob_status st =
            s3_list(w->store->client, prefix.text, after.text[0] ? after.text : NULL, 1000, &page, err);
        if (st != BLOB_OK)
            return st;
        more = page.more;
        for (size_t i = 0; i < page.count; i++) {
            struct uuid id;
            uint64_t epoch, offset;
            uint32_t sequence;
            snprintf(after.text, sizeof after.text, "%s", page.entries[i].key);
            if (!staged_parse_key(after.text, &id, &epoch, &sequence, &offset))
                continue;
            if (epoch > w->epoch && w->store->conditional) {
                s3_page_release(&page);
                return blob_fail(err, BLOB_E_CONFLICT, 0, "upload %s has a later writer", w->id.text);
            }
            if (epoch == w->epoch && sequence > w->sequence)
                w->sequence = sequence;
            if (names(&w->from, epoch, sequence))
                ++*found;
            else if (!stray_add(strays, &after))
                st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 upload");
        }
        s3_page_release(&page);
        if (st != BLOB_OK)
            return st;
    }
    return BLOB_OK;
}

/* Does the storage have what `from` names, and no later writer's (CONFLICT)? The other state objects go, the newest
 * first, so that what a crash leaves as the newest is whole. */
static enum blob_status claim(struct s3_writer *w, struct blob_error *err)
{
    struct strays strays = {0};
    unsigned found = 0;
    enum blob_status st = look_around(w, &strays, &found, err);
    if (st == BLOB_OK && found < named_count(&w->from))
        st = blob_fail(err, BLOB_E_NOT_FOUND, 0, "upload %s: S3 has less than %" PRIu64 " bytes of it", w->id.text,
                       w->from.offset);
    w->staged = found > 0 || strays.count > 0;
    for (size_t i = strays.count; st == BLOB_OK && i > 0; i--)
        st = s3_delete(w->store->client, strays.keys[i - 1].text, err);
    free(strays.keys);
    return st;
}

enum blob_status s3_writer_need_keep(struct s3_writer *w, struct blob_error *err)
{
    uint8_t header[STAGED_HEADER_BYTES];
    size_t got;
    struct staged ignored;
    if (w->keep_known)
        return BLOB_OK;
    struct s3_key k = staged_state_key(&w->id, w->from.epoch, w->from.sequence, w->from.offset);
    enum blob_status st = s3_get_range(w->store->client, k.text, 0, sizeof header, header, &got, NULL, err);
    if (st == BLOB_OK &&
        (got != sizeof header || staged_read_header(header, &ignored, w->keep, &w->keep_len) != BLOB_OK))
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s is not a state of an upload", k.text);
    w->keep_known = st == BLOB_OK;
    return st;
}

/* The old writer may still be at it: a state object of the new epoch tells it, when it comes to commit, and leaves a
 * gap in the numbers for the parts that it has on their way. */
static enum blob_status fence_off(struct s3_writer *w, struct blob_error *err)
{
    enum blob_status st = s3_writer_need_keep(w, err);
    if (st != BLOB_OK || w->from.offset == 0)
        return st;
    struct staged next = w->state;
    st = s3_writer_put_state(w, &next, w->keep, w->keep_len, next.offset, 0, err);
    if (st == BLOB_OK)
        w->state = next;
    return st;
}

static struct s3_writer *writer_new(struct s3_store *s, const struct uuid *id, const struct staged *from,
                                    uint64_t epoch, bool contended)
{
    struct s3_writer *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->base = (struct blob_writer){.store = &s->base, .position = from->offset};
    w->magic = S3_WRITER_MAGIC;
    w->store = s;
    w->id = *id;
    w->epoch = epoch;
    w->from = *from;
    w->state = *from;
    w->state.committing = false;
    if (contended)
        staged_skip(&w->state, TAKEOVER_GAP, epoch);
    memcpy(w->upload_id, from->upload_id, sizeof w->upload_id);
    w->next_number = staged_next_number(&w->state);
    w->run_epoch = w->state.run_count ? w->state.runs[w->state.run_count - 1].epoch : epoch;
    w->keep_known = from->sequence == 0 || from->offset == 0;
    CHECK(pthread_mutex_init(&w->order, NULL) == 0);
    CHECK(pthread_mutex_init(&w->lock, NULL) == 0);
    CHECK(pthread_cond_init(&w->changed, NULL) == 0);
    return w;
}

enum blob_status s3_upload_open(struct blob_store *base, const struct uuid *id, const struct upload_mark *mark,
                                uint64_t epoch, struct blob_writer **out, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct staged from;
    if (staged_from_mark(mark, s->part_size, &from) != BLOB_OK)
        return blob_fail(err, BLOB_E_INVALID, 0, "upload %s: its mark is not one of this store", id->text);
    struct s3_writer *w = writer_new(s, id, &from, epoch, mark->contended);
    if (!w)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 writer");
    enum blob_status st = claim(w, err);
    if (st == BLOB_OK && mark->contended)
        st = fence_off(w, err);
    if (st == BLOB_OK)
        *out = &w->base;
    else
        s3_writer_free(w);
    return st;
}

void s3_writer_free(struct s3_writer *w)
{
    pthread_mutex_lock(&w->lock);
    while (w->sending > 0)
        pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
    while (w->first) {
        struct part_slot *slot = w->first;
        w->first = slot->next;
        slot_free(slot);
    }
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->order);
    w->magic = 0;
    free(w);
}

void s3_writer_close(struct blob_writer *base)
{
    s3_writer_free(writer_of(base));
}
