/*
 * file_catalog - files are their records; everything else follows them.
 *
 * Order of steps. Adding: the record, then the watcher (a cached answer of the old state goes), then the index row. The
 * record is put create-only and without a look first: the usual upload costs one store operation, and only one that is
 * repeated, or meets another of the same number, reads. Destroying: a note in the record of the upload that made it,
 * where there still is one, so that no repeat of its completion makes it again; the record, the watcher, the row, and
 * where no record of the blob is left, blob_touch, which starts the grace time, and the mark that tells of it. Each
 * step may be the last one before a crash: a record without a row is settled by the index, a blob without records is
 * swept (without a grace time of its own then, which exists for adders, and they touch the blob themselves).
 *
 * Races. Two destroys of one file: both may find the record, both succeed, the second changes nothing. Destroys of a
 * blob's two last files: the later deletion sees no record left, perhaps both do; touching twice is harmless. A
 * destroy beside an add: whatever the destroy believes of being the last, it only touches the blob; the sweeper
 * lists the records again.
 */
#include "core/files/file_catalog.h"

#include "core/check.h"
#include "core/files/file_ends.h"
#include "core/files/file_index.h"
#include "core/files/file_scan.h"
#include "core/files/unnamed.h"
#include "core/log.h"
#include "core/node_clock.h"
#include "core/session/upload_record.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_TRIES 64 /* uploads of equal content, made in one millisecond, alike in 22 random bits */

/*
 * What was found of a blob's files is remembered, in slots by digest. Where the first was is a hint, that is tried
 * before others. Files past their time stay until the janitor's next sweep, and may be many: each is read once. A
 * slot's turn counts the files that were added since it began: what was found past its time before such a change is not
 * noted after it, as the file may be of an earlier number (it has that of its upload's beginning). Nor where nodes
 * share the store, who add files without a word here.
 */
#define ENDS_SLOTS 256
#define HINT_FILES 16

struct ends_slot {
    struct digest digest;
    bool set;
    uint64_t hint;    /* from here on were the first files; 0: not known */
    uint64_t from;    /* the files of this number and above, the older ones, are past their time; UINT64_MAX: none */
    int64_t since_ms; /* and later */
    uint64_t turn;
};

struct file_catalog {
    struct blob_store *store;
    struct session_store *sessions;
    struct logger *log;
    struct file_index *index;
    file_watch_fn *watch;
    void *watch_arg;
    atomic_flag scanning; /* a listing without the index is under way */
    pthread_mutex_t ends_lock;
    struct ends_slot ends[ENDS_SLOTS];
};

struct file_catalog *file_catalog_new(struct blob_store *store, struct session_store *sessions, struct logger *log)
{
    struct file_catalog *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    c->store = store;
    c->sessions = sessions;
    c->log = log;
    c->index = file_index_new(store, sessions, log);
    CHECK(pthread_mutex_init(&c->ends_lock, NULL) == 0);
    return c;
}

void file_catalog_free(struct file_catalog *c)
{
    if (!c)
        return;
    file_index_free(c->index);
    pthread_mutex_destroy(&c->ends_lock);
    free(c);
}

void file_catalog_watch(struct file_catalog *c, file_watch_fn *fn, void *arg)
{
    CHECK(!c->watch || !fn);
    c->watch = fn;
    c->watch_arg = arg;
}

static void tell_watcher(struct file_catalog *c, const struct digest *digest)
{
    if (c->watch)
        c->watch(digest, c->watch_arg);
}

/* ---- reading ---- */

static enum blob_status read_record(struct file_catalog *c, const struct digest *digest, uint64_t number,
                                    struct file_record *out, struct blob_error *err)
{
    char key[FILE_KEY_CHARS + 1];
    file_key_make(digest, number, key);
    struct bytebuf json;
    bytebuf_init(&json);
    struct blob_error own;
    enum blob_status st = record_get(c->store, key, &json, err);
    if (st == BLOB_OK && json.failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "file record %s", key);
    if (st == BLOB_OK) {
        st = file_record_decode(digest, number, json.data, json.len, out, &own);
        if (st != BLOB_OK) {
            log_line(c->log, LOG_ERROR, NULL, "%s", own.text);
            if (err)
                *err = own;
        }
    }
    bytebuf_release(&json);
    return st;
}

