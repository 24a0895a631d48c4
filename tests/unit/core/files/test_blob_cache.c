/* blob_cache - what is kept is what the stores say now, within its bounds; damage is not served; no race keeps old. */
#include "core/fault.h"
#include "core/files/blob_cache.h"
#include "core/metrics.h"
#include "tests/rig/catalog_rig.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

/* Who uploads and asks, but where a test is about others. */
#define ASKER "alice"

#define T0  INT64_C(1769850300250)
#define NOW (T0 + 1000000)

static const struct blob_cache_options roomy = {
    .max_entries = 1000, .max_bytes = 16u << 20, .max_readers = 100, .content_max = 16};

static struct blob_entry *load(struct blob_cache *cache, const struct digest *d, int64_t now_ms)
{
    struct blob_entry *e = NULL;
    struct blob_error err = {0};
    CU_ASSERT_EQUAL_FATAL(blob_cache_load(cache, d, ASKER, now_ms, &e, &err), BLOB_OK);
    return e;
}

static enum blob_status try_load(struct blob_cache *cache, const struct digest *d)
{
    struct blob_entry *e = NULL;
    enum blob_status st = blob_cache_load(cache, d, ASKER, NOW, &e, NULL);
    blob_cache_release(cache, e);
    return st;
}

/* Is it there, under this name? NULL: is it not? */
static bool holds(struct blob_cache *cache, const struct digest *d, int64_t now_ms, const char *name)
{
    struct blob_entry *e = blob_cache_get(cache, d, ASKER, now_ms);
    bool ok = name ? e && strcmp(e->file.name, name) == 0 : e == NULL;
    blob_cache_release(cache, e);
    return ok;
}

static void test_content(void)
{
    struct rig r;
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &roomy);
    struct digest d = rig_put(&r, "small"), empty = rig_put(&r, "");
    rig_add(&r, &d, 5, "a.wav", ASKER, T0);
    rig_add(&r, &empty, 0, "nothing", ASKER, T0);
    CU_ASSERT_TRUE(holds(cache, &d, NOW, NULL));
    struct blob_entry *e = load(cache, &d, NOW);
    CU_ASSERT_EQUAL(e->size, 5);
    CU_ASSERT_PTR_NOT_NULL_FATAL(e->content);
    CU_ASSERT_EQUAL(memcmp(e->content, "small", 5), 0);
    CU_ASSERT_PTR_NULL(e->reader);
    CU_ASSERT_EQUAL(e->fd, -1);
    CU_ASSERT_STRING_EQUAL(e->file.media_type, "audio/wav");
    struct blob_entry *again = blob_cache_get(cache, &d, ASKER, NOW);
    CU_ASSERT_PTR_EQUAL(again, e);
    blob_cache_release(cache, blob_cache_hold(again));
    blob_cache_release(cache, again);
    blob_cache_release(cache, e);
    e = load(cache, &empty, NOW);
    CU_ASSERT_PTR_NOT_NULL(e->content);
    blob_cache_release(cache, e);
    blob_cache_free(cache);
    rig_close(&r);
}

static void test_reader(void)
{
    struct rig r;
    char back[8] = "";
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &roomy);
    struct digest d = rig_put(&r, "larger than sixteen");
    struct file_record f = rig_add(&r, &d, 19, "b", ASKER, T0);
    struct blob_entry *e = load(cache, &d, NOW);
    CU_ASSERT_PTR_NULL(e->content);
    CU_ASSERT_PTR_NOT_NULL_FATAL(e->reader);
    /* A hold outlives the file and the cache's own. */
    rig_destroy(&r, f.id, true);
    CU_ASSERT_TRUE(holds(cache, &d, NOW, NULL));
    CU_ASSERT_EQUAL(reader_read(e->reader, 7, back, 4, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(back, "than");
    blob_cache_release(cache, e);
    blob_cache_free(cache);
    rig_close(&r);
}

static void test_unknown(void)
{
    struct rig r;
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &roomy);
    struct digest d = rig_put(&r, "nobody names me");
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_E_NOT_FOUND);
    rig_add(&r, &d, 15, "now somebody does", ASKER, T0);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_OK);
    fault_arm("store.record_list", EAGAIN, 0, 0);
    blob_cache_invalidate(cache, &d);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_E_UNAVAILABLE);
    fault_disarm_all();
    blob_cache_free(cache);
    rig_close(&r);
}

