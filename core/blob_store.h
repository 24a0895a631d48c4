/*
 * blob_store - the storage contract: staged uploads, blobs, records. Implement struct blob_store_ops to add a backend;
 * this header is all an implementer needs, and tests/contract/ is the suite that judges the result.
 *
 * Three kinds of things are kept:
 *   uploads   bytes on their way in, named by a UUID, growing at the end, written by one writer at a time
 *   blobs     finished content, named by its SHA-256, never changing, stored once
 *   records   small JSON values under text keys, in key order; the truth that every index can be rebuilt from
 *
 * Durability. An operation without BLOB_LAZY has reached stable storage when it returns BLOB_OK: it survives kill -9
 * and power loss. With BLOB_LAZY it survives kill -9, and becomes durable no later than the next operation without
 * BLOB_LAZY that any thread of this process starts on this store after it returned: a batch is made durable by its last
 * step, and after power loss the survivors are a prefix of the batch. A backend may ignore BLOB_LAZY and be durable at
 * once; on storage shared by nodes it must. An operation that failed has either happened or not, never half; repeating
 * it is safe.
 *
 * Atomicity. Nobody sees part of a record or of a blob, ever, also after a crash. Opening the store recovers: what a
 * crash left behind is finished or removed before open returns.
 *
 * Threads. Every operation may be called from any thread at any time, except as said at writers and readers.
 * Two writers of one upload must not be open in one process at a time (core sees to it); on shared storage a writer
 * of another node that lost its upload may still be writing: it must not be able to change what was committed, nor
 * may anything it does crash or hang this one.
 *
 * Callbacks of list operations are called without any lock held and may call the store, removals included.
 *
 * Ownership. Arguments are borrowed until return. Units: bytes, milliseconds since the epoch (UTC).
 * Validation. The wrappers below check what callers pass (CHECK): keys, lengths, non-NULL; an implementation sees valid
 * arguments only. They also count, time and inject faults, so all callers use them, never the table.
 *
 * Errors any operation may give, besides those listed: NO_SPACE, UNAVAILABLE (retry later), DENIED, IO, NO_MEMORY;
 * err->text then says what failed on what. NOT_FOUND is only ever positive knowledge.
 */
#ifndef BLOBD_CORE_BLOB_STORE_H
#define BLOBD_CORE_BLOB_STORE_H

#include "core/digest.h"
#include "core/status.h"
#include "core/text/bytebuf.h"
#include "core/uuid.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct blob_store;
struct blob_writer;
struct blob_reader;
struct blob_cursor;
struct metrics;
struct op_metrics;

/* ---- capability bits ---- */

#define STORE_SHARED      (1u << 0) /* several nodes may use it at a time */
#define STORE_READ_STAGED (1u << 1) /* staged_read works */
#define STORE_KEEPS_STATE (1u << 2) /* staged_stat gives back the keep bytes of the last flush */
#define STORE_HAS_FD      (1u << 3) /* blob readers have a file descriptor, for sendfile */
#define STORE_REDIRECT    (1u << 4) /* blob_url works */
#define STORE_REMOTE      (1u << 5) /* bytes cross a network or another party's disk: hash what is served */

/* ---- flags ---- */

#define BLOB_LAZY    (1u << 0) /* see Durability */
#define BLOB_IF_NONE (1u << 1) /* record_put: EXISTS when the key is there, and nothing changed */

/* ---- bounds ---- */

#define STORE_ID_CHARS   36
#define UPLOAD_STATE_MAX 1024 /* what a backend may ask the session to carry */
#define UPLOAD_KEEP_MAX  512  /* what core may ask a backend to keep */
#define RECORD_KEY_MAX   200  /* [A-Za-z0-9._-] in parts joined by '/', at least two parts, none empty, "." or ".." */
#define RECORD_VALUE_MAX 65536

/*
 * How far an upload is durable, and the backend's own bytes about it (part numbers, an S3 upload id). Opaque to
 * core, which stores it in the session and hands it back to continue. {0} is an upload without bytes.
 */