static bool visible(const struct file_record *file, const struct identity *who)
{
    return !who || !who->known || who->admin || strcmp(file->owner, who->name) == 0;
}

static bool expired(const struct file_record *file, int64_t now_ms)
{
    return file->expires_ms != 0 && file->expires_ms <= now_ms;
}

enum blob_status file_catalog_get(struct file_catalog *c, const char *id, const struct identity *who,
                                  struct file_record *out, struct blob_error *err)
{
    struct digest digest;
    uint64_t number;
    if (file_id_parse(id, &digest, &number) != BLOB_OK)
        return blob_fail(err, BLOB_E_INVALID, 0, "not a file id");
    struct file_record file;
    enum blob_status st = read_record(c, &digest, number, &file, err);
    if (st != BLOB_OK)
        return st;
    if (!visible(&file, who) || expired(&file, node_clock_at_least_ms(c->sessions->clock)))
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "file %s is another's, or past its time", id);
    *out = file;
    return BLOB_OK;
}

struct newest_search {
    struct file_catalog *c;
    int64_t now_ms;
    size_t met; /* of this page */
    bool found; /* one that counts */
    char key[RECORD_KEY_MAX + 1];
    struct file_record file;
};

static bool take_if_it_counts(const char *key, const void *value, size_t len, void *arg)
{
    struct newest_search *s = arg;
    struct digest digest;
    uint64_t number;
    struct blob_error err;
    s->met++;
    snprintf(s->key, sizeof s->key, "%s", key);
    if (file_key_parse(key, &digest, &number) != BLOB_OK)
        return true;
    if (file_record_decode(&digest, number, value, len, &s->file, &err) != BLOB_OK)
        log_line(s->c->log, LOG_ERROR, NULL, "%s", err.text);
    else
        s->found = !expired(&s->file, s->now_ms);
    return !s->found;
}

enum blob_status file_catalog_newest(struct file_catalog *c, const struct digest *digest, struct file_record *out,
                                     struct blob_error *err)
{
    char prefix[FILE_PREFIX_CHARS + 1];
    file_prefix_make(digest, prefix);
    struct newest_search s = {.c = c, .now_ms = node_clock_at_least_ms(c->sessions->clock)};
    /* The first nearly always counts, and a store may pay for each value. Where many do not, each page is eight times
     * the last, so that a listing that reads a whole directory is not made once for each of them. */
    size_t page = 1;
    do {
        s.met = 0;
        enum blob_status st =
            record_list(c->store, prefix, s.key[0] ? s.key : NULL, page, true, take_if_it_counts, &s, err);
        if (st != BLOB_OK)
            return st;
        page *= 8;
    } while (s.met > 0 && !s.found);
    if (!s.found)
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "no file names this blob");
    *out = s.file;
    return BLOB_OK;
}

/* ---- what a download is called ---- */

uint64_t file_naming_hash(const char *owner)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (const char *p = owner; *p; p++)
        h = (h ^ (unsigned char)*p) * UINT64_C(0x100000001b3);
    return h;
}

/* ---- what is remembered of a blob's files ---- */

static struct ends_slot *ends_slot(struct file_catalog *c, const struct digest *digest)
{
    return &c->ends[digest->bytes[0] % ENDS_SLOTS];
}

/* Gives the slot to the digest. */
static struct ends_slot *claim_ends_slot(struct file_catalog *c, const struct digest *digest)
{
    struct ends_slot *slot = ends_slot(c, digest);
    if (!slot->set || !digest_equal(&slot->digest, digest))
        *slot = (struct ends_slot){.digest = *digest, .set = true, .from = UINT64_MAX, .turn = slot->turn};
    return slot;
}

/* The two ends of a blob's list of files: the newest are the first in it. */
struct file_ends {
    struct file_catalog *c;
    const struct digest *digest;
    int64_t now_ms;
    uint64_t below; /* only files of a lower number count */
    uint64_t hint;  /* as in the slot, before they were listed, like below and the turn */
    uint64_t turn;
    bool all; /* there are no others below `below` than the newest */
    size_t count;
    uint64_t newest[NAMING_READS];
    size_t reads, reads_max; /* of the oldest */
    bool damaged;            /* one of the oldest that were read is */
};

