/*
 * disk_records - records: a file each, written beside and renamed, so that nobody reads half of one.
 *
 * With the journal, disk_memtable keeps what is not in its file yet. Without one, the new value is written to tmp/
 * before anything is promised, so a full disk is met there, where it harms nothing.
 * A listing reads one directory at a time, in the order of the keys; see disk_layout.h for why the directories do not
 * overlap. Of a directory it keeps, and sorts, no more names than it was asked for; a crowded one is not read at all,
 * see disk_crowds.
 */
#include "backends/disk/disk_crowds.h"
#include "backends/disk/disk_impl.h"
#include "backends/disk/disk_memtable.h"
#include "backends/disk/file/durable_file.h"
#include "core/check.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Returns BLOB_OK if the record is not there, else EXISTS. */
static enum blob_status record_absent(struct disk_store *s, const char *key, const struct disk_path *path,
                                      struct blob_error *err)
{
    if (faccessat(s->root_fd, path->text, F_OK, 0) == 0) {
        /* Another node may have written it and not synced it yet. */
        enum blob_status st = disk_dir_sync_parent(s, path->text, err);
        return st == BLOB_OK ? blob_fail(err, BLOB_E_EXISTS, 0, "record %s", key) : st;
    }
    return errno == ENOENT ? BLOB_OK : file_fail(err, errno, "look for", path->text);
}

/* Creating is decided by link(), which is atomic between nodes too. */
static enum blob_status create_shared(struct disk_store *s, const char *key, const struct disk_path *tmp,
                                      const struct disk_path *path, struct blob_error *err)
{
    enum blob_status st = disk_parents(s, path, err);
    if (st != BLOB_OK)
        return st;
    st = disk_name_changes(s, path, err);
    if (st != BLOB_OK)
        return st;
    int error = linkat(s->root_fd, tmp->text, s->root_fd, path->text, 0) == 0 ? 0 : errno;
    if (error != 0 && error != EEXIST) {
        disk_name_is_durable(s, path);
        return file_fail(err, error, "create", path->text);
    }
    st = disk_dir_sync_parent(s, path->text, err);
    if (st == BLOB_OK)
        disk_name_is_durable(s, path);
    if (st == BLOB_OK && error == EEXIST)
        return blob_fail(err, BLOB_E_EXISTS, 0, "record %s", key);
    return st == BLOB_OK ? file_remove(s->root_fd, tmp->text, err) : st;
}

static enum blob_status put_in_stripe(struct disk_store *s, unsigned stripe, const char *key,
                                      const struct disk_change *change, unsigned flags, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    if (flags & BLOB_IF_NONE)
        st = record_absent(s, key, &change->to, err);
    if (st != BLOB_OK)
        return st;
    if (s->shared && (flags & BLOB_IF_NONE))
        return create_shared(s, key, &change->from, &change->to, err);
    return disk_change_run(s, stripe, change, NULL, flags, err);
}

/* Tells the crowds of a change, in its stripe. A change that failed may have happened all the same, so the file is
 * looked at then. */
static void note_change(struct disk_store *s, const char *key, bool there, enum blob_status st)
{
    if (st == BLOB_OK)
        disk_crowds_note(s->crowds, key, there);
    else
        disk_crowds_look_at(s, s->crowds, key);
}

/* Changes a record with the journal: it is durable there, and reaches its file by and by. */
static enum blob_status change_late(struct disk_store *s, const char *key, const void *value, size_t len,
                                    unsigned flags, struct blob_error *err)
{
    struct journal_ticket ticket;
    enum blob_status st = disk_memtable_put(s->memtable, key, value, len, flags, &ticket, err);
    /* Who is told EXISTS may answer for that record: it must not be lost afterwards. */
    if (st == BLOB_E_EXISTS) {
        enum blob_status durable = disk_journal_wait(s->journal, disk_journal_end(s->journal), err);
        return durable == BLOB_OK ? st : durable;
    }
    if (st != BLOB_OK || (flags & BLOB_LAZY))
        return st;
    st = disk_journal_wait(s->journal, ticket.lsn, err);
    disk_settle_durable(s, NULL);
    return st;
}

enum blob_status disk_record_put(struct blob_store *base, const char *key, const void *value, size_t len,
                                 unsigned flags, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    if (s->journal)
        return change_late(s, key, len ? value : "", len, flags, err);
    struct disk_change change = {.next = NULL};
    disk_record_path(key, &change.to);
    disk_tmp_path(s, &change.from);
    enum blob_status st = file_create(s->root_fd, change.from.text, value, len, true, err);
    if (st != BLOB_OK)
        return st;
    unsigned stripe = disk_stripe_of(&change.to);
    st = disk_stripe_enter(s, stripe, err);
    if (st == BLOB_OK) {
        st = put_in_stripe(s, stripe, key, &change, flags, err);
        note_change(s, key, true, st);
        disk_stripe_leave(s, stripe);
    }
    if (st != BLOB_OK)
        unlinkat(s->root_fd, change.from.text, 0);
    return st;
}

