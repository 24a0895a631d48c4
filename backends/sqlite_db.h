/*
 * sqlite_db - SQLite files as the embedded session store uses them: one connection, held alone, write-ahead log,
 * never waiting for the disk.
 *
 * Why no syncs (synchronous=OFF). A commit lands in the kernel's page cache, which survives the death of the process;
 * only when the machine stops can pages be lost, and then in any order. embedded_guard knows when that may
 * have happened and such a file is not opened again. So a commit costs microseconds, never competes with the blob
 * store's own fsyncs, and no torn page is ever read. sqlite_db_close() syncs.
 *
 * Threads: one at a time per database (the caller's lock). Ownership: the caller owns what open gives. Errors: CORRUPT:
 * SQLite finds the file damaged, or it is not a database; NO_SPACE; NO_MEMORY; IO.
 */
#ifndef BLOBD_BACKENDS_SQLITE_DB_H
#define BLOBD_BACKENDS_SQLITE_DB_H

#include "core/status.h"

#include <sqlite3.h>
#include <stddef.h>
#include <stdint.h>

struct logger;

struct sqlite_schema {
    const char *sql; /* CREATE … IF NOT EXISTS */
    int version;     /* a file of another version is set aside: what it held is rebuilt */
    unsigned page_bytes;
    unsigned cache_kib;
};

/* Opens or creates. A damaged file is renamed to <path>.damaged-<seconds>, with a warning, and a new one made. */
enum blob_status sqlite_db_open(const char *path, const struct sqlite_schema *schema, struct logger *log, sqlite3 **out,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* Every statement is finalized. Syncs what was written. On failure it is closed all the same. */
enum blob_status sqlite_db_close(sqlite3 *db, struct blob_error *err) BLOB_MUST_CHECK;
/* Renames the file and its log, or removes them when keep is false; says so where there was any. */
void sqlite_db_set_aside(const char *path, bool keep, struct logger *log, const char *why);

/* The status of db's last failure; what goes into the text. */
enum blob_status sqlite_db_fail(sqlite3 *db, const char *what, struct blob_error *err);
enum blob_status sqlite_db_exec(sqlite3 *db, const char *sql, struct blob_error *err) BLOB_MUST_CHECK;
/* persistent: it will be kept and used often. */
enum blob_status sqlite_db_prepare(sqlite3 *db, const char *sql, bool persistent, sqlite3_stmt **out,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Runs a statement that gives no rows, and resets it; *changed (may be NULL): how many rows it changed. */
enum blob_status sqlite_db_run(sqlite3 *db, sqlite3_stmt *stmt, int *changed, struct blob_error *err) BLOB_MUST_CHECK;
/* Borrows text or bytes until the statement is reset. An empty value stays a value (not NULL). */
void sqlite_bind_text(sqlite3_stmt *stmt, int i, const char *text);
void sqlite_bind_bytes(sqlite3_stmt *stmt, int i, const void *bytes, size_t len);

#endif
