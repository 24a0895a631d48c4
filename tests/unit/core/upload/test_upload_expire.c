/*
 * upload_expire - whatever is past its time goes, however much that is not stands before it, and whatever of it cannot
 * be removed just now; what is not stays.
 */
#include "tests/rig/upload_rig.h"

#include "core/fault.h"
#include "core/session/upload_record.h"

#include <errno.h>

#define MINUTE INT64_C(60000)

enum { MANY = 600 };

static struct uuid stage(struct upload_rig *u)
{
    struct uuid id;
    struct upload_mark mark = {0};
    struct blob_writer *w;
    uuid_new(&id);
    CU_ASSERT_EQUAL_FATAL(staged_open(u->base.store, &id, &mark, 1, &w, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(writer_write_bytes(w, "left over", 9, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(writer_flush(w, 9, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    return id;
}

static bool is_staged(struct upload_rig *u, const struct uuid *id)
{
    struct staged_stat stat;
    return staged_stat(u->base.store, id, &stat, NULL) == BLOB_OK;
}

static unsigned staged_of(struct upload_rig *u, const struct uuid *ids, unsigned count)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        n += is_staged(u, &ids[i]);
    return n;
}

static enum blob_status expire(struct upload_rig *u, int64_t after_ms)
{
    return upload_service_expire(u->node[0].svc, clock_wall_ms() + after_ms, NULL, NULL);
}

/* Uploads that idle are listed among what is left over: before it, behind it, as their ids are. */
static void test_left_over_behind_idle_uploads(void)
{
    static struct uuid idle[MANY], left[MANY];
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    opt.timeout_ms = 24 * 60 * MINUTE;
    upload_rig_open(&u, &opt, 1);
    for (int i = 0; i < MANY; i++) {
        struct client c = client_new(&u);
        CU_ASSERT_EQUAL(client_append(&c, NULL, "x"), API_OK);
        idle[i] = c.id;
    }
    left[0] = stage(&u);
    left[1] = stage(&u);
    CU_ASSERT_EQUAL(expire(&u, 59 * MINUTE), BLOB_OK);
    CU_ASSERT_EQUAL(staged_of(&u, left, 2), 2);
    CU_ASSERT_EQUAL(expire(&u, 61 * MINUTE), BLOB_OK);
    CU_ASSERT_EQUAL(staged_of(&u, left, 2), 0);
    CU_ASSERT_EQUAL(staged_of(&u, idle, MANY), MANY);
    for (int i = 0; i < MANY; i++)
        left[i] = stage(&u);
    CU_ASSERT_EQUAL(expire(&u, 61 * MINUTE), BLOB_OK);
    CU_ASSERT_EQUAL(staged_of(&u, left, MANY), 0);
    CU_ASSERT_EQUAL(staged_of(&u, idle, MANY), MANY);
    upload_rig_close(&u);
}

/* One that cannot be removed holds up no other, and is told. */
static void expire_with_one_failure(int error, enum blob_status st)
{
    static struct uuid left[8], old[8];
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    opt.timeout_ms = 50;
    upload_rig_open(&u, &opt, 1);
    for (int i = 0; i < 8; i++) {
        struct client c = client_new(&u);
        CU_ASSERT_EQUAL(client_append(&c, NULL, "x"), API_OK);
        old[i] = c.id;
        left[i] = stage(&u);
    }
    usleep(100000);
    fault_arm("store.upload_discard", error, 0, 1);
    CU_ASSERT_EQUAL(expire(&u, 0), st);
    fault_disarm_all();
    CU_ASSERT_TRUE(staged_of(&u, old, 8) + staged_of(&u, left, 8) <= 1);
    CU_ASSERT_EQUAL(expire(&u, 0), BLOB_OK);
    CU_ASSERT_EQUAL(staged_of(&u, old, 8) + staged_of(&u, left, 8), 0);
    upload_rig_close(&u);
}

static void test_a_failure_holds_up_no_other(void)
{
    expire_with_one_failure(EIO, BLOB_E_IO);
    expire_with_one_failure(EMFILE, BLOB_E_UNAVAILABLE); /* this upload's own, for good maybe */
}

/* A store that is away is not asked for each of them. */
static void test_a_store_that_is_away_ends_the_round(void)
{
    static struct uuid old[32];
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    opt.timeout_ms = 50;
    upload_rig_open(&u, &opt, 1);
    for (int i = 0; i < 32; i++) {
        struct client c = client_new(&u);
        CU_ASSERT_EQUAL(client_append(&c, NULL, "x"), API_OK);
        old[i] = c.id;
    }
    usleep(100000);
    fault_arm("store.upload_discard", EMFILE, 0, 8);
    CU_ASSERT_EQUAL(expire(&u, 0), BLOB_E_UNAVAILABLE);
    fault_disarm_all();
    CU_ASSERT_EQUAL(staged_of(&u, old, 32), 32); /* of eight failures four were met */
    CU_ASSERT_EQUAL(expire(&u, 0), BLOB_OK);
    CU_ASSERT_EQUAL(staged_of(&u, old, 32), 0);
    upload_rig_close(&u);
}

/* A record that cannot be read is no record that is not there. */
static void test_no_removal_in_doubt(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "x"), API_OK);
    fault_arm("store.record_get", EIO, 0, 0);
    CU_ASSERT_EQUAL(expire(&u, 61 * MINUTE), BLOB_E_IO);
    fault_disarm_all();
    CU_ASSERT_TRUE(is_staged(&u, &c.id));
    upload_rig_close(&u);
}

int main(void)
{
    CU_TestInfo tests[] = {{"staged bytes without a record are found behind any number of idle uploads",
                            test_left_over_behind_idle_uploads},
                           {"what cannot be removed holds up nothing else", test_a_failure_holds_up_no_other},
                           {"a store that is away ends the round", test_a_store_that_is_away_ends_the_round},
                           {"nothing is removed when its record cannot be read", test_no_removal_in_doubt},
                           CU_TEST_INFO_NULL};
    return unit_main("upload_expire", tests);
}