/* Before the files are listed. */
static void recall_ends(struct file_ends *ends)
{
    struct file_catalog *c = ends->c;
    pthread_mutex_lock(&c->ends_lock);
    const struct ends_slot *slot = ends_slot(c, ends->digest);
    bool known = slot->set && digest_equal(&slot->digest, ends->digest);
    ends->hint = known ? slot->hint : 0;
    ends->below = known && slot->since_ms <= ends->now_ms ? slot->from : UINT64_MAX;
    ends->turn = slot->turn;
    pthread_mutex_unlock(&c->ends_lock);
}

/* Not the very last: it may be destroyed. */
static void note_hint(const struct file_ends *ends, const struct file_tail *tail)
{
    struct file_catalog *c = ends->c;
    uint64_t number = tail->numbers[tail->count > HINT_FILES ? tail->count - HINT_FILES : 0];
    if (number == ends->hint)
        return;
    pthread_mutex_lock(&c->ends_lock);
    claim_ends_slot(c, ends->digest)->hint = number;
    pthread_mutex_unlock(&c->ends_lock);
}

static void note_expired_from(const struct file_ends *ends, uint64_t from)
{
    struct file_catalog *c = ends->c;
    if (c->store->caps & STORE_SHARED)
        return;
    pthread_mutex_lock(&c->ends_lock);
    if (ends_slot(c, ends->digest)->turn == ends->turn) {
        struct ends_slot *slot = claim_ends_slot(c, ends->digest);
        slot->from = from;
        slot->since_ms = ends->now_ms;
    }
    pthread_mutex_unlock(&c->ends_lock);
}

/* After a file was, or may have been, added. */
static void forget_expired(struct file_catalog *c, const struct digest *digest, uint64_t number)
{
    pthread_mutex_lock(&c->ends_lock);
    struct ends_slot *slot = ends_slot(c, digest);
    slot->turn++;
    if (slot->set && digest_equal(&slot->digest, digest) && number >= slot->from)
        slot->from = UINT64_MAX;
    pthread_mutex_unlock(&c->ends_lock);
}

/* ---- the first file that counts ---- */

/* A file that counts; NOT_FOUND, CORRUPT: it does not. */
static enum blob_status read_counting(struct file_catalog *c, const struct digest *digest, uint64_t number,
                                      int64_t now_ms, struct file_record *out, struct blob_error *err)
{
    enum blob_status st = read_record(c, digest, number, out, err);
    return st == BLOB_OK && expired(out, now_ms) ? BLOB_E_NOT_FOUND : st;
}

/* From the oldest on; those found past their time count no more, here and the next time: unless behind a damaged one,
 * which may be mended. NOT_FOUND: none of them counts that were read. */
static enum blob_status read_oldest(struct file_ends *ends, const uint64_t *numbers, size_t count,
                                    struct file_record *out, struct blob_error *err)
{
    uint64_t expired = ends->below;
    enum blob_status st = BLOB_E_NOT_FOUND;
    bool was_damaged = ends->damaged;
    while (st == BLOB_E_NOT_FOUND && count-- > 0 && ends->reads < ends->reads_max) {
        ends->reads++;
        st = read_counting(ends->c, ends->digest, numbers[count], ends->now_ms, out, err);
        ends->damaged |= st == BLOB_E_CORRUPT;
        if (st == BLOB_E_CORRUPT)
            st = BLOB_E_NOT_FOUND;
        if (st == BLOB_E_NOT_FOUND)
            ends->below = numbers[count];
        if (!ends->damaged)
            expired = ends->below;
    }
    if (expired != UINT64_MAX && !was_damaged)
        note_expired_from(ends, expired);
    return st;
}

/* The oldest files that may count: some of them, the last being the oldest. None: there are no others. */
static enum blob_status list_oldest(struct file_ends *ends, struct file_tail *tail, struct blob_error *err)
{
    while (ends->count > 0 && ends->newest[ends->count - 1] >= ends->below) {
        ends->count--;
        ends->all = true;
    }
    if (!ends->all && ends->count > 0)
        return file_numbers_last(ends->c->store, ends->digest, ends->newest[ends->count - 1], ends->below, ends->hint,
                                 tail, err);
    memcpy(tail->numbers, ends->newest, ends->count * sizeof *tail->numbers);
    tail->count = ends->count;
    return BLOB_OK;
}

