/* filename, utf8, casefold - names as they come in, go out, and are searched. */
#include "core/files/filename.h"
#include "core/text/bytebuf.h"
#include "core/text/casefold.h"
#include "core/text/utf8.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static void test_utf8(void)
{
    static const char *const good[] = {"",
                                       "a",
                                       "\xc2\x80",
                                       "\xdf\xbf",
                                       "\xe0\xa0\x80",
                                       "\xed\x9f\xbf",
                                       "\xee\x80\x80",
                                       "\xf0\x90\x80\x80",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xc2",
                                      "\xe0\x9f\xbf",
                                      "\xed\xa0\x80",
                                      "\xe4\xbd",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "a\xc3(",
                                      "\xe4\xbd("};
    for (size_t i = 0; i < COUNT(good); i++)
        CU_ASSERT_TRUE(utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_FALSE(utf8_valid(bad[i], strlen(bad[i])));
}

static void test_utf8_round_trip(void)
{
    for (uint32_t cp = 1; cp <= 0x10ffff; cp++) {
        if (cp >= 0xd800 && cp <= 0xdfff)
            continue;
        char raw[UTF8_MAX_BYTES];
        size_t len = utf8_put(cp, raw);
        const char *p = raw;
        if (utf8_next(&p, raw + len) != cp || p != raw + len) {
            CU_FAIL("a code point does not come back");
            return;
        }
    }
    CU_PASS("all code points come back");
}

static void check_clean(const char *raw, const char *expected)
{
    char out[FILENAME_MAX_BYTES + 1];
    CU_ASSERT_EQUAL(filename_clean(raw, out), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(out, expected);
}

static void test_clean(void)
{
    static const char *const bad[] = {"a\nb", "a\r\nSet-Cookie: x", "\x7f", "\xc2\x85", "bad\xff", "bad\n/good"};
    char out[FILENAME_MAX_BYTES + 1] = "kept", longest[300];
    check_clean("report.pdf", "report.pdf");
    check_clean("/etc/passwd", "passwd");
    check_clean("C:\\fakepath\\fax 1.tif", "fax 1.tif");
    check_clean("../../a\"b.txt", "a\"b.txt");
    check_clean("\xe4\xbd\xa0\xe5\xa5\xbd.wav", "\xe4\xbd\xa0\xe5\xa5\xbd.wav");
    check_clean("", "");
    check_clean("dir/", "");
    check_clean("..", "");
    check_clean("a/.", "");
    for (size_t i = 0; i < COUNT(bad); i++)
        CU_ASSERT_EQUAL(filename_clean(bad[i], out), BLOB_E_INVALID);
    CU_ASSERT_STRING_EQUAL(out, "kept");
    memset(longest, 'x', sizeof longest);
    longest[255] = '\0';
    CU_ASSERT_EQUAL(filename_clean(longest, out), BLOB_OK);
    CU_ASSERT_EQUAL(strlen(out), 255);
    longest[255] = 'x';
    longest[256] = '\0';
    CU_ASSERT_EQUAL(filename_clean(longest, out), BLOB_E_INVALID);
}

static void check_disposition(const char *name, const char *expected)
{
    struct bytebuf b;
    bytebuf_init(&b);
    filename_disposition(name, &b);
    CU_ASSERT_STRING_EQUAL(b.data, expected);
    bytebuf_release(&b);
}

static void test_disposition(void)
{
    check_disposition("example", "attachment; filename=\"example\"");
    check_disposition("a b (1).txt", "attachment; filename=\"a b (1).txt\"");
    check_disposition("a\"b\\c%41.txt", "attachment; filename=\"a_b_c_41.txt\"; filename*=UTF-8''a%22b%5Cc%2541.txt");
    check_disposition("na\xc3\xafve \xe2\x82\xac.txt",
                      "attachment; filename=\"na_ve _.txt\"; filename*=UTF-8''na%C3%AFve%20%E2%82%AC.txt");
    /* What a cleaned name cannot hold must still not break a header. */
    check_disposition("a\r\nb\xff", "attachment; filename=\"a__b_\"");
}

static void check_fold(const char *text, const char *expected)
{
    struct bytebuf b;
    bytebuf_init(&b);
    casefold_add(text, &b);
    CU_ASSERT_STRING_EQUAL(b.data, expected);
    bytebuf_release(&b);
}

static void test_casefold(void)
{
    check_fold("ABC xyz 012 [\\]^_`{", "abc xyz 012 [\\]^_`{");
    check_fold("\xc3\x84\xc3\x96\xc3\x9c \xc3\x9f", "\xc3\xa4\xc3\xb6\xc3\xbc \xc3\x9f"); /* ÄÖÜ ß */
    check_fold("\xc3\x97\xc3\xb7", "\xc3\x97\xc3\xb7");                                   /* × ÷ are no letters */
    check_fold("\xc4\x80\xc5\xbd\xc5\xb8", "\xc4\x81\xc5\xbe\xc3\xbf");                   /* ĀŽŸ */
    check_fold("\xce\x91\xce\xa9\xcf\x82", "\xce\xb1\xcf\x89\xcf\x83");                   /* ΑΩς */
    check_fold("\xd0\x96\xd0\xaf\xd0\x81\xd2\x90", "\xd0\xb6\xd1\x8f\xd1\x91\xd2\x91");   /* ЖЯЁҐ */
    check_fold("\xf0\x90\x90\x80", "\xf0\x90\x90\xa8");                                   /* Deseret */
    check_fold("A\xff"
               "B",
               "a\xff"
               "b");
}

/* U+202A to U+202E, U+2066 to U+2069, U+061C, U+200E and U+200F are not shown; their neighbours are. */
static void test_direction_is_not_turned(void)
{
    struct bytebuf b;
    bytebuf_init(&b);
    filename_disposition("a\u061c\u202e\u202a\u202b\u202c\u202dgnp\u2066\u2067\u2068\u2069.\u200e\u200fexe", &b);
    CU_ASSERT_STRING_EQUAL(b.data, "attachment; filename=\"agnp.exe\"");
    bytebuf_clear(&b);
    filename_disposition("a\u202f\u2029\u2065\u206a\u200d\u2010", &b);
    CU_ASSERT_STRING_EQUAL(b.data, "attachment; filename=\"a______\"; "
                                   "filename*=UTF-8''a%E2%80%AF%E2%80%A9%E2%81%A5%E2%81%AA%E2%80%8D%E2%80%90");
    bytebuf_release(&b);
    char shown[FILENAME_MAX_BYTES + 1] = "x";
    filename_shown("\u202e\u2066", shown);
    CU_ASSERT_STRING_EQUAL(shown, "");
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"UTF-8 in its shortest form, without surrogates", test_utf8},
        {"every code point is written and read back", test_utf8_round_trip},
        {"names lose their path; control characters, other encodings and long ones are refused", test_clean},
        {"a disposition has an ASCII fallback and cannot be broken out of", test_disposition},
        {"names fold in Latin, Greek, Cyrillic and beyond", test_casefold},
        {"what turns the direction is not shown", test_direction_is_not_turned},
        CU_TEST_INFO_NULL};
    return unit_main("filename", tests);
}
