/*
 * s3_retry - waiting between attempts, bounded in time and cut short by cancellation.
 *
 * Threads: a gate is shared by all calls of a client; a retry belongs to one call. Units: milliseconds.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_RETRY_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_RETRY_H

#include "core/status.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* Open until it is shut, once, for good. */
struct s3_gate {
    pthread_mutex_t lock;
    pthread_cond_t shut_now; /* on CLOCK_MONOTONIC */
    atomic_bool shut;
};

enum blob_status s3_gate_init(struct s3_gate *g) BLOB_MUST_CHECK;
void s3_gate_release(struct s3_gate *g);
void s3_gate_shut(struct s3_gate *g);
bool s3_gate_is_shut(const struct s3_gate *g);

struct s3_retry {
    struct s3_gate *gate;
    int64_t deadline_ms; /* on the steady clock */
    unsigned attempts;   /* that have failed */
    unsigned retries;    /* 0: bounded by the deadline alone */
};

void s3_retry_start(struct s3_retry *r, struct s3_gate *gate, int64_t budget_ms, unsigned retries);
/*
 * After a failed attempt: sleeps the back-off (100 ms doubling to 5 s, of which a random half to whole), or
 * at_least_ms where the server named a time, and says whether to try again. false: no more retries, the budget is
 * spent, or the gate shut.
 */
bool s3_retry_wait(struct s3_retry *r, int64_t at_least_ms);

#endif
