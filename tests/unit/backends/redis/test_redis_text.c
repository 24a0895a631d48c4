/*
 * redis_text - a node's copy of the search text never hides what another node changed, holds no more than it may, and
 * spares Redis the text of a listing.
 */
#include "backends/redis/redis_text.h"

#include "backends/redis/redis_config.h"
#include "backends/redis/redis_sessions.h"
#include "core/check.h"
#include "core/clock.h"
#include "tests/contract/redis_server.h"
#include "tests/rig/unit_main.h"

#include <signal.h>
#include <string.h>

#define BASE  "blobd:index:{files}:"
#define FILES 8000 /* three segments and a half */

static struct redis_server server;
static char url[128];

static int start(void)
{
    redis_server_start(&server, NULL);
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", server.port);
    return 0;
}

static int stop(void)
{
    redis_server_release(&server);
    return 0;
}

static struct redis_sessions_options options(void)
{
    return (struct redis_sessions_options){.url = url,
                                           .prefix = "blobd:",
                                           .connections = 4,
                                           .connect_timeout_ms = 2000,
                                           .command_timeout_ms = 2000,
                                           .node_ttl_ms = 15000};
}

static struct session_store *joined(const char *node)
{
    struct redis_sessions_options opt = options();
    struct session_store *s = NULL;
    CHECK(redis_sessions_open(&opt, &s, NULL) == BLOB_OK);
    CHECK(session_store_join(s, node, "store", clock_wall_ms(), NULL) == BLOB_OK);
    return s;
}

static void put(struct session_store *s, int i, const char *word)
{
    struct index_row row = {.created_ms = i, .size = (uint64_t)i, .value = "{}", .value_len = 2};
    snprintf(row.id, sizeof row.id, "file-%d", i);
    snprintf(row.name, sizeof row.name, "%s %d, a name of about a hundred bytes so that segments fill up sooner", word,
             i);
    CU_ASSERT_EQUAL_FATAL(index_put(s, &row, NULL), BLOB_OK);
}

static struct session_store *filled(const char *node)
{
    CHECK(redis_server_command(&server, "FLUSHALL"));
    struct session_store *s = joined(node);
    for (int i = 0; i < FILES; i++)
        put(s, i, "Recording");
    return s;
}

static bool ignore_row(const struct index_row *row, void *arg)
{
    (void)row;
    (void)arg;
    return true;
}

static uint64_t found(struct session_store *s, const char *search)
{
    struct index_query q = {.order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 100, .search = search, .skip = 50};
    uint64_t count = 99999;
    CU_ASSERT_EQUAL(index_list(s, &q, &count, ignore_row, NULL, NULL), BLOB_OK);
    return count;
}

static void test_changes_of_others(void)
{
    struct session_store *a = filled("node-a"), *b = joined("node-b");
    CU_ASSERT_EQUAL(found(b, "recording"), FILES);
    CU_ASSERT_EQUAL(index_remove(a, "file-0", NULL), BLOB_OK); /* of the first segment, long closed */
    CU_ASSERT_EQUAL(found(b, "recording"), FILES - 1);
    put(a, 1, "Renamed");
    put(a, FILES, "Late");
    CU_ASSERT_EQUAL(found(b, "recording"), FILES - 2);
    CU_ASSERT_EQUAL(found(b, "renamed"), 1);
    CU_ASSERT_EQUAL(found(b, "late"), 1);
    for (int i = 0; i < FILES / 2; i++) { /* segments are cleaned up meanwhile */
        put(a, i, "Renamed");
        if (i % 500 == 0)
            CU_ASSERT_EQUAL(found(b, "a name of about"), FILES + 1);
    }
    CU_ASSERT_EQUAL(found(b, "renamed"), FILES / 2);
    session_store_close(a);
    session_store_close(b);
}

static void test_emptied(void)
{
    struct session_store *a = filled("node-a"), *b = joined("node-b");
    CU_ASSERT_EQUAL(found(b, "recording"), FILES);
    CHECK(redis_server_command(&server, "FLUSHALL"));
    CU_ASSERT_EQUAL(found(b, "recording"), 0);
    for (int i = 0; i < FILES; i++) /* the same segments, with other bytes */
        put(a, i, "Anotherone");
    CU_ASSERT_EQUAL(found(b, "recording"), 0);
    CU_ASSERT_EQUAL(found(b, "anotherone"), FILES);
    session_store_close(a);
    session_store_close(b);
}

