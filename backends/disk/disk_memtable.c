/*
 * disk_memtable - shards of entries by key, each with its list from the oldest to the newest.
 *
 * An entry is the latest change of its key. A newer one takes its place and its pin moves on: in the journal both are
 * there, in order, so a crash ends with the newer whatever was written to the file. Entries older than LINGER_US are
 * written by those who put new ones, a few at a time, so that what is kept here follows the rate of puts; the rest is
 * the checkpoint's. An entry that cannot be written (the disk is full) stays, and keeps its journal segment.
 */
#include "backends/disk/disk_memtable.h"

#include "backends/disk/disk_crowds.h"
#include "backends/disk/disk_impl.h"
#include "backends/disk/file/durable_file.h"
#include "core/check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHARDS         64u
#define BUCKETS        64u
#define LINGER_US      250000
#define WRITES_PER_PUT 2
#define FILE_BYTES     (64u << 10) /* must be free, the reserve included, for a file to be written later */

struct entry {
    struct entry *chain;         /* in its bucket */
    struct entry *older, *newer; /* in its shard */
    struct journal_ticket ticket;
    int64_t since_us;
    uint64_t hash;
    bool deleted;
    bool promised; /* somebody waits for it, or for an older one that is not durable yet */
    uint32_t len;
    char *value; /* behind the key, in the same allocation */
    char key[];
};

struct shard {
    /* A put holds `order` from its look at the key to its entry, so that puts of a key are journaled in order. */
    pthread_mutex_t order;
    /* `lock` guards the rest, and the files of the shard's keys. It is never held while the journal may wait. */
    pthread_mutex_t lock;
    struct entry *buckets[BUCKETS];
    struct entry *oldest, *newest;
};

struct disk_memtable {
    struct disk_store *store;
    struct shard shards[SHARDS];
};

static void shard_init(struct shard *shard)
{
    pthread_mutex_init(&shard->order, NULL);
    pthread_mutex_init(&shard->lock, NULL);
}

struct disk_memtable *disk_memtable_new(struct disk_store *store)
{
    struct disk_memtable *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->store = store;
    for (unsigned i = 0; i < SHARDS; i++)
        shard_init(&m->shards[i]);
    return m;
}

static struct shard *shard_of(struct disk_memtable *m, uint64_t hash)
{
    return &m->shards[(hash >> 32) % SHARDS];
}

static struct entry **slot_of(struct shard *shard, uint64_t hash, const char *key)
{
    struct entry **slot = &shard->buckets[hash % BUCKETS];
    while (*slot && ((*slot)->hash != hash || strcmp((*slot)->key, key) != 0))
        slot = &(*slot)->chain;
    return slot;
}

static void entry_drop(struct shard *shard, struct entry **slot)
{
    struct entry *e = *slot;
    *slot = e->chain;
    if (e->older)
        e->older->newer = e->newer;
    else
        shard->oldest = e->newer;
    if (e->newer)
        e->newer->older = e->older;
    else
        shard->newest = e->older;
    free(e);
}

static void entry_add(struct shard *shard, struct entry *e)
{
    struct entry **bucket = &shard->buckets[e->hash % BUCKETS];
    e->chain = *bucket;
    *bucket = e;
    e->older = shard->newest;
    if (e->older)
        e->older->newer = e;
    else
        shard->oldest = e;
    shard->newest = e;
}

void disk_memtable_free(struct disk_memtable *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &m->shards[i];
        while (shard->oldest)
            entry_drop(shard, slot_of(shard, shard->oldest->hash, shard->oldest->key));
        pthread_mutex_destroy(&shard->lock);
        pthread_mutex_destroy(&shard->order);
    }
    free(m);
}

/* ---- to the files ---- */

/* The shard is locked, the entry durable. */
static enum blob_status entry_write(struct disk_memtable *m, struct shard *shard, struct entry *e,
                                    struct blob_error *err)
{
    struct disk_path path;
    disk_record_path(e->key, &path);
    enum blob_status st = e->deleted ? file_remove(m->store->root_fd, path.text, err)
                                     : disk_record_write(m->store, &path, e->value, e->len, err);
    if (st != BLOB_OK) {
        disk_crowds_look_at(m->store, m->store->crowds, e->key);
        return st;
    }
    disk_crowds_note(m->store->crowds, e->key, !e->deleted);
    disk_journal_unpin(m->store->journal, &e->ticket);
    entry_drop(shard, slot_of(shard, e->hash, e->key));
    return BLOB_OK;
}

