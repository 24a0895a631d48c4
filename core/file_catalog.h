/*
 * file_catalog - file records: which files exist, by what name, naming which blob.
 *
 * A record is one JSON value in the blob store under files/<digest>/<number>, number being 16 hex digits that fall as
 * time goes on, so that the newest file of a blob comes first in a listing of its prefix. The opaque file id is
 * base64url(digest, number): an id finds its record without an index. The record decides: a file exists from the moment
 * its record is durable until it is deleted. Listings come from the session store's index, rebuilt from the records
 * when it is not whole.
 *
 * Threads: every function from any (worker) thread: all may block. Ownership: the catalog borrows its stores.
 * Errors: as the stores'; a damaged record reads as CORRUPT, is logged, and hides only itself.
 */
#ifndef BLOBD_CORE_FILE_CATALOG_H
#define BLOBD_CORE_FILE_CATALOG_H

#include "core/blob_store.h"
#include "core/session_store.h"

#include <stdatomic.h>

struct logger;
struct metrics;
struct file_catalog;

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

struct file_catalog *file_catalog_new(struct blob_store *store, struct session_store *sessions, struct logger *log);
void file_catalog_free(struct file_catalog *c);
/* fn is told the digest whenever this process has added or removed a file of it, before the change is answered to
 * anybody; on the changing thread, no lock held. One watcher, set before the catalog is used by others. */
typedef void file_watch_fn(const struct digest *digest, void *arg);
void file_catalog_watch(struct file_catalog *c, file_watch_fn *fn, void *arg);

/* Who asks: an identity sees and destroys its own files, an admin all, and without auth everybody all. */
struct identity {
    char name[OWNER_MAX + 1]; /* "" where unknown (auth.mode=none) */
    bool known;
    bool admin;
};

/* The number of a file of an upload created at created_ms: the same however often completion is tried. */
uint64_t file_number(int64_t created_ms, const struct uuid *upload);
/* Fills file->id from digest and number. */
void file_id_make(struct file_record *file);
/* INVALID: not an id. */
enum blob_status file_id_parse(const char *id, struct digest *digest, uint64_t *number) BLOB_MUST_CHECK;
/* A media type by the name's ending; "application/octet-stream" where it tells nothing. Static text. */
const char *media_type_of_name(const char *name);

/*
 * Writes the record of a completed upload and its index row. The caller fills all of file but its id, number by
 * file_number(), and has committed or touched the blob just before (see janitor.h). Idempotent: the record of the
 * same upload is found again and given back in *file, whatever number it got; a number taken by another upload's
 * file is counted down until a free one is found. flags: BLOB_LAZY as in the store. The index row is best effort: its
 * failure is logged, and the row repaired by the next file_catalog_heal_index().
 */
enum blob_status file_catalog_add(struct file_catalog *c, struct file_record *file, unsigned flags,
                                  struct blob_error *err) BLOB_MUST_CHECK;
/* NOT_FOUND: no such file, or one of another owner. INVALID: not an id. Expired files are not found. */
enum blob_status file_catalog_get(struct file_catalog *c, const char *id, const struct identity *who,
                                  struct file_record *out, struct blob_error *err) BLOB_MUST_CHECK;
/* The newest file that names a blob: what a download is called. NOT_FOUND: none does, so the blob is not served. */
enum blob_status file_catalog_newest(struct file_catalog *c, const struct digest *digest, struct file_record *out,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* Removes the file durably; NOT_FOUND and INVALID as file_catalog_get, but an expired file is still found. When it was
 * the blob's last, *last_of_blob is set (digest in *digest) and the blob's grace time has begun. */
enum blob_status file_catalog_destroy(struct file_catalog *c, const char *id, const struct identity *who,
                                      struct digest *digest, bool *last_of_blob,
                                      struct blob_error *err) BLOB_MUST_CHECK;

typedef bool file_list_fn(const struct file_record *file, void *arg);
/* q->owner is set from who. */
enum blob_status file_catalog_list(struct file_catalog *c, const struct identity *who, const struct index_query *q,
                                   uint64_t *count, file_list_fn *fn, void *arg,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Repairs the rows that this process could not write, and rebuilds the index from the records where it is not whole.
 * stop (may be NULL) is looked at between records: CANCELED. One at a time. */
enum blob_status file_catalog_heal_index(struct file_catalog *c, const atomic_bool *stop,
                                         struct blob_error *err) BLOB_MUST_CHECK;
/* Destroys temporary files past their time, at most limit; *done says how many. */
enum blob_status file_catalog_expire(struct file_catalog *c, int64_t now_ms, size_t limit, size_t *done,
                                     struct blob_error *err) BLOB_MUST_CHECK;

#endif
