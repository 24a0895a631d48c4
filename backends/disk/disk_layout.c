/* disk_layout - the two mappings between the names of the contract and the names on disk. */
#include "backends/disk/disk_layout.h"

#include "core/check.h"

#include <stdio.h>
#include <string.h>

void disk_upload_path(const struct uuid *id, struct disk_path *out)
{
    snprintf(out->text, sizeof out->text, DISK_UPLOADS "/%.2s/%s", id->text, id->text);
}

void disk_blob_path(const struct digest *digest, struct disk_path *out)
{
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    snprintf(out->text, sizeof out->text, DISK_BLOBS "/%.2s/%.2s/%s", hex, hex + 2, hex);
}

void disk_record_path(const char *key, struct disk_path *out)
{
    const char *slash = strchr(key, '/');
    CHECK(slash);
    char name[RECORD_KEY_MAX + 1];
    size_t len = strlen(slash + 1);
    CHECK(len < sizeof name);
    for (size_t i = 0; i <= len; i++)
        name[i] = slash[1 + i] == '/' ? ',' : slash[1 + i];
    int n = snprintf(out->text, sizeof out->text, DISK_RECORDS "/%.*s/%.*s/%s", (int)(slash - key), key,
                     DISK_SHARD_CHARS, name, name);
    CHECK(n > 0 && (size_t)n < sizeof out->text);
}

bool disk_record_key(const char *class, const char *name, char key[RECORD_KEY_MAX + 1])
{
    size_t class_len = strlen(class), len = strlen(name);
    if (class_len + 1 + len > RECORD_KEY_MAX)
        return false;
    char built[RECORD_KEY_MAX + 1];
    memcpy(built, class, class_len);
    built[class_len] = '/';
    for (size_t i = 0; i <= len; i++)
        built[class_len + 1 + i] = name[i] == ',' ? '/' : name[i];
    if (!record_key_valid(built))
        return false;
    memcpy(key, built, class_len + 1 + len + 1);
    return true;
}

int disk_record_name_compare(const char *a, const char *b)
{
    for (;; a++, b++) {
        unsigned char x = (unsigned char)(*a == ',' ? '/' : *a), y = (unsigned char)(*b == ',' ? '/' : *b);
        if (x != y)
            return x < y ? -1 : 1;
        if (x == '\0')
            return 0;
    }
}
