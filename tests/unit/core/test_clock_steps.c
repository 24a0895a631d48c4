/*
 * clock steps - the wall clock is set, either way, while uploads are idle: nothing goes that would not have gone
 * without it, until the clock has been steady for a sweep interval; and what was lost meanwhile is taken up again. The
 * clocks are defined here, in the test program, so that they can be set.
 */
#include "core/clock_record.h"
#include "core/clock_watch.h"
#include "core/node_clock.h"
#include "core/upkeep/janitor.h"
#include "tests/rig/upload_rig.h"

#include <sys/syscall.h>
#include <time.h>

#define HOUR INT64_C(3600000)
#define DAY  (24 * HOUR)

static _Atomic int64_t wall_ahead_ms, steady_ahead_ms; /* the boot clock is the steady one */

int clock_gettime(clockid_t clock, struct timespec *t)
{
    int result = (int)syscall(SYS_clock_gettime, clock, t);
    int64_t ahead_ms = clock == CLOCK_REALTIME                               ? wall_ahead_ms
                       : clock == CLOCK_MONOTONIC || clock == CLOCK_BOOTTIME ? steady_ahead_ms
                                                                             : 0;
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

/* ---- the node's clock ---- */

#define CALM_MS 2000

static bool about(int64_t a, int64_t b)
{
    return a - b < 1000 && b - a < 1000;
}

static bool is_time(struct node_clock *c, int64_t at_least_ms, int64_t best_ms, int64_t at_most_ms)
{
    return about(node_clock_at_least_ms(c), at_least_ms) && about(node_clock_best_ms(c), best_ms) &&
           about(node_clock_at_most_ms(c), at_most_ms);
}

static bool is_together(struct node_clock *c)
{
    return is_time(c, clock_wall_ms(), clock_wall_ms(), clock_wall_ms());
}

static void clocks_reset(void)
{
    wall_ahead_ms = steady_ahead_ms = 0;
}

static void test_clock_ahead(void)
{
    int64_t now_ms, step_ms;
    struct node_clock *c = node_clock_new(CALM_MS);
    CU_ASSERT_TRUE(is_together(c));
    pass(30 * DAY);
    CU_ASSERT_TRUE(is_together(c));
    CU_ASSERT_TRUE(node_clock_calm(c, &now_ms, &step_ms) && step_ms == 0);
    wall_ahead_ms += DAY; /* for a moment */
    CU_ASSERT_TRUE(is_time(c, clock_wall_ms() - DAY, clock_wall_ms() - DAY, clock_wall_ms()));
    CU_ASSERT_FALSE(node_clock_calm(c, &now_ms, &step_ms));
    CU_ASSERT_TRUE(about(step_ms, DAY));
    wall_ahead_ms -= DAY;
    CU_ASSERT_TRUE(is_together(c));
    CU_ASSERT_FALSE(node_clock_calm(c, &now_ms, NULL));
    pass(2 * CALM_MS);
    CU_ASSERT_TRUE(node_clock_calm(c, &now_ms, NULL));
    wall_ahead_ms += DAY; /* for good */
    CU_ASSERT_FALSE(is_together(c));
    pass(CALM_MS / 2);
    CU_ASSERT_FALSE(is_together(c));
    pass(CALM_MS);
    CU_ASSERT_TRUE(is_together(c));
    CU_ASSERT_TRUE(node_clock_calm(c, &now_ms, NULL));
    node_clock_free(c);
    clocks_reset();
}

/* Lives that begin meanwhile are counted from the time that it was, also when the clock has long been believed. */
static void test_clock_behind(void)
{
    int64_t now_ms, step_ms;
    struct node_clock *c = node_clock_new(CALM_MS);
    wall_ahead_ms = -DAY;
    CU_ASSERT_TRUE(is_time(c, clock_wall_ms(), clock_wall_ms() + DAY, clock_wall_ms() + DAY));
    pass(2 * CALM_MS);
    CU_ASSERT_TRUE(is_time(c, clock_wall_ms(), clock_wall_ms(), clock_wall_ms() + DAY));
    CU_ASSERT_TRUE(node_clock_calm(c, &now_ms, &step_ms));
    wall_ahead_ms += DAY;
    CU_ASSERT_TRUE(is_time(c, clock_wall_ms() - DAY, clock_wall_ms() - DAY, clock_wall_ms()));
    pass(2 * CALM_MS);
    CU_ASSERT_TRUE(is_together(c));
    wall_ahead_ms -= 30 * DAY; /* what was believed before it was wrong, and not for nothing */
    pass(2 * CALM_MS);
    CU_ASSERT_FALSE(is_together(c));
    pass(2 * CALM_MS);
    CU_ASSERT_TRUE(is_together(c));
    node_clock_free(c);
    clocks_reset();
}

/* Redis' clock, which is where it was: this node's is wrong for as long as they disagree. */
static void test_clock_that_others_contradict(void)
{
    int64_t now_ms;
    struct node_clock *c = node_clock_new(CALM_MS);
    node_clock_compare(c, 20);
    wall_ahead_ms = DAY;
    CU_ASSERT_FALSE(is_together(c));
    pass(2 * CALM_MS); /* and it has not been asked since */
    for (int i = 0; i < 10; i++) {
        CU_ASSERT_TRUE(is_time(c, clock_wall_ms() - DAY, clock_wall_ms() - DAY, clock_wall_ms()));
        node_clock_compare(c, DAY);
        pass(CALM_MS);
        CU_ASSERT_FALSE(node_clock_calm(c, &now_ms, NULL));
    }
    node_clock_compare(c, 20);
    CU_ASSERT_TRUE(is_together(c) && node_clock_calm(c, &now_ms, NULL));
    node_clock_compare(c, -DAY); /* not this one was set */
    CU_ASSERT_TRUE(is_together(c));
    CU_ASSERT_FALSE(node_clock_calm(c, &now_ms, NULL));
    pass(HOUR); /* and it says nothing any more */
    CU_ASSERT_TRUE(node_clock_calm(c, &now_ms, NULL));
    node_clock_free(c);
    clocks_reset();
}

static struct node_clock *clock_started(struct rig *r)
{
    struct node_clock *c = node_clock_new(CALM_MS);
    clock_record_start(r->store, c, NULL);
    return c;
}

/* Between two processes: while the machine runs it is known how long that was, else that it was some time. */
static void test_clock_at_start(void)
{
    struct rig r;
    rig_open(&r);
    struct node_clock *c = clock_started(&r);
    CU_ASSERT_TRUE(is_together(c)); /* nothing is known */
    node_clock_free(c);
    CU_ASSERT_EQUAL(clock_record_keep(r.store, clock_wall_ms(), 0, NULL), BLOB_OK);
    pass(3 * HOUR);
    c = clock_started(&r);
    CU_ASSERT_TRUE(is_together(c));
    node_clock_free(c);
    for (int sign = -1; sign <= 1; sign += 2) {
        wall_ahead_ms += sign * DAY;
        int64_t now_ms = clock_wall_ms() - sign * DAY;
        c = clock_started(&r);
        CU_ASSERT_TRUE(sign > 0 ? is_time(c, now_ms, now_ms, now_ms + DAY) : is_time(c, now_ms - DAY, now_ms, now_ms));
        pass(2 * CALM_MS);
        CU_ASSERT_TRUE(sign < 0 || is_together(c));
        node_clock_free(c);
        wall_ahead_ms -= sign * DAY;
    }
    struct bytebuf value;
    bytebuf_init(&value);
    CU_ASSERT_EQUAL_FATAL(record_get(r.store, "clock/last", &value, NULL), BLOB_OK);
    char *boot = strstr((char *)value.data, "\"boot\":\"") + strlen("\"boot\":\"");
    *boot = *boot == 'a' ? 'b' : 'a'; /* started again since */
    CU_ASSERT_EQUAL(record_put(r.store, "clock/last", value.data, value.len, 0, NULL), BLOB_OK);
    int64_t kept_ms = clock_wall_ms() - 3 * HOUR;
    c = clock_started(&r);
    CU_ASSERT_TRUE(node_clock_at_least_ms(c) < kept_ms + HOUR && node_clock_at_least_ms(c) > kept_ms - HOUR);
    CU_ASSERT_TRUE(about(node_clock_at_most_ms(c), clock_wall_ms()));
    pass(2 * CALM_MS);
    CU_ASSERT_TRUE(is_together(c));
    node_clock_free(c);
    CU_ASSERT_EQUAL(record_put(r.store, "clock/last", "{}", 2, 0, NULL), BLOB_OK);
    c = clock_started(&r);
    CU_ASSERT_TRUE(is_together(c));
    node_clock_free(c);
    bytebuf_release(&value);
    rig_close(&r);
    clocks_reset();
}

/* The time that was believed before the clock was set back is known to the next process as well. */
static void test_lead_over_a_start(void)
{
    static const char old[] = "{\"v\":1,\"wall_ms\":%lld,\"boot_ms\":%lld,\"boot\":\"\"}";
    struct rig r;
    char value[128];
    rig_open(&r);
    struct node_clock *c = clock_started(&r);
    CU_ASSERT_TRUE(is_together(c));
    wall_ahead_ms -= DAY;
    CU_ASSERT_FALSE(is_together(c));
    pass(2 * CALM_MS);
    int64_t now_ms = clock_wall_ms();
    CU_ASSERT_TRUE(is_time(c, now_ms, now_ms, now_ms + DAY)); /* believed, and nothing ends before the other day */
    CU_ASSERT_TRUE(about(node_clock_lead_ms(c), DAY));
    CU_ASSERT_EQUAL(clock_record_keep(r.store, now_ms, node_clock_lead_ms(c), NULL), BLOB_OK);
    node_clock_free(c);
    c = clock_started(&r);
    now_ms = clock_wall_ms();
    CU_ASSERT_TRUE(is_time(c, now_ms, now_ms, now_ms + DAY));
    wall_ahead_ms += DAY; /* put right */
    CU_ASSERT_FALSE(is_together(c));
    pass(2 * CALM_MS);
    CU_ASSERT_TRUE(is_together(c) && about(node_clock_lead_ms(c), 0));
    node_clock_free(c);
    snprintf(value, sizeof value, old, (long long)clock_wall_ms(), 0LL); /* of before there was a lead */
    CU_ASSERT_EQUAL(record_put(r.store, "clock/last", value, strlen(value), 0, NULL), BLOB_OK);
    c = clock_started(&r);
    CU_ASSERT_TRUE(is_together(c));
    node_clock_free(c);
    rig_close(&r);
    clocks_reset();
}

/* ---- what goes by it ---- */

static void clocked_open(struct upload_rig *u, int nodes)
{
    upload_rig_open(u, NULL, nodes);
    for (int n = 0; n < nodes; n++)
        u->node[n].sessions->clock = node_clock_new(CALM_MS);
}

static void clocked_close(struct upload_rig *u)
{
    struct node_clock *clocks[] = {u->node[0].sessions->clock, u->node[1].sessions ? u->node[1].sessions->clock : NULL};
    upload_rig_close(u);
    node_clock_free(clocks[0]);
    node_clock_free(clocks[1]);
    clocks_reset();
}

/* Also where the session is lost, and rebuilt. */
static void test_live_upload_goes_on_ahead(void)
{
    for (int nodes = 1; nodes <= 2; nodes++) {
        struct upload_rig u;
        clocked_open(&u, nodes);
        struct client touched = client_new(&u), idle = client_new(&u), done = client_new(&u);
        struct digest d = text_digest("one two"), other = text_digest("done");
        CU_ASSERT_EQUAL(client_append(&touched, NULL, "one"), API_OK);
        CU_ASSERT_EQUAL(client_append(&idle, NULL, "one"), API_OK);
        CU_ASSERT_EQUAL(client_complete(&done, NULL, &other, "done"), API_OK);
        wall_ahead_ms = DAY;
        CU_ASSERT_EQUAL(client_status(&touched), API_OK);
        CU_ASSERT_EQUAL(touched.offset, 3);
        if (u.hub)
            memory_hub_empty(u.hub);
        CU_ASSERT_EQUAL(client_append(&touched, NULL, " two"), API_OK);
        CU_ASSERT_EQUAL(client_status(&touched), API_OK);
        CU_ASSERT_EQUAL(client_complete(&touched, NULL, &d, NULL), API_OK);
        CU_ASSERT_EQUAL(client_complete(&touched, NULL, &d, NULL), API_OK);
        CU_ASSERT_EQUAL(client_complete(&done, NULL, &other, NULL), API_OK);
        wall_ahead_ms = 0;
        CU_ASSERT_EQUAL(client_status(&idle), API_OK);
        pass(HOUR - 60000);
        CU_ASSERT_EQUAL(client_status(&idle), API_OK);
        pass(120000);
        CU_ASSERT_EQUAL(client_status(&idle), API_UPLOAD_UNKNOWN);
        clocked_close(&u);
    }
}

/* Two nodes, of which one has a clock of its own: what it stores is no shorter for the other, nor for itself. */
static void test_uploads_of_a_clock_behind(void)
{
    struct upload_rig u;
    clocked_open(&u, 1);
    struct client before = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&before, NULL, "before"), API_OK);
    wall_ahead_ms = -DAY;
    node_clock_best_ms(u.base.sessions->clock); /* a request */
    pass(2 * HOUR);
    struct client meanwhile = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&meanwhile, NULL, "meanwhile"), API_OK);
    CU_ASSERT_EQUAL(client_status(&before), API_OK); /* late, never early */
    wall_ahead_ms += DAY;
    node_clock_best_ms(u.base.sessions->clock);
    pass(HOUR - 60000);
    CU_ASSERT_EQUAL(client_status(&before), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(client_status(&meanwhile), API_OK);
    pass(120000);
    CU_ASSERT_EQUAL(client_status(&meanwhile), API_UPLOAD_UNKNOWN);
    clocked_close(&u);
}

