/*
 * blob_sweep - a merge of two sorted listings.
 *
 * A record made after its page was read is not in the walk: hence the second look at each blob about to go. A record
 * made after that look is covered by the grace time: its maker has touched the blob, and blob_remove() sees that. An
 * upload that has committed its blob and not yet written its record is covered in the same way.
 */
#include "core/blob_sweep.h"

#include "core/blob_cache.h"
#include "core/check.h"
#include "core/file_catalog.h"
#include "core/log.h"
#include "core/unnamed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_KEYS 1000

/* The digests that files name, ascending, a page of keys at a time. */
struct named_walk {
    struct blob_store *store;
    struct digest page[PAGE_KEYS];
    size_t count, pos;
    size_t keys; /* met in this page */
    char after[RECORD_KEY_MAX + 1];
    bool ended;
};

static bool note_named(const char *key, const void *value, size_t len, void *arg)
{
    (void)value;
    (void)len;
    struct named_walk *w = arg;
    struct digest digest;
    uint64_t number;
    w->keys++;
    snprintf(w->after, sizeof w->after, "%s", key);
    if (file_key_parse(key, &digest, &number) == BLOB_OK)
        w->page[w->count++] = digest;
    return true;
}

static enum blob_status next_page(struct named_walk *w, struct blob_error *err)
{
    w->count = w->pos = w->keys = 0;
    enum blob_status st =
        record_list(w->store, FILE_KEY_ROOT, w->after[0] ? w->after : NULL, PAGE_KEYS, false, note_named, w, err);
    if (st == BLOB_OK)
        w->ended = w->keys < PAGE_KEYS;
    return st;
}

/* Digests are asked for in ascending order. */
static enum blob_status walk_names(struct named_walk *w, const struct digest *digest, bool *named,
                                   struct blob_error *err)
{
    for (;;) {
        for (; w->pos < w->count; w->pos++) {
            int order = memcmp(w->page[w->pos].bytes, digest->bytes, DIGEST_BYTES);
            if (order >= 0) {
                *named = order == 0;
                return BLOB_OK;
            }
        }
        if (w->ended) {
            *named = false;
            return BLOB_OK;
        }
        enum blob_status st = next_page(w, err);
        if (st != BLOB_OK)
            return st;
    }
}

struct sweep_walk {
    struct blob_sweep *sweep;
    struct named_walk *names;
    enum blob_status st;
    struct blob_error err;
};

/* Not named by any file, on a second look; and nobody may come back to it. */
static enum blob_status is_garbage(struct sweep_walk *w, const struct digest *digest, const struct blob_info *info,
                                   bool *garbage)
{
    struct blob_sweep *s = w->sweep;
    bool named;
    enum blob_status st = walk_names(w->names, digest, &named, &w->err);
    if (st == BLOB_OK && !named)
        st = file_catalog_names(s->catalog, digest, &named, &w->err);
    *garbage = st == BLOB_OK && !named;
    if (*garbage && info->touched_ms >= s->orphans_before_ms)
        st = unnamed_is_marked(s->store, digest, info->touched_ms, garbage, &w->err);
    return st;
}

static enum blob_status sweep_one(struct sweep_walk *w, const struct digest *digest, const struct blob_info *info)
{
    struct blob_sweep *s = w->sweep;
    bool garbage;
    if (info->touched_ms >= s->before_ms)
        return BLOB_OK;
    enum blob_status st = is_garbage(w, digest, info, &garbage);
    if (st != BLOB_OK || !garbage)
        return st;
    if (s->cache) /* whose open reader could stand in the way */
        blob_cache_invalidate(s->cache, digest);
    st = blob_remove(s->store, digest, s->before_ms, &w->err);
    if (st == BLOB_E_CONFLICT)
        return BLOB_OK; /* touched just now: somebody is about to name it; or being read: the next sweep's */
    if (st != BLOB_OK)
        return st;
    st = unnamed_clear(s->store, digest, &w->err);
    if (st != BLOB_OK)
        return st;
    s->blobs++;
    s->bytes += info->size;
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    log_line(s->log, LOG_INFO, NULL, "swept blob %s, which no file names", hex);
    return BLOB_OK;
}

static bool on_blob(const struct digest *digest, const struct blob_info *info, void *arg)
{
    struct sweep_walk *w = arg;
    if (w->sweep->stop && atomic_load(w->sweep->stop))
        w->st = blob_fail(&w->err, BLOB_E_CANCELED, 0, "blob sweep stopped");
    else
        w->st = sweep_one(w, digest, info);
    return w->st == BLOB_OK;
}

/* Marks of blobs that are named again, touched again, or gone. Should the blob lose its last file at this very moment,
 * its mark is lost and it goes as an orphan, later. */
static bool clear_if_done(const struct digest *digest, int64_t touched_ms, void *arg)
{
    struct sweep_walk *w = arg;
    struct blob_sweep *s = w->sweep;
    struct blob_info info;
    bool named;
    w->st = file_catalog_names(s->catalog, digest, &named, &w->err);
    bool done = w->st == BLOB_OK && named;
    if (w->st == BLOB_OK && !named) {
        w->st = blob_stat(s->store, digest, &info, &w->err);
        done = w->st == BLOB_E_NOT_FOUND || (w->st == BLOB_OK && info.touched_ms != touched_ms);
    }
    if (done)
        w->st = unnamed_clear(s->store, digest, &w->err);
    return w->st == BLOB_OK && !(s->stop && atomic_load(s->stop));
}

static enum blob_status outcome(const struct sweep_walk *w, enum blob_status listed, struct blob_error *err)
{
    if (listed != BLOB_OK || w->st == BLOB_OK)
        return listed;
    if (err)
        *err = w->err;
    return w->st;
}

enum blob_status blob_sweep_run(struct blob_sweep *sweep, struct blob_error *err)
{
    sweep->blobs = sweep->bytes = 0;
    struct named_walk *names = calloc(1, sizeof *names);
    if (!names)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "blob sweep");
    names->store = sweep->store;
    struct sweep_walk w = {.sweep = sweep, .names = names, .st = BLOB_OK};
    enum blob_status st = outcome(&w, blob_list(sweep->store, NULL, on_blob, &w, err), err);
    if (st == BLOB_OK)
        st = outcome(&w, unnamed_list(sweep->store, clear_if_done, &w, err), err);
    free(names);
    return st;
}
