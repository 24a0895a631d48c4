/*
 * disk_journal - appending, the shared sync, and the two threads that keep segments coming.
 *
 * Appending writes to the active segment under the lock; a sync runs outside it, so appends go on meanwhile and make
 * the next batch. One waiter at a time leads: it syncs, wakes those it covered, and one of those it did not, to lead
 * next.
 *
 * One thread prepares the next segment (its header durable before it can become active), another checkpoints: a
 * checkpoint may take seconds, and appends must go on meanwhile. Segments are freed in order of their numbers, so the
 * ones in use are always a run of numbers.
 *
 * Locks: one. Callbacks (settle) and all syncing run without it. Invariants: durable <= end; a segment in use with a
 * number below the active one's is sealed; `unsynced` is the lowest number that may hold bytes a sync has still to
 * cover.
 */
#include "backends/disk/journal/disk_journal.h"

#include "backends/disk/file/durable_file.h"
#include "backends/disk/journal/disk_journal_format.h"
#include "backends/disk/journal/disk_journal_segment.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PARTS_MAX       4
#define SEAL_ROOM       JOURNAL_ENTRY_BYTES
#define GROWTH_ROOM     4 /* segments that must fit on the disk before another is made */
#define SECOND_ROOM     2 /* the same for the second */
#define PIN_POLL_MS     2
#define PIN_TRIES       100
#define RETRY_SECONDS   1
#define LOW_SEGMENTS(j) ((j)->opt.max_segments / 2)

struct segment {
    int fd;
    uint64_t number; /* 0: free */
    unsigned pins;
    struct segment_header header; /* as it was begun */
};

struct disk_journal {
    struct journal_options opt;
    int dir_fd;
    struct sum_key key;
    pthread_mutex_t lock;
    pthread_cond_t batch[2]; /* waiters of this sync, and of the next */
    pthread_cond_t space;    /* there is a next segment */
    pthread_cond_t supply;   /* there should be one */
    pthread_cond_t due;      /* a checkpoint should be made */
    pthread_cond_t checkpointed;
    pthread_t supplier, checkpointer;
    bool stop;

    struct segment segments[JOURNAL_SEGMENTS_MAX];
    unsigned segment_count;
    struct segment *active, *next; /* next: prepared, or NULL */
    bool stale_next;               /* its header names as needed what was freed since */
    bool starved;                  /* there is no next, and none can be made: a checkpoint has to free one */
    uint64_t next_number;
    uint64_t tail; /* where the next entry goes in the active one */
    uint64_t chain;
    bool align; /* a sync has begun: the next entry starts a block */

    bool syncing;
    unsigned batch_number;
    uint64_t sync_target, unsynced;
    _Atomic uint64_t end, durable;

    int64_t changed_us; /* when the first change since the last checkpoint came; 0: none */
    uint64_t checkpoint_asked, checkpoint_tried, checkpoint_done;
    enum blob_status stuck; /* why changes cannot be carried out, so that no segment can be freed; BLOB_OK: they can */
    struct blob_error stuck_error;
    enum blob_status broken;
    struct blob_error broken_error;
};

/* ---- failing ---- */

/* The lock is held. */
static void journal_break(struct disk_journal *j, enum blob_status st, const struct blob_error *why)
{
    if (j->broken != BLOB_OK)
        return;
    j->broken = st;
    j->broken_error = *why;
    log_line(j->opt.log, LOG_ERROR, NULL, "journal: %s; nothing more can be made durable until a restart", why->text);
    pthread_cond_broadcast(&j->batch[0]);
    pthread_cond_broadcast(&j->batch[1]);
    pthread_cond_broadcast(&j->space);
    pthread_cond_broadcast(&j->checkpointed);
}

void disk_journal_fail(struct disk_journal *j, enum blob_status st, const struct blob_error *why)
{
    pthread_mutex_lock(&j->lock);
    journal_break(j, st, why);
    pthread_mutex_unlock(&j->lock);
}

static enum blob_status journal_broken(const struct disk_journal *j, struct blob_error *err)
{
    if (j->broken != BLOB_OK && err)
        *err = j->broken_error;
    return j->broken;
}

