/* disk_journal_format - encoding and checking of the two headers. */
#include "backends/disk_journal_format.h"
#include "backends/disk_bytes.h"

#include "backends/crc32c.h"

#include <string.h>

static const uint8_t segment_magic[12] = "blobd-jrnl-1";

void segment_header_encode(struct segment_header *h, uint8_t out[JOURNAL_HEADER_BYTES])
{
    memcpy(out, segment_magic, 12);
    put_le(out + 12, h->number, 8);
    put_le(out + 20, h->oldest, 8);
    memcpy(out + 28, h->salt, 8);
    h->crc = crc32c(0, out, 36);
    put_le(out + 36, h->crc, 4);
}

bool segment_header_decode(const uint8_t in[JOURNAL_HEADER_BYTES], struct segment_header *h)
{
    uint32_t crc = (uint32_t)get_le(in + 36, 4);
    if (memcmp(in, segment_magic, 12) != 0 || crc32c(0, in, 36) != crc)
        return false;
    *h = (struct segment_header){.number = get_le(in + 12, 8), .oldest = get_le(in + 20, 8), .crc = crc};
    memcpy(h->salt, in + 28, 8);
    return h->number > 0 && h->oldest <= h->number;
}

void entry_header_encode(struct entry_header *h, uint32_t chain, uint8_t out[JOURNAL_ENTRY_BYTES])
{
    put_le(out, h->len, 4);
    put_le(out + 4, h->kind, 4);
    put_le(out + 8, h->body_crc, 4);
    h->chain = crc32c(chain, out, 12);
    put_le(out + 12, h->chain, 4);
}

bool entry_header_decode(const uint8_t in[JOURNAL_ENTRY_BYTES], uint32_t chain, struct entry_header *h)
{
    *h = (struct entry_header){.len = (uint32_t)get_le(in, 4),
                               .kind = (uint32_t)get_le(in + 4, 4),
                               .body_crc = (uint32_t)get_le(in + 8, 4),
                               .chain = (uint32_t)get_le(in + 12, 4)};
    return h->kind != 0 && crc32c(chain, in, 12) == h->chain;
}
