/* bytebuf - text and bytes that grow, and the cursor that reads our encodings back. */
#include "core/text/bytebuf.h"
#include "tests/rig/unit_main.h"

#include <stdlib.h>
#include <string.h>

static void test_empty(void)
{
    struct bytebuf b;
    bytebuf_init(&b);
    CU_ASSERT_STRING_EQUAL(b.data, "");
    bytebuf_add(&b, NULL, 0);
    bytebuf_clear(&b);
    CU_ASSERT_STRING_EQUAL(b.data, "");
    size_t len = 9;
    char *taken = bytebuf_take(&b, &len);
    CU_ASSERT_PTR_NOT_NULL_FATAL(taken);
    CU_ASSERT_STRING_EQUAL(taken, "");
    CU_ASSERT_EQUAL(len, 0);
    free(taken);
    bytebuf_release(&b);
}

static void test_grows(void)
{
    struct bytebuf b;
    bytebuf_init(&b);
    for (unsigned i = 0; i < 1000; i++) {
        bytebuf_printf(&b, "%03u,", i);
        CU_ASSERT_EQUAL(b.data[b.len], '\0');
    }
    CU_ASSERT_EQUAL(b.len, 4000);
    CU_ASSERT_EQUAL(strncmp(b.data + 4 * 737, "737,", 4), 0);
    bytebuf_clear(&b);
    bytebuf_text(&b, "again");
    CU_ASSERT_STRING_EQUAL(b.data, "again");
    bytebuf_release(&b);
}

static void test_printf_longer_than_room(void)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bytebuf_text(&b, "start ");
    bytebuf_printf(&b, "%0500d|", 7);
    CU_ASSERT_EQUAL(b.len, 6 + 501);
    CU_ASSERT_STRING_EQUAL(b.data + b.len - 3, "07|");
    CU_ASSERT_EQUAL(strncmp(b.data, "start 0", 7), 0);
    bytebuf_release(&b);
}

/* More than any machine has, so that the failing path is taken without a fault in malloc. */
static void test_failure_is_kept(void)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bytebuf_text(&b, "kept");
    bytebuf_add(&b, "x", SIZE_MAX / 2);
    CU_ASSERT_TRUE(b.failed);
    bytebuf_text(&b, " and dropped");
    CU_ASSERT_STRING_EQUAL(b.data, "kept");
    CU_ASSERT_PTR_NULL(bytebuf_take(&b, NULL));
    CU_ASSERT_FALSE(b.failed);
    bytebuf_release(&b);
}

static void check_json(const char *text, const char *expected)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bytebuf_json_string(&b, text);
    CU_ASSERT_STRING_EQUAL(b.data, expected);
    bytebuf_release(&b);
}

static void test_json(void)
{
    check_json("", "\"\"");
    check_json("plain /text", "\"plain /text\"");
    check_json("\"\\\n\t\x01\x7f", "\"\\\"\\\\\\n\\t\\u0001\\u007f\"");
    check_json("gr\xc3\xbc\xc3\x9f \xf0\x9f\x93\x9e", "\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x93\x9e\"");
    check_json("bad \xff\xc3", "\"bad \xef\xbf\xbd\xef\xbf\xbd\"");
    check_json("\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void test_encoding(void)
{
    static const uint8_t expected[] = {0xab, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 0xf1, 'h', 'i'};
    struct bytebuf b;
    bytebuf_init(&b);
    bytebuf_u8(&b, 0xab);
    bytebuf_u32(&b, 0x01020304);
    bytebuf_u64(&b, UINT64_C(0xf102030405060708));
    bytebuf_add(&b, "hi", 2);
    CU_ASSERT_EQUAL_FATAL(b.len, sizeof expected);
    CU_ASSERT_EQUAL(memcmp(b.data, expected, sizeof expected), 0);
    struct byteview v = {.data = (const uint8_t *)b.data, .len = b.len};
    CU_ASSERT_EQUAL(byteview_u8(&v), 0xab);
    CU_ASSERT_EQUAL(byteview_u32(&v), 0x01020304);
    CU_ASSERT_EQUAL(byteview_u64(&v), UINT64_C(0xf102030405060708));
    CU_ASSERT_EQUAL(memcmp(byteview_bytes(&v, 2), "hi", 2), 0);
    CU_ASSERT_FALSE(v.failed);
    CU_ASSERT_EQUAL(v.pos, v.len);
    bytebuf_release(&b);
}

static void test_short_read(void)
{
    struct byteview v = {.data = (const uint8_t *)"abc", .len = 3};
    CU_ASSERT_EQUAL(byteview_u32(&v), 0);
    CU_ASSERT_TRUE(v.failed);
    CU_ASSERT_EQUAL(byteview_u8(&v), 0);
    CU_ASSERT_PTR_NULL(byteview_bytes(&v, 0));
    CU_ASSERT_EQUAL(v.pos, 0);
    struct byteview w = {.data = (const uint8_t *)"abc", .len = 3};
    CU_ASSERT_PTR_NULL(byteview_bytes(&w, SIZE_MAX));
}

int main(void)
{
    CU_TestInfo tests[] = {{"an empty buffer is an empty string, and can be taken", test_empty},
                           {"growing keeps what is there and the NUL behind it", test_grows},
                           {"a printf that does not fit grows the buffer", test_printf_longer_than_room},
                           {"a failed addition is remembered until the buffer is reset", test_failure_is_kept},
                           {"JSON strings are escaped, invalid UTF-8 replaced", test_json},
                           {"numbers are little-endian and read back", test_encoding},
                           {"a short read stops the cursor for good", test_short_read},
                           CU_TEST_INFO_NULL};
    return unit_main("bytebuf", tests);
}