/* The lock is held. */
static void journal_stuck(struct disk_journal *j, enum blob_status st, const struct blob_error *why)
{
    if (j->stuck == BLOB_OK)
        log_line(j->opt.log, LOG_WARN, NULL, "journal: changes wait to be carried out: %s", why->text);
    j->stuck = st;
    j->stuck_error = *why;
    pthread_cond_broadcast(&j->space);
}

static enum blob_status stuck_status(const struct disk_journal *j, struct blob_error *err)
{
    if (j->stuck != BLOB_OK && err)
        *err = j->stuck_error;
    return j->stuck;
}

/* ---- segments ---- */

/* The lowest number in use, or the one given. The lock is held. */
static uint64_t segment_oldest(const struct disk_journal *j, uint64_t number)
{
    for (unsigned i = 0; i < j->segment_count; i++)
        if (j->segments[i].number != 0 && j->segments[i].number < number)
            number = j->segments[i].number;
    return number;
}

/* Writes the header that makes a free segment number `number`, durable. Without the lock. */
static enum blob_status segment_begin(struct segment *seg, uint64_t number, uint64_t oldest, struct blob_error *err)
{
    seg->header = (struct segment_header){.number = number, .oldest = oldest};
    return journal_segment_begin(seg->fd, &seg->header, err);
}

static struct segment *segment_free(struct disk_journal *j)
{
    for (unsigned i = 0; i < j->segment_count; i++)
        if (j->segments[i].number == 0)
            return &j->segments[i];
    return NULL;
}

/* On a disk that is about full what is freed is the clients': the journal does with the segments that it has. */
static bool room_to_grow(const struct disk_journal *j)
{
    struct statvfs fs;
    uint64_t segments = j->segment_count < 2 ? SECOND_ROOM : GROWTH_ROOM;
    return fstatvfs(j->dir_fd, &fs) != 0 || (uint64_t)fs.f_bavail * fs.f_frsize >= segments * j->opt.segment_bytes;
}

/* Segments that a checkpoint can free without beginning another. The lock is held. */
static bool has_sealed(const struct disk_journal *j)
{
    return segment_oldest(j, j->active->number) < j->active->number;
}

/*
 * Makes j->next. Called by the supplier (and by open) only, with the lock held, which it gives up meanwhile.
 * CONFLICT: all segments are in use. NO_SPACE: the disk has no room for one more. UNAVAILABLE: one more cannot be
 * opened or filled just now (no descriptor is left, say); nothing was ever in it, so that is no failure of the journal.
 */
static enum blob_status prepare_next(struct disk_journal *j, struct blob_error *err)
{
    struct segment *seg = segment_free(j);
    enum blob_status st = BLOB_OK;
    if (!seg && j->segment_count == j->opt.max_segments)
        return blob_fail(err, BLOB_E_CONFLICT, 0, "journal: all segments are in use");
    if (!seg && !room_to_grow(j))
        return blob_fail(err, BLOB_E_NO_SPACE, 0, "journal: no room for another segment");
    uint64_t number = j->next_number, oldest = segment_oldest(j, number);
    pthread_mutex_unlock(&j->lock);
    if (!seg) {
        seg = &j->segments[j->segment_count];
        st = journal_segment_open(j->dir_fd, j->segment_count, j->opt.segment_bytes, &seg->fd, err);
        if (st != BLOB_OK && st != BLOB_E_NO_SPACE)
            st = BLOB_E_UNAVAILABLE;
    }
    bool added = st == BLOB_OK && seg == &j->segments[j->segment_count];
    if (st == BLOB_OK)
        st = segment_begin(seg, number, oldest, err);
    pthread_mutex_lock(&j->lock);
    if (added)
        j->segment_count++;
    if (st != BLOB_OK)
        return st;
    seg->number = number;
    seg->pins = 0;
    j->next_number++;
    j->next = seg;
    pthread_cond_broadcast(&j->space);
    pthread_cond_signal(&j->due);
    return BLOB_OK;
}

/* ---- appending; the lock is held ---- */

