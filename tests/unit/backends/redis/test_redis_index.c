/*
 * redis_index - knows when the index in Redis is not whole: rows that did not reach it, on whatever node, and data of
 * an earlier time.
 */
#include "tests/rig/redis_rig.h"

static void test_missed_row(void)
{
    struct session_store *s = joined_here();
    struct redis_sessions_options opt = options();
    struct session_store *other = joined(&opt, "node-b");
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    redis_server_signal(&server, SIGSTOP);
    put_row(s, "lost", BLOB_E_UNAVAILABLE);
    redis_server_signal(&server, SIGCONT);
    CU_ASSERT(wait_for(s, 3000) >= 0);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    /* And the others learn of it. */
    for (int i = 0; i < 300 && index_whole(other, NULL) == BLOB_OK; i++)
        sleep_ms(10);
    CU_ASSERT_EQUAL(index_whole(other, NULL), BLOB_E_NOT_FOUND);
    session_store_close(other);
    session_store_close(s);
}

/* Rows that were missed and are put again make the index whole without a rebuild, for all nodes. */
static void test_caught_up(void)
{
    struct session_store *s = joined_here();
    struct redis_sessions_options opt = options();
    struct session_store *other = joined(&opt, "node-b");
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    redis_server_signal(&server, SIGSTOP);
    put_row(s, "lost", BLOB_E_UNAVAILABLE);
    redis_server_signal(&server, SIGCONT);
    CU_ASSERT(wait_for(s, 3000) >= 0);
    for (int i = 0; i < 300 && index_whole(other, NULL) == BLOB_OK; i++)
        sleep_ms(10);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(index_whole(other, NULL), BLOB_E_NOT_FOUND);
    index_caught_up(other); /* owes nothing */
    CU_ASSERT_EQUAL(index_whole(other, NULL), BLOB_E_NOT_FOUND);
    put_row(s, "lost", BLOB_OK);
    index_caught_up(s);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(other, NULL), BLOB_OK);
    session_store_close(other);
    session_store_close(s);
}

/* A node that owes rows and dies leaves the index to be rebuilt by another. */
static void test_owing_and_gone(void)
{
    struct session_store *s = joined_here();
    struct redis_sessions_options opt = options();
    struct session_store *other = joined(&opt, "node-b");
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    redis_server_signal(&server, SIGSTOP);
    put_row(s, "lost", BLOB_E_UNAVAILABLE);
    redis_server_signal(&server, SIGCONT);
    for (int i = 0; i < 300 && index_whole(other, NULL) != BLOB_E_NOT_FOUND; i++)
        sleep_ms(10);
    session_store_close(s);
    CU_ASSERT_EQUAL(index_whole(other, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(index_rebuild_begin(other, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(other, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(other, NULL), BLOB_OK);
    session_store_close(other);
}

/* The same run of the same server, with what it had once. */
static void test_back_in_time(void)
{
    static const char *const debug[] = {"--enable-debug-command", "yes", "--save", "", NULL};
    stop();
    start_with(debug);
    struct session_store *s = joined_here();
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    put_row(s, "a", BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    sleep_ms(700); /* heartbeats */
    CHECK(redis_server_command(&server, "SAVE") == 1);
    put_row(s, "b", BLOB_OK);
    sleep_ms(700);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    CHECK(redis_server_command(&server, "DEBUG RELOAD NOSAVE") == 1);
    for (int i = 0; i < 500 && index_whole(s, NULL) == BLOB_OK; i++)
        sleep_ms(10);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    /* Built anew it is whole, and stays so. */
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    for (int i = 0; i < 8; i++, sleep_ms(100))
        CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    session_store_close(s);
    stop();
    start_plain();
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_TestInfo tests[] = {{"a row that Redis missed is remembered and told to all", test_missed_row},
                           {"rows that were missed and put again make it whole", test_caught_up},
                           {"a node that owes rows and goes leaves a rebuild", test_owing_and_gone},
                           {"data of an earlier time are found, whatever run they are of", test_back_in_time},
                           CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"redis index", start_plain, stop, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
