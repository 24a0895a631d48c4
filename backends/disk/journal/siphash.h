/*
 * siphash - SipHash-2-4: a sum of 64 bits under a key of 128, which nobody makes who does not know the key.
 *
 * In pieces: begin, any number of updates, end. A state may be copied, and each copy goes on by itself.
 *
 * Threads: any, one state by one at a time. Cannot fail. Source: Aumasson and Bernstein, "SipHash: a fast short-input
 * PRF" (2012), whose test vectors test_siphash has.
 */
#ifndef BLOBD_BACKENDS_DISK_JOURNAL_SIPHASH_H
#define BLOBD_BACKENDS_DISK_JOURNAL_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

#define SIPHASH_KEY_BYTES 16

struct siphash {
    uint64_t v[4];
    uint64_t len;  /* so far */
    uint64_t word; /* the last len % 8 bytes, from the lowest on */
};

void siphash_begin(struct siphash *s, const uint8_t key[SIPHASH_KEY_BYTES]);
void siphash_update(struct siphash *s, const void *data, size_t len);
uint64_t siphash_end(struct siphash *s);

#endif
