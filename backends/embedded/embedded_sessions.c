/*
 * embedded_sessions - one row a session, one statement an operation, kept prepared.
 *
 * Rows are numbered as they come, with the UUID in an index beside: the sessions in use are the newest, so they share a
 * few pages, and a change writes one page to the log. With the UUID as the table's key every change would touch a page
 * of its own (measured: twice the time).
 *
 * Invariants: db and its statements are used under lock; each operation is one transaction of SQLite's own. When
 * SQLite finds the file damaged, it is replaced by an empty one on the spot and the operation answers UNAVAILABLE.
 */
#include "backends/embedded/embedded_sessions.h"

#include "backends/embedded/embedded_guard.h"
#include "backends/embedded/embedded_index.h"
#include "backends/sqlite_db.h"
#include "core/check.h"
#include "core/log.h"
#include "core/node_clock.h"
#include "core/text/parse.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UUID_BYTES  16
/* Sessions looked at in one go by a sweep: about a millisecond during which others wait. */
#define SWEEP_SLICE "512"

static const struct sqlite_schema session_schema = {
    .sql = "CREATE TABLE IF NOT EXISTS sessions(n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, epoch INTEGER NOT NULL,"
           " expires INTEGER NOT NULL, value BLOB NOT NULL) STRICT;"
           "CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    .version = 1,
    .page_bytes = 4096,
    .cache_kib = 4096,
};

enum session_stmt {
    STMT_INSERT,
    STMT_LOAD,
    STMT_REPLACE,
    STMT_LIVE,
    STMT_REMOVE,
    STMT_SLICE,
    STMT_SWEEP,
    STMT_STORE_ID,
    STMT_SET_STORE_ID,
    STMT_COUNT
};

static const char *const stmt_sql[STMT_COUNT] = {
    [STMT_INSERT] =
        "INSERT INTO sessions(id, epoch, expires, value) VALUES(?1, ?2, ?3, ?4) ON CONFLICT(id) DO UPDATE SET"
        " epoch = ?2, expires = ?3, value = ?4 WHERE sessions.expires <= ?5",
    [STMT_LOAD] = "SELECT epoch, value FROM sessions WHERE id = ?1 AND expires > ?2",
    [STMT_REPLACE] = "UPDATE sessions SET epoch = ?6, expires = ?3, value = ?4"
                     " WHERE id = ?1 AND epoch = ?2 AND expires > ?5",
    [STMT_LIVE] = "SELECT 1 FROM sessions WHERE id = ?1 AND expires > ?2",
    [STMT_REMOVE] = "DELETE FROM sessions WHERE id = ?1",
    [STMT_SLICE] = "SELECT max(n) FROM (SELECT n FROM sessions WHERE n > ?1 ORDER BY n LIMIT " SWEEP_SLICE ")",
    [STMT_SWEEP] = "DELETE FROM sessions WHERE n > ?1 AND n <= ?2 AND expires < ?3",
    [STMT_STORE_ID] = "SELECT value FROM meta WHERE name = 'store_id'",
    [STMT_SET_STORE_ID] = "INSERT INTO meta(name, value) VALUES('store_id', ?1)"
                          " ON CONFLICT(name) DO UPDATE SET value = ?1",
};

struct embedded_store {
    struct session_store base;
    struct embedded_guard guard;
    struct embedded_index *index;
    struct logger *log;
    char *path;
    pthread_mutex_t lock;
    sqlite3 *db; /* NULL: it could not be made anew; every operation tries again */
    sqlite3_stmt *stmts[STMT_COUNT];
};

static struct embedded_store *store_of(struct session_store *s)
{
    return (struct embedded_store *)s;
}

/* ---- the database ---- */

static void finalize_all(struct embedded_store *e)
{
    for (int i = 0; i < STMT_COUNT; i++) {
        sqlite3_finalize(e->stmts[i]);
        e->stmts[i] = NULL;
    }
}