static enum blob_status read_newest(const struct file_ends *ends, struct file_record *out, struct blob_error *err)
{
    enum blob_status st = BLOB_E_NOT_FOUND;
    for (size_t i = 0; (st == BLOB_E_NOT_FOUND || st == BLOB_E_CORRUPT) && i < ends->count; i++)
        st = read_counting(ends->c, ends->digest, ends->newest[i], ends->now_ms, out, err);
    return st == BLOB_E_CORRUPT ? BLOB_E_NOT_FOUND : st;
}

static enum blob_status no_file(struct blob_error *err)
{
    return blob_fail(err, BLOB_E_NOT_FOUND, 0, "no file names this blob");
}

/* So many files past their time are read for one request, where reading one is a request in turn. */
#define EXPIRED_READS        512
#define EXPIRED_READS_REMOTE NAMING_READS

/* Where the oldest are past their time, and more than may be read, the newest will do. Where these are as well,
 * somebody has to look through those between: a part at a time, where that is remembered. */
static enum blob_status find_first(struct file_ends *ends, struct file_record *out, struct blob_error *err)
{
    struct file_tail tail;
    bool newest_tried = false;
    ends->reads_max = ends->c->store->caps & STORE_REMOTE ? EXPIRED_READS_REMOTE : EXPIRED_READS;
    enum blob_status st;
    do {
        st = list_oldest(ends, &tail, err);
        if (st == BLOB_OK && tail.count == 0)
            return no_file(err);
        if (st == BLOB_OK)
            st = read_oldest(ends, tail.numbers, tail.count, out, err);
        if (st == BLOB_OK && !ends->all)
            note_hint(ends, &tail);
        if (st != BLOB_E_NOT_FOUND || ends->reads < ends->reads_max)
            continue;
        if (!newest_tried)
            st = read_newest(ends, out, err);
        newest_tried = true;
        if (st == BLOB_E_NOT_FOUND && !(ends->c->store->caps & STORE_SHARED) && !ends->damaged)
            return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "many files of this blob are past their time");
        ends->reads_max = SIZE_MAX;
    } while (st == BLOB_E_NOT_FOUND);
    return st;
}

static enum blob_status find_own(const struct file_ends *ends, const char *owner, struct file_naming *out,
                                 struct blob_error *err)
{
    struct file_record file;
    for (size_t i = 0; i < ends->count; i++) {
        enum blob_status st = read_counting(ends->c, ends->digest, ends->newest[i], ends->now_ms, &file, err);
        if (st == BLOB_OK && strcmp(file.owner, owner) == 0) {
            out->personal = file.number != out->file.number;
            out->file = file;
            return BLOB_OK;
        }
        if (st != BLOB_OK && st != BLOB_E_NOT_FOUND && st != BLOB_E_CORRUPT)
            return st;
    }
    return BLOB_OK;
}

/* Whose newest file is not the first: all of a few. */
static enum blob_status tell_owners(const struct file_ends *ends, struct file_naming *out, struct blob_error *err)
{
    struct file_record file;
    for (size_t i = 0; i < ends->count; i++) {
        enum blob_status st = read_counting(ends->c, ends->digest, ends->newest[i], ends->now_ms, &file, err);
        if (st != BLOB_OK && st != BLOB_E_NOT_FOUND && st != BLOB_E_CORRUPT)
            return st;
        if (st == BLOB_OK && file.owner[0] != '\0' && file.number != out->file.number)
            out->owners[out->owner_count++] = file_naming_hash(file.owner);
    }
    out->all_told = true;
    return BLOB_OK;
}

enum blob_status file_catalog_name(struct file_catalog *c, const struct digest *digest, const char *owner,
                                   struct file_naming *out, struct blob_error *err)
{
    struct file_ends ends = {.c = c, .digest = digest, .now_ms = node_clock_at_least_ms(c->sessions->clock)};
    struct file_naming naming = {.personal = false};
    bool more = false;
    recall_ends(&ends);
    enum blob_status st =
        file_numbers_from(c->store, digest, 0, ends.below, NAMING_READS, ends.newest, &ends.count, &more, err);
    if (st == BLOB_OK && ends.count == 0)
        return no_file(err);
    ends.all = !more;
    if (st == BLOB_OK)
        st = find_first(&ends, &naming.file, err);
    naming.all_told = ends.count == 1;
    if (st == BLOB_OK && ends.count > 1 && ends.count <= NAMING_OWNERS)
        st = tell_owners(&ends, &naming, err);
    if (st == BLOB_OK && ends.count > 1 && owner && owner[0] != '\0')
        st = find_own(&ends, owner, &naming, err);
    if (st == BLOB_OK)
        *out = naming;
    return st;
}

