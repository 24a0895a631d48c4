/*
 * blob_cache - sharded by digest: a lookup takes one mutex that few others want, for the time of a hash chain's walk.
 *
 * Invariants.
 * - A table slot is one hold on its entry; every get and load gives out another; the last one given back frees it.
 *   Entries are never changed once others can see them, but for the links and times that the shard's lock guards.
 * - A load reads without a lock, while files come and go. So it signs in with its shard first; an invalidation marks
 *   the loads of that digest under way, and a marked load's entry is handed to its caller (whose request overlapped
 *   the change, and may be answered from before it) but not kept. Hence nothing that is kept is older than the latest
 *   invalidation.
 * - An entry has an asker: the one identity it is for, or "": then it is for whoever has no name of his own for the
 * blob. Where a blob has few files, that entry knows who they are; otherwise each known identity gets an entry of its
 * own. All entries of a blob are in one bucket, so that an invalidation finds them.
 * - Locks: one shard's or the suspects' at a time; no store, catalog or callback is called under it.
 */
#include "core/files/blob_cache.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARDS       16
#define ABSENT_SLOTS 256 /* of a shard */
#define CACHED_MAGIC 0x63616368u
#define SUSPECTS     64

struct cached {
    struct blob_entry entry; /* first: callers hold a pointer to it */
    unsigned magic;
    atomic_uint holds;
    size_t cost;
    /* Under the shard's lock. */
    struct cached *chain;         /* of the same bucket */
    struct cached *newer, *older; /* by last use */
    /* Set before others see it. */
    bool all_told; /* as in file_naming */
    unsigned owner_count;
    uint64_t owners[NAMING_OWNERS];
    char asker[OWNER_MAX + 1];
    int64_t touched_ms; /* of the blob, as it was opened */
    /* Under the lock again. */
    int64_t checked_ms; /* when the catalog was last asked */
};

/* A load under way. */
struct load {
    const struct digest *digest;
    bool stale;
    struct load *next;
};

/* A digest that no file named at that time; 0: none. Its slot is found by its bytes; a newer one takes its place. */
struct absent {
    struct digest digest;
    int64_t checked_ms;
};

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    struct cached **buckets;
    struct cached *newest, *oldest;
    size_t entries, bytes, readers;
    struct load *loads;
    struct absent *absent; /* ABSENT_SLOTS, or NULL */
};

struct suspect {
    struct digest digest;
    int64_t since_us; /* by the steady clock */
};

struct blob_cache {
    struct shard shards[SHARDS];
    struct blob_store *store;
    struct file_catalog *catalog;
    struct logger *log;
    struct blob_cache_options opt;
    size_t bucket_mask;
    size_t shard_entries, shard_bytes, shard_readers;
    struct metric *hits, *misses, *unknown, *corrupt, *entries, *bytes, *readers;
    pthread_mutex_t suspects_lock;
    struct suspect suspects[SUSPECTS]; /* under it: waiting to be read again, the oldest first */
    unsigned suspect_count;
};

static struct cached *cached_of(struct blob_entry *entry)
{
    struct cached *e = (struct cached *)entry;
    MAGIC_OK(e, CACHED_MAGIC);
    return e;
}

static struct shard *shard_of(struct blob_cache *cache, const struct digest *digest)
{
    return &cache->shards[digest->bytes[0] % SHARDS];
}

/* ---- an entry's life ---- */

static struct cached *entry_new(const struct file_naming *naming, const char *asker, size_t content_len)
{
    const struct file_record *file = &naming->file;
    struct cached *e = calloc(1, sizeof *e + content_len);
    if (!e)
        return NULL;
    e->magic = CACHED_MAGIC;
    atomic_init(&e->holds, 1);
    e->cost = sizeof *e + content_len;
    e->entry.digest = file->digest;
    e->entry.file = *file;
    e->entry.size = file->size;
    e->entry.fd = -1;
    e->entry.personal = naming->personal;
    e->all_told = naming->all_told;
    e->owner_count = naming->owner_count;
    memcpy(e->owners, naming->owners, sizeof e->owners);
    snprintf(e->asker, sizeof e->asker, "%s", asker);
    return e;
}

