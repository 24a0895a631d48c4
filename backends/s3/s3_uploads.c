/*
 * s3_uploads - uploads as the storage knows them: the newest state, the list, and clearing one away.
 *
 * Clearing away must never touch a blob. An upload whose last state says that it was becoming a blob may have become
 * it: its data object stays when that blob's pointer names it.
 */
#include "backends/s3/s3_below.h"

#include <stdio.h>
#include <string.h>

#define PAGES_OF_ONE_KEY 100
#define STATE_LOOKS      4
#define FEW_STATES       16

/* The last key below prefix, and when it was written. NOT_FOUND. */
static enum blob_status last_below(struct s3_store *s, const char *prefix, struct s3_key *key, int64_t *modified_ms,
                                   struct blob_error *err)
{
    struct s3_below b;
    const struct s3_entry *e = NULL;
    bool found = false;
    s3_below_begin(&b, s, prefix, NULL, FEW_STATES);
    enum blob_status st = s3_below_next(&b, &e, err);
    for (; st == BLOB_OK && e; st = s3_below_next(&b, &e, err)) {
        found = true;
        *modified_ms = e->object.modified_ms;
    }
    *key = b.last;
    s3_below_end(&b);
    return st == BLOB_OK && !found ? blob_fail(err, BLOB_E_NOT_FOUND, 0, "S3 has nothing below %s", prefix) : st;
}

/* A listing shows no state of the upload. That proves nothing: a named object must be missing too. */
static enum blob_status confirm_stateless(struct s3_store *s, const struct uuid *id, struct blob_error *err)
{
    struct s3_object object;
    struct s3_key anchor = s3_staged_anchor_key(id);
    enum blob_status st = s3_head(s->client, anchor.text, &object, err);
    if (st != BLOB_OK)
        return st;
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0,
                     "S3 lists no state of upload %s, although %s says that there is one; delete that one as well if "
                     "the others were deleted by hand",
                     id->text, anchor.text);
}

enum blob_status s3_upload_read_header(struct s3_store *s, const struct s3_key *key, struct s3_staged *out,
                                       uint8_t *keep, uint32_t *keep_len, struct blob_error *err)
{
    uint8_t header[S3_STAGED_HEADER_BYTES];
    size_t got;
    for (unsigned attempt = 0; attempt < 2; attempt++) {
        enum blob_status st = s3_get_range(s->client, key->text, 0, sizeof header, header, &got, NULL, err);
        if (st != BLOB_OK && st != BLOB_E_INVALID) /* INVALID: it is empty */
            return st;
        if (st == BLOB_OK && got == sizeof header && s3_staged_read_header(header, out, keep, keep_len) == BLOB_OK)
            return BLOB_OK;
    }
    return blob_fail(err, BLOB_E_CORRUPT, 0, "S3 %s arrives damaged, or is no state of an upload", key->text);
}

static enum blob_status newest_state(struct s3_store *s, const struct uuid *id, struct s3_staged *out,
                                     struct staged_stat *stat, struct blob_error *err)
{
    struct s3_key prefix = s3_staged_state_prefix(id), key;
    struct s3_staged state;
    struct staged_stat found = {0};
    enum blob_status st = last_below(s, prefix.text, &key, &found.modified_ms, err);
    if (st == BLOB_E_NOT_FOUND)
        return confirm_stateless(s, id, err);
    if (st == BLOB_OK) {
        st = s3_upload_read_header(s, &key, &state, found.keep, &found.keep_len, err);
        if (st == BLOB_E_NOT_FOUND) /* its writer has put a newer one there since */
            return blob_fail(err, BLOB_E_CONFLICT, 0, "S3 %s is listed, and is not there", key.text);
    }
    if (st != BLOB_OK)
        return st;
    s3_staged_to_mark(&state, &found.mark);
    found.epoch = state.epoch;
    *out = state;
    *stat = found;
    return BLOB_OK;
}

enum blob_status s3_upload_state(struct s3_store *s, const struct uuid *id, struct s3_staged *out,
                                 struct staged_stat *stat, struct blob_error *err)
{
    enum blob_status st = BLOB_E_CONFLICT;
    for (int i = 0; i < STATE_LOOKS && st == BLOB_E_CONFLICT; i++)
        st = newest_state(s, id, out, stat, err);
    return st == BLOB_E_CONFLICT
               ? blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 lists a state of upload %s that is not there", id->text)
               : st;
}

enum blob_status s3_upload_stat(struct blob_store *base, const struct uuid *id, struct staged_stat *out,
                                struct blob_error *err)
{
    struct s3_staged state;
    return s3_upload_state(s3_store_of(base), id, &state, out, err);
}

enum blob_status s3_delete_below(struct s3_store *s, const char *prefix, struct blob_error *err)
{
    struct s3_key last = {""};
    for (bool more = true; more;) {
        struct s3_page page;
        enum blob_status st = s3_list(s->client, prefix, last.text[0] ? last.text : NULL, 1000, &page, err);
        if (st != BLOB_OK)
            return st;
        more = page.more;
        if (page.count > 0)
            snprintf(last.text, sizeof last.text, "%s", page.entries[page.count - 1].key);
        /* From the end: an upload's newest state goes first, so that the newest there is stays whole. */
        for (size_t i = page.count; i > 0 && st == BLOB_OK; i--)
            st = s3_delete(s->client, page.entries[i - 1].key, err);
        s3_page_release(&page);
        if (st != BLOB_OK)
            return st;
    }
    return BLOB_OK;
}