struct upload_mark {
    uint64_t offset;
    /* Core sets it for staged_open when a writer of another node may still be writing to this upload. What is below
     * offset must be kept safe from that writer (disk: it goes on in a file of its own). Not to be kept in state. */
    bool contended;
    uint32_t state_len;
    uint8_t state[UPLOAD_STATE_MAX];
};

/* What the storage itself knows of an upload, when no session does, or an old one. */
struct staged_stat {
    struct upload_mark mark; /* everything below mark.offset can be read or committed */
    int64_t modified_ms;
    uint64_t epoch;    /* the highest that has opened it, as far as that is kept; else 0 */
    uint32_t keep_len; /* 0 unless STORE_KEEPS_STATE; else the keep bytes given with mark.offset */
    uint8_t keep[UPLOAD_KEEP_MAX];
};

struct blob_info {
    uint64_t size;
    int64_t touched_ms; /* last commit or blob_touch */
};

/* Returning false ends the listing early, with BLOB_OK. */
typedef bool blob_list_fn(const struct digest *digest, const struct blob_info *info, void *arg);
typedef bool staged_list_fn(const struct uuid *id, uint64_t bytes, int64_t modified_ms, void *arg);
typedef bool record_list_fn(const char *key, const void *value, size_t len, void *arg);
/* One line of a self-check: what was tried, whether it went well, what it means for the operator. */
typedef void store_report_fn(bool ok, const char *what, const char *meaning, void *arg);

struct blob_store_ops {
    const char *name; /* as in storage.backend, e.g. "disk" */

    /* Closes and frees the store. No other call is under way, and none follows. Never NULL. */
    void (*close)(struct blob_store *store);

    /* ---- the store ---- */

    /* Called on HUP: reads again what was given from outside and may have changed there (credentials). What is wrong is
     * logged, and the old stays in use. May be NULL. */
    void (*reload)(struct blob_store *store);
    /* Can the store be read and written now? Cheap: answers within a second, or UNAVAILABLE. For /readyz. */
    enum blob_status (*check)(struct blob_store *store, struct blob_error *err);
    /* Is there room for `bytes` more? NO_SPACE: they would not fit above the reserve. OK also where it cannot be known.
     * Cheap: asked before every body. */
    enum blob_status (*room)(struct blob_store *store, uint64_t bytes, struct blob_error *err);
    /* Removes the backend's own leftovers older than before_ms (temporary files, multipart uploads without an upload).
     */
    enum blob_status (*sweep)(struct blob_store *store, int64_t before_ms, struct blob_error *err);
    /* The long check of --check-storage. It reports each step, and returns the first failing status, or OK. May be
     * NULL. */
    enum blob_status (*self_check)(struct blob_store *store, store_report_fn *report, void *arg,
                                   struct blob_error *err);

    /* ---- uploads ---- */

    /*
     * Opens an upload for writing at from->offset. If the offset is 0 and the upload is not there, it is created.
     * Whatever the storage has beyond from->offset is dropped (that is also how a body is rolled back); what had been
     * flushed of it is gone durably on OK. epoch grows with each new writer of this upload, in the order in which they
     * claimed it.
     * NOT_FOUND: the storage has less than from->offset bytes. CONFLICT: a writer of a higher epoch has opened it, so
     * this one comes late and must not cut what the other wrote (where nodes share the storage).
     */
    enum blob_status (*staged_open)(struct blob_store *store, const struct uuid *id, const struct upload_mark *from,
                                    uint64_t epoch, struct blob_writer **out, struct blob_error *err);
    /*
     * Appends parts, one after the other; they are the caller's, and not changed. All or nothing: after a failure the
     * writer stands where it stood, and may be flushed or closed. One thread at a time; only writer_flush may run
     * beside it.
     */
    enum blob_status (*writer_write)(struct blob_writer *w, const struct iovec *parts, int count,
                                     struct blob_error *err);
    /*
     * Makes the first `offset` bytes of the upload durable (BLOB_LAZY: see above), offset being at most what was
     * written when the call began, and keeps keep[] with them where STORE_KEEPS_STATE. Gives the mark to continue from,
     * whose offset is the one asked for. May run in another thread while writer_write runs; one flush at a time.
     * CONFLICT, NOT_FOUND: what this writer wrote is not the upload's any more: another took over, or ended it.
     * After a failure that may have lost bytes, this writer fails for good: what was flushed before stays, and the
     * upload goes on from there by a new one.
     */
    enum blob_status (*writer_flush)(struct blob_writer *w, uint64_t offset, const void *keep, size_t keep_len,
                                     unsigned flags, struct upload_mark *mark, struct blob_error *err);
    /*
     * Turns everything written into the blob `digest`, which core has verified, and ends the upload: nothing is copied,
     * whatever the size. The content is durable on OK even where earlier flushes were lazy. Where the blob is already
     * there, it is touched, and still stored once: what was there is replaced wherever it has another size, or is seen
     * to be damaged, or where replacing costs no more than looking; else the staged bytes are dropped. So an upload of
     * the same content heals damage: at the latest once that was noticed and blob_set_aside() has told so. The writer
     * is closed on OK, and stays open on failure, to be tried again or closed.
     */
    enum blob_status (*writer_commit)(struct blob_writer *w, const struct digest *digest, unsigned flags,
                                      struct blob_error *err);
    /* Unflushed bytes may be lost. Cannot fail; w is freed. */
    void (*writer_close)(struct blob_writer *w);