enum blob_status disk_record_get(struct blob_store *base, const char *key, struct bytebuf *out, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    if (s->journal)
        return disk_memtable_get(s->memtable, key, out, err);
    disk_record_path(key, &path);
    enum blob_status st = disk_record_read(s, &path, out, err);
    enum blob_status durable = disk_name_durable(s, &path, err);
    return durable == BLOB_OK ? st : durable;
}

enum blob_status disk_record_delete(struct blob_store *base, const char *key, unsigned flags, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    if (s->journal)
        return change_late(s, key, NULL, 0, flags, err);
    struct disk_change change = {.next = NULL};
    disk_record_path(key, &change.to);
    unsigned stripe = disk_stripe_of(&change.to);
    enum blob_status st = disk_stripe_enter(s, stripe, err);
    if (st != BLOB_OK)
        return st;
    if (faccessat(s->root_fd, change.to.text, F_OK, 0) == 0)
        st = disk_change_run(s, stripe, &change, NULL, flags, err);
    else if (errno != ENOENT)
        st = file_fail(err, errno, "look for", change.to.text);
    else
        st = disk_name_durable(s, &change.to, err);
    note_change(s, key, false, st);
    disk_stripe_leave(s, stripe);
    return st;
}

/* ---- listing ---- */

struct record_walk {
    struct disk_store *s;
    const char *class, *prefix;
    const char *rest;       /* of the prefix, behind "class/", with ',' for '/' */
    const char *after_rest; /* of the key after which to begin, likewise; "": from the start */
    size_t left;            /* records still to give; SIZE_MAX: no bound */
    bool with_values, more;
    record_list_fn *fn;
    void *arg;
    struct bytebuf value;
};

static enum blob_status give_record(struct record_walk *walk, const char *name, struct blob_error *err)
{
    char key[RECORD_KEY_MAX + 1];
    if (!disk_record_key(walk->class, name, key))
        return BLOB_OK;
    bytebuf_clear(&walk->value);
    if (walk->with_values) {
        enum blob_status st = disk_record_get(&walk->s->base, key, &walk->value, err);
        if (st != BLOB_OK)
            return st == BLOB_E_NOT_FOUND ? BLOB_OK : st;
    }
    walk->left -= walk->left != SIZE_MAX;
    walk->more = walk->fn(key, walk->with_values ? walk->value.data : NULL, walk->value.len, walk->arg);
    return BLOB_OK;
}

/* Keeps only those names that the walk is about. */
static void choose(const struct record_walk *walk, struct disk_names *names)
{
    size_t kept = 0;
    for (size_t i = 0; i < names->count; i++) {
        char *name = names->names[i];
        if (strncmp(name, walk->rest, strlen(walk->rest)) == 0 && disk_record_name_compare(name, walk->after_rest) > 0)
            names->names[kept++] = name;
        else
            free(name);
    }
    names->count = kept;
}

/* Drops the names behind last, since others that belong there may not have been kept. */
static void end_at(struct disk_names *names, const char *last)
{
    while (names->count > 0 && disk_record_name_compare(names->names[names->count - 1], last) > 0)
        free(names->names[--names->count]);
}

/*
 * The names in a directory that the walk may give, and those that the memtable knows better: no more than are asked for
 * are kept of what may be a directory of many others. last: "", or up to where they are all that there is, as some of
 * them may prove to be no records.
 */
static enum blob_status shard_names(struct record_walk *walk, const char *dir, struct disk_names *names,
                                    char last[NAME_MAX + 1], struct blob_error *err)
{
    struct disk_names added = {0}, gone = {0};
    enum blob_status st = BLOB_OK;
    if (walk->s->journal)
        st = disk_memtable_names(walk->s->memtable, walk->class, dir, &added, &gone, err);
    choose(walk, &added);
    choose(walk, &gone);
    const struct disk_names_range range = {.prefix = walk->rest,
                                           .after = walk->after_rest,
                                           .most =
                                               walk->left < SIZE_MAX - gone.count ? walk->left + gone.count : SIZE_MAX};
    if (st == BLOB_OK)
        st = disk_crowds_names(walk->s, walk->s->crowds, dir, &range, names, err);
    bool full = st == BLOB_OK && names->count > 0 && names->count == range.most;
    snprintf(last, NAME_MAX + 1, "%s", full ? names->names[names->count - 1] : "");
    if (st == BLOB_OK && !disk_names_merge(names, &gone, &added, disk_record_name_compare)) {
        disk_names_release(names);
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "list %s", dir);
    }
    if (st == BLOB_OK && full)
        end_at(names, last);
    disk_names_release(&added);
    disk_names_release(&gone);
    return st;
}

