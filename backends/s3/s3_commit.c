/*
 * s3_commit - an upload becomes a blob: its data object is finished, then its pointer written.
 *
 * Every step may be the last before a crash, and all may be repeated. Before a multipart upload is put together, a
 * state object says what it is becoming, so that whoever clears up later can tell whether the object is a blob's
 * (s3_uploads.c). The pointer is a compare-and-swap; a commit that loses it looks again and finds the blob there.
 *
 * The parts are taken from the endpoint's own listing, and must be the ones that this upload's writers acknowledged:
 * their chain of numbers and ETags is compared. A writer that was fenced off can so damage nothing unseen. Ceph RGW
 * insists that every part there is gets used; where parts are left over from a roll-back or a take-over, the object is
 * put together with them and then, once, copied without them.
 */
#include "backends/s3/s3_writer.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/text/bytebuf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRIES_MAX       5
#define LIST_ITEM_BYTES 12 /* a part's number and size */
#define LIST_MAX        (S3_PART_MAX * LIST_ITEM_BYTES)

/* The data object that this commit has made; "": none yet. */
struct made {
    struct s3_key key;
    struct s3_object object; /* its ETag "" where not known */
};

/* ---- the parts, as the endpoint has them ---- */

struct part_list {
    struct s3_part *parts;
    unsigned count;
};

static enum blob_status list_parts(struct s3_writer *w, struct part_list *out, struct blob_error *err)
{
    struct s3_key k = s3_staged_data_key(&w->id);
    struct part_list all = {0};
    unsigned after = 0;
    for (bool more = true; more;) {
        struct s3_parts page;
        enum blob_status st = s3_multipart_parts(w->store->client, k.text, w->upload_id, after, &page, err);
        struct s3_part *grown =
            st == BLOB_OK ? reallocarray(all.parts, all.count + page.count + 1, sizeof *grown) : NULL;
        if (!grown) {
            if (st == BLOB_OK) {
                s3_parts_release(&page);
                st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part list");
            }
            free(all.parts);
            return st;
        }
        all.parts = grown;
        if (page.count > 0) {
            memcpy(grown + all.count, page.parts, page.count * sizeof *grown);
            all.count += (unsigned)page.count;
            after = grown[all.count - 1].number;
        }
        more = page.more;
        s3_parts_release(&page);
    }
    *out = all;
    return BLOB_OK;
}

/*
 * Picks the upload's own parts out of all: those its state names, and the last of all where there is a remainder, which
 * put_last() puts there. CORRUPT unless they are there and, with etags, are what its writers acknowledged.
 */
static enum blob_status own_parts(const struct s3_writer *w, const struct s3_staged *state, const struct part_list *all,
                                  bool etags, struct part_list *out, struct blob_error *err)
{
    uint64_t count = s3_staged_part_count(state);
    uint8_t chain[S3_STAGED_CHAIN_BYTES] = {0};
    struct s3_part *parts = calloc(count + 1, sizeof *parts);
    if (!parts)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part list");
    unsigned at = 0;
    for (uint64_t i = 0; i < count; i++) {
        uint32_t number;
        uint64_t epoch;
        s3_staged_part_at(state, i, &number, &epoch);
        while (at < all->count && all->parts[at].number < number)
            at++;
        bool there = at < all->count && all->parts[at].number == number;
        if (!there || all->parts[at].size != state->part_size) {
            free(parts);
            /* What a listing does not show may be there all the same. */
            return blob_fail(err, etags && !there ? BLOB_E_UNAVAILABLE : BLOB_E_CORRUPT, 0, "upload %s: S3 %s part %u",
                             w->id.text, there ? "has another" : "does not have", (unsigned)number);
        }
        parts[i] = all->parts[at];
        s3_staged_chain_add(chain, number, parts[i].etag);
    }
    if (etags && memcmp(chain, state->chain, sizeof chain) != 0) {
        free(parts);
        return blob_fail(err, BLOB_E_CORRUPT, 0, "upload %s: another writer has overwritten its parts", w->id.text);
    }
    if (w->base.position > s3_staged_parts_end(state) && all->count > 0)
        parts[count++] = all->parts[all->count - 1];
    *out = (struct part_list){parts, (unsigned)count};
    return BLOB_OK;
}

