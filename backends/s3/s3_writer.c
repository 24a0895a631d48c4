/*
 * s3_writer - what a flush makes durable, and how an upload is opened at a mark.
 *
 * A flush waits for the parts below its offset, then writes one state object that holds the state, core's keep bytes,
 * and the remainder that no part and no earlier segment holds. So a flush costs one request besides the parts.
 *
 * Invariants. Objects that `from` or `state` name are never deleted by this writer, so a mark that core still holds
 * stays good: those of an append that is rolled back, and those of a successor that took the upload over while this
 * writer did not know. What an earlier flush of this writer wrote and nothing names any more goes at the next flush,
 * since core has stored the mark in between. State objects carry the writer's epoch, and pieces the run's: a late
 * writer cannot overwrite its successor's.
 */
#include "backends/s3/s3_writer.h"

#include "backends/crc32c.h"
#include "backends/s3/s3_below.h"
#include "core/check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TAKEOVER_GAP 32 /* more parts than a fenced writer can have on their way */

struct s3_writer *s3_writer_of(struct blob_writer *base)
{
    struct s3_writer *w = (struct s3_writer *)base;
    MAGIC_OK(w, S3_WRITER_MAGIC);
    return w;
}

enum blob_status s3_writer_write(struct blob_writer *base, const struct iovec *parts, int count, struct blob_error *err)
{
    return s3_writer_take(s3_writer_of(base), parts, count, err);
}

/* ---- flushing ---- */

/* How many of the last segments are written anew together with what is added: none while there is room; then those
 * that are not much larger, so that in the long run each byte is moved a few times only. */
static unsigned segments_to_absorb(const struct s3_staged *s, uint64_t added)
{
    unsigned n = 0;
    if (s->segment_count < S3_STAGED_SEGMENTS_MAX)
        return 0;
    uint64_t total = added;
    while (n < s->segment_count && (n < 2 || s->segments[s->segment_count - 1 - n].length <= 2 * total)) {
        total += s->segments[s->segment_count - 1 - n].length;
        n++;
    }
    return n;
}

/* After the state object: an anchor alone would say that states there never were cannot be seen. */
static enum blob_status put_anchor(struct s3_writer *w, struct blob_error *err)
{
    struct s3_key k = s3_staged_anchor_key(&w->id);
    const struct s3_body empty = {.data = "", .length = 0};
    enum blob_status st = s3_put(w->store->client, k.text, &empty, NULL, NULL, err);
    w->anchored = st == BLOB_OK;
    return st;
}

enum blob_status s3_writer_put_state(struct s3_writer *w, struct s3_staged *next, const void *keep, size_t keep_len,
                                     uint64_t from, size_t len, struct blob_error *err)
{
    uint8_t *object = malloc(S3_STAGED_HEADER_BYTES + len);
    if (!object)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 state object");
    next->epoch = w->epoch;
    next->sequence = w->sequence + 1;
    next->offset = from + len;
    uint8_t *bytes = object + S3_STAGED_HEADER_BYTES;
    enum blob_status st = s3_writer_copy(w, from, bytes, len, err);
    if (st == BLOB_OK) {
        if (len > 0)
            next->segments[next->segment_count++] = (struct s3_staged_segment){.epoch = w->epoch,
                                                                               .sequence = next->sequence,
                                                                               .length = (uint32_t)len,
                                                                               .crc32c = crc32c(0, bytes, len)};
        s3_staged_write_header(next, keep, keep_len, object);
        struct s3_key k = s3_staged_state_key(&w->id, next->epoch, next->sequence, next->offset);
        const struct s3_body body = {.data = object, .length = S3_STAGED_HEADER_BYTES + len};
        st = s3_put(w->store->client, k.text, &body, NULL, NULL, err);
        if (st == BLOB_OK && !w->anchored)
            st = put_anchor(w, err);
    }
    free(object);
    pthread_mutex_lock(&w->lock);
    w->staged = true; /* also after a failure: it may have arrived */
    pthread_mutex_unlock(&w->lock);
    if (st == BLOB_OK)
        w->sequence++;
    return st;
}

static bool names(const struct s3_staged *s, uint64_t epoch, uint32_t sequence)
{
    if (s->epoch == epoch && s->sequence == sequence)
        return true;
    for (unsigned i = 0; i < s->segment_count; i++) {
        if (s->segments[i].epoch == epoch && s->segments[i].sequence == sequence)
            return true;
    }
    return false;
}

static bool any_names(const struct s3_staged *const states[], size_t count, uint64_t epoch, uint32_t sequence)
{
    for (size_t i = 0; i < count; i++) {
        if (names(states[i], epoch, sequence))
            return true;
    }
    return false;
}

/* Deletes those of old's objects that this writer wrote and no state names that somebody may stand at: `from`, the last
 * one, by which the session goes until core has stored what this flush gives, and now. What cannot be deleted goes with
 * the upload. */
