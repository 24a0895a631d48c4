/* upload_token - what was issued comes back; anything touched, or of another upload or key, does not. */
#include "core/session/upload_token.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static void test_round_trip(void)
{
    static const struct upload_token tokens[] = {
        {0, true, 0}, {1, false, 1}, {UINT32_MAX, false, UINT64_MAX}, {7, false, UINT64_C(10) << 30}};
    uint8_t key[UPLOAD_TOKEN_KEY_BYTES];
    struct uuid id;
    char text[UPLOAD_TOKEN_CHARS + 1];
    upload_token_new_key(key);
    uuid_new(&id);
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        struct upload_token back;
        upload_token_issue(key, &id, &tokens[i], text);
        CU_ASSERT_EQUAL(strlen(text), UPLOAD_TOKEN_CHARS);
        CU_ASSERT_EQUAL_FATAL(upload_token_verify(key, &id, text, &back), BLOB_OK);
        CU_ASSERT_EQUAL(back.appends, tokens[i].appends);
        CU_ASSERT_EQUAL(back.initial, tokens[i].initial);
        CU_ASSERT_EQUAL(back.offset, tokens[i].offset);
    }
}

static void test_other_upload_or_key(void)
{
    uint8_t key[UPLOAD_TOKEN_KEY_BYTES], other_key[UPLOAD_TOKEN_KEY_BYTES];
    struct uuid id, other_id;
    char text[UPLOAD_TOKEN_CHARS + 1];
    struct upload_token token = {3, false, 4096}, back;
    upload_token_new_key(key);
    upload_token_new_key(other_key);
    CU_ASSERT_NOT_EQUAL(memcmp(key, other_key, sizeof key), 0);
    uuid_new(&id);
    uuid_new(&other_id);
    upload_token_issue(key, &id, &token, text);
    CU_ASSERT_EQUAL(upload_token_verify(key, &other_id, text, &back), BLOB_E_DENIED);
    CU_ASSERT_EQUAL(upload_token_verify(other_key, &id, text, &back), BLOB_E_DENIED);
}

static void test_tampered(void)
{
    uint8_t key[UPLOAD_TOKEN_KEY_BYTES];
    struct uuid id;
    char text[UPLOAD_TOKEN_CHARS + 1];
    struct upload_token token = {3, false, 4096}, back = {9, true, 9};
    upload_token_new_key(key);
    uuid_new(&id);
    upload_token_issue(key, &id, &token, text);
    for (size_t i = 0; i < UPLOAD_TOKEN_CHARS; i++) {
        char kept = text[i];
        text[i] = kept == 'A' ? 'B' : 'A';
        CU_ASSERT_NOT_EQUAL(upload_token_verify(key, &id, text, &back), BLOB_OK);
        text[i] = kept;
    }
    CU_ASSERT_EQUAL(back.appends, 9);
}

static void test_malformed(void)
{
    uint8_t key[UPLOAD_TOKEN_KEY_BYTES] = {0};
    struct uuid id;
    struct upload_token back;
    uuid_new(&id);
    CU_ASSERT_EQUAL(upload_token_verify(key, &id, "", &back), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(upload_token_verify(key, &id, "not a token", &back), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(upload_token_verify(key, &id, "////////////////////////////////////////", &back), BLOB_E_INVALID);
    /* Of a version to come. */
    CU_ASSERT_EQUAL(upload_token_verify(key, &id, "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", &back), BLOB_E_INVALID);
}

int main(void)
{
    CU_TestInfo tests[] = {{"what was issued is read back", test_round_trip},
                           {"a token of another upload or key is denied", test_other_upload_or_key},
                           {"no character can be changed", test_tampered},
                           {"what is no token is told from what is not this upload's", test_malformed},
                           CU_TEST_INFO_NULL};
    return unit_main("upload_token", tests);
}
