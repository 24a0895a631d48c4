/*
 * memory_store - the storage contract kept in memory: the reference implementation, and a fast store for tests.
 *
 * What it does is what the contract says and nothing more. It is strict where core could be careless: a mark that it
 * did not give is refused, bytes that were not flushed are lost when a writer is closed, and what was dropped is gone.
 * Nothing survives closing it.
 *
 * Threads, ownership, units, errors: as core/blob_store.h. Durability: none.
 */
#ifndef BLOBD_BACKENDS_MEMORY_MEMORY_STORE_H
#define BLOBD_BACKENDS_MEMORY_MEMORY_STORE_H

#include "core/blob_store.h"

struct memory_options {
    uint64_t max_bytes; /* of staged and finished content; more is NO_SPACE. 0: no bound */
};

/* opt may be NULL. */
enum blob_status memory_store_open(const struct memory_options *opt, struct blob_store **out,
                                   struct blob_error *err) BLOB_MUST_CHECK;

#endif
