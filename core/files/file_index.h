/*
 * file_index - keeps the session store's index in step with the file records. The catalog's own part, used by nobody
 * else.
 *
 * The index may fail while the records do not: Redis may be away when a file is made or destroyed. The rows that
 * could not be written are remembered here, and settled later by looking at their records; where there are too many
 * to remember, the whole index is rebuilt.
 *
 * Threads: any, but for file_index_rebuild(): one at a time. Ownership: borrows both stores and the logger.
 */
#ifndef BLOBD_CORE_FILES_FILE_INDEX_H
#define BLOBD_CORE_FILES_FILE_INDEX_H

#include "core/blob_store.h"
#include "core/files/file_record.h"
#include "core/session_store.h"

#include <stdatomic.h>

struct logger;
struct file_index;

struct file_index *file_index_new(struct blob_store *store, struct session_store *sessions, struct logger *log);
void file_index_free(struct file_index *ix);

/* The row of a record, which borrows its JSON. */
void file_index_row(const struct file_record *file, const char *json, size_t len, struct index_row *row);
/* What became of the row of a new record, which its maker has put: a failure is logged and remembered. */
void file_index_was_put(struct file_index *ix, const struct file_record *file, enum blob_status st,
                        const struct blob_error *err);
/* A deleted record: removes its row; likewise. */
void file_index_remove(struct file_index *ix, const struct digest *digest, uint64_t number);
/* Makes the row agree with the record, whatever it is now, also beside somebody who destroys the file; likewise. */
void file_index_settle(struct file_index *ix, const struct digest *digest, uint64_t number);

/* Remembers to settle it: whether a change of the record happened is not known. Does not block. */
void file_index_doubt(struct file_index *ix, const struct digest *digest, uint64_t number);

/* Settles what was remembered. What fails stays remembered: the first failure. */
enum blob_status file_index_repair(struct file_index *ix, const atomic_bool *stop,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Was more lost than could be remembered? Then only a rebuild helps. */
bool file_index_overflowed(struct file_index *ix);
/* One at a time in this process; OK, and nothing done, while another node is at it. */
enum blob_status file_index_rebuild(struct file_index *ix, const atomic_bool *stop,
                                    struct blob_error *err) BLOB_MUST_CHECK;

#endif
