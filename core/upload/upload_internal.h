/*
 * upload_internal - what the files of upload share: the service, an append in flight, and the steps between them.
 *
 *   upload.c             create, status, destroy, and the service itself
 *   upload_lane.c        which lane an upload's work goes through
 *   upload_load.c        the session as it is stored, or made anew: where every request begins
 *   upload_session.c     the ordinary life of a session: who may use it, who is at it, how it is stored
 *   upload_recall.c      the sessions this node stored last
 *   upload_decide.c      the rules that decide, before the body, what an append may do
 *   upload_append.c      one body: begin, write, end
 *   side_hash            hashing beside the writing
 *   upload_checkpoint.c  flushes beside the writing, and the timer
 *   upload_settle.c      how an append ends: counted, taken back, or ended by a newer one
 *   upload_complete.c    from the last byte to the file
 *   upload_live.c        which appends are in flight in this process
 *   upload_recover.c     sessions made anew from the store
 *   upload_expire.c      what the janitor removes
 *
 * Locks, in order: live (one a service), then append.lock. The checkpoint tick holds live while it looks at each append
 * under append.lock and submits jobs, so the worker pool's lock comes after live too. side_hash.lock and the recall's
 * are taken alone. None is held across a store or session call or a callback.
 */
#ifndef BLOBD_CORE_UPLOAD_UPLOAD_INTERNAL_H
#define BLOBD_CORE_UPLOAD_UPLOAD_INTERNAL_H

#include "core/check.h"
#include "core/clock.h"
#include "core/clock_watch.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/node_clock.h"
#include "core/session/session.h"
#include "core/upload/side_hash.h"
#include "core/upload/upload.h"
#include "core/worker_pool.h"

#include <pthread.h>
#include <stdatomic.h>

#define UPLOAD_LANES    4096
#define LIVE_BUCKETS    1024
#define APPEND_MAGIC    0x41505044u
#define HASH_READ_BYTES (256u << 10)
#define EPOCH_DESTROYED UINT64_MAX /* announced of an upload that is gone: newer than any writer */

struct upload_metrics {
    struct metric *created, *completed, *destroyed, *expired;
    struct metric *appends, *cut, *superseded, *repeats, *mismatches, *rebuilt, *bytes, *deduplicated;
};

struct upload_service {
    struct blob_store *store;
    struct session_store *sessions;
    struct file_catalog *catalog;
    struct worker_pool *pool;
    struct logger *log;
    struct upload_options opt;
    struct upload_metrics metrics;
    char node[NODE_ID_CHARS + 1];
    struct worker_lane lanes[UPLOAD_LANES];
    atomic_bool left_behind;       /* a session was not moved with its completion: some are older than their records */
    atomic_uint in_flight;         /* appends in the table below */
    _Atomic int64_t checkpoint_us; /* what a checkpoint takes, of late */
    struct upload_recall *recall;  /* NULL where sessions are not shared, and loading one costs nothing */

    pthread_mutex_t live; /* guards the table, and refs, notifying, tick_queued of what is in it */
    pthread_cond_t notified;
    struct upload_append *table[LIVE_BUCKETS];
};

enum append_mode {
    APPEND_WRITE,  /* new bytes */
    APPEND_REPEAT, /* a chunk whose answer was lost: compared, not written */
    APPEND_WAITS,  /* not to be decided before its first byte, or its end: never an append's */
    APPEND_REST,   /* a complete whose blob is there already (a crash came between): hashed, not written */
};

struct upload_append {
    unsigned magic;
    struct upload_service *svc;
    struct upload_append *next; /* in the live table */
    struct uuid id;
    enum append_mode mode;

    /* the request */
    bool completes;
    bool has_length;
    uint64_t length;
    bool has_expected;
    struct digest expected; /* of a complete that names no digest: set when its last byte has come */
    void (*superseded)(void *arg);
    void *arg;

