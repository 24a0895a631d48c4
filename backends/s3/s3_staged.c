/*
 * s3_staged - numbers in keys are hexadecimal of fixed width, so that byte order is their order. Numbers in values are
 * little-endian.
 *
 * A mark's state:
 *
 *     bytes  what
 *         1  format, 2
 *         4  size of a part
 *         1  how many runs, and each of them: first number (4), count (4), epoch (8)
 *        16  the chain over the parts
 *         1  how many segments, and each of them: epoch (8), sequence (4), length (4), CRC-32C (4)
 *        20  the state object's own epoch (8), sequence (4) and offset (8)
 *         1  is it being committed
 *        32  as this blob
 *         4  length of the id of the multipart upload, and the id
 *
 * The header of a state object, 2048 bytes:
 *
 *         4  "1gts"
 *         4  length of the mark's state, and the state
 *         4  length of what core keeps beside it, and that
 *            zeros
 *         4  CRC-32C of all before it; 0: written by a version that had none
 */
#include "backends/s3/s3_staged.h"

#include "backends/crc32c.h"
#include "core/check.h"
#include "core/text/bytebuf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FORMAT        2
#define HEADER_MAGIC  0x73746731u
#define HEADER_SUM_AT (S3_STAGED_HEADER_BYTES - 4)

uint64_t s3_staged_part_count(const struct s3_staged *s)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < s->run_count; i++)
        n += s->runs[i].count;
    return n;
}

uint64_t s3_staged_parts_end(const struct s3_staged *s)
{
    return s3_staged_part_count(s) * s->part_size;
}

uint32_t s3_staged_next_number(const struct s3_staged *s)
{
    if (s->run_count == 0)
        return 1;
    const struct s3_staged_run *last = &s->runs[s->run_count - 1];
    return last->first + last->count;
}

void s3_staged_skip(struct s3_staged *s, uint32_t gap, uint64_t epoch)
{
    if (s->run_count == S3_STAGED_RUNS_MAX)
        return;
    uint32_t next = s3_staged_next_number(s) + gap;
    s->runs[s->run_count++] = (struct s3_staged_run){.first = next, .epoch = epoch};
}

void s3_staged_chain_add(uint8_t chain[S3_STAGED_CHAIN_BYTES], uint32_t number, const char *etag)
{
    struct hash h;
    struct digest d;
    hash_init(&h);
    hash_update(&h, chain, S3_STAGED_CHAIN_BYTES);
    uint8_t n[4] = {(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16), (uint8_t)(number >> 24)};
    hash_update(&h, n, sizeof n);
    /* An ETag comes with quotes or without, depending on who tells it. */
    size_t skip = etag[0] == '"', len = strlen(etag);
    if (len > skip && etag[len - 1] == '"')
        len--;
    hash_update(&h, etag + skip, len - skip);
    hash_peek(&h, &d);
    memcpy(chain, d.bytes, S3_STAGED_CHAIN_BYTES);
}

void s3_staged_add_part(struct s3_staged *s, uint32_t number, uint64_t epoch, const char *etag)
{
    if (s->run_count == 0)
        s->runs[s->run_count++] = (struct s3_staged_run){.first = number, .epoch = epoch};
    struct s3_staged_run *last = &s->runs[s->run_count - 1];
    CHECK(number == last->first + last->count);
    last->count++;
    s3_staged_chain_add(s->chain, number, etag);
}

void s3_staged_part_at(const struct s3_staged *s, uint64_t index, uint32_t *number, uint64_t *epoch)
{
    for (unsigned i = 0; i < s->run_count; i++) {
        if (index < s->runs[i].count) {
            *number = s->runs[i].first + (uint32_t)index;
            *epoch = s->runs[i].epoch;
            return;
        }
        index -= s->runs[i].count;
    }
    CHECK(!"a part index within the count");
}

/* ---- encodings ---- */

static void encode(const struct s3_staged *s, struct bytebuf *b)
{
    bytebuf_u8(b, FORMAT);
    bytebuf_u32(b, s->part_size);
    bytebuf_u8(b, (uint8_t)s->run_count);
    for (unsigned i = 0; i < s->run_count; i++) {
        bytebuf_u32(b, s->runs[i].first);
        bytebuf_u32(b, s->runs[i].count);
        bytebuf_u64(b, s->runs[i].epoch);
    }
    bytebuf_add(b, s->chain, sizeof s->chain);
    bytebuf_u8(b, (uint8_t)s->segment_count);
    for (unsigned i = 0; i < s->segment_count; i++) {
        bytebuf_u64(b, s->segments[i].epoch);
        bytebuf_u32(b, s->segments[i].sequence);
        bytebuf_u32(b, s->segments[i].length);
        bytebuf_u32(b, s->segments[i].crc32c);
    }
    bytebuf_u64(b, s->epoch);
    bytebuf_u32(b, s->sequence);
    bytebuf_u64(b, s->offset);
    bytebuf_u8(b, s->committing);
    bytebuf_add(b, s->digest.bytes, sizeof s->digest.bytes);
    bytebuf_u32(b, (uint32_t)strlen(s->upload_id));
    bytebuf_text(b, s->upload_id);
}