/* ---- copying without the parts that are left over ---- */

/*
 * Once an object is put together of all parts, its multipart upload is gone, and with it the only list of them: a
 * commit that is cut off then could not be repeated. So the list is kept beside the upload's states before.
 */
static enum blob_status keep_list(struct s3_writer *w, const struct part_list *all, struct blob_error *err)
{
    struct bytebuf b;
    struct s3_key k = s3_staged_list_key(&w->id);
    bytebuf_init(&b);
    for (unsigned i = 0; i < all->count; i++) {
        bytebuf_u32(&b, all->parts[i].number);
        bytebuf_u64(&b, all->parts[i].size);
    }
    const struct s3_body body = {.data = b.data, .length = b.len};
    enum blob_status st = b.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part list")
                                   : s3_put(w->store->client, k.text, &body, NULL, NULL, err);
    bytebuf_release(&b);
    return st;
}

static enum blob_status kept_list(struct s3_writer *w, struct part_list *out, struct blob_error *err)
{
    struct s3_key k = s3_staged_list_key(&w->id);
    uint8_t *text = malloc(LIST_MAX);
    struct s3_part *parts = calloc(S3_PART_MAX, sizeof *parts);
    size_t len = 0;
    enum blob_status st = text && parts ? s3_get(w->store->client, k.text, text, LIST_MAX, &len, NULL, err)
                                        : blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part list");
    struct byteview v = {.data = text, .len = len};
    unsigned count = st == BLOB_OK ? (unsigned)(len / LIST_ITEM_BYTES) : 0;
    for (unsigned i = 0; i < count; i++) {
        parts[i].number = byteview_u32(&v);
        parts[i].size = byteview_u64(&v);
    }
    free(text);
    if (st != BLOB_OK) {
        free(parts);
        return st;
    }
    *out = (struct part_list){parts, count};
    return BLOB_OK;
}

static bool holds(const struct part_list *list, unsigned number)
{
    for (unsigned i = 0; i < list->count; i++) {
        if (list->parts[i].number == number)
            return true;
    }
    return false;
}

static enum blob_status copy_part(struct s3_store *s, const char *from, uint64_t offset, const char *to, const char *id,
                                  struct s3_part *part, struct hash *hash, struct blob_error *err)
{
    uint8_t *buf = malloc(part->size);
    size_t got;
    if (!buf)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part");
    enum blob_status st = s3_get_range(s->client, from, offset, part->size, buf, &got, NULL, err);
    if (st == BLOB_OK && got != part->size)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s is shorter than its parts", from);
    const struct s3_body body = {.data = buf, .length = part->size};
    if (st == BLOB_OK) {
        hash_update(hash, buf, part->size);
        st = s3_multipart_put(s->client, to, id, part->number, &body, part, err);
    }
    free(buf);
    return st;
}

/* from holds all of `all`, one after another; made will hold those of `own`, which must have the digest. */
static enum blob_status copy_without(struct s3_store *s, const char *from, const struct part_list *all,
                                     const struct part_list *own, const struct digest *digest, struct made *made,
                                     struct blob_error *err)
{
    const char *to = made->key.text;
    char id[S3_UPLOAD_ID_MAX];
    uint64_t offset = 0;
    unsigned n = 0;
    struct hash hash;
    struct digest copied;
    hash_init(&hash);
    struct s3_part *parts = calloc(own->count, sizeof *parts);
    if (!parts)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part list");
    enum blob_status st = s3_multipart_create(s->client, to, id, err);
    if (st != BLOB_OK) {
        free(parts);
        return st;
    }
    for (unsigned i = 0; i < all->count && st == BLOB_OK; i++) {
        if (holds(own, all->parts[i].number)) {
            parts[n] = (struct s3_part){.number = n + 1, .size = all->parts[i].size};
            st = copy_part(s, from, offset, to, id, &parts[n++], &hash, err);
        }
        offset += all->parts[i].size;
    }
    hash_peek(&hash, &copied);
    if (st == BLOB_OK && !digest_equal(&copied, digest))
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s: other bytes come back than were written", from);
    if (st == BLOB_OK)
        st = s3_multipart_complete(s->client, to, id, parts, n, &made->object, err);
    free(parts);
    struct blob_error ignored;
    if (st == BLOB_OK)
        return s3_delete(s->client, from, err);
    if (s3_multipart_abort(s->client, to, id, &ignored) != BLOB_OK)
        log_line(s->log, LOG_WARN, NULL, "%s", ignored.text);
    return st;
}