struct blob_entry *blob_cache_hold(struct blob_entry *entry)
{
    atomic_fetch_add_explicit(&cached_of(entry)->holds, 1, memory_order_relaxed);
    return entry;
}

void blob_cache_release(struct blob_cache *cache, struct blob_entry *entry)
{
    if (!entry)
        return;
    struct cached *e = cached_of(entry);
    if (atomic_fetch_sub_explicit(&e->holds, 1, memory_order_acq_rel) != 1)
        return;
    if (entry->extra && cache->opt.discard)
        cache->opt.discard(entry->extra, cache->opt.arg);
    reader_close(entry->reader);
    e->magic = 0;
    free(e);
}

/* ---- the table: everything here under the shard's lock ---- */

static bool is_of(const struct cached *e, const struct digest *digest)
{
    return memcmp(e->entry.digest.bytes, digest->bytes, DIGEST_BYTES) == 0;
}

/* asker NULL: whosoever. */
static struct cached **slot_of(struct blob_cache *cache, struct shard *sh, const struct digest *digest,
                               const char *asker)
{
    size_t hash;
    memcpy(&hash, digest->bytes + 1, sizeof hash);
    struct cached **slot = &sh->buckets[hash & cache->bucket_mask];
    while (*slot && (!is_of(*slot, digest) || (asker && strcmp((*slot)->asker, asker) != 0)))
        slot = &(*slot)->chain;
    return slot;
}

static void unlink_use(struct shard *sh, struct cached *e)
{
    *(e->newer ? &e->newer->older : &sh->newest) = e->older;
    *(e->older ? &e->older->newer : &sh->oldest) = e->newer;
}

static void link_newest(struct shard *sh, struct cached *e)
{
    e->newer = NULL;
    e->older = sh->newest;
    *(sh->newest ? &sh->newest->newer : &sh->oldest) = e;
    sh->newest = e;
}

/* Takes the entry out of its slot; the table's hold goes to the caller. */
static struct cached *take_out(struct blob_cache *cache, struct shard *sh, struct cached **slot)
{
    struct cached *e = *slot;
    *slot = e->chain;
    unlink_use(sh, e);
    size_t is_reader = e->entry.reader != NULL;
    sh->entries--;
    sh->bytes -= e->cost;
    sh->readers -= is_reader;
    metric_add(cache->entries, -1);
    metric_add(cache->bytes, -(int64_t)e->cost);
    metric_add(cache->readers, -(int64_t)is_reader);
    e->chain = NULL;
    return e;
}

/* What has to go so that the bounds hold, chained; NULL for nothing. */
static struct cached *take_out_excess(struct blob_cache *cache, struct shard *sh)
{
    struct cached *out = NULL, *e = sh->oldest;
    while (e) {
        bool crowded = sh->entries > cache->shard_entries || sh->bytes > cache->shard_bytes;
        bool too_many_open = sh->readers > cache->shard_readers;
        if (!crowded && !too_many_open)
            break;
        struct cached *newer = e->newer;
        if (crowded || e->entry.reader) {
            take_out(cache, sh, slot_of(cache, sh, &e->entry.digest, e->asker));
            e->chain = out;
            out = e;
        }
        e = newer;
    }
    return out;
}

/* Keeps a loaded entry (with a hold of the table's own) in place of an older one. Gives what goes for it, chained. */
static struct cached *put_in(struct blob_cache *cache, struct shard *sh, struct cached *e)
{
    struct cached **slot = slot_of(cache, sh, &e->entry.digest, e->asker), *replaced = NULL;
    if (*slot) {
        replaced = take_out(cache, sh, slot);
        slot = slot_of(cache, sh, &e->entry.digest, e->asker);
    }
    size_t is_reader = e->entry.reader != NULL;
    blob_cache_hold(&e->entry);
    e->chain = *slot;
    *slot = e;
    link_newest(sh, e);
    sh->entries++;
    sh->bytes += e->cost;
    sh->readers += is_reader;
    metric_add(cache->entries, 1);
    metric_add(cache->bytes, (int64_t)e->cost);
    metric_add(cache->readers, (int64_t)is_reader);
    struct cached *out = take_out_excess(cache, sh);
    if (replaced) {
        replaced->chain = out;
        out = replaced;
    }
    return out;
}

