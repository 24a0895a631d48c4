/*
 * session_store - the contract of what nodes share: upload sessions, the file index, leases, messages.
 * Implement struct session_store_ops to add one; tests/contract/ judges the result.
 *
 * It is never the truth. Whatever was acknowledged can be rebuilt from the blob store: sessions by upload, the
 * index by file_catalog. So an implementation may lose everything, but it must not mix: a value read back is one
 * that was written whole, a compare-and-swap that answered OK was the only one on that epoch.
 *
 * Sessions are opaque bytes of core's, under a UUID, with an epoch and an expiry. Every change is a compare-and-swap on
 * the epoch. Epochs only grow while the store forgets nothing; callers choose them so that no two changes share one
 * even where it did (a clock's microseconds), or a writer from before could pass for one from after.
 *
 * Threads: every operation from any thread. Ownership: arguments are borrowed until return. Units: milliseconds since
 * the epoch (UTC). Durability: survives kill -9 of blobd where the implementation can (embedded: yes; Redis: as it
 * is set up); power loss may lose the latest changes.
 *
 * Errors any operation may give besides those listed: UNAVAILABLE (answered within the configured time-outs; retry
 * later), IO, NO_SPACE, NO_MEMORY. After UNAVAILABLE a change may have happened or not: load again and look.
 */
#ifndef BLOBD_CORE_SESSION_STORE_H
#define BLOBD_CORE_SESSION_STORE_H

#include "core/identity.h"
#include "core/status.h"
#include "core/text/bytebuf.h"
#include "core/uuid.h"

#include <stddef.h>
#include <stdint.h>

struct session_store;
struct metrics;
struct op_metrics;
struct node_clock;

#define SESSIONS_SHARED (1u << 0) /* several nodes use it at a time: take-overs are announced, leases matter */

#define SESSION_VALUE_MAX 4096
#define NODE_ID_CHARS     36

/* ---- the file index: one row a file, answering /api/files ---- */

#define FILE_ID_MAX      80
#define FILE_NAME_MAX    255
#define INDEX_VALUE_MAX  65536
#define INDEX_STEM_CHARS 42 /* ids of files with the same content begin with the same so many characters */
#define INDEX_RECENT_MS  3000
#define INDEX_TOP_MAX    100
#define INDEX_SKIP_MAX   UINT64_C(100000000) /* farther than anybody turns pages */

struct index_row {
    char id[FILE_ID_MAX];
    char name[FILE_NAME_MAX + 1];
    char owner[OWNER_MAX + 1]; /* "" where unknown */
    uint64_t size;
    int64_t created_ms;
    int64_t expires_ms; /* 0: never */
    uint32_t value_len; /* the record's JSON, given back with the row */
    const void *value;  /* borrowed */
};

/* A row to put along with another change, and what became of it. */
struct index_put {
    const struct index_row *row; /* borrowed */
    enum blob_status st;
    struct blob_error err;
};

/* Names are compared as search compares them: by the bytes of their folded form, so "a" and "A" are equal. */
enum index_key { INDEX_BY_CREATED, INDEX_BY_NAME, INDEX_BY_SIZE };

struct index_order {
    enum index_key key;
    bool descending;
};

#define INDEX_ORDER_MAX 3

struct index_query {
    const char *owner;  /* only this owner's; NULL: all */
    const char *search; /* part of the name, compared under casefold_equal's folding; NULL: all */
    struct index_order order[INDEX_ORDER_MAX];
    unsigned orders; /* at least 1; rows equal in all of them are ordered by id, in the direction of the first */
    uint64_t skip;
    unsigned top; /* 1 to INDEX_TOP_MAX */
};

/* Returning false ends the listing. row is borrowed for the call. */
typedef bool index_row_fn(const struct index_row *row, void *arg);

/* A take-over of an upload by a newer append, perhaps on another node. Called on a thread of the store's own. */
typedef void session_notice_fn(const struct uuid *id, uint64_t epoch, void *arg);

struct session_store_ops {
    const char *name; /* as in sessions.store */
    void (*close)(struct session_store *s);

