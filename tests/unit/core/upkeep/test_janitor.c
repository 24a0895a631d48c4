/* janitor - garbage goes after its grace time, nothing else ever does: not what is named, nor what is about to be. */
#include "core/fault.h"
#include "core/files/blob_cache.h"
#include "core/files/unnamed.h"
#include "core/metrics.h"
#include "core/session/session.h"
#include "core/session/upload_record.h"
#include "core/upkeep/blob_sweep.h"
#include "core/upkeep/janitor.h"
#include "core/upkeep/scrubber.h"
#include "core/upload/upload.h"
#include "core/worker_pool.h"
#include "tests/rig/catalog_rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define HOUR    INT64_C(3600000)
#define DAY     (24 * HOUR)
#define GRACE   HOUR
#define TIMEOUT DAY

static const struct janitor_options options = {
    .sweep_interval_ms = 600000, .grace_ms = GRACE, .upload_timeout_ms = TIMEOUT};

static struct janitor *janitor_for(struct rig *r, struct blob_cache *cache, struct metrics *metrics)
{
    struct janitor_parts parts = {
        .store = r->store, .sessions = r->sessions, .catalog = r->catalog, .cache = cache, .metrics = metrics};
    return janitor_new(&parts, &options);
}

static enum blob_status sweep(struct rig *r, int64_t after_ms)
{
    struct janitor *j = janitor_for(r, NULL, NULL);
    enum blob_status st = janitor_sweep(j, clock_wall_ms() + after_ms, NULL);
    janitor_free(j);
    return st;
}