    /* touched in the upload's lane only */
    struct blob_writer *writer; /* NULL until the first byte */
    struct hash hash;           /* of the whole upload as received (APPEND_REPEAT: of this body, or by_hash) */
    struct hash part_hash;      /* the same as it was at the end of the last whole part, on a store of parts */
    struct hash before_hash;    /* of the whole upload as it was before this body */
    bool keeps_before;          /* the session is to know it: staged bytes cannot be read */
    bool by_hash;               /* APPEND_REPEAT: hashed on from the chunk's beginning, for the same reason */
    uint64_t start, received;
    _Atomic uint64_t written; /* start + received, for the timer's eyes */
    bool roll_back;           /* the end takes back what came */
    bool over;                /* superseded: every later call, and the end, answers with `failed` */
    struct session *before;   /* as it was when this append began, where a roll-back may be needed; else NULL */
    int64_t announced_us;     /* a complete: when others were told that it completes */
    enum api_code failed;     /* the first failure: told at the end */
    struct api_error error;

    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t flushed;
    struct session s;   /* as it stands in the session store */
    bool flush_queued;  /* decided, not begun: whoever comes first does it, the pool or who waits for it */
    bool flushing;      /* under way */
    bool flush_out;     /* flush_job is in the pool, with a reference of its own */
    atomic_bool fenced; /* another writer has this upload now */
    atomic_bool destroyed;
    enum blob_status flush_status;
    struct blob_error flush_error;
    uint64_t flush_offset; /* of the flush under way, or the last one */
    struct hash flush_hash;
    int64_t flush_us; /* when it began */
    struct worker_job flush_job, tick_job;
    struct side_hash side;

    unsigned refs; /* under live: the owner's, a queued job's, a notice's */
    bool notifying, tick_queued, ended;
};

/* ---- upload_lane.c ---- */

/* A number that spreads ids evenly. */
unsigned upload_bucket(const struct uuid *id);

/* ---- upload_live.c ---- */

void upload_live_init(struct upload_service *svc);
void upload_live_release(struct upload_service *svc);
void upload_live_add(struct upload_append *a);
/* Waits for a callback under way; no notice and no tick comes afterwards. */
void upload_live_remove(struct upload_append *a);
/* Gives the append of this upload that is in flight, or NULL. Called in the upload's lane, so that it cannot end
 * meanwhile. */
struct upload_append *upload_live_find(struct upload_service *svc, const struct uuid *id);
/* Calls a->superseded: once at most, and never after upload_live_remove() has returned. */
void upload_live_notify(struct upload_append *a);
/* Called when another node has a newer writer of this upload, of this epoch. */
void upload_live_notice(const struct uuid *id, uint64_t epoch, void *svc);
/* Takes and drops a reference; the last one frees. */
void upload_append_ref(struct upload_append *a);
void upload_append_unref(struct upload_append *a);

/* ---- upload_recall.c ---- */

struct upload_recall *upload_recall_new(void);
void upload_recall_free(struct upload_recall *r); /* NULL is fine */
/* After s, of which value is the encoding, was stored. */
void upload_recall_keep(struct upload_service *svc, const struct session *s, const struct bytebuf *value);
/* Gives what is kept of this upload, once: s->recalled is set until it has been stored again. */
bool upload_recall_take(struct upload_service *svc, const struct uuid *id, struct session *s);

/* ---- upload_session.c ---- */

/* Do other nodes use the same session store? */
bool upload_session_is_shared(const struct upload_service *svc);
/* May this identity use the upload? */
bool upload_session_may_use(const struct session *s, const struct identity *who);
/* Did an append begin on another node that was not ended? Its writer may write yet, dead or alive. */
bool upload_session_is_contended(const struct upload_service *svc, const struct session *s);
/* The same, and is that node taken for alive? */
bool upload_session_is_busy(const struct upload_service *svc, const struct session *s);
/* Gives an epoch greater than last. It is the wall clock in microseconds, so that epochs stay unique even where the
 * session store lost or rolled back the newer ones. */
uint64_t upload_session_next_epoch(uint64_t last);
/* Inserts or replaces; raises s->epoch and sets s->expires_ms. CONFLICT: another writer has it; NOT_FOUND: destroyed,
 * or s was recalled and is not there any more. */