/* ---- making the data object ---- */

/* No part has left memory: the whole content goes as one request, under the digest that it was promised to have, so
 * that the endpoint takes nothing else. */
static enum blob_status make_small(struct s3_writer *w, const struct digest *digest, struct made *made,
                                   struct blob_error *err)
{
    size_t size = (size_t)w->base.position;
    const uint8_t *whole = s3_writer_in_memory(w, size);
    if (whole) {
        const struct s3_body body = {.data = whole, .length = size, .sha256 = digest};
        return s3_put(w->store->client, made->key.text, &body, NULL, &made->object, err);
    }
    uint8_t *buf = malloc(size + 1);
    if (!buf)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 upload");
    enum blob_status st = s3_writer_copy(w, 0, buf, size, err);
    const struct s3_body body = {.data = buf, .length = size, .sha256 = digest};
    if (st == BLOB_OK)
        st = s3_put(w->store->client, made->key.text, &body, NULL, &made->object, err);
    free(buf);
    return st;
}

struct joined {
    struct s3_writer *w;
    struct s3_staged state;
};

/* The pieces, then what is still in memory or in segments. */
static enum blob_status read_joined(void *arg, uint64_t offset, void *buf, size_t len, struct blob_error *err)
{
    struct joined *j = arg;
    uint8_t *out = buf;
    uint64_t pieces_end = s3_staged_parts_end(&j->state);
    while (len > 0 && offset < pieces_end) {
        uint32_t number;
        uint64_t epoch, index = offset / j->state.part_size, in = offset % j->state.part_size;
        s3_staged_part_at(&j->state, index, &number, &epoch);
        struct s3_key k = s3_staged_piece_key(&j->w->id, number, epoch);
        uint64_t left = j->state.part_size - in;
        size_t n = left < len ? (size_t)left : len, got;
        enum blob_status st = s3_get_range(j->w->store->client, k.text, in, n, out, &got, NULL, err);
        if (st == BLOB_E_NOT_FOUND || (st == BLOB_OK && got != n))
            st = blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s is gone, or shorter than a piece", k.text);
        if (st != BLOB_OK)
            return st;
        offset += n;
        out += n;
        len -= n;
    }
    return len > 0 ? s3_writer_copy(j->w, offset, out, len, err) : BLOB_OK;
}

/* Without multipart uploads: one request whose body is read from the pieces; its digest tells whether they are right.
 */
static enum blob_status make_joined(struct s3_writer *w, const struct digest *digest, struct made *made,
                                    struct blob_error *err)
{
    struct joined j = {.w = w};
    enum blob_status st = s3_writer_settle(w, w->base.position, err);
    if (st != BLOB_OK)
        return st;
    s3_writer_advance(w, w->base.position, &j.state);
    const struct s3_body body = {.length = w->base.position, .sha256 = digest, .read = read_joined, .arg = &j};
    return s3_put(w->store->client, made->key.text, &body, NULL, &made->object, err);
}

/* Says which blob the upload is becoming. */
static enum blob_status announce(struct s3_writer *w, const struct digest *digest, struct blob_error *err)
{
    enum blob_status st = s3_writer_need_keep(w, err);
    if (st != BLOB_OK)
        return st;
    struct s3_staged next = w->state;
    next.committing = true;
    next.digest = *digest;
    memcpy(next.upload_id, w->upload_id, sizeof next.upload_id);
    return s3_writer_put_state(w, &next, w->keep, w->keep_len, next.offset, 0, err);
}