    /* NOT_FOUND: no such upload, or one without bytes that left no trace. */
    enum blob_status (*staged_stat)(struct blob_store *store, const struct uuid *id, struct staged_stat *out,
                                    struct blob_error *err);
    /* Reads staged bytes; *got < len only at the end of what is there. NULL without STORE_READ_STAGED. */
    enum blob_status (*staged_read)(struct blob_store *store, const struct uuid *id, uint64_t offset, void *buf,
                                    size_t len, size_t *got, struct blob_error *err);
    /* Drops an upload and all it holds. mark is the session's last, or NULL when that is not known. OK also when the
     * upload is not there. */
    enum blob_status (*staged_discard)(struct blob_store *store, const struct uuid *id, const struct upload_mark *mark,
                                       struct blob_error *err);
    /* Calls fn for every staged upload, in no particular order. */
    enum blob_status (*staged_list)(struct blob_store *store, staged_list_fn *fn, void *arg, struct blob_error *err);

    /* ---- blobs ---- */

    /* NOT_FOUND: no such blob. */
    enum blob_status (*blob_stat)(struct blob_store *store, const struct digest *digest, struct blob_info *out,
                                  struct blob_error *err);
    /* Opens for reading; a blob removed later stays readable through an open reader, or its reads fail: never other
     * bytes. */
    enum blob_status (*blob_open)(struct blob_store *store, const struct digest *digest, struct blob_reader **out,
                                  struct blob_info *info, struct blob_error *err);
    /* Exactly len bytes (the caller stays within the size), else an error: a short read is CORRUPT. Any number of
     * threads at a time. */
    enum blob_status (*reader_read)(struct blob_reader *r, uint64_t offset, void *buf, size_t len,
                                    struct blob_error *err);
    /* The descriptor, owned by the reader; -1 where there is none. NULL without STORE_HAS_FD. */
    int (*reader_fd)(const struct blob_reader *r);
    /* No cursor is on it. */
    void (*reader_close)(struct blob_reader *r);
    /*
     * Reads the next len bytes of a cursor, as reader_read does. c->end - c->at says how much more will be read, so
     * that a remote store can ask for all of it at once. The wrapper moves the cursor on OK; after a failure the same
     * bytes may be asked for again. Any number of cursors may be on a reader. One thread at a time uses a cursor, not
     * always the same one. NULL: the wrapper calls reader_read instead.
     */
    enum blob_status (*cursor_read)(struct blob_cursor *c, void *buf, size_t len, struct blob_error *err);
    /* Frees c->own. It is short and never waits, because event loops call it. NULL where cursor_read is. */
    void (*cursor_end)(struct blob_cursor *c);
    /*
     * Sets the blob's touched_ms to now, and in any case later than it was: the sweeper's grace starts again. Gives
     * that time in *touched_ms (which may be NULL). It is this call's own: every later commit and touch gives the blob
     * another. NOT_FOUND: no such blob.
     */
    enum blob_status (*blob_touch)(struct blob_store *store, const struct digest *digest, int64_t *touched_ms,
                                   struct blob_error *err);
    /*
     * Removes a blob last touched before before_ms; CONFLICT, and it stays, when it was touched later, or when a reader
     * of it is open in this process and could not be served afterwards: try again later. Atomic against writer_commit
     * on any node: a commit that reported this blob present is not undone. OK when it is not there.
     */
    enum blob_status (*blob_remove)(struct blob_store *store, const struct digest *digest, int64_t before_ms,
                                    struct blob_error *err);
    /*
     * Takes a blob out of use whose stored bytes were read and found wrong. From then on it is NOT_FOUND, also after a
     * crash, and a commit of the same content stores it anew. The wrong bytes are kept apart (damaged/) where the
     * storage can. touched_ms is what blob_open told whoever read the blob. CONFLICT: it was touched since, so what is
     * there now may be another's, and it stays. Atomic against writer_commit as blob_remove is. Open readers may go on.
     * NOT_FOUND: no such blob.
     */
    enum blob_status (*blob_set_aside)(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                                       struct blob_error *err);
    /* Calls fn for every blob after the digest `after` (NULL: for all), in ascending order of digest. */
    enum blob_status (*blob_list)(struct blob_store *store, const struct digest *after, blob_list_fn *fn, void *arg,
                                  struct blob_error *err);
    /* A URL, valid for expiry_ms, that gives the blob with these headers. NULL without STORE_REDIRECT. */
    enum blob_status (*blob_url)(struct blob_store *store, const struct digest *digest, const char *content_disposition,
                                 const char *content_type, int64_t expiry_ms, struct bytebuf *url,
                                 struct blob_error *err);

