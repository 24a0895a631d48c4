/* base64url - encoding by 6 bits; decoding checks everything before it writes. */
#include "core/text/base64url.h"

#include <stdint.h>
#include <string.h>

void base64url_encode(const void *data, size_t len, char *out)
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const uint8_t *p = data;
    uint32_t bits = 0;
    unsigned count = 0;
    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | p[i];
        for (count += 8; count >= 6; count -= 6)
            *out++ = alphabet[bits >> (count - 6) & 63];
    }
    if (count > 0)
        *out++ = alphabet[bits << (6 - count) & 63];
    *out = '\0';
}

static int base64url_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

enum blob_status base64url_decode(const char *text, void *out, size_t len)
{
    size_t chars = strlen(text);
    if (chars != BASE64URL_CHARS(len))
        return BLOB_E_INVALID;
    for (size_t i = 0; i < chars; i++)
        if (base64url_value(text[i]) < 0)
            return BLOB_E_INVALID;
    unsigned unused = (unsigned)(chars * 6 - len * 8);
    if (chars > 0 && (base64url_value(text[chars - 1]) & ((1 << unused) - 1)) != 0)
        return BLOB_E_INVALID;
    uint8_t *p = out;
    uint32_t bits = 0;
    unsigned count = 0;
    for (size_t i = 0; i < chars; i++) {
        bits = bits << 6 | (uint32_t)base64url_value(text[i]);
        count += 6;
        if (count >= 8) {
            count -= 8;
            *p++ = (uint8_t)(bits >> count);
        }
    }
    return BLOB_OK;
}
