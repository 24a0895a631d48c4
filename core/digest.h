/*
 * digest - SHA-256 values, and a streaming hash whose mid-state can be saved and restored.
 *
 * The mid-state is what makes completing O(1): it travels in the upload session, so any node goes on hashing where
 * another stopped. OpenSSL's SHA256_CTX is a plain struct that holds it (EVP does not export it); the saved form is
 * our own, in a fixed byte order, so that it does not depend on the library's layout.
 *
 * Threads: plain values, one thread at a time each. Source: FIPS 180-4.
 */
#ifndef BLOBD_CORE_DIGEST_H
#define BLOBD_CORE_DIGEST_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

#define DIGEST_BYTES     32
#define DIGEST_HEX_CHARS 64
#define HASH_STATE_BYTES 108 /* version, 8 words, length in bytes, the partial block */

struct digest {
    uint8_t bytes[DIGEST_BYTES];
};

struct hash {
    uint64_t words[16]; /* holds an OpenSSL SHA256_CTX; digest.c checks that it fits */
};

void hash_init(struct hash *h);
void hash_update(struct hash *h, const void *data, size_t len);
/* The digest so far; h stays usable, so a running hash can be looked at. */
void hash_peek(const struct hash *h, struct digest *out);
/* Bytes hashed so far. */
uint64_t hash_length(const struct hash *h);

void hash_save(const struct hash *h, uint8_t out[HASH_STATE_BYTES]);
/* INVALID when the bytes are not a saved state; h is untouched then. */
enum blob_status hash_restore(struct hash *h, const uint8_t in[HASH_STATE_BYTES]) BLOB_MUST_CHECK;

/* HMAC-SHA256 (RFC 2104). Keys of any length. */
void digest_hmac(const void *key, size_t key_len, const void *data, size_t len, struct digest *out);

/* Bare hex or "sha256:hex", both of any case, exactly 64 hex digits; anything else is INVALID. */
enum blob_status digest_parse(const char *text, struct digest *out) BLOB_MUST_CHECK;
/* Lower-case hex and a NUL. */
void digest_hex(const struct digest *d, char out[DIGEST_HEX_CHARS + 1]);
/* Constant time. */
bool digest_equal(const struct digest *a, const struct digest *b);

#endif
