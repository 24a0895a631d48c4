/*
 * ip_address - read by hand: core knows no sockets, and the system's readers take forms that nobody means ("10.1",
 * octal).
 */
#include "core/ip_address.h"

#include <stdlib.h>
#include <string.h>

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A number without leading zeros; how many characters, 0: none, or more than max. */
static size_t take_number(const char *text, size_t len, unsigned max, unsigned *out)
{
    unsigned value = 0;
    size_t n = 0;
    while (n < len && text[n] >= '0' && text[n] <= '9') {
        value = value * 10 + (unsigned)(text[n++] - '0');
        if (value > max || (n > 1 && text[0] == '0'))
            return 0;
    }
    *out = value;
    return n;
}

static bool parse_v4(const char *text, size_t len, uint8_t out[4])
{
    for (unsigned i = 0; i < 4; i++) {
        unsigned part = 0;
        size_t n = take_number(text, len, 255, &part);
        if (n == 0 || (i < 3 && (n == len || text[n] != '.')) || (i == 3 && n != len))
            return false;
        out[i] = (uint8_t)part;
        text += n + 1;
        len -= i < 3 ? n + 1 : n;
    }
    return true;
}

/* Up to four hex digits; how many, 0: none. */
static size_t take_group(const char *text, size_t len, uint8_t out[2])
{
    unsigned value = 0;
    size_t n = 0;
    while (n < len && n < 5 && hex_value(text[n]) >= 0)
        value = value << 4 | (unsigned)hex_value(text[n++]);
    out[0] = (uint8_t)(value >> 8);
    out[1] = (uint8_t)value;
    return n <= 4 ? n : 0;
}

static bool parse_v6(const char *text, size_t len, uint8_t out[IP_BYTES])
{
    const char *end = text + len;
    size_t at = 0, gap = IP_BYTES + 1; /* where "::" stands; beyond all: nowhere */
    memset(out, 0, IP_BYTES);
    if (len >= 2 && text[0] == ':' && text[1] == ':') {
        gap = 0;
        text += 2;
    }
    while (text < end) {
        if (at + 4 <= IP_BYTES && parse_v4(text, (size_t)(end - text), out + at)) {
            at += 4;
            break;
        }
        size_t n = at + 2 <= IP_BYTES ? take_group(text, (size_t)(end - text), out + at) : 0;
        if (n == 0)
            return false;
        at += 2;
        text += n;
        if (text == end)
            break;
        if (*text++ != ':' || text == end)
            return false;
        if (*text == ':') {
            if (gap <= IP_BYTES)
                return false;
            gap = at;
            text++;
        }
    }
    if (gap > IP_BYTES)
        return at == IP_BYTES;
    if (at == IP_BYTES)
        return false;
    memmove(out + IP_BYTES - (at - gap), out + gap, at - gap);
    memset(out + gap, 0, IP_BYTES - at);
    return true;
}

enum blob_status ip_parse(const char *text, size_t len, struct ip_address *out)
{
    struct ip_address address;
    memcpy(address.bytes, v4_prefix, sizeof v4_prefix);
    if (!parse_v4(text, len, address.bytes + sizeof v4_prefix) && !parse_v6(text, len, address.bytes))
        return BLOB_E_INVALID;
    *out = address;
    return BLOB_OK;
}

bool ip_is_v4(const struct ip_address *address)
{
    return memcmp(address->bytes, v4_prefix, sizeof v4_prefix) == 0;
}

struct ip_address ip_client(const struct ip_address *address)
{
    struct ip_address client = *address;
    if (!ip_is_v4(address))
        memset(client.bytes + 8, 0, IP_BYTES - 8);
    return client;
}

static bool prefix_equal(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    uint8_t mask = (uint8_t)(0xff00u >> rest);
    return memcmp(a, b, whole) == 0 && (rest == 0 || ((a[whole] ^ b[whole]) & mask) == 0);
}

static bool parse_network(const char *text, size_t len, struct ip_network *out)
{
    static const struct ip_address zero;
    const char *slash = memchr(text, '/', len);
    size_t address_len = slash ? (size_t)(slash - text) : len;
    if (ip_parse(text, address_len, &out->base) != BLOB_OK)
        return false;
    bool v4 = memchr(text, ':', address_len) == NULL;
    unsigned bits = v4 ? 32 : 128;
    if (slash) {
        size_t digits = len - address_len - 1;
        if (take_number(slash + 1, digits, bits, &bits) != digits || digits == 0)
            return false;
    }
    out->bits = v4 ? bits + 96 : bits;
    struct ip_address rest = out->base;
    for (unsigned i = 0; i < out->bits; i++)
        rest.bytes[i / 8] &= (uint8_t) ~(0x80u >> i % 8);
    return memcmp(rest.bytes, zero.bytes, IP_BYTES) == 0;
}

enum blob_status ip_networks_parse(const char *text, struct ip_networks **out)
{
    static const char between[] = " \t,";
    struct ip_networks *found = malloc(sizeof *found + IP_NETWORKS_MAX * sizeof found->list[0]);
    if (!found)
        return BLOB_E_NO_MEMORY;
    found->count = 0;
    for (text += strspn(text, between); *text; text += strspn(text, between)) {
        size_t len = strcspn(text, between);
        if (found->count == IP_NETWORKS_MAX || !parse_network(text, len, &found->list[found->count])) {
            free(found);
            return BLOB_E_INVALID;
        }
        found->count++;
        text += len;
    }
    if (found->count == 0) {
        free(found);
        found = NULL;
    }
    *out = found;
    return BLOB_OK;
}

bool ip_networks_have(const struct ip_networks *networks, const struct ip_address *address)
{
    for (size_t i = 0; networks && i < networks->count; i++)
        if (prefix_equal(networks->list[i].base.bytes, address->bytes, networks->list[i].bits))
            return true;
    return false;
}