static void drop_superseded(struct s3_writer *w, const struct s3_staged *old, const struct s3_staged *now)
{
    const struct s3_staged *const needed[] = {&w->from, &w->state, now};
    struct blob_error ignored;
    struct s3_key keys[S3_STAGED_SEGMENTS_MAX + 1];
    unsigned count = 0;
    for (unsigned i = 0; i < old->segment_count; i++) {
        const struct s3_staged_segment *g = &old->segments[i];
        uint64_t offset;
        struct s3_key k = s3_staged_segment_key(&w->id, old, i, &offset);
        if (g->epoch == w->epoch && !any_names(needed, 3, g->epoch, g->sequence))
            keys[count++] = k;
    }
    if (old->sequence && old->epoch == w->epoch && !any_names(needed, 3, old->epoch, old->sequence))
        keys[count++] = s3_staged_state_key(&w->id, old->epoch, old->sequence, old->offset);
    for (unsigned i = 0; i < count; i++) {
        if (s3_delete(w->store->client, keys[i].text, &ignored) != BLOB_OK)
            return;
    }
}

/* The flush is durable: what lies below it need not stay in memory. */
static void adopt(struct s3_writer *w, const struct s3_staged *next)
{
    pthread_mutex_lock(&w->lock);
    s3_writer_forget_parts(w, s3_staged_parts_end(next));
    w->state = *next;
    s3_writer_forget_staged(w, next->offset);
    pthread_mutex_unlock(&w->lock);
}

enum blob_status s3_writer_flush(struct blob_writer *base, uint64_t offset, const void *keep, size_t keep_len,
                                 unsigned flags, struct upload_mark *mark, struct blob_error *err)
{
    (void)flags;
    struct s3_writer *w = s3_writer_of(base);
    enum blob_status st = s3_writer_settle(w, offset, err);
    if (st != BLOB_OK)
        return st;
    struct s3_staged next;
    s3_writer_advance(w, offset, &next);
    uint64_t from = s3_staged_parts_end(&next);
    for (unsigned i = 0; i < next.segment_count; i++)
        from += next.segments[i].length;
    CHECK(from <= offset);
    for (unsigned n = segments_to_absorb(&next, offset - from); n > 0; n--)
        from -= next.segments[--next.segment_count].length;
    st = s3_writer_put_state(w, &next, keep, keep_len, from, (size_t)(offset - from), err);
    if (st != BLOB_OK)
        return st;
    s3_writer_set_keep(w, keep, keep_len);
    if (!s3_writer_sends_staged(w))
        drop_superseded(w, &w->before, &next);
    w->before = w->state;
    adopt(w, &next);
    s3_staged_to_mark(&next, mark);
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
static unsigned named_count(const struct s3_staged *from)
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

/* One state object that is there. CONFLICT: a later writer's. */
static enum blob_status see_state(struct s3_writer *w, const char *key, struct strays *strays, unsigned *found,
                                  struct blob_error *err)
{
    struct s3_key k;
    struct uuid id;
    uint64_t epoch, offset;
    uint32_t sequence;
    snprintf(k.text, sizeof k.text, "%s", key);
    if (!s3_staged_parse_key(k.text, &id, &epoch, &sequence, &offset))
        return BLOB_OK;
    if (epoch > w->epoch && w->store->conditional)
        return blob_fail(err, BLOB_E_CONFLICT, 0, "upload %s has a later writer", w->id.text);
    if (epoch == w->epoch && sequence > w->sequence)
        w->sequence = sequence;
    if (names(&w->from, epoch, sequence))
        ++*found;
    else if (!stray_add(strays, &k))
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 upload");
    return BLOB_OK;
}

static enum blob_status look_around(struct s3_writer *w, struct strays *strays, unsigned *found, struct blob_error *err)
{
    struct s3_below b;
    const struct s3_entry *e;
    s3_below_begin(&b, w->store, s3_staged_state_prefix(&w->id).text, NULL, S3_STAGED_SEGMENTS_MAX + 4);
    enum blob_status st = s3_below_next(&b, &e, err);
    while (st == BLOB_OK && e) {
        st = see_state(w, e->key, strays, found, err);
        if (st == BLOB_OK)
            st = s3_below_next(&b, &e, err);
    }
    s3_below_end(&b);
    return st;
}

/* The listing lacks state objects that `from` names: are they not there? NOT_FOUND: one of them is not. */
static enum blob_status confirm_missing(struct s3_writer *w, struct blob_error *err)
{
    struct s3_object object;
    const struct s3_staged *from = &w->from;
    enum blob_status st = BLOB_OK;
    for (unsigned i = 0; i < from->segment_count && st == BLOB_OK; i++) {
        uint64_t offset;
        st = s3_head(w->store->client, s3_staged_segment_key(&w->id, from, i, &offset).text, &object, err);
    }
    if (st == BLOB_OK && from->sequence != 0) {
        struct s3_key k = s3_staged_state_key(&w->id, from->epoch, from->sequence, from->offset);
        st = s3_head(w->store->client, k.text, &object, err);
    }
    if (st == BLOB_E_NOT_FOUND)
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "upload %s: S3 has less than %" PRIu64 " bytes of it", w->id.text,
                         from->offset);
    return st == BLOB_OK
               ? blob_fail(err, BLOB_E_UNAVAILABLE, 0, "upload %s: S3 does not list all that it has of it", w->id.text)
               : st;
}