static void drop_db(struct embedded_store *e)
{
    finalize_all(e);
    sqlite3_close(e->db);
    e->db = NULL;
}

static enum blob_status open_db(struct embedded_store *e, struct blob_error *err)
{
    enum blob_status st = sqlite_db_open(e->path, &session_schema, e->log, &e->db, err);
    for (int i = 0; i < STMT_COUNT && st == BLOB_OK; i++)
        st = sqlite_db_prepare(e->db, stmt_sql[i], true, &e->stmts[i], err);
    if (st != BLOB_OK)
        drop_db(e);
    return st;
}

/* Locks. On failure it is not locked. */
static enum blob_status enter(struct embedded_store *e, struct blob_error *err)
{
    pthread_mutex_lock(&e->lock);
    enum blob_status st = e->db ? BLOB_OK : open_db(e, err);
    if (st != BLOB_OK)
        pthread_mutex_unlock(&e->lock);
    return st;
}

/* Unlocks, and replaces a damaged file first. */
static enum blob_status leave(struct embedded_store *e, enum blob_status st, struct blob_error *err)
{
    if (st == BLOB_E_CORRUPT) {
        char why[sizeof err->text];
        snprintf(why, sizeof why, "%s", sqlite3_errmsg(e->db));
        drop_db(e);
        sqlite_db_set_aside(e->path, true, e->log, why);
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "%s was damaged (%s) and is made anew", e->path, why);
    }
    pthread_mutex_unlock(&e->lock);
    return st;
}

static void bind_id(sqlite3_stmt *stmt, const struct uuid *id, uint8_t bytes[UUID_BYTES])
{
    const char *p = id->text;
    for (int i = 0; i < UUID_BYTES; i++, p += 2) {
        p += *p == '-';
        bytes[i] = (uint8_t)(parse_hex_digit(p[0]) << 4 | parse_hex_digit(p[1]));
    }
    sqlite_bind_bytes(stmt, 1, bytes, UUID_BYTES);
}

/* ---- sessions ---- */

static enum blob_status embedded_insert(struct session_store *s, const struct uuid *id, uint64_t epoch,
                                        const void *value, size_t len, int64_t expires_ms, struct blob_error *err)
{
    struct embedded_store *e = store_of(s);
    enum blob_status st = enter(e, err);
    if (st != BLOB_OK)
        return st;
    sqlite3_stmt *stmt = e->stmts[STMT_INSERT];
    uint8_t bytes[UUID_BYTES];
    int changed = 0;
    bind_id(stmt, id, bytes);
    sqlite3_bind_int64(stmt, 2, (sqlite3_int64)epoch);
    sqlite3_bind_int64(stmt, 3, expires_ms);
    sqlite_bind_bytes(stmt, 4, value, len);
    sqlite3_bind_int64(stmt, 5, node_clock_at_least_ms(s->clock));
    st = sqlite_db_run(e->db, stmt, &changed, err);
    if (st == BLOB_OK && changed == 0)
        st = blob_fail(err, BLOB_E_EXISTS, 0, "session %s is there", id->text);
    return leave(e, st, err);
}

static enum blob_status embedded_load(struct session_store *s, const struct uuid *id, struct bytebuf *out,
                                      uint64_t *epoch, struct blob_error *err)
{
    struct embedded_store *e = store_of(s);
    enum blob_status st = enter(e, err);
    if (st != BLOB_OK)
        return st;
    sqlite3_stmt *stmt = e->stmts[STMT_LOAD];
    uint8_t bytes[UUID_BYTES];
    bind_id(stmt, id, bytes);
    sqlite3_bind_int64(stmt, 2, node_clock_at_least_ms(s->clock));
    switch (sqlite3_step(stmt)) {
    case SQLITE_ROW:
        *epoch = (uint64_t)sqlite3_column_int64(stmt, 0);
        bytebuf_add(out, sqlite3_column_blob(stmt, 1), (size_t)sqlite3_column_bytes(stmt, 1));
        break;
    case SQLITE_DONE:
        st = blob_fail(err, BLOB_E_NOT_FOUND, 0, "no session %s", id->text);
        break;
    default:
        st = sqlite_db_fail(e->db, "read a session", err);
    }
    sqlite3_reset(stmt);
    return leave(e, st, err);
}

