/*
 * file_record - conversions only, no stores. What is read back is judged as strictly as what a client sends: a record
 * may have been damaged or edited, and nothing behind this file checks a length again.
 *
 * Number: ~(created_ms << 22 | 22 bits of the upload's UUID). 42 bits of milliseconds last until the year 2109; the 22
 * bits tell uploads of one millisecond apart, of which only those with equal content share a prefix at all.
 */
#include "core/files/file_record.h"

#include "core/check.h"
#include "core/files/media_type.h"
#include "core/text/base64url.h"
#include "core/text/parse.h"
#include "core/text/rfc3339.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_UUID_BITS 22
#define NUMBER_HEX_CHARS 16
#define ID_BYTES         (DIGEST_BYTES + 8)

_Static_assert(BASE64URL_CHARS(ID_BYTES) < FILE_ID_MAX, "an id fits its place");
_Static_assert(sizeof FILE_KEY_ROOT - 1 + DIGEST_HEX_CHARS + 1 == FILE_PREFIX_CHARS, "the prefix fits its place");

/* Keys are written in lower case, and one that is not is nobody's. */
static int lower_hex_digit(char c)
{
    return c >= 'A' && c <= 'F' ? -1 : parse_hex_digit(c);
}

uint64_t file_number(int64_t created_ms, const struct uuid *upload)
{
    CHECK(created_ms >= 0);
    uint64_t bits = 0;
    for (const char *c = upload->text; *c; c++) {
        if (lower_hex_digit(*c) >= 0) /* the last digits of a UUIDv4 are random, the first need not be */
            bits = bits << 4 | (unsigned)lower_hex_digit(*c);
    }
    bits &= (UINT64_C(1) << NUMBER_UUID_BITS) - 1;
    return ~((uint64_t)created_ms << NUMBER_UUID_BITS | bits);
}

/* ---- ids and keys ---- */

void file_id_make(struct file_record *file)
{
    uint8_t raw[ID_BYTES];
    memcpy(raw, file->digest.bytes, DIGEST_BYTES);
    for (int i = 0; i < 8; i++)
        raw[DIGEST_BYTES + i] = (uint8_t)(file->number >> (56 - 8 * i));
    base64url_encode(raw, sizeof raw, file->id);
}

enum blob_status file_id_parse(const char *id, struct digest *digest, uint64_t *number)
{
    uint8_t raw[ID_BYTES];
    if (base64url_decode(id, raw, sizeof raw) != BLOB_OK)
        return BLOB_E_INVALID;
    memcpy(digest->bytes, raw, DIGEST_BYTES);
    uint64_t n = 0;
    for (int i = 0; i < 8; i++)
        n = n << 8 | raw[DIGEST_BYTES + i];
    *number = n;
    return BLOB_OK;
}

void file_prefix_make(const struct digest *digest, char out[FILE_PREFIX_CHARS + 1])
{
    memcpy(out, FILE_KEY_ROOT, sizeof FILE_KEY_ROOT - 1);
    digest_hex(digest, out + sizeof FILE_KEY_ROOT - 1);
    memcpy(out + FILE_PREFIX_CHARS - 1, "/", 2);
}

void file_key_make(const struct digest *digest, uint64_t number, char out[FILE_KEY_CHARS + 1])
{
    file_prefix_make(digest, out);
    snprintf(out + FILE_PREFIX_CHARS, NUMBER_HEX_CHARS + 1, "%016llx", (unsigned long long)number);
}

enum blob_status file_key_parse(const char *key, struct digest *digest, uint64_t *number)
{
    const size_t root = sizeof FILE_KEY_ROOT - 1;
    if (strlen(key) != FILE_KEY_CHARS || memcmp(key, FILE_KEY_ROOT, root) != 0 || key[FILE_PREFIX_CHARS - 1] != '/')
        return BLOB_E_INVALID;
    struct digest d;
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        int high = lower_hex_digit(key[root + 2 * i]), low = lower_hex_digit(key[root + 2 * i + 1]);
        if (high < 0 || low < 0)
            return BLOB_E_INVALID;
        d.bytes[i] = (uint8_t)(high << 4 | low);
    }
    uint64_t n = 0;
    for (const char *c = key + FILE_PREFIX_CHARS; *c; c++) {
        if (lower_hex_digit(*c) < 0)
            return BLOB_E_INVALID;
        n = n << 4 | (unsigned)lower_hex_digit(*c);
    }
    *digest = d;
    *number = n;
    return BLOB_OK;
}

