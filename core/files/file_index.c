/*
 * file_index - rows follow records, and never the other way round.
 *
 * The one danger is a ghost: a row put by somebody who read the record just before another deleted it. Whoever deletes
 * removes the record first and the row second; whoever puts a row for a record made earlier looks at the record once
 * more after the put, and takes the row back when it is gone. If the put came after the deleter's removal of the
 * row, the record was gone by then, and the second look sees it: no order of the steps leaves a ghost, on any number of
 * nodes. A row put by the maker of a new record needs no second look: nobody knows the file's id yet.
 *
 * Locks: `lock` guards the remembered rows only; no store is called under it.
 */
#include "core/files/file_index.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REMEMBERED_MAX   32768 /* 40 bytes each, and only as many as there are */
#define REBUILD_PAGE     500
#define REBUILD_LEASE_MS 15000 /* of a node that dies: others wait as long, and listings with them */
#define REBUILD_RENEW_US 3000000

struct file_ref {
    struct digest digest;
    uint64_t number;
};

struct file_index {
    struct blob_store *store;
    struct session_store *sessions;
    struct logger *log;
    pthread_mutex_t lock;
    struct file_ref *remembered;
    size_t count, room;
    bool overflowed;
};

struct file_index *file_index_new(struct blob_store *store, struct session_store *sessions, struct logger *log)
{
    struct file_index *ix = calloc(1, sizeof *ix);
    CHECK(ix != NULL);
    ix->store = store;
    ix->sessions = sessions;
    ix->log = log;
    CHECK(pthread_mutex_init(&ix->lock, NULL) == 0);
    return ix;
}

void file_index_free(struct file_index *ix)
{
    if (!ix)
        return;
    pthread_mutex_destroy(&ix->lock);
    free(ix->remembered);
    free(ix);
}

/* ---- single rows ---- */

void file_index_doubt(struct file_index *ix, const struct digest *digest, uint64_t number)
{
    pthread_mutex_lock(&ix->lock);
    if (ix->count == ix->room && ix->room < REMEMBERED_MAX) {
        size_t room = ix->room ? ix->room * 2 : 64;
        struct file_ref *grown = realloc(ix->remembered, room * sizeof *grown);
        if (grown) {
            ix->remembered = grown;
            ix->room = room;
        }
    }
    if (ix->count < ix->room)
        ix->remembered[ix->count++] = (struct file_ref){*digest, number};
    else
        ix->overflowed = true;
    pthread_mutex_unlock(&ix->lock);
}

void file_index_row(const struct file_record *file, const char *json, size_t len, struct index_row *row)
{
    *row = (struct index_row){.size = file->size,
                              .created_ms = file->created_ms,
                              .expires_ms = file->expires_ms,
                              .value_len = (uint32_t)len,
                              .value = json};
    memcpy(row->id, file->id, sizeof row->id);
    memcpy(row->name, file->name, sizeof row->name);
    memcpy(row->owner, file->owner, sizeof row->owner);
}

static enum blob_status put_row(struct file_index *ix, const struct file_record *file, const char *json, size_t len,
                                struct blob_error *err)
{
    struct index_row row;
    file_index_row(file, json, len, &row);
    return index_put(ix->sessions, &row, err);
}

static enum blob_status remove_row(struct file_index *ix, const struct file_ref *ref, struct blob_error *err)
{
    struct file_record file = {.digest = ref->digest, .number = ref->number};
    file_id_make(&file);
    return index_remove(ix->sessions, file.id, err);
}

static enum blob_status settle(struct file_index *ix, const struct file_ref *ref, struct blob_error *err)
{
    char key[FILE_KEY_CHARS + 1];
    file_key_make(&ref->digest, ref->number, key);
    struct bytebuf json;
    bytebuf_init(&json);
    struct file_record file;
    enum blob_status st = record_get(ix->store, key, &json, err);
    if (st == BLOB_OK && json.failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "file record %s", key);
    if (st == BLOB_OK)
        st = file_record_decode(&ref->digest, ref->number, json.data, json.len, &file, err);
    if (st == BLOB_OK)
        st = put_row(ix, &file, json.data, json.len, err);
    if (st == BLOB_OK) {
        bytebuf_clear(&json);
        st = record_get(ix->store, key, &json, err);
    }
    if (st == BLOB_E_NOT_FOUND || st == BLOB_E_CORRUPT)
        st = remove_row(ix, ref, err);
    bytebuf_release(&json);
    return st;
}

