/* digest - known answers of FIPS 180-4 and RFC 4231, and the property that matters: a saved state goes on as the same.
 */
#include "core/digest.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static void check_hash(const char *data, size_t len, const char *hex)
{
    struct hash h;
    struct digest d;
    char text[DIGEST_HEX_CHARS + 1];
    hash_init(&h);
    hash_update(&h, data, len);
    hash_peek(&h, &d);
    digest_hex(&d, text);
    CU_ASSERT_STRING_EQUAL(text, hex);
    CU_ASSERT_EQUAL(hash_length(&h), len);
}

static void test_known_answers(void)
{
    static const char *two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    check_hash("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_hash("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_hash(two_blocks, strlen(two_blocks), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

static void test_peek_goes_on(void)
{
    struct hash h;
    struct digest seen, whole;
    hash_init(&h);
    hash_update(&h, "a", 1);
    hash_peek(&h, &seen);
    hash_update(&h, "bc", 2);
    hash_peek(&h, &whole);
    struct digest expected;
    CU_ASSERT_EQUAL(digest_parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", &expected),
                    BLOB_OK);
    CU_ASSERT_TRUE(digest_equal(&whole, &expected));
    CU_ASSERT_FALSE(digest_equal(&seen, &expected));
}

/* Every split of three blocks and a bit, moved through the saved form. */
static void test_save_restore(void)
{
    uint8_t data[200], saved[HASH_STATE_BYTES], again[HASH_STATE_BYTES];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 7 + 1);
    struct hash whole;
    struct digest expected, d;
    hash_init(&whole);
    hash_update(&whole, data, sizeof data);
    hash_peek(&whole, &expected);
    for (size_t cut = 0; cut <= sizeof data; cut++) {
        struct hash first, second;
        hash_init(&first);
        hash_update(&first, data, cut);
        hash_save(&first, saved);
        memset(&second, 0xa5, sizeof second);
        CU_ASSERT_EQUAL_FATAL(hash_restore(&second, saved), BLOB_OK);
        CU_ASSERT_EQUAL(hash_length(&second), cut);
        hash_save(&second, again);
        CU_ASSERT_EQUAL(memcmp(saved, again, sizeof saved), 0);
        hash_update(&second, data + cut, sizeof data - cut);
        hash_peek(&second, &d);
        CU_ASSERT_TRUE(digest_equal(&d, &expected));
    }
}

/* The form itself is stored: it may not change from build to build. */
static void test_saved_form(void)
{
    static const uint8_t start[] = {1, 0, 0, 0, 0x67, 0xe6, 0x09, 0x6a, 0x85, 0xae, 0x67, 0xbb};
    struct hash h;
    uint8_t saved[HASH_STATE_BYTES];
    hash_init(&h);
    hash_update(&h, "xyz", 3);
    hash_save(&h, saved);
    CU_ASSERT_EQUAL(memcmp(saved, start, sizeof start), 0);
    CU_ASSERT_EQUAL(saved[36], 3);
    CU_ASSERT_EQUAL(memcmp(saved + 44, "xyz\0", 4), 0);
}

/* Above 512 MiB the bit count no longer fits OpenSSL's low word. */
static void test_large_length(void)
{
    struct hash h;
    uint8_t saved[HASH_STATE_BYTES];
    hash_init(&h);
    hash_save(&h, saved);
    saved[36 + 4] = 7; /* 7 × 4 GiB */
    CU_ASSERT_EQUAL_FATAL(hash_restore(&h, saved), BLOB_OK);
    CU_ASSERT_EQUAL(hash_length(&h), UINT64_C(7) << 32);
    hash_update(&h, "abc", 3);
    CU_ASSERT_EQUAL(hash_length(&h), (UINT64_C(7) << 32) + 3);
}

static void test_restore_refuses(void)
{
    struct hash h, before;
    uint8_t saved[HASH_STATE_BYTES];
    hash_init(&h);
    hash_update(&h, "abc", 3);
    hash_save(&h, saved);
    before = h;
    saved[0] = 2;
    CU_ASSERT_EQUAL(hash_restore(&h, saved), BLOB_E_INVALID);
    saved[0] = 1;
    saved[44 + 3] = 1; /* behind the partial block */
    CU_ASSERT_EQUAL(hash_restore(&h, saved), BLOB_E_INVALID);
    saved[44 + 3] = 0;
    saved[36 + 7] = 0x20; /* longer than SHA-256 can count */
    CU_ASSERT_EQUAL(hash_restore(&h, saved), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(memcmp(&h, &before, sizeof h), 0);
}

static void test_parse(void)
{
    static const char *const good[] = {"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                                       "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
                                       "sha256:Ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"};
    static const char *const bad[] = {"",
                                      "sha256:",
                                      "sha256",
                                      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
                                      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad0",
                                      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ag",
                                      "sha512:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                                      "sha256:sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                                      " ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"};
    struct digest d;
    char hex[DIGEST_HEX_CHARS + 1];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CU_ASSERT_EQUAL_FATAL(digest_parse(good[i], &d), BLOB_OK);
        digest_hex(&d, hex);
        CU_ASSERT_STRING_EQUAL(hex, good[0]);
    }
    memset(&d, 7, sizeof d);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CU_ASSERT_EQUAL(digest_parse(bad[i], &d), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(d.bytes[0], 7);
}

static void check_hmac(const char *key, size_t key_len, const char *data, const char *hex)
{
    struct digest d;
    char text[DIGEST_HEX_CHARS + 1];
    digest_hmac(key, key_len, data, strlen(data), &d);
    digest_hex(&d, text);
    CU_ASSERT_STRING_EQUAL(text, hex);
}

static void test_hmac(void)
{
    char long_key[131];
    memset(long_key, 0xaa, sizeof long_key);
    check_hmac("Jefe", 4, "what do ya want for nothing?",
               "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    check_hmac(long_key, sizeof long_key, "Test Using Larger Than Block-Size Key - Hash Key First",
               "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

int main(void)
{
    CU_TestInfo tests[] = {{"SHA-256 gives the standard's answers", test_known_answers},
                           {"peeking does not end a hash", test_peek_goes_on},
                           {"a hash saved at any byte goes on as the same", test_save_restore},
                           {"the saved form is fixed", test_saved_form},
                           {"lengths above 512 MiB survive saving", test_large_length},
                           {"what is no saved state is refused", test_restore_refuses},
                           {"digests: hex of any case, with and without prefix, nothing else", test_parse},
                           {"HMAC gives RFC 4231's answers", test_hmac},
                           CU_TEST_INFO_NULL};
    return unit_main("digest", tests);
}
