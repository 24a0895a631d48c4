/*
 * disk_changes - how public names change, durably; see disk_impl.h.
 *
 * Order: changes of one name are appended to the journal and carried out in the same order, because its stripe is held
 * from the one to the other, or has the change queued, and nobody enters a stripe without carrying out its queue first.
 * A change that is journaled but cannot be carried out (the directory cannot grow) is taken back by an ABORT entry if
 * it is the caller's own; a queued one stays queued, keeps its segment from being freed, and is tried again.
 */
#include "backends/disk/disk_impl.h"
#include "backends/disk/disk_marks.h"
#include "backends/disk/file/disk_bytes.h"
#include "backends/disk/file/durable_file.h"
#include "core/check.h"
#include "core/log.h"

#include <stdlib.h>
#include <string.h>

unsigned disk_stripe_of(const struct disk_path *path)
{
    return (unsigned)(key_hash(path->text, strlen(path->text)) % STRIPES);
}

static bool stripe_pending(const struct disk_store *s, unsigned stripe)
{
    return (atomic_load(&s->pending[stripe / 64]) >> (stripe % 64)) & 1;
}

/* Spreads the directory of a class of records when it is seen for the first time. */
static void spread_class(struct disk_store *s, const struct disk_path *path)
{
    char dir[DISK_PATH_MAX];
    const char *class_end = strchr(path->text + sizeof DISK_RECORDS, '/');
    CHECK(class_end);
    size_t len = (size_t)(class_end - path->text);
    memcpy(dir, path->text, len);
    dir[len] = '\0';
    uint64_t hash = key_hash(dir, len);
    if (!key_set_has(&s->known_dirs, hash)) {
        dir_spread(s->root_fd, dir);
        key_set_add(&s->known_dirs, hash);
    }
}

enum blob_status disk_parents(struct disk_store *s, const struct disk_path *path, struct blob_error *err)
{
    const char *slash = strrchr(path->text, '/');
    CHECK(slash);
    uint64_t hash = key_hash(path->text, (size_t)(slash - path->text));
    if (key_set_has(&s->known_dirs, hash))
        return BLOB_OK;
    enum blob_status st = dir_make_parents(s->root_fd, path->text, false, err);
    if (st == BLOB_OK && !s->journal)
        st = disk_dirs_sync_above(s, path->text, err);
    if (st != BLOB_OK)
        return st;
    key_set_add(&s->known_dirs, hash);
    if (strncmp(path->text, DISK_RECORDS "/", sizeof DISK_RECORDS) == 0)
        spread_class(s, path);
    return BLOB_OK;
}

static enum blob_status change_apply(struct disk_store *s, const struct disk_change *c, struct blob_error *err)
{
    if (c->from.text[0] == '\0')
        return file_remove(s->root_fd, c->to.text, err);
    return file_rename(s->root_fd, c->from.text, c->to.text, err);
}

/* Returns the upload that a change ends, as ending_uploads has it; 0: it ends none. */
static uint64_t ended_upload(const struct disk_change *c)
{
    const char *path = c->from.text[0] != '\0' ? c->from.text : c->to.text;
    return strncmp(path, DISK_UPLOADS "/", sizeof DISK_UPLOADS) == 0 ? key_hash(path, strlen(path)) : 0;
}

bool disk_upload_ending(struct disk_store *s, const struct disk_path *upload)
{
    return s->journal && key_set_has(&s->ending_uploads, key_hash(upload->text, strlen(upload->text)));
}

/* ---- pending changes ---- */

/* Carries out what is pending in a locked stripe. If wait is set, it waits for what is not durable yet; else that
 * stays pending. */
static enum blob_status stripe_settle(struct disk_store *s, unsigned number, bool wait, struct blob_error *err)
{
    struct disk_stripe *stripe = &s->stripes[number];
    while (stripe->head) {
        struct disk_change *c = stripe->head;
        if (!wait && c->ticket.lsn > disk_journal_durable(s->journal))
            return BLOB_OK;
        enum blob_status st = disk_journal_wait(s->journal, c->ticket.lsn, err);
        if (st == BLOB_OK)
            st = change_apply(s, c, err);
        if (st != BLOB_OK)
            return st;
        stripe->head = c->next;
        uint64_t upload = ended_upload(c);
        if (upload != 0) {
            key_set_remove(&s->ending_uploads, upload);
            disk_marks_drop(s->marks, upload);
        }
        disk_journal_unpin(s->journal, &c->ticket);
        free(c);
    }
    atomic_fetch_and(&s->pending[number / 64], ~(UINT64_C(1) << (number % 64)));
    return BLOB_OK;
}

static void stripe_queue(struct disk_store *s, unsigned number, struct disk_change *c)
{
    struct disk_stripe *stripe = &s->stripes[number];
    if (stripe->head)
        stripe->tail->next = c;
    else
        stripe->head = c;
    stripe->tail = c;
    atomic_fetch_or(&s->pending[number / 64], UINT64_C(1) << (number % 64));
}

void disk_stripe_unlock(struct disk_store *s, unsigned stripe)
{
    pthread_mutex_unlock(&s->stripes[stripe].lock);
}

enum blob_status disk_stripe_enter(struct disk_store *s, unsigned stripe, struct blob_error *err)
{
    pthread_mutex_lock(&s->stripes[stripe].lock);
    enum blob_status st = s->stripes[stripe].head ? stripe_settle(s, stripe, true, err) : BLOB_OK;
    if (st != BLOB_OK)
        disk_stripe_unlock(s, stripe);
    return st;
}

void disk_stripe_leave(struct disk_store *s, unsigned stripe)
{
    disk_stripe_unlock(s, stripe);
    if (s->journal)
        disk_settle_durable(s, NULL);
}