/* Why a replace changed nothing. */
static enum blob_status explain_replace(struct embedded_store *e, const struct uuid *id, int64_t now_ms,
                                        struct blob_error *err)
{
    sqlite3_stmt *stmt = e->stmts[STMT_LIVE];
    enum blob_status st;
    uint8_t bytes[UUID_BYTES];
    bind_id(stmt, id, bytes);
    sqlite3_bind_int64(stmt, 2, now_ms);
    switch (sqlite3_step(stmt)) {
    case SQLITE_ROW:
        st = blob_fail(err, BLOB_E_CONFLICT, 0, "session %s has changed", id->text);
        break;
    case SQLITE_DONE:
        st = blob_fail(err, BLOB_E_NOT_FOUND, 0, "no session %s", id->text);
        break;
    default:
        st = sqlite_db_fail(e->db, "read a session", err);
    }
    sqlite3_reset(stmt);
    return st;
}

static enum blob_status embedded_replace(struct session_store *s, const struct uuid *id, uint64_t expected,
                                         uint64_t next, const void *value, size_t len, int64_t expires_ms,
                                         struct blob_error *err)
{
    struct embedded_store *e = store_of(s);
    enum blob_status st = enter(e, err);
    if (st != BLOB_OK)
        return st;
    sqlite3_stmt *stmt = e->stmts[STMT_REPLACE];
    uint8_t bytes[UUID_BYTES];
    int64_t now_ms = node_clock_at_least_ms(s->clock);
    int changed = 0;
    bind_id(stmt, id, bytes);
    sqlite3_bind_int64(stmt, 2, (sqlite3_int64)expected);
    sqlite3_bind_int64(stmt, 3, expires_ms);
    sqlite_bind_bytes(stmt, 4, value, len);
    sqlite3_bind_int64(stmt, 5, now_ms);
    sqlite3_bind_int64(stmt, 6, (sqlite3_int64)next);
    st = sqlite_db_run(e->db, stmt, &changed, err);
    if (st == BLOB_OK && changed == 0)
        st = explain_replace(e, id, now_ms, err);
    return leave(e, st, err);
}

static enum blob_status embedded_remove(struct session_store *s, const struct uuid *id, struct blob_error *err)
{
    struct embedded_store *e = store_of(s);
    enum blob_status st = enter(e, err);
    if (st != BLOB_OK)
        return st;
    uint8_t bytes[UUID_BYTES];
    bind_id(e->stmts[STMT_REMOVE], id, bytes);
    st = sqlite_db_run(e->db, e->stmts[STMT_REMOVE], NULL, err);
    return leave(e, st, err);
}

/* *last: the number of the slice's last session, or 0 when there is none behind after. */
static enum blob_status sweep_slice(struct embedded_store *e, int64_t after, int64_t now_ms, int64_t *last,
                                    struct blob_error *err)
{
    sqlite3_stmt *slice = e->stmts[STMT_SLICE], *sweep = e->stmts[STMT_SWEEP];
    sqlite3_bind_int64(slice, 1, after);
    enum blob_status st = BLOB_OK;
    if (sqlite3_step(slice) == SQLITE_ROW)
        *last = sqlite3_column_int64(slice, 0);
    else
        st = sqlite_db_fail(e->db, "read sessions", err);
    sqlite3_reset(slice);
    if (st != BLOB_OK || *last == 0)
        return st;
    sqlite3_bind_int64(sweep, 1, after);
    sqlite3_bind_int64(sweep, 2, *last);
    sqlite3_bind_int64(sweep, 3, now_ms);
    return sqlite_db_run(e->db, sweep, NULL, err);
}

