/*
 * parse_http - hand-written scanners over NUL-terminated text: each takes a cursor and moves it past what it took.
 * Lists follow RFC 9110 section 5.6.1: blanks around commas, and empty elements, are let pass.
 */
#include "core/text/parse_http.h"

#include "core/text/parse.h"

#include <string.h>
#include <strings.h>

/* ---- percent-encoding and queries ---- */

/* The byte that text[*i] stands for, encoded or not; -1 when it is broken. Moves *i past it. */
static int decode_one(const char *text, size_t len, size_t *i, bool plus_is_blank)
{
    char c = text[(*i)++];
    if (c == '+' && plus_is_blank)
        return ' ';
    if (c != '%')
        return c == '\0' ? -1 : (unsigned char)c;
    if (len - *i < 2)
        return -1;
    int high = parse_hex_digit(text[*i]);
    int low = parse_hex_digit(text[*i + 1]);
    *i += 2;
    return high < 0 || low < 0 || (high | low) == 0 ? -1 : high << 4 | low;
}

enum blob_status percent_decode(const char *text, size_t len, bool plus_is_blank, char *out, size_t size)
{
    size_t n = 0;
    bool plain = !memchr(text, '%', len) && !memchr(text, '\0', len) && !(plus_is_blank && memchr(text, '+', len));
    if (plain && len < size) {
        memcpy(out, text, len);
        out[len] = '\0';
        return BLOB_OK;
    }
    for (size_t i = 0; i < len;) {
        int byte = decode_one(text, len, &i, plus_is_blank);
        if (byte < 0)
            return BLOB_E_INVALID;
        if (n + 1 >= size)
            return BLOB_E_TOO_LARGE;
        out[n++] = (char)byte;
    }
    if (size == 0)
        return BLOB_E_TOO_LARGE;
    out[n] = '\0';
    return BLOB_OK;
}

/* Is the decoded name key? A name with broken encoding is no key of ours. */
static bool query_name_is(const char *name, size_t len, const char *key)
{
    size_t i = 0;
    while (i < len) {
        int byte = decode_one(name, len, &i, true);
        if (byte < 0 || (unsigned char)*key != byte)
            return false;
        key++;
    }
    return *key == '\0';
}

enum blob_status query_get(const char *query, const char *key, char *out, size_t size)
{
    const char *value = NULL;
    size_t value_len = 0;
    for (const char *p = query ? query : ""; *p;) {
        size_t pair_len = strcspn(p, "&");
        const char *equals = memchr(p, '=', pair_len);
        size_t name_len = equals ? (size_t)(equals - p) : pair_len;
        if (pair_len > 0 && query_name_is(p, name_len, key)) {
            if (value)
                return BLOB_E_INVALID;
            value = equals ? equals + 1 : p + pair_len;
            value_len = pair_len - (size_t)(value - p);
        }
        p += pair_len;
        p += *p == '&';
    }
    return value ? percent_decode(value, value_len, true, out, size) : BLOB_E_NOT_FOUND;
}

/* ---- lists ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

struct field_part field_whole(const char *value)
{
    return (struct field_part){.text = value, .len = value ? strlen(value) : 0};
}

/* How much stands before the separator, or the end. */
static size_t length_before(const struct field_part *part, char separator)
{
    bool quoted = false;
    for (size_t i = 0; i < part->len; i++) {
        char c = part->text[i];
        if (c == '"')
            quoted = !quoted;
        else if (c == '\\' && quoted)
            i++;
        else if (c == separator && !quoted)
            return i;
    }
    return part->len;
}

bool field_next(struct field_part *rest, char separator, struct field_part *element)
{
    if (!rest->text)
        return false;
    size_t len = length_before(rest, separator);
    *element = (struct field_part){.text = rest->text, .len = len};
    if (len < rest->len)
        *rest = (struct field_part){.text = rest->text + len + 1, .len = rest->len - len - 1};
    else
        *rest = (struct field_part){0};
    while (element->len > 0 && is_blank(element->text[0])) {
        element->text++;
        element->len--;
    }
    while (element->len > 0 && is_blank(element->text[element->len - 1]))
        element->len--;
    return true;
}

bool field_is(const struct field_part *part, const char *word)
{
    return strlen(word) == part->len && strncasecmp(part->text, word, part->len) == 0;
}

/* ---- ranges ---- */

static const char *skip_blanks(const char *p)
{
    return p + strspn(p, " \t");
}

/* 1*DIGIT; a number beyond 2^63-1 counts as that. Without a digit, nothing is touched. */
static bool take_number(const char **p, uint64_t *out)
{
    size_t digits = strspn(*p, "0123456789");
    uint64_t value = 0;
    for (size_t i = 0; i < digits; i++) {
        uint64_t digit = (uint64_t)((*p)[i] - '0');
        value = value > ((uint64_t)INT64_MAX - digit) / 10 ? (uint64_t)INT64_MAX : value * 10 + digit;
    }
    if (digits == 0)
        return false;
    *p += digits;
    *out = value;
    return true;
}

