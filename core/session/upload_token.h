/*
 * upload_token - issue and verify PortSIP-Upload-Token.
 *
 * A token says at which offset and after how many appends it was issued, under an HMAC-SHA256 (RFC 2104, cut to 16
 * bytes) over upload id, both numbers; the key is random, made with the session and living in it, so that
 * nodes share no secret that could differ. Text form: base64url, no padding. Comparison takes constant time.
 *
 * Threads: any; plain values.
 */
#ifndef BLOBD_CORE_SESSION_UPLOAD_TOKEN_H
#define BLOBD_CORE_SESSION_UPLOAD_TOKEN_H

#include "core/status.h"
#include "core/uuid.h"

#include <stdint.h>

#define UPLOAD_TOKEN_KEY_BYTES 32
#define UPLOAD_TOKEN_CHARS     40 /* 30 bytes: version, flags, appends (4), offset (8), tag (16) */

struct upload_token {
    uint32_t appends; /* finished or cut appends that had moved the offset when it was issued */
    bool initial;     /* the token of the init answer: the only one that does not mark its client as rotating */
    uint64_t offset;
};

void upload_token_new_key(uint8_t key[UPLOAD_TOKEN_KEY_BYTES]);
void upload_token_issue(const uint8_t key[UPLOAD_TOKEN_KEY_BYTES], const struct uuid *upload,
                        const struct upload_token *token, char out[UPLOAD_TOKEN_CHARS + 1]);
/* INVALID: not a token at all; DENIED: well-formed but not this upload's. */
enum blob_status upload_token_verify(const uint8_t key[UPLOAD_TOKEN_KEY_BYTES], const struct uuid *upload,
                                     const char *text, struct upload_token *out) BLOB_MUST_CHECK;

#endif