static void release_chain(struct blob_cache *cache, struct cached *e)
{
    while (e) {
        struct cached *next = e->chain;
        blob_cache_release(cache, &e->entry);
        e = next;
    }
}

static struct absent *absent_of(struct shard *sh, const struct digest *digest)
{
    return &sh->absent[digest->bytes[DIGEST_BYTES - 1] % ABSENT_SLOTS];
}

static bool is_absent(const struct blob_cache *cache, struct shard *sh, const struct digest *digest, int64_t now_ms)
{
    if (!sh->absent)
        return false;
    const struct absent *a = absent_of(sh, digest);
    return a->checked_ms != 0 && digest_equal(&a->digest, digest) && now_ms >= a->checked_ms &&
           now_ms - a->checked_ms < cache->opt.absent_ms;
}

/* ---- looking up, forgetting ---- */

static bool fresh(const struct blob_cache *cache, const struct cached *e, int64_t now_ms)
{
    if (e->entry.file.expires_ms != 0 && e->entry.file.expires_ms <= now_ms)
        return false;
    /* A clock that was set back makes an entry of the future: ask. */
    return cache->opt.max_age_ms == 0 || (now_ms >= e->checked_ms && now_ms - e->checked_ms < cache->opt.max_age_ms);
}

/* Is this what the identity is shown? */
static bool serves(const struct cached *e, const char *asker)
{
    if (strcmp(e->asker, asker) == 0)
        return true;
    if (e->asker[0] != '\0' || !e->all_told)
        return false;
    uint64_t hash = file_naming_hash(asker);
    for (unsigned i = 0; i < e->owner_count; i++) {
        if (e->owners[i] == hash)
            return false;
    }
    return true;
}

struct blob_entry *blob_cache_get(struct blob_cache *cache, const struct digest *digest, const char *asker,
                                  int64_t now_ms)
{
    asker = asker ? asker : "";
    struct shard *sh = shard_of(cache, digest);
    struct blob_entry *found = NULL;
    pthread_mutex_lock(&sh->lock);
    struct cached *e = *slot_of(cache, sh, digest, asker);
    if (!e || !fresh(cache, e, now_ms))
        e = *slot_of(cache, sh, digest, "");
    if (e && serves(e, asker) && fresh(cache, e, now_ms)) {
        found = blob_cache_hold(&e->entry);
        if (sh->newest != e) {
            unlink_use(sh, e);
            link_newest(sh, e);
        }
    }
    pthread_mutex_unlock(&sh->lock);
    if (found)
        metric_add(cache->hits, 1);
    return found;
}

enum blob_recall blob_cache_recall(struct blob_cache *cache, const struct digest *digest, int64_t now_ms)
{
    struct shard *sh = shard_of(cache, digest);
    pthread_mutex_lock(&sh->lock);
    bool stale = *slot_of(cache, sh, digest, NULL) != NULL;
    bool absent = !stale && !cache->opt.shared && is_absent(cache, sh, digest, now_ms);
    pthread_mutex_unlock(&sh->lock);
    if (absent)
        metric_add(cache->unknown, 1);
    return stale ? RECALL_STALE : absent ? RECALL_ABSENT : RECALL_NOTHING;
}

