/* uuid - random ones from getrandom(), which never blocks once the kernel is up; no pool, since a call costs 0.3 µs. */
#include "core/uuid.h"

#include "core/check.h"

#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#define UUID_BYTES 16

static bool uuid_dash_at(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

void uuid_new(struct uuid *out)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[UUID_BYTES];
    /* Up to 256 bytes come whole or not at all. */
    CHECK(getrandom(raw, sizeof raw, 0) == (ssize_t)sizeof raw);
    raw[6] = (uint8_t)((raw[6] & 0x0f) | 0x40); /* version 4 */
    raw[8] = (uint8_t)((raw[8] & 0x3f) | 0x80); /* the RFC's variant */
    size_t nibble = 0;
    for (size_t i = 0; i < UUID_CHARS; i++) {
        if (uuid_dash_at(i)) {
            out->text[i] = '-';
            continue;
        }
        out->text[i] = digits[raw[nibble / 2] >> (nibble % 2 ? 0 : 4) & 15];
        nibble++;
    }
    out->text[UUID_CHARS] = '\0';
}

enum blob_status uuid_parse(const char *text, struct uuid *out)
{
    struct uuid id;
    if (strnlen(text, UUID_CHARS + 1) != UUID_CHARS)
        return BLOB_E_INVALID;
    for (size_t i = 0; i < UUID_CHARS; i++) {
        char c = text[i];
        if (c >= 'A' && c <= 'F')
            c = (char)(c - 'A' + 'a');
        bool is_hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
        if (uuid_dash_at(i) ? c != '-' : !is_hex)
            return BLOB_E_INVALID;
        id.text[i] = c;
    }
    id.text[UUID_CHARS] = '\0';
    *out = id;
    return BLOB_OK;
}