static enum blob_status embedded_sweep(struct session_store *s, int64_t now_ms, struct blob_error *err)
{
    struct embedded_store *e = store_of(s);
    int64_t after = 0, last = 0;
    enum blob_status st;
    do {
        after = last;
        st = enter(e, err);
        if (st != BLOB_OK)
            return st;
        st = leave(e, sweep_slice(e, after, now_ms, &last, err), err);
    } while (st == BLOB_OK && last > 0);
    return st;
}

/* ---- the store ---- */

/* *same: the sessions are of this blob store, or of none yet. */
static enum blob_status read_store_id(struct embedded_store *e, const char *store_id, bool *same,
                                      struct blob_error *err)
{
    sqlite3_stmt *stmt = e->stmts[STMT_STORE_ID];
    enum blob_status st = BLOB_OK;
    switch (sqlite3_step(stmt)) {
    case SQLITE_ROW:
        *same = strcmp((const char *)sqlite3_column_text(stmt, 0), store_id) == 0;
        break;
    case SQLITE_DONE:
        *same = true;
        break;
    default:
        st = sqlite_db_fail(e->db, "read", err);
    }
    sqlite3_reset(stmt);
    return st;
}

/*
 * The lock was taken at open, so no other live node can be here. But the files may be of another blob store
 * (sessions.path was kept while storage was changed): then they say nothing true, and are emptied.
 */
static enum blob_status adopt_store_id(struct embedded_store *e, const char *store_id, struct blob_error *err)
{
    bool same = true;
    enum blob_status st = enter(e, err);
    if (st != BLOB_OK)
        return st;
    st = read_store_id(e, store_id, &same, err);
    if (st == BLOB_OK && !same) {
        log_line(e->log, LOG_WARN, NULL, "%s is of another blob store: its sessions and file index are dropped",
                 e->path);
        st = sqlite_db_exec(e->db, "DELETE FROM sessions", err);
        if (st == BLOB_OK)
            st = embedded_index_empty(e->index, err);
    }
    if (st == BLOB_OK) {
        sqlite_bind_text(e->stmts[STMT_SET_STORE_ID], 1, store_id);
        st = sqlite_db_run(e->db, e->stmts[STMT_SET_STORE_ID], NULL, err);
    }
    return leave(e, st, err);
}

static enum blob_status embedded_join(struct session_store *s, const char *node_id, const char *store_id,
                                      int64_t now_ms, struct blob_error *err)
{
    (void)node_id;
    (void)now_ms;
    enum blob_status st = adopt_store_id(store_of(s), store_id, err);
    if (st == BLOB_E_UNAVAILABLE) /* damage was found, and the file replaced */
        st = adopt_store_id(store_of(s), store_id, err);
    return st;
}

static enum blob_status embedded_check(struct session_store *s, struct blob_error *err)
{
    struct embedded_store *e = store_of(s);
    bool same;
    enum blob_status st = enter(e, err);
    if (st != BLOB_OK)
        return st;
    st = read_store_id(e, "", &same, err);
    return leave(e, st, err);
}

static void embedded_close(struct session_store *s)
{
    struct embedded_store *e = store_of(s);
    struct blob_error err;
    bool clean = true;
    if (embedded_index_close(e->index, &err) != BLOB_OK) {
        log_line(e->log, LOG_ERROR, NULL, "closing the file index: %s", err.text);
        clean = false;
    }
    finalize_all(e);
    if (e->db && sqlite_db_close(e->db, &err) != BLOB_OK) {
        log_line(e->log, LOG_ERROR, NULL, "closing the sessions: %s", err.text);
        clean = false;
    }
    if (!clean)
        embedded_guard_doubt(&e->guard);
    embedded_guard_release(&e->guard, clean);
    pthread_mutex_destroy(&e->lock);
    free(e->path);
    free(e);
}