enum blob_status upload_session_persist(struct upload_service *svc, struct session *s,
                                        struct blob_error *err) BLOB_MUST_CHECK;
/* The same, and puts a row with it (put may be NULL); what became of that is in *put. */
enum blob_status upload_session_persist_listed(struct upload_service *svc, struct session *s, struct index_put *put,
                                               struct blob_error *err) BLOB_MUST_CHECK;
/* Writes the record uploads/<id>. */
enum blob_status upload_session_put_record(struct upload_service *svc, const struct session *s, unsigned flags,
                                           struct blob_error *err) BLOB_MUST_CHECK;
/* One append less in flight: counts it where it moved the offset. */
void upload_session_count_append(struct session *s);
/* Logs a store's or session store's failure, and says what the client is told. */
enum api_code upload_session_fail(struct upload_service *svc, const struct uuid *id, const char *what,
                                  enum blob_status st, const struct blob_error *detail, struct api_error *err);
/* What a request is told of an upload. initial: the token that it was created with is shown. */
void upload_session_view(const struct session *s, bool initial, struct upload_view *view);
/* UPLOAD_UNKNOWN, and its text. */
enum api_code upload_session_unknown(struct api_error *err);

/* ---- upload_load.c ---- */

/* Gives the session as it is stored, or rebuilt from the store (its epoch is 0 then). Others' uploads, and those whose
 * time is over, are API_UPLOAD_UNKNOWN. So are those whose removal has begun, but of these s is given all the same. */
enum api_code upload_load(struct upload_service *svc, const struct uuid *id, const struct identity *who,
                          struct session *s, struct api_error *err) BLOB_MUST_CHECK;

/* ---- upload_recover.c ---- */

/* Makes the session of an upload whose session is lost: epoch 0. UPLOAD_UNKNOWN: there is none. */
enum api_code upload_recover_rebuild(struct upload_service *svc, const struct uuid *id, struct session *s,
                                     struct api_error *err) BLOB_MUST_CHECK;

/* Called when less is staged than s says, perhaps nothing. There are three causes: no byte has come yet; the upload was
 * completed; or it was cut off between its blob and its file. In the last two the session is older than that, and s
 * becomes what the store knows. UPLOAD_UNKNOWN: the upload was destroyed. */
enum api_code upload_recover_settle_gone(struct upload_service *svc, struct session *s,
                                         struct api_error *err) BLOB_MUST_CHECK;
/* Brings s up to date: an append that was not ended is counted, and what the store has beyond the session is taken over
 * into s. Nothing is written. */
enum api_code upload_recover_settle(struct upload_service *svc, struct session *s,
                                    struct api_error *err) BLOB_MUST_CHECK;
/* The same for a request that adds nothing. An append in flight on another node stays uncounted and unharmed. If no
 * node is at the upload, what the store has beyond the session is stored in the session too: it is told to the client,
 * and must not be undone. */
enum api_code upload_recover_settle_idle(struct upload_service *svc, struct session *s,
                                         struct api_error *err) BLOB_MUST_CHECK;
/* Called before an open upload completes. Its session may be older than the store: the process was started again, the
 * sessions were lost or rolled back, or a completion failed half-way. Then s becomes what the store knows, as above. */
enum api_code upload_recover_settle_completed(struct upload_service *svc, struct session *s,
                                              struct api_error *err) BLOB_MUST_CHECK;
/* Called when another node that is taken for alive is completing the upload. If its blob has been made, s becomes what
 * the store knows of that: SESSION_COMPLETED, or still SESSION_COMPLETING. Otherwise the answer is UPLOAD_BUSY. */
enum api_code upload_recover_completing(struct upload_service *svc, struct session *s,
                                        struct api_error *err) BLOB_MUST_CHECK;
/* Sets s to what the store has, after it turned out to have less than the session says. */
enum api_code upload_recover_from_store(struct upload_service *svc, struct session *s,
                                        struct api_error *err) BLOB_MUST_CHECK;