    /* ---- records ---- */

    /* Writes or replaces (BLOB_IF_NONE: creates; an EXISTS means a durable record). The value has at least one byte. */
    enum blob_status (*record_put)(struct blob_store *store, const char *key, const void *value, size_t len,
                                   unsigned flags, struct blob_error *err);
    /* Appends the value to out. NOT_FOUND. */
    enum blob_status (*record_get)(struct blob_store *store, const char *key, struct bytebuf *out,
                                   struct blob_error *err);
    /* OK also when it is not there. */
    enum blob_status (*record_delete)(struct blob_store *store, const char *key, unsigned flags,
                                      struct blob_error *err);
    /*
     * Calls fn for the records whose key begins with prefix and comes after the key `after` (NULL: for all), ascending
     * in byte order of the key, at most limit of them (0: no bound). prefix ends in '/' and names one or more whole
     * parts. Without with_values, value is NULL and len 0.
     */
    enum blob_status (*record_list)(struct blob_store *store, const char *prefix, const char *after, size_t limit,
                                    bool with_values, record_list_fn *fn, void *arg, struct blob_error *err);
};

/* An implementation embeds this as the first member; open fills it. */
struct blob_store {
    const struct blob_store_ops *ops;
    unsigned caps;
    size_t part_bytes; /* flushes at multiples of it cost least, others write bytes twice; 0: all cost the same */
    /* While memory is short, how much a writer should hold unflushed at most; else 0. Changes at any time. */
    atomic_size_t dirty_bytes;
    char store_id[STORE_ID_CHARS + 1]; /* from store.json, made with the store: the same on every node that sees it */
    const char *limits;                /* what it cannot do where it is, in a line for the operator; NULL: nothing */
    struct op_metrics *metrics;        /* NULL until attached */
};
struct blob_writer { /* likewise the first member of the implementation's own */
    struct blob_store *store;
    uint64_t position; /* bytes written so far, from 0; kept by the implementation under its own lock or atomically */
};
struct blob_reader {
    struct blob_store *store;
    uint64_t size;
};
/* Bytes of a blob that are read in order. The caller's, but for `own`, which is the store's. */
struct blob_cursor {
    struct blob_reader *reader; /* borrowed */
    uint64_t at, end;
    void *own; /* NULL before the first read */
};

/* ---- what callers use: one thin wrapper a callback, of the same meaning ---- */

