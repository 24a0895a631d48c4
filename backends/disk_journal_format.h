/*
 * disk_journal_format - the bytes of a journal segment; shared by the writer (disk_journal) and the reader
 * (disk_journal_log).
 *
 * All numbers are little-endian. Threads: any. Source: disk_journal.h describes the format.
 */
#ifndef BLOBD_BACKENDS_DISK_JOURNAL_FORMAT_H
#define BLOBD_BACKENDS_DISK_JOURNAL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_DIR          "journal"
#define JOURNAL_BLOCK        4096u /* entries begin at one after a sync; the header has the first of its own */
#define JOURNAL_HEADER_BYTES 40
#define JOURNAL_ENTRY_BYTES  16
#define JOURNAL_SEGMENTS_MAX 99 /* two digits name them */

struct segment_header {
    uint64_t number, oldest;
    uint8_t salt[8]; /* so that nothing written earlier, nor any content of a client's, passes for an entry */
    uint32_t crc;    /* of what stands before it: the chain of the entries begins with it */
};

struct entry_header {
    uint32_t len, kind, body_crc;
    uint32_t chain; /* CRC-32C of the three, continued from the entry before */
};

/* Fills h->crc too. */
void segment_header_encode(struct segment_header *h, uint8_t out[JOURNAL_HEADER_BYTES]);
bool segment_header_decode(const uint8_t in[JOURNAL_HEADER_BYTES], struct segment_header *h);
/* Fills h->chain from the chain before. */
void entry_header_encode(struct entry_header *h, uint32_t chain, uint8_t out[JOURNAL_ENTRY_BYTES]);
/* False unless it continues the chain. The body's sum is the caller's to check. */
bool entry_header_decode(const uint8_t in[JOURNAL_ENTRY_BYTES], uint32_t chain, struct entry_header *h);

static inline uint64_t journal_align(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

#endif
