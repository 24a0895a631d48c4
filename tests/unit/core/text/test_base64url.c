/* base64url - RFC 4648's test vectors, every length, and one spelling a value. */
#include "core/text/base64url.h"
#include "tests/rig/unit_main.h"

#include <stdint.h>
#include <string.h>

static void test_vectors(void)
{
    static const char *const vectors[][2] = {{"", ""},           {"f", "Zg"},        {"fo", "Zm8"},
                                             {"foo", "Zm9v"},    {"foob", "Zm9vYg"}, {"fooba", "Zm9vYmE"},
                                             {"\xfb\xff", "-_8"}};
    char text[16];
    uint8_t raw[8];
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        size_t len = strlen(vectors[i][0]);
        base64url_encode(vectors[i][0], len, text);
        CU_ASSERT_STRING_EQUAL(text, vectors[i][1]);
        CU_ASSERT_EQUAL(base64url_decode(text, raw, len), BLOB_OK);
        CU_ASSERT_EQUAL(memcmp(raw, vectors[i][0], len), 0);
    }
}

static void test_refused(void)
{
    uint8_t raw[4] = {1, 2, 3, 4};
    CU_ASSERT_EQUAL(base64url_decode("Zg", raw, 2), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(base64url_decode("Zg==", raw, 1), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(base64url_decode("Zh", raw, 1), BLOB_E_INVALID); /* unused bits set */
    CU_ASSERT_EQUAL(base64url_decode("Z+", raw, 1), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(base64url_decode("Z\xc3", raw, 1), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(raw[0], 1);
}

int main(void)
{
    CU_TestInfo tests[] = {{"RFC 4648's vectors, both ways", test_vectors},
                           {"other lengths, alphabets, padding and spare bits are refused", test_refused},
                           CU_TEST_INFO_NULL};
    return unit_main("base64url", tests);
}