void file_index_was_put(struct file_index *ix, const struct file_record *file, enum blob_status st,
                        const struct blob_error *err)
{
    if (st == BLOB_OK)
        return;
    log_line(ix->log, LOG_WARN, NULL, "file %s is not listed yet: %s", file->id, err->text);
    file_index_doubt(ix, &file->digest, file->number);
}

void file_index_remove(struct file_index *ix, const struct digest *digest, uint64_t number)
{
    struct blob_error err;
    if (remove_row(ix, &(struct file_ref){*digest, number}, &err) == BLOB_OK)
        return;
    log_line(ix->log, LOG_WARN, NULL, "a destroyed file is still listed: %s", err.text);
    file_index_doubt(ix, digest, number);
}

void file_index_settle(struct file_index *ix, const struct digest *digest, uint64_t number)
{
    struct blob_error err;
    if (settle(ix, &(struct file_ref){*digest, number}, &err) == BLOB_OK)
        return;
    log_line(ix->log, LOG_WARN, NULL, "a file's row may be missing or too many: %s", err.text);
    file_index_doubt(ix, digest, number);
}

/* ---- repair ---- */

/* Worth trying the next row after this one failed? Not when the store itself is away. */
static bool only_this_row(enum blob_status st)
{
    return st != BLOB_E_UNAVAILABLE && st != BLOB_E_CANCELED && st != BLOB_E_DENIED && st != BLOB_E_NO_SPACE;
}

enum blob_status file_index_repair(struct file_index *ix, const atomic_bool *stop, struct blob_error *err)
{
    pthread_mutex_lock(&ix->lock);
    struct file_ref *refs = ix->remembered;
    size_t count = ix->count;
    ix->remembered = NULL;
    ix->count = ix->room = 0;
    pthread_mutex_unlock(&ix->lock);

    enum blob_status first = BLOB_OK, st = BLOB_OK;
    for (size_t i = 0; i < count; i++) {
        struct blob_error own;
        if (only_this_row(st))
            st = stop && atomic_load(stop) ? blob_fail(&own, BLOB_E_CANCELED, 0, "index repair stopped")
                                           : settle(ix, &refs[i], &own);
        if (st == BLOB_OK)
            continue;
        file_index_doubt(ix, &refs[i].digest, refs[i].number);
        if (first == BLOB_OK && err)
            *err = own;
        first = first == BLOB_OK ? st : first;
    }
    free(refs);
    return first;
}

bool file_index_overflowed(struct file_index *ix)
{
    pthread_mutex_lock(&ix->lock);
    bool overflowed = ix->overflowed;
    pthread_mutex_unlock(&ix->lock);
    return overflowed;
}

/* ---- rebuild ---- */

struct rebuild {
    struct file_index *ix;
    const atomic_bool *stop;
    struct file_ref page[REBUILD_PAGE]; /* the rows put, in order of their keys */
    size_t count;                       /* of page */
    size_t seen;                        /* how many of page the second look has passed */
    size_t records;                     /* met in this page, damaged ones included */
    int64_t renewed_us;                 /* the lease */
    char last[RECORD_KEY_MAX + 1];      /* the last key met */
    enum blob_status st;
    struct blob_error err;
};

/* A page may take long where each record is a request. */
static enum blob_status renew(struct rebuild *r, struct blob_error *err)
{
    int64_t now_us = clock_steady_us();
    if (now_us - r->renewed_us < REBUILD_RENEW_US)
        return BLOB_OK;
    r->renewed_us = now_us;
    return session_lease(r->ix->sessions, "index", REBUILD_LEASE_MS, err);
}