void blob_store_attach_metrics(struct blob_store *store, struct metrics *metrics);
/* NULL is fine. */
void blob_store_close(struct blob_store *store);
void blob_store_reload(struct blob_store *store);
enum blob_status blob_store_check(struct blob_store *store, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status blob_store_room(struct blob_store *store, uint64_t bytes, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status blob_store_sweep(struct blob_store *store, int64_t before_ms, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status blob_store_self_check(struct blob_store *store, store_report_fn *report, void *arg,
                                       struct blob_error *err) BLOB_MUST_CHECK;

enum blob_status staged_open(struct blob_store *store, const struct uuid *id, const struct upload_mark *from,
                             uint64_t epoch, struct blob_writer **out, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status writer_write(struct blob_writer *w, const struct iovec *parts, int count,
                              struct blob_error *err) BLOB_MUST_CHECK;
/* How many bytes parts have. */
size_t parts_bytes(const struct iovec *parts, int count);
/* One part. */
enum blob_status writer_write_bytes(struct blob_writer *w, const void *data, size_t len,
                                    struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status writer_flush(struct blob_writer *w, uint64_t offset, const void *keep, size_t keep_len, unsigned flags,
                              struct upload_mark *mark, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status writer_commit(struct blob_writer *w, const struct digest *digest, unsigned flags,
                               struct blob_error *err) BLOB_MUST_CHECK;
void writer_close(struct blob_writer *w); /* NULL is fine */
enum blob_status staged_stat(struct blob_store *store, const struct uuid *id, struct staged_stat *out,
                             struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status staged_read(struct blob_store *store, const struct uuid *id, uint64_t offset, void *buf, size_t len,
                             size_t *got, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status staged_discard(struct blob_store *store, const struct uuid *id, const struct upload_mark *mark,
                                struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status staged_list(struct blob_store *store, staged_list_fn *fn, void *arg,
                             struct blob_error *err) BLOB_MUST_CHECK;

enum blob_status blob_stat(struct blob_store *store, const struct digest *digest, struct blob_info *out,
                           struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status blob_open(struct blob_store *store, const struct digest *digest, struct blob_reader **out,
                           struct blob_info *info, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status reader_read(struct blob_reader *r, uint64_t offset, void *buf, size_t len,
                             struct blob_error *err) BLOB_MUST_CHECK;
int reader_fd(const struct blob_reader *r); /* -1 where there is none */
void reader_close(struct blob_reader *r);   /* NULL is fine */
/* Begins to read [offset, offset + len), which must be within the blob. Asks for nothing yet. cursor_end(). */
void cursor_begin(struct blob_cursor *c, struct blob_reader *r, uint64_t offset, uint64_t len);
enum blob_status cursor_read(struct blob_cursor *c, void *buf, size_t len, struct blob_error *err) BLOB_MUST_CHECK;
void cursor_end(struct blob_cursor *c); /* a cursor of zeros is fine */
enum blob_status blob_touch(struct blob_store *store, const struct digest *digest, int64_t *touched_ms,
                            struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status blob_remove(struct blob_store *store, const struct digest *digest, int64_t before_ms,
                             struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status blob_set_aside(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                                struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status blob_list(struct blob_store *store, const struct digest *after, blob_list_fn *fn, void *arg,
                           struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status blob_url(struct blob_store *store, const struct digest *digest, const char *content_disposition,
                          const char *content_type, int64_t expiry_ms, struct bytebuf *url,
                          struct blob_error *err) BLOB_MUST_CHECK;

enum blob_status record_put(struct blob_store *store, const char *key, const void *value, size_t len, unsigned flags,
                            struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status record_get(struct blob_store *store, const char *key, struct bytebuf *out,
                            struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status record_delete(struct blob_store *store, const char *key, unsigned flags,
                               struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status record_list(struct blob_store *store, const char *prefix, const char *after, size_t limit,
                             bool with_values, record_list_fn *fn, void *arg, struct blob_error *err) BLOB_MUST_CHECK;
/* Is this a key as RECORD_KEY_MAX says? */
bool record_key_valid(const char *key);

#endif