enum blob_status file_catalog_added_lately(struct file_catalog *c, const struct digest *digest, struct blob_error *err)
{
    struct file_record any = {.digest = *digest};
    file_id_make(&any);
    any.id[INDEX_STEM_CHARS] = '\0';
    return index_recent(c->sessions, any.id, err);
}

/* ---- adding ---- */

enum blob_status file_catalog_add_begin(struct file_catalog *c, struct file_record *file, unsigned flags,
                                        struct file_row *row, struct blob_error *err)
{
    struct file_record made = *file;
    row->put.row = NULL;
    row->json = NULL;
    for (int tries = 0; tries < NUMBER_TRIES; tries++, made.number--) {
        char key[FILE_KEY_CHARS + 1], *json;
        size_t len;
        file_id_make(&made);
        file_key_make(&made.digest, made.number, key);
        enum blob_status st = file_record_encode(&made, &json, &len, err);
        if (st != BLOB_OK)
            return st;
        st = record_put(c->store, key, json, len, flags | BLOB_IF_NONE, err);
        forget_expired(c, &made.digest, made.number); /* also after a failure: it may have happened */
        tell_watcher(c, &made.digest);
        if (st == BLOB_OK) {
            file_index_row(&made, json, len, &row->row);
            row->put.row = &row->row;
            row->json = json;
            *file = made;
            return BLOB_OK;
        }
        if (st != BLOB_E_EXISTS)
            file_index_doubt(c->index, &made.digest, made.number);
        free(json);
        if (st != BLOB_E_EXISTS)
            return st;
        struct file_record there;
        st = read_record(c, &made.digest, made.number, &there, err);
        if (st == BLOB_OK && strcmp(there.upload.text, made.upload.text) == 0) {
            /* Our own, of an attempt whose answer was lost: its row may be missing. */
            file_index_settle(c->index, &there.digest, there.number);
            *file = there;
            return BLOB_OK;
        }
        if (st != BLOB_OK && st != BLOB_E_NOT_FOUND && st != BLOB_E_CORRUPT)
            return st;
    }
    return blob_fail(err, BLOB_E_IO, 0, "no free number for a file of upload %s", file->upload.text);
}

void file_catalog_add_end(struct file_catalog *c, const struct file_record *file, struct file_row *row)
{
    if (row->put.row)
        file_index_was_put(c->index, file, row->put.st, &row->put.err);
    free(row->json);
}

enum blob_status file_catalog_add(struct file_catalog *c, struct file_record *file, unsigned flags,
                                  struct blob_error *err)
{
    struct file_row row;
    enum blob_status st = file_catalog_add_begin(c, file, flags, &row, err);
    if (st != BLOB_OK)
        return st;
    if (row.put.row)
        row.put.st = index_put(c->sessions, row.put.row, &row.put.err);
    file_catalog_add_end(c, file, &row);
    return BLOB_OK;
}

static enum blob_status read_own(struct file_catalog *c, const struct digest *digest, uint64_t number,
                                 const struct uuid *upload, struct file_record *out, struct blob_error *err)
{
    struct file_record file;
    enum blob_status st = read_record(c, digest, number, &file, err);
    if (st == BLOB_OK && strcmp(file.upload.text, upload->text) != 0)
        st = BLOB_E_NOT_FOUND;
    if (st == BLOB_OK)
        *out = file;
    return st == BLOB_E_CORRUPT ? BLOB_E_NOT_FOUND : st;
}

/* Where it is not at the first number it may have met another's there, which may be gone again, and others after that:
 * so all that there is among its numbers is looked at, which is nearly always nothing. */
enum blob_status file_catalog_find(struct file_catalog *c, const struct digest *digest, uint64_t number,
                                   const struct uuid *upload, struct file_record *out, struct blob_error *err)
{
    enum blob_status st = read_own(c, digest, number, upload, out, err);
    if (st != BLOB_E_NOT_FOUND)
        return st;
    uint64_t numbers[NUMBER_TRIES]; /* those that it may have got instead, the first being the last of them */
    size_t count = 0;
    bool more;
    st = file_numbers_from(c->store, digest, number < NUMBER_TRIES ? 0 : number - NUMBER_TRIES + 1, number,
                           NUMBER_TRIES, numbers, &count, &more, err);
    while (st == BLOB_OK && count-- > 0) {
        st = read_own(c, digest, numbers[count], upload, out, err);
        if (st == BLOB_OK)
            return st;
        if (st == BLOB_E_NOT_FOUND)
            st = BLOB_OK;
    }
    return st == BLOB_OK ? blob_fail(err, BLOB_E_NOT_FOUND, 0, "no file of upload %s", upload->text) : st;
}