/* A store whose reads arrive wrong as often as it is told. */
static struct {
    const struct blob_store_ops *real;
    int times;
} arriving;

static enum blob_status read_wrong(struct blob_reader *r, uint64_t offset, void *buf, size_t len,
                                   struct blob_error *err)
{
    enum blob_status st = arriving.real->reader_read(r, offset, buf, len, err);
    if (arriving.times > 0 && len > 0) {
        arriving.times--;
        ((char *)buf)[len / 2] ^= 1;
    }
    return st;
}

static void test_arrives_wrong(void)
{
    struct rig r;
    rig_open(&r);
    struct metrics *m = metrics_new();
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, m, &roomy);
    struct digest d = rig_put(&r, "intact");
    struct blob_info before, after;
    rig_add(&r, &d, 6, "intact", ASKER, T0);
    arriving.real = r.real;
    r.ops.reader_read = read_wrong;
    /* Once: it is asked for again, and nobody is told. */
    arriving.times = 1;
    CU_ASSERT_EQUAL(blob_stat(r.store, &d, &before, NULL), BLOB_OK);
    struct blob_entry *e = load(cache, &d, T0);
    CU_ASSERT_EQUAL(memcmp(e->content, "intact", 6), 0);
    blob_cache_release(cache, e);
    CU_ASSERT_EQUAL(blob_stat(r.store, &d, &after, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(before.touched_ms, after.touched_ms);
    CU_ASSERT_EQUAL(metric_value(metrics_counter(m, "blobd_corrupt_blobs_total", "", NULL)), 0);
    /* Twice: it is damaged. */
    blob_cache_invalidate(cache, &d);
    arriving.times = 2;
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_E_CORRUPT);
    CU_ASSERT_FALSE(rig_has_blob(&r, &d));
    blob_cache_free(cache);
    metrics_free(m);
    rig_close(&r);
}

/* Another node has replaced what this one holds open: seen when the name is asked for again. */
static void test_replaced(void)
{
    struct rig r;
    rig_open(&r);
    struct blob_cache_options opt = roomy;
    opt.content_max = 0;
    opt.max_age_ms = 1000;
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &opt);
    struct digest d = rig_digest("whole", 5);
    char got[5];
    rig_commit(&r, &d, "wrong", 5);
    rig_add(&r, &d, 5, "x", ASKER, T0);
    struct blob_entry *e = load(cache, &d, T0);
    e->fd = 0; /* memory has no descriptors: as a disk would have */
    blob_cache_release(cache, e);
    rig_commit(&r, &d, "whole", 5);
    e = load(cache, &d, T0 + 2000);
    CU_ASSERT_EQUAL(reader_read(e->reader, 0, got, 5, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(memcmp(got, "whole", 5), 0);
    blob_cache_release(cache, e);
    blob_cache_free(cache);
    rig_close(&r);
}

static void test_damage(void)
{
    struct rig r;
    rig_open(&r);
    struct metrics *m = metrics_new();
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, m, &roomy);
    struct digest cut = rig_digest("cut", 3), changed = rig_digest("changed", 7), missing = rig_digest("missing", 7);
    rig_commit(&r, &cut, "", 0);
    rig_commit(&r, &changed, "chAnged", 7);
    rig_add(&r, &cut, 3, "cut", ASKER, T0);
    rig_add(&r, &changed, 7, "changed", ASKER, T0);
    rig_add(&r, &missing, 7, "missing", ASKER, T0);
    CU_ASSERT_EQUAL(try_load(cache, &cut), BLOB_E_CORRUPT);
    CU_ASSERT_EQUAL(try_load(cache, &changed), BLOB_E_CORRUPT);
    CU_ASSERT_EQUAL(try_load(cache, &missing), BLOB_E_CORRUPT);
    CU_ASSERT_EQUAL(metric_value(metrics_counter(m, "blobd_corrupt_blobs_total", "", NULL)), 3);
    /* What is wrong is set aside; what has another size is to be looked at. */
    CU_ASSERT_FALSE(rig_has_blob(&r, &changed));
    struct digest suspect;
    CU_ASSERT_TRUE(blob_cache_next_suspect(cache, 0, &suspect));
    CU_ASSERT_TRUE(digest_equal(&suspect, &cut));
    CU_ASSERT_FALSE(blob_cache_next_suspect(cache, 0, &suspect));
    /* An upload of the same content heals. */
    rig_commit(&r, &cut, "cut", 3);
    CU_ASSERT_EQUAL(try_load(cache, &cut), BLOB_OK);
    CU_ASSERT_EQUAL(try_load(cache, &changed), BLOB_E_CORRUPT);
    rig_commit(&r, &changed, "changed", 7);
    CU_ASSERT_EQUAL(try_load(cache, &changed), BLOB_OK);
    blob_cache_free(cache);
    metrics_free(m);
    rig_close(&r);
}

