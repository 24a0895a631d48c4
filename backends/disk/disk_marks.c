/*
 * disk_marks - shards of uploads whose flushed offset the journal has and their files do not tell yet.
 *
 * An entry's pin keeps its journal segment until the attribute is written, so at any moment the newest durable entry of
 * an upload is in the journal, or its attribute is as new. Most uploads end before a checkpoint comes: they cost an
 * entry in memory.
 *
 * An attribute is only ever written of what the journal has made durable: else, the file system being free to write it
 * first, it could survive and the content not.
 */
#include "backends/disk/disk_marks.h"

#include "backends/crc32c.h"
#include "backends/disk/file/disk_bytes.h"
#include "backends/disk/file/durable_file.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define ATTRIBUTE  "user.blobd.flushed"
#define MARK_BYTES 24
#define SUMMED_MAX (128u << 10)
#define READ_BYTES 16384
#define SHARDS     64u
#define BUCKETS    64u
#define LOCK_CHARS 64
#define KEPT_AT    11 /* behind the pid and its newline, so that a pid is replaced without a moment in between */
#define KEPT       "flushed offsets are kept\n"

struct mark {
    struct mark *next;
    uint64_t hash; /* of the path */
    struct uuid id;
    uint64_t flushed;
    bool data; /* by DATA entries, and no sync of the file since */
    struct journal_ticket ticket;
};

struct shard {
    pthread_mutex_t lock;
    struct mark *buckets[BUCKETS];
};

struct disk_marks {
    struct disk_store *store;
    struct shard shards[SHARDS];
};

/* ---- the attribute ---- */

static enum blob_status set(int fd, uint64_t from, uint64_t flushed, uint32_t sum, const char *path,
                            struct blob_error *err)
{
    uint8_t bytes[MARK_BYTES];
    put_le(bytes, from, 8);
    put_le(bytes + 8, flushed, 8);
    put_le(bytes + 16, sum, 4);
    put_le(bytes + 20, crc32c(0, bytes, 20), 4);
    if (fsetxattr(fd, ATTRIBUTE, bytes, sizeof bytes, 0) == 0 || errno == ENOTSUP)
        return BLOB_OK;
    return file_fail(err, errno, "mark", path);
}

bool disk_mark_try(int fd)
{
    return fsetxattr(fd, ATTRIBUTE, "", 0, 0) == 0 || errno != ENOTSUP;
}

enum blob_status disk_mark_set(int fd, uint64_t flushed, const char *path, struct blob_error *err)
{
    return set(fd, flushed, flushed, 0, path, err);
}

/* CORRUPT: the file ends before `to`. */
static enum blob_status sum_range(int fd, uint64_t from, uint64_t to, uint32_t *sum, const char *path,
                                  struct blob_error *err)
{
    uint8_t buf[READ_BYTES];
    *sum = 0;
    while (from < to) {
        size_t want = to - from < sizeof buf ? (size_t)(to - from) : sizeof buf, got = 0;
        enum blob_status st = file_read_at(fd, buf, want, from, &got, path, err);
        if (st == BLOB_OK && got < want)
            st = blob_fail(err, BLOB_E_CORRUPT, 0, "%s is shorter than %" PRIu64, path, to);
        if (st != BLOB_OK)
            return st;
        *sum = crc32c(*sum, buf, got);
        from += got;
    }
    return BLOB_OK;
}

/* What the attribute says, if its content is there. */
static enum blob_status get(int fd, uint64_t size, uint64_t *flushed, const char *path, struct blob_error *err)
{
    uint8_t bytes[MARK_BYTES];
    ssize_t n = fgetxattr(fd, ATTRIBUTE, bytes, sizeof bytes);
    if (n < 0 && errno != ENODATA && errno != ENOTSUP && errno != ERANGE)
        return file_fail(err, errno, "look at the mark of", path);
    if (n < 0 && errno == ENOTSUP) {
        *flushed = size;
        return BLOB_OK;
    }
    *flushed = 0;
    if (n != MARK_BYTES || crc32c(0, bytes, 20) != (uint32_t)get_le(bytes + 20, 4))
        return BLOB_OK;
    uint64_t from = get_le(bytes, 8), to = get_le(bytes + 8, 8);
    uint32_t sum = 0;
    *flushed = from < size ? from : size;
    if (to > size || to <= from)
        return BLOB_OK;
    enum blob_status st = sum_range(fd, from, to, &sum, path, err);
    if (st == BLOB_OK && sum == (uint32_t)get_le(bytes + 16, 4))
        *flushed = to;
    return st;
}