static bool put_listed(const char *key, const void *value, size_t len, void *arg)
{
    struct rebuild *r = arg;
    if (r->stop && atomic_load(r->stop)) {
        r->st = blob_fail(&r->err, BLOB_E_CANCELED, 0, "index rebuild stopped");
        return false;
    }
    r->st = renew(r, &r->err);
    if (r->st != BLOB_OK)
        return false;
    r->records++;
    snprintf(r->last, sizeof r->last, "%s", key);
    struct file_ref ref;
    struct file_record file;
    struct blob_error err;
    if (file_key_parse(key, &ref.digest, &ref.number) != BLOB_OK) {
        log_line(r->ix->log, LOG_WARN, NULL, "record %s is not a file's: left alone", key);
        return true;
    }
    if (file_record_decode(&ref.digest, ref.number, value, len, &file, &err) != BLOB_OK) {
        log_line(r->ix->log, LOG_ERROR, NULL, "%s", err.text);
        return true;
    }
    r->st = put_row(r->ix, &file, value, len, &r->err);
    if (r->st == BLOB_OK)
        r->page[r->count++] = ref;
    return r->st == BLOB_OK;
}

static void take_back(struct rebuild *r)
{
    const struct file_ref *gone = &r->page[r->seen++];
    file_index_remove(r->ix, &gone->digest, gone->number);
}

/* The second look at a page: every row whose key is passed over was destroyed in between. */
static bool look_again(const char *key, const void *value, size_t len, void *arg)
{
    (void)value;
    (void)len;
    struct rebuild *r = arg;
    while (r->seen < r->count) {
        char put[FILE_KEY_CHARS + 1];
        file_key_make(&r->page[r->seen].digest, r->page[r->seen].number, put);
        int order = strcmp(put, key);
        if (order < 0) {
            take_back(r);
            continue;
        }
        if (order == 0)
            r->seen++;
        return r->seen < r->count;
    }
    return false;
}

/* One page after `after`, which moves on; *more says whether there may be another. */
static enum blob_status rebuild_page(struct rebuild *r, char *after, bool *more, struct blob_error *err)
{
    const char *from = after[0] ? after : NULL;
    r->count = r->seen = r->records = 0;
    r->st = BLOB_OK;
    enum blob_status st = record_list(r->ix->store, FILE_KEY_ROOT, from, REBUILD_PAGE, true, put_listed, r, err);
    if (st == BLOB_OK && r->st != BLOB_OK) {
        st = r->st;
        if (err)
            *err = r->err;
    }
    if (st == BLOB_OK && r->count > 0) {
        st = record_list(r->ix->store, FILE_KEY_ROOT, from, 0, false, look_again, r, err);
        while (st == BLOB_OK && r->seen < r->count)
            take_back(r);
    }
    if (st != BLOB_OK)
        return st;
    *more = r->records == REBUILD_PAGE;
    memcpy(after, r->last, sizeof r->last);
    return BLOB_OK;
}

enum blob_status file_index_rebuild(struct file_index *ix, const atomic_bool *stop, struct blob_error *err)
{
    char after[RECORD_KEY_MAX + 1] = "";
    size_t files = 0;
    enum blob_status st = session_lease(ix->sessions, "index", REBUILD_LEASE_MS, err);
    if (st != BLOB_OK)
        return st == BLOB_E_CONFLICT ? BLOB_OK : st;
    struct rebuild *r = calloc(1, sizeof *r);
    if (!r)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "index rebuild");
    r->ix = ix;
    r->stop = stop;
    r->renewed_us = clock_steady_us();
    /* From here on every change puts its own row again; only what fails from here on counts as lost. */
    pthread_mutex_lock(&ix->lock);
    bool overflowed = ix->overflowed;
    ix->overflowed = false;
    pthread_mutex_unlock(&ix->lock);
    st = index_rebuild_begin(ix->sessions, err);
    for (bool more = true; st == BLOB_OK && more;) {
        st = rebuild_page(r, after, &more, err);
        files += r->count;
    }
    if (st == BLOB_OK)
        st = index_rebuild_end(ix->sessions, err);
    if (st == BLOB_OK) {
        log_line(ix->log, LOG_INFO, NULL, "the file index was rebuilt from %zu records", files);
    } else if (overflowed) {
        pthread_mutex_lock(&ix->lock);
        ix->overflowed = true;
        pthread_mutex_unlock(&ix->lock);
    }
    free(r);
    return st;
}