/* ---- changes ---- */

static void test_changes_here(void)
{
    struct rig r;
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &roomy);
    struct digest d = rig_put(&r, "small");
    struct file_record a = rig_add(&r, &d, 5, "a", ASKER, T0);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_OK);
    CU_ASSERT_TRUE(holds(cache, &d, NOW + 1000000, "a"));
    struct file_record b = rig_add(&r, &d, 5, "b", ASKER, T0 + 1);
    CU_ASSERT_TRUE(holds(cache, &d, NOW, NULL));
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_OK);
    CU_ASSERT_TRUE(holds(cache, &d, NOW, "b"));
    rig_destroy(&r, b.id, false);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_OK);
    CU_ASSERT_TRUE(holds(cache, &d, NOW, "a"));
    rig_destroy(&r, a.id, true);
    CU_ASSERT_TRUE(holds(cache, &d, NOW, NULL));
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_E_NOT_FOUND);
    blob_cache_free(cache);
    rig_close(&r);
}

static void test_changes_elsewhere(void)
{
    struct rig r;
    struct blob_cache_options opt = roomy;
    opt.max_age_ms = 1000;
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &opt);
    struct file_catalog *other_node = file_catalog_new(r.store, r.sessions, NULL);
    struct digest d = rig_put(&r, "larger than sixteen");
    rig_add(&r, &d, 19, "a", ASKER, T0);
    struct blob_entry *first = load(cache, &d, NOW);
    CU_ASSERT_TRUE(holds(cache, &d, NOW + 999, "a"));
    CU_ASSERT_TRUE(holds(cache, &d, NOW + 1000, NULL));
    CU_ASSERT_TRUE(holds(cache, &d, NOW - 1, NULL)); /* the clock was set back */
    /* Nothing changed: the same entry, without opening the blob again. */
    struct blob_entry *again = load(cache, &d, NOW + 1500);
    CU_ASSERT_PTR_EQUAL(again, first);
    CU_ASSERT_TRUE(holds(cache, &d, NOW + 2499, "a"));
    blob_cache_release(cache, again);
    struct file_record b = rig_file(&d, 19, "b", ASKER, T0 + 1);
    CU_ASSERT_EQUAL(file_catalog_add(other_node, &b, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(holds(cache, &d, NOW + 2499, "a"));
    again = load(cache, &d, NOW + 2500);
    CU_ASSERT_STRING_EQUAL(again->file.name, "b");
    CU_ASSERT_TRUE(holds(cache, &d, NOW + 2500, "b"));
    blob_cache_release(cache, again);
    blob_cache_release(cache, first);
    blob_cache_free(cache);
    file_catalog_free(other_node);
    rig_close(&r);
}

static void test_expired_file(void)
{
    struct rig r;
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &roomy);
    struct digest d = rig_put(&r, "small");
    int64_t now = clock_wall_ms();
    struct file_record f = rig_file(&d, 5, "a", ASKER, now);
    f.expires_ms = now + 60000;
    CU_ASSERT_EQUAL(file_catalog_add(r.catalog, &f, 0, NULL), BLOB_OK);
    blob_cache_release(cache, load(cache, &d, now));
    CU_ASSERT_TRUE(holds(cache, &d, now + 59999, "a"));
    CU_ASSERT_TRUE(holds(cache, &d, now + 60000, NULL));
    blob_cache_free(cache);
    rig_close(&r);
}

