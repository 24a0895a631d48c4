/*
 * redis_index - the file index of the Redis session store.
 *
 * Per file one hash field with its row, one member in three sorted sets (by time, size and name) for all files and
 * again for its owner's, and a record in the search text: strings of a quarter of a megabyte with everything that
 * listings filter and sort by. A page in one order costs three commands; a search or several keys read the text, which
 * Redis gives out in large pieces without looking at it, and the work is done here.
 *
 * Threads: any. Ownership: borrows pool, batch and config. Errors: as session_store.h.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_INDEX_H
#define BLOBD_BACKENDS_REDIS_REDIS_INDEX_H

#include "backends/redis/redis_batch.h"
#include "core/session_store.h"

struct redis_index;

enum blob_status redis_index_new(const struct redis_config *config, struct redis_pool *pool, struct redis_batch *batch,
                                 struct redis_index **out, struct blob_error *err) BLOB_MUST_CHECK;
void redis_index_free(struct redis_index *x);

/* As in session_store.h. */
enum blob_status redis_index_put(struct redis_index *x, const struct index_row *row,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* The call that redis_index_put() would run, for who runs it with others: after its failure, redis_index_miss(); after
 * its success, redis_index_changed(), with what redis_index_changes() was before. bytes: initialised; the call borrows
 * it. */
enum blob_status redis_index_make_put(struct redis_index *x, const struct index_row *row, struct redis_call *call,
                                      struct bytebuf *bytes, struct blob_error *err) BLOB_MUST_CHECK;
int64_t redis_index_changes(struct redis_index *x);
/* Redis' count of this node's changes must have grown, or it has come back with data of an earlier time. */
void redis_index_changed(struct redis_index *x, int64_t before, const redisReply *reply);
enum blob_status redis_index_remove(struct redis_index *x, const char *id, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status redis_index_list(struct redis_index *x, const struct index_query *q, uint64_t *count, index_row_fn *fn,
                                  void *arg, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status redis_index_expired(struct redis_index *x, int64_t now_ms, size_t limit, index_row_fn *fn, void *arg,
                                     struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status redis_index_recent(struct redis_index *x, const char *stem, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status redis_index_whole(struct redis_index *x, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status redis_index_rebuild_begin(struct redis_index *x, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status redis_index_rebuild_end(struct redis_index *x, struct blob_error *err) BLOB_MUST_CHECK;

/* A change did not reach Redis: the index is not whole until it was repeated, or is rebuilt. */
void redis_index_miss(struct redis_index *x);
/* All that was missed has been repeated. */
void redis_index_caught_up(struct redis_index *x);
/* Called at every heartbeat. After a miss it lets all nodes know that the index is not whole, and so it does where
 * Redis has come back with data of an earlier time; and it keeps this node's copy of the search text current, so that
 * no listing has to fetch all of it. */
void redis_index_tick(struct redis_index *x);

#endif