/* Reads staged bytes until the hash has caught up with the offset. */
enum api_code upload_recover_hash(struct upload_service *svc, struct session *s, struct api_error *err) BLOB_MUST_CHECK;

/* ---- upload_decide.c ---- */

/* A complete that is known to bring no bytes. */
bool upload_decide_adds_nothing(const struct upload_request *req);

/* Token, then offset, then repeat; marks s (rotating, appends). readable: staged bytes can be read back. */
enum api_code upload_decide_append(const struct upload_request *req, bool readable, struct session *s,
                                   enum append_mode *mode, struct api_error *err) BLOB_MUST_CHECK;
enum api_code upload_decide_token(const struct upload_request *req, const struct session *s, struct upload_token *token,
                                  struct api_error *err) BLOB_MUST_CHECK;

/* ---- upload_settle.c ---- */

/* Flushes and counts what was written, as the end of an append; gives the session as it is then stored. */
enum api_code upload_settle(struct upload_append *a, struct api_error *err) BLOB_MUST_CHECK;
/* Says what the client is told when the session could not be moved. */
enum api_code upload_settle_persist_failed(struct upload_append *a, enum blob_status st, const char *what,
                                           const struct blob_error *detail, struct api_error *err);
/* Ends an older append of this process, whose bytes up to the last checkpoint stay. Its owner still has to call
 * upload_append_end(). */
void upload_settle_end_older(struct upload_append *old);
/* Takes back what came: the upload is a->before again, in the session first and in the store after it. */
enum api_code upload_settle_roll_back(struct upload_append *a, struct api_error *err) BLOB_MUST_CHECK;

/* ---- upload_checkpoint.c ---- */

/* Queues the checkpoint job of those whose last one is over. */
void upload_checkpoint_tick(struct upload_service *svc);

/* Notes in next, a session that is moved beyond where this append began, the hash of what came before the append. A
 * repeat of this chunk is hashed on from there. */
void upload_checkpoint_note_before(const struct upload_append *a, struct session *next);
/* Says how far should be flushed now: to all that is written, or to the end of its last whole part, or to flush_offset,
 * which means that nothing is due. Called with a->lock held. */
uint64_t upload_checkpoint_target(const struct upload_append *a, uint64_t written, int64_t now_us);
/* Starts a flush beside the writing where one is due; waits when two would be. Failures show in a->flush_status. */
void upload_checkpoint_maybe(struct upload_append *a);
/* Waits for the flush under way. */
void upload_checkpoint_wait(struct upload_append *a);
void upload_checkpoint_tick_run(struct worker_job *job);
/* In the caller's thread: makes the first offset bytes durable, then moves the session there. next is what to store,
 * its hash that of these bytes; its mark is set. */
enum blob_status upload_checkpoint_flush(struct upload_append *a, struct session *next, uint64_t offset,
                                         struct blob_error *err) BLOB_MUST_CHECK;

/* ---- upload_append.c, upload_complete.c ---- */

enum api_code upload_complete_finish(struct upload_append *a, struct upload_result *result,
                                     struct api_error *err) BLOB_MUST_CHECK;
/* Completes an upload whose content is the blob s->digest already; s is as rebuilt from its record. */
enum api_code upload_complete_committed(struct upload_service *svc, struct session *s, struct upload_result *result,
                                        struct api_error *err) BLOB_MUST_CHECK;
/* The answer of an upload that is completed: its file, or UPLOAD_COMPLETED where that has been destroyed since. */
enum api_code upload_complete_again(struct upload_service *svc, const struct session *s, struct upload_result *result,
                                    struct api_error *err) BLOB_MUST_CHECK;

/* ---- upload.c ---- */

/* Removes the upload if its time is over, by a wall clock that has not been set since `clock` began. Called in the
 * upload's lane. */
enum blob_status upload_remove_expired(struct upload_service *svc, const struct uuid *id,
                                       const struct clock_watch *clock, struct blob_error *detail) BLOB_MUST_CHECK;

#endif
