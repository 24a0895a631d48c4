/*
 * codec_rig - what every decoder of stored bytes must bear: each truncation, each flipped byte, and the samples that
 * earlier versions have written.
 *
 * What is given to a decoder is a block of exactly its length, so that the address sanitizer sees a read beyond it.
 *
 * Threads: the test's. Ownership: data is borrowed. Files: tests/data, from the top of the source.
 */
#ifndef BLOBD_TESTS_RIG_CODEC_RIG_H
#define BLOBD_TESTS_RIG_CODEC_RIG_H

#include "core/status.h"
#include "core/text/bytebuf.h"

#include <stddef.h>

/* Decodes, asserts whatever must hold of a result that it calls OK, and releases it. */
typedef enum blob_status codec_decode_fn(const void *data, size_t len, void *arg);

/* Asserts that no proper beginning of data is OK. */
void codec_refuses_truncations(const void *data, size_t len, codec_decode_fn *decode, void *arg);
/* Flips each bit of each byte in turn, and asserts that the answer is OK or CORRUPT; decode's own asserts look at what
 * an OK has brought. Returns how many were CORRUPT. */
size_t codec_bears_flips(const void *data, size_t len, codec_decode_fn *decode, void *arg);
/* Asserts that data with anything behind it is not OK. */
void codec_refuses_more(const void *data, size_t len, codec_decode_fn *decode, void *arg);

/* Reads tests/data/name into out, which is cleared first; asserts that it is there. */
void codec_sample(const char *name, struct bytebuf *out);

#endif