enum blob_status disk_mark_sync(struct disk_store *s, int fd, uint64_t from, uint64_t flushed, const char *path,
                                struct blob_error *err)
{
    uint32_t sum = 0;
    bool summed = flushed - from <= SUMMED_MAX;
    if (!s->attributes)
        return file_sync(fd, path, err);
    enum blob_status st = summed ? sum_range(fd, from, flushed, &sum, path, err) : file_sync(fd, path, err);
    if (st == BLOB_OK)
        st = set(fd, summed ? from : flushed, flushed, sum, path, err);
    if (st != BLOB_OK)
        return st;
    st = file_sync_all(fd, path, err);
    /* Who looks at it meanwhile must not take for durable what the page cache still has. */
    if (st != BLOB_OK && set(fd, from, from, 0, path, NULL) != BLOB_OK)
        log_line(s->log, LOG_WARN, NULL, "the mark of %s was not put back", path);
    return st;
}

/* ---- the table ---- */

struct disk_marks *disk_marks_new(struct disk_store *store)
{
    struct disk_marks *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->store = store;
    for (unsigned i = 0; i < SHARDS; i++)
        pthread_mutex_init(&m->shards[i].lock, NULL);
    return m;
}

void disk_marks_free(struct disk_marks *m)
{
    if (!m)
        return;
    for (unsigned i = 0; i < SHARDS; i++) {
        for (unsigned b = 0; b < BUCKETS; b++) {
            while (m->shards[i].buckets[b]) {
                struct mark *gone = m->shards[i].buckets[b];
                m->shards[i].buckets[b] = gone->next;
                free(gone);
            }
        }
        pthread_mutex_destroy(&m->shards[i].lock);
    }
    free(m);
}

static struct shard *shard_of(struct disk_marks *m, uint64_t hash)
{
    return &m->shards[hash % SHARDS];
}

/* Where the mark is, or would be. The shard is locked. */
static struct mark **slot_of(struct shard *shard, uint64_t hash)
{
    struct mark **slot = &shard->buckets[hash / SHARDS % BUCKETS];
    while (*slot && (*slot)->hash != hash)
        slot = &(*slot)->next;
    return slot;
}

/* The slot's, if there is one. The shard is locked. */
static void take_out(struct disk_marks *m, struct mark **slot)
{
    struct mark *gone = *slot;
    if (!gone)
        return;
    *slot = gone->next;
    disk_journal_unpin(m->store->journal, &gone->ticket);
    free(gone);
}

static uint64_t path_hash_of(const struct disk_path *path)
{
    return key_hash(path->text, strlen(path->text));
}

static enum blob_status append(struct disk_store *s, const struct uuid *id, const struct disk_mark_entry *entry,
                               bool pin, struct journal_ticket *out, struct blob_error *err)
{
    uint8_t at[8];
    put_le(at, entry->offset, 8);
    const struct iovec parts[] = {disk_part(id->text, UUID_CHARS), disk_part(at, sizeof at),
                                  disk_part(entry->data, entry->len)};
    return disk_journal_append(s->journal, entry->kind, parts, entry->data ? 3 : 2, pin, out, err);
}

enum blob_status disk_marks_journal(struct disk_store *s, const struct uuid *id, const struct disk_mark_entry *entry,
                                    struct journal_ticket *out, struct blob_error *err)
{
    struct disk_path path;
    if (!s->attributes)
        return append(s, id, entry, false, out, err);
    struct mark *mark = malloc(sizeof *mark);
    if (!mark)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "upload %s", id->text);
    disk_upload_path(id, &path);
    *mark = (struct mark){.hash = path_hash_of(&path), .id = *id, .flushed = entry->flushed};
    enum blob_status st = append(s, id, entry, true, &mark->ticket, err);
    if (st != BLOB_OK) {
        free(mark);
        return st;
    }
    *out = mark->ticket;
    struct shard *shard = shard_of(s->marks, mark->hash);
    pthread_mutex_lock(&shard->lock);
    struct mark **slot = slot_of(shard, mark->hash);
    mark->data = entry->kind == JOURNAL_DATA || (entry->kind == JOURNAL_TRUNCATE && *slot && (*slot)->data);
    take_out(s->marks, slot);
    mark->next = *slot;
    *slot = mark;
    pthread_mutex_unlock(&shard->lock);
    return BLOB_OK;
}

