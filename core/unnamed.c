/* unnamed - one tiny record a mark; its value says nothing, its key all. */
#include "core/unnamed.h"

#include <string.h>

#define ROOT       "unnamed/"
#define ROOT_CHARS (sizeof ROOT - 1)
#define KEY_CHARS  (ROOT_CHARS + DIGEST_HEX_CHARS)

static void key_make(const struct digest *digest, char key[KEY_CHARS + 1])
{
    memcpy(key, ROOT, ROOT_CHARS);
    digest_hex(digest, key + ROOT_CHARS);
}

enum blob_status unnamed_mark(struct blob_store *store, const struct digest *digest, struct blob_error *err)
{
    char key[KEY_CHARS + 1];
    key_make(digest, key);
    return record_put(store, key, "{}", 2, BLOB_LAZY, err);
}

enum blob_status unnamed_is_marked(struct blob_store *store, const struct digest *digest, bool *marked,
                                   struct blob_error *err)
{
    char key[KEY_CHARS + 1];
    key_make(digest, key);
    struct bytebuf value;
    bytebuf_init(&value);
    enum blob_status st = record_get(store, key, &value, err);
    bytebuf_release(&value);
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        return st;
    *marked = st == BLOB_OK;
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
    (void)value;
    (void)len;
    const struct listing *l = arg;
    struct digest digest;
    return digest_parse(key + ROOT_CHARS, &digest) != BLOB_OK || l->fn(&digest, l->arg);
}

enum blob_status unnamed_list(struct blob_store *store, unnamed_list_fn *fn, void *arg, struct blob_error *err)
{
    struct listing l = {fn, arg};
    return record_list(store, ROOT, NULL, 0, false, pass_on, &l, err);
}
