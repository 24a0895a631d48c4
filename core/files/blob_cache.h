/*
 * blob_cache - what a hot download needs, kept ready, so that an event loop answers it without a worker.
 *
 * An entry says what a blob is called (file_catalog_name) and either holds its content (small blobs) or an open reader
 * whose descriptor any number of answers share. Entries never change; what a newer file or a destroyed one makes
 * wrong is dropped, not edited. Bounded in entries, bytes and open readers; the least recently used goes first. What
 * is not there is remembered for a moment (absent_ms), in a table of fixed size.
 *
 * Freshness. The cache watches its catalog (file_catalog_watch), so whatever this process adds or destroys is seen by
 * the next blob_cache_get(), also when a load of the old state was under way. What other nodes do is seen after
 * max_age_ms at the latest; but a file that another node has added is seen at once, also by a digest that was
 * remembered as absent (file_catalog_added_lately). A file past its expires_at is not served.
 *
 * Threads: every function from any thread. blob_cache_get() and blob_cache_release() take one short lock and do no
 * I/O (releasing the last hold on an entry with a reader closes it); blob_cache_load() reads the stores: workers only.
 * Ownership: get and load give a hold on an entry, to be given back with blob_cache_release(); the cache borrows store,
 * catalog and logger. Units: bytes; milliseconds of the wall clock (clock_wall_ms).
 */
#ifndef BLOBD_CORE_FILES_BLOB_CACHE_H
#define BLOBD_CORE_FILES_BLOB_CACHE_H

#include "core/files/file_catalog.h"

struct logger;
struct metrics;
struct blob_cache;

/* Read only. The strings and content live as long as the hold. */
struct blob_entry {
    struct digest digest;
    struct file_record file; /* what it is called */
    bool personal;           /* by a name of the identity that asked, which nobody else is shown */
    uint64_t size;
    const uint8_t *content;     /* the whole blob, verified against its digest; NULL: read it through reader */
    struct blob_reader *reader; /* NULL where there is content */
    int fd;                     /* the reader's, for sendfile; -1 where there is none */
    void *extra;                /* what options.prepare made of it, or NULL */
};

struct blob_cache_options {
    size_t max_entries;
    size_t max_bytes;   /* of content, entries' own bookkeeping included */
    size_t max_readers; /* open readers kept (each may be a descriptor) */
    size_t content_max; /* blobs up to this size are kept as content; at most BLOB_CACHE_CONTENT_MAX */
    int64_t max_age_ms; /* how long before the catalog is asked again; 0: never (one node only) */
    int64_t absent_ms;  /* how long an unknown digest is remembered; 0: it is not */
    bool shared;        /* other nodes add files, too: whether one has is asked before an absence is believed */
    /* Called by blob_cache_load(), on its thread, once for each new entry, so that what every answer repeats (header
     * lines) is made once. May be NULL. NULL as its result is fine. */
    void *(*prepare)(const struct blob_entry *entry, void *arg);
    /* Frees what prepare made; on the thread that gives back the last hold. */
    void (*discard)(void *extra, void *arg);
    void *arg;
};

#define BLOB_CACHE_CONTENT_MAX (1u << 20)

/* Copies opt. metrics may be NULL. */
struct blob_cache *blob_cache_new(struct blob_store *store, struct file_catalog *catalog, struct logger *log,
                                  struct metrics *metrics, const struct blob_cache_options *opt);
/* To be called when no holds are out and the catalog is not used. NULL is fine. */
void blob_cache_free(struct blob_cache *cache);

/* asker is the identity that asks, NULL or "" where it is not known. Gives NULL where the blob is not there for that
 * identity, or is too old: then ask blob_cache_load(), from a worker. */
struct blob_entry *blob_cache_get(struct blob_cache *cache, const struct digest *digest, const char *asker,
                                  int64_t now_ms);
/* What is known of a digest that blob_cache_get() does not have. It too takes one short lock and does no I/O. */
enum blob_recall {
    RECALL_NOTHING,
    RECALL_STALE, /* there was such a blob a moment ago: an entry is too old, or another's */
    RECALL_ABSENT /* there is none */
};
enum blob_recall blob_cache_recall(struct blob_cache *cache, const struct digest *digest, int64_t now_ms);
/*
 * Reads catalog and store, and keeps the entry where it fits.
 * NOT_FOUND: no file names this blob. CORRUPT: a file does, but the blob is missing, of another size than recorded, or
 * (content only) not what its digest says, twice in a row: logged, counted, not served, and set aside in the store, so
 * that an upload of the same content heals it. UNAVAILABLE: from a remote store it arrived wrong twice, which tells
 * nothing yet of what is stored: it becomes a suspect.
 */
enum blob_status blob_cache_load(struct blob_cache *cache, const struct digest *digest, const char *asker,
                                 int64_t now_ms, struct blob_entry **out, struct blob_error *err) BLOB_MUST_CHECK;
/* One more hold on an entry already held. */
struct blob_entry *blob_cache_hold(struct blob_entry *entry);
/* Gives a hold back. NULL is fine. */
void blob_cache_release(struct blob_cache *cache, struct blob_entry *entry);

/* Forgets a blob (the sweeper removed it, scrubbing found it damaged). Holds already given stay valid. */
void blob_cache_invalidate(struct blob_cache *cache, const struct digest *digest);
/* The same, for one that was read and did not match its digest: remembers it, to be read again (scrubber_recheck).
 * Where more are waiting than it remembers, the next reading will find this one. */
void blob_cache_suspect(struct blob_cache *cache, const struct digest *digest);
/* Gives the suspect that has waited longest, which is then forgotten. false: none has waited for min_age_ms. */
bool blob_cache_next_suspect(struct blob_cache *cache, int64_t min_age_ms, struct digest *out);

#endif
