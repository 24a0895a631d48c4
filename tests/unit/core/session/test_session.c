/* session - the bytes of a session and of its progress: round trips, damage, and what version 1 has written. */
#include "core/session/session.h"
#include "tests/rig/codec_rig.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define SAMPLE_ID "0123abcd-4567-489a-8bcd-0123456789ab"

/* The session of the samples in tests/data. */
static void fill(struct session *s, enum session_state state)
{
    memset(s, 0, sizeof *s);
    CU_ASSERT_EQUAL_FATAL(uuid_parse(SAMPLE_ID, &s->id), BLOB_OK);
    snprintf(s->owner, sizeof s->owner, "alice");
    snprintf(s->filename, sizeof s->filename, "Grüße 2026.wav");
    s->temporary = true;
    s->created_ms = INT64_C(1767225600000);
    memset(s->token_key, 0xa5, sizeof s->token_key);
    hash_init(&s->hash);
    hash_update(&s->hash, "0123456789", 10);
    s->mark.offset = 4096;
    s->mark.state_len = 5;
    memcpy(s->mark.state, "state", 5);
    s->appends = 7;
    s->appends_known = true;
    s->rotating = true;
    s->chunk.offset = 1024;
    s->chunk.length = 3072;
    hash_init(&s->chunk.before);
    hash_update(&s->chunk.before, s->token_key, sizeof s->token_key);
    s->append_from = 1024;
    snprintf(s->node, sizeof s->node, "node-1");
    s->lease_until_ms = INT64_C(1767225630000);
    s->writer_epoch = UINT64_C(1767225600123456);
    s->state = state;
    if (state != SESSION_OPEN) {
        memset(s->digest.bytes, 0x11, DIGEST_BYTES);
        s->file_number = UINT64_C(0xfedcba9876543210);
        s->completed_ms = INT64_C(1767225660000);
    }
    s->expires_ms = INT64_C(1767312000000);
}

static void expect_hash(const struct hash *a, const struct hash *b)
{
    uint8_t sa[HASH_STATE_BYTES], sb[HASH_STATE_BYTES];
    hash_save(a, sa);
    hash_save(b, sb);
    CU_ASSERT_EQUAL(memcmp(sa, sb, sizeof sa), 0);
}

static void expect_progress(const struct session *a, const struct session *b)
{
    expect_hash(&a->hash, &b->hash);
    expect_hash(&a->chunk.before, &b->chunk.before);
    CU_ASSERT_TRUE(a->appends == b->appends && a->appends_known == b->appends_known && a->rotating == b->rotating);
    CU_ASSERT_TRUE(a->rehash == b->rehash && a->append_from == b->append_from);
    CU_ASSERT_TRUE(a->chunk.offset == b->chunk.offset && a->chunk.length == b->chunk.length);
}

static void expect_same(const struct session *a, const struct session *b)
{
    expect_progress(a, b);
    CU_ASSERT_STRING_EQUAL(a->id.text, b->id.text);
    CU_ASSERT_STRING_EQUAL(a->owner, b->owner);
    CU_ASSERT_STRING_EQUAL(a->filename, b->filename);
    CU_ASSERT_STRING_EQUAL(a->node, b->node);
    CU_ASSERT_TRUE(a->temporary == b->temporary && a->tried == b->tried && a->created_ms == b->created_ms);
    CU_ASSERT_EQUAL(memcmp(a->token_key, b->token_key, sizeof a->token_key), 0);
    CU_ASSERT_TRUE(a->mark.offset == b->mark.offset && a->mark.state_len == b->mark.state_len);
    CU_ASSERT_EQUAL(memcmp(a->mark.state, b->mark.state, a->mark.state_len), 0);
    CU_ASSERT_TRUE(a->lease_until_ms == b->lease_until_ms && a->writer_epoch == b->writer_epoch);
    CU_ASSERT_TRUE(a->state == b->state && a->file_number == b->file_number && a->completed_ms == b->completed_ms);
    CU_ASSERT_TRUE(digest_equal(&a->digest, &b->digest));
    CU_ASSERT_EQUAL(a->expires_ms, b->expires_ms);
}

/* What the rest of the program relies on of whatever was decoded. */
static enum blob_status decode(const void *data, size_t len, void *arg)
{
    struct session *out = arg, s;
    enum blob_status st = session_decode(data, len, 42, &s);
    if (st != BLOB_OK)
        return st;
    struct uuid id;
    CU_ASSERT_EQUAL(uuid_parse(s.id.text, &id), BLOB_OK);
    CU_ASSERT_PTR_NOT_NULL(memchr(s.owner, '\0', sizeof s.owner));
    CU_ASSERT_PTR_NOT_NULL(memchr(s.filename, '\0', sizeof s.filename));
    CU_ASSERT_PTR_NOT_NULL(memchr(s.node, '\0', sizeof s.node));
    CU_ASSERT_TRUE(hash_length(&s.hash) <= s.mark.offset && s.mark.state_len <= UPLOAD_STATE_MAX);
    CU_ASSERT_TRUE(s.append_from == NO_APPEND || s.append_from <= s.mark.offset);
    CU_ASSERT_TRUE(s.state <= SESSION_DESTROYED);
    CU_ASSERT_EQUAL(s.epoch, 42);
    if (out != NULL)
        *out = s;
    return BLOB_OK;
}

