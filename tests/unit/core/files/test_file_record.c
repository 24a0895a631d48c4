/* file_record - numbers order files by time, ids and keys are read back exactly, and nothing malformed is taken for a
 * record. */
#include "core/files/file_record.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static struct file_record sample(void)
{
    struct file_record f = {.size = 10240,
                            .name = "Ansage \xc3\xbc \"quoted\".wav",
                            .owner = "alice",
                            .media_type = "audio/wav",
                            .temporary = true,
                            .created_ms = 1769850300250,
                            .expires_ms = 1772442300250};
    for (int i = 0; i < DIGEST_BYTES; i++)
        f.digest.bytes[i] = (uint8_t)(255 - i);
    uuid_new(&f.upload);
    f.number = file_number(f.created_ms, &f.upload);
    file_id_make(&f);
    return f;
}

static void test_numbers(void)
{
    struct uuid a, b;
    uuid_new(&a);
    uuid_new(&b);
    CU_ASSERT_EQUAL(file_number(5000, &a), file_number(5000, &a));
    CU_ASSERT_NOT_EQUAL(file_number(5000, &a), file_number(5000, &b));
    for (int64_t ms = 1; ms < INT64_C(4000000000000); ms = ms * 3 + 1)
        CU_ASSERT_TRUE(file_number(ms, &a) < file_number(ms - 1, &b));
}

