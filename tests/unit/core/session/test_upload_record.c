/* upload_record - the JSON of uploads/<id>: round trips, damage, and what version 1 has written. */
#include "core/session/upload_record.h"
#include "tests/rig/codec_rig.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define SAMPLE_ID "0123abcd-4567-489a-8bcd-0123456789ab"

static void fill(struct session *s, bool completing, bool gone)
{
    memset(s, 0, sizeof *s);
    CU_ASSERT_EQUAL_FATAL(uuid_parse(SAMPLE_ID, &s->id), BLOB_OK);
    snprintf(s->owner, sizeof s->owner, "alice");
    snprintf(s->filename, sizeof s->filename, "Grüße \"2026\".wav");
    s->temporary = true;
    s->created_ms = INT64_C(1767225600000);
    memset(s->token_key, 0xa5, sizeof s->token_key);
    if (!completing)
        return;
    s->state = SESSION_COMPLETING;
    memset(s->digest.bytes, 0x11, DIGEST_BYTES);
    s->file_number = UINT64_C(0xfedcba9876543210);
    s->completed_ms = INT64_C(1767225660000);
    s->mark.offset = 4096;
    s->file_gone = gone;
}

static void expect_same(const struct session *a, const struct session *b)
{
    CU_ASSERT_STRING_EQUAL(a->id.text, b->id.text);
    CU_ASSERT_STRING_EQUAL(a->owner, b->owner);
    CU_ASSERT_STRING_EQUAL(a->filename, b->filename);
    CU_ASSERT_TRUE(a->temporary == b->temporary && a->created_ms == b->created_ms);
    CU_ASSERT_EQUAL(memcmp(a->token_key, b->token_key, sizeof a->token_key), 0);
    CU_ASSERT_TRUE(a->state == b->state && a->file_number == b->file_number && a->completed_ms == b->completed_ms);
    CU_ASSERT_TRUE(a->mark.offset == b->mark.offset && a->file_gone == b->file_gone);
    CU_ASSERT_TRUE(digest_equal(&a->digest, &b->digest));
}

static enum blob_status decode(const void *data, size_t len, void *arg)
{
    struct session *out = arg, s;
    struct uuid id;
    enum blob_status st = upload_record_decode(data, len, &s);
    if (st != BLOB_OK)
        return st;
    CU_ASSERT_EQUAL(uuid_parse(s.id.text, &id), BLOB_OK);
    CU_ASSERT_TRUE(s.state == SESSION_OPEN || s.state == SESSION_COMPLETING);
    CU_ASSERT_EQUAL(s.append_from, NO_APPEND);
    CU_ASSERT_EQUAL(hash_length(&s.hash), 0);
    CU_ASSERT_TRUE(s.mark.offset <= INT64_MAX && s.completed_ms >= 0 && s.created_ms >= 0);
    if (out != NULL)
        *out = s;
    return BLOB_OK;
}

static void test_round_trip(void)
{
    for (unsigned kind = 0; kind < 3; kind++) {
        struct session s, back;
        struct bytebuf text;
        bytebuf_init(&text);
        fill(&s, kind > 0, kind > 1);
        upload_record_encode(&s, &text);
        CU_ASSERT_EQUAL(decode(text.data, text.len, &back), BLOB_OK);
        expect_same(&s, &back);
        codec_refuses_truncations(text.data, text.len, decode, NULL);
        CU_ASSERT_TRUE(codec_bears_flips(text.data, text.len, decode, NULL) > 0);
        bytebuf_release(&text);
    }
}

static void refuse(const char *text)
{
    struct session s;
    CU_ASSERT_EQUAL(upload_record_decode(text, strlen(text), &s), BLOB_E_CORRUPT);
}

#define HEAD   "{\"v\":1,\"id\":\"" SAMPLE_ID "\",\"created\":1,\"temporary\":false,\"filename\":\"\",\"owner\":\"\""
#define KEY    ",\"key\":\"a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5\""
#define DIGEST "1111111111111111111111111111111111111111111111111111111111111111"

static void test_not_ours(void)
{
    struct session s;
    const char *good = HEAD KEY "}";
    CU_ASSERT_EQUAL(upload_record_decode(good, strlen(good), &s), BLOB_OK);
    refuse("");
    refuse("[]");
    refuse("null");
    refuse(HEAD "}");
    refuse(HEAD ",\"key\":\"a5\"}");
    refuse(HEAD ",\"key\":\"zz\"}");
    refuse("{\"v\":2,\"id\":\"" SAMPLE_ID "\",\"filename\":\"\",\"owner\":\"\"" KEY "}");
    refuse("{\"v\":1,\"id\":\"../../etc\",\"filename\":\"\",\"owner\":\"\"" KEY "}");
    refuse(HEAD KEY ",\"completing\":1,\"size\":1,\"digest\":\"11\",\"number\":\"0000000000000001\"}");
    refuse(HEAD KEY ",\"completing\":1,\"size\":1,\"digest\":\"" DIGEST "\",\"number\":\"1\"}");
    refuse(HEAD KEY ",\"completing\":1,\"size\":-1,\"digest\":\"" DIGEST "\",\"number\":\"0000000000000001\"}");
    refuse(HEAD KEY ",\"completing\":1,\"digest\":\"" DIGEST "\",\"number\":\"0000000000000001\"}");
    refuse(HEAD KEY ",\"completing\":-1,\"size\":1,\"digest\":\"" DIGEST "\",\"number\":\"0000000000000001\"}");
}

static void test_keys(void)
{
    struct uuid id, back;
    char key[RECORD_KEY_MAX];
    uuid_new(&id);
    upload_record_key(&id, key);
    CU_ASSERT_EQUAL(upload_record_id(key, &back), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(id.text, back.text);
    CU_ASSERT_EQUAL(upload_record_id("uploads/", &back), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(upload_record_id("files/x", &back), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(upload_record_id("uploads/0123abcd-4567-489a-8bcd-0123456789abX", &back), BLOB_E_INVALID);
}

static void expect_sample(const char *name, bool completing, bool gone)
{
    struct session s, back;
    struct bytebuf text;
    bytebuf_init(&text);
    codec_sample(name, &text);
    fill(&s, completing, gone);
    CU_ASSERT_EQUAL_FATAL(decode(text.data, text.len, &back), BLOB_OK);
    expect_same(&s, &back);
    bytebuf_release(&text);
}

static void test_samples(void)
{
    expect_sample("upload-record-1-open.json", false, false);
    expect_sample("upload-record-1-completing.json", true, false);
    expect_sample("upload-record-1-gone.json", true, true);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"what is encoded is decoded; cut short and flipped it is not taken for more", test_round_trip},
        {"what is no record of ours is refused", test_not_ours},
        {"keys", test_keys},
        {"what version 1 has written", test_samples},
        CU_TEST_INFO_NULL};
    return unit_main("upload_record", tests);
}
