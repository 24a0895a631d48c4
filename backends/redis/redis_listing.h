/*
 * redis_listing - finds the ids of a page, and how many match, in the sorted sets of the Redis index.
 *
 * Threads: any, with a connection of its own. Ownership: ids are copied into the caller's buffer, each NUL-terminated.
 * Errors: as redis_conn.h; CORRUPT: a member is not what redis_index writes.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_LISTING_H
#define BLOBD_BACKENDS_REDIS_REDIS_LISTING_H

#include "backends/redis/redis_conn.h"
#include "backends/redis/redis_text.h"

/* base: what the index' keys begin with. */
enum blob_status redis_listing_find(struct redis_text *text, struct redis_conn *conn, const char *base,
                                    const struct index_query *q, struct bytebuf *ids, unsigned *found, uint64_t *count,
                                    struct blob_error *err) BLOB_MUST_CHECK;

#endif
