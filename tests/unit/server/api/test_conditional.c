/* conditional - the order of conditions and ranges, as RFC 9110 sections 13 and 14 say. */
#include "server/api/conditional.h"
#include "tests/rig/unit_main.h"

#define TAG "\"abc\""

static struct selection select_get(const char *if_match, const char *if_none_match, const char *range,
                                   const char *if_range, uint64_t size)
{
    struct conditions c = {if_match, if_none_match, range, if_range};
    return conditional_select(&c, true, "abc", size);
}

static void test_if_none_match(void)
{
    CU_ASSERT_EQUAL(select_get(NULL, NULL, NULL, NULL, 100).status, 200);
    CU_ASSERT_EQUAL(select_get(NULL, TAG, NULL, NULL, 100).status, 304);
    CU_ASSERT_EQUAL(select_get(NULL, "W/\"abc\"", NULL, NULL, 100).status, 304);
    CU_ASSERT_EQUAL(select_get(NULL, "*", NULL, NULL, 100).status, 304);
    CU_ASSERT_EQUAL(select_get(NULL, "\"x\", \"a,b\" ,\"abc\"", NULL, NULL, 100).status, 304);
    CU_ASSERT_EQUAL(select_get(NULL, "\"x\"", NULL, NULL, 100).status, 200);
    CU_ASSERT_EQUAL(select_get(NULL, "abc", NULL, NULL, 100).status, 200);
    CU_ASSERT_EQUAL(select_get(NULL, "", NULL, NULL, 100).status, 200);
}

static void test_if_match(void)
{
    CU_ASSERT_EQUAL(select_get(TAG, NULL, NULL, NULL, 100).status, 200);
    CU_ASSERT_EQUAL(select_get("*", NULL, NULL, NULL, 100).status, 200);
    CU_ASSERT_EQUAL(select_get("\"x\"", NULL, NULL, NULL, 100).status, 412);
    CU_ASSERT_EQUAL(select_get("W/\"abc\"", NULL, NULL, NULL, 100).status, 412);
    CU_ASSERT_EQUAL(select_get("", NULL, NULL, NULL, 100).status, 412);
}

static void test_order(void)
{
    CU_ASSERT_EQUAL(select_get("\"x\"", TAG, "bytes=0-1", NULL, 100).status, 412);
    CU_ASSERT_EQUAL(select_get(TAG, TAG, "bytes=0-1", NULL, 100).status, 304);
    CU_ASSERT_EQUAL(select_get(NULL, TAG, "bytes=500-", NULL, 100).status, 304);
    CU_ASSERT_EQUAL(select_get(TAG, NULL, "bytes=500-", NULL, 100).status, 416);
}

static void expect_part(const char *range, uint64_t size, uint64_t first, uint64_t length)
{
    struct selection s = select_get(NULL, NULL, range, NULL, size);
    CU_ASSERT_EQUAL(s.status, 206);
    CU_ASSERT_EQUAL(s.first, first);
    CU_ASSERT_EQUAL(s.length, length);
}

static void test_one_range(void)
{
    expect_part("bytes=0-0", 100, 0, 1);
    expect_part("bytes=0-", 100, 0, 100);
    expect_part("bytes=90-1000", 100, 90, 10);
    expect_part("bytes=-1", 100, 99, 1);
    expect_part("bytes=-500", 100, 0, 100);
    expect_part("bytes=1-99999999999999999999999999", 100, 1, 99);
}

static void test_unsatisfiable(void)
{
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=100-", NULL, 100).status, 416);
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=0-", NULL, 0).status, 416);
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=-0", NULL, 100).status, 416);
}

static void test_whole(void)
{
    static const char *const ignored[] = {"bytes=0-1,3-4", "bytes=",    "bytes=a-b", "bytes=5-4",  "bytes=1",
                                          "items=0-1",     "bytes 0-1", "",          "bytes=1-2x", "bytes=--1"};
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++) {
        struct selection s = select_get(NULL, NULL, ignored[i], NULL, 100);
        CU_ASSERT_EQUAL(s.status, 200);
        CU_ASSERT_EQUAL(s.first, 0);
        CU_ASSERT_EQUAL(s.length, 100);
    }
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=-5", NULL, 0).status, 200);
}

static void test_if_range(void)
{
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=0-1", TAG, 100).status, 206);
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=0-1", "\"x\"", 100).status, 200);
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=0-1", "W/\"abc\"", 100).status, 200);
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=0-1", "Sun, 22 Nov 2026 21:00:00 GMT", 100).status, 200);
    CU_ASSERT_EQUAL(select_get(NULL, NULL, "bytes=200-", "\"x\"", 100).status, 200);
}

static void test_head(void)
{
    struct conditions c = {.range = "bytes=0-1"};
    CU_ASSERT_EQUAL(conditional_select(&c, false, "abc", 100).status, 200);
    c.if_none_match = TAG;
    CU_ASSERT_EQUAL(conditional_select(&c, false, "abc", 100).status, 304);
}

int main(void)
{
    CU_TestInfo tests[] = {{"If-None-Match compares weakly, over a list", test_if_none_match},
                           {"If-Match compares strongly", test_if_match},
                           {"conditions are looked at in the standard's order, the range last", test_order},
                           {"one range is cut to the size", test_one_range},
                           {"a range past the end is refused", test_unsatisfiable},
                           {"several ranges, and what does not parse, give the whole", test_whole},
                           {"If-Range keeps the range for the same strong tag only", test_if_range},
                           {"HEAD has conditions but no ranges", test_head},
                           CU_TEST_INFO_NULL};
    return unit_main("conditional", tests);
}
