/*
 * memory_budget - how server.max_memory is shared out (docs/threads.md explains the shares).
 *
 * Threads: plain values. Units: bytes.
 */
#ifndef BLOBD_SERVER_MEMORY_BUDGET_H
#define BLOBD_SERVER_MEMORY_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct memory_budget {
    size_t bodies;      /* pieces of request bodies, all uploads together */
    size_t body_window; /* of these, one upload's at most */
    size_t streams;     /* pieces of downloads from a remote store */
    size_t answers;     /* what slow readers have not taken yet, beyond what their connections are reckoned at */
    size_t cache;       /* blobs and what is known of them */
    unsigned max_connections;
};

/* max_connections and cache: what the settings ask for, at most. */
struct memory_budget memory_budget_split(uint64_t max_memory, uint64_t max_connections, uint64_t cache, bool tls);

#endif
