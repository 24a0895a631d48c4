/*
 * disk_power_loss - nothing that was acknowledged is lost when the power fails, at any moment and whatever of the
 * unsynced writes got through; nothing half is seen, and of no upload more than was sent and flushed.
 *
 * Threads use a disk store on the rig's disk, noting what was promised to them and when. Then, for many moments, what
 * might be left of the disk is built (power_rig.h), a store is opened on it, and all that was promised by that moment
 * is looked for. The same is done on a disk whose syncs do nothing: there it must fail, or the test would prove
 * nothing.
 */
#include "tests/rig/power_rig.h"

#include "backends/disk/disk_store.h"
#include "core/clock.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"
#include "tests/rig/upload_life.h"

#define THREADS 4
#define CYCLES  60
#define MOMENTS 50
#define NEVER   SIZE_MAX

struct witnessed {
    struct life life;
    size_t moments[LIFE_STEPS];
};

struct worker {
    struct blob_store *store;
    struct witnessed lives[CYCLES];
    unsigned failures;
};

enum mode { JOURNAL, PLAIN, SHARED };

static struct disk_options options(const char *root, enum mode mode)
{
    return (struct disk_options){.root = root,
                                 .journal = mode == JOURNAL,
                                 .shared = mode == SHARED,
                                 .direct_min_bytes = 8192, /* both ways */
                                 .journal_segment_bytes = 1u << 20,
                                 .journal_segments = 4,
                                 .checkpoint_ms = 100};
}

static void note_moment(const struct life *life, enum life_step step, void *arg)
{
    (void)life;
    struct witnessed *w = arg;
    w->moments[step] = rig_now();
}

static void *work(void *arg)
{
    struct worker *wk = arg;
    for (unsigned i = 0; i < CYCLES; i++)
        wk->failures += !life_live(wk->store, &wk->lives[i].life, note_moment, &wk->lives[i]);
    return NULL;
}

static void tell(size_t moment, const char *what)
{
    if (!rig.lying)
        fprintf(stderr, "moment %zu: %s\n", moment, what);
}

/* What is lost of a store that had its power cut at the moment. */
static unsigned look_at(const struct worker *workers, enum mode mode, size_t moment, enum rig_luck luck, unsigned seed)
{
    char left[TEMP_DIR_CHARS];
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    temp_dir_make_in_memory(left);
    rig_build(left, moment, luck, seed);
    struct disk_options opt = options(left, mode);
    unsigned losses = disk_store_open(&opt, &s, &err) != BLOB_OK;
    if (losses > 0)
        tell(moment, err.text);
    for (unsigned i = 0; s && i < THREADS * CYCLES; i++) {
        const struct witnessed *w = &workers[i / CYCLES].lives[i % CYCLES];
        bool passed[LIFE_STEPS];
        for (int step = 0; step < LIFE_STEPS; step++)
            passed[step] = w->moments[step] <= moment;
        const char *missing = life_missing(s, &w->life, passed);
        losses += missing != NULL;
        if (missing)
            tell(moment, missing);
    }
    unsigned broken = s ? life_broken(s) : 0;
    if (broken > 0)
        tell(moment, "blobs or records are not whole");
    blob_store_close(s);
    temp_dir_remove(left);
    return losses + broken;
}

static void record_work(struct worker *workers, const char *root, enum mode mode, size_t *opened, size_t *ended)
{
    pthread_t threads[THREADS];
    struct blob_store *s = NULL;
    rig_start(root);
    struct disk_options opt = options(root, mode);
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    *opened = rig_now();
    for (unsigned t = 0; t < THREADS; t++) {
        workers[t] = (struct worker){.store = s};
        for (unsigned i = 0; i < CYCLES; i++) {
            life_plan(&workers[t].lives[i].life, t * CYCLES + i);
            for (int step = 0; step < LIFE_STEPS; step++)
                workers[t].lives[i].moments[step] = NEVER;
        }
    }
    for (unsigned t = 0; t < THREADS; t++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[t], NULL, work, &workers[t]), 0);
    for (unsigned t = 0; t < THREADS; t++) {
        pthread_join(threads[t], NULL);
        CU_ASSERT_EQUAL(workers[t].failures, 0);
    }
    *ended = rig_now();
    blob_store_close(s);
    rig_stop();
}

/* Records some work, and looks at many moments of it, until losses are found. */
static unsigned lose_power(enum mode mode, bool lying)
{
    char root[TEMP_DIR_CHARS];
    size_t opened = 0, ended = 0;
    unsigned losses = 0, seed = (unsigned)clock_wall_ms();
    struct worker *workers = calloc(THREADS, sizeof *workers);
    CU_ASSERT_PTR_NOT_NULL_FATAL(workers);
    temp_dir_make_in_memory(root);
    rig.lying = lying;
    record_work(workers, root, mode, &opened, &ended);
    printf("(%zu changes, seed %u) ", ended - opened, seed);
    for (unsigned i = 0; i < MOMENTS && losses == 0; i++) {
        unsigned draw = seed + i;
        size_t moment = opened + (size_t)rand_r(&draw) % (ended - opened + 1);
        losses = look_at(workers, mode, moment, (enum rig_luck)(i % RIG_LUCKS), draw);
    }
    rig_release();
    temp_dir_remove(root);
    free(workers);
    return losses;
}

