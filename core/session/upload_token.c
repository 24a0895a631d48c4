/*
 * upload_token - a fixed 30-byte layout: version, flags, appends (4, little-endian), offset (8, little-endian), tag
 * (16).
 *
 * The tag covers the upload's id and everything before the tag, so neither number can be changed and a token of
 * one upload is worth nothing for another. 128 bits of tag are more than an online guesser can try.
 */
#include "core/session/upload_token.h"

#include "core/check.h"
#include "core/digest.h"
#include "core/text/base64url.h"

#include <openssl/crypto.h>
#include <string.h>
#include <sys/random.h>

#define TOKEN_VERSION 1
#define FLAG_INITIAL  1
#define HEAD_BYTES    14
#define TAG_BYTES     16
#define TOKEN_BYTES   (HEAD_BYTES + TAG_BYTES)

_Static_assert(BASE64URL_CHARS(TOKEN_BYTES) == UPLOAD_TOKEN_CHARS, "the text form's size");

void upload_token_new_key(uint8_t key[UPLOAD_TOKEN_KEY_BYTES])
{
    CHECK(getrandom(key, UPLOAD_TOKEN_KEY_BYTES, 0) == UPLOAD_TOKEN_KEY_BYTES);
}

static void token_tag(const uint8_t *key, const struct uuid *upload, const uint8_t head[HEAD_BYTES], struct digest *out)
{
    uint8_t message[UUID_CHARS + HEAD_BYTES];
    memcpy(message, upload->text, UUID_CHARS);
    memcpy(message + UUID_CHARS, head, HEAD_BYTES);
    digest_hmac(key, UPLOAD_TOKEN_KEY_BYTES, message, sizeof message, out);
}

void upload_token_issue(const uint8_t key[UPLOAD_TOKEN_KEY_BYTES], const struct uuid *upload,
                        const struct upload_token *token, char out[UPLOAD_TOKEN_CHARS + 1])
{
    uint8_t raw[TOKEN_BYTES] = {TOKEN_VERSION, token->initial ? FLAG_INITIAL : 0};
    for (unsigned i = 0; i < 4; i++)
        raw[2 + i] = (uint8_t)(token->appends >> (8 * i));
    for (unsigned i = 0; i < 8; i++)
        raw[6 + i] = (uint8_t)(token->offset >> (8 * i));
    struct digest tag;
    token_tag(key, upload, raw, &tag);
    memcpy(raw + HEAD_BYTES, tag.bytes, TAG_BYTES);
    base64url_encode(raw, sizeof raw, out);
}

enum blob_status upload_token_verify(const uint8_t key[UPLOAD_TOKEN_KEY_BYTES], const struct uuid *upload,
                                     const char *text, struct upload_token *out)
{
    uint8_t raw[TOKEN_BYTES];
    enum blob_status st = base64url_decode(text, raw, sizeof raw);
    if (st != BLOB_OK)
        return st;
    if (raw[0] != TOKEN_VERSION || (raw[1] & ~FLAG_INITIAL) != 0)
        return BLOB_E_INVALID;
    struct digest tag;
    token_tag(key, upload, raw, &tag);
    if (CRYPTO_memcmp(tag.bytes, raw + HEAD_BYTES, TAG_BYTES) != 0)
        return BLOB_E_DENIED;
    struct upload_token token = {.initial = (raw[1] & FLAG_INITIAL) != 0};
    for (unsigned i = 0; i < 4; i++)
        token.appends |= (uint32_t)raw[2 + i] << (8 * i);
    for (unsigned i = 0; i < 8; i++)
        token.offset |= (uint64_t)raw[6 + i] << (8 * i);
    *out = token;
    return BLOB_OK;
}