/*
 * The remainder goes behind all parts there are: over the last one that is left over, so that none but the last part
 * can be smaller than the endpoint's minimum, and a repeated commit takes the same number. It is added to all.
 */
static enum blob_status put_last(struct s3_writer *w, const struct s3_staged *state, struct part_list *all,
                                 struct blob_error *err)
{
    struct s3_part last;
    unsigned number = w->next_number;
    if (all->count > 0 && all->parts[all->count - 1].number > number)
        number = all->parts[all->count - 1].number;
    uint64_t from = s3_staged_parts_end(state);
    size_t len = (size_t)(w->base.position - from);
    struct s3_key k = s3_staged_data_key(&w->id);
    if (len == 0)
        return BLOB_OK;
    uint8_t *buf = malloc(len);
    if (!buf)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 part");
    enum blob_status st = s3_writer_copy(w, from, buf, len, err);
    const struct s3_body body = {.data = buf, .length = len};
    if (st == BLOB_OK)
        st = s3_multipart_put(w->store->client, k.text, w->upload_id, number, &body, &last, err);
    free(buf);
    if (st != BLOB_OK)
        return st;
    if (all->count == 0 || all->parts[all->count - 1].number != number)
        all->count++; /* list_parts() left room for it */
    all->parts[all->count - 1] = last;
    return BLOB_OK;
}

static enum blob_status copy_again(struct s3_writer *w, const struct s3_staged *state, const struct digest *digest,
                                   struct made *copy, struct blob_error *err)
{
    struct part_list all, own = {0};
    struct s3_key data = s3_staged_data_key(&w->id);
    enum blob_status st = kept_list(w, &all, err);
    if (st != BLOB_OK)
        return st;
    st = own_parts(w, state, &all, false, &own, err);
    if (st == BLOB_OK)
        st = copy_without(w->store, data.text, &all, &own, digest, copy, err);
    free(all.parts);
    free(own.parts);
    return st;
}

/* The multipart upload is gone: put together by an earlier try, which may have been cut off while copying; or lost. */
static enum blob_status was_made(struct s3_writer *w, const struct s3_staged *state, const struct digest *digest,
                                 struct made *made, struct blob_error *err)
{
    struct s3_object *object = &made->object;
    made->key = s3_staged_data_key(&w->id);
    enum blob_status st = s3_head(w->store->client, made->key.text, object, err);
    if (st == BLOB_OK && object->size == w->base.position)
        return BLOB_OK;
    bool all_there = st == BLOB_OK && object->size > w->base.position;
    if (st == BLOB_OK || st == BLOB_E_NOT_FOUND) {
        made->key = s3_staged_whole_key(&w->id, digest);
        st = s3_head(w->store->client, made->key.text, object, err);
    }
    if (st == BLOB_OK && object->size == w->base.position)
        return BLOB_OK;
    if (all_there && (st == BLOB_OK || st == BLOB_E_NOT_FOUND))
        st = copy_again(w, state, digest, made, err);
    if (st == BLOB_E_NOT_FOUND)
        return blob_fail(err, BLOB_E_CORRUPT, 0,
                         "upload %s: its multipart upload is gone from S3: does a lifecycle rule end such uploads?",
                         w->id.text);
    return st;
}

