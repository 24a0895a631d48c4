/* base64url - RFC 4648 section 5, without padding: our opaque ids and tokens. Threads: any. */
#ifndef BLOBD_CORE_TEXT_BASE64URL_H
#define BLOBD_CORE_TEXT_BASE64URL_H

#include "core/status.h"

#include <stddef.h>

#define BASE64URL_CHARS(bytes) (((bytes)*4 + 2) / 3)

/* out has BASE64URL_CHARS(len) + 1 chars. */
void base64url_encode(const void *data, size_t len, char *out);
/* Exactly len bytes; INVALID for any other text, also one whose unused last bits are not zero, so that a value has
 * one spelling. out is untouched then. */
enum blob_status base64url_decode(const char *text, void *out, size_t len) BLOB_MUST_CHECK;

#endif