/* Writes at most max entries that are durable and older than before_us to their files. */
static enum blob_status shard_write(struct disk_memtable *m, struct shard *shard, int64_t before_us, unsigned max,
                                    struct blob_error *err)
{
    uint64_t durable = disk_journal_durable(m->store->journal);
    enum blob_status st = BLOB_OK;
    while (st == BLOB_OK && max-- > 0 && shard->oldest && shard->oldest->ticket.lsn <= durable &&
           shard->oldest->since_us < before_us)
        st = entry_write(m, shard, shard->oldest, err);
    return st;
}

enum blob_status disk_memtable_settle(struct disk_memtable *m, struct blob_error *err)
{
    enum blob_status first = BLOB_OK;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &m->shards[i];
        pthread_mutex_lock(&shard->lock);
        enum blob_status st = shard_write(m, shard, INT64_MAX, UINT32_MAX, first == BLOB_OK ? err : NULL);
        first = first == BLOB_OK ? st : first;
        pthread_mutex_unlock(&shard->lock);
    }
    return first;
}

static bool note_name(const struct entry *e, const char *class, const char *dir, struct disk_names *added,
                      struct disk_names *gone)
{
    struct disk_path path;
    size_t class_len = strlen(class), dir_len = strlen(dir);
    if (strncmp(e->key, class, class_len) != 0 || e->key[class_len] != '/')
        return true;
    disk_record_path(e->key, &path);
    if (strncmp(path.text, dir, dir_len) != 0 || path.text[dir_len] != '/')
        return true;
    return disk_names_add(e->deleted ? gone : added, path.text + dir_len + 1);
}

enum blob_status disk_memtable_names(struct disk_memtable *m, const char *class, const char *dir,
                                     struct disk_names *added, struct disk_names *gone, struct blob_error *err)
{
    bool ok = true;
    for (unsigned i = 0; ok && i < SHARDS; i++) {
        struct shard *shard = &m->shards[i];
        pthread_mutex_lock(&shard->lock);
        for (const struct entry *e = shard->oldest; ok && e; e = e->newer)
            ok = note_name(e, class, dir, added, gone);
        pthread_mutex_unlock(&shard->lock);
    }
    return ok ? BLOB_OK : blob_fail(err, BLOB_E_NO_MEMORY, 0, "list %s", dir);
}

/* ---- changes ---- */

static enum blob_status check_absent(struct disk_memtable *m, struct shard *shard, uint64_t hash, const char *key,
                                     struct blob_error *err)
{
    struct disk_path path;
    disk_record_path(key, &path);
    pthread_mutex_lock(&shard->lock);
    const struct entry *e = *slot_of(shard, hash, key);
    bool known = e != NULL, there = known && !e->deleted;
    int error = 0;
    if (!known) {
        there = faccessat(m->store->root_fd, path.text, F_OK, 0) == 0;
        error = there || errno == ENOENT ? 0 : errno;
    }
    pthread_mutex_unlock(&shard->lock);
    if (there)
        return blob_fail(err, BLOB_E_EXISTS, 0, "record %s", key);
    return error ? file_fail(err, error, "look for", path.text) : BLOB_OK;
}

/* Puts e in the place of the key's older entry, and writes some entries that have lingered long enough. */
static void take_in(struct disk_memtable *m, struct shard *shard, struct entry *e)
{
    pthread_mutex_lock(&shard->lock);
    struct entry **slot = slot_of(shard, e->hash, e->key);
    if (*slot) {
        if ((*slot)->promised && (*slot)->ticket.lsn > disk_journal_durable(m->store->journal))
            e->promised = true;
        disk_journal_unpin(m->store->journal, &(*slot)->ticket);
        entry_drop(shard, slot);
    }
    entry_add(shard, e);
    /* An entry that cannot be written stays, and the checkpoint reports it. */
    enum blob_status st = shard_write(m, shard, clock_steady_us() - LINGER_US, WRITES_PER_PUT, NULL);
    (void)st;
    pthread_mutex_unlock(&shard->lock);
}

