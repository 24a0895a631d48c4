/* upload_record - the JSON of uploads/<id>. Times are milliseconds since the epoch: nobody but blobd reads them. */
#include "core/session/upload_record.h"

#include "core/check.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

void upload_record_key(const struct uuid *id, char key[RECORD_KEY_MAX])
{
    snprintf(key, RECORD_KEY_MAX, "%s%s", UPLOAD_RECORD_PREFIX, id->text);
}

enum blob_status upload_record_id(const char *key, struct uuid *id)
{
    size_t prefix = strlen(UPLOAD_RECORD_PREFIX);
    if (strncmp(key, UPLOAD_RECORD_PREFIX, prefix) != 0)
        return BLOB_E_INVALID;
    return uuid_parse(key + prefix, id);
}

static void add_hex(struct bytebuf *out, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        bytebuf_u8(out, (uint8_t)digits[bytes[i] >> 4]);
        bytebuf_u8(out, (uint8_t)digits[bytes[i] & 15]);
    }
}

static bool get_hex(const char *text, uint8_t *out, size_t len)
{
    if (!text || strlen(text) != 2 * len)
        return false;
    for (size_t i = 0; i < 2 * len; i++) {
        char c = text[i];
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (v < 0)
            return false;
        out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] << 4 | v : v);
    }
    return true;
}

void upload_record_encode(const struct session *s, struct bytebuf *out)
{
    bytebuf_printf(out, "{\"v\":1,\"id\":\"%s\",\"created\":%" PRId64 ",\"temporary\":%s,\"filename\":", s->id.text,
                   s->created_ms, s->temporary ? "true" : "false");
    bytebuf_json_string(out, s->filename);
    bytebuf_text(out, ",\"owner\":");
    bytebuf_json_string(out, s->owner);
    bytebuf_text(out, ",\"key\":\"");
    add_hex(out, s->token_key, sizeof s->token_key);
    bytebuf_text(out, "\"");
    if (s->state != SESSION_OPEN) {
        char hex[DIGEST_HEX_CHARS + 1];
        digest_hex(&s->digest, hex);
        bytebuf_printf(
            out, ",\"completing\":%" PRId64 ",\"size\":%" PRIu64 ",\"digest\":\"%s\",\"number\":\"%016" PRIx64 "\"",
            s->completed_ms, s->mark.offset, hex, s->file_number);
        if (s->file_gone)
            bytebuf_text(out, ",\"gone\":true");
    }
    bytebuf_text(out, "}");
}

static bool get_text(const json_t *root, const char *key, char *out, size_t cap)
{
    const char *text = json_string_value(json_object_get(root, key));
    if (!text || strlen(text) >= cap)
        return false;
    snprintf(out, cap, "%s", text);
    return true;
}

/* A number that is not there, or negative, is damage: nothing here is ever less than 0. */
static bool get_count(const json_t *root, const char *key, int64_t *out)
{
    const json_t *value = json_object_get(root, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = json_integer_value(value);
    return true;
}

static bool get_completion(const json_t *root, struct session *s)
{
    const char *digest = json_string_value(json_object_get(root, "digest"));
    uint8_t number[8];
    int64_t size;
    if (!get_count(root, "size", &size) || !get_count(root, "completing", &s->completed_ms))
        return false;
    if (!digest || digest_parse(digest, &s->digest) != BLOB_OK ||
        !get_hex(json_string_value(json_object_get(root, "number")), number, sizeof number))
        return false;
    for (size_t i = 0; i < sizeof number; i++)
        s->file_number = s->file_number << 8 | number[i];
    s->state = SESSION_COMPLETING;
    s->mark.offset = (uint64_t)size;
    s->file_gone = json_is_true(json_object_get(root, "gone"));
    return true;
}

enum blob_status upload_record_decode(const void *data, size_t len, struct session *out)
{
    struct session s;
    char id[UUID_CHARS + 1];
    memset(&s, 0, sizeof s);
    json_t *root = json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL);
    bool ok = json_is_object(root) && json_integer_value(json_object_get(root, "v")) == 1 &&
              get_text(root, "id", id, sizeof id) && uuid_parse(id, &s.id) == BLOB_OK &&
              get_text(root, "filename", s.filename, sizeof s.filename) &&
              get_text(root, "owner", s.owner, sizeof s.owner) &&
              get_hex(json_string_value(json_object_get(root, "key")), s.token_key, sizeof s.token_key) &&
              get_count(root, "created", &s.created_ms);
    if (ok) {
        s.temporary = json_is_true(json_object_get(root, "temporary"));
        if (json_object_get(root, "completing"))
            ok = get_completion(root, &s);
    }
    json_decref(root);
    if (!ok)
        return BLOB_E_CORRUPT;
    hash_init(&s.hash);
    hash_init(&s.chunk.before);
    s.append_from = NO_APPEND;
    *out = s;
    return BLOB_OK;
}

enum blob_status upload_record_note_gone(struct blob_store *store, const struct uuid *id, struct blob_error *err)
{
    char key[RECORD_KEY_MAX];
    struct bytebuf value;
    struct session s;
    upload_record_key(id, key);
    bytebuf_init(&value);
    enum blob_status st = record_get(store, key, &value, err);
    /* A damaged one leads no repeat to anything. */
    if (st == BLOB_OK && upload_record_decode(value.data, value.len, &s) == BLOB_OK && s.state != SESSION_OPEN &&
        !s.file_gone) {
        s.file_gone = true;
        bytebuf_clear(&value);
        upload_record_encode(&s, &value);
        st = value.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for an upload record")
                          : record_put(store, key, value.data, value.len, BLOB_LAZY, err);
    }
    bytebuf_release(&value);
    return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
}