static bool take_char(const char **p, char c)
{
    if (**p != c)
        return false;
    (*p)++;
    return true;
}

/* One range-spec: int-range ("0-4", "7-") or suffix-range ("-5"), resolved against size. */
static enum range_kind take_range(const char **p, uint64_t size, uint64_t *first, uint64_t *last)
{
    uint64_t a = 0, b = (uint64_t)INT64_MAX;
    if (take_char(p, '-')) {
        if (!take_number(p, &b))
            return RANGE_MALFORMED;
        if (b == 0)
            return RANGE_UNSATISFIABLE;
        if (size == 0)
            return RANGE_WHOLE;
        *first = b < size ? size - b : 0;
        *last = size - 1;
        return RANGE_ONE;
    }
    if (!take_number(p, &a) || !take_char(p, '-') || (take_number(p, &b) && b < a))
        return RANGE_MALFORMED;
    if (**p != '\0' && strchr(", \t", **p) == NULL)
        return RANGE_MALFORMED;
    if (a >= size)
        return RANGE_UNSATISFIABLE;
    *first = a;
    *last = b < size ? b : size - 1;
    return RANGE_ONE;
}

enum range_kind range_parse(const char *field, uint64_t size, uint64_t *first, uint64_t *last)
{
    static const char unit[] = "bytes=";
    if (!field || strncasecmp(field, unit, sizeof unit - 1) != 0)
        return RANGE_WHOLE;
    const char *p = field + sizeof unit - 1;
    enum range_kind found = RANGE_UNSATISFIABLE;
    unsigned count = 0;
    uint64_t a = 0, b = 0;
    for (p = skip_blanks(p); *p; p = skip_blanks(p)) {
        if (take_char(&p, ','))
            continue;
        enum range_kind kind = take_range(&p, size, &a, &b);
        p = skip_blanks(p);
        if (kind == RANGE_MALFORMED || (*p != '\0' && *p != ','))
            return RANGE_MALFORMED;
        if (kind != RANGE_UNSATISFIABLE)
            found = kind;
        count++;
    }
    if (count == 0)
        return RANGE_MALFORMED;
    if (found == RANGE_UNSATISFIABLE || found == RANGE_WHOLE)
        return found;
    if (count > 1)
        return RANGE_SEVERAL;
    *first = a;
    *last = b;
    return RANGE_ONE;
}

/* Like take_number, but a number that does not fit is refused. */
static bool take_exact_number(const char **p, uint64_t *out)
{
    return take_number(p, out) && *out < (uint64_t)INT64_MAX;
}

enum blob_status content_range_parse(const char *field, struct content_range *out)
{
    static const char unit[] = "bytes ";
    struct content_range range = {0};
    const char *p = field;
    bool has_unit = strncasecmp(p, unit, sizeof unit - 1) == 0;
    if (has_unit)
        p += sizeof unit - 1;
    if (!take_exact_number(&p, &range.first) || !take_char(&p, '-') || !take_exact_number(&p, &range.last) ||
        range.last < range.first)
        return BLOB_E_INVALID;
    if (has_unit) {
        if (!take_char(&p, '/'))
            return BLOB_E_INVALID;
        range.has_total = !take_char(&p, '*');
        if (range.has_total && (!take_exact_number(&p, &range.total) || range.total <= range.last))
            return BLOB_E_INVALID;
    }
    if (*p != '\0')
        return BLOB_E_INVALID;
    *out = range;
    return BLOB_OK;
}

/* ---- entity tags ---- */

/* [W/]"opaque"; the text between the quotes, borrowed. */
static bool take_etag(const char **p, bool *weak, const char **opaque, size_t *len)
{
    *weak = strncmp(*p, "W/", 2) == 0;
    const char *q = *weak ? *p + 2 : *p;
    if (!take_char(&q, '"'))
        return false;
    const char *quote = strchr(q, '"');
    if (!quote)
        return false;
    *opaque = q;
    *len = (size_t)(quote - q);
    *p = quote + 1;
    return true;
}

static bool etag_matches(const char *opaque, size_t len, const char *ours)
{
    return strlen(ours) == len && memcmp(opaque, ours, len) == 0;
}

bool etag_list_has(const char *field, const char *ours, bool weak_comparison)
{
    if (!field)
        return false;
    const char *p = skip_blanks(field);
    if (*p == '*')
        return *skip_blanks(p + 1) == '\0';
    bool found = false;
    for (; *p; p = skip_blanks(p)) {
        if (take_char(&p, ','))
            continue;
        bool weak;
        const char *opaque;
        size_t len;
        if (!take_etag(&p, &weak, &opaque, &len))
            return false;
        p = skip_blanks(p);
        if (*p != '\0' && *p != ',')
            return false;
        if ((!weak || weak_comparison) && etag_matches(opaque, len, ours))
            found = true;
    }
    return found;
}

bool etag_is(const char *field, const char *ours)
{
    bool weak;
    const char *opaque, *p = field;
    size_t len;
    return field && take_etag(&p, &weak, &opaque, &len) && *p == '\0' && !weak && etag_matches(opaque, len, ours);
}