/* ---- the file index: embedded_index.c's ---- */

static enum blob_status embedded_put(struct session_store *s, const struct index_row *row, struct blob_error *err)
{
    return embedded_index_put(store_of(s)->index, row, err);
}

static enum blob_status embedded_drop(struct session_store *s, const char *id, struct blob_error *err)
{
    return embedded_index_remove(store_of(s)->index, id, err);
}

static enum blob_status embedded_list(struct session_store *s, const struct index_query *q, uint64_t *count,
                                      index_row_fn *fn, void *arg, struct blob_error *err)
{
    return embedded_index_list(store_of(s)->index, q, count, fn, arg, err);
}

static enum blob_status embedded_expired(struct session_store *s, int64_t now_ms, size_t limit, index_row_fn *fn,
                                         void *arg, struct blob_error *err)
{
    return embedded_index_expired(store_of(s)->index, now_ms, limit, fn, arg, err);
}

static enum blob_status embedded_whole(struct session_store *s, struct blob_error *err)
{
    return embedded_index_whole(store_of(s)->index, err);
}

static enum blob_status embedded_rebuild_begin(struct session_store *s, struct blob_error *err)
{
    return embedded_index_rebuild_begin(store_of(s)->index, err);
}

static enum blob_status embedded_rebuild_end(struct session_store *s, struct blob_error *err)
{
    return embedded_index_rebuild_end(store_of(s)->index, err);
}

static const struct session_store_ops embedded_ops = {
    .name = "embedded",
    .close = embedded_close,
    .join = embedded_join,
    .check = embedded_check,
    .insert = embedded_insert,
    .load = embedded_load,
    .replace = embedded_replace,
    .remove = embedded_remove,
    .sweep = embedded_sweep,
    .index_put = embedded_put,
    .index_remove = embedded_drop,
    .index_list = embedded_list,
    .index_expired = embedded_expired,
    .index_whole = embedded_whole,
    .index_rebuild_begin = embedded_rebuild_begin,
    .index_rebuild_end = embedded_rebuild_end,
};

/* ---- opening ---- */

/* Both databases, under a guard that is held. */
static enum blob_status open_files(struct embedded_store *e, bool trusted, struct blob_error *err)
{
    char index_path[4096];
    if (snprintf(index_path, sizeof index_path, "%s.index", e->path) >= (int)sizeof index_path)
        return blob_fail(err, BLOB_E_INVALID, 0, "sessions.path is too long");
    if (!trusted) {
        static const char why[] = "it is new, or the machine stopped while it was in use";
        sqlite_db_set_aside(e->path, false, e->log, why);
        sqlite_db_set_aside(index_path, false, e->log, why);
    }
    enum blob_status st = embedded_guard_mark_open(&e->guard, err);
    if (st == BLOB_OK)
        st = open_db(e, err);
    return st == BLOB_OK ? embedded_index_open(index_path, e->log, &e->index, err) : st;
}

enum blob_status embedded_sessions_open(const struct embedded_sessions_options *opt, struct session_store **out,
                                        struct blob_error *err)
{
    struct embedded_store *e = calloc(1, sizeof *e);
    char *path = strdup(opt->path);
    bool trusted = false;
    enum blob_status st = BLOB_OK;
    if (!e || !path)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the session store");
    if (st == BLOB_OK)
        st = embedded_guard_take(path, &e->guard, &trusted, err);
    if (st != BLOB_OK) {
        free(path);
        free(e);
        return st;
    }
    e->base.ops = &embedded_ops;
    e->path = path;
    e->log = opt->log;
    pthread_mutex_init(&e->lock, NULL);
    st = open_files(e, trusted, err);
    if (st == BLOB_OK) {
        *out = &e->base;
        return BLOB_OK;
    }
    drop_db(e);
    embedded_guard_release(&e->guard, false);
    pthread_mutex_destroy(&e->lock);
    free(e->path);
    free(e);
    return st;
}
