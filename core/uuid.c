/*
 * uuid - random ones from getrandom(), which never blocks once the kernel is up.
 *
 * Every request gets an id, and the system call costs more than all the rest of making one; so each thread reads
 * random bytes for a few ids ahead. No byte is used twice; a process that forks and goes on would break that, and
 * blobd does not.
 */
#include "core/uuid.h"

#include "core/check.h"

#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#define UUID_BYTES 16
#define POOL_BYTES 256 /* the most that getrandom() gives whole or not at all */

static bool uuid_dash_at(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

struct random_pool {
    uint8_t bytes[POOL_BYTES];
    size_t left; /* at the end of bytes */
};

static _Thread_local struct random_pool random_pool;

static void random_take(uint8_t out[UUID_BYTES])
{
    struct random_pool *pool = &random_pool;
    if (pool->left == 0) {
        CHECK(getrandom(pool->bytes, POOL_BYTES, 0) == POOL_BYTES);
        pool->left = POOL_BYTES;
    }
    uint8_t *next = pool->bytes + POOL_BYTES - pool->left;
    memcpy(out, next, UUID_BYTES);
    memset(next, 0, UUID_BYTES);
    pool->left -= UUID_BYTES;
}

void uuid_new(struct uuid *out)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[UUID_BYTES];
    random_take(raw);
    raw[6] = (uint8_t)((raw[6] & 0x0f) | 0x40); /* version 4 */
    raw[8] = (uint8_t)((raw[8] & 0x3f) | 0x80); /* the RFC's variant */
    char *to = out->text;
    for (size_t i = 0; i < UUID_BYTES; i++) {
        *to++ = digits[raw[i] >> 4];
        *to++ = digits[raw[i] & 15];
        if (uuid_dash_at((size_t)(to - out->text)))
            *to++ = '-';
    }
    *to = '\0';
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