/* The key that the segment's entries are checked with, before the first of them. */
static enum blob_status write_key(struct disk_journal *j, struct blob_error *err)
{
    uint8_t bytes[JOURNAL_KEY_BYTES];
    const struct segment_header *header = &j->active->header;
    journal_key_encode(header, j->key.bytes, bytes);
    j->chain = journal_chain_begin(header, &j->key);
    return file_write_at(j->active->fd, bytes, sizeof bytes, JOURNAL_BLOCK, "journal", err);
}

/* body: as disk_entry_header_encode() wants it. */
static enum blob_status write_entry(struct disk_journal *j, uint64_t pos, const struct entry_header *h,
                                    struct keyed_sum *body, const struct iovec *parts, int count,
                                    struct blob_error *err)
{
    static const uint8_t zeros[8] = {0};
    enum blob_status st = j->tail == JOURNAL_FIRST ? write_key(j, err) : BLOB_OK;
    if (st != BLOB_OK)
        return st;
    uint8_t head[JOURNAL_ENTRY_BYTES];
    uint64_t check = disk_entry_header_encode(h, body, j->chain, head);
    struct iovec iov[PARTS_MAX + 2] = {{head, sizeof head}};
    for (int i = 0; i < count; i++)
        iov[1 + i] = parts[i];
    size_t total = sizeof head + h->len, padding = (size_t)journal_align(total, 8) - total;
    iov[1 + count] = (struct iovec){(void *)(uintptr_t)zeros, padding};
    ssize_t n;
    do
        n = pwritev(j->active->fd, iov, count + 2, (off_t)pos);
    while (n < 0 && errno == EINTR);
    if (n != (ssize_t)(total + padding))
        return blob_fail(err, n < 0 ? blob_status_from_errno(errno) : BLOB_E_IO, n < 0 ? errno : 0, "write journal");
    j->chain = check;
    return BLOB_OK;
}

/* Goes on in the next segment. */
static void begin_active(struct disk_journal *j)
{
    j->active = j->next;
    j->next = NULL;
    j->tail = JOURNAL_FIRST;
    j->align = false;
}

/* Seals the active segment and goes on in the next one, waiting for it where it is not there yet. */
static enum blob_status switch_segment(struct disk_journal *j, struct blob_error *err)
{
    struct segment *full = j->active;
    while (!j->next && j->active == full && j->broken == BLOB_OK) {
        if (j->stuck != BLOB_OK)
            return stuck_status(j, err);
        pthread_cond_signal(&j->supply);
        pthread_cond_wait(&j->space, &j->lock);
    }
    if (j->broken != BLOB_OK || j->active != full)
        return journal_broken(j, err);
    const struct entry_header h = {.kind = JOURNAL_SEAL};
    struct keyed_sum nothing;
    keyed_sum_begin(&nothing, &j->key);
    uint64_t pos = j->align ? journal_align(j->tail, JOURNAL_BLOCK) : j->tail;
    enum blob_status st = write_entry(j, pos, &h, &nothing, NULL, 0, err);
    if (st != BLOB_OK)
        return st;
    begin_active(j);
    pthread_cond_signal(&j->supply);
    pthread_cond_signal(&j->due);
    return BLOB_OK;
}

/* Where an entry of this size goes in the active segment, having switched when it does not fit. */
static enum blob_status make_place(struct disk_journal *j, uint64_t size, uint64_t *pos, struct blob_error *err)
{
    for (;;) {
        enum blob_status st = journal_broken(j, err);
        if (st != BLOB_OK)
            return st;
        uint64_t at = j->align ? journal_align(j->tail, JOURNAL_BLOCK) : j->tail;
        /* A whole block is left for SEAL, so that it too finds an aligned place. */
        if (at + size + JOURNAL_BLOCK + SEAL_ROOM <= j->opt.segment_bytes) {
            *pos = at;
            return BLOB_OK;
        }
        st = switch_segment(j, err);
        if (st != BLOB_OK)
            return st;
    }
}

