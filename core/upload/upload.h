/*
 * upload - the upload state machine: create, append, complete, status, destroy.
 *
 * A session (session.h) says how far an upload is. The blob store holds its bytes and the record uploads/<id>, from
 * which a lost session is made again. The state machine keeps the promises between the two: an offset is reported only
 * when the bytes below it are durable; a chunk that is repeated is not added twice; a newer append stops an older one;
 * a complete that is repeated gives the same file.
 *
 * States. An upload is open, or an append to it is in flight (appending), or its last append turns it into a blob and a
 * file (completing), or it is completed, or its removal has begun (destroyed). Of any other id, of another owner's
 * upload and of one whose time is over it is said that there is no such upload (unknown).
 *
 *                open            appending         completing         completed         destroyed, unknown
 *     create     (each create makes an upload of its own: open, at offset 0)
 *     append     appending (1)   appending (2)     BUSY (4)           COMPLETED         UNKNOWN
 *     complete   completing (1)  completing (2)    BUSY, later 201    the same 201 (5)  UNKNOWN
 *     status     its offset      its offset (3)    its offset         its size          UNKNOWN
 *     destroy    destroyed       destroyed (6)     BUSY (4)           COMPLETED         UNKNOWN (7)
 *     expiry     unknown         stays             unknown            unknown (8)       what is left goes
 *     crash      open            open (9)          open, completed    completed         destroyed (7)
 *                                                  or cut off (10)
 *
 *  1 Token, then offset, then size are checked before the body. A refusal (416 tells the offset) changes nothing but
 *    what the request has taught: the store's offset where that is further, and that this client rotates its tokens. A
 *    repeat of the last chunk is compared, and nothing is written. A complete whose body has the wrong digest leaves
 *    the upload as it was before that body (DIGEST_INVALID).
 *  2 Take-over. Once its token has been checked, a newer append ends the older one at its last checkpoint, in its own
 *    begin, even if its offset is refused afterwards. The older one's superseded() is called, and whatever is still
 *    written to it, and its end, answer SUPERSEDED. On another node, the newer one's claim of the session (a greater
 *    epoch) fences the older one, whose next checkpoint or end is SUPERSEDED; an announcement lets it know sooner.
 *  3 The offset of the last checkpoint: never a byte that is not durable.
 *  4 Nothing takes over a completion, nor destroys what is being completed, while the node that does it is taken for
 *    alive (lease_ms). In one process the lane keeps the requests in order, so this is about other nodes. Once that
 *    node is silent for longer, the upload is what the store says (10).
 *  5 With the same file; with DIGEST_INVALID for another digest; with COMPLETED where the file was destroyed since.
 *  6 The end of the append in flight is UNKNOWN then: there is nothing that goes on.
 *  7 A removal that was cut short is finished by another destroy, or by the sweep. On shared sessions the session says
 *    DESTROYED first, so that no node can go on with the upload.
 *  8 After completed_retention_ms. The file stays.
 *  9 The upload goes on at the last durable offset. If another node goes on with it, staged bytes that can be read are
 *    hashed again before they become a blob: the older writer may still have changed them.
 * 10 The file record says that it completed. If there is none, and nothing is staged any more, but the blob is there,
 *    the crash came between blob and file (cut off): appends are BUSY, and the next complete makes the file. Otherwise
 *    the upload is still open. upload_recover.c decides.
 *
 * Order. upload_append_begin, _write and _end of one upload, and every other call here for it, must run one at a time
 * in this process: submit them to the worker pool in the lane of upload_lane(). Checkpoints run beside them, in jobs of
 * the service's own. Everything here may block, except where it says otherwise.
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

/* The service borrows everything but opt, which it copies. metrics may be NULL. */
struct upload_service *upload_service_new(struct blob_store *store, struct session_store *sessions,
                                          struct file_catalog *catalog, struct worker_pool *pool, struct logger *log,
                                          struct metrics *metrics, const struct upload_options *opt);
/* To be called when no call is under way and every append has ended. */
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
 * Decides by everything that comes before the body. A complete without a body is begun and ended like any other.
 *
 *   API_OK, *out set          The append has begun: feed it the body, then end it.
 *   API_OK, *out NULL         The answer is known already (a repeated complete): result is filled, ignore the body.
 *   the same, result->waits   All depends on whether the body has a byte, and nothing was changed. Call begin again
 *                             when its first byte is there (body_begun), or when it has ended without one (body_known,
 *                             of length 0).
 *   anything else             The request is refused.
 */
enum api_code upload_append_begin(struct upload_service *svc, const struct upload_request *req,
                                  struct upload_append **out, struct upload_result *result,
                                  struct api_error *err) BLOB_MUST_CHECK;
/* Where the body's first byte goes in the upload. Any thread. */
uint64_t upload_append_offset(const struct upload_append *a);
/* Adds the next bytes of the body. The more come at once, the fewer and larger the store's writes are. The array parts
 * is used up; the bytes it points to are only read. After anything but API_OK no more bytes are taken: end the append
 * with UPLOAD_BODY_FAILED. */
enum api_code upload_append_write(struct upload_append *a, struct iovec *parts, int count,
                                  struct api_error *err) BLOB_MUST_CHECK;
/* The same for bytes that lie in one piece. */
enum api_code upload_append_write_bytes(struct upload_append *a, const void *data, size_t len,
                                        struct api_error *err) BLOB_MUST_CHECK;

enum upload_body_end {
    UPLOAD_BODY_WHOLE,
    UPLOAD_BODY_CUT,    /* the link died: what arrived is kept, nothing completes */
    UPLOAD_BODY_FAILED, /* a write was refused, or framing broke: what arrived is kept */
};

/* Ends the append and frees a; to be called once for every append that has begun. With UPLOAD_BODY_WHOLE the code says
 * what to answer. Otherwise it is the code of the failure or of the cut; result has the view where that is known. */
enum api_code upload_append_end(struct upload_append *a, enum upload_body_end how, struct upload_result *result,
                                struct api_error *err) BLOB_MUST_CHECK;

/* Starts the checkpoints that are due in appends whose bodies trickle. A timer calls it about twice in an interval. It
 * is quick and does not block. */
void upload_service_tick(struct upload_service *svc, int64_t now_ms);

/* Removes uploads whose time is over, and what is left of them in the store. One call at a time. stop may be NULL. */
enum blob_status upload_service_expire(struct upload_service *svc, int64_t now_ms, const atomic_bool *stop,
                                       struct blob_error *err) BLOB_MUST_CHECK;

#endif