    /*
     * Enters this node, with the id of the blob store that it sees and the time by its clock. Called once, before
     * serving. CONFLICT, with a text that says what to change: another live node sees a different blob store, the
     * clocks differ too much, or (embedded) another live process uses this store.
     */
    enum blob_status (*join)(struct session_store *s, const char *node_id, const char *store_id, int64_t now_ms,
                             struct blob_error *err);
    /* Can the store be reached? A cheap check, for /readyz: if not, that says "degraded". */
    enum blob_status (*check)(struct session_store *s, struct blob_error *err);

    /* ---- sessions ---- */

    /* Adds a session with this epoch, which is at least 1. EXISTS: it is there already. */
    enum blob_status (*insert)(struct session_store *s, const struct uuid *id, uint64_t epoch, const void *value,
                               size_t len, int64_t expires_ms, struct blob_error *err);
    /* Appends the value to out. NOT_FOUND: not there, or expired. */
    enum blob_status (*load)(struct session_store *s, const struct uuid *id, struct bytebuf *out, uint64_t *epoch,
                             struct blob_error *err);
    /* Replaces a session if its epoch is `expected`. Its epoch becomes `next`, which is greater. CONFLICT: it has
     * another epoch. NOT_FOUND: there is none. */
    enum blob_status (*replace)(struct session_store *s, const struct uuid *id, uint64_t expected, uint64_t next,
                                const void *value, size_t len, int64_t expires_ms, struct blob_error *err);
    /* Removes a session, whatever its epoch. OK also when it is not there. */
    enum blob_status (*remove)(struct session_store *s, const struct uuid *id, struct blob_error *err);
    /* Drops what expired before now_ms (a store with TTLs of its own does nothing). */
    enum blob_status (*sweep)(struct session_store *s, int64_t now_ms, struct blob_error *err);

    /* ---- messages and leases; NULL without SESSIONS_SHARED ---- */

    /* Tells the other nodes that id has a newer writer, of this epoch. Best effort: fencing does not depend on it. */
    void (*announce)(struct session_store *s, const struct uuid *id, uint64_t epoch);
    /* Says who is called for announcements of other nodes. Called once, before join, and with fn NULL to end it: when
     * that returns, no call of fn is under way and none follows. It must not be called from within fn. */
    void (*listen)(struct session_store *s, session_notice_fn *fn, void *arg);
    /* Takes or renews a named lease for ttl_ms. CONFLICT: another node holds it. */
    enum blob_status (*lease)(struct session_store *s, const char *name, int64_t ttl_ms, struct blob_error *err);

    /* ---- the file index ---- */

    /* Adds or replaces rows. The implementation may gather puts and write them later, so long as a listing begun after
     * the put returned, on the same node, shows it. */
    enum blob_status (*index_put)(struct session_store *s, const struct index_row *row, struct blob_error *err);
    /*
     * Does index_put and then replace in one, for less than both cost apart. Each has a result of its own (put->st, and
     * what is returned), and neither depends on the other's. But nobody sees the session replaced and the row not yet
     * put. NULL: the wrapper calls them one after the other.
     */
    enum blob_status (*replace_listed)(struct session_store *s, const struct uuid *id, uint64_t expected, uint64_t next,
                                       const void *value, size_t len, int64_t expires_ms, struct index_put *put,
                                       struct blob_error *err);
    /*
     * Has any node put a row whose id begins with these INDEX_STEM_CHARS within INDEX_RECENT_MS? OK: one has, perhaps
     * a little earlier. NOT_FOUND: none has. A row of replace_listed counts from the moment at which the session is
     * seen replaced. Cheap. NULL without SESSIONS_SHARED.
     */
    enum blob_status (*index_recent)(struct session_store *s, const char *stem, struct blob_error *err);
    /* OK also when it is not there. */
    enum blob_status (*index_remove)(struct session_store *s, const char *id, struct blob_error *err);
    /* Sets *count to how many rows match, whatever skip and top are, then calls fn for each row of the page. */
    enum blob_status (*index_list)(struct session_store *s, const struct index_query *q, uint64_t *count,
                                   index_row_fn *fn, void *arg, struct blob_error *err);
    /* Calls fn for at most limit rows with 0 < expires_ms < now_ms. */
    enum blob_status (*index_expired)(struct session_store *s, int64_t now_ms, size_t limit, index_row_fn *fn,
                                      void *arg, struct blob_error *err);
    /* Is the index whole? NOT_FOUND: it is missing, was not closed cleanly, or is of an earlier time: rebuild it.
     * Cheap: asked before every listing. */
    enum blob_status (*index_whole)(struct session_store *s, struct blob_error *err);
    /* Tells the store that all puts and removals of this node that had failed have been repeated. While they were not,
     * index_whole may have said NOT_FOUND. NULL: such failures make no difference to it. */
    void (*index_caught_up)(struct session_store *s);
    /* Begins a rebuild: rows put from now on are kept, the others go when it ends. Meanwhile index_list would show what
     * there is, and index_whole is NOT_FOUND. */
    enum blob_status (*index_rebuild_begin)(struct session_store *s, struct blob_error *err);
    /* Ends the rebuild. From now on index_whole is OK. */
    enum blob_status (*index_rebuild_end)(struct session_store *s, struct blob_error *err);
};

