/* file_catalog - adding is idempotent, the newest name wins, owners see their own, the index follows the records. */
#include "core/fault.h"
#include "tests/rig/catalog_rig.h"

#include <errno.h>
#include <pthread.h>

#define T0 INT64_C(1769850300250)

static struct identity someone(const char *name, bool admin)
{
    struct identity who = {.known = true, .admin = admin};
    snprintf(who.name, sizeof who.name, "%s", name);
    return who;
}

static enum blob_status get(struct rig *r, const char *id, const struct identity *who)
{
    struct file_record out;
    return file_catalog_get(r->catalog, id, who, &out, NULL);
}

static enum blob_status destroy(struct rig *r, const char *id, const struct identity *who)
{
    struct digest digest;
    bool last;
    return file_catalog_destroy(r->catalog, id, who, &digest, &last, NULL);
}

/* ---- adding ---- */

static void test_add_again(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record f = rig_file(&d, 5, "a.wav", "alice", T0), again = f;
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &f, 0, NULL), BLOB_OK);
    snprintf(again.name, sizeof again.name, "the second try says otherwise");
    again.created_ms += 5000;
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &again, 0, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(again.id, f.id);
    CU_ASSERT_STRING_EQUAL(again.name, "a.wav");
    CU_ASSERT_EQUAL(again.created_ms, T0);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 1);
    rig_close(&r);
}

static void test_number_taken(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record a = rig_file(&d, 5, "a", "", T0), b = rig_file(&d, 5, "b", "", T0), b_again;
    b.number = a.number;
    b_again = b;
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &a, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &b, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(b.number, a.number - 1);
    CU_ASSERT_STRING_NOT_EQUAL(a.id, b.id);
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &b_again, 0, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(b_again.id, b.id);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 2);
    rig_close(&r);
}