/* ---- JSON ---- */

static bool set_time(json_t *object, const char *member, int64_t time_ms)
{
    char text[RFC3339_CHARS + 1];
    rfc3339_format(time_ms, text);
    return json_object_set_new(object, member, json_string(text)) == 0;
}

enum blob_status file_record_encode(const struct file_record *file, char **json, size_t *len, struct blob_error *err)
{
    CHECK(file->size <= INT64_MAX);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(&file->digest, hex);
    enum blob_status st = BLOB_OK;
    char *text = NULL;
    json_t *object = json_pack("{ss ss ss sI ss sb ss}", "id", file->id, "name", file->name, "digest", hex, "size",
                               (json_int_t)file->size, "media_type", file->media_type, "temporary", file->temporary,
                               "upload", file->upload.text);
    if (!object) {
        st = blob_fail(err, BLOB_E_INVALID, 0, "file record %s: a text is not UTF-8, or no memory", file->id);
        goto out;
    }
    if (!set_time(object, "created_at", file->created_ms) ||
        (file->expires_ms && !set_time(object, "expires_at", file->expires_ms)) ||
        (file->owner[0] && json_object_set_new(object, "owner", json_string(file->owner)) != 0) ||
        !(text = json_dumps(object, JSON_COMPACT))) {
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "file record %s", file->id);
        goto out;
    }
    *len = strlen(text);
    *json = text;
out:
    json_decref(object);
    return st;
}

/* Copies a string member into a place of `size` chars. */
static bool get_text(const json_t *object, const char *member, bool required, char *out, size_t size)
{
    const json_t *value = json_object_get(object, member);
    if (!value && !required) {
        out[0] = '\0';
        return true;
    }
    /* jansson has refused \u0000 while parsing, so that the text ends where its length says. */
    if (!json_is_string(value) || json_string_length(value) >= size)
        return false;
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return true;
}

static bool get_time(const json_t *object, const char *member, bool required, int64_t *out)
{
    char text[RFC3339_CHARS + 1];
    if (!get_text(object, member, required, text, sizeof text))
        return false;
    if (!text[0] && !required) {
        *out = 0;
        return true;
    }
    return rfc3339_parse(text, out) == BLOB_OK;
}

/* Everything but digest, number and id, which the key tells. */
static bool decode_members(const json_t *object, struct file_record *f)
{
    const json_t *size = json_object_get(object, "size"), *temporary = json_object_get(object, "temporary");
    char upload[UUID_CHARS + 1];
    if (!json_is_integer(size) || json_integer_value(size) < 0 || !json_is_boolean(temporary))
        return false;
    f->size = (uint64_t)json_integer_value(size);
    f->temporary = json_is_true(temporary);
    return get_text(object, "name", true, f->name, sizeof f->name) &&
           get_text(object, "media_type", true, f->media_type, sizeof f->media_type) &&
           get_text(object, "owner", false, f->owner, sizeof f->owner) &&
           get_time(object, "created_at", true, &f->created_ms) &&
           get_time(object, "expires_at", false, &f->expires_ms) &&
           get_text(object, "upload", true, upload, sizeof upload) && uuid_parse(upload, &f->upload) == BLOB_OK;
}

enum blob_status file_record_decode(const struct digest *digest, uint64_t number, const void *json, size_t len,
                                    struct file_record *out, struct blob_error *err)
{
    struct file_record f = {.digest = *digest, .number = number};
    file_id_make(&f);
    char hex[DIGEST_HEX_CHARS + 1], stored_id[FILE_ID_MAX], stored_hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    enum blob_status st = BLOB_OK;
    json_error_t where;
    json_t *object = json_loadb(json, len, JSON_REJECT_DUPLICATES, &where);
    if (!object)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "file record %s: %s", f.id, where.text);
    else if (!json_is_object(object) || !decode_members(object, &f))
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "file record %s: a member is missing or malformed", f.id);
    else if (!get_text(object, "id", true, stored_id, sizeof stored_id) || strcmp(stored_id, f.id) != 0 ||
             !get_text(object, "digest", true, stored_hex, sizeof stored_hex) || strcmp(stored_hex, hex) != 0)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "file record %s: holds another file", f.id);
    else
        *out = f;
    json_decref(object);
    return st;
}
