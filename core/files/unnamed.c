/* unnamed - one tiny record a mark: its key says which blob, its value as of when. */
#include "core/files/unnamed.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ROOT       "unnamed/"
#define ROOT_CHARS (sizeof ROOT - 1)
#define KEY_CHARS  (ROOT_CHARS + DIGEST_HEX_CHARS)
#define VALUE_MAX  64

static void key_make(const struct digest *digest, char key[KEY_CHARS + 1])
{
    memcpy(key, ROOT, ROOT_CHARS);
    digest_hex(digest, key + ROOT_CHARS);
}

static int64_t value_parse(const void *value, size_t len)
{
    char text[VALUE_MAX];
    int64_t touched_ms;
    int end = 0;
    if (len >= sizeof text)
        return UNNAMED_UNKNOWN;
    memcpy(text, value, len);
    text[len] = '\0';
    return sscanf(text, "{\"touched_ms\":%" SCNd64 "}%n", &touched_ms, &end) == 1 && (size_t)end == len
               ? touched_ms
               : UNNAMED_UNKNOWN;
}

enum blob_status unnamed_mark(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                              struct blob_error *err)
{
    char key[KEY_CHARS + 1], value[VALUE_MAX];
    key_make(digest, key);
    int len = snprintf(value, sizeof value, "{\"touched_ms\":%" PRId64 "}", touched_ms);
    return record_put(store, key, value, (size_t)len, BLOB_LAZY, err);
}

enum blob_status unnamed_is_marked(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                                   bool *marked, struct blob_error *err)
{
    char key[KEY_CHARS + 1];
    key_make(digest, key);
    struct bytebuf value;
    bytebuf_init(&value);
    enum blob_status st = record_get(store, key, &value, err);
    bool holds = st == BLOB_OK && !value.failed && value_parse(value.data, value.len) == touched_ms;
    bytebuf_release(&value);
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        return st;
    *marked = holds;
    return BLOB_OK;
}

enum blob_status unnamed_clear(struct blob_store *store, const struct digest *digest, struct blob_error *err)
{
    char key[KEY_CHARS + 1];
    key_make(digest, key);
    return record_delete(store, key, BLOB_LAZY, err);
}

struct listing {
    unnamed_list_fn *fn;
    void *arg;
};

static bool pass_on(const char *key, const void *value, size_t len, void *arg)
{
    const struct listing *l = arg;
    struct digest digest;
    return digest_parse(key + ROOT_CHARS, &digest) != BLOB_OK || l->fn(&digest, value_parse(value, len), l->arg);
}

enum blob_status unnamed_list(struct blob_store *store, unnamed_list_fn *fn, void *arg, struct blob_error *err)
{
    struct listing l = {fn, arg};
    return record_list(store, ROOT, NULL, 0, true, pass_on, &l, err);
}
