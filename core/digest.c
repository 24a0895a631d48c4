/*
 * digest - SHA-256 on OpenSSL's low-level API.
 *
 * The low-level calls are deprecated in OpenSSL 3 in favour of EVP, but EVP hides the mid-state that blobd must save;
 * they run the same assembly (SHA-NI where the CPU has it). The deprecation is silenced here and nowhere else.
 *
 * Saved form, all integers little-endian: u32 version, 8 × u32 chaining words, u64 length in bytes, 64 bytes of
 * partial block of which length % 64 count and the rest is zero.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "core/digest.h"

#include "core/check.h"
#include "core/text/parse.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <string.h>
#include <strings.h>

#define STATE_VERSION 1u
#define STATE_WORDS   4
#define STATE_LENGTH  36
#define STATE_BLOCK   44
#define BLOCK_BYTES   64
#define LENGTH_LIMIT  (UINT64_C(1) << 61) /* SHA-256 counts bits in 64 bits */
#define DIGEST_PREFIX "sha256:"

_Static_assert(sizeof(SHA256_CTX) <= sizeof(struct hash), "struct hash must hold OpenSSL's SHA256_CTX");
_Static_assert(_Alignof(SHA256_CTX) <= _Alignof(struct hash), "struct hash must be aligned for it");
_Static_assert(STATE_BLOCK + BLOCK_BYTES == HASH_STATE_BYTES, "the saved form's fields fill it");

static SHA256_CTX *ctx_of(struct hash *h)
{
    return (SHA256_CTX *)(void *)h->words;
}

static const SHA256_CTX *ctx_of_const(const struct hash *h)
{
    return (const SHA256_CTX *)(const void *)h->words;
}

void hash_init(struct hash *h)
{
    memset(h, 0, sizeof *h);
    CHECK(SHA256_Init(ctx_of(h)) == 1);
}

void hash_update(struct hash *h, const void *data, size_t len)
{
    if (len > 0)
        CHECK(SHA256_Update(ctx_of(h), data, len) == 1);
}

void hash_peek(const struct hash *h, struct digest *out)
{
    struct hash copy = *h;
    CHECK(SHA256_Final(out->bytes, ctx_of(&copy)) == 1);
}

uint64_t hash_length(const struct hash *h)
{
    const SHA256_CTX *ctx = ctx_of_const(h);
    return ((uint64_t)ctx->Nh << 32 | ctx->Nl) / 8;
}

static void put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void hash_save(const struct hash *h, uint8_t out[HASH_STATE_BYTES])
{
    const SHA256_CTX *ctx = ctx_of_const(h);
    uint64_t length = hash_length(h);
    memset(out, 0, HASH_STATE_BYTES);
    put_u32(out, STATE_VERSION);
    for (size_t i = 0; i < 8; i++)
        put_u32(out + STATE_WORDS + 4 * i, (uint32_t)ctx->h[i]);
    put_u32(out + STATE_LENGTH, (uint32_t)length);
    put_u32(out + STATE_LENGTH + 4, (uint32_t)(length >> 32));
    /* OpenSSL keeps the partial block as the bytes it was given, not as words. */
    memcpy(out + STATE_BLOCK, ctx->data, (size_t)(length % BLOCK_BYTES));
}

enum blob_status hash_restore(struct hash *h, const uint8_t in[HASH_STATE_BYTES])
{
    uint64_t length = get_u32(in + STATE_LENGTH) | (uint64_t)get_u32(in + STATE_LENGTH + 4) << 32;
    if (get_u32(in) != STATE_VERSION || length >= LENGTH_LIMIT)
        return BLOB_E_INVALID;
    size_t partial = (size_t)(length % BLOCK_BYTES);
    for (size_t i = partial; i < BLOCK_BYTES; i++)
        if (in[STATE_BLOCK + i] != 0)
            return BLOB_E_INVALID;
    hash_init(h);
    SHA256_CTX *ctx = ctx_of(h);
    for (size_t i = 0; i < 8; i++)
        ctx->h[i] = get_u32(in + STATE_WORDS + 4 * i);
    ctx->Nl = (SHA_LONG)(length << 3);
    ctx->Nh = (SHA_LONG)(length >> 29);
    ctx->num = (unsigned)partial;
    memcpy(ctx->data, in + STATE_BLOCK, partial);
    return BLOB_OK;
}

void digest_hmac(const void *key, size_t key_len, const void *data, size_t len, struct digest *out)
{
    uint8_t block[BLOCK_BYTES] = {0};
    struct hash h;
    if (key_len > sizeof block) {
        struct digest short_key;
        hash_init(&h);
        hash_update(&h, key, key_len);
        hash_peek(&h, &short_key);
        memcpy(block, short_key.bytes, DIGEST_BYTES);
    } else {
        memcpy(block, key, key_len);
    }
    for (size_t i = 0; i < sizeof block; i++)
        block[i] ^= 0x36;
    struct digest inner;
    hash_init(&h);
    hash_update(&h, block, sizeof block);
    hash_update(&h, data, len);
    hash_peek(&h, &inner);
    for (size_t i = 0; i < sizeof block; i++)
        block[i] ^= 0x36 ^ 0x5c;
    hash_init(&h);
    hash_update(&h, block, sizeof block);
    hash_update(&h, inner.bytes, DIGEST_BYTES);
    hash_peek(&h, out);
    OPENSSL_cleanse(block, sizeof block);
    OPENSSL_cleanse(&h, sizeof h);
}

enum blob_status digest_parse(const char *text, struct digest *out)
{
    struct digest d;
    if (strncasecmp(text, DIGEST_PREFIX, sizeof DIGEST_PREFIX - 1) == 0)
        text += sizeof DIGEST_PREFIX - 1;
    if (parse_hex(text, DIGEST_BYTES, d.bytes) != BLOB_OK || text[DIGEST_HEX_CHARS] != '\0')
        return BLOB_E_INVALID;
    *out = d;
    return BLOB_OK;
}

void digest_hex(const struct digest *d, char out[DIGEST_HEX_CHARS + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        out[2 * i] = digits[d->bytes[i] >> 4];
        out[2 * i + 1] = digits[d->bytes[i] & 15];
    }
    out[DIGEST_HEX_CHARS] = '\0';
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
    return CRYPTO_memcmp(a->bytes, b->bytes, DIGEST_BYTES) == 0;
}