void blob_cache_invalidate(struct blob_cache *cache, const struct digest *digest)
{
    struct shard *sh = shard_of(cache, digest);
    struct cached *out = NULL;
    pthread_mutex_lock(&sh->lock);
    for (struct load *load = sh->loads; load; load = load->next) {
        if (memcmp(load->digest->bytes, digest->bytes, DIGEST_BYTES) == 0)
            load->stale = true;
    }
    if (sh->absent && digest_equal(&absent_of(sh, digest)->digest, digest))
        absent_of(sh, digest)->checked_ms = 0;
    struct cached **slot;
    while (*(slot = slot_of(cache, sh, digest, NULL))) {
        struct cached *e = take_out(cache, sh, slot);
        e->chain = out;
        out = e;
    }
    pthread_mutex_unlock(&sh->lock);
    release_chain(cache, out);
}

void blob_cache_suspect(struct blob_cache *cache, const struct digest *digest)
{
    blob_cache_invalidate(cache, digest);
    pthread_mutex_lock(&cache->suspects_lock);
    bool known = cache->suspect_count == SUSPECTS;
    for (unsigned i = 0; i < cache->suspect_count && !known; i++)
        known = digest_equal(&cache->suspects[i].digest, digest);
    if (!known)
        cache->suspects[cache->suspect_count++] = (struct suspect){*digest, clock_steady_us()};
    pthread_mutex_unlock(&cache->suspects_lock);
}

bool blob_cache_next_suspect(struct blob_cache *cache, int64_t min_age_ms, struct digest *out)
{
    pthread_mutex_lock(&cache->suspects_lock);
    bool any = cache->suspect_count > 0 && clock_steady_us() - cache->suspects[0].since_us >= min_age_ms * 1000;
    if (any) {
        *out = cache->suspects[0].digest;
        cache->suspect_count--;
        memmove(cache->suspects, cache->suspects + 1, cache->suspect_count * sizeof cache->suspects[0]);
    }
    pthread_mutex_unlock(&cache->suspects_lock);
    return any;
}

static void on_file_change(const struct digest *digest, void *arg)
{
    blob_cache_invalidate(arg, digest);
}

/* ---- loading ---- */

static enum blob_status is_corrupt(struct blob_cache *cache, const struct file_record *file, struct blob_error *err,
                                   const char *what)
{
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(&file->digest, hex);
    log_line(cache->log, LOG_ERROR, NULL, "blob %s %s, although file %s names it", hex, what, file->id);
    metric_add(cache->corrupt, 1);
    return blob_fail(err, BLOB_E_CORRUPT, 0, "blob %s %s", hex, what);
}

/* No blob, though a record was there a moment ago: destroyed and swept in between, or lost. */
static enum blob_status blob_is_missing(struct blob_cache *cache, const struct digest *digest, struct blob_error *err)
{
    struct file_naming naming;
    enum blob_status st = file_catalog_name(cache->catalog, digest, NULL, &naming, err);
    return st == BLOB_OK ? is_corrupt(cache, &naming.file, err, "is missing") : st;
}

/* Small content as it arrives; *right: it is what was asked for. */
static enum blob_status read_once(const struct cached *e, struct blob_reader *reader, uint8_t *content, bool *right,
                                  struct blob_error *err)
{
    size_t len = (size_t)e->entry.size;
    enum blob_status st = len ? reader_read(reader, 0, content, len, err) : BLOB_OK;
    if (st != BLOB_OK)
        return st;
    struct hash hash;
    struct digest actual;
    hash_init(&hash);
    hash_update(&hash, content, len);
    hash_peek(&hash, &actual);
    *right = digest_equal(&actual, &e->entry.digest);
    return BLOB_OK;
}

/* Nobody can tell whether a remote store keeps wrong bytes, or right ones were damaged on their way. */
static enum blob_status arrives_wrong(const struct cached *e, struct blob_error *err)
{
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(&e->entry.digest, hex);
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "blob %s came twice from the store with bytes of another digest", hex);
}

