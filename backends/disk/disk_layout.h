/*
 * disk_layout - where things are under the root of a disk store, and what they are called there.
 *
 *     store.json                      format and store id
 *     lock                            who uses the store; see disk_store.c
 *     uploads/<aa>/<id>               staged bytes, named by the upload's UUID
 *     blobs/<aa>/<bb>/<hex>           finished content, named by its SHA-256; its mtime is when it was last touched
 *     records/<class>/<abc>/<name>    one file a record: key "class/rest", whose '/' in rest become ','
 *     tmp/<tag>.<number>              files on their way to another name
 *     damaged/<hex>[.<n>]             content that is not what its name says: found by recovery, or by reading it
 *     journal/<nn>                    see disk_journal.h
 *
 * <abc> is what the first three characters of <name> are: at most 4096 directories for a class named by hex, so that
 * a store of few records does not pay a directory for each, and the listing of "files/<digest>/" still reads one
 * directory only. ',' is no key character, so the mapping can be turned round. All keys in one <abc> share these
 * characters; so ordered by key, the directories do not overlap.
 *
 * The directories that others are made in (uploads, blobs, records/<class>) ask the file system to spread these: see
 * dir_spread().
 *
 * Threads: any. Ownership: results go to the caller's buffers.
 */
#ifndef BLOBD_BACKENDS_DISK_DISK_LAYOUT_H
#define BLOBD_BACKENDS_DISK_DISK_LAYOUT_H

#include "core/blob_store.h"

#define DISK_PATH_MAX    240 /* the longest is a record's: RECORD_KEY_MAX and the parts around it */
#define DISK_SHARD_CHARS 3
#define DISK_STORE_FILE  "store.json"
#define DISK_LOCK_FILE   "lock"
#define DISK_UPLOADS     "uploads"
#define DISK_BLOBS       "blobs"
#define DISK_RECORDS     "records"
#define DISK_TMP         "tmp"
#define DISK_DAMAGED     "damaged"
#define DISK_JOURNAL     "journal"

struct disk_path {
    char text[DISK_PATH_MAX];
};

void disk_upload_path(const struct uuid *id, struct disk_path *out);
void disk_blob_path(const struct digest *digest, struct disk_path *out);
void disk_record_path(const char *key, struct disk_path *out);

/* "class/rest" from a class and a file name; false when it is none of ours. */
bool disk_record_key(const char *class, const char *name, char key[RECORD_KEY_MAX + 1]);
/* Compares file or directory names of records by the keys they stand for. */
int disk_record_name_compare(const char *a, const char *b);

#endif