enum blob_status disk_settle(struct disk_store *s, const struct disk_path *path, struct blob_error *err)
{
    unsigned stripe = disk_stripe_of(path);
    if (!stripe_pending(s, stripe))
        return BLOB_OK;
    enum blob_status st = disk_stripe_enter(s, stripe, err);
    /* A reader settles the one name it looks at; what is durable elsewhere is not its work. */
    if (st == BLOB_OK)
        disk_stripe_unlock(s, stripe);
    return st;
}

enum blob_status disk_settle_all(struct disk_store *s, struct blob_error *err)
{
    enum blob_status first = BLOB_OK;
    for (unsigned stripe = 0; stripe < STRIPES; stripe++) {
        if (!stripe_pending(s, stripe))
            continue;
        enum blob_status st = disk_stripe_enter(s, stripe, first == BLOB_OK ? err : NULL);
        /* This loop comes to every stripe by itself: disk_stripe_leave() would look at all of them each time. */
        if (st == BLOB_OK)
            disk_stripe_unlock(s, stripe);
        else if (first == BLOB_OK)
            first = st;
    }
    return first;
}

enum blob_status disk_settle_durable(struct disk_store *s, struct blob_error *err)
{
    enum blob_status first = BLOB_OK;
    for (unsigned word = 0; word < STRIPE_WORDS; word++) {
        for (uint64_t bits = atomic_load(&s->pending[word]); bits != 0; bits &= bits - 1) {
            unsigned stripe = word * 64 + (unsigned)__builtin_ctzll(bits);
            /* Somebody holds the stripe, and has emptied it when entering. */
            if (pthread_mutex_trylock(&s->stripes[stripe].lock) != 0)
                continue;
            enum blob_status st = stripe_settle(s, stripe, false, first == BLOB_OK ? err : NULL);
            first = first == BLOB_OK ? st : first;
            disk_stripe_unlock(s, stripe);
        }
    }
    return first;
}

void disk_changes_release(struct disk_store *s)
{
    for (unsigned i = 0; i < STRIPES; i++) {
        while (s->stripes[i].head) {
            struct disk_change *c = s->stripes[i].head;
            s->stripes[i].head = c->next;
            free(c);
        }
        pthread_mutex_destroy(&s->stripes[i].lock);
    }
}

/* ---- new changes ---- */

/* Without the journal. Nobody is told the new state of the name until its directory is synced (disk_name_durable). */
static enum blob_status run_synced(struct disk_store *s, const struct disk_change *c, struct blob_error *err)
{
    enum blob_status st = disk_name_changes(s, &c->to, err);
    if (st != BLOB_OK)
        return st;
    st = change_apply(s, c, err);
    if (st != BLOB_OK) {
        disk_name_is_durable(s, &c->to);
        return st;
    }
    st = disk_dir_sync_parent(s, c->to.text, err);
    if (st == BLOB_OK)
        disk_name_is_durable(s, &c->to);
    return st;
}

/* Takes an entry back, so that a start does not carry out a change whose caller was told that it failed. */
static void take_back(struct disk_store *s, const struct journal_ticket *ticket)
{
    uint8_t begin[8];
    put_le(begin, ticket->begin, sizeof begin);
    const struct iovec part = disk_part(begin, sizeof begin);
    struct journal_ticket own;
    struct blob_error why;
    if (disk_journal_append(s->journal, JOURNAL_ABORT, &part, 1, false, &own, &why) != BLOB_OK)
        log_line(s->log, LOG_WARN, NULL, "a failed change may be carried out at the next start: %s", why.text);
}

static enum blob_status run_journaled(struct disk_store *s, const struct disk_change *change,
                                      const struct disk_entry *entry, struct blob_error *err)
{
    struct journal_ticket ticket;
    enum blob_status st = disk_journal_append(s->journal, entry->kind, entry->parts, entry->count, true, &ticket, err);
    if (st != BLOB_OK)
        return st;
    st = disk_journal_wait(s->journal, ticket.lsn, err);
    if (st == BLOB_OK) {
        st = change_apply(s, change, err);
        if (st != BLOB_OK)
            take_back(s, &ticket);
        else if (ended_upload(change) != 0)
            disk_marks_drop(s->marks, ended_upload(change));
    }
    disk_journal_unpin(s->journal, &ticket);
    return st;
}

static enum blob_status run_lazily(struct disk_store *s, unsigned stripe, const struct disk_change *change,
                                   const struct disk_entry *entry, struct blob_error *err)
{
    struct disk_change *queued = malloc(sizeof *queued);
    uint64_t upload = ended_upload(change);
    if (!queued || (upload != 0 && !key_set_add(&s->ending_uploads, upload))) {
        free(queued);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "%s", change->to.text);
    }
    *queued = *change;
    queued->next = NULL;
    enum blob_status st =
        disk_journal_append(s->journal, entry->kind, entry->parts, entry->count, true, &queued->ticket, err);
    if (st == BLOB_OK) {
        stripe_queue(s, stripe, queued);
        return BLOB_OK;
    }
    if (upload != 0)
        key_set_remove(&s->ending_uploads, upload);
    free(queued);
    return st;
}

enum blob_status disk_change_run(struct disk_store *s, unsigned stripe, const struct disk_change *change,
                                 const struct disk_entry *entry, unsigned flags, struct blob_error *err)
{
    enum blob_status st = change->from.text[0] != '\0' ? disk_parents(s, &change->to, err) : BLOB_OK;
    if (st != BLOB_OK)
        return st;
    if (!s->journal)
        return run_synced(s, change, err);
    if (flags & BLOB_LAZY)
        return run_lazily(s, stripe, change, entry, err);
    return run_journaled(s, change, entry, err);
}
