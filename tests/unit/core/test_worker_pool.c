/*
 * worker_pool - order in a lane, parallelism between lanes, nothing lost, and the ends: full, drained, freed.
 * Made to run under the thread sanitizer as well.
 */
#include "core/worker_pool.h"
#include "tests/rig/unit_main.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

static struct worker_pool *new_pool(unsigned threads, size_t max_queued)
{
    struct worker_pool *pool = NULL;
    CU_ASSERT_EQUAL_FATAL(worker_pool_new(threads, max_queued, &pool, NULL), BLOB_OK);
    return pool;
}

/* ---- order ---- */

#define ORDER_LANES     8
#define ORDER_JOBS      400
#define ORDER_SUBMITTER 2

struct order_lane {
    struct worker_lane lane;
    unsigned seen;      /* not atomic on purpose: the lane alone protects it */
    atomic_bool inside; /* a second job of the lane at the same time would see it */
    atomic_uint violated;
};

struct order_job {
    struct worker_job job;
    struct order_lane *lane;
    unsigned number;
};

static void order_run(struct worker_job *job)
{
    struct order_job *self = (struct order_job *)job;
    struct order_lane *lane = self->lane;
    if (atomic_exchange(&lane->inside, true))
        atomic_fetch_add(&lane->violated, 1);
    if (lane->seen++ != self->number)
        atomic_fetch_add(&lane->violated, 1);
    atomic_store(&lane->inside, false);
    free(self);
}

struct order_submitter {
    struct worker_pool *pool;
    struct order_lane *lanes;
    unsigned first;
};

static void *order_submit(void *arg)
{
    struct order_submitter *self = arg;
    for (unsigned n = 0; n < ORDER_JOBS; n++) {
        for (unsigned i = self->first; i < ORDER_LANES; i += ORDER_SUBMITTER) {
            struct order_job *job = calloc(1, sizeof *job);
            job->job.run = order_run;
            job->lane = &self->lanes[i];
            job->number = n;
            worker_pool_submit(self->pool, &self->lanes[i].lane, &job->job);
        }
    }
    return NULL;
}

static void test_order(void)
{
    struct worker_pool *pool = new_pool(6, 16);
    struct order_lane lanes[ORDER_LANES];
    memset(lanes, 0, sizeof lanes);
    pthread_t threads[ORDER_SUBMITTER];
    struct order_submitter submitters[ORDER_SUBMITTER];
    for (unsigned i = 0; i < ORDER_SUBMITTER; i++) {
        submitters[i] = (struct order_submitter){pool, lanes, i};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, order_submit, &submitters[i]), 0);
    }
    for (unsigned i = 0; i < ORDER_SUBMITTER; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_TRUE(worker_pool_drain(pool, 20000));
    for (unsigned i = 0; i < ORDER_LANES; i++) {
        CU_ASSERT_EQUAL(lanes[i].seen, ORDER_JOBS);
        CU_ASSERT_EQUAL(lanes[i].violated, 0);
    }
    worker_pool_free(pool);
}

/* ---- parallelism ---- */

struct gate_job {
    struct worker_job job;
    sem_t *arrived, *leave;
};

static void gate_run(struct worker_job *job)
{
    struct gate_job *self = (struct gate_job *)job;
    sem_post(self->arrived);
    sem_wait(self->leave);
}

static bool wait_for(sem_t *sem)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    return sem_timedwait(sem, &until) == 0;
}

#define GATES       4
#define GATE_ROUNDS 50