/* An implementation embeds this as the first member; open fills it. */
struct session_store {
    const struct session_store_ops *ops;
    unsigned caps;
    struct op_metrics *metrics; /* NULL until attached */
    struct node_clock *clock;   /* by which sessions and files end; NULL: the wall clock. Set before join */
};

/* ---- what callers use: one thin wrapper a callback, of the same meaning ---- */

void session_store_attach_metrics(struct session_store *s, struct metrics *metrics);
void session_store_close(struct session_store *s); /* NULL is fine */
enum blob_status session_store_join(struct session_store *s, const char *node_id, const char *store_id, int64_t now_ms,
                                    struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status session_store_check(struct session_store *s, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status session_insert(struct session_store *s, const struct uuid *id, uint64_t epoch, const void *value,
                                size_t len, int64_t expires_ms, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status session_load(struct session_store *s, const struct uuid *id, struct bytebuf *out, uint64_t *epoch,
                              struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status session_replace(struct session_store *s, const struct uuid *id, uint64_t expected, uint64_t next,
                                 const void *value, size_t len, int64_t expires_ms,
                                 struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status session_remove(struct session_store *s, const struct uuid *id, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status session_sweep(struct session_store *s, int64_t now_ms, struct blob_error *err) BLOB_MUST_CHECK;
/* These two do nothing without SESSIONS_SHARED. */
void session_announce(struct session_store *s, const struct uuid *id, uint64_t epoch);
void session_listen(struct session_store *s, session_notice_fn *fn, void *arg);
/* OK at once without SESSIONS_SHARED. */
enum blob_status session_lease(struct session_store *s, const char *name, int64_t ttl_ms,
                               struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status index_put(struct session_store *s, const struct index_row *row,
                           struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status session_replace_listed(struct session_store *s, const struct uuid *id, uint64_t expected,
                                        uint64_t next, const void *value, size_t len, int64_t expires_ms,
                                        struct index_put *put, struct blob_error *err) BLOB_MUST_CHECK;
/* NOT_FOUND at once without SESSIONS_SHARED. */
enum blob_status index_recent(struct session_store *s, const char *stem, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status index_remove(struct session_store *s, const char *id, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status index_list(struct session_store *s, const struct index_query *q, uint64_t *count, index_row_fn *fn,
                            void *arg, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status index_expired(struct session_store *s, int64_t now_ms, size_t limit, index_row_fn *fn, void *arg,
                               struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status index_whole(struct session_store *s, struct blob_error *err) BLOB_MUST_CHECK;
void index_caught_up(struct session_store *s);
enum blob_status index_rebuild_begin(struct session_store *s, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status index_rebuild_end(struct session_store *s, struct blob_error *err) BLOB_MUST_CHECK;

#endif