void file_catalog_list_again(struct file_catalog *c, const struct file_record *file)
{
    file_index_settle(c->index, &file->digest, file->number);
}

/* ---- destroying ---- */

static bool note_one(const char *key, const void *value, size_t len, void *arg)
{
    (void)key;
    (void)value;
    (void)len;
    *(bool *)arg = true;
    return false;
}

enum blob_status file_catalog_names(struct file_catalog *c, const struct digest *digest, bool *named,
                                    struct blob_error *err)
{
    char prefix[FILE_PREFIX_CHARS + 1];
    file_prefix_make(digest, prefix);
    bool any = false;
    enum blob_status st = record_list(c->store, prefix, NULL, 1, false, note_one, &any, err);
    if (st == BLOB_OK)
        *named = any;
    return st;
}

/* After the record is gone nothing below may fail the destroy: what is not done now, the sweeper does, later. */
static bool start_grace_if_last(struct file_catalog *c, const struct digest *digest)
{
    bool named = true;
    int64_t touched_ms;
    struct blob_error err;
    enum blob_status st = file_catalog_names(c, digest, &named, &err);
    if (st == BLOB_OK && !named) {
        st = blob_touch(c->store, digest, &touched_ms, &err);
        if (st == BLOB_OK)
            st = unnamed_mark(c->store, digest, touched_ms, &err);
    }
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        log_line(c->log, LOG_WARN, NULL, "a blob without files was not marked for the sweeper: %s", err.text);
    return !named;
}

/* On a full disk it is destroying that gives room: there it goes on without. */
static enum blob_status note_gone(struct file_catalog *c, const struct uuid *upload, struct blob_error *err)
{
    struct blob_error own;
    enum blob_status st = upload ? upload_record_note_gone(c->store, upload, &own) : BLOB_OK;
    if (st == BLOB_E_NO_SPACE) {
        log_line(c->log, LOG_WARN, NULL, "upload %s will not remember its file: %s", upload->text, own.text);
        return BLOB_OK;
    }
    if (st != BLOB_OK && err)
        *err = own;
    return st;
}

/* upload: what made the file, or NULL where its record does not tell. */
static enum blob_status destroy_record(struct file_catalog *c, const struct digest *digest, uint64_t number,
                                       const struct uuid *upload, bool *last, struct blob_error *err)
{
    char key[FILE_KEY_CHARS + 1];
    file_key_make(digest, number, key);
    enum blob_status st = note_gone(c, upload, err);
    if (st != BLOB_OK)
        return st;
    st = record_delete(c->store, key, 0, err);
    tell_watcher(c, digest);
    if (st != BLOB_OK) {
        file_index_doubt(c->index, digest, number); /* it may have happened */
        return st;
    }
    file_index_remove(c->index, digest, number);
    *last = start_grace_if_last(c, digest);
    return BLOB_OK;
}

enum blob_status file_catalog_destroy(struct file_catalog *c, const char *id, const struct identity *who,
                                      struct digest *digest, bool *last_of_blob, struct blob_error *err)
{
    struct digest of;
    uint64_t number;
    if (file_id_parse(id, &of, &number) != BLOB_OK)
        return blob_fail(err, BLOB_E_INVALID, 0, "not a file id");
    struct file_record file;
    bool last;
    enum blob_status st = read_record(c, &of, number, &file, err);
    if (st == BLOB_E_NOT_FOUND) {
        /* A row that outlived its record would be listed for ever: the destroy that failed half-way is repeated. */
        file_index_remove(c->index, &of, number);
        return st;
    }
    /* A damaged record shows no owner: it is left to whoever may destroy anything. */
    if (st == BLOB_E_CORRUPT && who && who->known && !who->admin)
        return st;
    if (st != BLOB_OK && st != BLOB_E_CORRUPT)
        return st;
    if (st == BLOB_OK && !visible(&file, who))
        return blob_fail(err, BLOB_E_NOT_FOUND, 0, "file %s is another's", id);
    st = destroy_record(c, &of, number, st == BLOB_OK ? &file.upload : NULL, &last, err);
    if (st != BLOB_OK)
        return st;
    *digest = of;
    *last_of_blob = last;
    return BLOB_OK;
}