/* ---- set aside, and stored again ---- */

#define AGAIN 40

/* Content that is stored, found damaged, and stored again. */
struct again {
    uint64_t size;
    unsigned seed;
    size_t stored; /* when the second time was acknowledged */
};

struct again_worker {
    struct blob_store *store;
    unsigned number, failures;
    struct again all[AGAIN];
};

static void *work_again(void *arg)
{
    struct again_worker *wk = arg;
    for (unsigned i = 0; i < AGAIN; i++) {
        struct again *a = &wk->all[i];
        struct digest digest;
        struct blob_info info;
        bool lazy = i % 3 == 1;
        a->seed = 5000 + wk->number * AGAIN + i;
        a->size = i % 4 == 0 ? 200000 : 3000 + i;
        wk->failures += content_store(wk->store, a->size, a->seed, lazy ? BLOB_LAZY : 0, &digest) != BLOB_OK ||
                        blob_stat(wk->store, &digest, &info, NULL) != BLOB_OK ||
                        blob_set_aside(wk->store, &digest, info.touched_ms, NULL) != BLOB_OK ||
                        content_store(wk->store, a->size, a->seed, lazy ? BLOB_LAZY : 0, &digest) != BLOB_OK;
        wk->failures += lazy && record_put(wk->store, "files/x/1", "files/x/1", 9, 0, NULL) != BLOB_OK;
        a->stored = rig_now();
    }
    return NULL;
}

static unsigned look_at_again(const struct again_worker *workers, enum mode mode, size_t moment, enum rig_luck luck,
                              unsigned seed)
{
    char left[TEMP_DIR_CHARS];
    struct blob_store *s = NULL;
    unsigned losses = 0;
    temp_dir_make_in_memory(left);
    rig_build(left, moment, luck, seed);
    struct disk_options opt = options(left, mode);
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    for (unsigned i = 0; i < 2 * AGAIN; i++) {
        const struct again *a = &workers[i / AGAIN].all[i % AGAIN];
        losses += a->stored <= moment && !content_intact(s, a->size, a->seed);
    }
    losses += life_broken(s);
    if (losses > 0)
        tell(moment, "stored again, and not whole");
    blob_store_close(s);
    temp_dir_remove(left);
    return losses;
}

/* A replay must not take what was stored again for what was damaged. */
static unsigned lose_power_again(enum mode mode)
{
    char root[TEMP_DIR_CHARS];
    pthread_t threads[2];
    struct blob_store *s = NULL;
    unsigned losses = 0, seed = (unsigned)clock_wall_ms();
    static struct again_worker workers[2];
    temp_dir_make_in_memory(root);
    rig_start(root);
    struct disk_options opt = options(root, mode);
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    size_t opened = rig_now();
    for (unsigned t = 0; t < 2; t++) {
        workers[t] = (struct again_worker){.store = s, .number = t};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[t], NULL, work_again, &workers[t]), 0);
    }
    for (unsigned t = 0; t < 2; t++) {
        pthread_join(threads[t], NULL);
        CU_ASSERT_EQUAL(workers[t].failures, 0);
    }
    size_t ended = rig_now();
    blob_store_close(s);
    rig_stop();
    printf("(%zu changes, seed %u) ", ended - opened, seed);
    for (unsigned i = 0; i < MOMENTS / 2 && losses == 0; i++) {
        unsigned draw = seed + i;
        size_t moment = opened + (size_t)rand_r(&draw) % (ended - opened + 1);
        losses = look_at_again(workers, mode, moment, (enum rig_luck)(i % RIG_LUCKS), draw);
    }
    rig_release();
    temp_dir_remove(root);
    return losses;
}

static void test_set_aside(void)
{
    CU_ASSERT_EQUAL(lose_power_again(JOURNAL), 0);
    CU_ASSERT_EQUAL(lose_power_again(PLAIN), 0);
}

static void test_journal(void)
{
    CU_ASSERT_EQUAL(lose_power(JOURNAL, false), 0);
}

static void test_plain(void)
{
    CU_ASSERT_EQUAL(lose_power(PLAIN, false), 0);
}

static void test_shared(void)
{
    CU_ASSERT_EQUAL(lose_power(SHARED, false), 0);
}

static void test_lying_disk(void)
{
    CU_ASSERT_NOT_EQUAL(lose_power(JOURNAL, true), 0);
    CU_ASSERT_NOT_EQUAL(lose_power(PLAIN, true), 0);
}

int main(void)
{
    CU_TestInfo tests[] = {{"nothing acknowledged is lost, with the journal", test_journal},
                           {"nothing acknowledged is lost, without it", test_plain},
                           {"nothing acknowledged is lost, shared by nodes", test_shared},
                           {"what was set aside and stored again is whole", test_set_aside},
                           {"on a disk that does not sync, losses are seen", test_lying_disk},
                           CU_TEST_INFO_NULL};
    return unit_main("disk power loss", tests);
}
