/*
 * sqlite_db - opening with the right pragmas, and SQLite's codes turned into ours.
 *
 * locking_mode=EXCLUSIVE keeps the log's index in this process' memory instead of a shared mapping, and saves the file
 * locks of every statement; that no second process comes is the guard's business.
 */
#include "backends/sqlite_db.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE 0640

/* The log is copied into the database when it has this many pages; small, so that no commit has much to copy. */
#define CHECKPOINT_PAGES 1000

static enum blob_status status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return BLOB_E_CORRUPT;
    case SQLITE_FULL:
        return BLOB_E_NO_SPACE;
    case SQLITE_NOMEM:
        return BLOB_E_NO_MEMORY;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return BLOB_E_UNAVAILABLE;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        return BLOB_E_DENIED;
    default:
        return BLOB_E_IO;
    }
}

enum blob_status sqlite_db_fail(sqlite3 *db, const char *what, struct blob_error *err)
{
    const char *file = sqlite3_db_filename(db, "main");
    return blob_fail(err, status_of(sqlite3_errcode(db)), sqlite3_system_errno(db), "%s: %s: %s",
                     file && *file ? file : "sqlite", what, sqlite3_errmsg(db));
}

enum blob_status sqlite_db_exec(sqlite3 *db, const char *sql, struct blob_error *err)
{
    return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? BLOB_OK : sqlite_db_fail(db, "exec", err);
}

enum blob_status sqlite_db_prepare(sqlite3 *db, const char *sql, bool persistent, sqlite3_stmt **out,
                                   struct blob_error *err)
{
    sqlite3_stmt *stmt = NULL;
    if (sqlite3_prepare_v3(db, sql, -1, persistent ? SQLITE_PREPARE_PERSISTENT : 0, &stmt, NULL) != SQLITE_OK)
        return sqlite_db_fail(db, "prepare", err);
    *out = stmt;
    return BLOB_OK;
}

enum blob_status sqlite_db_run(sqlite3 *db, sqlite3_stmt *stmt, int *changed, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    if (sqlite3_step(stmt) != SQLITE_DONE)
        st = sqlite_db_fail(db, "write", err);
    else if (changed)
        *changed = sqlite3_changes(db);
    sqlite3_reset(stmt);
    return st;
}

void sqlite_bind_text(sqlite3_stmt *stmt, int i, const char *text)
{
    CHECK(sqlite3_bind_text(stmt, i, text, -1, SQLITE_STATIC) == SQLITE_OK);
}

void sqlite_bind_bytes(sqlite3_stmt *stmt, int i, const void *bytes, size_t len)
{
    CHECK(sqlite3_bind_blob(stmt, i, len ? bytes : "", (int)len, SQLITE_STATIC) == SQLITE_OK);
}

/* OK with 0 in *version for a new file. */
static enum blob_status read_version(sqlite3 *db, int *version, struct blob_error *err)
{
    sqlite3_stmt *stmt = NULL;
    enum blob_status st = sqlite_db_prepare(db, "PRAGMA user_version", false, &stmt, err);
    if (st != BLOB_OK)
        return st;
    if (sqlite3_step(stmt) == SQLITE_ROW)
        *version = sqlite3_column_int(stmt, 0);
    else
        st = sqlite_db_fail(db, "read", err);
    sqlite3_finalize(stmt);
    return st;
}

static enum blob_status set_up(sqlite3 *db, const struct sqlite_schema *schema, struct blob_error *err)
{
    char pragmas[320];
    snprintf(pragmas, sizeof pragmas,
             "PRAGMA page_size=%u; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"
             "PRAGMA cache_size=-%u; PRAGMA wal_autocheckpoint=%d; PRAGMA temp_store=MEMORY; PRAGMA cell_size_check=ON",
             schema->page_bytes, schema->cache_kib, CHECKPOINT_PAGES);
    enum blob_status st = sqlite_db_exec(db, pragmas, err);
    int version = 0;
    if (st == BLOB_OK)
        st = read_version(db, &version, err);
    if (st == BLOB_OK && version != 0 && version != schema->version)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "its format is %d, this blobd knows %d", version, schema->version);
    if (st == BLOB_OK)
        st = sqlite_db_exec(db, schema->sql, err);
    if (st == BLOB_OK && version == 0) {
        char set_version[64];
        snprintf(set_version, sizeof set_version, "PRAGMA user_version=%d", schema->version);
        st = sqlite_db_exec(db, set_version, err);
    }
    return st;
}

