/* s3_staged - what a mark and the header of a state object hold, and the keys: round trips, damage, format 2. */
#include "backends/s3/s3_staged.h"
#include "tests/rig/codec_rig.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define SAMPLE_ID "0123abcd-4567-489a-8bcd-0123456789ab"
#define PART_SIZE (UINT32_C(8) << 20)

static const uint8_t keep_bytes[] = "what core keeps beside it";

static struct s3_staged sample(void)
{
    struct s3_staged s = {.part_size = PART_SIZE};
    s3_staged_add_part(&s, 1, 7, "\"etag-1\"");
    s3_staged_add_part(&s, 2, 7, "etag-2");
    s3_staged_skip(&s, 3, 9);
    s3_staged_add_part(&s, 6, 9, "\"etag-6\"");
    s.segment_count = 2;
    s.segments[0] = (struct s3_staged_segment){.epoch = 9, .sequence = 4, .length = 1000, .crc32c = 0x12345678};
    s.segments[1] = (struct s3_staged_segment){.epoch = 9, .sequence = 5, .length = 24, .crc32c = 0x9abcdef0};
    s.epoch = 9;
    s.sequence = 5;
    s.offset = 3 * (uint64_t)PART_SIZE + 1024;
    s.committing = true;
    memset(s.digest.bytes, 0x11, DIGEST_BYTES);
    snprintf(s.upload_id, sizeof s.upload_id, "2~abcdefghijklmnopqrstuvwxyz");
    return s;
}

static void expect_same(const struct s3_staged *a, const struct s3_staged *b)
{
    CU_ASSERT_TRUE(a->part_size == b->part_size && a->run_count == b->run_count);
    for (unsigned i = 0; i < a->run_count; i++)
        CU_ASSERT_TRUE(a->runs[i].first == b->runs[i].first && a->runs[i].count == b->runs[i].count &&
                       a->runs[i].epoch == b->runs[i].epoch);
    CU_ASSERT_EQUAL(memcmp(a->chain, b->chain, sizeof a->chain), 0);
    CU_ASSERT_EQUAL(a->segment_count, b->segment_count);
    for (unsigned i = 0; i < a->segment_count; i++)
        CU_ASSERT_TRUE(
            a->segments[i].epoch == b->segments[i].epoch && a->segments[i].sequence == b->segments[i].sequence &&
            a->segments[i].length == b->segments[i].length && a->segments[i].crc32c == b->segments[i].crc32c);
    CU_ASSERT_TRUE(a->epoch == b->epoch && a->sequence == b->sequence && a->offset == b->offset);
    CU_ASSERT_TRUE(a->committing == b->committing && digest_equal(&a->digest, &b->digest));
    CU_ASSERT_STRING_EQUAL(a->upload_id, b->upload_id);
}

static void expect_sound(const struct s3_staged *s)
{
    uint64_t end = s3_staged_parts_end(s);
    CU_ASSERT_TRUE(s->run_count <= S3_STAGED_RUNS_MAX && s->segment_count <= S3_STAGED_SEGMENTS_MAX &&
                   s->part_size > 0);
    for (unsigned i = 0; i < s->segment_count; i++)
        end += s->segments[i].length;
    CU_ASSERT_EQUAL(end, s->offset);
    CU_ASSERT_PTR_NOT_NULL(memchr(s->upload_id, '\0', sizeof s->upload_id));
}

static enum blob_status decode_mark(const void *data, size_t len, void *arg)
{
    const uint64_t *offset = arg;
    struct upload_mark mark = {.offset = *offset, .state_len = (uint32_t)len};
    struct s3_staged s;
    CU_ASSERT_TRUE_FATAL(len <= sizeof mark.state);
    memcpy(mark.state, data, len);
    if (len == 0) /* without state it is an upload without bytes, which has another offset */
        mark.offset = 1;
    enum blob_status st = s3_staged_from_mark(&mark, PART_SIZE, &s);
    if (st == BLOB_OK) {
        expect_sound(&s);
        CU_ASSERT_EQUAL(s.offset, *offset);
    }
    return st == BLOB_E_INVALID ? BLOB_E_CORRUPT : st;
}

static void test_mark(void)
{
    struct s3_staged s = sample(), back;
    struct upload_mark mark;
    s3_staged_to_mark(&s, &mark);
    CU_ASSERT_EQUAL(mark.offset, s.offset);
    CU_ASSERT_EQUAL_FATAL(s3_staged_from_mark(&mark, 1, &back), BLOB_OK);
    expect_same(&s, &back);
    codec_refuses_truncations(mark.state, mark.state_len, decode_mark, &mark.offset);
    CU_ASSERT_TRUE(codec_bears_flips(mark.state, mark.state_len, decode_mark, &mark.offset) > 0);
    mark.offset++;
    CU_ASSERT_EQUAL(s3_staged_from_mark(&mark, PART_SIZE, &back), BLOB_E_INVALID);
    mark = (struct upload_mark){0};
    CU_ASSERT_EQUAL(s3_staged_from_mark(&mark, PART_SIZE, &back), BLOB_OK);
    CU_ASSERT_TRUE(back.part_size == PART_SIZE && back.offset == 0 && s3_staged_next_number(&back) == 1);
}

