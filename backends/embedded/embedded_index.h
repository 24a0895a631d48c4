/*
 * embedded_index - the file index of the embedded session store: an SQLite file of its own, so that a long listing
 * never keeps a session waiting.
 *
 * Puts and removes go into a queue in memory and are written some thousand at a time in one transaction, by a thread of
 * the index: within a second, before every listing, and at close. What kill -9 takes with it is rebuilt: the file says
 * that it is whole only while it is closed cleanly.
 *
 * Threads: any. Ownership: the index owns its file and thread; log is borrowed. Errors: as session_store.h.
 */
#ifndef BLOBD_BACKENDS_EMBEDDED_EMBEDDED_INDEX_H
#define BLOBD_BACKENDS_EMBEDDED_EMBEDDED_INDEX_H

#include "core/session_store.h"

struct logger;
struct embedded_index;

/* The file is this process' alone and its bytes can be trusted: embedded_guard.h. */
enum blob_status embedded_index_open(const char *path, struct logger *log, struct embedded_index **out,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* Writes what is queued, notes that the index is whole if it is, syncs. Freed also on failure. */
enum blob_status embedded_index_close(struct embedded_index *x, struct blob_error *err) BLOB_MUST_CHECK;

/* As in session_store.h. */
enum blob_status embedded_index_put(struct embedded_index *x, const struct index_row *row,
                                    struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_index_remove(struct embedded_index *x, const char *id,
                                       struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_index_list(struct embedded_index *x, const struct index_query *q, uint64_t *count,
                                     index_row_fn *fn, void *arg, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_index_expired(struct embedded_index *x, int64_t now_ms, size_t limit, index_row_fn *fn,
                                        void *arg, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_index_whole(struct embedded_index *x, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_index_rebuild_begin(struct embedded_index *x, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status embedded_index_rebuild_end(struct embedded_index *x, struct blob_error *err) BLOB_MUST_CHECK;
/* Drops all rows; it is not whole then. */
enum blob_status embedded_index_empty(struct embedded_index *x, struct blob_error *err) BLOB_MUST_CHECK;

#endif