/* The file whose number it had met is gone since, and with it what led on to the next number. */
static void test_found_behind_a_gap(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello"), other = rig_put(&r, "other");
    struct file_record files[4], found;
    files[0] = rig_file(&d, 5, "0", "", T0);
    uint64_t number = files[0].number;
    for (int i = 0; i < 4; i++) {
        if (i > 0)
            files[i] = rig_file(&d, 5, "later", "", T0);
        files[i].number = number;
        CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &files[i], 0, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(files[i].number, number - (uint64_t)i);
    }
    rig_destroy(&r, files[0].id, false);
    rig_destroy(&r, files[2].id, false);
    for (int i = 0; i < 4; i++) {
        enum blob_status st = file_catalog_find(r.catalog, &d, number, &files[i].upload, &found, NULL);
        CU_ASSERT_EQUAL(st, i % 2 ? BLOB_OK : BLOB_E_NOT_FOUND);
        if (st == BLOB_OK)
            CU_ASSERT_STRING_EQUAL(found.id, files[i].id);
    }
    CU_ASSERT_EQUAL(file_catalog_find(r.catalog, &other, number, &files[1].upload, &found, NULL), BLOB_E_NOT_FOUND);
    /* Neither what is far from it, nor a damaged one in between. */
    struct file_record far = rig_file(&d, 5, "far", "", T0);
    far.number = number - 64;
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &far, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(file_catalog_find(r.catalog, &d, number, &far.upload, &found, NULL), BLOB_E_NOT_FOUND);
    char key[FILE_KEY_CHARS + 1];
    file_key_make(&d, files[1].number, key);
    CU_ASSERT_EQUAL_FATAL(record_put(r.store, key, "{", 1, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(file_catalog_find(r.catalog, &d, number, &files[3].upload, &found, NULL), BLOB_OK);
    rig_close(&r);
}

/* The put happened, its answer was lost. */
static struct rig *lossy;

static enum blob_status put_then_fail(struct blob_store *s, const char *key, const void *value, size_t len,
                                      unsigned flags, struct blob_error *err)
{
    enum blob_status st = lossy->real->record_put(s, key, value, len, flags, err);
    return st == BLOB_OK ? blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the answer was lost") : st;
}

static void test_add_after_a_lost_answer(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record f = rig_file(&d, 5, "a.wav", "", T0), again = f;
    lossy = &r;
    r.ops.record_put = put_then_fail;
    CU_ASSERT_EQUAL(file_catalog_add(r.catalog, &f, 0, NULL), BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(f.id[0], '\0');
    r.ops.record_put = r.real->record_put;
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 0);
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &again, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 1);
    CU_ASSERT_EQUAL(get(&r, again.id, NULL), BLOB_OK);
    rig_close(&r);
}

/* ---- what a download costs ---- */

static struct {
    struct rig *r;
    unsigned reads, keys, lists;
    struct file_record *add; /* in the middle of the next listing */
} costs;

struct counted {
    record_list_fn *fn;
    void *arg;
};

static bool count_key(const char *key, const void *value, size_t len, void *arg)
{
    const struct counted *counted = arg;
    costs.keys++;
    return counted->fn(key, value, len, counted->arg);
}

static enum blob_status get_counted(struct blob_store *s, const char *key, struct bytebuf *out, struct blob_error *err)
{
    costs.reads++;
    return costs.r->real->record_get(s, key, out, err);
}

static enum blob_status list_counted(struct blob_store *s, const char *prefix, const char *after, size_t limit,
                                     bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    struct counted counted = {fn, arg};
    costs.lists++;
    enum blob_status st = costs.r->real->record_list(s, prefix, after, limit, with_values, count_key, &counted, err);
    struct file_record *add = costs.add;
    costs.add = NULL;
    if (add)
        CU_ASSERT_EQUAL(file_catalog_add(costs.r->catalog, add, 0, NULL), BLOB_OK);
    return st;
}

/* How many records naming it reads. name NULL: no file counts. */
static unsigned naming_reads(struct rig *r, const struct digest *d, const char *name)
{
    struct file_naming naming;
    costs.reads = 0;
    enum blob_status st = file_catalog_name(r->catalog, d, NULL, &naming, NULL);
    CU_ASSERT_EQUAL(st, name ? BLOB_OK : BLOB_E_NOT_FOUND);
    if (name && st == BLOB_OK)
        CU_ASSERT_STRING_EQUAL(naming.file.name, name);
    return costs.reads;
}

static void count_costs(struct rig *r)
{
    costs.r = r;
    costs.add = NULL;
    costs.reads = costs.keys = costs.lists = 0;
    r->ops.record_get = get_counted;
    r->ops.record_list = list_counted;
}

enum { EXPIRED = 300 };

static void add_expired(struct rig *r, const struct digest *d, int64_t now)
{
    count_costs(r);
    for (int i = 0; i < EXPIRED; i++) {
        struct file_record f = rig_file(d, 5, "expired", "", now - 900000 + i * 1000);
        f.expires_ms = now - 1;
        CU_ASSERT_EQUAL_FATAL(file_catalog_add(r->catalog, &f, 0, NULL), BLOB_OK);
    }
}

/* However many are past their time, each is read once. What is added is seen at once, before and behind them. */
static void test_expired_are_read_once(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    int64_t now = clock_wall_ms();
    add_expired(&r, &d, now);
    CU_ASSERT_TRUE(naming_reads(&r, &d, NULL) <= EXPIRED);
    CU_ASSERT_EQUAL(naming_reads(&r, &d, NULL), 0);
    rig_add(&r, &d, 5, "newer", "", now);
    CU_ASSERT_TRUE(naming_reads(&r, &d, "newer") <= 2);
    struct file_record older = rig_add(&r, &d, 5, "older", "", now - 800500);
    CU_ASSERT_TRUE(naming_reads(&r, &d, "older") <= EXPIRED + 64);
    CU_ASSERT_TRUE(naming_reads(&r, &d, "older") <= 2);
    rig_destroy(&r, older.id, false);
    CU_ASSERT_TRUE(naming_reads(&r, &d, "newer") <= EXPIRED + 64);
    CU_ASSERT_TRUE(naming_reads(&r, &d, "newer") <= 2);
    rig_close(&r);
}

/* Added while they were looked through, or by another node: seen all the same. */
static void test_added_behind_the_expired(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    int64_t now = clock_wall_ms();
    add_expired(&r, &d, now);
    struct file_record late = rig_file(&d, 5, "late", "", now - 899500);
    costs.add = &late;
    struct file_naming either;
    (void)!file_catalog_name(r.catalog, &d, NULL, &either, NULL);
    (void)naming_reads(&r, &d, "late");
    rig_destroy(&r, late.id, false);
    (void)naming_reads(&r, &d, NULL);
    rig_close(&r);
    rig_open(&r);
    d = rig_put(&r, "hello");
    add_expired(&r, &d, now);
    r.store->caps |= STORE_SHARED;
    struct file_catalog *other = file_catalog_new(r.store, r.sessions, NULL);
    (void)naming_reads(&r, &d, NULL);
    CU_ASSERT_EQUAL(file_catalog_add(other, &late, 0, NULL), BLOB_OK);
    (void)naming_reads(&r, &d, "late");
    file_catalog_free(other);
    rig_close(&r);
}

/* A damaged record may be mended: it is looked at again. */
static void test_damaged_among_the_expired(void)
{
    struct rig r;
    char key[FILE_KEY_CHARS + 1];
    struct bytebuf value;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    int64_t now = clock_wall_ms();
    add_expired(&r, &d, now);
    struct file_record f = rig_add(&r, &d, 5, "mended", "", now - 850500);
    file_key_make(&d, f.number, key);
    bytebuf_init(&value);
    CU_ASSERT_EQUAL_FATAL(record_get(r.store, key, &value, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(record_put(r.store, key, "{", 1, 0, NULL), BLOB_OK);
    (void)naming_reads(&r, &d, NULL);
    CU_ASSERT_EQUAL_FATAL(record_put(r.store, key, value.data, value.len, 0, NULL), BLOB_OK);
    (void)naming_reads(&r, &d, "mended");
    bytebuf_release(&value);
    rig_close(&r);
}

/* However many files a blob has: no request reads more than a bound, and what they answer is right. */
enum { BOUND_READS = 2 * 64 + 2, BOUND_KEYS = 3000, BOUND_LISTS = 40 };

static void within_bounds(const char *what, size_t files)
{
    if (costs.reads > BOUND_READS || costs.keys > BOUND_KEYS || costs.lists > BOUND_LISTS)
        printf("%s of %zu files: %u records, %u keys, %u listings\n", what, files, costs.reads, costs.keys,
               costs.lists);
    CU_ASSERT_TRUE(costs.reads <= BOUND_READS && costs.keys <= BOUND_KEYS && costs.lists <= BOUND_LISTS);
    costs.reads = costs.keys = costs.lists = 0;
}

static void costs_of_many(size_t files)
{
    struct rig r;
    struct file_naming naming;
    struct file_record found, f, mine, first = {.name = ""};
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    count_costs(&r);
    for (size_t i = 0; i < files; i++) { /* some in bursts, some years apart */
        f = rig_file(&d, 5, i == 0 ? "first" : "another", "bob",
                     T0 + (int64_t)(i / 700) * INT64_C(20000000000) + (int64_t)i);
        CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &f, 0, NULL), BLOB_OK);
        first = i == 0 ? f : first;
    }
    within_bounds("adding the last", files);
    for (int again = 0; again < 2; again++) {
        CU_ASSERT_EQUAL_FATAL(file_catalog_name(r.catalog, &d, NULL, &naming, NULL), BLOB_OK);
        CU_ASSERT_STRING_EQUAL(naming.file.name, "first");
        within_bounds(again ? "naming again" : "naming", files);
    }
    CU_ASSERT_EQUAL(file_catalog_find(r.catalog, &d, f.number + 1, &first.upload, &found, NULL), BLOB_E_NOT_FOUND);
    within_bounds("finding", files);
    mine = rig_add(&r, &d, 5, "mine", "alice", T0 + INT64_C(900000000000));
    CU_ASSERT_EQUAL_FATAL(file_catalog_name(r.catalog, &d, "alice", &naming, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(naming.file.name, "mine");
    within_bounds("naming her own", files);
    rig_destroy(&r, mine.id, false);
    within_bounds("destroying", files);
    rig_destroy(&r, first.id, false);
    CU_ASSERT_EQUAL_FATAL(file_catalog_name(r.catalog, &d, NULL, &naming, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(naming.file.name, "another");
    CU_ASSERT_EQUAL(naming.file.created_ms, first.created_ms + 1);
    within_bounds("naming after the first was destroyed", files);
    rig_close(&r);
}

static void test_costs_do_not_grow(void)
{
    costs_of_many(10);
    costs_of_many(4000);
}

/* All past their time, and more than one request may read: it is told to come again, and the walk gets on. */
static void test_very_many_expired(void)
{
    struct rig r;
    struct file_naming naming;
    enum { MANY = 2000 };
    int64_t now = clock_wall_ms();
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    count_costs(&r);
    for (int i = 0; i < MANY; i++) {
        struct file_record f = rig_file(&d, 5, "expired", "", now - 900000 + i * 100);
        f.expires_ms = i == MANY / 2 ? now + 900000 : now - 1;
        snprintf(f.name, sizeof f.name, "%s", i == MANY / 2 ? "the one" : "expired");
        CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &f, 0, NULL), BLOB_OK);
    }
    enum blob_status st = BLOB_E_UNAVAILABLE;
    for (int i = 0; st == BLOB_E_UNAVAILABLE && i < 4; i++) {
        costs.reads = costs.keys = costs.lists = 0;
        st = file_catalog_name(r.catalog, &d, NULL, &naming, NULL);
        CU_ASSERT_TRUE(costs.reads <= 512 + 64);
    }
    CU_ASSERT_EQUAL_FATAL(st, BLOB_OK);
    CU_ASSERT_STRING_EQUAL(naming.file.name, "the one");
    rig_close(&r);
}

/* ---- the newest name ---- */

static void test_newest(void)
{
    struct rig r;
    struct file_record newest;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello"), other = rig_put(&r, "hallo");
    CU_ASSERT_EQUAL(file_catalog_newest(r.catalog, &d, &newest, NULL), BLOB_E_NOT_FOUND);
    struct file_record b = rig_add(&r, &d, 5, "second", "", T0 + 1000);
    struct file_record a = rig_add(&r, &d, 5, "first", "", T0);
    struct file_record c = rig_add(&r, &d, 5, "third", "", T0 + 1000000);
    rig_add(&r, &other, 5, "another blob's", "", T0 + 2000000);
    static const char *const names[] = {"third", "second", "first"};
    const struct file_record *files[] = {&c, &b, &a};
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL_FATAL(file_catalog_newest(r.catalog, &d, &newest, NULL), BLOB_OK);
        CU_ASSERT_STRING_EQUAL(newest.name, names[i]);
        rig_destroy(&r, files[i]->id, i == 2);
    }
    CU_ASSERT_EQUAL(file_catalog_newest(r.catalog, &d, &newest, NULL), BLOB_E_NOT_FOUND);
    rig_close(&r);
}

static void test_newest_passes_over(void)
{
    struct rig r;
    struct file_record newest;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    int64_t now = clock_wall_ms();
    rig_add(&r, &d, 5, "good", "", now - 60000);
    struct file_record gone = rig_file(&d, 5, "expired", "", now - 50000);
    gone.expires_ms = now - 1;
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &gone, 0, NULL), BLOB_OK);
    struct file_record damaged = rig_add(&r, &d, 5, "damaged", "", now - 40000);
    char key[FILE_KEY_CHARS + 1];
    file_key_make(&d, damaged.number, key);
    CU_ASSERT_EQUAL_FATAL(record_put(r.store, key, "{", 1, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(file_catalog_newest(r.catalog, &d, &newest, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(newest.name, "good");
    CU_ASSERT_EQUAL(get(&r, gone.id, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(get(&r, damaged.id, NULL), BLOB_E_CORRUPT);
    rig_close(&r);
}

/* ---- owners ---- */

static void test_owners(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct identity alice = someone("alice", false), bob = someone("bob", false), root = someone("root", true),
                    nobody = {.known = false};
    struct file_record a = rig_add(&r, &d, 5, "a", "alice", T0), b = rig_add(&r, &d, 5, "b", "bob", T0 + 1);
    rig_add(&r, &d, 5, "from before auth", "", T0 + 2);
    CU_ASSERT_EQUAL(rig_listed(&r, &alice), 1);
    CU_ASSERT_EQUAL(rig_listed(&r, &bob), 1);
    CU_ASSERT_EQUAL(rig_listed(&r, &root), 3);
    CU_ASSERT_EQUAL(rig_listed(&r, &nobody), 3);
    CU_ASSERT_EQUAL(get(&r, a.id, &alice), BLOB_OK);
    CU_ASSERT_EQUAL(get(&r, a.id, &bob), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(get(&r, a.id, &root), BLOB_OK);
    CU_ASSERT_EQUAL(destroy(&r, a.id, &bob), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(get(&r, a.id, &alice), BLOB_OK);
    CU_ASSERT_EQUAL(destroy(&r, a.id, &alice), BLOB_OK);
    CU_ASSERT_EQUAL(get(&r, a.id, &alice), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(destroy(&r, b.id, &root), BLOB_OK);
    CU_ASSERT_EQUAL(destroy(&r, b.id, &bob), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(destroy(&r, "nonsense", &bob), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(rig_listed(&r, &root), 1);
    rig_close(&r);
}

/* ---- destroying ---- */

static struct rig *racing;
static const char *racing_id;
static struct file_record racing_file;

static enum blob_status destroyed_first(struct blob_store *s, const char *key, unsigned flags, struct blob_error *err)
{
    racing->ops.record_delete = racing->real->record_delete;
    rig_destroy(racing, racing_id, true);
    return racing->real->record_delete(s, key, flags, err);
}

static void test_two_destroys(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record a = rig_add(&r, &d, 5, "a", "", T0);
    racing = &r;
    racing_id = a.id;
    r.ops.record_delete = destroyed_first;
    rig_destroy(&r, a.id, true);
    CU_ASSERT_EQUAL(get(&r, a.id, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 0);
    rig_close(&r);
}

static enum blob_status added_first(struct blob_store *s, const struct digest *digest, int64_t *touched_ms,
                                    struct blob_error *err)
{
    CU_ASSERT_EQUAL(file_catalog_add(racing->catalog, &racing_file, 0, NULL), BLOB_OK);
    return racing->real->blob_touch(s, digest, touched_ms, err);
}

static void test_destroy_beside_add(void)
{
    struct rig r;
    struct file_record newest;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record a = rig_add(&r, &d, 5, "a", "", T0);
    racing = &r;
    racing_file = rig_file(&d, 5, "b", "", T0 + 9);
    r.ops.blob_touch = added_first;
    rig_destroy(&r, a.id, true);
    CU_ASSERT_EQUAL_FATAL(file_catalog_newest(r.catalog, &d, &newest, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(newest.name, "b");
    CU_ASSERT_TRUE(rig_has_blob(&r, &d));
    rig_close(&r);
}

static void test_failed_destroy_can_be_repeated(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record a = rig_add(&r, &d, 5, "a", "", T0);
    fault_arm("store.record_delete", EIO, 0, 1);
    CU_ASSERT_EQUAL(destroy(&r, a.id, NULL), BLOB_E_IO);
    CU_ASSERT_EQUAL(get(&r, a.id, NULL), BLOB_OK);
    fault_disarm_all();
    fault_arm("store.blob_touch", EIO, 0, 1);
    rig_destroy(&r, a.id, true);
    fault_disarm_all();
    rig_close(&r);
}

/* It shows no owner: it is left to whoever may destroy anything. */
static void test_destroy_damaged(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record a = rig_add(&r, &d, 5, "a", "alice", T0);
    struct identity alice = someone("alice", false), root = someone("root", true);
    char key[FILE_KEY_CHARS + 1];
    file_key_make(&d, a.number, key);
    CU_ASSERT_EQUAL_FATAL(record_put(r.store, key, "{", 1, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(destroy(&r, a.id, &alice), BLOB_E_CORRUPT);
    CU_ASSERT_EQUAL(destroy(&r, a.id, &root), BLOB_OK);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 0);
    rig_close(&r);
}

/* ---- the index ---- */

static void test_index_away(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record kept = rig_add(&r, &d, 5, "kept", "", T0), gone = rig_add(&r, &d, 5, "gone", "", T0 + 1);
    fault_arm("sessions.index_put", EAGAIN, 0, 0);
    fault_arm("sessions.index_remove", EAGAIN, 0, 0);
    rig_add(&r, &d, 5, "made while Redis was away", "", T0 + 2);
    rig_destroy(&r, gone.id, false);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 2);
    CU_ASSERT_EQUAL(file_catalog_heal_index(r.catalog, NULL, NULL), BLOB_E_UNAVAILABLE);
    fault_disarm_all();
    CU_ASSERT_EQUAL(file_catalog_heal_index(r.catalog, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 2);
    CU_ASSERT_EQUAL(destroy(&r, gone.id, NULL), BLOB_E_NOT_FOUND);
    rig_destroy(&r, kept.id, false);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 1);
    rig_close(&r);
}

static void test_ghost_row(void)
{
    struct rig r;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    struct file_record a = rig_add(&r, &d, 5, "a", "", T0);
    char key[FILE_KEY_CHARS + 1];
    file_key_make(&d, a.number, key);
    CU_ASSERT_EQUAL(record_delete(r.store, key, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 1);
    CU_ASSERT_EQUAL(destroy(&r, a.id, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 0);
    rig_close(&r);
}

#define REBUILT 1203 /* more than two pages */

static void fill(struct rig *r)
{
    for (int i = 0; i < REBUILT; i++) {
        char content[16];
        snprintf(content, sizeof content, "%d", i % 700);
        struct digest d = rig_digest(content, strlen(content));
        rig_add(r, &d, strlen(content), "x.wav", i % 2 ? "odd" : "even", T0 + i);
    }
}

static void test_rebuild(void)
{
    struct memory_hub *hub = memory_hub_new();
    struct rig r;
    struct identity odd = someone("odd", false);
    struct index_query q = {.orders = 1, .top = 1};
    uint64_t count = 0;
    unsigned passed = 0;
    rig_open_on(&r, hub);
    fill(&r);
    CU_ASSERT_EQUAL(record_put(r.store, "files/junk/x", "{}", 2, 0, NULL), BLOB_OK);
    memory_hub_empty(hub);
    CU_ASSERT_EQUAL(file_catalog_list(r.catalog, NULL, &q, &count, count_file, &passed, NULL), BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(passed, 0);
    atomic_bool stop = true;
    CU_ASSERT_EQUAL(file_catalog_heal_index(r.catalog, &stop, NULL), BLOB_E_CANCELED);
    stop = false;
    CU_ASSERT_EQUAL(file_catalog_heal_index(r.catalog, &stop, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(file_catalog_list(r.catalog, NULL, &q, &count, count_file, &passed, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, REBUILT);
    CU_ASSERT_EQUAL(file_catalog_list(r.catalog, &odd, &q, &count, count_file, &passed, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, REBUILT / 2);
    rig_close(&r);
    memory_hub_free(hub);
}

static unsigned half_way;

/* Between two pages of a rebuild: what asks for the listing is told to come again, and whatever asks for less is
 * answered. */
static enum blob_status list_half_way(struct blob_store *s, const char *prefix, const char *after, size_t limit,
                                      bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    if (after && with_values) {
        struct index_query q = {.orders = 1, .top = 100};
        uint64_t count = 0;
        unsigned passed = 0;
        struct file_record found;
        half_way++;
        CU_ASSERT_EQUAL(file_catalog_list(racing->catalog, NULL, &q, &count, count_file, &passed, NULL),
                        BLOB_E_UNAVAILABLE);
        CU_ASSERT_EQUAL(passed, 0);
        CU_ASSERT_EQUAL(file_catalog_get(racing->catalog, racing_file.id, NULL, &found, NULL), BLOB_OK);
    }
    return racing->real->record_list(s, prefix, after, limit, with_values, fn, arg, err);
}

static void test_listing_while_rebuilt(void)
{
    struct memory_hub *hub = memory_hub_new();
    struct rig r;
    rig_open_on(&r, hub);
    fill(&r);
    struct digest d = rig_put(&r, "hello");
    racing_file = rig_add(&r, &d, 5, "x", "", T0);
    memory_hub_empty(hub);
    racing = &r;
    half_way = 0;
    r.ops.record_list = list_half_way;
    CU_ASSERT_EQUAL(file_catalog_heal_index(r.catalog, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(half_way, 2);
    r.ops.record_list = r.real->record_list;
    CU_ASSERT_EQUAL(rig_listed(&r, &(struct identity){.name = "", .known = true}), 1);
    rig_close(&r);
    memory_hub_free(hub);
}

/* Destroys a file after the rebuild has read its record, and before it looks again. */
static enum blob_status destroy_then_list(struct blob_store *s, const char *prefix, const char *after, size_t limit,
                                          bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    if (!with_values) {
        racing->ops.record_list = racing->real->record_list;
        /* As another node would: its removal of the row came before our put. */
        char key[FILE_KEY_CHARS + 1];
        file_key_make(&racing_file.digest, racing_file.number, key);
        CU_ASSERT_EQUAL(record_delete(s, key, 0, err), BLOB_OK);
    }
    return racing->real->record_list(s, prefix, after, limit, with_values, fn, arg, err);
}

static void test_rebuild_beside_destroy(void)
{
    for (int destroyed = 0; destroyed < 3; destroyed++) {
        struct memory_hub *hub = memory_hub_new();
        struct rig r;
        struct file_record files[3];
        rig_open_on(&r, hub);
        struct digest d = rig_put(&r, "hello");
        for (int i = 0; i < 3; i++)
            files[i] = rig_add(&r, &d, 5, "x", "", T0 + i);
        memory_hub_empty(hub);
        racing = &r;
        racing_file = files[destroyed];
        r.ops.record_list = destroy_then_list;
        CU_ASSERT_EQUAL(file_catalog_heal_index(r.catalog, NULL, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(rig_listed(&r, NULL), 2);
        rig_close(&r);
        memory_hub_free(hub);
    }
}

/* ---- expiry ---- */

static void test_expiry(void)
{
    struct rig r;
    size_t done = 0;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    int64_t now = clock_wall_ms();
    struct file_record stays = rig_add(&r, &d, 5, "stays", "", now);
    for (int i = 0; i < 5; i++) {
        struct file_record f = rig_file(&d, 5, "temporary", "", now + i);
        f.temporary = true;
        f.expires_ms = now + 1000 + i;
        CU_ASSERT_EQUAL_FATAL(file_catalog_add(r.catalog, &f, 0, NULL), BLOB_OK);
    }
    CU_ASSERT_EQUAL(file_catalog_expire(r.catalog, now + 500, 100, &done, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(done, 0);
    CU_ASSERT_EQUAL(file_catalog_expire(r.catalog, now + 5000, 3, &done, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(done, 3);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 3);
    CU_ASSERT_EQUAL(file_catalog_expire(r.catalog, now + 5000, 100, &done, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(done, 2);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 1);
    CU_ASSERT_EQUAL(get(&r, stays.id, NULL), BLOB_OK);
    rig_close(&r);
}

/* A row of a file that is gone, and one that says another time than the record, cost nothing and come right. */
static void test_expiry_trusts_records(void)
{
    struct rig r;
    size_t done = 0;
    rig_open(&r);
    struct digest d = rig_put(&r, "hello");
    int64_t now = clock_wall_ms();
    struct file_record f = rig_add(&r, &d, 5, "for ever", "", now);
    struct index_row row = {.size = 5, .created_ms = now, .expires_ms = now - 5000, .value = "{}", .value_len = 2};
    snprintf(row.id, sizeof row.id, "%s", f.id);
    CU_ASSERT_EQUAL_FATAL(index_put(r.sessions, &row, NULL), BLOB_OK);
    f.number++;
    file_id_make(&f);
    snprintf(row.id, sizeof row.id, "%s", f.id);
    CU_ASSERT_EQUAL_FATAL(index_put(r.sessions, &row, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(file_catalog_expire(r.catalog, now, 100, &done, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(done, 2);
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 1);
    CU_ASSERT_EQUAL(file_catalog_expire(r.catalog, now, 100, &done, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(done, 0);
    rig_close(&r);
}

/* ---- threads ---- */

#define THREADS 4
#define ROUNDS  300

static void *add_and_destroy(void *arg)
{
    struct rig *r = arg;
    struct digest d = rig_digest("hello", 5);
    for (int i = 0; i < ROUNDS; i++) {
        struct file_record f = rig_file(&d, 5, "x", "", T0 + i), back;
        struct digest digest;
        bool last;
        if (file_catalog_add(r->catalog, &f, 0, NULL) != BLOB_OK ||
            file_catalog_get(r->catalog, f.id, NULL, &back, NULL) != BLOB_OK ||
            strcmp(back.upload.text, f.upload.text) != 0 ||
            file_catalog_destroy(r->catalog, f.id, NULL, &digest, &last, NULL) != BLOB_OK)
            return arg;
    }
    return NULL;
}

static void test_threads(void)
{
    struct rig r;
    pthread_t threads[THREADS];
    rig_open(&r);
    rig_put(&r, "hello");
    for (int i = 0; i < THREADS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, add_and_destroy, &r), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        CU_ASSERT_PTR_NULL(failed);
    }
    CU_ASSERT_EQUAL(rig_listed(&r, NULL), 0);
    rig_close(&r);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"adding again finds the first record", test_add_again},
        {"a number taken by another upload is counted down, the same way each time", test_number_taken},
        {"and is found when that other is gone", test_found_behind_a_gap},
        {"each file past its time is read once", test_expired_are_read_once},
        {"what is added behind them is seen", test_added_behind_the_expired},
        {"a damaged one among them may be mended", test_damaged_among_the_expired},
        {"no request costs more where a blob has many files", test_costs_do_not_grow},
        {"very many that are past their time are looked through by and by", test_very_many_expired},
        {"an add whose answer was lost is found by the next one", test_add_after_a_lost_answer},
        {"the newest file names the blob, whatever the order of adding", test_newest},
        {"expired and damaged records name no blob", test_newest_passes_over},
        {"an identity sees and destroys its own, an admin all", test_owners},
        {"two destroys at once both succeed", test_two_destroys},
        {"an add in the middle of a destroy keeps its blob", test_destroy_beside_add},
        {"a destroy that failed can be repeated; its afterwork may fail", test_failed_destroy_can_be_repeated},
        {"a damaged record can be destroyed by an admin only", test_destroy_damaged},
        {"rows missed while the index was away are repaired", test_index_away},
        {"destroying again removes a row without a record", test_ghost_row},
        {"an emptied index is rebuilt from the records", test_rebuild},
        {"while the index is rebuilt there is no listing, and all else", test_listing_while_rebuilt},
        {"a file destroyed while the index is rebuilt leaves no row", test_rebuild_beside_destroy},
        {"temporary files go when their time is over, others stay", test_expiry},
        {"expiry trusts the record, not the row", test_expiry_trusts_records},
        {"many threads add and destroy files of one blob", test_threads},
        CU_TEST_INFO_NULL};
    return unit_main("file_catalog", tests);
}
