/*
 * keyed_sum - SipHash-2-4 for long messages: as hard to make without the key, at the price of a CRC.
 *
 * A block of 1024 bytes is shortened to 16 before it is hashed, by NH: the sum, modulo 2^128, of (m[0] + k[0]) × (m[1]
 * + k[1]), (m[2] + k[2]) × (m[3] + k[3]), …, over words of 64 bits each modulo 2^64. Whoever does not know k finds two
 * blocks of the same sum by luck alone, once in 2^64. k is made from the key, by SipHash of its index.
 *
 *     sum = SipHash(key, NH of each block, the last one's zeros left out; u64 length; tail)
 *
 * Threads: any, a sum by one at a time; a key may be shared once it is prepared. Cannot fail. Numbers are
 * little-endian. Source: Black, Halevi, Krawczyk, Krovetz, Rogaway, "UMAC: Fast and Secure Message Authentication"
 * (1999), NH; with words of 64 bits Krovetz, "Message Authentication on 64-Bit Architectures" (2006).
 */
#ifndef BLOBD_BACKENDS_DISK_JOURNAL_KEYED_SUM_H
#define BLOBD_BACKENDS_DISK_JOURNAL_KEYED_SUM_H

#include "backends/disk/journal/siphash.h"

#define KEYED_SUM_PAIR  16
#define KEYED_SUM_PAIRS 64 /* of a block */

struct sum_key {
    uint8_t bytes[SIPHASH_KEY_BYTES];
    uint64_t words[2 * KEYED_SUM_PAIRS];
};

struct keyed_sum {
    const struct sum_key *key; /* borrowed */
    struct siphash sums;       /* of the blocks before */
    uint64_t low, high;        /* of this block's sum */
    uint64_t len;
    unsigned pairs, held; /* taken of this block; bytes of the next pair */
    uint8_t pair[KEYED_SUM_PAIR];
};

void sum_key_prepare(struct sum_key *key, const uint8_t bytes[SIPHASH_KEY_BYTES]);
void keyed_sum_begin(struct keyed_sum *s, const struct sum_key *key);
void keyed_sum_update(struct keyed_sum *s, const void *data, size_t len);
/* tail: a few bytes more, known only now. */
uint64_t keyed_sum_end(struct keyed_sum *s, const void *tail, size_t len);

#endif