/* In the middle of a load, after the catalog was read, the blob gets a newer name. */
static struct rig *racing;
static struct file_record racing_file;

static enum blob_status renamed_first(struct blob_store *s, const struct digest *digest, struct blob_reader **out,
                                      struct blob_info *info, struct blob_error *err)
{
    racing->ops.blob_open = racing->real->blob_open;
    CU_ASSERT_EQUAL(file_catalog_add(racing->catalog, &racing_file, 0, NULL), BLOB_OK);
    return racing->real->blob_open(s, digest, out, info, err);
}

static void test_change_during_load(void)
{
    struct rig r;
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &roomy);
    struct digest d = rig_put(&r, "small");
    rig_add(&r, &d, 5, "old name", ASKER, T0);
    racing = &r;
    racing_file = rig_file(&d, 5, "new name", ASKER, T0 + 1);
    r.ops.blob_open = renamed_first;
    struct blob_entry *e = load(cache, &d, NOW);
    CU_ASSERT_STRING_EQUAL(e->file.name, "old name"); /* its request overlapped the change */
    CU_ASSERT_TRUE(holds(cache, &d, NOW, NULL));      /* but nobody after it gets that */
    blob_cache_release(cache, e);
    blob_cache_release(cache, load(cache, &d, NOW));
    CU_ASSERT_TRUE(holds(cache, &d, NOW, "new name"));
    blob_cache_free(cache);
    rig_close(&r);
}

/* ---- bounds ---- */

#define MANY 400

static void load_many(struct rig *r, struct blob_cache *cache, const char *prefix)
{
    for (int i = 0; i < MANY; i++) {
        char content[64];
        snprintf(content, sizeof content, "%s%d", prefix, i);
        struct digest d = rig_put(r, content);
        rig_add(r, &d, strlen(content), "x", ASKER, T0);
        blob_cache_release(cache, load(cache, &d, NOW));
    }
}

static int64_t gauge(struct metrics *m, const char *name)
{
    return metric_value(metrics_gauge(m, name, "", NULL));
}

static void check_bounds(struct blob_cache_options opt, const char *prefix)
{
    struct rig r;
    rig_open(&r);
    struct metrics *m = metrics_new();
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, m, &opt);
    load_many(&r, cache, prefix);
    CU_ASSERT_TRUE(gauge(m, "blobd_cache_entries") > 0);
    CU_ASSERT_TRUE(gauge(m, "blobd_cache_entries") <= (int64_t)opt.max_entries);
    CU_ASSERT_TRUE(gauge(m, "blobd_cache_bytes") <= (int64_t)opt.max_bytes);
    CU_ASSERT_TRUE(gauge(m, "blobd_cache_readers") <= (int64_t)opt.max_readers);
    /* The one used last is there. */
    char content[64];
    snprintf(content, sizeof content, "%s%d", prefix, MANY - 1);
    struct digest d = rig_digest(content, strlen(content));
    CU_ASSERT_TRUE(holds(cache, &d, NOW, "x"));
    blob_cache_free(cache);
    CU_ASSERT_EQUAL(gauge(m, "blobd_cache_bytes"), 0);
    CU_ASSERT_EQUAL(gauge(m, "blobd_cache_entries"), 0);
    CU_ASSERT_EQUAL(gauge(m, "blobd_cache_readers"), 0);
    metrics_free(m);
    rig_close(&r);
}

static void test_bounds(void)
{
    struct blob_cache_options opt = roomy;
    opt.max_entries = 64;
    check_bounds(opt, "small ");
    opt = roomy;
    opt.max_bytes = 128 * 1024;
    check_bounds(opt, "small ");
    opt = roomy;
    opt.max_readers = 32;
    check_bounds(opt, "not small, but larger than sixteen bytes: ");
}

