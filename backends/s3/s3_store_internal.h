/*
 * s3_store_internal - what the files of the S3 store share. Not for anyone else.
 *
 * Lock order: a writer's order, then its lock, then the store's or its memory's. No request is made with any of them
 * held but the first.
 */
#ifndef BLOBD_BACKENDS_S3_S3_STORE_INTERNAL_H
#define BLOBD_BACKENDS_S3_S3_STORE_INTERNAL_H

#include "backends/s3/client/s3_client.h"
#include "backends/s3/client/s3_keys.h"
#include "backends/s3/s3_memory.h"
#include "backends/s3/s3_pointer.h"
#include "backends/s3/s3_staged.h"
#include "core/blob_store.h"
#include "core/worker_pool.h"

#include <pthread.h>

#define S3_STORE_KEY   "store.json"
#define S3_STORE_MAGIC 0x53337374u

struct logger;

struct s3_store {
    struct blob_store base;
    unsigned magic;
    struct s3_keys *keys; /* of both clients */
    struct s3_client *client;
    struct s3_client *probe; /* impatient, for check() */
    struct logger *log;
    struct worker_pool *pool; /* part uploads */
    bool multipart;
    bool conditional;
    uint32_t part_size;
    unsigned parallel_parts; /* of one writer */
    struct s3_memory memory;
    char *policy; /* the least one, for the self-check */
    pthread_mutex_t lock;
    pthread_mutex_t swaps;     /* held around look-then-write where the driver has no conditional writes */
    struct s3_reader *readers; /* guarded by lock: the open ones */
    struct s3_writer *writers; /* guarded by lock: the open ones */
    struct s3_cursor *rest_oldest, *rest_newest; /* guarded by lock: downloads whose streams rest */
    unsigned streams;                            /* guarded by lock: in use or at rest */
    unsigned streams_max;
    int64_t tombstones_before_ms; /* guarded by lock: those set before have rested, and may be cleared away */
    int64_t orphans_looked_ms;    /* guarded by lock: data objects made before were looked at by an earlier sweep */
};

/* ---- the store's handle (s3_handle.c) ---- */

struct s3_store *s3_store_of(struct blob_store *base);
/* Do our clock and all that the endpoint's answers have shown of theirs agree, within five minutes? Then *offset_ms is
 * the endpoint's minus ours; UNAVAILABLE when not: nothing may be removed for its age. */
enum blob_status s3_clocks_agree(struct s3_store *s, int64_t *offset_ms, struct blob_error *err) BLOB_MUST_CHECK;

/* ---- the copies of doubted pointers (s3_doubt.c) ---- */

/* Keeps a copy of a pointer, which says that it is doubted. It is to be made before the pointer is relied on. */
enum blob_status s3_doubt_copy(struct s3_store *s, const struct digest *digest, const struct s3_pointer *p,
                               struct blob_error *err) BLOB_MUST_CHECK;
/* Deletes the copy, which is needed no more. */
enum blob_status s3_doubt_drop(struct s3_store *s, const struct digest *digest, struct blob_error *err) BLOB_MUST_CHECK;
/* Of a listed key below blobs/: if it is a copy, then one that has outlived its time goes. */
void s3_doubt_see(struct s3_store *s, const struct s3_entry *e);

/* ---- data that are not what their digests say (s3_damaged.c) ---- */

/* Is the blob's data object there, with its size, and with its content (up to S3_VERIFY_BYTES), or the ETag that it was
 * made with? OK, NOT_FOUND when not, or what kept us from knowing. An ETag that was not known is noted in *p. */