static enum blob_status walk_shard(struct record_walk *walk, const char *shard, struct blob_error *err)
{
    char dir[DISK_PATH_MAX];
    if (snprintf(dir, sizeof dir, DISK_RECORDS "/%s/%s", walk->class, shard) >= (int)sizeof dir)
        return BLOB_OK;
    enum blob_status st = BLOB_OK;
    const char *begin = walk->after_rest;
    char last[NAME_MAX + 1] = "", after[NAME_MAX + 1];
    do {
        struct disk_names names;
        st = shard_names(walk, dir, &names, last, err);
        if (st != BLOB_OK)
            break;
        for (size_t i = 0; st == BLOB_OK && walk->more && walk->left > 0 && i < names.count; i++)
            st = give_record(walk, names.names[i], err);
        disk_names_release(&names);
        memcpy(after, last, sizeof after);
        walk->after_rest = after;
    } while (st == BLOB_OK && walk->more && walk->left > 0 && last[0] != '\0');
    walk->after_rest = begin;
    return st;
}

/* Can this directory hold keys with the prefix, behind `after`? */
static bool shard_matters(const struct record_walk *walk, const char *shard)
{
    size_t len = strlen(shard), rest_len = strlen(walk->rest), after_len = strlen(walk->after_rest);
    if (len > DISK_SHARD_CHARS || strncmp(shard, walk->rest, len < rest_len ? len : rest_len) != 0)
        return false;
    char begin[DISK_SHARD_CHARS + 1] = "";
    memcpy(begin, walk->after_rest, after_len < DISK_SHARD_CHARS ? after_len : DISK_SHARD_CHARS);
    return disk_record_name_compare(shard, begin) >= 0;
}

static enum blob_status walk_class(struct record_walk *walk, struct blob_error *err)
{
    char dir[DISK_PATH_MAX];
    size_t rest_len = strlen(walk->rest);
    if (rest_len >= DISK_SHARD_CHARS) {
        char shard[DISK_SHARD_CHARS + 1] = "";
        memcpy(shard, walk->rest, DISK_SHARD_CHARS);
        return walk_shard(walk, shard, err);
    }
    snprintf(dir, sizeof dir, DISK_RECORDS "/%s", walk->class);
    struct disk_names names;
    enum blob_status st = disk_names_read(walk->s->root_fd, dir, disk_record_name_compare, &names, err);
    if (st != BLOB_OK)
        return st;
    for (size_t i = 0; st == BLOB_OK && walk->more && walk->left > 0 && i < names.count; i++)
        if (shard_matters(walk, names.names[i]))
            st = walk_shard(walk, names.names[i], err);
    disk_names_release(&names);
    return st;
}

/* Copies text with ',' for '/'. */
static void to_name(const char *text, char out[RECORD_KEY_MAX + 1])
{
    size_t len = strlen(text);
    CHECK(len <= RECORD_KEY_MAX);
    for (size_t i = 0; i <= len; i++)
        out[i] = text[i] == '/' ? ',' : text[i];
}

enum blob_status disk_record_list(struct blob_store *base, const char *prefix, const char *after, size_t limit,
                                  bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    size_t class_len = strcspn(prefix, "/");
    char class[RECORD_KEY_MAX + 1], rest[RECORD_KEY_MAX + 1], after_rest[RECORD_KEY_MAX + 1] = "";
    memcpy(class, prefix, class_len);
    class[class_len] = '\0';
    to_name(prefix + class_len + 1, rest);
    /* A key of another class is before all of this one's, or behind them. */
    if (after && strncmp(after, prefix, class_len + 1) == 0)
        to_name(after + class_len + 1, after_rest);
    else if (after && strcmp(after, prefix) > 0)
        return BLOB_OK;
    struct record_walk walk = {.s = s,
                               .class = class,
                               .prefix = prefix,
                               .rest = rest,
                               .after_rest = after_rest,
                               .left = limit ? limit : SIZE_MAX,
                               .with_values = with_values,
                               .more = true,
                               .fn = fn,
                               .arg = arg};
    bytebuf_init(&walk.value);
    enum blob_status st = walk_class(&walk, err);
    bytebuf_release(&walk.value);
    return st;
}