static void test_recently_used_stays(void)
{
    struct rig r;
    struct blob_cache_options opt = roomy;
    opt.max_entries = 64; /* four a shard */
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &opt);
    struct digest hot = rig_put(&r, "hot");
    rig_add(&r, &hot, 3, "hot", ASKER, T0);
    blob_cache_release(cache, load(cache, &hot, NOW));
    for (int i = 0; i < MANY; i++) {
        char content[32];
        snprintf(content, sizeof content, "cold %d", i);
        struct digest d = rig_put(&r, content);
        rig_add(&r, &d, strlen(content), "cold", ASKER, T0);
        blob_cache_release(cache, load(cache, &d, NOW));
        CU_ASSERT_TRUE_FATAL(holds(cache, &hot, NOW, "hot"));
    }
    blob_cache_free(cache);
    rig_close(&r);
}

/* ---- what is made once ---- */

static atomic_int prepared;

static void *prepare(const struct blob_entry *entry, void *arg)
{
    CU_ASSERT_PTR_EQUAL(arg, &prepared);
    atomic_fetch_add(&prepared, 1);
    return strdup(entry->file.name);
}

static void discard(void *extra, void *arg)
{
    CU_ASSERT_PTR_EQUAL(arg, &prepared);
    atomic_fetch_sub(&prepared, 1);
    free(extra);
}

static void test_extra(void)
{
    struct rig r;
    struct blob_cache_options opt = roomy;
    opt.prepare = prepare;
    opt.discard = discard;
    opt.arg = &prepared;
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &opt);
    struct digest d = rig_put(&r, "small");
    rig_add(&r, &d, 5, "a", ASKER, T0);
    struct blob_entry *e = load(cache, &d, NOW);
    CU_ASSERT_STRING_EQUAL(e->extra, "a");
    blob_cache_invalidate(cache, &d);
    CU_ASSERT_EQUAL(prepared, 1);
    blob_cache_release(cache, e);
    CU_ASSERT_EQUAL(prepared, 0);
    blob_cache_release(cache, load(cache, &d, NOW));
    CU_ASSERT_EQUAL(prepared, 1);
    blob_cache_free(cache);
    CU_ASSERT_EQUAL(prepared, 0);
    rig_close(&r);
}

/* ---- threads ---- */

#define READERS 3
#define RENAMES 300

struct traffic {
    struct rig *r;
    struct blob_cache *cache;
    struct digest digest;
    atomic_int acknowledged; /* the name of this number was added, and its add returned */
    atomic_bool over;
    atomic_int stale;
};

static void *download(void *arg)
{
    struct traffic *t = arg;
    while (!atomic_load(&t->over)) {
        int at_least = atomic_load(&t->acknowledged);
        struct blob_entry *e = blob_cache_get(t->cache, &t->digest, ASKER, NOW);
        if (!e && blob_cache_load(t->cache, &t->digest, ASKER, NOW, &e, NULL) != BLOB_OK) {
            atomic_fetch_add(&t->stale, 1);
            continue;
        }
        if (strtol(e->file.name, NULL, 10) < at_least)
            atomic_fetch_add(&t->stale, 1);
        blob_cache_release(t->cache, e);
    }
    return NULL;
}

static void test_threads(void)
{
    struct rig r;
    struct traffic t = {.r = &r};
    pthread_t readers[READERS];
    struct blob_cache_options opt = roomy;
    opt.max_entries = 1;
    rig_open(&r);
    t.cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &opt);
    t.digest = rig_put(&r, "small");
    rig_add(&r, &t.digest, 5, "0", ASKER, T0);
    for (int i = 0; i < READERS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&readers[i], NULL, download, &t), 0);
    for (int i = 1; i <= RENAMES; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        rig_add(&r, &t.digest, 5, name, ASKER, T0 + i);
        atomic_store(&t.acknowledged, i);
    }
    atomic_store(&t.over, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i], NULL);
    CU_ASSERT_EQUAL(t.stale, 0);
    blob_cache_free(t.cache);
    rig_close(&r);
}

/* ---- whose names ---- */

