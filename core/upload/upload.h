/*
 * upload - the upload state machine: create, append, complete, status, destroy.
 *
 * A session (session.h) says how far an upload is; the blob store holds its bytes and, as the record uploads/<id>, what
 * is needed to rebuild a session that was lost. The state machine keeps the promises between them: an offset is
 * reported only when the bytes below it are durable; a chunk that is repeated is not added twice; a newer append stops
 * an older one; a complete that is repeated gives the same file.
 *
 * Order. upload_append_begin, _write and _end of one upload, and every other call here for it, must run one at a time
 * in this process: submit them to the worker pool in the lane of upload_lane(). Checkpoints run beside, in jobs of the
 * service's own. Everything here may block, except where it says otherwise.
 *
 * A newer append takes over in its begin, also while an older one is still being received: the older one is ended on
 * the spot, its superseded() callback is called, and whatever is still written to it answers API_UPLOAD_SUPERSEDED. So
 * does a destroy, but for the end of the append, which is API_UPLOAD_UNKNOWN then: there is nothing that goes on.
 *
 * Ownership: arguments are borrowed until return. Units: bytes, milliseconds. Source: the PortSIP PBX REST API v22
 * "Blobs" contract; OCI distribution-spec 1.1 for the offset rules it leaves open.
 */
#ifndef BLOBD_CORE_UPLOAD_UPLOAD_H
#define BLOBD_CORE_UPLOAD_UPLOAD_H

#include "core/api_error.h"
#include "core/files/file_catalog.h"
#include "core/session/upload_token.h"

struct logger;
struct metrics;
struct worker_pool;
struct worker_lane;
struct upload_service;
struct upload_append;

enum upload_sync { UPLOAD_SYNC_APPEND, UPLOAD_SYNC_COMPLETE, UPLOAD_SYNC_NEVER };

struct upload_options {
    int64_t timeout_ms;             /* sessions.timeout: since the last activity */
    int64_t completed_retention_ms; /* how long a completed upload answers repeats */
    int64_t temp_file_retention_ms;
    uint64_t max_size; /* of a whole upload; 0: unbounded */
    enum upload_sync sync;
    uint64_t checkpoint_bytes;
    int64_t checkpoint_interval_ms;
    int64_t lease_ms; /* how long a node that says nothing is taken for alive (shared sessions) */
};

/* Borrows everything but opt. metrics may be NULL. */
struct upload_service *upload_service_new(struct blob_store *store, struct session_store *sessions,
                                          struct file_catalog *catalog, struct worker_pool *pool, struct logger *log,
                                          struct metrics *metrics, const struct upload_options *opt);
/* No call is under way, every append has ended. */
void upload_service_free(struct upload_service *svc);

/* This process's node id, made with the service; what session_store_join() is told. */
const char *upload_service_node(const struct upload_service *svc);

/* The lane for everything about this upload. Does not block. */
struct worker_lane *upload_lane(struct upload_service *svc, const struct uuid *id);

/* What every upload answer carries. */
struct upload_view {
    struct uuid id;
    char token[UPLOAD_TOKEN_CHARS + 1];
    uint64_t offset;
    bool completed;
};

struct upload_create {
    const struct identity *who;
    const char *filename; /* sanitised; "" for none */
    bool temporary;
};

enum api_code upload_create(struct upload_service *svc, const struct upload_create *req, struct upload_view *view,
                            struct api_error *err) BLOB_MUST_CHECK;
/* Never changes anything. */
enum api_code upload_status(struct upload_service *svc, const struct uuid *id, const struct identity *who,
                            struct upload_view *view, struct api_error *err) BLOB_MUST_CHECK;
/* token may be NULL (the contract asks for none). */
enum api_code upload_destroy(struct upload_service *svc, const struct uuid *id, const struct identity *who,
                             struct api_error *err) BLOB_MUST_CHECK;

struct upload_request {
    struct uuid id;
    const struct identity *who;
    const char *token; /* required */
    bool has_offset;   /* Upload-Offset or Content-Range's first byte */
    uint64_t offset;
    bool has_length; /* length of the range, N to M */
    uint64_t length;
    bool body_known; /* Content-Length, or no body (then 0) */
    uint64_t body_length;
    bool body_begun; /* its first byte is there: it is not empty, however it is framed */
    bool completes;
    bool has_digest;      /* a complete may name it; without, the upload completes with whatever it hashes to */
    struct digest digest; /* what the client says the whole upload hashes to */
    /* Called once at most, from another begin's worker thread, when a newer append takes over: arrange for
     * upload_append_end() soon. Must not block nor call the service. */
    void (*superseded)(void *arg);
    void *arg;
};

/* What a finished append or complete answers. */
struct upload_result {
    bool waits;    /* of a begin: ask again, see there */
    bool has_view; /* view holds the current state: also beside a 416 or 409 */
    struct upload_view view;
    bool completed; /* 201: file is set */
    struct file_record file;
};

/*
 * Decides by everything that comes before the body. API_OK with *out set: feed the body, then end. API_OK with *out
 * NULL: answered already (a repeated complete), result is filled, the body is to be ignored; but where result->waits is
 * set, all depends on whether the body has a byte: nothing was changed, and begin is to be called again when the first
 * is there (body_begun) or it has ended without (body_known, of length 0). Anything else: refused. A complete without a
 * body is begun and ended like any other.
 */
enum api_code upload_append_begin(struct upload_service *svc, const struct upload_request *req,
                                  struct upload_append **out, struct upload_result *result,
                                  struct api_error *err) BLOB_MUST_CHECK;
/* Where the body's first byte goes in the upload. Any thread. */
uint64_t upload_append_offset(const struct upload_append *a);
/* The next bytes of the body, in parts: the more at once, the fewer and larger the store's writes. parts is used up;
 * what it points to is read. After anything but API_OK no more bytes are taken: end it with UPLOAD_BODY_FAILED. */
enum api_code upload_append_write(struct upload_append *a, struct iovec *parts, int count,
                                  struct api_error *err) BLOB_MUST_CHECK;
/* One part. */
enum api_code upload_append_write_bytes(struct upload_append *a, const void *data, size_t len,
                                        struct api_error *err) BLOB_MUST_CHECK;

enum upload_body_end {
    UPLOAD_BODY_WHOLE,
    UPLOAD_BODY_CUT,    /* the link died: what arrived is kept, nothing completes */
    UPLOAD_BODY_FAILED, /* a write was refused, or framing broke: what arrived is kept */
};

/* Ends it, frees a. With UPLOAD_BODY_WHOLE the code says what to answer; otherwise the code of the failure or of the
 * cut, with the view where it is known. Once for every begun append. */
enum api_code upload_append_end(struct upload_append *a, enum upload_body_end how, struct upload_result *result,
                                struct api_error *err) BLOB_MUST_CHECK;

/* Starts the checkpoints that are due of appends whose bodies trickle. From a timer, about once in interval/2; quick,
 * does not block. */
void upload_service_tick(struct upload_service *svc, int64_t now_ms);

/* Removes uploads whose time is over, and what is left of them in the store; at most once at a time. stop may be NULL.
 */
enum blob_status upload_service_expire(struct upload_service *svc, int64_t now_ms, const atomic_bool *stop,
                                       struct blob_error *err) BLOB_MUST_CHECK;

#endif
