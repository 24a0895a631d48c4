/*
 * readiness - can the stores be used? Asked on a thread of its own, so that whoever watches /readyz never waits behind
 * requests.
 *
 * Threads: readiness_ask() on the pool's one thread only. Ownership: the stores are borrowed.
 */
#ifndef BLOBD_SERVER_READINESS_H
#define BLOBD_SERVER_READINESS_H

#include "core/status.h"

#include <stdint.h>

struct blob_store;
struct readiness;
struct session_store;
struct worker_pool;

struct readiness_answer {
    enum blob_status storage, sessions;
    struct blob_error storage_err, sessions_err;
};

enum blob_status readiness_new(struct blob_store *store, struct session_store *sessions, struct readiness **out,
                               struct blob_error *err) BLOB_MUST_CHECK;
void readiness_free(struct readiness *r); /* NULL is fine */
/* A pool of one thread. */
struct worker_pool *readiness_pool(const struct readiness *r);
/* What a check said that began at since_us (clock_steady_us) or later: one that is over by now, else a new one. */
void readiness_ask(struct readiness *r, int64_t since_us, struct readiness_answer *answer);

#endif