enum blob_status disk_journal_append(struct disk_journal *j, enum journal_kind kind, const struct iovec *parts,
                                     int count, bool pin, struct journal_ticket *out, struct blob_error *err)
{
    CHECK(count <= PARTS_MAX);
    struct entry_header h = {.kind = (uint32_t)kind};
    struct keyed_sum body;
    keyed_sum_begin(&body, &j->key);
    for (int i = 0; i < count; i++) {
        h.len += (uint32_t)parts[i].iov_len;
        keyed_sum_update(&body, parts[i].iov_base, parts[i].iov_len);
    }
    uint64_t size = journal_align(JOURNAL_ENTRY_BYTES + h.len, 8), pos = 0;
    CHECK(size + JOURNAL_FIRST + 2 * JOURNAL_BLOCK <= j->opt.segment_bytes);
    pthread_mutex_lock(&j->lock);
    enum blob_status st = make_place(j, size, &pos, err);
    if (st == BLOB_OK)
        st = write_entry(j, pos, &h, &body, parts, count, err);
    if (st == BLOB_OK) {
        j->tail = pos + size;
        j->align = false;
        j->active->pins += pin;
        if (j->changed_us == 0)
            j->changed_us = clock_steady_us();
        uint64_t number = j->active->number << 32;
        *out = (struct journal_ticket){.begin = number | pos, .lsn = number | j->tail};
        atomic_store(&j->end, out->lsn);
    }
    pthread_mutex_unlock(&j->lock);
    return st;
}

void disk_journal_unpin(struct disk_journal *j, const struct journal_ticket *ticket)
{
    pthread_mutex_lock(&j->lock);
    for (unsigned i = 0; i < j->segment_count; i++)
        if (j->segments[i].number == ticket->begin >> 32) {
            CHECK(j->segments[i].pins > 0);
            j->segments[i].pins--;
        }
    pthread_mutex_unlock(&j->lock);
}

/* ---- the shared sync ---- */

/* Syncs everything appended so far; the lock is held, given up meanwhile, and nobody else is syncing. */
static void lead(struct disk_journal *j)
{
    int fds[JOURNAL_SEGMENTS_MAX];
    unsigned count = 0;
    uint64_t last = j->active->number;
    for (uint64_t number = j->unsynced; number <= last; number++)
        for (unsigned i = 0; i < j->segment_count; i++)
            if (j->segments[i].number == number)
                fds[count++] = j->segments[i].fd;
    j->syncing = true;
    j->batch_number++;
    j->sync_target = j->end;
    j->align = true;
    pthread_mutex_unlock(&j->lock);
    struct blob_error why = {0};
    enum blob_status st = BLOB_OK;
    for (unsigned i = 0; i < count && st == BLOB_OK; i++)
        st = file_sync(fds[i], "journal", &why);
    pthread_mutex_lock(&j->lock);
    j->syncing = false;
    if (st != BLOB_OK) {
        journal_break(j, st, &why);
        return;
    }
    j->unsynced = last;
    atomic_store(&j->durable, j->sync_target);
    pthread_cond_broadcast(&j->batch[j->batch_number & 1]);
    pthread_cond_signal(&j->batch[(j->batch_number + 1) & 1]);
}

enum blob_status disk_journal_wait(struct disk_journal *j, uint64_t lsn, struct blob_error *err)
{
    if (j->durable >= lsn)
        return BLOB_OK;
    pthread_mutex_lock(&j->lock);
    while (j->durable < lsn && j->broken == BLOB_OK) {
        if (!j->syncing)
            lead(j);
        else
            pthread_cond_wait(&j->batch[(j->batch_number + (j->sync_target < lsn)) & 1], &j->lock);
    }
    enum blob_status st = j->durable >= lsn ? BLOB_OK : journal_broken(j, err);
    pthread_mutex_unlock(&j->lock);
    return st;
}

uint64_t disk_journal_durable(const struct disk_journal *j)
{
    return j->durable;
}

enum blob_status disk_journal_spare(struct disk_journal *j, struct blob_error *err)
{
    pthread_mutex_lock(&j->lock);
    bool spare = j->segment_count >= 2;
    pthread_mutex_unlock(&j->lock);
    return spare ? BLOB_OK : blob_fail(err, BLOB_E_NO_SPACE, 0, "the journal has no room that a start could use");
}

uint64_t disk_journal_end(const struct disk_journal *j)
{
    return j->end;
}

enum blob_status disk_journal_check(struct disk_journal *j, struct blob_error *err)
{
    pthread_mutex_lock(&j->lock);
    enum blob_status st = journal_broken(j, err);
    pthread_mutex_unlock(&j->lock);
    return st;
}

