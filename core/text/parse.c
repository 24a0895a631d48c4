/* parse - digits by hand, since strtoull takes signs, blanks and leftovers. */
#include "core/text/parse.h"

#include <stddef.h>
#include <string.h>

#define MAX_DURATION_MS (INT64_C(36525) * 24 * 3600 * 1000)

struct unit {
    const char *name;
    uint64_t factor;
};

/* The digits that text starts with, as a number up to max; *end is what follows. */
static bool parse_digits(const char *text, uint64_t max, uint64_t *out, const char **end)
{
    uint64_t value = 0;
    const char *p = text;
    for (; *p >= '0' && *p <= '9'; p++) {
        uint64_t digit = (uint64_t)(*p - '0');
        if (value > max / 10 || digit > max - value * 10)
            return false;
        value = value * 10 + digit;
    }
    *out = value;
    *end = p;
    return p > text;
}

enum blob_status parse_u64(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t value;
    const char *end;
    if (!parse_digits(text, max, &value, &end) || *end != '\0' || value < min)
        return BLOB_E_INVALID;
    *out = value;
    return BLOB_OK;
}

static enum blob_status parse_with_unit(const char *text, const struct unit *units, size_t count, uint64_t max,
                                        uint64_t *out)
{
    uint64_t value;
    const char *end;
    if (!parse_digits(text, max, &value, &end))
        return BLOB_E_INVALID;
    for (size_t i = 0; i < count; i++) {
        if (strcmp(end, units[i].name) != 0)
            continue;
        if (value > max / units[i].factor)
            return BLOB_E_INVALID;
        *out = value * units[i].factor;
        return BLOB_OK;
    }
    return BLOB_E_INVALID;
}

enum blob_status parse_duration_ms(const char *text, int64_t *out)
{
    static const struct unit units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    uint64_t value = 0;
    if (strcmp(text, "0") != 0 &&
        parse_with_unit(text, units, sizeof units / sizeof units[0], MAX_DURATION_MS, &value) != BLOB_OK)
        return BLOB_E_INVALID;
    *out = (int64_t)value;
    return BLOB_OK;
}

enum blob_status parse_size_bytes(const char *text, uint64_t *out)
{
    static const struct unit units[] = {{"", 1},
                                        {"K", UINT64_C(1) << 10},
                                        {"M", UINT64_C(1) << 20},
                                        {"G", UINT64_C(1) << 30},
                                        {"T", UINT64_C(1) << 40}};
    return parse_with_unit(text, units, sizeof units / sizeof units[0], INT64_MAX, out);
}

enum blob_status parse_bool(const char *text, bool *out)
{
    if (strcmp(text, "true") == 0 || strcmp(text, "1") == 0)
        *out = true;
    else if (strcmp(text, "false") == 0 || strcmp(text, "0") == 0)
        *out = false;
    else
        return BLOB_E_INVALID;
    return BLOB_OK;
}

static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int parse_hex_digit(char c)
{
    return hex_digit(c);
}

enum blob_status parse_hex(const char *text, size_t n, uint8_t *out)
{
    for (size_t i = 0; i < n; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high < 0 ? -1 : hex_digit(text[2 * i + 1]);
        if (low < 0)
            return BLOB_E_INVALID;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return BLOB_OK;
}