static void test_ids(void)
{
    struct file_record f = sample();
    struct digest digest;
    uint64_t number;
    CU_ASSERT_EQUAL(strlen(f.id), 54);
    CU_ASSERT_EQUAL_FATAL(file_id_parse(f.id, &digest, &number), BLOB_OK);
    CU_ASSERT_TRUE(digest_equal(&digest, &f.digest));
    CU_ASSERT_EQUAL(number, f.number);
    static const char *const bad[] = {"", "x", "../../etc/passwd",
                                      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                                      "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CU_ASSERT_EQUAL(file_id_parse(bad[i], &digest, &number), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(number, f.number);
}

static void test_keys(void)
{
    struct file_record f = sample();
    char key[FILE_KEY_CHARS + 1];
    struct digest digest;
    uint64_t number;
    file_key_make(&f.digest, f.number, key);
    CU_ASSERT_EQUAL(strlen(key), FILE_KEY_CHARS);
    CU_ASSERT_EQUAL_FATAL(file_key_parse(key, &digest, &number), BLOB_OK);
    CU_ASSERT_TRUE(digest_equal(&digest, &f.digest));
    CU_ASSERT_EQUAL(number, f.number);
    for (size_t i = 0; i < FILE_KEY_CHARS; i++) {
        char kept = key[i];
        key[i] = 'G';
        CU_ASSERT_EQUAL(file_key_parse(key, &digest, &number), BLOB_E_INVALID);
        key[i] = 'A';
        CU_ASSERT_EQUAL(file_key_parse(key, &digest, &number), BLOB_E_INVALID);
        key[i] = kept;
    }
    key[FILE_KEY_CHARS - 1] = '\0';
    CU_ASSERT_EQUAL(file_key_parse(key, &digest, &number), BLOB_E_INVALID);
}

static void test_json_round_trip(void)
{
    struct file_record f = sample(), back;
    char *json;
    size_t len;
    CU_ASSERT_EQUAL_FATAL(file_record_encode(&f, &json, &len, NULL), BLOB_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(json, "\"created_at\":\"2026-01-31T09:05:00.250Z\""));
    CU_ASSERT_EQUAL_FATAL(file_record_decode(&f.digest, f.number, json, len, &back, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(back.id, f.id);
    CU_ASSERT_STRING_EQUAL(back.name, f.name);
    CU_ASSERT_STRING_EQUAL(back.owner, f.owner);
    CU_ASSERT_STRING_EQUAL(back.media_type, f.media_type);
    CU_ASSERT_STRING_EQUAL(back.upload.text, f.upload.text);
    CU_ASSERT_EQUAL(back.size, f.size);
    CU_ASSERT_EQUAL(back.temporary, f.temporary);
    CU_ASSERT_EQUAL(back.created_ms, f.created_ms);
    CU_ASSERT_EQUAL(back.expires_ms, f.expires_ms);
    free(json);
}

static void test_what_is_not_known_is_left_out(void)
{
    struct file_record f = sample(), back;
    char *json;
    size_t len;
    f.owner[0] = '\0';
    f.expires_ms = 0;
    CU_ASSERT_EQUAL_FATAL(file_record_encode(&f, &json, &len, NULL), BLOB_OK);
    CU_ASSERT_PTR_NULL(strstr(json, "owner"));
    CU_ASSERT_PTR_NULL(strstr(json, "expires_at"));
    CU_ASSERT_EQUAL_FATAL(file_record_decode(&f.digest, f.number, json, len, &back, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(back.owner, "");
    CU_ASSERT_EQUAL(back.expires_ms, 0);
    free(json);
}

static void test_not_utf8(void)
{
    struct file_record f = sample();
    char *json = NULL;
    size_t len;
    memcpy(f.name, "\xff\xfe", 3);
    CU_ASSERT_EQUAL(file_record_encode(&f, &json, &len, NULL), BLOB_E_INVALID);
    CU_ASSERT_PTR_NULL(json);
}

/* Every record cut at any byte, and every one with a byte changed into another kind of thing, is refused or is still
 * the same file: it never crashes, and never becomes another file. */
static void test_damage(void)
{
    struct file_record f = sample(), back;
    char *json;
    size_t len;
    CU_ASSERT_EQUAL_FATAL(file_record_encode(&f, &json, &len, NULL), BLOB_OK);
    for (size_t cut = 0; cut < len; cut++)
        CU_ASSERT_EQUAL(file_record_decode(&f.digest, f.number, json, cut, &back, NULL), BLOB_E_CORRUPT);
    static const char wrong[] = {'\0', '{', '"', '\\', '9', '\xff'};
    for (size_t i = 0; i < len * sizeof wrong; i++) {
        char *at = &json[i / sizeof wrong], kept = *at;
        *at = wrong[i % sizeof wrong];
        if (file_record_decode(&f.digest, f.number, json, len, &back, NULL) == BLOB_OK)
            CU_ASSERT_STRING_EQUAL(back.id, f.id);
        *at = kept;
    }
    CU_ASSERT_EQUAL(file_record_decode(&f.digest, f.number + 1, json, len, &back, NULL), BLOB_E_CORRUPT);
    f.digest.bytes[0] ^= 1;
    CU_ASSERT_EQUAL(file_record_decode(&f.digest, f.number, json, len, &back, NULL), BLOB_E_CORRUPT);
    free(json);
}

static void refuse(const char *json)
{
    struct file_record f = sample(), back;
    CU_ASSERT_EQUAL(file_record_decode(&f.digest, f.number, json, strlen(json), &back, NULL), BLOB_E_CORRUPT);
}

static void test_other_json(void)
{
    refuse("[]");
    refuse("null");
    refuse("{}");
    refuse("{\"size\":-1,\"temporary\":false}");
    refuse("{\"size\":\"1\",\"temporary\":false}");
    refuse("{\"size\":1,\"size\":1,\"temporary\":0}");
}

int main(void)
{
    CU_TestInfo tests[] = {{"a number is the upload's own and falls as time goes on", test_numbers},
                           {"an id tells digest and number, and nothing else is an id", test_ids},
                           {"a key is read back, and only in its own spelling", test_keys},
                           {"what is encoded is decoded", test_json_round_trip},
                           {"no owner and no expiry are left out", test_what_is_not_known_is_left_out},
                           {"a name that is not UTF-8 is refused", test_not_utf8},
                           {"damage is seen, and no record becomes another file", test_damage},
                           {"other JSON is refused", test_other_json},
                           CU_TEST_INFO_NULL};
    return unit_main("file_record", tests);
}
