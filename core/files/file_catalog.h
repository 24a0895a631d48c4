/*
 * file_catalog - file records: which files exist, by what name, naming which blob.
 *
 * A record is one JSON value in the blob store (file_record.h says its key and form). The record decides: a file exists
 * from the moment its record is durable until it is deleted. Listings come from the session store's index, which this
 * process repairs where it failed to write a row, and rebuilds from the records where it is not whole.
 *
 * Threads: every function from any (worker) thread: all may block. Ownership: the catalog borrows its stores.
 * Errors: as the stores'; a damaged record reads as CORRUPT, is logged, and hides only itself.
 */
#ifndef BLOBD_CORE_FILES_FILE_CATALOG_H
#define BLOBD_CORE_FILES_FILE_CATALOG_H

#include "core/blob_store.h"
#include "core/files/file_record.h"
#include "core/files/media_type.h"
#include "core/identity.h"
#include "core/session_store.h"

#include <stdatomic.h>

struct logger;
struct file_catalog;

struct file_catalog *file_catalog_new(struct blob_store *store, struct session_store *sessions, struct logger *log);
void file_catalog_free(struct file_catalog *c);
/* fn is told the digest whenever this process has added or removed a file of it, before the change is answered to
 * anybody; on the changing thread, no lock held. One watcher, set before the catalog is used by others. */
typedef void file_watch_fn(const struct digest *digest, void *arg);
void file_catalog_watch(struct file_catalog *c, file_watch_fn *fn, void *arg);

/*
 * Writes the record of a completed upload and its index row. The caller fills all of file but its id, number by
 * file_number(), and has committed or touched the blob just before (see janitor.h). Idempotent: the record of the
 * same upload is found again and given back in *file, whatever number it got; a number taken by another upload's
 * file is counted down until a free one is found. flags: BLOB_LAZY as in the store. The index row is best effort: its
 * failure is logged, and the row repaired by the next file_catalog_heal_index().
 */
enum blob_status file_catalog_add(struct file_catalog *c, struct file_record *file, unsigned flags,
                                  struct blob_error *err) BLOB_MUST_CHECK;
/*
 * The same in two halves, for who can put the row along with another change: the record is written, and the row is the
 * caller's to put (row->put; its row is NULL where the file was made by an earlier try and is listed already), who then
 * says what became of it. end frees what begin made; it is called once after every begin that went well.
 */
struct file_row {
    struct index_put put;
    struct index_row row;
    char *json;
};
enum blob_status file_catalog_add_begin(struct file_catalog *c, struct file_record *file, unsigned flags,
                                        struct file_row *row, struct blob_error *err) BLOB_MUST_CHECK;
void file_catalog_add_end(struct file_catalog *c, const struct file_record *file, struct file_row *row);
/* The file that file_catalog_add() has made of this upload, number being what it was given then. NOT_FOUND: it has not,
 * or the file was destroyed. */
enum blob_status file_catalog_find(struct file_catalog *c, const struct digest *digest, uint64_t number,
                                   const struct uuid *upload, struct file_record *out,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Puts the row of a file so found, whose maker may have been cut off before it did; best effort as above. */
void file_catalog_list_again(struct file_catalog *c, const struct file_record *file);
/* NOT_FOUND: no such file, or one of another owner. INVALID: not an id. Expired files are not found. */
enum blob_status file_catalog_get(struct file_catalog *c, const char *id, const struct identity *who,
                                  struct file_record *out, struct blob_error *err) BLOB_MUST_CHECK;
/* The newest file that names a blob. NOT_FOUND: none does, so the blob is not served. */
enum blob_status file_catalog_newest(struct file_catalog *c, const struct digest *digest, struct file_record *out,
                                     struct blob_error *err) BLOB_MUST_CHECK;

/* So many owners of names of their own are told, where a blob has no more files than that. */
#define NAMING_OWNERS 8

/* What a download of a blob is called. */
struct file_naming {
    struct file_record file; /* the newest of the asking identity, where it has one, else the first of the blob */
    bool personal;           /* the former, and it is not the latter */
    bool all_told;           /* who else would get another file than the first: the owners, hashed; else not known */
    unsigned owner_count;
    uint64_t owners[NAMING_OWNERS];
};

/* owner: the asking identity's name, or NULL where it is not known. Reads the keys of the blob's files, and of the
 * files themselves no more than the NAMING_READS first and newest where one of these counts. NOT_FOUND: as above. */
#define NAMING_READS 64
enum blob_status file_catalog_name(struct file_catalog *c, const struct digest *digest, const char *owner,
                                   struct file_naming *out, struct blob_error *err) BLOB_MUST_CHECK;
/* As in file_naming. */
uint64_t file_naming_hash(const char *owner);
/* Has any node added a file of this blob within the last INDEX_RECENT_MS? OK: one has, or perhaps one earlier.
 * NOT_FOUND: none, or there is no other node. UNAVAILABLE. Cheap. */
enum blob_status file_catalog_added_lately(struct file_catalog *c, const struct digest *digest,
                                           struct blob_error *err) BLOB_MUST_CHECK;
/* Does any file name this blob, expired or damaged ones included? Then its bytes stay. */
enum blob_status file_catalog_names(struct file_catalog *c, const struct digest *digest, bool *named,
                                    struct blob_error *err) BLOB_MUST_CHECK;
/* Removes the file durably; NOT_FOUND and INVALID as file_catalog_get, but an expired file is still found. When it was
 * the blob's last, *last_of_blob is set (digest in *digest) and the blob's grace time has begun. */
enum blob_status file_catalog_destroy(struct file_catalog *c, const char *id, const struct identity *who,
                                      struct digest *digest, bool *last_of_blob,
                                      struct blob_error *err) BLOB_MUST_CHECK;

typedef bool file_list_fn(const struct file_record *file, void *arg);
/* q->owner is set from who. UNAVAILABLE while the index is not whole: no answer is better than half of one. */
enum blob_status file_catalog_list(struct file_catalog *c, const struct identity *who, const struct index_query *q,
                                   uint64_t *count, file_list_fn *fn, void *arg,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Writes the index rows that this process failed to write when it changed their records, and rebuilds the index from
 * the records where it is not whole and no other node does. Cheap where there is nothing to do. stop (may be NULL) is
 * looked at between records: CANCELED. */
enum blob_status file_catalog_heal_index(struct file_catalog *c, const atomic_bool *stop,
                                         struct blob_error *err) BLOB_MUST_CHECK;
/* Destroys files past their time, looking at no more than limit; *done says how many rows it dealt with. */
enum blob_status file_catalog_expire(struct file_catalog *c, int64_t now_ms, size_t limit, size_t *done,
                                     struct blob_error *err) BLOB_MUST_CHECK;

#endif