static enum blob_status make_multipart(struct s3_writer *w, const struct digest *digest, struct made *made,
                                       struct blob_error *err)
{
    struct s3_staged state;
    struct part_list all = {0}, own = {0};
    made->key = s3_staged_data_key(&w->id);
    enum blob_status st = s3_writer_settle(w, w->base.position, err);
    if (st != BLOB_OK)
        return st;
    s3_writer_advance(w, w->base.position, &state);
    st = announce(w, digest, err);
    if (st == BLOB_OK)
        st = list_parts(w, &all, err);
    if (st == BLOB_OK)
        st = put_last(w, &state, &all, err);
    if (st == BLOB_E_NOT_FOUND) {
        free(all.parts);
        return was_made(w, &state, digest, made, err);
    }
    if (st == BLOB_OK)
        st = own_parts(w, &state, &all, true, &own, err);
    if (st == BLOB_OK)
        st = s3_multipart_complete(w->store->client, made->key.text, w->upload_id, own.parts, own.count, &made->object,
                                   err);
    if (st == BLOB_E_CONFLICT && own.count < all.count) {
        const struct s3_key all_parts = made->key;
        made->key = s3_staged_whole_key(&w->id, digest);
        st = keep_list(w, &all, err);
        if (st == BLOB_OK)
            st = s3_multipart_complete(w->store->client, all_parts.text, w->upload_id, all.parts, all.count, NULL, err);
        if (st == BLOB_OK)
            st = copy_without(w->store, all_parts.text, &all, &own, digest, made, err);
    }
    free(all.parts);
    free(own.parts);
    return st;
}

static enum blob_status make_data(struct s3_writer *w, const struct digest *digest, struct made *made,
                                  struct blob_error *err)
{
    bool in_memory = w->base.position <= w->from.part_size && s3_staged_part_count(&w->state) == 0 &&
                     !w->upload_id[0] && !s3_writer_has_numbered(w);
    made->key = s3_staged_whole_key(&w->id, digest);
    if (in_memory)
        return make_small(w, digest, made, err);
    if (!w->store->multipart)
        return make_joined(w, digest, made, err);
    return make_multipart(w, digest, made, err);
}

/* ---- the pointer ---- */

/* What is made for nothing, or replaced. It stays, and costs space, when it cannot be deleted now. */
static void drop_object(struct s3_store *s, const char *key)
{
    struct blob_error ignored;
    if (s3_delete(s->client, key, &ignored) != BLOB_OK)
        log_line(s->log, LOG_WARN, NULL, "S3 %s stays behind: %s", key, ignored.text);
}

/* The blob is there, whole: starts its grace time again, unless somebody has since `began`. CONFLICT: look again. Whose
 * pointer is doubted may have been told nothing yet: then its copy is not there. */
static enum blob_status touch_present(struct s3_store *s, const struct digest *digest, const struct s3_pointer *old,
                                      int64_t began_ms, struct blob_error *err)
{
    if (old->doubted_ms) {
        enum blob_status st = s3_doubt_copy(s, digest, old, err);
        if (st != BLOB_OK)
            return st;
    } else if (old->touched_ms > began_ms && !old->own) {
        return BLOB_OK;
    }
    struct s3_pointer touched = *old;
    touched.touched_ms = clock_wall_ms_after(old->touched_ms);
    touched.own = false;
    return s3_pointer_write(s, digest, old, &touched, err);
}

/* Would this upload's data object have the name of the one that a tombstone has deleted? That may not be done yet. */
static bool is_own_data(const struct s3_writer *w, const struct digest *digest, const struct s3_pointer *tombstone)
{
    return strcmp(tombstone->data_key, s3_staged_data_key(&w->id).text) == 0 ||
           strcmp(tombstone->data_key, s3_staged_whole_key(&w->id, digest).text) == 0;
}