/* What is beyond `from` goes, the newest first, so that what a crash leaves as the newest is whole. Where that is all
 * there is, no state is left. */
static enum blob_status drop_strays(struct s3_writer *w, const struct strays *strays, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    if (strays->count > 0 && !w->anchored)
        st = s3_delete(w->store->client, s3_staged_anchor_key(&w->id).text, err);
    for (size_t i = strays->count; st == BLOB_OK && i > 0; i--)
        st = s3_delete(w->store->client, strays->keys[i - 1].text, err);
    return st;
}

/* Does the storage have what `from` names, and no later writer's (CONFLICT)? The other state objects go. */
static enum blob_status claim(struct s3_writer *w, struct blob_error *err)
{
    struct strays strays = {0};
    unsigned found = 0;
    enum blob_status st = look_around(w, &strays, &found, err);
    if (st == BLOB_OK && found < named_count(&w->from))
        st = confirm_missing(w, err);
    w->staged = found > 0 || strays.count > 0;
    w->anchored = found > 0;
    if (st == BLOB_OK)
        st = drop_strays(w, &strays, err);
    free(strays.keys);
    return st;
}

void s3_writer_set_keep(struct s3_writer *w, const void *keep, size_t len)
{
    w->keep_known = true;
    w->keep_len = (uint32_t)len;
    if (len > 0)
        memcpy(w->keep, keep, len);
}

enum blob_status s3_writer_need_keep(struct s3_writer *w, struct blob_error *err)
{
    struct s3_staged ignored;
    if (w->keep_known)
        return BLOB_OK;
    struct s3_key k = s3_staged_state_key(&w->id, w->from.epoch, w->from.sequence, w->from.offset);
    enum blob_status st = s3_upload_read_header(w->store, &k, &ignored, w->keep, &w->keep_len, err);
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
    struct s3_staged next = w->state;
    st = s3_writer_put_state(w, &next, w->keep, w->keep_len, next.offset, 0, err);
    if (st == BLOB_OK)
        w->state = next;
    return st;
}

/* The store knows its open writers: what they make is no leftover, though nothing in S3 may name it yet. */
static void register_open(struct s3_writer *w)
{
    struct s3_store *s = w->store;
    pthread_mutex_lock(&s->lock);
    w->next_open = s->writers;
    w->at_open = &s->writers;
    if (s->writers)
        s->writers->at_open = &w->next_open;
    s->writers = w;
    pthread_mutex_unlock(&s->lock);
}

static void unregister_open(struct s3_writer *w)
{
    pthread_mutex_lock(&w->store->lock);
    *w->at_open = w->next_open;
    if (w->next_open)
        w->next_open->at_open = w->at_open;
    pthread_mutex_unlock(&w->store->lock);
}

bool s3_upload_is_written(struct s3_store *s, const struct uuid *id)
{
    pthread_mutex_lock(&s->lock);
    const struct s3_writer *w = s->writers;
    while (w && strcmp(w->id.text, id->text) != 0)
        w = w->next_open;
    pthread_mutex_unlock(&s->lock);
    return w != NULL;
}

static struct s3_writer *writer_new(struct s3_store *s, const struct uuid *id, const struct s3_staged *from,
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
        s3_staged_skip(&w->state, TAKEOVER_GAP, epoch);
    memcpy(w->upload_id, from->upload_id, sizeof w->upload_id);
    w->next_number = s3_staged_next_number(&w->state);
    w->run_epoch = w->state.run_count ? w->state.runs[w->state.run_count - 1].epoch : epoch;
    w->keep_known = from->sequence == 0 || from->offset == 0;
    CHECK(pthread_mutex_init(&w->order, NULL) == 0);
    CHECK(pthread_mutex_init(&w->lock, NULL) == 0);
    CHECK(pthread_cond_init(&w->changed, NULL) == 0);
    s3_memory_writer(&s->memory, true);
    register_open(w);
    return w;
}

enum blob_status s3_upload_open(struct blob_store *base, const struct uuid *id, const struct upload_mark *mark,
                                uint64_t epoch, struct blob_writer **out, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_staged from;
    if (s3_staged_from_mark(mark, s->part_size, &from) != BLOB_OK)
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
    s3_writer_await_sending(w);
    s3_writer_forget_parts(w, UINT64_MAX);
    pthread_mutex_unlock(&w->lock);
    unregister_open(w);
    s3_memory_writer(&w->store->memory, false);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    pthread_mutex_destroy(&w->order);
    w->magic = 0;
    free(w);
}

void s3_writer_close(struct blob_writer *base)
{
    s3_writer_free(s3_writer_of(base));
}