void disk_marks_drop(struct disk_marks *m, uint64_t path_hash)
{
    struct shard *shard = shard_of(m, path_hash);
    pthread_mutex_lock(&shard->lock);
    take_out(m, slot_of(shard, path_hash));
    pthread_mutex_unlock(&shard->lock);
}

/* NOT_FOUND is well: the upload has ended. */
static enum blob_status write_mark(const struct disk_marks *m, const struct mark *mark, struct blob_error *err)
{
    struct disk_path path;
    disk_upload_path(&mark->id, &path);
    int fd = openat(m->store->root_fd, path.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? BLOB_OK : file_fail(err, errno, "open", path.text);
    enum blob_status st = disk_mark_set(fd, mark->flushed, path.text, err);
    close(fd);
    return st;
}

static enum blob_status settle_shard(struct disk_marks *m, struct shard *shard, struct blob_error *err)
{
    uint64_t durable = disk_journal_durable(m->store->journal);
    enum blob_status first = BLOB_OK;
    for (unsigned b = 0; b < BUCKETS; b++) {
        for (struct mark **slot = &shard->buckets[b]; *slot;) {
            enum blob_status st =
                (*slot)->ticket.lsn > durable ? BLOB_E_NOT_FOUND : write_mark(m, *slot, first == BLOB_OK ? err : NULL);
            if (st == BLOB_OK)
                take_out(m, slot);
            else
                slot = &(*slot)->next;
            if (first == BLOB_OK && st != BLOB_E_NOT_FOUND)
                first = st;
        }
    }
    return first;
}

enum blob_status disk_marks_settle(struct disk_marks *m, struct blob_error *err)
{
    enum blob_status first = BLOB_OK;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &m->shards[i];
        pthread_mutex_lock(&shard->lock);
        enum blob_status st = settle_shard(m, shard, first == BLOB_OK ? err : NULL);
        first = first == BLOB_OK ? st : first;
        pthread_mutex_unlock(&shard->lock);
    }
    return first;
}

static bool find(struct disk_store *s, const struct disk_path *path, struct mark *out)
{
    if (!s->marks)
        return false;
    uint64_t hash = path_hash_of(path);
    struct shard *shard = shard_of(s->marks, hash);
    pthread_mutex_lock(&shard->lock);
    const struct mark *mark = *slot_of(shard, hash);
    if (mark)
        *out = *mark;
    pthread_mutex_unlock(&shard->lock);
    return mark != NULL;
}

bool disk_marks_journal_only(struct disk_store *s, const struct disk_path *path)
{
    struct mark mark;
    return s->journal && (!s->attributes || (find(s, path, &mark) && mark.data));
}

enum blob_status disk_mark_flushed(struct disk_store *s, const struct disk_path *path, int fd, uint64_t size,
                                   uint64_t *flushed, uint64_t *lsn, struct blob_error *err)
{
    struct mark mark;
    *lsn = 0;
    if (find(s, path, &mark)) {
        *flushed = mark.flushed < size ? mark.flushed : size;
        *lsn = mark.ticket.lsn;
        return BLOB_OK;
    }
    if (!s->attributes || (s->shared && !disk_lock_says_kept(s))) {
        *flushed = size;
        return BLOB_OK;
    }
    return get(fd, size, flushed, path->text, err);
}

/* ---- stores of a version without marks ---- */

/*
 * `lock` has the pid of who opened the store last, and a line that says that marks are kept. A version without marks
 * writes its pid alone: whatever it then stages or appends to has no mark, or an old one.
 */
bool disk_lock_says_kept(const struct disk_store *s)
{
    char text[LOCK_CHARS];
    ssize_t n = pread(s->lock_fd, text, sizeof text, 0);
    return n == KEPT_AT + (ssize_t)strlen(KEPT) && memcmp(text + KEPT_AT, KEPT, strlen(KEPT)) == 0;
}

enum blob_status disk_lock_write(struct disk_store *s, bool kept, struct blob_error *err)
{
    char text[LOCK_CHARS];
    int len = snprintf(text, sizeof text, "%-*ld\n%s", KEPT_AT - 1, (long)getpid(), kept ? KEPT : "");
    if (!kept && ftruncate(s->lock_fd, 0) != 0)
        return file_fail(err, errno, "write", DISK_LOCK_FILE);
    return file_write_at(s->lock_fd, text, (size_t)len, 0, DISK_LOCK_FILE, err);
}