static const char *const parts[] = {"", "-wal", "-shm"};

/*
 * Rows hold upload tokens' keys. SQLite makes its files readable by all, as far as the umask lets it, but gives the log
 * the mode of the database: so that is made here, and what an earlier version made is tightened.
 */
static enum blob_status keep_private(const char *path, struct blob_error *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, FILE_MODE);
    if (fd >= 0)
        close(fd);
    else if (errno != EEXIST)
        return blob_fail(err, blob_status_from_errno(errno), errno, "create");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char name[4096];
        struct stat sb;
        snprintf(name, sizeof name, "%s%s", path, parts[i]);
        if (stat(name, &sb) == 0 && (sb.st_mode & 0777 & ~FILE_MODE) != 0 && chmod(name, sb.st_mode & FILE_MODE) != 0)
            return blob_fail(err, blob_status_from_errno(errno), errno, "take %s from others' sight", name);
    }
    return BLOB_OK;
}

static enum blob_status open_once(const char *path, const struct sqlite_schema *schema, sqlite3 **out,
                                  struct blob_error *err)
{
    sqlite3 *db = NULL;
    enum blob_status st = keep_private(path, err);
    if (st != BLOB_OK)
        return st;
    if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL) !=
        SQLITE_OK) {
        st = db ? sqlite_db_fail(db, "open", err) : blob_fail(err, BLOB_E_NO_MEMORY, 0, "sqlite");
        sqlite3_close(db);
        return st;
    }
    sqlite3_extended_result_codes(db, 1);
    st = set_up(db, schema, err);
    if (st != BLOB_OK) {
        sqlite3_close(db);
        return st;
    }
    *out = db;
    return BLOB_OK;
}

void sqlite_db_set_aside(const char *path, bool keep, struct logger *log, const char *why)
{
    long long now_s = (long long)(clock_wall_ms() / 1000);
    bool found = false;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char from[4096], to[4096 + 48];
        snprintf(from, sizeof from, "%s%s", path, parts[i]);
        snprintf(to, sizeof to, "%s.damaged-%lld%s", path, now_s, parts[i]);
        if (!keep || rename(from, to) != 0)
            found |= unlink(from) == 0;
    }
    if (keep)
        log_line(log, LOG_WARN, NULL, "%s was moved to %s.damaged-%lld and is made anew: %s", path, path, now_s, why);
    else if (found)
        log_line(log, LOG_WARN, NULL, "%s is made anew: %s", path, why);
}

enum blob_status sqlite_db_open(const char *path, const struct sqlite_schema *schema, struct logger *log, sqlite3 **out,
                                struct blob_error *err)
{
    struct blob_error why = {0};
    enum blob_status st = open_once(path, schema, out, &why);
    if (st == BLOB_E_CORRUPT) {
        sqlite_db_set_aside(path, true, log, why.text);
        st = open_once(path, schema, out, &why);
    }
    return st == BLOB_OK ? BLOB_OK : blob_fail(err, st, 0, "open %s: %s", path, why.text);
}

enum blob_status sqlite_db_close(sqlite3 *db, struct blob_error *err)
{
    enum blob_status st = sqlite_db_exec(db, "PRAGMA synchronous=FULL; PRAGMA wal_checkpoint(TRUNCATE)", err);
    CHECK(sqlite3_close(db) == SQLITE_OK);
    return st;
}