/* ---- the index ---- */

struct listing {
    struct file_catalog *c;
    file_list_fn *fn;
    void *arg;
};

static bool pass_row_on(const struct index_row *row, void *arg)
{
    struct listing *l = arg;
    struct digest digest;
    uint64_t number;
    struct file_record file;
    struct blob_error err;
    enum blob_status st = file_id_parse(row->id, &digest, &number);
    if (st == BLOB_OK)
        st = file_record_decode(&digest, number, row->value, row->value_len, &file, &err);
    else
        blob_fail(&err, st, 0, "the file index has a row that is not a file's");
    if (st != BLOB_OK) {
        log_line(l->c->log, LOG_ERROR, NULL, "%s", err.text);
        return true;
    }
    return l->fn(&file, l->arg);
}

enum blob_status file_catalog_list(struct file_catalog *c, const struct identity *who, const struct index_query *q,
                                   uint64_t *count, file_list_fn *fn, void *arg, struct blob_error *err)
{
    struct index_query query = *q;
    struct listing l = {c, fn, arg};
    query.owner = who && who->known && !who->admin ? who->name : NULL;
    enum blob_status st = index_whole(c->sessions, err);
    if (st == BLOB_E_NOT_FOUND)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the file index is being rebuilt");
    if (st == BLOB_OK)
        st = index_list(c->sessions, &query, count, pass_row_on, &l, err);
    /* The session store is away, and the index with it. The records are here: one such listing at a time. */
    if (st == BLOB_E_UNAVAILABLE && !atomic_flag_test_and_set(&c->scanning)) {
        st = file_scan_list(c->store, &query, count, pass_row_on, &l, err);
        atomic_flag_clear(&c->scanning);
    }
    return st;
}

enum blob_status file_catalog_heal_index(struct file_catalog *c, const atomic_bool *stop, struct blob_error *err)
{
    enum blob_status st = file_index_repair(c->index, stop, err);
    if (st != BLOB_OK)
        return st;
    index_caught_up(c->sessions);
    st = index_whole(c->sessions, err);
    if (st == BLOB_E_NOT_FOUND || (st == BLOB_OK && file_index_overflowed(c->index)))
        st = file_index_rebuild(c->index, stop, err);
    return st;
}

/* ---- expiry ---- */

struct expired_rows {
    struct file_record *files; /* digest and number only */
    size_t count, room;
};

static bool note_expired(const struct index_row *row, void *arg)
{
    struct expired_rows *e = arg;
    struct file_record *f = &e->files[e->count];
    if (file_id_parse(row->id, &f->digest, &f->number) == BLOB_OK)
        e->count++;
    return e->count < e->room;
}

/* The record decides: the row may be a ghost, or older than it. */
static enum blob_status expire_one(struct file_catalog *c, const struct file_record *row, int64_t now_ms,
                                   struct blob_error *err)
{
    struct file_record file;
    bool last;
    enum blob_status st = read_record(c, &row->digest, row->number, &file, err);
    if (st == BLOB_OK && expired(&file, now_ms))
        return destroy_record(c, &row->digest, row->number, &file.upload, &last, err);
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND && st != BLOB_E_CORRUPT)
        return st;
    file_index_settle(c->index, &row->digest, row->number);
    return BLOB_OK;
}

enum blob_status file_catalog_expire(struct file_catalog *c, int64_t now_ms, size_t limit, size_t *done,
                                     struct blob_error *err)
{
    struct expired_rows e = {.room = limit, .files = calloc(limit, sizeof *e.files)};
    CHECK(limit > 0);
    if (!e.files)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "expiry of %zu files", limit);
    /* Collected first: a session store may not be called back from within its own listing. */
    enum blob_status st = index_expired(c->sessions, now_ms, limit, note_expired, &e, err);
    size_t dealt = 0;
    while (st == BLOB_OK && dealt < e.count) {
        st = expire_one(c, &e.files[dealt], now_ms, err);
        if (st == BLOB_OK)
            dealt++;
    }
    free(e.files);
    if (st == BLOB_OK)
        *done = dealt;
    return st;
}
