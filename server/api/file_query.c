/* file_query - a parameter given twice, or out of bounds, is refused rather than guessed at. */
#include "server/api/file_query.h"

#include "core/text/parse.h"
#include "core/text/parse_http.h"
#include "core/text/utf8.h"

#include <string.h>
#include <strings.h>

#define TOP_MAX 100

static enum api_code parse_number(const char *query, const char *key, uint64_t min, uint64_t max, uint64_t *value,
                                  struct api_error *err)
{
    char text[24];
    enum blob_status st = query_get(query, key, text, sizeof text);
    if (st == BLOB_E_NOT_FOUND)
        return API_OK;
    if (st != BLOB_OK || parse_u64(text, min, max, value) != BLOB_OK)
        return api_fail_field(err, API_VALIDATE_FAILED, key, "%s is given once, as a number from %llu to %llu", key,
                              (unsigned long long)min, (unsigned long long)max);
    return API_OK;
}

static bool word_is(const char *word, size_t len, const char *text)
{
    return strlen(text) == len && strncasecmp(word, text, len) == 0;
}

/* "name", "name asc" or "name desc"; false for anything else. */
static bool parse_order(const char *text, size_t len, struct index_order *out)
{
    static const struct {
        const char *name;
        enum index_key key;
    } keys[] = {{"name", INDEX_BY_NAME}, {"size", INDEX_BY_SIZE}, {"created_at", INDEX_BY_CREATED}};
    while (len > 0 && text[len - 1] == ' ')
        len--;
    while (len > 0 && *text == ' ') {
        text++;
        len--;
    }
    const char *blank = memchr(text, ' ', len);
    size_t name_len = blank != NULL ? (size_t)(blank - text) : len;
    const char *direction = text + name_len;
    while (direction < text + len && *direction == ' ')
        direction++;
    size_t direction_len = (size_t)(text + len - direction);
    out->descending = word_is(direction, direction_len, "desc");
    if (direction_len > 0 && !out->descending && !word_is(direction, direction_len, "asc"))
        return false;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (word_is(text, name_len, keys[i].name)) {
            out->key = keys[i].key;
            return true;
        }
    }
    return false;
}

static bool parse_orders(const char *text, struct index_query *q)
{
    q->orders = 0;
    for (const char *p = text;; p++) {
        size_t len = strcspn(p, ",");
        struct index_order order;
        if (q->orders == INDEX_ORDER_MAX || !parse_order(p, len, &order))
            return false;
        for (unsigned i = 0; i < q->orders; i++) {
            if (q->order[i].key == order.key)
                return false;
        }
        q->order[q->orders++] = order;
        p += len;
        if (*p == '\0')
            return true;
    }
}

static enum api_code parse_orderby(const char *query, struct index_query *q, struct api_error *err)
{
    char text[128];
    enum blob_status st = query_get(query, "orderby", text, sizeof text);
    if (st == BLOB_E_NOT_FOUND)
        return API_OK;
    if (st != BLOB_OK || !parse_orders(text, q))
        return api_fail_field(err, API_VALIDATE_FAILED, "orderby",
                              "orderby is name, size or created_at, each once, with asc or desc, comma-separated");
    return API_OK;
}

static enum api_code parse_search(const char *query, struct file_query *out, struct api_error *err)
{
    enum blob_status st = query_get(query, "search", out->search, sizeof out->search);
    if (st == BLOB_E_NOT_FOUND)
        return API_OK;
    if (st != BLOB_OK || !utf8_valid(out->search, strlen(out->search)))
        return api_fail_field(err, API_VALIDATE_FAILED, "search", "search is given once, as at most %d bytes of UTF-8",
                              FILE_NAME_MAX);
    if (out->search[0] != '\0')
        out->index.search = out->search;
    return API_OK;
}

enum api_code file_query_parse(const char *query, struct file_query *out, struct api_error *err)
{
    char unused[1];
    uint64_t top = TOP_MAX;
    memset(out, 0, sizeof *out);
    out->index.orders = 1;
    out->index.order[0] = (struct index_order){.key = INDEX_BY_CREATED};
    if (query_get(query, "filter", unused, sizeof unused) != BLOB_E_NOT_FOUND)
        return api_fail_field(err, API_VALIDATE_FAILED, "filter", "filter is not supported; use search");
    enum api_code code = parse_number(query, "top", 1, TOP_MAX, &top, err);
    if (code == API_OK)
        code = parse_number(query, "skip", 0, INT64_MAX, &out->index.skip, err);
    if (code == API_OK)
        code = parse_orderby(query, &out->index, err);
    if (code == API_OK)
        code = parse_search(query, out, err);
    out->index.top = (unsigned)top;
    return code;
}