enum blob_status s3_each_multipart(struct s3_store *s, const char *prefix, s3_multipart_fn *fn, void *arg,
                                   struct blob_error *err)
{
    char after_key[S3_KEY_MAX + 1] = "", after_id[S3_UPLOAD_ID_MAX] = "";
    unsigned of_one_key = 0; /* pages: there the order is not known, so that they could go round */
    for (bool more = true; more;) {
        struct s3_uploads page;
        enum blob_status st = s3_multipart_list(s->client, prefix, after_key[0] ? after_key : NULL,
                                                after_id[0] ? after_id : NULL, &page, err);
        if (st != BLOB_OK)
            return st;
        more = page.more;
        for (size_t i = 0; i < page.count && st == BLOB_OK; i++)
            st = fn(s, &page.uploads[i], arg, err);
        if (page.count > 0) {
            const struct s3_upload *last = &page.uploads[page.count - 1];
            of_one_key = strcmp(after_key, last->key) == 0 ? of_one_key + 1 : 0;
            snprintf(after_key, sizeof after_key, "%s", last->key);
            snprintf(after_id, sizeof after_id, "%s", last->upload_id);
        }
        s3_uploads_release(&page);
        if (st == BLOB_OK && more && of_one_key == PAGES_OF_ONE_KEY)
            st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the S3 endpoint lists multipart uploads of %s without end",
                           after_key);
        if (st != BLOB_OK)
            return st;
    }
    return BLOB_OK;
}

static enum blob_status abort_one(struct s3_store *s, const struct s3_upload *u, void *arg, struct blob_error *err)
{
    (void)arg;
    return s3_multipart_abort(s->client, u->key, u->upload_id, err);
}

enum blob_status s3_staging_clear(struct s3_store *s, const struct uuid *id, struct blob_error *err)
{
    struct s3_key anchor = s3_staged_anchor_key(id), below = s3_staged_prefix(id);
    enum blob_status st = s3_delete(s->client, anchor.text, err);
    return st == BLOB_OK ? s3_delete_below(s, below.text, err) : st;
}

/* The upload was becoming a blob: its data object goes unless it is that blob's, and so does a copy of it. */
static enum blob_status drop_half_made(struct s3_store *s, const struct uuid *id, const struct digest *digest,
                                       struct blob_error *err)
{
    struct s3_pointer p;
    const struct s3_key made[] = {s3_staged_data_key(id), s3_staged_whole_key(id, digest)};
    enum blob_status st = s3_pointer_read(s, digest, &p, err);
    bool is_blob = st == BLOB_OK;
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        return st;
    st = BLOB_OK;
    for (size_t i = 0; st == BLOB_OK && i < sizeof made / sizeof made[0]; i++) {
        if (!is_blob || strcmp(p.data_key, made[i].text) != 0)
            st = s3_delete(s->client, made[i].text, err);
    }
    return st;
}

enum blob_status s3_upload_discard(struct blob_store *base, const struct uuid *id, const struct upload_mark *mark,
                                   struct blob_error *err)
{
    (void)mark; /* the listing of multipart uploads finds also those that no mark names */
    struct s3_store *s = s3_store_of(base);
    struct s3_key data = s3_staged_data_key(id);
    struct s3_staged state;
    struct staged_stat stat;
    enum blob_status st = s3_upload_state(s, id, &state, &stat, err);
    if (st == BLOB_OK && state.committing)
        st = drop_half_made(s, id, &state.digest, err);
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND && st != BLOB_E_CORRUPT)
        return st;
    if (s->multipart) {
        st = s3_each_multipart(s, data.text, abort_one, NULL, err);
        if (st != BLOB_OK)
            return st;
    }
    return s3_staging_clear(s, id, err);
}

enum blob_status s3_upload_list(struct blob_store *base, staged_list_fn *fn, void *arg, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct s3_key last = {""};
    struct uuid current = {""};
    uint64_t bytes = 0;
    int64_t modified_ms = 0;
    bool go_on = true;
    for (bool more = true; more && go_on;) {
        struct s3_page page;
        enum blob_status st = s3_list(s->client, S3_STAGED_ROOT, last.text[0] ? last.text : NULL, 1000, &page, err);
        if (st != BLOB_OK)
            return st;
        more = page.more;
        for (size_t i = 0; i < page.count && go_on; i++) {
            struct uuid id;
            uint64_t epoch, offset;
            uint32_t sequence;
            snprintf(last.text, sizeof last.text, "%s", page.entries[i].key);
            if (!s3_staged_parse_upload(last.text, &id))
                continue;
            if (strcmp(current.text, id.text) != 0) {
                if (current.text[0])
                    go_on = fn(&current, bytes, modified_ms, arg);
                bytes = 0;
            }
            current = id;
            if (s3_staged_parse_key(last.text, &id, &epoch, &sequence, &offset))
                bytes = offset; /* of the newest, which comes last */
            modified_ms = page.entries[i].object.modified_ms;
        }
        s3_page_release(&page);
    }
    if (go_on && current.text[0])
        fn(&current, bytes, modified_ms, arg);
    return BLOB_OK;
}
