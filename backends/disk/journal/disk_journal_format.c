/*
 * disk_journal_format - encoding and checking.
 *
 * A check is one sum that has the body first: that is most of the work, and can be done before it is known which entry
 * this one follows.
 */
#include "backends/disk/journal/disk_journal_format.h"

#include "backends/crc32c.h"
#include "backends/disk/file/disk_bytes.h"

#include <string.h>

#define KEYED_BIT   0x80 /* version 1 had digits and letters there */
#define KEY_VERSION 2

static const uint8_t segment_magic[12] = "blobd-jrnl-1";

/* ---- the header ---- */

static void header_bytes(const struct segment_header *h, uint8_t out[JOURNAL_HEADER_BYTES])
{
    memcpy(out, segment_magic, 12);
    put_le(out + 12, h->number, 8);
    put_le(out + 20, h->oldest, 8);
    memcpy(out + 28, h->salt, 8);
    put_le(out + 36, crc32c(0, out, 36), 4);
}

static uint32_t header_crc(const struct segment_header *h)
{
    uint8_t bytes[JOURNAL_HEADER_BYTES];
    header_bytes(h, bytes);
    return (uint32_t)get_le(bytes + 36, 4);
}

void disk_segment_header_encode(struct segment_header *h, uint8_t out[JOURNAL_HEADER_BYTES])
{
    h->keyed = true;
    h->salt[0] |= KEYED_BIT;
    header_bytes(h, out);
}

bool disk_segment_header_decode(const uint8_t in[JOURNAL_HEADER_BYTES], struct segment_header *h)
{
    if (memcmp(in, segment_magic, 12) != 0 || crc32c(0, in, 36) != (uint32_t)get_le(in + 36, 4))
        return false;
    *h = (struct segment_header){
        .number = get_le(in + 12, 8), .oldest = get_le(in + 20, 8), .keyed = (in[28] & KEYED_BIT) != 0};
    memcpy(h->salt, in + 28, 8);
    return h->number > 0 && h->oldest <= h->number;
}

/* ---- the entries of version 1, which the key's is one of ---- */

static bool plain_entry(const uint8_t *in, size_t room, uint32_t chain, struct entry_header *h)
{
    if (room < JOURNAL_ENTRY_BYTES)
        return false;
    *h = (struct entry_header){.len = (uint32_t)get_le(in, 4), .kind = (uint32_t)get_le(in + 4, 4)};
    return h->kind != 0 && crc32c(chain, in, 12) == (uint32_t)get_le(in + 12, 4) &&
           h->len <= room - JOURNAL_ENTRY_BYTES &&
           crc32c(0, in + JOURNAL_ENTRY_BYTES, h->len) == (uint32_t)get_le(in + 8, 4);
}

/* ---- the key ---- */

void journal_key_encode(const struct segment_header *h, const uint8_t key[SIPHASH_KEY_BYTES],
                        uint8_t out[JOURNAL_KEY_BYTES])
{
    uint8_t *body = out + JOURNAL_ENTRY_BYTES;
    put_le(body, KEY_VERSION, 4);
    put_le(body + 4, h->number, 8);
    memcpy(body + 12, key, SIPHASH_KEY_BYTES);
    put_le(out, JOURNAL_KEY_BODY, 4);
    put_le(out + 4, JOURNAL_KEY, 4);
    put_le(out + 8, crc32c(0, body, JOURNAL_KEY_BODY), 4);
    put_le(out + 12, crc32c(header_crc(h), out, 12), 4);
}

uint64_t journal_chain_begin(const struct segment_header *h, const struct sum_key *key)
{
    uint8_t bytes[JOURNAL_HEADER_BYTES];
    struct keyed_sum s;
    header_bytes(h, bytes);
    keyed_sum_begin(&s, key);
    keyed_sum_update(&s, bytes, sizeof bytes);
    return keyed_sum_end(&s, "", 0);
}

/*
 * An entry that checks and is not the key's, or has another segment's number, was left by an earlier use of the
 * segment, and its CRC fits by chance: the key of this one did not reach the disk, so nothing behind it was
 * acknowledged.
 */
static bool read_key(struct journal_reader *r)
{
    struct entry_header h;
    const uint8_t *in = r->data + JOURNAL_BLOCK, *body = in + JOURNAL_ENTRY_BYTES;
    if (!plain_entry(in, r->size - JOURNAL_BLOCK, header_crc(&r->header), &h) || h.kind != JOURNAL_KEY || h.len < 12)
        return true;
    if (get_le(body + 4, 8) != r->header.number)
        return true;
    if (get_le(body, 4) != KEY_VERSION || h.len != JOURNAL_KEY_BODY)
        return false;
    sum_key_prepare(&r->key, body + 12);
    r->chain = journal_chain_begin(&r->header, &r->key);
    r->first = JOURNAL_FIRST;
    return true;
}

/* ---- entries ---- */

uint64_t disk_entry_header_encode(const struct entry_header *h, struct keyed_sum *body, uint64_t chain,
                                  uint8_t out[JOURNAL_ENTRY_BYTES])
{
    put_le(out, h->len, 4);
    put_le(out + 4, h->kind, 4);
    put_le(out + 8, chain, 8);
    uint64_t check = keyed_sum_end(body, out, JOURNAL_ENTRY_BYTES);
    put_le(out + 8, check, 8);
    return check;
}

bool journal_reader_begin(struct journal_reader *r, const uint8_t *data, size_t size)
{
    *r = (struct journal_reader){.data = data, .size = size};
    if (size < JOURNAL_BLOCK || !disk_segment_header_decode(data, &r->header))
        return true;
    if (r->header.keyed)
        return read_key(r);
    r->chain = header_crc(&r->header);
    r->first = JOURNAL_BLOCK;
    return true;
}

static bool keyed_entry(const struct journal_reader *r, const uint8_t *in, size_t room, struct entry_header *h)
{
    if (room < JOURNAL_ENTRY_BYTES)
        return false;
    *h = (struct entry_header){.len = (uint32_t)get_le(in, 4), .kind = (uint32_t)get_le(in + 4, 4)};
    if (h->kind == 0 || h->len > room - JOURNAL_ENTRY_BYTES)
        return false;
    struct keyed_sum s;
    uint8_t head[JOURNAL_ENTRY_BYTES];
    keyed_sum_begin(&s, &r->key);
    keyed_sum_update(&s, in + JOURNAL_ENTRY_BYTES, h->len);
    disk_entry_header_encode(h, &s, r->chain, head);
    return memcmp(head, in, sizeof head) == 0;
}

bool journal_reader_take(struct journal_reader *r, uint64_t pos, struct entry_header *h)
{
    if (r->first == 0 || pos < r->first || pos > r->size)
        return false;
    const uint8_t *in = r->data + pos;
    size_t room = r->size - (size_t)pos;
    if (r->header.keyed ? !keyed_entry(r, in, room, h) : !plain_entry(in, room, (uint32_t)r->chain, h))
        return false;
    r->chain = r->header.keyed ? get_le(in + 8, 8) : get_le(in + 12, 4);
    return true;
}
