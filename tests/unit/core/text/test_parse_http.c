/* parse_http - queries, ranges and entity tags: the RFC's examples, and what clients get wrong. */
#include "core/text/parse_http.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void check_decoded(const char *text, bool plus, const char *expected)
{
    char out[64] = "?";
    CU_ASSERT_EQUAL(percent_decode(text, strlen(text), plus, out, sizeof out), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(out, expected);
}

static void test_percent(void)
{
    static const char *const bad[] = {"%", "a%2", "%zz", "%2g", "%00", "a%0", "%%41"};
    char out[64];
    check_decoded("", false, "");
    check_decoded("a%20b+c", false, "a b+c");
    check_decoded("a%20b+c%2B", true, "a b c+");
    check_decoded("%e4%BD%a0", false, "\xe4\xbd\xa0");
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(percent_decode(bad[i], strlen(bad[i]), true, out, sizeof out), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(percent_decode("abcd", 4, true, out, 5), BLOB_OK);
    CU_ASSERT_EQUAL(percent_decode("abcd", 4, true, out, 4), BLOB_E_TOO_LARGE);
    CU_ASSERT_EQUAL(percent_decode("", 0, true, out, 0), BLOB_E_TOO_LARGE);
    /* An escape may not reach behind len. */
    CU_ASSERT_EQUAL(percent_decode("a%41", 3, true, out, sizeof out), BLOB_E_INVALID);
}

static void check_query(const char *query, const char *key, enum blob_status st, const char *expected)
{
    char out[64] = "untouched";
    CU_ASSERT_EQUAL(query_get(query, key, out, sizeof out), st);
    if (expected)
        CU_ASSERT_STRING_EQUAL(out, expected);
}

static void test_query(void)
{
    check_query("filename=a.txt&temporary=true", "filename", BLOB_OK, "a.txt");
    check_query("filename=a.txt&temporary=true", "temporary", BLOB_OK, "true");
    check_query("file%6eame=a%26b%3Dc", "filename", BLOB_OK, "a&b=c");
    check_query("a=1=2", "a", BLOB_OK, "1=2");
    check_query("digest=", "digest", BLOB_OK, "");
    check_query("digest", "digest", BLOB_OK, "");
    check_query("&&a=1&", "a", BLOB_OK, "1");
    check_query("afilename=x&filename2=y", "filename", BLOB_E_NOT_FOUND, "untouched");
    check_query("Filename=x", "filename", BLOB_E_NOT_FOUND, "untouched");
    check_query("", "filename", BLOB_E_NOT_FOUND, "untouched");
    check_query(NULL, "filename", BLOB_E_NOT_FOUND, "untouched");
    check_query("a=1&b=2&a=1", "a", BLOB_E_INVALID, NULL);
    check_query("a=1&%61=2", "a", BLOB_E_INVALID, NULL);
    check_query("a=%", "a", BLOB_E_INVALID, NULL);
    check_query("a=x%00y", "a", BLOB_E_INVALID, NULL);
    check_query("%=1&a=2", "a", BLOB_OK, "2");
    check_query("a=0123456789012345678901234567890123456789012345678901234567890123", "a", BLOB_E_TOO_LARGE, NULL);
}

/* The elements, each in brackets. */
static void check_list(const char *value, char separator, const char *expected)
{
    char out[128] = "";
    struct field_part rest = field_whole(value), element;
    for (size_t at = 0; field_next(&rest, separator, &element);)
        at += (size_t)snprintf(out + at, sizeof out - at, "[%.*s]", (int)element.len, element.text);
    CU_ASSERT_STRING_EQUAL(out, expected);
}

static void test_lists(void)
{
    check_list(NULL, ',', "");
    check_list("", ',', "[]");
    check_list("a", ',', "[a]");
    check_list(" a ,\tb c\t,d", ',', "[a][b c][d]");
    check_list(",a,, \t,", ',', "[][a][][][]");
    check_list("a;q=\"x,y\";r, b", ',', "[a;q=\"x,y\";r][b]");
    check_list("a ; q=\"x;\\\";y\" ;r", ';', "[a][q=\"x;\\\";y\"][r]");
    check_list("\"open, a", ',', "[\"open, a]");
    check_list("a\\,b", ',', "[a\\][b]");
    check_list("\"a\\", ',', "[\"a\\]");
    struct field_part part = {.text = "Chunked, gzip", .len = 7};
    CU_ASSERT(field_is(&part, "chunked"));
    CU_ASSERT_FALSE(field_is(&part, "chunke"));
    CU_ASSERT_FALSE(field_is(&part, "chunked,"));
    CU_ASSERT_FALSE(field_is(&part, ""));
}

static void check_range(const char *field, uint64_t size, enum range_kind kind, uint64_t first, uint64_t last)
{
    uint64_t a = 77, b = 78;
    CU_ASSERT_EQUAL(range_parse(field, size, &a, &b), kind);
    CU_ASSERT_EQUAL(a, kind == RANGE_ONE ? first : 77);
    CU_ASSERT_EQUAL(b, kind == RANGE_ONE ? last : 78);
}

static void test_range_one(void)
{
    check_range("bytes=0-499", 10000, RANGE_ONE, 0, 499);
    check_range("bytes=500-999", 10000, RANGE_ONE, 500, 999);
    check_range("bytes=-500", 10000, RANGE_ONE, 9500, 9999);
    check_range("bytes=9500-", 10000, RANGE_ONE, 9500, 9999);
    check_range("Bytes=0-0", 10000, RANGE_ONE, 0, 0);
    check_range("bytes=9999-20000", 10000, RANGE_ONE, 9999, 9999);
    check_range("bytes=-20000", 10000, RANGE_ONE, 0, 9999);
    check_range("bytes=0-99999999999999999999999", 10000, RANGE_ONE, 0, 9999);
    check_range("bytes=, 5-6 ,", 10000, RANGE_ONE, 5, 6);
}

static void test_range_other(void)
{
    static const char *const malformed[] = {"bytes=",    "bytes=,",     "bytes=-",       "bytes=5",     "bytes=6-5",
                                            "bytes=a-b", "bytes=1-2x",  "bytes=1-2 3-4", "bytes=0 - 1", "bytes=0-1;",
                                            "bytes=--5", "bytes=0x1-2", "bytes=0-1,9-8"};
    for (size_t i = 0; i < COUNT(malformed); i++)
        check_range(malformed[i], 100, RANGE_MALFORMED, 0, 0);
    check_range(NULL, 100, RANGE_WHOLE, 0, 0);
    check_range("items=0-1", 100, RANGE_WHOLE, 0, 0);
    check_range("bytes", 100, RANGE_WHOLE, 0, 0);
    check_range("bytes=100-", 100, RANGE_UNSATISFIABLE, 0, 0);
    check_range("bytes=100-200", 100, RANGE_UNSATISFIABLE, 0, 0);
    check_range("bytes=-0", 100, RANGE_UNSATISFIABLE, 0, 0);
    check_range("bytes=99999999999999999999999-", 100, RANGE_UNSATISFIABLE, 0, 0);
    check_range("bytes=100-,200-", 100, RANGE_UNSATISFIABLE, 0, 0);
    check_range("bytes=0-1,5-6", 100, RANGE_SEVERAL, 0, 0);
    check_range("bytes=0-1,500-", 100, RANGE_SEVERAL, 0, 0);
    check_range("bytes=0-", 0, RANGE_UNSATISFIABLE, 0, 0);
    check_range("bytes=-5", 0, RANGE_WHOLE, 0, 0);
}

static void test_content_range(void)
{
    static const char *const bad[] = {"",
                                      "bytes",
                                      "bytes ",
                                      "bytes 0-9",
                                      "bytes */10",
                                      "bytes 9-8/*",
                                      "bytes 0-9/9",
                                      "bytes 0-9/",
                                      "bytes 0-9/*x",
                                      "0-9/10",
                                      "0-",
                                      "-9",
                                      "0-9 ",
                                      "bytes=0-9",
                                      "bytes  0-9/*",
                                      "items 0-9/*",
                                      "bytes 0-9223372036854775807/*",
                                      "0-99999999999999999999"};
    struct content_range r = {.first = 5};
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(content_range_parse(bad[i], &r), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(r.first, 5);
    CU_ASSERT_EQUAL(content_range_parse("bytes 10-19/*", &r), BLOB_OK);
    CU_ASSERT(r.first == 10 && r.last == 19 && !r.has_total);
    CU_ASSERT_EQUAL(content_range_parse("bytes 10-19/20", &r), BLOB_OK);
    CU_ASSERT(r.first == 10 && r.last == 19 && r.has_total && r.total == 20);
    CU_ASSERT_EQUAL(content_range_parse("0-0", &r), BLOB_OK);
    CU_ASSERT(r.first == 0 && r.last == 0 && !r.has_total);
}

static void test_etags(void)
{
    CU_ASSERT_TRUE(etag_list_has("\"abc\"", "abc", false));
    CU_ASSERT_TRUE(etag_list_has("\"x\", \"abc\"", "abc", false));
    CU_ASSERT_TRUE(etag_list_has(" , W/\"x\" ,\"abc\"", "abc", false));
    CU_ASSERT_TRUE(etag_list_has("\"a,b\", \"abc\"", "abc", false));
    CU_ASSERT_TRUE(etag_list_has("*", "abc", false));
    CU_ASSERT_TRUE(etag_list_has("W/\"abc\"", "abc", true));
    CU_ASSERT_FALSE(etag_list_has("W/\"abc\"", "abc", false));
    CU_ASSERT_FALSE(etag_list_has("\"abcd\", \"ab\"", "abc", true));
    CU_ASSERT_FALSE(etag_list_has("\"ABC\"", "abc", true));
    CU_ASSERT_FALSE(etag_list_has(NULL, "abc", true));
    CU_ASSERT_FALSE(etag_list_has("", "abc", true));
    CU_ASSERT_FALSE(etag_list_has("abc", "abc", true));
    CU_ASSERT_FALSE(etag_list_has("\"abc", "abc", true));
    CU_ASSERT_FALSE(etag_list_has("\"x\" \"abc\"", "abc", true));
    CU_ASSERT_FALSE(etag_list_has("* \"abc\"", "abc", true));
}

static void test_if_range(void)
{
    CU_ASSERT_TRUE(etag_is("\"abc\"", "abc"));
    CU_ASSERT_FALSE(etag_is("W/\"abc\"", "abc"));
    CU_ASSERT_FALSE(etag_is("\"abc\", \"abc\"", "abc"));
    CU_ASSERT_FALSE(etag_is("*", "abc"));
    CU_ASSERT_FALSE(etag_is("Sat, 29 Oct 1994 19:43:31 GMT", "abc"));
    CU_ASSERT_FALSE(etag_is(NULL, "abc"));
}

int main(void)
{
    CU_TestInfo tests[] = {{"percent-encoding is decoded strictly and within its bounds", test_percent},
                           {"a query's key is found decoded, once, or refused", test_query},
                           {"a list is parted at its commas, but for quoted ones", test_lists},
                           {"one range is resolved against the size", test_range_one},
                           {"ranges that are malformed, several, or past the end are told apart", test_range_other},
                           {"Content-Range in its three forms, nothing else", test_content_range},
                           {"entity-tag lists compare weakly or strongly", test_etags},
                           {"If-Range takes one strong tag", test_if_range},
                           CU_TEST_INFO_NULL};
    return unit_main("parse_http", tests);
}