static bool is_called(struct blob_cache *cache, const struct digest *d, const char *asker, const char *name)
{
    /* As the server asks: from the cache, or else by a load; and then from the cache again. */
    bool ok = true;
    for (int i = 0; i < 2; i++) {
        struct blob_entry *e = blob_cache_get(cache, d, asker, NOW);
        if (!e && blob_cache_load(cache, d, asker, NOW, &e, NULL) != BLOB_OK)
            return false;
        ok = ok && strcmp(e->file.name, name) == 0;
        blob_cache_release(cache, e);
    }
    return ok;
}

/* More files of the blob than an entry can tell the owners of, or few. */
static void names_of(unsigned others)
{
    static const char *const askers[] = {NULL, "bob", "carol", "alice", "dave", "mallory"};
    static const char *const names[] = {"first", "bob's new", "first", "alice's", "dave's", "first"};
    struct rig r;
    rig_open(&r);
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &roomy);
    struct digest d = rig_put(&r, "small");
    rig_add(&r, &d, 5, "first", "carol", T0);
    for (unsigned i = 0; i < others; i++)
        rig_add(&r, &d, 5, "some", "somebody", T0 + 10 + i);
    rig_add(&r, &d, 5, "bob's old", "bob", T0 + 2000);
    rig_add(&r, &d, 5, "alice's", "alice", T0 + 3000);
    struct file_record bobs = rig_add(&r, &d, 5, "bob's new", "bob", T0 + 4000);
    rig_add(&r, &d, 5, "dave's", "dave", T0 + 5000);
    /* Whoever came before in whatever order. */
    for (unsigned order = 0; order < 6; order++) {
        blob_cache_invalidate(cache, &d);
        for (unsigned i = 0; i < 12; i++) {
            unsigned n = (i * (order % 2 ? 5 : 1) + order) % 6;
            CU_ASSERT_TRUE(is_called(cache, &d, askers[n], names[n]));
        }
    }
    /* A change is seen by all. */
    rig_destroy(&r, bobs.id, false);
    CU_ASSERT_TRUE(is_called(cache, &d, "bob", "bob's old"));
    rig_add(&r, &d, 5, "mallory's", "mallory", T0 + 6000);
    CU_ASSERT_TRUE(is_called(cache, &d, "mallory", "mallory's"));
    CU_ASSERT_TRUE(is_called(cache, &d, NULL, "first"));
    blob_cache_free(cache);
    rig_close(&r);
}

static void test_names_of_one_are_not_told_another(void)
{
    names_of(0);
    names_of(2);
    names_of(3);
    names_of(60);
    names_of(200);
}

/* ---- what is not there ---- */

static struct digest unknown(const char *content)
{
    return rig_digest(content, strlen(content));
}

static unsigned lists; /* how often the store was asked for a listing */
static struct rig *hooked;

static enum blob_status counted_list(struct blob_store *s, const char *prefix, const char *after, size_t limit,
                                     bool values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    lists++;
    return hooked->real->record_list(s, prefix, after, limit, values, fn, arg, err);
}

static void test_absent(void)
{
    struct rig r;
    rig_open(&r);
    hooked = &r;
    lists = 0;
    r.ops.record_list = counted_list;
    struct blob_cache_options opt = roomy;
    opt.absent_ms = 1000;
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &opt);
    struct digest d = unknown("late");
    CU_ASSERT_EQUAL(blob_cache_recall(cache, &d, NOW), RECALL_NOTHING);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_E_NOT_FOUND);
    unsigned once = lists;
    CU_ASSERT(once > 0);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(lists, once);
    CU_ASSERT_EQUAL(blob_cache_recall(cache, &d, NOW + 999), RECALL_ABSENT);
    CU_ASSERT_EQUAL(blob_cache_recall(cache, &d, NOW + 1000), RECALL_NOTHING);
    CU_ASSERT_EQUAL(blob_cache_recall(cache, &d, NOW - 1), RECALL_NOTHING);
    rig_put(&r, "late");
    rig_add(&r, &d, 4, "a", ASKER, T0);
    CU_ASSERT_EQUAL(blob_cache_recall(cache, &d, NOW), RECALL_NOTHING);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_OK);
    CU_ASSERT_EQUAL(blob_cache_recall(cache, &d, NOW), RECALL_STALE);
    blob_cache_free(cache);
    rig_close(&r);
}

