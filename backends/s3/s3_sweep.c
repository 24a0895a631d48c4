/*
 * s3_sweep - what no crash may leave behind for ever: multipart uploads that no upload knows, and data objects that
 * never got a pointer. Only below this store's prefix, and only what was made before the grace time.
 *
 * A multipart upload belongs to the upload its key names: it stays while that upload's state names it, or tells that it
 * is being copied there. A data object of the form data/<upload>.<digest> tells itself which pointer must name it, or
 * is the copy that its upload's state tells of. One without a digest was announced in its upload's state, and is looked
 * after by s3_upload_discard(). What damaged/ names stays for whoever looks into it. Data objects are looked at once:
 * those made since the sweep before, or in the last week after a start.
 *
 * What is old is told by the endpoint's clock, and that by most of its answers. While any two clocks are more than five
 * minutes apart nothing is removed: a time that one of them has written may be read by another.
 *
 * Between making something and naming it pass a few requests, each with its retries. Of writers in this process it is
 * known what is theirs, whatever the grace time; of those on other nodes it is not. Whether there is a writer is looked
 * at first: what one that has closed since wanted to keep is named by then.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/log.h"

#include <stdio.h>
#include <string.h>

#define LOOK_BACK_MS  (7ll * 24 * 3600 * 1000)
#define CLOCK_ANSWERS 5

static bool upload_of_key(const char *key, struct uuid *id)
{
    char text[UUID_CHARS + 1];
    return sscanf(key, "data/%36[0-9a-f-]", text) == 1 && uuid_parse(text, id) == BLOB_OK;
}

/* data/<upload>.<digest> while the upload is becoming that blob: its parts may just be copied there. */
static bool is_its_copy(const struct s3_staged *state, const char *key)
{
    struct digest digest;
    const char *dot = strchr(key, '.');
    return state->committing && dot && digest_parse(dot + 1, &digest) == BLOB_OK &&
           digest_equal(&digest, &state->digest);
}

/* arg: only what was begun before it. */
static enum blob_status look_at_upload(struct s3_store *s, const struct s3_upload *u, void *arg, struct blob_error *err)
{
    const int64_t *before_ms = arg;
    struct uuid id;
    struct s3_staged state;
    struct staged_stat stat;
    if (!u->initiated_ms || u->initiated_ms >= *before_ms)
        return BLOB_OK;
    if (!upload_of_key(u->key, &id) || s3_upload_is_written(s, &id))
        return BLOB_OK;
    enum blob_status st = s3_upload_state(s, &id, &state, &stat, err);
    if (st == BLOB_OK && (strcmp(state.upload_id, u->upload_id) == 0 || is_its_copy(&state, u->key)))
        return BLOB_OK;
    if (st == BLOB_E_UNAVAILABLE) /* of this upload nothing is known */
        return BLOB_OK;
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        return st;
    log_line(s->log, LOG_INFO, NULL, "S3 %s: ending a multipart upload that nothing refers to", u->key);
    return s3_multipart_abort(s->client, u->key, u->upload_id, err);
}

/* *written: a writer may still come to name it. It is to be looked at again then. */
static enum blob_status look_at_data(struct s3_store *s, const char *key, bool *written, struct blob_error *err)
{
    struct uuid id;
    struct digest digest;
    struct s3_pointer p;
    struct s3_staged state;
    struct staged_stat stat;
    const char *dot = strchr(key, '.');
    if (!upload_of_key(key, &id) || !dot || digest_parse(dot + 1, &digest) != BLOB_OK)
        return BLOB_OK;
    *written = s3_upload_is_written(s, &id);
    if (*written)
        return BLOB_OK;
    enum blob_status st = s3_pointer_read(s, &digest, &p, err);
    if (st == BLOB_OK && strcmp(p.data_key, key) == 0)
        return BLOB_OK;
    if (st == BLOB_E_NOT_FOUND) {
        st = s3_upload_state(s, &id, &state, &stat, err);
        if (st == BLOB_OK && is_its_copy(&state, key))
            return BLOB_OK;
    }
    bool damaged = false;
    if (st == BLOB_OK || st == BLOB_E_NOT_FOUND)
        st = s3_data_is_damaged(s, &digest, key, &damaged, err);
    if (st != BLOB_OK || damaged)
        return st;
    log_line(s->log, LOG_INFO, NULL, "S3 %s: deleting data that no blob refers to", key);
    return s3_delete(s->client, key, err);
}

/* *again_ms: from when on data objects must be looked at again; lowered to those of open writers. */
static enum blob_status sweep_data(struct s3_store *s, int64_t since_ms, int64_t before_ms, int64_t *again_ms,
                                   struct blob_error *err)
{
    struct s3_key last = {""};
    for (bool more = true; more;) {
        struct s3_page page;
        enum blob_status st = s3_list(s->client, "data/", last.text[0] ? last.text : NULL, 1000, &page, err);
        if (st != BLOB_OK)
            return st;
        more = page.more;
        for (size_t i = 0; i < page.count && st == BLOB_OK; i++) {
            const struct s3_entry *e = &page.entries[i];
            int64_t made_ms = e->object.modified_ms;
            bool written = false;
            snprintf(last.text, sizeof last.text, "%s", e->key);
            if (made_ms && made_ms >= since_ms && made_ms < before_ms)
                st = look_at_data(s, last.text, &written, err);
            if (written && made_ms < *again_ms)
                *again_ms = made_ms;
        }
        s3_page_release(&page);
        if (st != BLOB_OK)
            return st;
    }
    return BLOB_OK;
}

/* One answer is no median: a few are asked for where few were seen. */
static enum blob_status hear_the_clock(struct s3_store *s, struct blob_error *err)
{
    for (int i = 0; i < CLOCK_ANSWERS; i++) {
        struct s3_clock_view clock;
        struct s3_object ignored;
        s3_client_clock(s->client, &clock);
        if (clock.samples >= CLOCK_ANSWERS)
            break;
        enum blob_status st = s3_head(s->client, S3_STORE_KEY, &ignored, err);
        if (st != BLOB_OK)
            return st;
    }
    return BLOB_OK;
}

enum blob_status s3_sweep(struct blob_store *base, int64_t before_ms, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    int64_t offset_ms = 0;
    s3_memory_trim(&s->memory);
    pthread_mutex_lock(&s->lock);
    s->tombstones_before_ms = before_ms;
    pthread_mutex_unlock(&s->lock);
    enum blob_status st = hear_the_clock(s, err);
    if (st == BLOB_OK)
        st = s3_clocks_agree(s, &offset_ms, err);
    if (st != BLOB_OK)
        return st;
    before_ms += offset_ms; /* S3's times are by its own clock */
    pthread_mutex_lock(&s->lock);
    int64_t since_ms = s->orphans_looked_ms ? s->orphans_looked_ms : before_ms - LOOK_BACK_MS;
    pthread_mutex_unlock(&s->lock);
    int64_t again_ms = before_ms - 60000; /* the two clocks, and a listing that lags */
    st = s->multipart ? s3_each_multipart(s, "data/", look_at_upload, &before_ms, err) : BLOB_OK;
    if (st == BLOB_OK)
        st = sweep_data(s, since_ms, before_ms, &again_ms, err);
    if (st == BLOB_OK) {
        pthread_mutex_lock(&s->lock);
        s->orphans_looked_ms = again_ms;
        pthread_mutex_unlock(&s->lock);
    }
    return st;
}
