/*
 * embedded_rows - the tables of the embedded file index, and the statements on them.
 *
 * Threads: one at a time (the lock of embedded_index). Ownership: rows borrows nothing after a call; listings are
 * copied into a page. Errors: CORRUPT: the file is damaged; others as session_store.h.
 */
#ifndef BLOBD_BACKENDS_EMBEDDED_EMBEDDED_ROWS_H
#define BLOBD_BACKENDS_EMBEDDED_EMBEDDED_ROWS_H

#include "backends/index_row.h"
#include "backends/sqlite_db.h"

enum rows_stmt {
    ROWS_PUT,
    ROWS_REMOVE,
    ROWS_FETCH,
    ROWS_EXPIRED,
    ROWS_SLICE,
    ROWS_DROP_OLD,
    ROWS_GET,
    ROWS_SET,
    ROWS_COUNT
};

struct embedded_rows {
    sqlite3 *db;
    sqlite3_stmt *stmts[ROWS_COUNT];
    int64_t generation; /* written with each row; rows of an older one go when a rebuild ends */
};

enum blob_status embedded_rows_open(struct embedded_rows *rows, const char *path, struct logger *log, bool *whole,
                                    struct blob_error *err) BLOB_MUST_CHECK;
/* Syncs when sync is true. */
enum blob_status embedded_rows_close(struct embedded_rows *rows, bool sync, struct blob_error *err) BLOB_MUST_CHECK;

enum blob_status embedded_rows_put(struct embedded_rows *rows, const struct index_row *row, struct bytebuf *scratch,
                                   struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_rows_remove(struct embedded_rows *rows, const char *id,
                                      struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_rows_list(struct embedded_rows *rows, const struct index_query *q, uint64_t *count,
                                    struct row_page *page, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_rows_expired(struct embedded_rows *rows, int64_t now_ms, size_t limit, struct row_page *page,
                                       struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_rows_set_whole(struct embedded_rows *rows, bool whole,
                                         struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_rows_next_generation(struct embedded_rows *rows, struct blob_error *err) BLOB_MUST_CHECK;
/* Of some rows behind *after, drops those of an older generation; *after moves on, and is 0 at the end. */
enum blob_status embedded_rows_drop_old(struct embedded_rows *rows, int64_t *after,
                                        struct blob_error *err) BLOB_MUST_CHECK;

#endif
