/*
 * disk_journal_format - the bytes of a journal segment; shared by the writer (disk_journal) and the reader
 * (disk_journal_log).
 *
 * All numbers are little-endian.
 *
 *     at     bytes
 *     0      12  "blobd-jrnl-1"
 *     12     8   number
 *     20     8   oldest: the lowest number that was still needed when this segment was begun
 *     28     8   salt; the highest bit of its first byte says that the segment has a key
 *     36     4   CRC-32C of the 36 bytes before
 *
 *     4096   4   28, the length of the body
 *     4100   4   12, JOURNAL_KEY
 *     4104   4   CRC-32C of the body
 *     4108   4   CRC-32C of the 12 bytes before, continued from that at 36
 *     4112   4   2, the version of what follows
 *     4116   8   number, as at 12
 *     4124   16  key
 *
 *     8192 and on, the entries:
 *     0      4   length of the body
 *     4      4   kind
 *     8      8   check
 *     16         body, zeros up to 8 bytes
 *
 * The check is the sum of keyed_sum.h, under the key, of the body. Its tail is the 8 bytes in front of the check, and
 * the check of the entry before; of the first entry that is the sum, without a tail, of the header's 40 bytes.
 *
 * The key is random, new with each opening of the journal, and never leaves the store. So neither bytes that a client
 * sends nor what an earlier use of the segment left can pass for an entry.
 *
 * Version 1 had no key: entries as the one at 4096, from there on. Its segments are read still. It takes a header of
 * version 2 for its own, and finds the entry of the key, whose kind it does not know: so it refuses to start, where a
 * header that it did not know would have been passed over, and what follows lost.
 *
 * Threads: any.
 */
#ifndef BLOBD_BACKENDS_DISK_JOURNAL_DISK_JOURNAL_FORMAT_H
#define BLOBD_BACKENDS_DISK_JOURNAL_DISK_JOURNAL_FORMAT_H

#include "backends/disk/journal/keyed_sum.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_DIR          "journal"
#define JOURNAL_BLOCK        4096u /* entries begin at one after a sync; the header and the key have one each */
#define JOURNAL_FIRST        (2 * JOURNAL_BLOCK) /* the first entry */
#define JOURNAL_HEADER_BYTES 40
#define JOURNAL_ENTRY_BYTES  16
#define JOURNAL_KEY_BODY     (4 + 8 + SIPHASH_KEY_BYTES)
#define JOURNAL_KEY_BYTES    (JOURNAL_ENTRY_BYTES + JOURNAL_KEY_BODY)
#define JOURNAL_SEGMENTS_MAX 99 /* two digits name them */

/* What entries say. The bodies are encoded and read by disk_changes and disk_replay. */
enum journal_kind {
    JOURNAL_SEAL = 1,     /* the segment ends; the next number follows */
    JOURNAL_DATA = 2,     /* upload id, offset, bytes */
    JOURNAL_FLUSHED = 3,  /* upload id, offset: its file was synced up to there */
    JOURNAL_TRUNCATE = 4, /* upload id, offset: what was beyond is dropped */
    JOURNAL_DISCARD = 5,  /* upload id */
    JOURNAL_COMMIT = 6,   /* upload id, digest, size, touched */
    JOURNAL_TOUCH = 7,    /* digest, touched */
    JOURNAL_REMOVE = 8,   /* digest */
    JOURNAL_PUT = 9,      /* record key, value */
    JOURNAL_DELETE = 10,  /* record key */
    JOURNAL_ABORT = 11,   /* position of an entry that could not be carried out and counts as not there */
    JOURNAL_KEY = 12,     /* no change: what the segment's entries are checked with, see disk_journal_format.h */
};

struct segment_header {
    uint64_t number, oldest;
    uint8_t salt[8];
    bool keyed;
};

struct entry_header {
    uint32_t len, kind;
};

/* ---- writing ---- */

/* A keyed one; h->keyed and its bit of h->salt are set. */
void disk_segment_header_encode(struct segment_header *h, uint8_t out[JOURNAL_HEADER_BYTES]);
/* What stands at JOURNAL_BLOCK, below a header that was encoded. */
void journal_key_encode(const struct segment_header *h, const uint8_t key[SIPHASH_KEY_BYTES],
                        uint8_t out[JOURNAL_KEY_BYTES]);
/* What the first entry's check continues. */
uint64_t journal_chain_begin(const struct segment_header *h, const struct sum_key *key);
/* body: begun with the key, the body taken; it is used up. Returns the check, which the next entry continues. */
uint64_t disk_entry_header_encode(const struct entry_header *h, struct keyed_sum *body, uint64_t chain,
                                  uint8_t out[JOURNAL_ENTRY_BYTES]);

/* ---- reading ---- */

struct journal_reader {
    const uint8_t *data; /* the segment: a block at least */
    size_t size;
    struct segment_header header;
    struct sum_key key;
    uint64_t chain;
    uint64_t first; /* where entries begin; 0: there are none */
};

bool disk_segment_header_decode(const uint8_t in[JOURNAL_HEADER_BYTES], struct segment_header *h);
/* False: its header says that a later version wrote it. */
bool journal_reader_begin(struct journal_reader *r, const uint8_t *data, size_t size);
/* The entry at pos, if it is whole and continues the chain, which it then does. */
bool journal_reader_take(struct journal_reader *r, uint64_t pos, struct entry_header *h);

static inline uint64_t journal_align(uint64_t n, uint64_t to)
{
    return (n + to - 1) / to * to;
}

#endif