static enum blob_status decode(const void *data, size_t len, struct s3_staged *out)
{
    struct byteview v = {.data = data, .len = len};
    struct s3_staged s = {0};
    if (byteview_u8(&v) != FORMAT)
        return BLOB_E_INVALID;
    s.part_size = byteview_u32(&v);
    s.run_count = byteview_u8(&v);
    if (v.failed || s.part_size == 0 || s.run_count > S3_STAGED_RUNS_MAX)
        return BLOB_E_INVALID;
    for (unsigned i = 0; i < s.run_count; i++) {
        s.runs[i].first = byteview_u32(&v);
        s.runs[i].count = byteview_u32(&v);
        s.runs[i].epoch = byteview_u64(&v);
    }
    const void *chain = byteview_bytes(&v, sizeof s.chain);
    s.segment_count = byteview_u8(&v);
    if (v.failed || s.segment_count > S3_STAGED_SEGMENTS_MAX)
        return BLOB_E_INVALID;
    memcpy(s.chain, chain, sizeof s.chain);
    uint64_t end = s3_staged_parts_end(&s);
    for (unsigned i = 0; i < s.segment_count; i++) {
        s.segments[i].epoch = byteview_u64(&v);
        s.segments[i].sequence = byteview_u32(&v);
        s.segments[i].length = byteview_u32(&v);
        s.segments[i].crc32c = byteview_u32(&v);
        end += s.segments[i].length;
    }
    s.epoch = byteview_u64(&v);
    s.sequence = byteview_u32(&v);
    s.offset = byteview_u64(&v);
    s.committing = byteview_u8(&v) != 0;
    const void *digest = byteview_bytes(&v, sizeof s.digest.bytes);
    uint32_t id_len = byteview_u32(&v);
    if (v.failed || id_len > S3_STAGED_UPLOAD_ID_MAX || end != s.offset)
        return BLOB_E_INVALID;
    memcpy(s.digest.bytes, digest, sizeof s.digest.bytes);
    const void *id = byteview_bytes(&v, id_len);
    if (v.failed)
        return BLOB_E_INVALID;
    memcpy(s.upload_id, id, id_len);
    *out = s;
    return BLOB_OK;
}

void s3_staged_to_mark(const struct s3_staged *s, struct upload_mark *mark)
{
    struct bytebuf b;
    bytebuf_init(&b);
    encode(s, &b);
    CHECK(!b.failed && b.len <= sizeof mark->state);
    *mark = (struct upload_mark){.offset = s->offset, .state_len = (uint32_t)b.len};
    memcpy(mark->state, b.data, b.len);
    bytebuf_release(&b);
}

enum blob_status s3_staged_from_mark(const struct upload_mark *mark, uint32_t part_size, struct s3_staged *out)
{
    struct s3_staged s = {.part_size = part_size};
    if (mark->state_len > 0) {
        enum blob_status st = decode(mark->state, mark->state_len, &s);
        if (st != BLOB_OK)
            return st;
    }
    if (s.offset != mark->offset)
        return BLOB_E_INVALID;
    *out = s;
    return BLOB_OK;
}

/* Never 0, which says that there is none. */
static uint32_t header_sum(const uint8_t header[S3_STAGED_HEADER_BYTES])
{
    uint32_t sum = crc32c(0, header, HEADER_SUM_AT);
    return sum != 0 ? sum : 1;
}

void s3_staged_write_header(const struct s3_staged *s, const void *keep, size_t keep_len,
                            uint8_t out[S3_STAGED_HEADER_BYTES])
{
    struct bytebuf b;
    struct upload_mark mark;
    s3_staged_to_mark(s, &mark);
    bytebuf_init(&b);
    bytebuf_u32(&b, HEADER_MAGIC);
    bytebuf_u32(&b, mark.state_len);
    bytebuf_add(&b, mark.state, mark.state_len);
    bytebuf_u32(&b, (uint32_t)keep_len);
    bytebuf_add(&b, keep, keep_len);
    CHECK(!b.failed && b.len <= HEADER_SUM_AT);
    memset(out, 0, S3_STAGED_HEADER_BYTES);
    memcpy(out, b.data, b.len);
    bytebuf_clear(&b);
    bytebuf_u32(&b, header_sum(out));
    memcpy(out + HEADER_SUM_AT, b.data, b.len);
    bytebuf_release(&b);
}

