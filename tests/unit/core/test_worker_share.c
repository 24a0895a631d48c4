/* worker_share - its bound is kept, those who ask take turns, and what is given up is the oldest of who asks for most.
 */
#include "core/worker_share.h"
#include "tests/rig/unit_main.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>

#define THREADS 8

struct trial {
    pthread_mutex_t lock;
    char ran[64], dropped[64]; /* names, in order */
    atomic_uint running, most, ends;
    sem_t started, leave;
};

struct named_job {
    struct share_job job;
    struct trial *trial;
    char name;
};

static void note(struct trial *t, char *text, char name)
{
    pthread_mutex_lock(&t->lock);
    size_t len = strlen(text);
    text[len] = name;
    pthread_mutex_unlock(&t->lock);
}

static void named_run(struct share_job *job)
{
    struct named_job *self = (struct named_job *)job;
    struct trial *t = self->trial;
    unsigned now = atomic_fetch_add(&t->running, 1) + 1, most = atomic_load(&t->most);
    while (now > most && !atomic_compare_exchange_weak(&t->most, &most, now))
        ;
    note(t, t->ran, self->name);
    sem_post(&t->started);
    sem_wait(&t->leave);
    atomic_fetch_sub(&t->running, 1);
    free(self);
    atomic_fetch_add(&t->ends, 1);
}

static void named_drop(struct share_job *job)
{
    struct named_job *self = (struct named_job *)job;
    note(self->trial, self->trial->dropped, self->name);
    free(self);
}

static enum blob_status submit(struct worker_share *share, struct trial *t, uint64_t whose, char name)
{
    struct named_job *job = calloc(1, sizeof *job);
    job->job.run = named_run;
    job->job.drop = named_drop;
    job->trial = t;
    job->name = name;
    enum blob_status st = worker_share_try_submit(share, whose, &job->job);
    if (st != BLOB_OK)
        free(job);
    return st;
}

static struct worker_share *begin(struct trial *t, unsigned limit, size_t waiting, struct worker_pool **pool)
{
    memset(t, 0, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    sem_init(&t->started, 0, 0);
    sem_init(&t->leave, 0, 0);
    CU_ASSERT_EQUAL_FATAL(worker_pool_new(THREADS, 100, pool, NULL), BLOB_OK);
    struct worker_share *share = worker_share_new(*pool, limit, waiting);
    CU_ASSERT_PTR_NOT_NULL_FATAL(share);
    return share;
}

static void end(struct trial *t, struct worker_share *share, struct worker_pool *pool)
{
    CU_ASSERT_TRUE(worker_pool_drain(pool, 20000));
    worker_pool_free(pool);
    worker_share_free(share);
    sem_destroy(&t->started);
    sem_destroy(&t->leave);
    pthread_mutex_destroy(&t->lock);
}

static void pool_run(struct worker_job *job)
{
    sem_post((sem_t *)(void *)(job + 1));
}

struct plain_job {
    struct worker_job job;
    sem_t ran;
};

static void test_bound(void)
{
    struct trial t;
    struct worker_pool *pool = NULL;
    struct worker_share *share = begin(&t, 2, 100, &pool);
    for (char c = 'a'; c < 'k'; c++)
        CU_ASSERT_EQUAL(submit(share, &t, (uint64_t)c, c), BLOB_OK);
    sem_wait(&t.started);
    sem_wait(&t.started);
    CU_ASSERT_EQUAL(worker_share_waiting(share), 8);
    CU_ASSERT_EQUAL(worker_pool_queued(pool), 0);
    /* The other workers are free for the rest. */
    struct plain_job other = {.job = {.run = pool_run}};
    sem_init(&other.ran, 0, 0);
    worker_pool_submit(pool, NULL, &other.job);
    sem_wait(&other.ran);
    sem_destroy(&other.ran);
    for (int i = 0; i < 10; i++)
        sem_post(&t.leave);
    end(&t, share, pool);
    CU_ASSERT_EQUAL(atomic_load(&t.ends), 10);
    CU_ASSERT_EQUAL(atomic_load(&t.most), 2);
    CU_ASSERT_STRING_EQUAL(t.dropped, "");
}

/* One asks for six, another comes later with one: it is served within a turn. Of the six the newest goes first. */
static void test_turns(void)
{
    struct trial t;
    struct worker_pool *pool = NULL;
    struct worker_share *share = begin(&t, 1, 100, &pool);
    for (char c = 'a'; c < 'g'; c++)
        CU_ASSERT_EQUAL(submit(share, &t, 1, c), BLOB_OK);
    CU_ASSERT_EQUAL(submit(share, &t, 2, 'X'), BLOB_OK);
    for (int i = 0; i < 7; i++)
        sem_post(&t.leave);
    end(&t, share, pool);
    CU_ASSERT_EQUAL(strlen(t.ran), 7);
    const char *x = strchr(t.ran, 'X');
    CU_ASSERT_TRUE(t.ran[0] == 'a' && x != NULL && x - t.ran <= 2);
    CU_ASSERT_TRUE(strchr(t.ran, 'f') < strchr(t.ran, 'b'));
}

static void test_excess(void)
{
    struct trial t;
    struct worker_pool *pool = NULL;
    struct worker_share *share = begin(&t, 1, 4, &pool);
    CU_ASSERT_EQUAL(submit(share, &t, 1, 'a'), BLOB_OK);
    sem_wait(&t.started);
    for (char c = 'b'; c < 'h'; c++)
        CU_ASSERT_EQUAL(submit(share, &t, 1, c), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(t.dropped, "bc");
    CU_ASSERT_EQUAL(submit(share, &t, 2, 'X'), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(t.dropped, "bcd");
    CU_ASSERT_EQUAL(worker_share_waiting(share), 4);
    for (int i = 0; i < 5; i++)
        sem_post(&t.leave);
    end(&t, share, pool);
    CU_ASSERT_EQUAL(strlen(t.ran), 5);
    CU_ASSERT_PTR_NOT_NULL(strchr(t.ran, 'X'));
}

static void test_draining(void)
{
    struct trial t;
    struct worker_pool *pool = NULL;
    struct worker_share *share = begin(&t, 1, 4, &pool);
    CU_ASSERT_TRUE(worker_pool_drain(pool, 20000));
    CU_ASSERT_EQUAL(submit(share, &t, 1, 'a'), BLOB_E_UNAVAILABLE);
    end(&t, share, pool);
    worker_share_free(NULL);
}

int main(void)
{
    CU_TestInfo tests[] = {{"no more than the share run, and the rest of the pool is free", test_bound},
                           {"those who ask take turns, each one's newest first", test_turns},
                           {"beyond the bound the oldest of who asks for most is given up", test_excess},
                           {"a draining pool refuses", test_draining},
                           CU_TEST_INFO_NULL};
    return unit_main("worker_share", tests);
}