static enum blob_status journal_change(struct disk_memtable *m, const struct entry *e, struct journal_ticket *ticket,
                                       struct blob_error *err)
{
    uint8_t key_len = (uint8_t)strlen(e->key);
    if (e->deleted) {
        const struct iovec part = disk_part(e->key, key_len);
        return disk_journal_append(m->store->journal, JOURNAL_DELETE, &part, 1, true, ticket, err);
    }
    const struct iovec parts[] = {disk_part(&key_len, 1), disk_part(e->key, key_len), disk_part(e->value, e->len)};
    return disk_journal_append(m->store->journal, JOURNAL_PUT, parts, 3, true, ticket, err);
}

static struct entry *entry_new(const char *key, const void *value, size_t len)
{
    size_t key_size = strlen(key) + 1;
    struct entry *e = malloc(sizeof *e + key_size + len);
    if (!e)
        return NULL;
    *e = (struct entry){.since_us = clock_steady_us(),
                        .hash = key_hash(key, key_size - 1),
                        .deleted = value == NULL,
                        .len = (uint32_t)len,
                        .value = e->key + key_size};
    memcpy(e->key, key, key_size);
    if (len > 0)
        memcpy(e->value, value, len);
    return e;
}

/* Makes sure that the record's file can be written later. So a full disk is met here, before anything is promised, and
 * a listing finds every directory. */
static enum blob_status make_place(struct disk_memtable *m, const char *key, struct blob_error *err)
{
    struct disk_path path;
    disk_record_path(key, &path);
    enum blob_status st = disk_fits(m->store, FILE_BYTES, 0, err);
    if (st == BLOB_OK)
        st = disk_journal_spare(m->store->journal, err);
    return st == BLOB_OK ? disk_parents(m->store, &path, err) : st;
}

enum blob_status disk_memtable_put(struct disk_memtable *m, const char *key, const void *value, size_t len,
                                   unsigned flags, struct journal_ticket *ticket, struct blob_error *err)
{
    enum blob_status st = value ? make_place(m, key, err) : BLOB_OK;
    if (st != BLOB_OK)
        return st;
    struct entry *e = entry_new(key, value, len);
    if (!e)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "record %s", key);
    e->promised = !(flags & BLOB_LAZY);
    struct shard *shard = shard_of(m, e->hash);
    pthread_mutex_lock(&shard->order);
    if (flags & BLOB_IF_NONE)
        st = check_absent(m, shard, e->hash, key, err);
    if (st == BLOB_OK)
        st = journal_change(m, e, &e->ticket, err);
    if (st == BLOB_OK) {
        *ticket = e->ticket;
        take_in(m, shard, e);
    } else {
        free(e);
    }
    pthread_mutex_unlock(&shard->order);
    return st;
}

/*
 * What a record says may be answered for, so it must not be lost afterwards. A change that somebody waits for is waited
 * for by its readers, too: it may yet fail. A lazy one was promised to nobody, and is seen at once, unless no sync can
 * come any more.
 */
static enum blob_status await_seen(struct disk_memtable *m, uint64_t lsn, bool promised, struct blob_error *err)
{
    if (lsn <= disk_journal_durable(m->store->journal))
        return BLOB_OK;
    return promised ? disk_journal_wait(m->store->journal, lsn, err) : disk_journal_check(m->store->journal, err);
}

enum blob_status disk_memtable_get(struct disk_memtable *m, const char *key, struct bytebuf *out,
                                   struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    uint64_t lsn = 0, hash = key_hash(key, strlen(key));
    bool promised = false;
    struct shard *shard = shard_of(m, hash);
    pthread_mutex_lock(&shard->lock);
    const struct entry *e = *slot_of(shard, hash, key);
    if (e) {
        lsn = e->ticket.lsn;
        promised = e->promised;
    }
    if (!e) {
        struct disk_path path;
        disk_record_path(key, &path);
        st = disk_record_read(m->store, &path, out, err);
    } else if (e->deleted) {
        st = blob_fail(err, BLOB_E_NOT_FOUND, 0, "record %s", key);
    } else {
        bytebuf_add(out, e->value, e->len);
        st = out->failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "record %s", key) : BLOB_OK;
    }
    pthread_mutex_unlock(&shard->lock);
    enum blob_status seen = await_seen(m, lsn, promised, err);
    return seen == BLOB_OK ? st : seen;
}
