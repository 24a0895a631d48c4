/*
 * limiter - how much one client address, or one identity, may have of this server at once: connections and requests in
 * flight; and how many uploads it may begin in a minute.
 *
 *     enum limit_grant grant = limiter_enter(l, LIMIT_REQUESTS_ADDRESS, &key);   … refused: 429 …
 *     if (grant == LIMIT_HELD) limiter_leave(l, LIMIT_REQUESTS_ADDRESS, &key);
 *
 * Threads: any. Memory: an entry for each that has something now, which connections bound, and for the last of those
 * that began an upload a minute ago or less, LIMITER_REMEMBERED at most; time: the same for each call, however many
 * there are.
 */
#ifndef BLOBD_SERVER_LIMITER_H
#define BLOBD_SERVER_LIMITER_H

#include "core/ip_address.h"

#include <stdint.h>

struct limiter;
struct metrics;

enum limit {
    LIMIT_CONNECTIONS_ADDRESS,
    LIMIT_REQUESTS_ADDRESS,
    LIMIT_REQUESTS_IDENTITY,
    LIMIT_UPLOADS_ADDRESS,  /* limiter_spend() */
    LIMIT_UPLOADS_IDENTITY, /* limiter_spend() */
    LIMIT_COUNT
};

#define LIMIT_KEY_BYTES    16
#define LIMITER_REMEMBERED 16384u

struct limit_key {
    uint8_t bytes[LIMIT_KEY_BYTES];
};

/* An IPv6 address counts by its first 64 bits. */
struct limit_key limit_key_of_address(const struct ip_address *address);
/* By the hash of a text: an identity's name, or a bearer. */
struct limit_key limit_key_of_text(const char *text);

/* At most expected entries are likely: more are only slower. metrics may be NULL. NULL without memory. */
struct limiter *limiter_new(size_t expected, struct metrics *metrics);
void limiter_free(struct limiter *l); /* NULL is fine */
/* 0: no limit. Takes effect at once, for what is counted from then on. */
void limiter_set(struct limiter *l, enum limit limit, uint64_t value);
bool limiter_is_set(const struct limiter *l, enum limit limit);
/* The name of its setting. */
const char *limit_name(enum limit limit);

enum limit_grant {
    LIMIT_FREE,    /* there is no such limit: nothing to leave */
    LIMIT_HELD,    /* limiter_leave() is due */
    LIMIT_REFUSED, /* it has as much as it may; counted in the metrics */
};

enum limit_grant limiter_enter(struct limiter *l, enum limit limit, const struct limit_key *key);
void limiter_leave(struct limiter *l, enum limit limit, const struct limit_key *key);
/* One of so many a minute, all of which may come at once. 0: granted; else in how many seconds there is another. */
unsigned limiter_spend(struct limiter *l, enum limit limit, const struct limit_key *key);
/* Entries alive, for tests. */
size_t limiter_entries(struct limiter *l);

#endif