/* A server that came back with less than had been written, and then wrote other things in the same places. */
static void test_rolled_back(void)
{
    struct session_store *a = filled("node-a");
    CHECK(redis_server_command(&server, "SAVE"));
    for (int i = 0; i < FILES; i++)
        put(a, FILES + i, "Lost");
    CU_ASSERT_EQUAL(found(a, "lost"), FILES);
    redis_server_signal(&server, SIGKILL);
    redis_server_restart(&server);
    for (int64_t began = clock_steady_us(); clock_steady_us() - began < 5000000;)
        if (session_store_check(a, NULL) == BLOB_OK)
            break;
    for (int i = 0; i < FILES; i++)
        put(a, FILES + i, "Next");
    CU_ASSERT_EQUAL(found(a, "lost"), 0);
    CU_ASSERT_EQUAL(found(a, "next"), FILES);
    session_store_close(a);
}

static struct redis_conn *connected(void)
{
    struct redis_sessions_options opt = options();
    struct redis_config config;
    struct redis_conn *conn = NULL;
    CHECK(redis_config_parse(&opt, &config, NULL) == BLOB_OK);
    CHECK(redis_conn_open(&config, &config.endpoint, true, &conn, NULL) == BLOB_OK);
    return conn;
}

/* The rows that a scan offers. */
static uint64_t scanned(struct redis_text *text, struct redis_conn *conn)
{
    struct index_query q = {.order = {{INDEX_BY_SIZE, false}}, .orders = 1, .top = 100, .skip = FILES - 100};
    struct index_page page;
    struct redis_text_view *view = NULL;
    index_page_init(&page, &q);
    CU_ASSERT_EQUAL_FATAL(redis_text_scan(text, conn, &page, &view, NULL), BLOB_OK);
    index_page_sort(&page);
    CU_ASSERT_EQUAL_FATAL(index_page_rows(&page), 100);
    CU_ASSERT_EQUAL(index_page_row(&page, 0, NULL, NULL)->size, FILES - 100);
    CU_ASSERT_EQUAL(index_page_row(&page, 99, NULL, NULL)->size, FILES - 1);
    uint64_t matches = page.matches;
    index_page_release(&page);
    redis_text_close(text, view);
    return matches;
}

static void test_bound(void)
{
    struct session_store *a = filled("node-a");
    struct redis_conn *conn = connected();
    static const size_t bounds[] = {0, 500000, 100000000};
    size_t kept[3];
    for (int i = 0; i < 3; i++) {
        struct redis_text *text = NULL;
        CHECK(redis_text_new(BASE, bounds[i], &text, NULL) == BLOB_OK);
        CU_ASSERT_EQUAL(redis_text_refresh(text, conn, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(scanned(text, conn), FILES);
        CU_ASSERT_EQUAL(scanned(text, conn), FILES);
        kept[i] = redis_text_bytes(text);
        CU_ASSERT(kept[i] <= bounds[i]);
        redis_text_free(text);
    }
    CU_ASSERT(kept[0] == 0 && kept[1] > 250000 && kept[2] > kept[1]);
    redis_conn_close(conn);
    session_store_close(a);
}

static void test_spares_redis(void)
{
    struct session_store *a = filled("node-a");
    struct redis_conn *conn = connected();
    struct redis_text *text = NULL;
    CHECK(redis_text_new(BASE, 100000000, &text, NULL) == BLOB_OK);
    CU_ASSERT_EQUAL(redis_text_refresh(text, conn, NULL), BLOB_OK);
    long long before = redis_server_info(&server, "total_net_output_bytes");
    for (int i = 0; i < 10; i++)
        CU_ASSERT_EQUAL(scanned(text, conn), FILES);
    long long each = (redis_server_info(&server, "total_net_output_bytes") - before) / 10;
    printf("%lld bytes a listing of %d files: ", each, FILES);
    CU_ASSERT(each > 0 && each < 300000); /* the segment that is being written, where all are 900,000 */
    redis_text_free(text);
    redis_conn_close(conn);
    session_store_close(a);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_TestInfo tests[] = {{"what another node changes is seen by the next listing", test_changes_of_others},
                           {"emptied and filled again: nothing old is listed", test_emptied},
                           {"rolled back and written on: nothing lost is listed", test_rolled_back},
                           {"what is kept is bounded, what is listed is not", test_bound},
                           {"a listing fetches what changed", test_spares_redis},
                           CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"redis text", start, stop, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