/* ---- checkpoints: the journal's thread ---- */

static bool pinned_below(const struct disk_journal *j, uint64_t number)
{
    for (unsigned i = 0; i < j->segment_count; i++)
        if (j->segments[i].number != 0 && j->segments[i].number < number && j->segments[i].pins > 0)
            return true;
    return false;
}

/*
 * Every entry below segment `number` carried out. The lock is held, and given up meanwhile. CONFLICT: some cannot be
 * (the disk is full), as j->stuck says.
 */
static enum blob_status wait_unpinned(struct disk_journal *j, uint64_t number, struct blob_error *err)
{
    for (unsigned failed = 0; pinned_below(j, number);) {
        uint64_t end = j->end;
        struct blob_error why = {0};
        pthread_mutex_unlock(&j->lock);
        enum blob_status st = disk_journal_wait(j, end, err), settled = BLOB_OK;
        if (st == BLOB_OK)
            settled = j->opt.settle(j->opt.arg, &why);
        const struct timespec pause = {.tv_nsec = PIN_POLL_MS * 1000000L};
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&j->lock);
        if (st != BLOB_OK)
            return st;
        if (settled != BLOB_OK && ++failed == PIN_TRIES) {
            journal_stuck(j, settled, &why);
            return BLOB_E_CONFLICT;
        }
    }
    j->stuck = BLOB_OK;
    return BLOB_OK;
}

/* Frees all segments below `number`. The lock is held, and given up meanwhile. */
static enum blob_status checkpoint_below(struct disk_journal *j, uint64_t number, struct blob_error *err)
{
    enum blob_status st = wait_unpinned(j, number, err);
    if (st != BLOB_OK)
        return st;
    pthread_mutex_unlock(&j->lock);
    st = tree_sync(j->opt.root_fd, "storage root", err);
    pthread_mutex_lock(&j->lock);
    if (st != BLOB_OK)
        return st;
    if (j->unsynced < number)
        j->unsynced = number;
    for (unsigned i = 0; i < j->segment_count; i++)
        if (j->segments[i].number < number)
            j->segments[i].number = 0;
    j->stale_next = true;
    pthread_cond_signal(&j->supply);
    return BLOB_OK;
}

static void checkpoint_answer(struct disk_journal *j, uint64_t asked)
{
    j->checkpoint_tried = asked;
    pthread_cond_broadcast(&j->checkpointed);
}

/* all: of the active segment too, by beginning another, which is there. The lock is held, and given up meanwhile. */
static enum blob_status checkpoint(struct disk_journal *j, bool all, struct blob_error *err)
{
    uint64_t asked = j->checkpoint_asked;
    int64_t changed_us = j->changed_us;
    enum blob_status st = BLOB_OK;
    if (all) {
        j->changed_us = 0;
        if (j->tail > JOURNAL_FIRST)
            st = switch_segment(j, err);
        /* Nothing is lost by a write that failed: it is tried again. */
        if (st != BLOB_OK && j->broken == BLOB_OK) {
            journal_stuck(j, st, err);
            st = BLOB_E_CONFLICT;
        }
    }
    if (st == BLOB_OK)
        st = checkpoint_below(j, j->active->number, err);
    if (all && st == BLOB_OK)
        j->checkpoint_done = asked;
    else if (all && j->changed_us == 0)
        j->changed_us = changed_us;
    if (all)
        checkpoint_answer(j, asked);
    return st;
}

static unsigned segments_in_use(const struct disk_journal *j)
{
    unsigned n = 0;
    for (unsigned i = 0; i < j->segment_count; i++)
        n += j->segments[i].number != 0;
    return n;
}

static bool checkpoint_due(const struct disk_journal *j)
{
    return j->checkpoint_asked > j->checkpoint_done ||
           (j->changed_us != 0 && clock_steady_us() - j->changed_us >= j->opt.checkpoint_ms * 1000);
}

static void wait_seconds(pthread_cond_t *cond, pthread_mutex_t *lock)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += RETRY_SECONDS;
    pthread_cond_timedwait(cond, lock, &until);
}