/* Headers of before the sum have zeros in its place. */
static bool header_is_whole(const uint8_t in[S3_STAGED_HEADER_BYTES])
{
    struct byteview v = {.data = in, .len = S3_STAGED_HEADER_BYTES, .pos = HEADER_SUM_AT};
    uint32_t sum = byteview_u32(&v);
    return sum == 0 || sum == header_sum(in);
}

enum blob_status s3_staged_read_header(const uint8_t in[S3_STAGED_HEADER_BYTES], struct s3_staged *out, uint8_t *keep,
                                       uint32_t *keep_len)
{
    struct byteview v = {.data = in, .len = S3_STAGED_HEADER_BYTES};
    struct s3_staged s;
    uint32_t magic = byteview_u32(&v), state_len = byteview_u32(&v);
    const void *state = byteview_bytes(&v, state_len);
    uint32_t len = byteview_u32(&v);
    const void *bytes = byteview_bytes(&v, len);
    if (v.failed || !header_is_whole(in) || magic != HEADER_MAGIC || len > UPLOAD_KEEP_MAX ||
        decode(state, state_len, &s) != BLOB_OK)
        return BLOB_E_INVALID;
    *out = s;
    if (len > 0)
        memcpy(keep, bytes, len);
    *keep_len = len;
    return BLOB_OK;
}

/* ---- keys ---- */

static struct s3_key key_of(const char *root, const char *id, const char *rest)
{
    struct s3_key k;
    int n = snprintf(k.text, sizeof k.text, "%s%s%s", root, id, rest);
    CHECK(n > 0 && (size_t)n < sizeof k.text);
    return k;
}

struct s3_key s3_staged_prefix(const struct uuid *id)
{
    return key_of(S3_STAGED_ROOT, id->text, "/");
}

struct s3_key s3_staged_state_prefix(const struct uuid *id)
{
    return key_of(S3_STAGED_ROOT, id->text, "/s/");
}

struct s3_key s3_staged_state_key(const struct uuid *id, uint64_t epoch, uint32_t sequence, uint64_t offset)
{
    char rest[64];
    snprintf(rest, sizeof rest, "/s/%016" PRIx64 ".%08" PRIx32 ".%016" PRIx64, epoch, sequence, offset);
    return key_of(S3_STAGED_ROOT, id->text, rest);
}

struct s3_key s3_staged_piece_key(const struct uuid *id, uint32_t number, uint64_t epoch)
{
    char rest[64];
    snprintf(rest, sizeof rest, "/p/%08" PRIx32 ".%016" PRIx64, number, epoch);
    return key_of(S3_STAGED_ROOT, id->text, rest);
}

struct s3_key s3_staged_anchor_key(const struct uuid *id)
{
    return key_of(S3_STAGED_ROOT, id->text, "/a");
}

struct s3_key s3_staged_list_key(const struct uuid *id)
{
    return key_of(S3_STAGED_ROOT, id->text, "/l");
}

struct s3_key s3_staged_data_key(const struct uuid *id)
{
    return key_of("data/", id->text, "");
}

struct s3_key s3_staged_whole_key(const struct uuid *id, const struct digest *digest)
{
    char ending[1 + DIGEST_HEX_CHARS + 1] = ".";
    digest_hex(digest, ending + 1);
    return key_of("data/", id->text, ending);
}

struct s3_key s3_staged_segment_key(const struct uuid *id, const struct s3_staged *s, unsigned index, uint64_t *offset)
{
    CHECK(index < s->segment_count);
    uint64_t begin = s3_staged_parts_end(s);
    for (unsigned i = 0; i < index; i++)
        begin += s->segments[i].length;
    const struct s3_staged_segment *g = &s->segments[index];
    *offset = begin;
    return s3_staged_state_key(id, g->epoch, g->sequence, begin + g->length);
}

bool s3_staged_parse_upload(const char *key, struct uuid *id)
{
    char text[UUID_CHARS + 1];
    return sscanf(key, S3_STAGED_ROOT "%36[0-9a-f-]/", text) == 1 && uuid_parse(text, id) == BLOB_OK;
}

bool s3_staged_parse_key(const char *key, struct uuid *id, uint64_t *epoch, uint32_t *sequence, uint64_t *offset)
{
    char text[UUID_CHARS + 1];
    int end = 0;
    if (sscanf(key, S3_STAGED_ROOT "%36[0-9a-f-]/s/%16" SCNx64 ".%8" SCNx32 ".%16" SCNx64 "%n", text, epoch, sequence,
               offset, &end) != 4 ||
        key[end] != '\0')
        return false;
    return uuid_parse(text, id) == BLOB_OK;
}