/* All are inside at once, or the test would wait in vain: also that waking is never rationed away. */
static void test_parallel(void)
{
    struct worker_pool *pool = new_pool(GATES, 16);
    struct worker_lane lanes[GATE_ROUNDS][GATES - 1];
    struct gate_job jobs[GATE_ROUNDS][GATES];
    memset(lanes, 0, sizeof lanes);
    sem_t arrived, leave;
    sem_init(&arrived, 0, 0);
    sem_init(&leave, 0, 0);
    for (int round = 0; round < GATE_ROUNDS; round++) {
        for (int i = 0; i < GATES; i++) {
            struct gate_job *job = &jobs[round][i];
            *job = (struct gate_job){{.run = gate_run}, &arrived, &leave};
            worker_pool_submit(pool, i < GATES - 1 ? &lanes[round][i] : NULL, &job->job);
        }
        for (int i = 0; i < GATES; i++)
            CU_ASSERT_TRUE_FATAL(wait_for(&arrived));
        for (int i = 0; i < GATES; i++)
            sem_post(&leave);
    }
    worker_pool_free(pool);
    sem_destroy(&arrived);
    sem_destroy(&leave);
}

/* ---- fairness ---- */

struct trace {
    char text[64];
    size_t len;
};

struct trace_job {
    struct worker_job job;
    struct trace *trace;
    char letter;
};

static void trace_run(struct worker_job *job)
{
    struct trace_job *self = (struct trace_job *)job;
    self->trace->text[self->trace->len++] = self->letter;
}

static void test_turns(void)
{
    struct worker_pool *pool = new_pool(1, 100);
    struct worker_lane a = {0}, b = {0};
    struct trace trace = {0};
    sem_t arrived, leave;
    sem_init(&arrived, 0, 0);
    sem_init(&leave, 0, 0);
    struct gate_job gate = {{.run = gate_run}, &arrived, &leave};
    worker_pool_submit(pool, NULL, &gate.job);
    CU_ASSERT_TRUE_FATAL(wait_for(&arrived));
    struct trace_job jobs[10];
    for (int i = 0; i < 10; i++)
        jobs[i] = (struct trace_job){{.run = trace_run}, &trace, i < 6 ? 'a' : i < 9 ? 'b' : '-'};
    for (int i = 0; i < 10; i++)
        worker_pool_submit(pool, i < 6 ? &a : i < 9 ? &b : NULL, &jobs[i].job);
    CU_ASSERT_EQUAL(worker_pool_queued(pool), 10);
    sem_post(&leave);
    CU_ASSERT_TRUE(worker_pool_drain(pool, 20000));
    CU_ASSERT_STRING_EQUAL(trace.text, "ab-ababaaa");
    worker_pool_free(pool);
    sem_destroy(&arrived);
    sem_destroy(&leave);
}

/* ---- ownership ---- */

struct owned {
    struct worker_lane lane;
    atomic_uint *freed;
};

struct owned_job {
    struct worker_job job;
    struct owned *owner;
};

static void owned_step(struct worker_job *job)
{
    free(job);
}

static void owned_last(struct worker_job *job)
{
    struct owned *owner = ((struct owned_job *)job)->owner;
    atomic_fetch_add(owner->freed, 1);
    free(owner);
    free(job);
}

/* Under the address sanitizer, a touch of freed memory ends the test. */
static void test_self_freeing(void)
{
    struct worker_pool *pool = new_pool(4, 16);
    atomic_uint freed = 0;
    for (int i = 0; i < 300; i++) {
        struct owned *owner = calloc(1, sizeof *owner);
        struct owned_job *first = calloc(1, sizeof *first), *last = calloc(1, sizeof *last);
        owner->freed = &freed;
        first->job.run = owned_step;
        last->job.run = owned_last;
        last->job.release_lane = true;
        last->owner = owner;
        worker_pool_submit(pool, &owner->lane, &first->job);
        worker_pool_submit(pool, &owner->lane, &last->job);
    }
    CU_ASSERT_TRUE(worker_pool_drain(pool, 20000));
    CU_ASSERT_EQUAL(freed, 300);
    worker_pool_free(pool);
}

struct chain_job {
    struct worker_job job;
    struct worker_pool *pool;
    struct worker_lane *lane;
    unsigned left;
};

static void chain_run(struct worker_job *job)
{
    struct chain_job *self = (struct chain_job *)job;
    if (self->left-- > 1)
        worker_pool_submit(self->pool, self->lane, job);
}