static void test_longest(void)
{
    struct s3_staged s = {.part_size = UINT32_MAX}, back;
    uint8_t keep[UPLOAD_KEEP_MAX], keep_back[UPLOAD_KEEP_MAX], header[S3_STAGED_HEADER_BYTES];
    uint32_t keep_len;
    s.run_count = S3_STAGED_RUNS_MAX;
    s.segment_count = S3_STAGED_SEGMENTS_MAX;
    for (unsigned i = 0; i < S3_STAGED_SEGMENTS_MAX; i++) {
        s.segments[i].length = UINT32_MAX;
        s.offset += UINT32_MAX;
    }
    memset(s.upload_id, 'u', S3_STAGED_UPLOAD_ID_MAX);
    memset(keep, 'k', sizeof keep);
    s3_staged_write_header(&s, keep, sizeof keep, header);
    CU_ASSERT_EQUAL_FATAL(s3_staged_read_header(header, &back, keep_back, &keep_len), BLOB_OK);
    expect_same(&s, &back);
    CU_ASSERT_TRUE(keep_len == sizeof keep && memcmp(keep, keep_back, sizeof keep) == 0);
}

static enum blob_status decode_header(const void *data, size_t len, void *arg)
{
    struct s3_staged s;
    uint8_t keep[UPLOAD_KEEP_MAX];
    uint32_t keep_len = UINT32_MAX;
    (void)arg;
    CU_ASSERT_EQUAL_FATAL(len, S3_STAGED_HEADER_BYTES);
    enum blob_status st = s3_staged_read_header(data, &s, keep, &keep_len);
    if (st == BLOB_OK) {
        expect_sound(&s);
        CU_ASSERT_TRUE(keep_len <= UPLOAD_KEEP_MAX);
    }
    return st == BLOB_E_INVALID ? BLOB_E_CORRUPT : st;
}

static void test_header(void)
{
    struct s3_staged s = sample(), back;
    uint8_t header[S3_STAGED_HEADER_BYTES], keep[UPLOAD_KEEP_MAX];
    uint32_t keep_len;
    s3_staged_write_header(&s, keep_bytes, sizeof keep_bytes, header);
    CU_ASSERT_EQUAL_FATAL(s3_staged_read_header(header, &back, keep, &keep_len), BLOB_OK);
    expect_same(&s, &back);
    CU_ASSERT_TRUE(keep_len == sizeof keep_bytes && memcmp(keep, keep_bytes, keep_len) == 0);
    CU_ASSERT_EQUAL(codec_bears_flips(header, sizeof header, decode_header, NULL), 8 * sizeof header);
    memset(header, 0, sizeof header);
    CU_ASSERT_EQUAL(s3_staged_read_header(header, &back, keep, &keep_len), BLOB_E_INVALID);
    memset(header, 0xff, sizeof header);
    CU_ASSERT_EQUAL(s3_staged_read_header(header, &back, keep, &keep_len), BLOB_E_INVALID);
}

static void test_keys(void)
{
    struct uuid id, back;
    uint64_t epoch, offset;
    uint32_t sequence;
    CU_ASSERT_EQUAL_FATAL(uuid_parse(SAMPLE_ID, &id), BLOB_OK);
    struct s3_key key = s3_staged_state_key(&id, UINT64_MAX, 5, 1024);
    CU_ASSERT_STRING_EQUAL(key.text, "staging/" SAMPLE_ID "/s/ffffffffffffffff.00000005.0000000000000400");
    CU_ASSERT_TRUE(s3_staged_parse_key(key.text, &back, &epoch, &sequence, &offset));
    CU_ASSERT_STRING_EQUAL(back.text, id.text);
    CU_ASSERT_TRUE(epoch == UINT64_MAX && sequence == 5 && offset == 1024);
    CU_ASSERT_TRUE(s3_staged_parse_upload(key.text, &back));
    static const char *const wrong[] = {"",
                                        "staging/",
                                        "staging/" SAMPLE_ID "/a",
                                        "staging/" SAMPLE_ID "/s/",
                                        "staging/" SAMPLE_ID "/s/ffffffffffffffff.00000005",
                                        "staging/" SAMPLE_ID "/s/ffffffffffffffff.00000005.0000000000000400x",
                                        "staging/" SAMPLE_ID "/p/00000005.0000000000000400",
                                        "staging/0123abcd/s/ffffffffffffffff.00000005.0000000000000400"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CU_ASSERT_FALSE(s3_staged_parse_key(wrong[i], &back, &epoch, &sequence, &offset));
    /* The greatest key is the latest word: a later writer's, then a later flush's. */
    struct s3_key later = s3_staged_state_key(&id, 2, 1, 0), earlier = s3_staged_state_key(&id, 1, 9, 4096);
    CU_ASSERT_TRUE(strcmp(later.text, earlier.text) > 0);
}

static void test_sample(void)
{
    struct s3_staged s = sample(), back;
    struct bytebuf bytes;
    uint8_t keep[UPLOAD_KEEP_MAX];
    uint32_t keep_len;
    bytebuf_init(&bytes);
    codec_sample("s3-staged-2.bin", &bytes);
    CU_ASSERT_EQUAL_FATAL(bytes.len, S3_STAGED_HEADER_BYTES);
    CU_ASSERT_EQUAL(s3_staged_read_header((const uint8_t *)bytes.data, &back, keep, &keep_len), BLOB_OK);
    expect_same(&s, &back);
    bytebuf_release(&bytes);
}

int main(void)
{
    CU_TestInfo tests[] = {{"a mark's state: round trip, cut short, flipped", test_mark},
                           {"the longest of everything fits into a header", test_longest},
                           {"the header of a state object: round trip, flipped, not ours", test_header},
                           {"keys, and their order", test_keys},
                           {"what format 2 has written", test_sample},
                           CU_TEST_INFO_NULL};
    return unit_main("s3_staged", tests);
}
