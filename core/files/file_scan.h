/*
 * file_scan - a listing without an index: every file record is read. For while the session store, which keeps the
 * index, is away; what it costs grows with the number of files, so a caller lets one run at a time.
 *
 * Threads: any. Ownership: rows are borrowed for the callback. Memory: about a kilobyte for each of skip + top rows,
 * at most FILE_SCAN_ROWS of them. Errors: as the blob store's; UNAVAILABLE: the page lies too far from the beginning.
 */
#ifndef BLOBD_CORE_FILES_FILE_SCAN_H
#define BLOBD_CORE_FILES_FILE_SCAN_H

#include "core/blob_store.h"
#include "core/session_store.h"

#define FILE_SCAN_ROWS 5000

/* As session_store_ops.index_list. Damaged records are passed over. */
enum blob_status file_scan_list(struct blob_store *store, const struct index_query *q, uint64_t *count,
                                index_row_fn *fn, void *arg, struct blob_error *err) BLOB_MUST_CHECK;

#endif