/* A file is added between the listing and its end: nothing of the old state stays. */
static enum blob_status late_list(struct blob_store *s, const char *prefix, const char *after, size_t limit,
                                  bool values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    enum blob_status st = hooked->real->record_list(s, prefix, after, limit, values, fn, arg, err);
    hooked->ops.record_list = hooked->real->record_list;
    struct digest d = rig_put(hooked, "late");
    rig_add(hooked, &d, 4, "a", ASKER, T0);
    return st;
}

static void test_absent_race(void)
{
    struct rig r;
    rig_open(&r);
    hooked = &r;
    struct blob_cache_options opt = roomy;
    opt.absent_ms = 1000;
    struct blob_cache *cache = blob_cache_new(r.store, r.catalog, NULL, NULL, &opt);
    struct digest d = unknown("late");
    r.ops.record_list = late_list;
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_cache_recall(cache, &d, NOW), RECALL_NOTHING);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_OK);
    blob_cache_free(cache);
    rig_close(&r);
}

/* Two nodes on one store: what the one adds, the other sees at once, and without Redis after absent_ms. */
static void test_absent_elsewhere(void)
{
    struct rig r;
    struct memory_hub *hub = memory_hub_new();
    rig_open_on(&r, hub);
    struct session_store *sessions = memory_sessions_open(hub);
    struct file_catalog *elsewhere = file_catalog_new(r.store, sessions, NULL);
    struct blob_cache_options opt = roomy;
    opt.absent_ms = 1000;
    opt.shared = true;
    struct blob_cache *cache = blob_cache_new(r.store, elsewhere, NULL, NULL, &opt);
    struct digest d = unknown("late"), later = unknown("later");
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(try_load(cache, &later), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_cache_recall(cache, &d, NOW), RECALL_NOTHING); /* a loop cannot know */
    rig_put(&r, "late");
    rig_put(&r, "later");
    rig_add(&r, &d, 4, "a", ASKER, T0);
    CU_ASSERT_EQUAL(try_load(cache, &d), BLOB_OK);
    rig_add(&r, &later, 5, "b", ASKER, T0);
    memory_hub_set_down(hub, true);
    struct blob_entry *e = NULL;
    CU_ASSERT_EQUAL(blob_cache_load(cache, &later, ASKER, NOW + 999, &e, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_cache_load(cache, &later, ASKER, NOW + 1000, &e, NULL), BLOB_OK);
    blob_cache_release(cache, e);
    memory_hub_set_down(hub, false);
    blob_cache_free(cache);
    file_catalog_free(elsewhere);
    session_store_close(sessions);
    rig_close(&r);
    memory_hub_free(hub);
}

int main(void)
{
    CU_TestInfo tests[] = {{"a small blob is kept as content", test_content},
                           {"a large blob is kept open, and a hold outlives its file", test_reader},
                           {"what no file names is not found, and that is not remembered", test_unknown},
                           {"damaged and missing blobs are not served; a re-upload heals", test_damage},
                           {"what arrives wrong once is read again", test_arrives_wrong},
                           {"an open file that was replaced is opened anew", test_replaced},
                           {"changes of this process are seen at once", test_changes_here},
                           {"changes of other nodes are seen after max_age", test_changes_elsewhere},
                           {"a file past its time is not served from the cache", test_expired_file},
                           {"a change during a load is not overlooked", test_change_during_load},
                           {"entries, bytes and readers are bounded", test_bounds},
                           {"what is used stays", test_recently_used_stays},
                           {"what prepare made is freed with the last hold", test_extra},
                           {"no download after an add sees an older name", test_threads},
                           {"a name of one identity is not told another", test_names_of_one_are_not_told_another},
                           {"an unknown digest is remembered until its time is over, or a file comes", test_absent},
                           {"a file added during a load leaves nothing absent behind", test_absent_race},
                           {"what another node adds ends an absence", test_absent_elsewhere},
                           CU_TEST_INFO_NULL};
    return unit_main("blob_cache", tests);
}