#define S3_VERIFY_BYTES (1u << 20)
enum blob_status s3_data_verify(struct s3_store *s, const struct digest *digest, struct s3_pointer *p,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* object's ETag as a pointer's data_etag. */
void s3_data_etag(const struct s3_object *object, char out[S3_ETAG_MAX]);
/* Does damaged/ name this data object? */
enum blob_status s3_data_is_damaged(struct s3_store *s, const struct digest *digest, const char *data_key,
                                    bool *damaged, struct blob_error *err) BLOB_MUST_CHECK;

/* ---- blobs (s3_blobs.c; s3_blob_set_aside() in s3_damaged.c) ---- */

enum blob_status s3_blob_stat(struct blob_store *base, const struct digest *digest, struct blob_info *out,
                              struct blob_error *err);
enum blob_status s3_blob_touch(struct blob_store *base, const struct digest *digest, int64_t *touched_ms,
                               struct blob_error *err);
enum blob_status s3_blob_remove(struct blob_store *base, const struct digest *digest, int64_t before_ms,
                                struct blob_error *err);
enum blob_status s3_blob_set_aside(struct blob_store *base, const struct digest *digest, int64_t touched_ms,
                                   struct blob_error *err);
enum blob_status s3_blob_list(struct blob_store *base, const struct digest *after, blob_list_fn *fn, void *arg,
                              struct blob_error *err);
enum blob_status s3_blob_url(struct blob_store *base, const struct digest *digest, const char *disposition,
                             const char *content_type, int64_t expiry_ms, struct bytebuf *url, struct blob_error *err);

/* ---- downloads (s3_reader.c, s3_cursor.c) ---- */

enum blob_status s3_blob_open(struct blob_store *base, const struct digest *digest, struct blob_reader **out,
                              struct blob_info *info, struct blob_error *err);
enum blob_status s3_reader_read(struct blob_reader *base, uint64_t offset, void *buf, size_t len,
                                struct blob_error *err);
void s3_reader_close(struct blob_reader *base);
/* One request for [offset, offset + len) of the blob. */
enum blob_status s3_reader_stream(struct blob_reader *base, uint64_t offset, uint64_t len, struct s3_stream **out,
                                  struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status s3_cursor_read(struct blob_cursor *c, void *buf, size_t len, struct blob_error *err);
void s3_cursor_end(struct blob_cursor *c);
/* Is a reader of this blob open, here? */
bool s3_blob_is_read(struct s3_store *s, const struct digest *digest);

/* ---- uploads (s3_uploads.c, s3_parts.c, s3_writer.c, s3_commit.c) ---- */

/* The header of a state object. One that arrives damaged is fetched again, and is CORRUPT when it does so twice. */
enum blob_status s3_upload_read_header(struct s3_store *s, const struct s3_key *key, struct s3_staged *out,
                                       uint8_t *keep, uint32_t *keep_len, struct blob_error *err) BLOB_MUST_CHECK;
/* The newest state object of an upload. NOT_FOUND: there is none, and not by the word of a listing alone. */
enum blob_status s3_upload_state(struct s3_store *s, const struct uuid *id, struct s3_staged *out,
                                 struct staged_stat *stat, struct blob_error *err) BLOB_MUST_CHECK;
/* Calls fn for every unfinished multipart upload of keys that begin with prefix, until it fails. */
typedef enum blob_status s3_multipart_fn(struct s3_store *s, const struct s3_upload *u, void *arg,
                                         struct blob_error *err);
enum blob_status s3_each_multipart(struct s3_store *s, const char *prefix, s3_multipart_fn *fn, void *arg,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Deletes every object below prefix. */
enum blob_status s3_delete_below(struct s3_store *s, const char *prefix, struct blob_error *err) BLOB_MUST_CHECK;
/* Deletes all that is staged of an upload. */
enum blob_status s3_staging_clear(struct s3_store *s, const struct uuid *id, struct blob_error *err) BLOB_MUST_CHECK;

enum blob_status s3_upload_stat(struct blob_store *base, const struct uuid *id, struct staged_stat *out,
                                struct blob_error *err);
enum blob_status s3_upload_discard(struct blob_store *base, const struct uuid *id, const struct upload_mark *mark,
                                   struct blob_error *err);
enum blob_status s3_upload_list(struct blob_store *base, staged_list_fn *fn, void *arg, struct blob_error *err);

enum blob_status s3_upload_open(struct blob_store *base, const struct uuid *id, const struct upload_mark *mark,
                                uint64_t epoch, struct blob_writer **out, struct blob_error *err);
enum blob_status s3_writer_write(struct blob_writer *base, const struct iovec *parts, int count,
                                 struct blob_error *err);
enum blob_status s3_writer_flush(struct blob_writer *base, uint64_t offset, const void *keep, size_t keep_len,
                                 unsigned flags, struct upload_mark *mark, struct blob_error *err);
enum blob_status s3_writer_commit(struct blob_writer *base, const struct digest *digest, unsigned flags,
                                  struct blob_error *err);
void s3_writer_close(struct blob_writer *base);
/* Is a writer of this upload open, here? What it has made in S3 may be named by nothing yet. */
bool s3_upload_is_written(struct s3_store *s, const struct uuid *id);

/* ---- records, sweeping, self-check ---- */

enum blob_status s3_record_put(struct blob_store *base, const char *key, const void *value, size_t len, unsigned flags,
                               struct blob_error *err);
enum blob_status s3_record_get(struct blob_store *base, const char *key, struct bytebuf *out, struct blob_error *err);
enum blob_status s3_record_delete(struct blob_store *base, const char *key, unsigned flags, struct blob_error *err);
enum blob_status s3_record_list(struct blob_store *base, const char *prefix, const char *after, size_t limit,
                                bool with_values, record_list_fn *fn, void *arg, struct blob_error *err);
enum blob_status s3_sweep(struct blob_store *base, int64_t before_ms, struct blob_error *err);
enum blob_status s3_self_check(struct blob_store *base, store_report_fn *report, void *arg, struct blob_error *err);

#endif
