/*
 * blob_stream - a download whose bytes come from a remote store: read by workers, a piece ahead of the client, hashed
 * as it passes. Where the whole blob was asked for and is not what its digest says, the connection is broken before the
 * last byte is out, so that no client can take it for the blob.
 *
 * Memory: two pieces a stream; the pieces get smaller as more streams share the budget, down to a bound, beyond which
 * new ones are refused (503).
 *
 * Threads: blob_stream_start() on the request's loop; the budget from any.
 */
#ifndef BLOBD_SERVER_BLOB_STREAM_H
#define BLOBD_SERVER_BLOB_STREAM_H

#include "core/blob_cache.h"
#include "server/conditional.h"

struct exchange;
struct stream_budget;

struct stream_budget *stream_budget_new(size_t bytes); /* NULL: out of memory */
void stream_budget_free(struct stream_budget *budget); /* NULL is fine */

/* Takes the hold on entry. Answers, once the first piece is there: 200 or 206 as sel says, or why it cannot be read. */
void blob_stream_start(struct exchange *x, struct blob_entry *entry, const struct selection *sel);

#endif