static enum blob_status decode_progress(const void *data, size_t len, void *arg)
{
    struct session *s = arg;
    uint8_t before[HASH_STATE_BYTES], after[HASH_STATE_BYTES];
    hash_save(&s->hash, before);
    enum blob_status st = session_decode_progress(data, len, s);
    hash_save(&s->hash, after);
    CU_ASSERT_TRUE(st == BLOB_OK || memcmp(before, after, sizeof before) == 0);
    return st;
}

static void test_round_trip(void)
{
    for (unsigned state = SESSION_OPEN; state <= SESSION_DESTROYED; state++) {
        struct session s, back;
        struct bytebuf bytes;
        bytebuf_init(&bytes);
        fill(&s, (enum session_state)state);
        session_encode(&s, &bytes);
        CU_ASSERT_EQUAL(decode(bytes.data, bytes.len, &back), BLOB_OK);
        expect_same(&s, &back);
        bytebuf_release(&bytes);
    }
}

static void test_empty_fields(void)
{
    struct session s, back;
    struct bytebuf bytes;
    bytebuf_init(&bytes);
    session_init(&s, 1);
    session_encode(&s, &bytes);
    CU_ASSERT_EQUAL(decode(bytes.data, bytes.len, &back), BLOB_OK);
    expect_same(&s, &back);
    bytebuf_release(&bytes);
}

static void test_longest_fields(void)
{
    struct session s, back;
    struct bytebuf bytes;
    bytebuf_init(&bytes);
    fill(&s, SESSION_COMPLETED);
    memset(s.owner, 'o', sizeof s.owner - 1);
    memset(s.filename, 'f', sizeof s.filename - 1);
    memset(s.node, 'n', sizeof s.node - 1);
    s.mark.state_len = UPLOAD_STATE_MAX;
    memset(s.mark.state, 's', UPLOAD_STATE_MAX);
    session_encode(&s, &bytes);
    CU_ASSERT_EQUAL(decode(bytes.data, bytes.len, &back), BLOB_OK);
    expect_same(&s, &back);
    bytebuf_release(&bytes);
}

static void test_damage(void)
{
    for (unsigned state = SESSION_OPEN; state <= SESSION_COMPLETED; state += SESSION_COMPLETED) {
        struct session s;
        struct bytebuf bytes;
        bytebuf_init(&bytes);
        fill(&s, (enum session_state)state);
        session_encode(&s, &bytes);
        codec_refuses_truncations(bytes.data, bytes.len, decode, NULL);
        codec_refuses_more(bytes.data, bytes.len, decode, NULL);
        CU_ASSERT_TRUE(codec_bears_flips(bytes.data, bytes.len, decode, NULL) > 8);
        bytebuf_release(&bytes);
    }
}

static void test_progress(void)
{
    struct session s, other;
    struct bytebuf bytes;
    bytebuf_init(&bytes);
    fill(&s, SESSION_OPEN);
    session_encode_progress(&s, &bytes);
    CU_ASSERT_TRUE(bytes.len <= UPLOAD_KEEP_MAX);
    session_init(&other, 1);
    other.mark.offset = s.mark.offset;
    CU_ASSERT_EQUAL(decode_progress(bytes.data, bytes.len, &other), BLOB_OK);
    expect_progress(&s, &other);
    codec_refuses_truncations(bytes.data, bytes.len, decode_progress, &other);
    codec_bears_flips(bytes.data, bytes.len, decode_progress, &other);
    bytebuf_release(&bytes);
}

static void expect_sample(const char *name, enum session_state state, bool before)
{
    struct session s, back;
    struct bytebuf bytes;
    bytebuf_init(&bytes);
    codec_sample(name, &bytes);
    fill(&s, state);
    if (!before)
        hash_init(&s.chunk.before);
    CU_ASSERT_EQUAL_FATAL(decode(bytes.data, bytes.len, &back), BLOB_OK);
    expect_same(&s, &back);
    bytebuf_release(&bytes);
}

static void test_samples(void)
{
    expect_sample("session-1-open.bin", SESSION_OPEN, true);
    expect_sample("session-1-completed.bin", SESSION_COMPLETED, true);
    /* These hold the chunk's own digest in place of the hash before it. */
    expect_sample("session-1-digest-open.bin", SESSION_OPEN, false);
    expect_sample("session-1-digest-completed.bin", SESSION_COMPLETED, false);
}

int main(void)
{
    CU_TestInfo tests[] = {{"what is encoded is decoded, in every state", test_round_trip},
                           {"a new session, whose fields are empty", test_empty_fields},
                           {"fields of the greatest length", test_longest_fields},
                           {"cut short, longer, and with any bit flipped", test_damage},
                           {"progress alone; after a failure nothing has changed", test_progress},
                           {"what version 1 has written", test_samples},
                           CU_TEST_INFO_NULL};
    return unit_main("session", tests);
}
