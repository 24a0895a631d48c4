/* parse, rfc3339 - every reader takes its grammar and nothing beside it. */
#include "core/text/parse.h"
#include "core/text/rfc3339.h"
#include "tests/rig/unit_main.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void test_u64(void)
{
    static const char *const bad[] = {
        "", " 1", "1 ", "+1", "-1", "0x10", "1e3", "1.0", "18446744073709551616", "99999999999999999999999"};
    uint64_t v = 7;
    CU_ASSERT_EQUAL(parse_u64("0", 0, UINT64_MAX, &v), BLOB_OK);
    CU_ASSERT_EQUAL(v, 0);
    CU_ASSERT_EQUAL(parse_u64("18446744073709551615", 0, UINT64_MAX, &v), BLOB_OK);
    CU_ASSERT_EQUAL(v, UINT64_MAX);
    CU_ASSERT_EQUAL(parse_u64("007", 0, 9, &v), BLOB_OK);
    CU_ASSERT_EQUAL(v, 7);
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(parse_u64(bad[i], 0, UINT64_MAX, &v), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(parse_u64("0", 1, 100, &v), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(parse_u64("101", 1, 100, &v), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(v, 7);
    CU_ASSERT_EQUAL(parse_u64("1", 1, 100, &v), BLOB_OK);
    CU_ASSERT_EQUAL(parse_u64("100", 1, 100, &v), BLOB_OK);
    CU_ASSERT_EQUAL(v, 100);
}

static void test_duration(void)
{
    static const char *const bad[] = {
        "", "15", "s", "15 s", "1.5s", "-1s", "15S", "15sec", "1h30m", "36526d", "99999999999999999999ms"};
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {{"0", 0},        {"0s", 0},         {"250ms", 250},      {"15s", 15000},
                {"10m", 600000}, {"24h", 86400000}, {"30d", 2592000000}, {"36525d", 3155760000000}};
    int64_t v = -1;
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(parse_duration_ms(bad[i], &v), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(v, -1);
    for (size_t i = 0; i < COUNT(good); i++) {
        CU_ASSERT_EQUAL(parse_duration_ms(good[i].text, &v), BLOB_OK);
        CU_ASSERT_EQUAL(v, good[i].ms);
    }
}

static void test_size(void)
{
    static const char *const bad[] = {"",     "K",  "16k", "16KB",     "16KiB",
                                      "1.5M", "-1", "8 M", "8388608T", "9223372036854775808"};
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"1000", 1000},
                {"16K", 16384},
                {"8M", 8388608},
                {"1G", 1073741824},
                {"2T", UINT64_C(2199023255552)},
                {"9223372036854775807", INT64_MAX}};
    uint64_t v = 7;
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(parse_size_bytes(bad[i], &v), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(v, 7);
    for (size_t i = 0; i < COUNT(good); i++) {
        CU_ASSERT_EQUAL(parse_size_bytes(good[i].text, &v), BLOB_OK);
        CU_ASSERT_EQUAL(v, good[i].bytes);
    }
}

static void test_bool(void)
{
    static const char *const bad[] = {"", "yes", "no", "True", "TRUE", "on", "2", "true "};
    bool v = false;
    CU_ASSERT(parse_bool("true", &v) == BLOB_OK && v);
    CU_ASSERT(parse_bool("0", &v) == BLOB_OK && !v);
    CU_ASSERT(parse_bool("1", &v) == BLOB_OK && v);
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(parse_bool(bad[i], &v), BLOB_E_INVALID);
    CU_ASSERT_TRUE(v);
    CU_ASSERT(parse_bool("false", &v) == BLOB_OK && !v);
}

static void test_rfc3339(void)
{
    static const struct {
        int64_t ms;
        const char *text;
    } times[] = {{0, "1970-01-01T00:00:00.000Z"},
                 {1709164799999, "2024-02-28T23:59:59.999Z"},
                 {1709164800000, "2024-02-29T00:00:00.000Z"},
                 {-1, "1969-12-31T23:59:59.999Z"},
                 {4102444800250, "2100-01-01T00:00:00.250Z"},
                 {INT64_MAX, "9999-12-31T23:59:59.999Z"},
                 {INT64_MIN, "0000-01-01T00:00:00.000Z"}};
    char text[RFC3339_CHARS + 1];
    for (size_t i = 0; i < COUNT(times); i++) {
        rfc3339_format(times[i].ms, text);
        CU_ASSERT_STRING_EQUAL(text, times[i].text);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {{"numbers: digits within bounds, nothing else", test_u64},
                           {"durations need a unit", test_duration},
                           {"sizes take K, M, G, T", test_size},
                           {"booleans are four words", test_bool},
                           {"times are RFC 3339, in UTC, to the millisecond", test_rfc3339},
                           CU_TEST_INFO_NULL};
    return unit_main("parse", tests);
}