/* Never waits for a next segment: it may be this thread that has to free one. */
static enum blob_status checkpoint_what_is_due(struct disk_journal *j, struct blob_error *err)
{
    bool due = checkpoint_due(j);
    enum blob_status st = BLOB_OK;
    if (due && (j->next || j->tail == JOURNAL_FIRST))
        return checkpoint(j, true, err);
    if (has_sealed(j) && (due || j->starved || segments_in_use(j) > LOW_SEGMENTS(j))) {
        st = checkpoint(j, false, err);
        if (st == BLOB_OK)
            return BLOB_OK;
    }
    /* A full disk gives no segment to go on in: whoever asked has to hear it. */
    if (j->stuck != BLOB_OK)
        checkpoint_answer(j, j->checkpoint_asked);
    if (st == BLOB_OK)
        wait_seconds(&j->due, &j->lock);
    return st;
}

static void *checkpointer_thread(void *arg)
{
    struct disk_journal *j = arg;
    pthread_mutex_lock(&j->lock);
    while (j->broken == BLOB_OK && !j->stop) {
        struct blob_error why = {0};
        enum blob_status st = checkpoint_what_is_due(j, &why);
        if (st == BLOB_E_CONFLICT && !j->stop)
            wait_seconds(&j->due, &j->lock);
        else if (st != BLOB_OK && st != BLOB_E_CONFLICT)
            journal_break(j, st, &why);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

/*
 * Writes the next segment's header anew: it still names freed segments as needed, and a start after a long quiet time
 * would replay what has long been carried out.
 */
static enum blob_status refresh_next(struct disk_journal *j, struct blob_error *err)
{
    struct segment *next = j->next;
    uint64_t oldest = segment_oldest(j, next->number);
    j->next = NULL;
    j->stale_next = false;
    pthread_mutex_unlock(&j->lock);
    enum blob_status st = segment_begin(next, next->number, oldest, err);
    pthread_mutex_lock(&j->lock);
    if (st == BLOB_OK) {
        j->next = next;
        pthread_cond_broadcast(&j->space);
    } else { /* nobody knows which header it has: it is prepared anew, under the same number */
        j->next_number = next->number;
        next->number = 0;
    }
    return st;
}

static void *supplier_thread(void *arg)
{
    struct disk_journal *j = arg;
    pthread_mutex_lock(&j->lock);
    while (j->broken == BLOB_OK && !(j->stop && j->next && !j->stale_next)) {
        struct blob_error why = {0};
        enum blob_status st = BLOB_OK;
        if (!j->next)
            st = prepare_next(j, &why);
        else if (j->stale_next)
            st = refresh_next(j, &why);
        else
            pthread_cond_wait(&j->supply, &j->lock);
        bool starved = st == BLOB_E_NO_SPACE || st == BLOB_E_UNAVAILABLE;
        if (starved && !has_sealed(j))
            journal_stuck(j, st, &why);
        else if (j->starved && st == BLOB_OK)
            j->stuck = BLOB_OK; /* what else keeps changes waiting the next checkpoint finds anew */
        j->starved = starved;
        /* No segment to be had: a checkpoint frees some. */
        if (st == BLOB_E_CONFLICT || starved) {
            if (j->stop)
                break; /* the next start replays what could not be let go */
            pthread_cond_signal(&j->due);
            wait_seconds(&j->supply, &j->lock);
        } else if (st != BLOB_OK) {
            journal_break(j, st, &why);
        }
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

enum blob_status disk_journal_checkpoint(struct disk_journal *j, struct blob_error *err)
{
    pthread_mutex_lock(&j->lock);
    uint64_t asked = ++j->checkpoint_asked;
    pthread_cond_signal(&j->due);
    while (j->checkpoint_tried < asked && j->broken == BLOB_OK)
        pthread_cond_wait(&j->checkpointed, &j->lock);
    enum blob_status st = journal_broken(j, err);
    if (st == BLOB_OK && j->checkpoint_done < asked)
        st = stuck_status(j, err);
    pthread_mutex_unlock(&j->lock);
    return st;
}

/* ---- opening and closing ---- */

static void journal_release(struct disk_journal *j)
{
    for (unsigned i = 0; i < j->segment_count; i++)
        close(j->segments[i].fd);
    close(j->dir_fd);
    pthread_mutex_destroy(&j->lock);
    pthread_cond_destroy(&j->batch[0]);
    pthread_cond_destroy(&j->batch[1]);
    pthread_cond_destroy(&j->space);
    pthread_cond_destroy(&j->supply);
    pthread_cond_destroy(&j->due);
    pthread_cond_destroy(&j->checkpointed);
    free(j);
}

/*
 * Segment files of an earlier run are taken over; two there must be, or a full disk could stop a checkpoint. Only where
 * it is full now one has to do: when that is used up, changes wait for room.
 */
static enum blob_status begin_first(struct disk_journal *j, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    for (unsigned i = 0; st == BLOB_OK && i < j->opt.max_segments; i++) {
        bool needed = i == 0 || (i == 1 && room_to_grow(j));
        if (!needed && !journal_segment_there(j->dir_fd, i))
            break;
        st = journal_segment_open(j->dir_fd, i, j->opt.segment_bytes, &j->segments[i].fd, err);
        if (st == BLOB_OK)
            j->segment_count++;
    }
    pthread_mutex_lock(&j->lock);
    if (st == BLOB_OK)
        st = prepare_next(j, err);
    if (st == BLOB_OK) {
        begin_active(j);
        j->unsynced = j->active->number;
        j->end = j->durable = j->active->number << 32 | JOURNAL_FIRST;
    }
    pthread_mutex_unlock(&j->lock);
    return st;
}

static void stop_supplier(struct disk_journal *j)
{
    pthread_mutex_lock(&j->lock);
    j->stop = true;
    pthread_cond_signal(&j->supply);
    pthread_cond_signal(&j->due);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->supplier, NULL);
}

static bool start_threads(struct disk_journal *j)
{
    if (pthread_create(&j->supplier, NULL, supplier_thread, j) != 0)
        return false;
    if (pthread_create(&j->checkpointer, NULL, checkpointer_thread, j) == 0)
        return true;
    stop_supplier(j);
    return false;
}

enum blob_status disk_journal_open(const struct journal_options *opt, struct disk_journal **out, struct blob_error *err)
{
    CHECK(opt->max_segments >= 3 && opt->max_segments <= JOURNAL_SEGMENTS_MAX && opt->first_segment > 0 && opt->settle);
    CHECK(opt->segment_bytes >= 1u << 20 && opt->segment_bytes < 1ull << 32);
    if (mkdirat(opt->root_fd, JOURNAL_DIR, 0750) != 0 && errno != EEXIST)
        return file_fail(err, errno, "make", "journal directory");
    enum blob_status st = dir_sync(opt->root_fd, ".", err);
    if (st != BLOB_OK)
        return st;
    int dir_fd = openat(opt->root_fd, JOURNAL_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0)
        return file_fail(err, errno, "open", "journal directory");
    struct disk_journal *j = calloc(1, sizeof *j);
    if (!j) {
        close(dir_fd);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "journal");
    }
    j->opt = *opt;
    j->dir_fd = dir_fd;
    j->next_number = opt->first_segment;
    uint8_t random[SIPHASH_KEY_BYTES];
    CHECK(getrandom(random, sizeof random, 0) == sizeof random);
    sum_key_prepare(&j->key, random);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->batch[0], NULL);
    pthread_cond_init(&j->batch[1], NULL);
    pthread_cond_init(&j->space, NULL);
    pthread_cond_init(&j->supply, NULL);
    pthread_cond_init(&j->due, NULL);
    pthread_cond_init(&j->checkpointed, NULL);
    st = begin_first(j, err);
    if (st == BLOB_OK && !start_threads(j))
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "start the journal's threads");
    if (st != BLOB_OK) {
        journal_release(j);
        return st;
    }
    *out = j;
    return BLOB_OK;
}

void disk_journal_close(struct disk_journal *j)
{
    if (!j)
        return;
    struct blob_error why;
    if (disk_journal_checkpoint(j, &why) != BLOB_OK)
        log_line(j->opt.log, LOG_WARN, NULL, "journal: not checkpointed at the end: %s", why.text);
    stop_supplier(j);
    pthread_join(j->checkpointer, NULL);
    journal_release(j);
}