/* Wrong twice. In a local store it is set aside, and known to be damaged; in a remote one it is looked at beside. */
static enum blob_status is_wrong(struct blob_cache *cache, const struct cached *e, enum blob_status st,
                                 int64_t touched_ms, struct blob_error *err)
{
    const struct digest *digest = &e->entry.digest;
    const char *what = st == BLOB_E_CORRUPT ? "is cut short" : "does not match its digest";
    if (cache->store->caps & STORE_REMOTE) {
        blob_cache_suspect(cache, digest);
        return st == BLOB_E_CORRUPT ? is_corrupt(cache, &e->entry.file, err, what) : arrives_wrong(e, err);
    }
    struct blob_error why;
    enum blob_status aside = blob_set_aside(cache->store, digest, touched_ms, &why);
    if (aside != BLOB_OK && aside != BLOB_E_NOT_FOUND && aside != BLOB_E_CONFLICT)
        log_line(cache->log, LOG_WARN, NULL, "a damaged blob could not be set aside: %s", why.text);
    return is_corrupt(cache, &e->entry.file, err, what);
}

/* Reads and verifies a small blob; closes the reader. What is wrong is opened and read once more: it may have been
 * damaged on its way, or replaced meanwhile. */
static enum blob_status read_content(struct blob_cache *cache, struct cached *e, struct blob_reader *reader,
                                     int64_t touched_ms, struct blob_error *err)
{
    uint8_t *content = (uint8_t *)(e + 1);
    bool right = false;
    enum blob_status st = read_once(e, reader, content, &right, err);
    reader_close(reader);
    if (st == BLOB_E_CORRUPT || (st == BLOB_OK && !right)) {
        struct blob_info info;
        st = blob_open(cache->store, &e->entry.digest, &reader, &info, err);
        if (st == BLOB_E_NOT_FOUND)
            return blob_is_missing(cache, &e->entry.digest, err);
        if (st != BLOB_OK)
            return st;
        touched_ms = info.touched_ms;
        st = info.size == e->entry.size ? read_once(e, reader, content, &right, err) : BLOB_E_CORRUPT;
        reader_close(reader);
    }
    if (st == BLOB_E_CORRUPT || (st == BLOB_OK && !right))
        return is_wrong(cache, e, st, touched_ms, err);
    if (st != BLOB_OK)
        return st;
    e->entry.content = content;
    return BLOB_OK;
}

static enum blob_status open_entry(struct blob_cache *cache, const struct file_naming *naming, const char *asker,
                                   struct cached **out, struct blob_error *err)
{
    const struct file_record *file = &naming->file;
    struct blob_reader *reader;
    struct blob_info info;
    enum blob_status st = blob_open(cache->store, &file->digest, &reader, &info, err);
    if (st == BLOB_E_NOT_FOUND)
        return blob_is_missing(cache, &file->digest, err);
    if (st != BLOB_OK)
        return st;
    if (info.size != file->size) {
        reader_close(reader);
        blob_cache_suspect(cache, &file->digest);
        return is_corrupt(cache, file, err, "has another size than recorded");
    }
    bool small = file->size <= cache->opt.content_max;
    struct cached *e = entry_new(naming, asker, small ? (size_t)file->size : 0);
    if (!e) {
        reader_close(reader);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "cache entry");
    }
    if (small) {
        st = read_content(cache, e, reader, info.touched_ms, err);
    } else {
        e->entry.reader = reader;
        e->entry.fd = reader_fd(reader);
        e->touched_ms = info.touched_ms;
    }
    if (st != BLOB_OK) {
        blob_cache_release(cache, &e->entry);
        return st;
    }
    if (cache->opt.prepare)
        e->entry.extra = cache->opt.prepare(&e->entry, cache->opt.arg);
    *out = e;
    return BLOB_OK;
}

static void begin_load(struct shard *sh, struct load *load)
{
    pthread_mutex_lock(&sh->lock);
    load->next = sh->loads;
    sh->loads = load;
    pthread_mutex_unlock(&sh->lock);
}