/* A job that submits itself again, as the steps of an upload do; freeing the pool runs the whole chain. */
static void test_resubmit(void)
{
    struct worker_pool *pool = new_pool(3, 16);
    struct worker_lane lane = {0};
    struct chain_job jobs[2] = {{{.run = chain_run}, pool, &lane, 500}, {{.run = chain_run}, pool, NULL, 500}};
    worker_pool_submit(pool, &lane, &jobs[0].job);
    worker_pool_submit(pool, NULL, &jobs[1].job);
    worker_pool_free(pool);
    CU_ASSERT_EQUAL(jobs[0].left, 0);
    CU_ASSERT_EQUAL(jobs[1].left, 0);
}

/* ---- bounds ---- */

static void test_full_and_draining(void)
{
    struct worker_pool *pool = new_pool(1, 2);
    struct trace trace = {0};
    sem_t arrived, leave;
    sem_init(&arrived, 0, 0);
    sem_init(&leave, 0, 0);
    struct gate_job gate = {{.run = gate_run}, &arrived, &leave};
    CU_ASSERT_EQUAL(worker_pool_try_submit(pool, NULL, &gate.job), BLOB_OK);
    CU_ASSERT_TRUE_FATAL(wait_for(&arrived));
    struct trace_job jobs[4];
    for (int i = 0; i < 4; i++)
        jobs[i] = (struct trace_job){{.run = trace_run}, &trace, (char)('0' + i)};
    CU_ASSERT_EQUAL(worker_pool_try_submit(pool, NULL, &jobs[0].job), BLOB_OK);
    CU_ASSERT_EQUAL(worker_pool_try_submit(pool, NULL, &jobs[1].job), BLOB_OK);
    CU_ASSERT_EQUAL(worker_pool_try_submit(pool, NULL, &jobs[2].job), BLOB_E_UNAVAILABLE);
    worker_pool_submit(pool, NULL, &jobs[3].job);
    CU_ASSERT_EQUAL(worker_pool_queued(pool), 3);
    CU_ASSERT_FALSE(worker_pool_drain(pool, 20));
    sem_post(&leave);
    CU_ASSERT_TRUE(worker_pool_drain(pool, 20000));
    CU_ASSERT_STRING_EQUAL(trace.text, "013");
    CU_ASSERT_EQUAL(worker_pool_try_submit(pool, NULL, &jobs[2].job), BLOB_E_UNAVAILABLE);
    worker_pool_submit(pool, NULL, &jobs[2].job);
    CU_ASSERT_TRUE(worker_pool_drain(pool, 20000));
    CU_ASSERT_STRING_EQUAL(trace.text, "0132");
    worker_pool_free(pool);
    sem_destroy(&arrived);
    sem_destroy(&leave);
}

static void test_free(void)
{
    struct worker_pool *pool = new_pool(8, 1);
    worker_pool_free(pool);
    worker_pool_free(NULL);
    struct order_lane lane = {0};
    pool = new_pool(2, 1);
    for (unsigned i = 0; i < 100; i++) {
        struct order_job *job = calloc(1, sizeof *job);
        job->job.run = order_run;
        job->lane = &lane;
        job->number = i;
        worker_pool_submit(pool, &lane.lane, &job->job);
    }
    worker_pool_free(pool);
    CU_ASSERT_EQUAL(lane.seen, 100);
    CU_ASSERT_EQUAL(lane.violated, 0);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a lane's jobs run one at a time, in order, and none is lost", test_order},
        {"lanes and jobs without one run at the same time", test_parallel},
        {"lanes take turns", test_turns},
        {"jobs and lanes may free themselves", test_self_freeing},
        {"a job may submit itself again", test_resubmit},
        {"a full or draining pool refuses, but not the steps of admitted work", test_full_and_draining},
        {"freeing runs what is queued", test_free},
        CU_TEST_INFO_NULL};
    return unit_main("worker_pool", tests);
}
