/*
 * memory_budget - the shares of server.max_memory. A share is a bound: nothing is reserved.
 *
 *     5/256   request bodies
 *     1/8     downloads from a remote store
 *     2/8     the blob cache
 *     2/8     connections
 *     1/16    answers that slow readers leave
 *     rest    what is there anyhow: code, stacks, the session store, part buffers of a remote store, the allocator's
 *             own
 *
 * Bodies get so little because more than the disk and the hash need to keep busy buys nothing but resident pages. Of
 * the default their share is 10 MiB. With 8, thirty-two uploads at once waited for each other's pieces; with 20 they
 * were no faster.
 */
#include "server/memory_budget.h"

#define PLAIN_CONNECTION_BYTES (16u << 10)
#define TLS_CONNECTION_BYTES   (64u << 10)
#define WINDOW_MAX_BYTES       (2u << 20)
#define WINDOW_MIN_BYTES       (256u << 10)

static uint64_t at_most(uint64_t value, uint64_t bound)
{
    return value < bound ? value : bound;
}

static uint64_t at_least(uint64_t value, uint64_t bound)
{
    return value > bound ? value : bound;
}

struct memory_budget memory_budget_split(uint64_t max_memory, uint64_t max_connections, uint64_t cache, bool tls)
{
    uint64_t eighth = max_memory / 8;
    uint64_t bodies = at_least(max_memory / 256 * 5, 2 * WINDOW_MIN_BYTES);
    uint64_t connections = eighth * 2 / (tls ? TLS_CONNECTION_BYTES : PLAIN_CONNECTION_BYTES);
    connections = at_least(connections, 16);
    if (max_connections > 0)
        connections = at_most(connections, max_connections);
    return (struct memory_budget){
        .bodies = (size_t)bodies,
        .body_window = (size_t)at_least(at_most(bodies / 5, WINDOW_MAX_BYTES), WINDOW_MIN_BYTES),
        .streams = (size_t)eighth,
        .answers = (size_t)(eighth / 2),
        .cache = (size_t)at_most(cache, eighth * 2),
        .max_connections = (unsigned)at_most(connections, 1u << 20),
    };
}
