/*
 * s3_retry - jitter keeps the workers of many nodes, which all failed at the same moment, from coming back at the same
 * moment. The sleep is a timed wait on the gate, so that a shutdown does not have to sit out anyone's back-off.
 */
#include "backends/s3/client/s3_retry.h"

#include "core/check.h"
#include "core/clock.h"

#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

#define FIRST_DELAY_MS 100
#define LAST_DELAY_MS  5000

enum blob_status s3_gate_init(struct s3_gate *g)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0)
        return BLOB_E_NO_MEMORY;
    CHECK(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    int failed = pthread_cond_init(&g->shut_now, &attr);
    CHECK(pthread_condattr_destroy(&attr) == 0);
    if (failed)
        return BLOB_E_NO_MEMORY;
    if (pthread_mutex_init(&g->lock, NULL) != 0) {
        pthread_cond_destroy(&g->shut_now);
        return BLOB_E_NO_MEMORY;
    }
    atomic_init(&g->shut, false);
    return BLOB_OK;
}

void s3_gate_release(struct s3_gate *g)
{
    pthread_cond_destroy(&g->shut_now);
    pthread_mutex_destroy(&g->lock);
}

void s3_gate_shut(struct s3_gate *g)
{
    pthread_mutex_lock(&g->lock);
    atomic_store(&g->shut, true);
    pthread_cond_broadcast(&g->shut_now);
    pthread_mutex_unlock(&g->lock);
}

bool s3_gate_is_shut(const struct s3_gate *g)
{
    return atomic_load(&g->shut);
}

void s3_retry_start(struct s3_retry *r, struct s3_gate *gate, int64_t budget_ms, unsigned retries)
{
    *r = (struct s3_retry){.gate = gate, .deadline_ms = clock_steady_us() / 1000 + budget_ms, .retries = retries};
}

static int64_t back_off_ms(unsigned attempts)
{
    int64_t delay = FIRST_DELAY_MS;
    for (unsigned i = 1; i < attempts && delay < LAST_DELAY_MS; i++)
        delay *= 2;
    if (delay > LAST_DELAY_MS)
        delay = LAST_DELAY_MS;
    uint32_t dice = 0;
    if (getrandom(&dice, sizeof dice, 0) != (ssize_t)sizeof dice)
        dice = 0;
    return delay / 2 + (int64_t)(dice % (uint32_t)(delay / 2 + 1));
}

bool s3_retry_wait(struct s3_retry *r, int64_t at_least_ms)
{
    r->attempts++;
    if (r->retries && r->attempts > r->retries)
        return false;
    int64_t delay = back_off_ms(r->attempts);
    if (delay < at_least_ms)
        delay = at_least_ms;
    int64_t until = clock_steady_us() / 1000 + delay;
    if (until > r->deadline_ms)
        return false;
    struct timespec ts = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};
    pthread_mutex_lock(&r->gate->lock);
    int rc = 0;
    while (!atomic_load(&r->gate->shut) && rc == 0)
        rc = pthread_cond_timedwait(&r->gate->shut_now, &r->gate->lock, &ts);
    bool shut = atomic_load(&r->gate->shut);
    pthread_mutex_unlock(&r->gate->lock);
    return !shut;
}
