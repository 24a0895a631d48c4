/* file_scan - lists from the records exactly what the index would list. */
#include "core/files/file_scan.h"

#include "backends/memory/memory_sessions.h"
#include "backends/memory/memory_store.h"
#include "core/check.h"
#include "core/files/file_catalog.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define FILES 300

struct pair {
    struct blob_store *store;
    struct session_store *sessions;
    struct file_catalog *catalog;
};

static bool add_id(const struct index_row *row, void *arg)
{
    struct bytebuf *ids = arg;
    bytebuf_printf(ids, "%s %llu %u;", row->id, (unsigned long long)row->size, row->value_len);
    return true;
}

/* Names and sizes with many ties; three owners. */
static void add_file(struct pair *p, unsigned i)
{
    static const char *const names[] = {"Anruf", "anruf", "Fax", "ÜBER", "über", ""};
    static const char *const owners[] = {"pbx", "bob", ""};
    struct file_record file = {.size = i * 7 % 5, .created_ms = 1700000000000 + i * 3 % 50};
    char content[16];
    struct digest digest;
    struct hash hash;
    snprintf(content, sizeof content, "%u", i);
    hash_init(&hash);
    hash_update(&hash, content, strlen(content));
    hash_peek(&hash, &digest);
    snprintf(file.name, sizeof file.name, "%s", names[i % 6]);
    snprintf(file.owner, sizeof file.owner, "%s", owners[i % 3]);
    snprintf(file.media_type, sizeof file.media_type, "audio/wav");
    file.digest = digest;
    uuid_new(&file.upload);
    file.number = file_number(file.created_ms, &file.upload);
    file_id_make(&file);
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(p->catalog, &file, 0, NULL), BLOB_OK);
}

static void compare(struct pair *p, const struct index_query *q)
{
    struct bytebuf indexed, scanned;
    uint64_t index_count = 0, scan_count = 0;
    bytebuf_init(&indexed);
    bytebuf_init(&scanned);
    CU_ASSERT_EQUAL(index_list(p->sessions, q, &index_count, add_id, &indexed, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(file_scan_list(p->store, q, &scan_count, add_id, &scanned, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_count, scan_count);
    CU_ASSERT_EQUAL(indexed.len, scanned.len);
    CU_ASSERT(indexed.len == scanned.len && memcmp(indexed.data, scanned.data, indexed.len) == 0);
    bytebuf_release(&scanned);
    bytebuf_release(&indexed);
}

static void test_same_as_the_index(void)
{
    struct pair p = {.sessions = memory_sessions_open(NULL)};
    CU_ASSERT_EQUAL_FATAL(memory_store_open(&(struct memory_options){0}, &p.store, NULL), BLOB_OK);
    p.catalog = file_catalog_new(p.store, p.sessions, NULL);
    for (unsigned i = 0; i < FILES; i++)
        add_file(&p, i);
    static const char *const searches[] = {NULL, "", "ANR", "üb", "nothing like it"};
    static const char *const owners[] = {NULL, "pbx", "bob", "nobody"};
    static const unsigned skips[] = {0, 3, 90, 299, 300};
    for (unsigned n = 0; n < 5 * 4 * 5 * 6; n++) {
        struct index_query q = {.search = searches[n % 5], .owner = owners[n / 5 % 4], .skip = skips[n / 20 % 5]};
        q.order[0] = (struct index_order){(enum index_key)(n / 100 % 3), n / 300 % 2};
        q.order[1] = (struct index_order){(enum index_key)((n / 100 + 1) % 3), n % 2};
        q.orders = 1 + n % 2;
        q.top = n % 3 ? 100 : 7;
        compare(&p, &q);
    }
    struct index_query far = {.order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 100, .skip = FILE_SCAN_ROWS};
    uint64_t count = 0;
    CU_ASSERT_EQUAL(file_scan_list(p.store, &far, &count, add_id, NULL, NULL), BLOB_E_UNAVAILABLE);
    file_catalog_free(p.catalog);
    session_store_close(p.sessions);
    blob_store_close(p.store);
}

static bool count_file(const struct file_record *file, void *arg)
{
    (void)file;
    ++*(unsigned *)arg;
    return true;
}

static void test_catalog_falls_back(void)
{
    struct memory_hub *hub = memory_hub_new();
    struct pair p = {.sessions = memory_sessions_open(hub)};
    CU_ASSERT_EQUAL_FATAL(memory_store_open(&(struct memory_options){0}, &p.store, NULL), BLOB_OK);
    p.catalog = file_catalog_new(p.store, p.sessions, NULL);
    for (unsigned i = 0; i < 12; i++)
        add_file(&p, i);
    memory_hub_set_down(hub, true);
    struct identity bob = {.name = "bob", .known = true};
    struct index_query q = {.order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 3};
    uint64_t count = 0;
    unsigned rows = 0;
    CU_ASSERT_EQUAL(file_catalog_list(p.catalog, &bob, &q, &count, count_file, &rows, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, 4);
    CU_ASSERT_EQUAL(rows, 3);
    file_catalog_free(p.catalog);
    session_store_close(p.sessions);
    memory_hub_free(hub);
    blob_store_close(p.store);
}

int main(void)
{
    CU_TestInfo tests[] = {{"every order, search, owner and page is the index's", test_same_as_the_index},
                           {"a listing goes on without the session store", test_catalog_falls_back},
                           CU_TEST_INFO_NULL};
    return unit_main("file_scan", tests);
}