/* One look at the pointer and one swap. CONFLICT or EXISTS: again. */
static enum blob_status point(struct s3_writer *w, const struct digest *digest, int64_t began_ms, struct made *made,
                              struct blob_error *err)
{
    struct s3_store *s = w->store;
    struct s3_pointer old, now = {.size = w->base.position};
    enum blob_status st = s3_pointer_settled(s, digest, &old, err);
    bool there = st == BLOB_OK;
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        return st;
    if (there && old.damaged && is_own_data(w, digest, &old))
        return blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s, made by this upload, is damaged: upload the content again",
                         old.data_key);
    if (there && old.removed && is_own_data(w, digest, &old))
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s, made by this upload before, is just being removed",
                         old.data_key);
    if (there && !old.removed && old.size == w->base.position) {
        st = s3_data_verify(s, digest, &old, err);
        if (st == BLOB_OK) {
            st = touch_present(s, digest, &old, began_ms, err);
            if (st == BLOB_OK && made->key.text[0] && strcmp(made->key.text, old.data_key) != 0)
                drop_object(s, made->key.text);
            return st;
        }
        if (st != BLOB_E_NOT_FOUND)
            return st;
    }
    if (!made->key.text[0]) {
        struct made one = {.object = {.size = 0}};
        st = make_data(w, digest, &one, err);
        if (st != BLOB_OK)
            return st;
        *made = one;
    }
    now.touched_ms = there ? clock_wall_ms_after(old.touched_ms) : clock_wall_ms();
    memcpy(now.data_key, made->key.text, sizeof now.data_key);
    s3_data_etag(&made->object, now.data_etag);
    now.doubted_ms = !there ? 0 : old.clearing ? now.touched_ms : old.doubted_ms;
    st = s3_pointer_write(s, digest, there ? &old : NULL, &now, err);
    if (st == BLOB_OK && now.doubted_ms)
        st = s3_doubt_copy(s, digest, &now, err);
    if (st == BLOB_OK && there && !old.damaged && strcmp(old.data_key, made->key.text) != 0)
        drop_object(s, old.data_key);
    return st;
}

/* The upload has ended: what is staged goes, and a multipart upload that was not needed. */
static void clear_staging(struct s3_writer *w, bool made)
{
    struct blob_error ignored;
    struct s3_key data = s3_staged_data_key(&w->id);
    enum blob_status st = BLOB_OK;
    if (!made && w->store->multipart && w->upload_id[0])
        st = s3_multipart_abort(w->store->client, data.text, w->upload_id, &ignored);
    if (st == BLOB_OK && w->staged)
        st = s3_staging_clear(w->store, &w->id, &ignored);
    if (st != BLOB_OK) /* the upload is still listed, and will be discarded when it has expired */
        log_line(w->store->log, LOG_WARN, NULL, "upload %s: staged objects stay behind: %s", w->id.text, ignored.text);
}

/* Discarded meanwhile: NOT_FOUND. Taken over by a later writer: CONFLICT. An upload that was never flushed has no trace
 * to tell by. */
static enum blob_status still_ours(struct s3_writer *w, struct blob_error *err)
{
    struct s3_staged newest;
    struct staged_stat stat;
    if (w->state.offset == 0)
        return BLOB_OK;
    enum blob_status st = s3_upload_state(w->store, &w->id, &newest, &stat, err);
    if (st == BLOB_OK && newest.epoch > w->epoch)
        return blob_fail(err, BLOB_E_CONFLICT, 0, "upload %s was taken over by a later writer", w->id.text);
    if (st == BLOB_OK && !w->keep_known && newest.epoch == w->from.epoch && newest.sequence == w->from.sequence)
        s3_writer_set_keep(w, stat.keep, stat.keep_len); /* announce() need not ask for it again */
    return st;
}

enum blob_status s3_writer_commit(struct blob_writer *base, const struct digest *digest, unsigned flags,
                                  struct blob_error *err)
{
    (void)flags;
    struct s3_writer *w = s3_writer_of(base);
    struct made made = {.key = {""}};
    int64_t began_ms = clock_wall_ms();
    enum blob_status st = still_ours(w, err);
    if (st != BLOB_OK)
        return st;
    st = BLOB_E_CONFLICT;
    for (int i = 0; i < TRIES_MAX && (st == BLOB_E_CONFLICT || st == BLOB_E_EXISTS); i++)
        st = point(w, digest, began_ms, &made, err);
    if (st == BLOB_E_CONFLICT || st == BLOB_E_EXISTS)
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3: the blob's pointer is changed by many at a time");
    if (st != BLOB_OK)
        return st;
    pthread_mutex_lock(&w->lock);
    s3_writer_await_sending(w);
    pthread_mutex_unlock(&w->lock);
    clear_staging(w, made.key.text[0] != '\0');
    s3_writer_free(w);
    return BLOB_OK;
}