/* Does the entry say what was found? */
static bool says(const struct cached *e, const struct file_naming *naming)
{
    return strcmp(e->entry.file.id, naming->file.id) == 0 && e->entry.personal == naming->personal &&
           e->all_told == naming->all_told && e->owner_count == naming->owner_count &&
           memcmp(e->owners, naming->owners, sizeof e->owners) == 0;
}

/* Gives a hold on the entry there is, perhaps too old, where it says what was found. */
static struct cached *find_right(struct blob_cache *cache, struct shard *sh, const struct file_naming *naming,
                                 const char *asker)
{
    pthread_mutex_lock(&sh->lock);
    struct cached *known = *slot_of(cache, sh, &naming->file.digest, asker);
    if (known && !says(known, naming))
        known = NULL;
    if (known)
        blob_cache_hold(&known->entry);
    pthread_mutex_unlock(&sh->lock);
    return known;
}

/* Is the open file still the blob's? Another node may have replaced a damaged one. What is read from a remote store is
 * hashed as it passes, and need not be asked for. */
static bool still_stored(struct blob_cache *cache, const struct cached *e)
{
    struct blob_info info;
    struct blob_error ignored;
    return e->entry.fd < 0 ||
           (blob_stat(cache->store, &e->entry.digest, &info, &ignored) == BLOB_OK && info.touched_ms == e->touched_ms);
}

/* What a load has come to. */
struct loaded {
    struct cached *made;  /* NULL: nothing new */
    struct cached *right; /* what there was is right still */
    bool absent;          /* no file names it */
};

/* Signs it out, and keeps what it came to, unless something changed meanwhile. What was found is not put in again once
 * it is out: whoever took it out may be using its chain. */
static void end_load(struct blob_cache *cache, struct shard *sh, struct load *load, const struct loaded *loaded,
                     int64_t now_ms)
{
    struct cached *out = NULL, *made = loaded->made;
    pthread_mutex_lock(&sh->lock);
    struct load **link = &sh->loads;
    while (*link != load)
        link = &(*link)->next;
    *link = load->next;
    if (made && !load->stale) {
        made->checked_ms = now_ms;
        out = put_in(cache, sh, made);
    }
    if (loaded->right && !load->stale)
        loaded->right->checked_ms = now_ms;
    if (loaded->absent && sh->absent && !load->stale)
        *absent_of(sh, load->digest) = (struct absent){.digest = *load->digest, .checked_ms = now_ms};
    pthread_mutex_unlock(&sh->lock);
    release_chain(cache, out);
}

/* Is it remembered as absent, and has nobody added it since? Where other nodes cannot be asked after, as long as that
 * is remembered. */
static bool still_absent(struct blob_cache *cache, struct shard *sh, const struct digest *digest, int64_t now_ms)
{
    struct blob_error ignored;
    pthread_mutex_lock(&sh->lock);
    bool absent = is_absent(cache, sh, digest, now_ms);
    pthread_mutex_unlock(&sh->lock);
    if (!absent)
        return false;
    if (cache->opt.shared && file_catalog_added_lately(cache->catalog, digest, &ignored) == BLOB_OK)
        return false;
    metric_add(cache->unknown, 1);
    return true;
}

enum blob_status blob_cache_load(struct blob_cache *cache, const struct digest *digest, const char *asker,
                                 int64_t now_ms, struct blob_entry **out, struct blob_error *err)
{
    struct shard *sh = shard_of(cache, digest);
    struct load load = {.digest = digest};
    struct loaded loaded = {.absent = false};
    struct file_naming naming;
    if (still_absent(cache, sh, digest, now_ms))
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "no file names this blob");
    metric_add(cache->misses, 1);
    begin_load(sh, &load);
    enum blob_status st = file_catalog_name(cache->catalog, digest, asker, &naming, err);
    if (st == BLOB_OK) {
        /* One for all, where it can be told from it who must not be shown it. */
        const char *whose = asker && (naming.personal || !naming.all_told) ? asker : "";
        /* The same name: only the entry's age was in doubt. */
        loaded.right = find_right(cache, sh, &naming, whose);
        if (loaded.right && !still_stored(cache, loaded.right)) {
            blob_cache_release(cache, &loaded.right->entry);
            loaded.right = NULL;
        }
        if (!loaded.right)
            st = open_entry(cache, &naming, whose, &loaded.made, err);
    }
    loaded.absent = st == BLOB_E_NOT_FOUND;
    end_load(cache, sh, &load, &loaded, now_ms);
    if (st == BLOB_OK)
        *out = loaded.right ? &loaded.right->entry : &loaded.made->entry;
    return st;
}