static bool is_named(struct upload_rig *u, const struct file_record *file)
{
    struct file_record found;
    struct file_naming naming;
    bool got = file_catalog_get(u->base.catalog, file->id, NULL, &found, NULL) == BLOB_OK;
    CU_ASSERT_EQUAL(file_catalog_newest(u->base.catalog, &file->digest, &found, NULL) == BLOB_OK, got);
    CU_ASSERT_EQUAL(file_catalog_name(u->base.catalog, &file->digest, NULL, &naming, NULL) == BLOB_OK, got);
    return got;
}

static struct file_record made_temporary(struct upload_rig *u, const char *content)
{
    struct client c = client_create(u, "temp", true, NULL);
    struct digest d = text_digest(content);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, content), API_OK);
    return c.result.file;
}

static void test_temporary_files(void)
{
    struct upload_rig u;
    clocked_open(&u, 1);
    struct file_record file = made_temporary(&u, "before");
    for (int sign = -1; sign <= 1; sign += 2) {
        wall_ahead_ms += sign * 2 * DAY;
        CU_ASSERT_TRUE(is_named(&u, &file));
        wall_ahead_ms -= sign * 2 * DAY;
    }
    wall_ahead_ms = -DAY;
    struct file_record behind = made_temporary(&u, "behind");
    wall_ahead_ms = DAY;
    struct file_record ahead = made_temporary(&u, "ahead");
    wall_ahead_ms = 0;
    CU_ASSERT_TRUE(is_named(&u, &file) && is_named(&u, &behind) && is_named(&u, &ahead));
    pass(DAY - 60000);
    CU_ASSERT_TRUE(is_named(&u, &file) && is_named(&u, &behind) && is_named(&u, &ahead));
    pass(120000);
    CU_ASSERT_FALSE(is_named(&u, &file));
    CU_ASSERT_FALSE(is_named(&u, &behind));
    clocked_close(&u);
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
    struct staged_stat stat;
    return staged_stat(u->base.store, id, &stat, NULL) == BLOB_OK;
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

static void count_call(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

/* The session lost, and the next writer's clock half a day behind the last one's: it is later all the same, for the
 * store and for the last writer, which is told at once. */
static void test_take_over_after_a_step_back(void)
{
    struct upload_rig u;
    struct upload_append *older;
    struct staged_stat before, after;
    atomic_int called = 0;
    upload_rig_open(&u, NULL, 2);
    struct client a = client_new(&u), b = a;
    b.node = 1;
    CU_ASSERT_EQUAL(client_append(&a, a.first, "one "), API_OK);
    struct ask ask = {.token = a.first, .data = "older", .len = 5, .superseded = count_call, .arg = &called};
    CU_ASSERT_EQUAL_FATAL(client_begin(&a, &ask, &older), API_OK);
    CU_ASSERT_EQUAL(upload_append_write_bytes(older, "old", 3, &a.err), API_OK);
    usleep(2000);
    CU_ASSERT_EQUAL(upload_append_write_bytes(older, "er", 2, &a.err), API_OK);
    CU_ASSERT_EQUAL(staged_stat(u.base.store, &a.id, &before, NULL), BLOB_OK);
    memory_hub_empty(u.hub);
    wall_ahead_ms = -DAY / 2;
    CU_ASSERT_EQUAL(client_append(&b, b.first, "two"), API_OK);
    for (int i = 0; i < 400 && called == 0; i++)
        usleep(5000);
    CU_ASSERT_EQUAL(called, 1);
    CU_ASSERT_EQUAL(staged_stat(u.base.store, &a.id, &after, NULL), BLOB_OK);
    CU_ASSERT_TRUE(after.epoch > before.epoch);
    CU_ASSERT_EQUAL(upload_append_end(older, UPLOAD_BODY_WHOLE, &a.result, &a.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_EQUAL(client_complete(&b, b.first, NULL, NULL), API_OK);
    CU_ASSERT_EQUAL(b.result.file.size, b.offset);
    upload_rig_close(&u);
    clocks_reset();
}

/* Stored by a process whose clock was ahead, it is no less old for the next: the repeated complete of an upload whose
 * file was made, but its session not moved, must not take nothing for the content. */
static void test_old_session_of_a_clock_ahead(void)
{
    struct upload_rig u;
    struct bytebuf old;
    uint64_t epoch;
    char id[FILE_ID_MAX];
    bytebuf_init(&old);
    upload_rig_open(&u, NULL, 1);
    wall_ahead_ms = DAY;
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL_FATAL(session_load(u.base.sessions, &c.id, &old, &epoch, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(client_complete(&c, c.first, NULL, "all of it"), API_OK);
    memcpy(id, c.result.file.id, sizeof id);
    CU_ASSERT_EQUAL(session_remove(u.base.sessions, &c.id, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_insert(u.base.sessions, &c.id, epoch, old.data, old.len, clock_wall_ms() + HOUR, NULL),
                    BLOB_OK);
    node_stop(&u, 0);
    wall_ahead_ms = 0;
    node_start(&u, 0);
    CU_ASSERT_EQUAL(client_complete(&c, c.first, NULL, NULL), API_OK);
    CU_ASSERT_STRING_EQUAL(c.result.file.id, id);
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    bytebuf_release(&old);
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
        {"a node's clock that is ahead, for a moment and for good", test_clock_ahead},
        {"a node's clock that is behind", test_clock_behind},
        {"a node's clock that another contradicts", test_clock_that_others_contradict},
        {"a node's clock at a start", test_clock_at_start},
        {"what was made before a step back is known to the next process", test_lead_over_a_start},
        {"a live upload goes on while the clock is ahead, and ends at its time", test_live_upload_goes_on_ahead},
        {"an upload made while the clock is behind has its whole life", test_uploads_of_a_clock_behind},
        {"temporary files end at their time, whatever the clock says", test_temporary_files},
        {"an idle upload outlives a step, and goes when it was none", test_idle_upload_outlives_a_step},
        {"a step in the middle of a sweep ends no upload", test_step_in_a_sweep},
        {"a lost session goes on after a step back", test_lost_session_after_a_step_back},
        {"who takes over by a clock set back is the later one", test_take_over_after_a_step_back},
        {"a session that a clock ahead has stored is old for the next process", test_old_session_of_a_clock_ahead},
        {"a lease of another clock keeps nobody out", test_lease_after_a_step_back},
        CU_TEST_INFO_NULL};
    return unit_main("clock steps", tests);
}
