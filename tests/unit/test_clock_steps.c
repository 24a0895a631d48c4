/*
 * clock steps - the wall clock is set, either way, while uploads are idle: nothing goes that would not have gone
 * without it, until the clock has been steady for a sweep interval; and what was lost meanwhile is taken up again. The
 * clocks are defined here, in the test program, so that they can be set.
 */
#include "core/clock_watch.h"
#include "core/janitor.h"
#include "tests/unit/upload_rig.h"

#include <sys/syscall.h>
#include <time.h>

#define HOUR INT64_C(3600000)
#define DAY  (24 * HOUR)

static _Atomic int64_t wall_ahead_ms, steady_ahead_ms;

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int result = (int)syscall(SYS_clock_gettime, clock, t);
    int64_t ahead_ms = clock == CLOCK_REALTIME ? wall_ahead_ms : clock == CLOCK_MONOTONIC ? steady_ahead_ms : 0;
    t->tv_sec += ahead_ms / 1000;
    return result;
}

/* Time passes, on both. */
static void pass(int64_t ms)
{
    wall_ahead_ms += ms;
    steady_ahead_ms += ms;
}

static void test_watch(void)
{
    struct clock_watch w;
    int64_t step_ms = 0;
    clock_watch_begin(&w);
    pass(30 * DAY);
    CU_ASSERT_FALSE(clock_watch_stepped(&w));
    CU_ASSERT_FALSE(clock_watch_look(&w, &step_ms));
    CU_ASSERT_TRUE(clock_watch_steady_ms(&w) >= 30 * DAY);
    for (int i = 0; i < 2; i++) {
        int64_t by_ms = i == 0 ? DAY : -3 * DAY;
        wall_ahead_ms += by_ms;
        CU_ASSERT_TRUE(clock_watch_stepped(&w));
        CU_ASSERT_TRUE(clock_watch_look(&w, &step_ms));
        CU_ASSERT_TRUE(step_ms > by_ms - 1000 && step_ms < by_ms + 1000);
        CU_ASSERT_FALSE(clock_watch_stepped(&w));
        CU_ASSERT_FALSE(clock_watch_look(&w, &step_ms));
        CU_ASSERT_TRUE(clock_watch_steady_ms(&w) < 60000);
        pass(HOUR);
        CU_ASSERT_TRUE(clock_watch_steady_ms(&w) >= HOUR);
    }
    wall_ahead_ms = steady_ahead_ms = 0;
}

static struct janitor *janitor_of(struct upload_rig *u)
{
    static const struct janitor_options opt = {.sweep_interval_ms = 2000, .grace_ms = HOUR, .upload_timeout_ms = HOUR};
    const struct janitor_parts parts = {
        .store = u->base.store, .sessions = u->base.sessions, .catalog = u->base.catalog, .uploads = u->node[0].svc};
    return janitor_new(&parts, &opt);
}

static bool has_upload(struct upload_rig *u, const struct uuid *id)
{
    struct upload_stat stat;
    return upload_stat(u->base.store, id, &stat, NULL) == BLOB_OK;
}

/* A day ahead, for less than the sweep interval; then for good. */
static void test_idle_upload_outlives_a_step(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "idle"), API_OK);
    struct digest blob = rig_put(&u.base, "unnamed, and young");
    struct janitor *j = janitor_of(&u);
    CU_ASSERT_EQUAL_FATAL(janitor_start(j, NULL), BLOB_OK);
    usleep(1300000);
    wall_ahead_ms = DAY;
    usleep(1500000);
    wall_ahead_ms = 0;
    CU_ASSERT_TRUE(has_upload(&u, &c.id));
    CU_ASSERT_TRUE(rig_has_blob(&u.base, &blob));
    usleep(3200000);
    CU_ASSERT_TRUE(has_upload(&u, &c.id));
    CU_ASSERT_EQUAL(client_append(&c, NULL, " no more"), API_OK);
    wall_ahead_ms = DAY;
    for (int i = 0; i < 600 && has_upload(&u, &c.id); i++)
        usleep(50000);
    CU_ASSERT_FALSE(has_upload(&u, &c.id));
    janitor_stop(j);
    janitor_free(j);
    wall_ahead_ms = 0;
    upload_rig_close(&u);
}

static struct upload_rig *stepping;

static enum blob_status step_after_listing(struct blob_store *s, const char *prefix, const char *after, size_t limit,
                                           bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    enum blob_status st = stepping->base.real->record_list(s, prefix, after, limit, with_values, fn, arg, err);
    wall_ahead_ms = DAY;
    return st;
}

/* Between the listing and the look at each. */
static void test_step_in_a_sweep(void)
{
    struct upload_rig u;
    wall_ahead_ms = -2 * HOUR;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    wall_ahead_ms = -HOUR - HOUR / 6;
    CU_ASSERT_EQUAL(client_append(&c, NULL, "old, "), API_OK);
    wall_ahead_ms = -HOUR / 2;
    CU_ASSERT_EQUAL(client_append(&c, NULL, "and lively"), API_OK);
    wall_ahead_ms = 0;
    stepping = &u;
    u.base.ops.record_list = step_after_listing;
    CU_ASSERT_EQUAL(upload_service_expire(u.node[0].svc, clock_wall_ms(), NULL, NULL), BLOB_OK);
    wall_ahead_ms = 0;
    CU_ASSERT_TRUE(has_upload(&u, &c.id));
    CU_ASSERT_EQUAL(client_append(&c, NULL, " still"), API_OK);
    upload_rig_close(&u);
}

/* A writer's epoch is of its time: one that was set back, with a session that was lost, meets a later one. */
static void test_lost_session_after_a_step_back(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 2);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "before "), API_OK);
    memory_hub_empty(u.hub);
    wall_ahead_ms = -DAY / 2;
    CU_ASSERT_EQUAL(client_append(&c, NULL, "after"), API_OK);
    struct digest d = text_digest("before after");
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, NULL), API_OK);
    wall_ahead_ms = 0;
    upload_rig_close(&u);
}

/* A lease is no longer than it can be: what says otherwise was written by another clock. */
static void test_lease_after_a_step_back(void)
{
    struct upload_rig u;
    struct upload_append *dead;
    upload_rig_open(&u, NULL, 2);
    struct client a = client_new(&u), b = a;
    b.node = 1;
    CU_ASSERT_EQUAL_FATAL(client_begin(&a, &(struct ask){.token = a.first, .data = "dead", .len = 4}, &dead), API_OK);
    CU_ASSERT_EQUAL(upload_append_write_bytes(dead, "de", 2, &a.err), API_OK);
    wall_ahead_ms = -DAY / 2;
    CU_ASSERT_EQUAL(client_peek(&b), 0);
    CU_ASSERT_EQUAL(client_append(&b, b.first, "alive"), API_OK);
    CU_ASSERT_EQUAL(b.offset, 5);
    CU_ASSERT_EQUAL(upload_append_end(dead, UPLOAD_BODY_CUT, &a.result, &a.err), API_UPLOAD_SUPERSEDED);
    wall_ahead_ms = 0;
    upload_rig_close(&u);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a step is seen either way, and time that passes is none", test_watch},
        {"an idle upload outlives a step, and goes when it was none", test_idle_upload_outlives_a_step},
        {"a step in the middle of a sweep ends no upload", test_step_in_a_sweep},
        {"a lost session goes on after a step back", test_lost_session_after_a_step_back},
        {"a lease of another clock keeps nobody out", test_lease_after_a_step_back},
        CU_TEST_INFO_NULL};
    return unit_main("clock steps", tests);
}