/* ---- the cache's life ---- */

static void register_metrics(struct blob_cache *cache, struct metrics *m)
{
    cache->hits = metrics_counter(m, "blobd_cache_hits_total", "Downloads answered from the cache", NULL);
    cache->misses = metrics_counter(m, "blobd_cache_misses_total", "Downloads that asked the stores", NULL);
    cache->unknown =
        metrics_counter(m, "blobd_cache_unknown_total", "Downloads of digests that were remembered as unknown", NULL);
    cache->corrupt = metrics_counter(m, "blobd_corrupt_blobs_total",
                                     "Blobs found missing or damaged although a file names them", NULL);
    cache->entries = metrics_gauge(m, "blobd_cache_entries", "Blobs in the cache", NULL);
    cache->bytes = metrics_gauge(m, "blobd_cache_bytes", "Memory of the cache", NULL);
    cache->readers = metrics_gauge(m, "blobd_cache_readers", "Blobs the cache keeps open", NULL);
}

struct blob_cache *blob_cache_new(struct blob_store *store, struct file_catalog *catalog, struct logger *log,
                                  struct metrics *metrics, const struct blob_cache_options *opt)
{
    CHECK(opt->content_max <= BLOB_CACHE_CONTENT_MAX);
    struct blob_cache *cache = aligned_alloc(_Alignof(struct blob_cache), sizeof *cache);
    CHECK(cache != NULL);
    memset(cache, 0, sizeof *cache);
    cache->store = store;
    cache->catalog = catalog;
    cache->log = log;
    cache->opt = *opt;
    cache->shard_entries = (opt->max_entries + SHARDS - 1) / SHARDS;
    cache->shard_bytes = (opt->max_bytes + SHARDS - 1) / SHARDS;
    cache->shard_readers = (opt->max_readers + SHARDS - 1) / SHARDS;
    size_t buckets = 16;
    while (buckets < cache->shard_entries)
        buckets *= 2;
    cache->bucket_mask = buckets - 1;
    CHECK(pthread_mutex_init(&cache->suspects_lock, NULL) == 0);
    for (int i = 0; i < SHARDS; i++) {
        struct shard *sh = &cache->shards[i];
        sh->buckets = calloc(buckets, sizeof *sh->buckets);
        if (opt->absent_ms > 0)
            sh->absent = calloc(ABSENT_SLOTS, sizeof *sh->absent); /* without memory: nothing is remembered */
        CHECK(sh->buckets != NULL && pthread_mutex_init(&sh->lock, NULL) == 0);
    }
    if (metrics)
        register_metrics(cache, metrics);
    file_catalog_watch(catalog, on_file_change, cache);
    return cache;
}

void blob_cache_free(struct blob_cache *cache)
{
    if (!cache)
        return;
    file_catalog_watch(cache->catalog, NULL, NULL);
    for (int i = 0; i < SHARDS; i++) {
        struct shard *sh = &cache->shards[i];
        CHECK(sh->loads == NULL);
        while (sh->oldest) {
            struct cached *e = take_out(cache, sh, slot_of(cache, sh, &sh->oldest->entry.digest, sh->oldest->asker));
            CHECK(atomic_load(&e->holds) == 1);
            blob_cache_release(cache, &e->entry);
        }
        free(sh->buckets);
        free(sh->absent);
        pthread_mutex_destroy(&sh->lock);
    }
    pthread_mutex_destroy(&cache->suspects_lock);
    free(cache);
}