static bool marked(struct rig *r, const struct digest *d)
{
    struct blob_info info = {0};
    bool is = false;
    enum blob_status st = blob_stat(r->store, d, &info, NULL);
    CU_ASSERT_TRUE(st == BLOB_OK || st == BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(unnamed_is_marked(r->store, d, info.touched_ms, &is, NULL), BLOB_OK);
    return is;
}

static bool note_mark(const struct digest *digest, int64_t touched_ms, void *arg)
{
    (void)digest;
    (void)touched_ms;
    ++*(unsigned *)arg;
    return true;
}

static unsigned marks(struct rig *r)
{
    unsigned n = 0;
    CU_ASSERT_EQUAL(unnamed_list(r->store, note_mark, &n, NULL), BLOB_OK);
    return n;
}

/* ---- grace ---- */

static void test_named_stays(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "named");
    rig_add(&r, &d, 5, "a", "", 1);
    CU_ASSERT_EQUAL(sweep(&r, 1000 * DAY), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    rig_close(&r);
}

static void test_destroyed_goes_after_grace(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "destroyed");
    struct file_record f = rig_add(&r, &d, 9, "a", "", 1);
    rig_destroy(&r, f.id, true);
    CU_ASSERT_TRUE(marked(&r, &d));
    CU_ASSERT_EQUAL(sweep(&r, 0), BLOB_OK);
    CU_ASSERT_EQUAL(sweep(&r, GRACE - 1000), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    CU_ASSERT_FALSE(marked(&r, &d));
    rig_close(&r);
}

/* An upload that committed its blob and crashed may complete as long as it lives. */
static void test_cut_off_completion_stays(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "committed, not recorded");
    CU_ASSERT_EQUAL(sweep(&r, GRACE + HOUR), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(sweep(&r, TIMEOUT + GRACE + 1000), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    rig_close(&r);
}

/* The same, where the content was there before and was destroyed: what is staged has become the old blob, whose mark
 * must not take it away. */
static void test_cut_off_completion_of_destroyed_content_stays(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "destroyed, and sent again");
    struct file_record f = rig_add(&r, &d, 25, "a", "", 1);
    rig_destroy(&r, f.id, true);
    rig_commit(&r, &d, "destroyed, and sent again", 25);
    CU_ASSERT_EQUAL(sweep(&r, GRACE + HOUR), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(marks(&r), 0);
    CU_ASSERT_EQUAL(sweep(&r, TIMEOUT + GRACE + 1000), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    rig_close(&r);
}

/* ---- uploads that were cut off between their blob and their file ---- */

/* As complete_finish() leaves it: the upload's record, then its blob, then nothing. */
static struct uuid cut_off(struct rig *r, const struct digest *d, const char *content, bool gone)
{
    struct session s;
    char key[RECORD_KEY_MAX];
    struct bytebuf value;
    session_init(&s, clock_wall_ms());
    s.state = SESSION_COMPLETING;
    s.digest = *d;
    s.mark.offset = strlen(content);
    s.completed_ms = clock_wall_ms();
    s.file_number = file_number(s.created_ms, &s.id);
    s.file_gone = gone;
    upload_record_key(&s.id, key);
    bytebuf_init(&value);
    upload_record_encode(&s, &value);
    CU_ASSERT_EQUAL_FATAL(record_put(r->store, key, value.data, value.len, 0, NULL), BLOB_OK);
    bytebuf_release(&value);
    rig_commit(r, d, content, strlen(content));
    return s.id;
}

/* Its content is another's too, who destroys it after: that mark is true, and still not the whole truth. */
static void test_cut_off_beside_a_destroy(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "two of it"), other = rig_put(&r, "one of it");
    struct file_record f = rig_add(&r, &d, 9, "a", "", 1), g = rig_add(&r, &other, 9, "b", "", 1);
    cut_off(&r, &d, "two of it", false);
    rig_destroy(&r, f.id, true);
    rig_destroy(&r, g.id, true);
    CU_ASSERT_TRUE(marked(&r, &d));
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_FALSE(rig_has_blob(&r, &other));
    CU_ASSERT_EQUAL(sweep(&r, TIMEOUT), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(sweep(&r, TIMEOUT + GRACE + 1000), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(marks(&r), 0);
    rig_close(&r);
}

/* Not longer than somebody may come back to it: an upload that had its file, and one that was destroyed. */
static void test_no_longer_awaited_goes_after_grace(void)
{
    struct rig r;
    char key[RECORD_KEY_MAX];
    rig_open(&r);
    struct digest d = rig_put(&r, "two of it");
    struct file_record f = rig_add(&r, &d, 9, "a", "", 1);
    struct uuid id = cut_off(&r, &d, "two of it", false);
    cut_off(&r, &d, "two of it", true);
    rig_destroy(&r, f.id, true);
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    upload_record_key(&id, key);
    CU_ASSERT_EQUAL(record_delete(r.store, key, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    rig_close(&r);
}

/* Destroyed on a full disk, where its upload's record could not be told: its session knows. */
static void test_completed_by_its_session_goes_after_grace(void)
{
    struct rig r;
    struct bytebuf value;
    rig_open(&r);
    struct digest d = rig_put(&r, "two of it");
    struct file_record f = rig_add(&r, &d, 9, "a", "", 1);
    struct session s;
    session_init(&s, clock_wall_ms());
    s.id = cut_off(&r, &d, "two of it", false);
    s.state = SESSION_COMPLETED;
    bytebuf_init(&value);
    session_encode(&s, &value);
    CU_ASSERT_EQUAL_FATAL(
        session_insert(r.sessions, &s.id, 1, value.data, value.len, clock_wall_ms() + 100 * DAY, NULL), BLOB_OK);
    bytebuf_release(&value);
    rig_destroy(&r, f.id, true);
    fault_arm("sessions.load", EIO, 0, 1);
    CU_ASSERT_NOT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    fault_disarm_all();
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    rig_close(&r);
}

/* More than are kept back at a time, some of them awaited, and uploads whose records cannot be listed. */
static void test_many_marked(void)
{
    enum { MANY = 2500 };
    static struct digest digests[MANY];
    struct rig r;
    rig_open(&r);
    for (int i = 0; i < MANY; i++) {
        char content[16];
        snprintf(content, sizeof content, "%d", i);
        digests[i] = rig_put(&r, content);
        struct file_record f = rig_add(&r, &digests[i], strlen(content), "x", "", 1000);
        if (i % 50 == 0)
            cut_off(&r, &digests[i], content, false);
        rig_destroy(&r, f.id, true);
    }
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    for (int i = 0; i < MANY; i++)
        CU_ASSERT_EQUAL(rig_has_blob(&r, &digests[i]), i % 50 == 0);
    rig_close(&r);
}

/* The mark outlived its blob (a sweep was cut off), and the content came again. */
static void test_old_mark_of_a_removed_blob(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "removed, and sent again");
    struct file_record f = rig_add(&r, &d, 23, "a", "", 1);
    rig_destroy(&r, f.id, true);
    CU_ASSERT_EQUAL(blob_remove(r.store, &d, clock_wall_ms() + 1000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(marks(&r), 1);
    usleep(2000);
    rig_commit(&r, &d, "removed, and sent again", 23);
    CU_ASSERT_EQUAL(sweep(&r, GRACE + HOUR), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    rig_close(&r);
}

/* A completion that was cut off and is finished touches its blob; the destroy of the file it makes marks it again. */
static void test_destroyed_twice_goes_after_grace(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "twice");
    struct file_record f = rig_add(&r, &d, 5, "a", "", 1);
    rig_destroy(&r, f.id, true);
    CU_ASSERT_EQUAL(blob_touch(r.store, &d, NULL, NULL), BLOB_OK);
    CU_ASSERT_FALSE(marked(&r, &d));
    f = rig_add(&r, &d, 5, "b", "", 2);
    rig_destroy(&r, f.id, true);
    CU_ASSERT_EQUAL(sweep(&r, GRACE - 1000), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(marks(&r), 0);
    rig_close(&r);
}

/* Marks of earlier versions tell no time: their blobs go as those of uploads that were cut off. */
static void test_mark_without_a_time(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "marked by an earlier version");
    char key[16 + DIGEST_HEX_CHARS] = "unnamed/";
    digest_hex(&d, key + strlen(key));
    CU_ASSERT_EQUAL(record_put(r.store, key, "{}", 2, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(sweep(&r, GRACE + HOUR), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(sweep(&r, TIMEOUT + GRACE + 1000), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    rig_close(&r);
}

static void test_named_again_stays(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "comes back");
    struct file_record f = rig_add(&r, &d, 10, "a", "", 1);
    rig_destroy(&r, f.id, true);
    rig_add(&r, &d, 10, "b", "", 2);
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_FALSE(marked(&r, &d));
    rig_close(&r);
}

static void test_many_in_one_walk(void)
{
    struct rig r;
    bool keep[300];
    struct digest digests[300];
    rig_open(&r);
    /* More records of one blob than a page of the walk holds, among others with none. */
    for (int i = 0; i < 300; i++) {
        char content[16];
        snprintf(content, sizeof content, "%d", i);
        digests[i] = rig_put(&r, content);
        keep[i] = i % 3 != 0;
        for (int n = 0; n < (i == 100 ? 1500 : 2); n++) {
            struct file_record f = rig_add(&r, &digests[i], strlen(content), "x", "", 1000 + n);
            if (!keep[i])
                rig_destroy(&r, f.id, true);
        }
    }
    CU_ASSERT_EQUAL(sweep(&r, GRACE + 1000), BLOB_OK);
    for (int i = 0; i < 300; i++)
        CU_ASSERT_EQUAL(rig_has_blob(&r, &digests[i]), keep[i]);
    rig_close(&r);
}

/* ---- races, made to happen ---- */

static struct rig *racing;

static enum blob_status uploaded_before_removal(struct blob_store *s, const struct digest *digest, int64_t before_ms,
                                                struct blob_error *err)
{
    racing->ops.blob_remove = racing->real->blob_remove;
    rig_commit(racing, digest, "again", 5);
    return racing->real->blob_remove(s, digest, before_ms, err);
}

/* Old by the clock of the sweep, and touched while it runs: blob_remove() refuses. */
static void test_dedupe_before_removal(void)
{
    struct rig r;
    struct blob_info info;
    rig_open(&r);
    struct digest d = rig_put(&r, "again");
    struct file_record f = rig_add(&r, &d, 5, "a", "", 1);
    rig_destroy(&r, f.id, true);
    CU_ASSERT_EQUAL_FATAL(blob_stat(r.store, &d, &info, NULL), BLOB_OK);
    while (clock_wall_ms() <= info.touched_ms + 5)
        usleep(1000);
    racing = &r;
    r.ops.blob_remove = uploaded_before_removal;
    struct blob_sweep s = {.store = r.store,
                           .catalog = r.catalog,
                           .before_ms = info.touched_ms + 1,
                           .orphans_before_ms = info.touched_ms + 1};
    CU_ASSERT_EQUAL(blob_sweep_run(&s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(s.blobs, 0);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(blob_sweep_run(&s, NULL), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    rig_close(&r);
}

static bool recorded;

/* The record comes after the page of names was read: the second look sees it. */
static enum blob_status recorded_after_page(struct blob_store *s, const char *prefix, const char *after, size_t limit,
                                            bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    enum blob_status st = racing->real->record_list(s, prefix, after, limit, with_values, fn, arg, err);
    if (!recorded && strcmp(prefix, FILE_KEY_ROOT) == 0) {
        recorded = true;
        struct digest d = rig_digest("recorded late", 13);
        rig_add(racing, &d, 13, "late", "", 5);
    }
    return st;
}

static void test_record_after_the_walk(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "recorded late");
    racing = &r;
    recorded = false;
    r.ops.record_list = recorded_after_page;
    struct blob_sweep s = {.store = r.store,
                           .catalog = r.catalog,
                           .before_ms = clock_wall_ms() + DAY,
                           .orphans_before_ms = clock_wall_ms() + DAY};
    CU_ASSERT_EQUAL(blob_sweep_run(&s, NULL), BLOB_OK);
    CU_ASSERT_TRUE(recorded);
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    rig_close(&r);
}

/* ---- doubt ---- */

static void test_no_removal_in_doubt(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "named, but who can tell");
    rig_add(&r, &d, 23, "a", "", 1);
    for (unsigned after = 0; after < 3; after++) {
        fault_arm("store.record_list", EIO, after, 0);
        (void)!sweep(&r, 100 * DAY);
        fault_disarm_all();
        CU_ASSERT_TRUE_FATAL(rig_has_blob(&r, &d));
    }
    rig_close(&r);
}

static void test_a_failed_step_stops_no_other(void)
{
    struct rig r;
    struct metrics *m = metrics_new();
    rig_open(&r);
    struct digest d = rig_put(&r, "garbage");
    struct file_record f = rig_add(&r, &d, 7, "a", "", 1);
    rig_destroy(&r, f.id, true);
    struct janitor *j = janitor_for(&r, NULL, m);
    struct blob_error err = {0};
    fault_arm("sessions.index_expired", EIO, 0, 1);
    CU_ASSERT_EQUAL(janitor_sweep(j, clock_wall_ms() + 2 * GRACE, &err), BLOB_E_IO);
    fault_disarm_all();
    CU_ASSERT_NOT_EQUAL(err.text[0], '\0');
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    CU_ASSERT_EQUAL(metric_value(metrics_counter(m, "blobd_janitor_errors_total", "", NULL)), 1);
    CU_ASSERT_EQUAL(metric_value(metrics_counter(m, "blobd_janitor_blobs_removed_total", "", NULL)), 1);
    CU_ASSERT_EQUAL(metric_value(metrics_counter(m, "blobd_janitor_bytes_removed_total", "", NULL)), 7);
    janitor_free(j);
    metrics_free(m);
    rig_close(&r);
}

/* ---- what else a sweep does ---- */

static void test_sweep_expires_and_heals(void)
{
    struct memory_hub *hub = memory_hub_new();
    struct rig r;
    int64_t now = clock_wall_ms();
    rig_open_on(&r, hub);
    struct digest d = rig_put(&r, "temporary");
    for (int i = 0; i < 450; i++) {
        struct file_record f = rig_file(&d, 9, "t", "", now + i);
        f.temporary = true;
        f.expires_ms = now + HOUR;
        CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &f, 0, NULL), BLOB_OK);
    }
    memory_hub_empty(hub);
    CU_ASSERT_EQUAL(sweep(&r, HOUR / 2), BLOB_OK);
    struct index_query q = {.orders = 1, .top = 1};
    uint64_t count = 0;
    unsigned passed = 0;
    CU_ASSERT_EQUAL(file_catalog_list(r.catalog, NULL, &q, &count, count_file, &passed, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, 450);
    CU_ASSERT_EQUAL(sweep(&r, HOUR + 1000), BLOB_OK);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 0);
    rig_close(&r);
    memory_hub_free(hub);
}

/* Redis came back emptied, or with what it had once; the next sweep is far away. */
static void test_index_is_healed_between_sweeps(void)
{
    struct memory_hub *hub = memory_hub_new();
    struct rig r;
    rig_open_on(&r, hub);
    struct digest d = rig_put(&r, "hello");
    rig_add(&r, &d, 5, "a", "", 1);
    struct janitor_parts parts = {.store = r.store, .sessions = r.sessions, .catalog = r.catalog};
    struct janitor_options opt = {.sweep_interval_ms = HOUR, .grace_ms = HOUR, .upload_timeout_ms = HOUR};
    struct janitor *j = janitor_new(&parts, &opt);
    memory_hub_empty(hub);
    CU_ASSERT_EQUAL_FATAL(janitor_start(j, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 1); /* whole before anybody asks */
    for (int i = 0; i < 2; i++) {
        memory_hub_empty(hub);
        int64_t since_ms = clock_wall_ms();
        while (index_whole(r.sessions, NULL) != BLOB_OK && clock_wall_ms() < since_ms + 20000)
            usleep(20000);
        CU_ASSERT_EQUAL(rig_listed(&r, NULL), 1);
    }
    janitor_stop(j);
    janitor_free(j);
    rig_close(&r);
    memory_hub_free(hub);
}

static void test_one_node_sweeps(void)
{
    struct memory_hub *hub = memory_hub_new();
    struct rig a;
    rig_open_on(&a, hub);
    struct session_store *other = memory_sessions_open(hub);
    struct digest d = rig_put(&a, "garbage");
    struct file_record f = rig_add(&a, &d, 7, "a", "", 1);
    rig_destroy(&a, f.id, true);
    CU_ASSERT_EQUAL(
        session_store_join(other, "00000000-0000-4000-8000-000000000001", a.store->store_id, clock_wall_ms(), NULL),
        BLOB_OK);
    CU_ASSERT_EQUAL(session_store_join(a.sessions, "00000000-0000-4000-8000-000000000002", a.store->store_id,
                                       clock_wall_ms(), NULL),
                    BLOB_OK);
    CU_ASSERT_EQUAL(session_lease(other, "janitor", HOUR, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(sweep(&a, 2 * GRACE), BLOB_OK);
    CU_ASSERT_TRUE(rig_has_blob(&a, &d));
    session_store_close(other);
    memory_hub_empty(hub);
    CU_ASSERT_EQUAL(sweep(&a, 2 * GRACE), BLOB_OK);
    CU_ASSERT_FALSE(rig_has_blob(&a, &d));
    rig_close(&a);
    memory_hub_free(hub);
}

#define ROUND_STEPS 10000

/* One round; *steps: in how many. The first failure ends it. */
static enum blob_status scrub_round(struct scrubber *s, unsigned *steps)
{
    bool ended = false;
    enum blob_status st = BLOB_OK;
    for (*steps = 0; st == BLOB_OK && !ended && *steps < ROUND_STEPS; ++*steps) {
        uint64_t read;
        st = scrubber_step(s, 4u << 20, &read, &ended, NULL);
        CU_ASSERT_FALSE(st != BLOB_OK && ended);
    }
    CU_ASSERT_TRUE(ended || st != BLOB_OK);
    return st;
}

static void test_scrub(void)
{
    struct rig r;
    struct metrics *m = metrics_new();
    unsigned steps;
    rig_open(&r);
    struct blob_cache_options opt = {.max_entries = 10, .max_bytes = 1 << 20, .max_readers = 10, .content_max = 0};
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, m, &opt);
    static char large[700000];
    memset(large, 'x', sizeof large);
    struct digest big = rig_digest(large, sizeof large), bad = rig_digest("what it should be", 17);
    rig_commit(&r, &big, large, sizeof large);
    rig_commit(&r, &bad, "what it became...", 17);
    rig_add(&r, &bad, 17, "bad", "", 1);
    rig_put(&r, "");
    for (int i = 0; i < 300; i++) {
        char content[16];
        snprintf(content, sizeof content, "%d", i);
        rig_put(&r, content);
    }
    struct blob_entry *e = NULL;
    CU_ASSERT_EQUAL(blob_cache_load(cache, &bad, NULL, 1, &e, NULL), BLOB_OK);
    blob_cache_release(cache, e);
    struct scrubber *s = scrubber_new(r.store, cache, NULL, m);
    CU_ASSERT_EQUAL(scrub_round(s, &steps), BLOB_OK);
    CU_ASSERT_EQUAL(scrubber_damaged(s), 1);
    CU_ASSERT_EQUAL(metric_value(metrics_counter(m, "blobd_corrupt_blobs_total", "", NULL)), 1);
    CU_ASSERT_PTR_NULL(blob_cache_get(cache, &bad, NULL, 1));
    CU_ASSERT_FALSE(rig_has_blob(&r, &bad));
    CU_ASSERT_TRUE(rig_has_blob(&r, &big));
    rig_commit(&r, &bad, "what it should be", 17);
    CU_ASSERT_EQUAL(scrub_round(s, &steps), BLOB_OK);
    CU_ASSERT_EQUAL(scrubber_damaged(s), 1);
    CU_ASSERT_TRUE(rig_has_blob(&r, &bad));
    scrubber_free(s);
    blob_cache_free(cache);
    metrics_free(m);
    rig_close(&r);
}

static unsigned listings_failed;

static enum blob_status list_failing(struct blob_store *store, const struct digest *after, blob_list_fn *fn, void *arg,
                                     struct blob_error *err)
{
    (void)store;
    (void)after;
    (void)fn;
    (void)arg;
    listings_failed++;
    return blob_fail(err, BLOB_E_IO, EIO, "the listing is broken");
}

/* Whatever the reason, it is told at once, and no round has ended. */
static void test_scrub_unlisted(void)
{
    struct rig r;
    unsigned steps;
    rig_open(&r);
    rig_put(&r, "kept");
    struct scrubber *s = scrubber_new(r.store, NULL, NULL, NULL);
    const struct blob_store_ops *whole = r.store->ops;
    struct blob_store_ops broken = *whole;
    broken.blob_list = list_failing;
    r.store->ops = &broken;
    CU_ASSERT_EQUAL(scrub_round(s, &steps), BLOB_E_IO);
    CU_ASSERT_EQUAL(steps, 1);
    CU_ASSERT_EQUAL(listings_failed, 1);
    r.store->ops = whole;
    CU_ASSERT_EQUAL(scrub_round(s, &steps), BLOB_OK);
    scrubber_free(s);
    rig_close(&r);
}

/* What a download has found wrong is read again: it may have been wrong on its way only. */
static void test_recheck(void)
{
    struct rig r;
    rig_open(&r);
    struct blob_cache_options opt = {.max_entries = 10, .max_bytes = 1 << 20, .max_readers = 10, .content_max = 0};
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &opt);
    struct digest good = rig_put(&r, "good"), bad = rig_digest("bad", 3), other = rig_digest("other", 5),
                  gone = rig_digest("gone", 4);
    rig_commit(&r, &bad, "bAd", 3);
    rig_commit(&r, &other, "Other", 5); /* nobody has read it */
    struct scrubber *s = scrubber_new(r.store, cache, NULL, NULL);
    uint64_t read;
    bool idle = false;
    CU_ASSERT_EQUAL(scrubber_recheck(s, 100, &read, &idle, NULL), BLOB_OK);
    CU_ASSERT_TRUE(idle && read == 0);
    blob_cache_suspect(cache, &good);
    blob_cache_suspect(cache, &bad);
    blob_cache_suspect(cache, &bad);
    blob_cache_suspect(cache, &gone);
    for (int i = 0; i < 20 && (i == 0 || !idle); i++)
        CU_ASSERT_EQUAL(scrubber_recheck(s, 2, &read, &idle, NULL), BLOB_OK);
    CU_ASSERT_TRUE(idle);
    CU_ASSERT_EQUAL(scrubber_damaged(s), 1);
    CU_ASSERT_TRUE(rig_has_blob(&r, &good));
    CU_ASSERT_FALSE(rig_has_blob(&r, &bad));
    CU_ASSERT_TRUE(rig_has_blob(&r, &other));
    scrubber_free(s);
    blob_cache_free(cache);
    rig_close(&r);
}

/* ---- the threads ---- */

static void test_start_and_stop(void)
{
    struct rig r;
    struct worker_pool *pool;
    struct metrics *m = metrics_new();
    rig_open(&r);
    struct upload_options uo = {.timeout_ms = TIMEOUT, .completed_retention_ms = HOUR, .checkpoint_bytes = 8u << 20};
    CU_ASSERT_EQUAL_FATAL(worker_pool_new(1, 10, &pool, NULL), BLOB_OK);
    struct upload_service *uploads = upload_service_new(r.store, r.sessions, r.catalog, pool, NULL, NULL, &uo);
    struct janitor_parts parts = {
        .store = r.store, .sessions = r.sessions, .catalog = r.catalog, .uploads = uploads, .metrics = m};
    struct janitor_options opt = {.sweep_interval_ms = 1000,
                                  .grace_ms = 1000,
                                  .upload_timeout_ms = 1000,
                                  .tick_ms = 20,
                                  .scrub_bytes_per_s = 1 << 20};
    struct digest kept = rig_put(&r, "kept"), garbage = rig_put(&r, "garbage");
    rig_add(&r, &kept, 4, "a", "", 1);
    struct file_record f = rig_add(&r, &garbage, 7, "b", "", 1);
    struct janitor *j = janitor_new(&parts, &opt);
    janitor_stop(j);
    CU_ASSERT_EQUAL_FATAL(janitor_start(j, NULL), BLOB_OK);
    rig_destroy(&r, f.id, true);
    for (int i = 0; i < 1000 && rig_has_blob(&r, &garbage); i++)
        usleep(10000);
    CU_ASSERT_FALSE(rig_has_blob(&r, &garbage));
    CU_ASSERT_TRUE(rig_has_blob(&r, &kept));
    int64_t before_us = clock_steady_us();
    janitor_stop(j);
    CU_ASSERT_TRUE(clock_steady_us() - before_us < 900000);
    CU_ASSERT_TRUE(metric_value(metrics_counter(m, "blobd_janitor_sweeps_total", "", NULL)) >= 1);
    janitor_free(j);
    upload_service_free(uploads);
    worker_pool_free(pool);
    metrics_free(m);
    rig_close(&r);
}

/* Uploads and destroys of equal content while a sweeper with hardly any grace runs beside: whoever was told 201 can
 * read. A maker touches and records well within the grace; it only ever removes what was left alone for longer. */
#define MAKERS  3
#define RACE_MS 1500
#define TINY_MS 250

struct race {
    struct rig r;
    atomic_bool over;
    atomic_int lost, made;
};

static void *make_files(void *arg)
{
    struct race *race = arg;
    struct digest d = rig_digest("shared by all", 13);
    for (unsigned n = 0; !atomic_load(&race->over); n++) {
        struct file_record f = rig_file(&d, 13, "x", "", clock_wall_ms()), newest;
        struct digest digest;
        bool last;
        if (!rig_try_commit(&race->r, &d, "shared by all", 13) ||
            file_catalog_add(race->r.catalog, &f, 0, NULL) != BLOB_OK ||
            file_catalog_newest(race->r.catalog, &d, &newest, NULL) != BLOB_OK || !rig_has_blob(&race->r, &d))
            atomic_fetch_add(&race->lost, 1);
        usleep(1000 * (n % 7));
        if (!rig_has_blob(&race->r, &d))
            atomic_fetch_add(&race->lost, 1);
        (void)!file_catalog_destroy(race->r.catalog, f.id, NULL, &digest, &last, NULL);
        atomic_fetch_add(&race->made, 1);
        usleep(1000 * (n * 37 % (2 * TINY_MS)));
    }
    return NULL;
}

static void test_sweep_beside_uploads(void)
{
    struct race race = {0};
    pthread_t makers[MAKERS];
    rig_open(&race.r);
    for (int i = 0; i < MAKERS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&makers[i], NULL, make_files, &race), 0);
    int64_t end = clock_wall_ms() + RACE_MS;
    while (clock_wall_ms() < end) {
        int64_t before = clock_wall_ms() - TINY_MS;
        struct blob_sweep s = {
            .store = race.r.store, .catalog = race.r.catalog, .before_ms = before, .orphans_before_ms = before};
        CU_ASSERT_EQUAL(blob_sweep_run(&s, NULL), BLOB_OK);
    }
    atomic_store(&race.over, true);
    for (int i = 0; i < MAKERS; i++)
        pthread_join(makers[i], NULL);
    CU_ASSERT_EQUAL(race.lost, 0);
    CU_ASSERT_TRUE(race.made > 0);
    rig_close(&race.r);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a blob that a file names stays", test_named_stays},
        {"a blob whose last file was destroyed goes after the grace time", test_destroyed_goes_after_grace},
        {"the blob of a completion that was cut off stays as long as its upload", test_cut_off_completion_stays},
        {"so does content that was destroyed before, sent again and cut off",
         test_cut_off_completion_of_destroyed_content_stays},
        {"nor where another file of it is destroyed afterwards", test_cut_off_beside_a_destroy},
        {"what no upload awaits any more goes after the grace time", test_no_longer_awaited_goes_after_grace},
        {"and so where only a session tells", test_completed_by_its_session_goes_after_grace},
        {"many blobs that marks give away", test_many_marked},
        {"a mark that outlived its blob does not take the next one", test_old_mark_of_a_removed_blob},
        {"destroyed, touched and destroyed again goes after its grace", test_destroyed_twice_goes_after_grace},
        {"a mark of an earlier version takes nothing early", test_mark_without_a_time},
        {"a blob that is named again stays, and its mark goes", test_named_again_stays},
        {"one walk tells garbage from files, over many pages", test_many_in_one_walk},
        {"content uploaded again just before the removal stays", test_dedupe_before_removal},
        {"a record written after the walk passed it is seen", test_record_after_the_walk},
        {"nothing is removed when the records cannot be listed", test_no_removal_in_doubt},
        {"a step that fails is counted and stops no other", test_a_failed_step_stops_no_other},
        {"a sweep heals the index and expires temporary files", test_sweep_expires_and_heals},
        {"an index that is not whole is healed at once", test_index_is_healed_between_sweeps},
        {"a node without the lease leaves the sweep to the other", test_one_node_sweeps},
        {"scrubbing finds the damaged blob among the good ones", test_scrub},
        {"a listing that fails is told at once", test_scrub_unlisted},
        {"what a download found wrong is read again", test_recheck},
        {"it starts, sweeps by itself and stops at once", test_start_and_stop},
        {"uploads and a sweeper side by side lose nothing", test_sweep_beside_uploads},
        CU_TEST_INFO_NULL};
    return unit_main("janitor", tests);
}
