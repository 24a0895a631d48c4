/*
 * readiness - all who ask while a check is under way share the next one, so that a stranger who asks often neither
 * burdens the stores nor makes a balancer wait for more than two checks.
 */
#include "server/readiness.h"

#include "core/blob_store.h"
#include "core/clock.h"
#include "core/session_store.h"
#include "core/worker_pool.h"

#include <stdlib.h>

#define ASKERS_MAX 1024 /* more than the admin port has connections */

struct readiness {
    struct blob_store *store;
    struct session_store *sessions;
    struct worker_pool *pool;
    int64_t began_us; /* when the last check did; 0: none */
    struct readiness_answer last;
};

enum blob_status readiness_new(struct blob_store *store, struct session_store *sessions, struct readiness **out,
                               struct blob_error *err)
{
    struct readiness *r = calloc(1, sizeof *r);
    if (r == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "out of memory");
    r->store = store;
    r->sessions = sessions;
    enum blob_status st = worker_pool_new(1, ASKERS_MAX, &r->pool, err);
    if (st == BLOB_OK)
        *out = r;
    else
        free(r);
    return st;
}

void readiness_free(struct readiness *r)
{
    if (r == NULL)
        return;
    worker_pool_free(r->pool);
    free(r);
}

struct worker_pool *readiness_pool(const struct readiness *r)
{
    return r->pool;
}

void readiness_ask(struct readiness *r, int64_t since_us, struct readiness_answer *answer)
{
    if (r->began_us == 0 || r->began_us < since_us) {
        r->began_us = clock_steady_us();
        r->last = (struct readiness_answer){.storage = BLOB_OK};
        r->last.storage = blob_store_check(r->store, &r->last.storage_err);
        r->last.sessions = session_store_check(r->sessions, &r->last.sessions_err);
    }
    *answer = r->last;
}
