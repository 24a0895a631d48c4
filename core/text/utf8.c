/* utf8 - decoding by the table of RFC 3629, section 4: the second byte's bounds exclude all that is not shortest form.
 */
#include "core/text/utf8.h"

uint32_t utf8_next(const char **text, const char *end)
{
    const unsigned char *p = (const unsigned char *)*text;
    size_t left = (size_t)(end - *text);
    unsigned char lead = p[0];
    (*text)++;
    if (lead < 0x80)
        return lead;
    size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (lead < 0xc2 || lead > 0xf4 || left <= more || p[1] < low || p[1] > high)
        return UTF8_INVALID;
    uint32_t cp = lead & (0x3fu >> more);
    for (size_t i = 1; i <= more; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return UTF8_INVALID;
        cp = cp << 6 | (p[i] & 0x3fu);
    }
    *text += more;
    return cp;
}

size_t utf8_put(uint32_t cp, char out[UTF8_MAX_BYTES])
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t more = cp >= 0x10000 ? 3 : cp >= 0x800 ? 2 : 1;
    for (size_t i = more; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 0x3f));
        cp >>= 6;
    }
    out[0] = (char)((0xf0 << (3 - more)) | cp);
    return more + 1;
}

bool utf8_valid(const char *text, size_t len)
{
    const char *end = text + len;
    while (text < end)
        if (utf8_next(&text, end) == UTF8_INVALID)
            return false;
    return true;
}
