/*
 * file_record - one file: its value in memory, its key and JSON in the blob store, its opaque id.
 *
 * Key: files/<digest, 64 hex>/<number, 16 hex>. Numbers fall as time goes on, so that the newest file of a blob is the
 * first in a listing of its prefix. The id is base64url(digest, number, big-endian): an id finds its record without
 * an index. The JSON is one small object, compact:
 *     {"id":…,"name":…,"digest":<hex>,"size":N,"media_type":…,"temporary":B,"created_at":<RFC 3339>,
 *      "expires_at":<RFC 3339, left out: never>,"owner":<left out: unknown>,"upload":<UUID>}
 * Members it does not know are ignored, so that a later version may add some.
 *
 * Threads: plain values.
 */
#ifndef BLOBD_CORE_FILES_FILE_RECORD_H
#define BLOBD_CORE_FILES_FILE_RECORD_H

#include "core/digest.h"
#include "core/session_store.h"
#include "core/uuid.h"

#include <stddef.h>
#include <stdint.h>

#define MEDIA_TYPE_MAX 127

struct file_record {
    char id[FILE_ID_MAX];
    char name[FILE_NAME_MAX + 1]; /* "" where the client gave none */
    char owner[OWNER_MAX + 1];    /* "" where unknown */
    char media_type[MEDIA_TYPE_MAX + 1];
    struct digest digest;
    uint64_t number;
    uint64_t size;
    bool temporary;
    int64_t created_ms;
    int64_t expires_ms; /* 0: never */
    struct uuid upload; /* the upload that made it: a repeated completion finds its own record */
};

/* The number of a file of an upload created at created_ms: the same however often completion is tried. */
uint64_t file_number(int64_t created_ms, const struct uuid *upload);
/* Fills file->id from digest and number. */
void file_id_make(struct file_record *file);
/* INVALID: not an id. */
enum blob_status file_id_parse(const char *id, struct digest *digest, uint64_t *number) BLOB_MUST_CHECK;

#define FILE_KEY_ROOT     "files/"
#define FILE_PREFIX_CHARS (6 + DIGEST_HEX_CHARS + 1)
#define FILE_KEY_CHARS    (FILE_PREFIX_CHARS + 16)

/* "files/<hex>/" */
void file_prefix_make(const struct digest *digest, char out[FILE_PREFIX_CHARS + 1]);
void file_key_make(const struct digest *digest, uint64_t number, char out[FILE_KEY_CHARS + 1]);
/* INVALID: not the key of a file record, spelt as file_key_make() spells it. */
enum blob_status file_key_parse(const char *key, struct digest *digest, uint64_t *number) BLOB_MUST_CHECK;

/* Gives the JSON (free() it). NO_MEMORY; INVALID: a text in file is not UTF-8. */
enum blob_status file_record_encode(const struct file_record *file, char **json, size_t *len,
                                    struct blob_error *err) BLOB_MUST_CHECK;
/* digest and number are the key's. CORRUPT: not a record, or another file's. */
enum blob_status file_record_decode(const struct digest *digest, uint64_t number, const void *json, size_t len,
                                    struct file_record *out, struct blob_error *err) BLOB_MUST_CHECK;

#endif
