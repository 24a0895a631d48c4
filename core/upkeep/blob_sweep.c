/*
 * blob_sweep - a merge of two sorted listings.
 *
 * A record made after its page was read is not in the walk: hence the second look at each blob about to go. A record
 * made after that look is covered by the grace time: its maker has touched the blob, and blob_remove() sees that. An
 * upload that has committed its blob and not yet written its record is covered in the same way.
 */
#include "core/upkeep/blob_sweep.h"

#include "core/check.h"
#include "core/files/blob_cache.h"
#include "core/files/file_catalog.h"
#include "core/files/unnamed.h"
#include "core/log.h"
#include "core/session/session.h"
#include "core/session/upload_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE_KEYS 1000
#define BATCH     1024

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

/* A blob that its mark gives away. */
struct marked_blob {
    struct digest digest;
    uint64_t size;
    bool awaited; /* by an upload */
};

struct sweep_walk {
    struct blob_sweep *sweep;
    struct named_walk *names;
    enum blob_status st;
    struct blob_error err;
    size_t marked_count;
    struct marked_blob marked[BATCH]; /* ascending */
};

static bool stopped(const struct blob_sweep *s)
{
    return s->stop && atomic_load(s->stop);
}

enum garbage { NEEDED, GARBAGE, MARKED_GARBAGE };

/* Not named by any file, on a second look; and nobody may come back to it, or a mark says that nobody would. */
static enum blob_status is_garbage(struct sweep_walk *w, const struct digest *digest, const struct blob_info *info,
                                   enum garbage *garbage)
{
    struct blob_sweep *s = w->sweep;
    bool named, marked = false, orphan = info->touched_ms < s->orphans_before_ms;
    enum blob_status st = walk_names(w->names, digest, &named, &w->err);
    if (st == BLOB_OK && !named)
        st = file_catalog_names(s->catalog, digest, &named, &w->err);
    if (st == BLOB_OK && !named && !orphan)
        st = unnamed_is_marked(s->store, digest, info->touched_ms, &marked, &w->err);
    *garbage = NEEDED;
    if (st == BLOB_OK && !named && (orphan || marked))
        *garbage = orphan ? GARBAGE : MARKED_GARBAGE;
    return st;
}

static enum blob_status remove_blob(struct sweep_walk *w, const struct digest *digest, uint64_t size)
{
    struct blob_sweep *s = w->sweep;
    if (s->cache) /* whose open reader could stand in the way */
        blob_cache_invalidate(s->cache, digest);
    enum blob_status st = blob_remove(s->store, digest, s->before_ms, &w->err);
    if (st == BLOB_E_CONFLICT)
        return BLOB_OK; /* touched just now: somebody is about to name it; or being read: the next sweep's */
    if (st == BLOB_OK)
        st = unnamed_clear(s->store, digest, &w->err);
    if (st != BLOB_OK)
        return st;
    s->blobs++;
    s->bytes += size;
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    log_line(s->log, LOG_INFO, NULL, "swept blob %s, which no file names", hex);
    return BLOB_OK;
}

/* ---- what a mark gives away ---- */

static int marked_compare(const void *a, const void *b)
{
    return memcmp(((const struct marked_blob *)a)->digest.bytes, ((const struct marked_blob *)b)->digest.bytes,
                  DIGEST_BYTES);
}

/* That its file was made is in its session, where a full disk kept it out of its record. */
static enum blob_status is_completed(struct blob_sweep *s, const struct uuid *id, bool *completed,
                                     struct blob_error *err)
{
    struct bytebuf value;
    struct session session;
    uint64_t epoch;
    *completed = false;
    if (!s->sessions)
        return BLOB_OK;
    bytebuf_init(&value);
    enum blob_status st = session_load(s->sessions, id, &value, &epoch, err);
    if (st == BLOB_OK && session_decode(value.data, value.len, epoch, &session) == BLOB_OK)
        *completed = session.state == SESSION_COMPLETED;
    bytebuf_release(&value);
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}

/* An upload that has made no file of its content, as far as its record tells, awaits the blob while it lives: it was
 * completing before the blob was touched last, and that was so long ago that it was cut off. */
static bool note_awaited(const char *key, const void *value, size_t len, void *arg)
{
    struct sweep_walk *w = arg;
    struct session s;
    bool completed;
    (void)key;
    if (stopped(w->sweep)) {
        w->st = blob_fail(&w->err, BLOB_E_CANCELED, 0, "blob sweep stopped");
        return false;
    }
    /* A damaged record leads nobody to a blob. */
    if (upload_record_decode(value, len, &s) != BLOB_OK || s.state == SESSION_OPEN || s.file_gone ||
        s.completed_ms < w->sweep->orphans_before_ms)
        return true;
    struct marked_blob wanted = {.digest = s.digest};
    struct marked_blob *m = bsearch(&wanted, w->marked, w->marked_count, sizeof wanted, marked_compare);
    if (!m || m->awaited)
        return true;
    w->st = is_completed(w->sweep, &s.id, &completed, &w->err);
    m->awaited = !completed;
    return w->st == BLOB_OK;
}

static enum blob_status remove_marked(struct sweep_walk *w)
{
    if (w->marked_count == 0)
        return BLOB_OK;
    enum blob_status st = record_list(w->sweep->store, UPLOAD_RECORD_PREFIX, NULL, 0, true, note_awaited, w, &w->err);
    if (st == BLOB_OK)
        st = w->st;
    for (size_t i = 0; st == BLOB_OK && i < w->marked_count; i++) {
        const struct marked_blob *m = &w->marked[i];
        bool named = true; /* a look again: the listing took its time */
        if (!m->awaited)
            st = file_catalog_names(w->sweep->catalog, &m->digest, &named, &w->err);
        if (st == BLOB_OK && !named)
            st = remove_blob(w, &m->digest, m->size);
    }
    w->marked_count = 0;
    return st;
}

static enum blob_status sweep_one(struct sweep_walk *w, const struct digest *digest, const struct blob_info *info)
{
    enum garbage garbage;
    if (info->touched_ms >= w->sweep->before_ms)
        return BLOB_OK;
    enum blob_status st = is_garbage(w, digest, info, &garbage);
    if (st != BLOB_OK || garbage == NEEDED)
        return st;
    if (garbage == GARBAGE)
        return remove_blob(w, digest, info->size);
    w->marked[w->marked_count++] = (struct marked_blob){.digest = *digest, .size = info->size};
    return w->marked_count == BATCH ? remove_marked(w) : BLOB_OK;
}

static bool on_blob(const struct digest *digest, const struct blob_info *info, void *arg)
{
    struct sweep_walk *w = arg;
    if (stopped(w->sweep))
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
    return w->st == BLOB_OK && !stopped(s);
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
    struct sweep_walk *w = calloc(1, sizeof *w);
    enum blob_status st = BLOB_OK;
    if (!names || !w)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "blob sweep");
    if (st == BLOB_OK) {
        names->store = sweep->store;
        *w = (struct sweep_walk){.sweep = sweep, .names = names, .st = BLOB_OK};
        st = outcome(w, blob_list(sweep->store, NULL, on_blob, w, err), err);
    }
    if (st == BLOB_OK) {
        w->st = remove_marked(w);
        st = outcome(w, BLOB_OK, err);
    }
    if (st == BLOB_OK)
        st = outcome(w, unnamed_list(sweep->store, clear_if_done, w, err), err);
    free(names);
    free(w);
    return st;
}
