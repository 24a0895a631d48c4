/*
 * blob_stream - a download whose bytes come from a remote store: read by workers, a piece ahead of the client, hashed
 * as it passes. Where the whole blob was asked for and is not what its digest says, the connection is broken before the
 * last byte is out, so that no client can take it for the blob.
 *
 * Memory: bytes of the service's stream_budget. What is held for clients that take nothing is given up for others, and
 * fetched again when they go on. New ones are refused (503) only where as many wait as there are least pieces.
 *
 * Threads: on the request's loop.
 */
#ifndef BLOBD_SERVER_API_BLOB_STREAM_H
#define BLOBD_SERVER_API_BLOB_STREAM_H

#include "core/files/blob_cache.h"
#include "server/api/conditional.h"

struct exchange;

/* Takes the hold on entry. Answers, once the first piece is there: 200 or 206 as sel says, or why it cannot be read. */
void blob_stream_start(struct exchange *x, struct blob_entry *entry, const struct selection *sel);

#endif
