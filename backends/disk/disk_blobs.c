/*
 * disk_blobs - finished content: looking, reading, touching, removing, listing.
 *
 * A blob's file is never written again, so readers need no lock; its mtime says when it was last touched. Removing
 * looks at the mtime and unlinks in the blob's stripe, where commits look as well: in one process that is atomic. On
 * shared storage the other node has other stripes, so the file is moved aside first, looked at once more, and put back
 * when it was touched: a commit on another node touches it by its name and then looks whether the name is still there,
 * so that it either sees it gone and commits its own file, or has touched what is going to be put back.
 *
 * Setting aside is removing after the file was given a second name in damaged/, which is made durable first. So the
 * journal knows removals only, and which of a digest's removals and commits was the last: no replay can take a blob
 * that was stored again for the one that was damaged.
 */
#include "backends/disk/disk_impl.h"
#include "backends/disk/file/disk_bytes.h"
#include "backends/disk/file/durable_file.h"
#include "core/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define READER_MAGIC   0x64736b72u
#define ASIDE_PREFIX   "removing-"
#define ASIDE_TRIES    50
#define ASIDE_PAUSE_MS 10
#define DAMAGED_MAX    10 /* copies of one blob that are kept */

struct disk_reader {
    struct blob_reader base;
    unsigned magic;
    int fd;
};

/* The table of operations gives some of them a reader that is const and closes one that is not. */
static struct disk_reader *reader_of(const struct blob_reader *base)
{
    struct disk_reader *r = (struct disk_reader *)(uintptr_t)base;
    MAGIC_OK(r, READER_MAGIC);
    return r;
}

/* ---- looking and reading ---- */

static void aside_path(const struct digest *digest, struct disk_path *out)
{
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    snprintf(out->text, sizeof out->text, DISK_TMP "/" ASIDE_PREFIX "%s", hex);
}

/* On shared storage, a blob that is aside will be put back or removed. Waits for either, and returns true if the caller
 * must look again. */
static bool wait_aside(const struct disk_store *s, const struct digest *digest)
{
    if (!s->shared)
        return false;
    struct disk_path aside;
    aside_path(digest, &aside);
    bool seen = false;
    for (int i = 0; i < ASIDE_TRIES && faccessat(s->root_fd, aside.text, F_OK, 0) == 0; i++) {
        const struct timespec pause = {.tv_nsec = ASIDE_PAUSE_MS * 1000000L};
        nanosleep(&pause, NULL);
        seen = true;
    }
    return seen;
}

static enum blob_status stat_blob(struct disk_store *s, const struct digest *digest, const struct disk_path *path,
                                  struct stat *sb, struct blob_error *err)
{
    int result = fstatat(s->root_fd, path->text, sb, 0);
    if (result != 0 && errno == ENOENT && wait_aside(s, digest))
        result = fstatat(s->root_fd, path->text, sb, 0);
    return result == 0 ? BLOB_OK : file_fail(err, errno, "stat", path->text);
}

enum blob_status disk_blob_stat(struct blob_store *base, const struct digest *digest, struct blob_info *out,
                                struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    struct stat sb;
    disk_blob_path(digest, &path);
    enum blob_status st = disk_settle(s, &path, err);
    if (st == BLOB_OK)
        st = stat_blob(s, digest, &path, &sb, err);
    if (st == BLOB_OK)
        *out = (struct blob_info){.size = (uint64_t)sb.st_size, .touched_ms = file_mtime_ms(&sb)};
    return st;
}

enum blob_status disk_blob_open(struct blob_store *base, const struct digest *digest, struct blob_reader **out,
                                struct blob_info *info, struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    disk_blob_path(digest, &path);
    enum blob_status st = disk_settle(s, &path, err);
    if (st != BLOB_OK)
        return st;
    int fd = openat(s->root_fd, path.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT && wait_aside(s, digest))
        fd = openat(s->root_fd, path.text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(err, errno, "open", path.text);
    struct stat sb;
    struct disk_reader *r = calloc(1, sizeof *r);
    if (!r || fstat(fd, &sb) != 0) {
        st = r ? file_fail(err, errno, "stat", path.text) : blob_fail(err, BLOB_E_NO_MEMORY, 0, "%s", path.text);
        close(fd);
        free(r);
        return st;
    }
    *r = (struct disk_reader){.base = {.store = base, .size = (uint64_t)sb.st_size}, .magic = READER_MAGIC, .fd = fd};
    *info = (struct blob_info){.size = (uint64_t)sb.st_size, .touched_ms = file_mtime_ms(&sb)};
    *out = &r->base;
    return BLOB_OK;
}

enum blob_status disk_reader_read(struct blob_reader *base, uint64_t offset, void *buf, size_t len,
                                  struct blob_error *err)
{
    const struct disk_reader *r = reader_of(base);
    size_t got = 0;
    enum blob_status st = file_read_at(r->fd, buf, len, offset, &got, "blob", err);
    if (st == BLOB_OK && got < len)
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "a blob became shorter");
    return st;
}

int disk_reader_fd(const struct blob_reader *base)
{
    return reader_of(base)->fd;
}

void disk_reader_close(struct blob_reader *base)
{
    struct disk_reader *r = reader_of(base);
    close(r->fd);
    free(r);
}

/* ---- touching ---- */

static enum blob_status sync_touch(struct disk_store *s, const struct disk_path *path, struct blob_error *err)
{
    int fd = openat(s->root_fd, path->text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(err, errno, "open", path->text);
    /* fsync, not fdatasync: the time is what has changed. */
    enum blob_status st = file_sync_all(fd, path->text, err);
    close(fd);
    return st;
}

enum blob_status disk_blob_touch_locked(struct disk_store *s, const struct digest *digest, const struct disk_path *path,
                                        int64_t *touched_ms, struct blob_error *err)
{
    struct stat sb;
    if (fstatat(s->root_fd, path->text, &sb, 0) != 0)
        return file_fail(err, errno, "stat", path->text);
    int64_t now_ms = clock_wall_ms_after(file_mtime_ms(&sb));
    enum blob_status st = file_set_mtime(s->root_fd, path->text, now_ms, err);
    if (st != BLOB_OK)
        return st;
    if (touched_ms)
        *touched_ms = now_ms;
    if (!s->journal)
        return sync_touch(s, path, err);
    uint8_t ms[8];
    put_le(ms, (uint64_t)now_ms, sizeof ms);
    const struct iovec parts[] = {disk_part(digest->bytes, DIGEST_BYTES), disk_part(ms, sizeof ms)};
    struct journal_ticket ticket;
    return disk_journal_append(s->journal, JOURNAL_TOUCH, parts, 2, false, &ticket, err);
}

enum blob_status disk_blob_touch(struct blob_store *base, const struct digest *digest, int64_t *touched_ms,
                                 struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    disk_blob_path(digest, &path);
    unsigned stripe = disk_stripe_of(&path);
    enum blob_status st = disk_stripe_enter(s, stripe, err);
    if (st != BLOB_OK)
        return st;
    struct stat sb;
    st = disk_blob_touch_locked(s, digest, &path, touched_ms, err);
    /* A blob that was moved aside meanwhile counts as touched only once it is back, as with commits. */
    if (s->shared && (st == BLOB_OK || st == BLOB_E_NOT_FOUND)) {
        bool missed = st == BLOB_E_NOT_FOUND;
        st = stat_blob(s, digest, &path, &sb, err);
        if (st == BLOB_OK && missed)
            st = disk_blob_touch_locked(s, digest, &path, touched_ms, err);
    }
    /*
     * Not disk_stripe_leave(): a touch changes no name, so it has nothing to carry out, and its answer has the wait
     * for the journal to pay for already. What is durable elsewhere stays pending until the next durable change, a
     * reader of that stripe, a listing or the checkpoint carries it out.
     */
    disk_stripe_unlock(s, stripe);
    if (st == BLOB_OK && s->journal)
        st = disk_journal_wait(s->journal, disk_journal_end(s->journal), err);
    return st;
}

/* ---- removing ---- */

/* Puts a blob that is aside back, unless its name is taken again. */
static enum blob_status put_back(struct disk_store *s, const struct disk_path *aside, const struct disk_path *path,
                                 struct blob_error *err)
{
    if (linkat(s->root_fd, aside->text, s->root_fd, path->text, 0) != 0 && errno != EEXIST)
        return file_fail(err, errno, "restore", path->text);
    enum blob_status st = disk_dir_sync_parent(s, path->text, err);
    return st == BLOB_OK ? file_remove(s->root_fd, aside->text, err) : st;
}

/* Says which state of a blob may be removed: one that was last touched within [from_ms, before_ms). */
struct removable {
    int64_t from_ms, before_ms;
};

static bool may_go(const struct removable *which, const struct stat *sb)
{
    int64_t ms = file_mtime_ms(sb);
    return ms >= which->from_ms && ms < which->before_ms;
}

static enum blob_status remove_shared(struct disk_store *s, const struct digest *digest, const struct disk_path *path,
                                      const struct removable *which, struct blob_error *err)
{
    struct disk_path aside;
    struct stat sb;
    aside_path(digest, &aside);
    if (renameat(s->root_fd, path->text, s->root_fd, aside.text) != 0)
        return errno == ENOENT ? BLOB_OK : file_fail(err, errno, "move aside", path->text);
    if (fstatat(s->root_fd, aside.text, &sb, 0) != 0)
        return errno == ENOENT ? BLOB_OK : file_fail(err, errno, "stat", aside.text);
    if (!may_go(which, &sb)) {
        enum blob_status st = put_back(s, &aside, path, err);
        return st == BLOB_OK ? blob_fail(err, BLOB_E_CONFLICT, 0, "%s was touched", path->text) : st;
    }
    enum blob_status st = file_remove(s->root_fd, aside.text, err);
    return st == BLOB_OK ? disk_dir_sync_parent(s, path->text, err) : st;
}

/* Removes a blob that is there. The caller has entered its stripe. */
static enum blob_status remove_locked(struct disk_store *s, unsigned stripe, const struct digest *digest,
                                      const struct disk_path *path, const struct removable *which,
                                      struct blob_error *err)
{
    if (s->shared)
        return remove_shared(s, digest, path, which, err);
    const struct disk_change change = {.to = *path};
    const struct disk_entry entry = {
        .kind = JOURNAL_REMOVE, .count = 1, .parts = {disk_part(digest->bytes, DIGEST_BYTES)}};
    return disk_change_run(s, stripe, &change, &entry, 0, err);
}

enum blob_status disk_blob_remove(struct blob_store *base, const struct digest *digest, int64_t before_ms,
                                  struct blob_error *err)
{
    const struct removable which = {.from_ms = INT64_MIN, .before_ms = before_ms};
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    disk_blob_path(digest, &path);
    unsigned stripe = disk_stripe_of(&path);
    enum blob_status st = disk_stripe_enter(s, stripe, err);
    if (st != BLOB_OK)
        return st;
    struct stat sb;
    if (fstatat(s->root_fd, path.text, &sb, 0) != 0) {
        st = errno == ENOENT ? BLOB_OK : file_fail(err, errno, "stat", path.text);
    } else if (!may_go(&which, &sb)) {
        st = blob_fail(err, BLOB_E_CONFLICT, 0, "%s was touched", path.text);
    } else {
        st = remove_locked(s, stripe, digest, &path, &which, err);
    }
    disk_stripe_leave(s, stripe);
    return st;
}

/* ---- setting aside ---- */

/* Gives the file a name in damaged/. Damage that came again has names of its own, up to a number. */
static enum blob_status link_damaged(struct disk_store *s, const struct disk_path *path, const struct stat *file,
                                     struct disk_path *kept, struct blob_error *err)
{
    const char *hex = strrchr(path->text, '/') + 1;
    snprintf(kept->text, sizeof kept->text, DISK_DAMAGED "/%s", hex);
    for (int n = 1; linkat(s->root_fd, path->text, s->root_fd, kept->text, 0) != 0; n++) {
        struct stat sb;
        if (errno != EEXIST)
            return file_fail(err, errno, "keep as damaged", path->text);
        /* An earlier try may have been cut off behind this step. */
        if (fstatat(s->root_fd, kept->text, &sb, 0) == 0 && sb.st_dev == file->st_dev && sb.st_ino == file->st_ino)
            break;
        if (n == DAMAGED_MAX)
            return blob_fail(err, BLOB_E_NO_SPACE, 0, DISK_DAMAGED "/ holds %d copies of %s: remove them", n, hex);
        snprintf(kept->text, sizeof kept->text, DISK_DAMAGED "/%s.%d", hex, n);
    }
    return BLOB_OK;
}

static enum blob_status set_aside_locked(struct disk_store *s, unsigned stripe, const struct digest *digest,
                                         const struct disk_path *path, int64_t touched_ms, struct blob_error *err)
{
    const struct removable which = {.from_ms = touched_ms, .before_ms = touched_ms + 1};
    const struct disk_path damaged = {DISK_DAMAGED "/x"};
    struct disk_path kept;
    struct stat sb;
    enum blob_status st = stat_blob(s, digest, path, &sb, err);
    if (st != BLOB_OK)
        return st;
    if (!may_go(&which, &sb))
        return blob_fail(err, BLOB_E_CONFLICT, 0, "%s was touched", path->text);
    st = dir_make_parents(s->root_fd, damaged.text, false, err);
    if (st == BLOB_OK)
        st = disk_dirs_sync_above(s, damaged.text, err);
    if (st == BLOB_OK)
        st = link_damaged(s, path, &sb, &kept, err);
    if (st == BLOB_OK)
        st = disk_dir_sync_parent(s, kept.text, err);
    if (st != BLOB_OK)
        return st;
    st = remove_locked(s, stripe, digest, path, &which, err);
    if (st == BLOB_E_CONFLICT) /* another node's came in between */
        unlinkat(s->root_fd, kept.text, 0);
    return st;
}

enum blob_status disk_blob_set_aside(struct blob_store *base, const struct digest *digest, int64_t touched_ms,
                                     struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct disk_path path;
    disk_blob_path(digest, &path);
    unsigned stripe = disk_stripe_of(&path);
    enum blob_status st = disk_stripe_enter(s, stripe, err);
    if (st != BLOB_OK)
        return st;
    st = set_aside_locked(s, stripe, digest, &path, touched_ms, err);
    disk_stripe_leave(s, stripe);
    return st;
}

enum blob_status disk_blobs_restore(struct disk_store *s, struct blob_error *err)
{
    struct disk_names names;
    enum blob_status st = disk_names_read(s->root_fd, DISK_TMP, strcmp, &names, err);
    if (st != BLOB_OK)
        return st;
    for (size_t i = 0; st == BLOB_OK && i < names.count; i++) {
        struct digest digest;
        struct disk_path aside, path;
        if (strncmp(names.names[i], ASIDE_PREFIX, strlen(ASIDE_PREFIX)) != 0 ||
            digest_parse(names.names[i] + strlen(ASIDE_PREFIX), &digest) != BLOB_OK)
            continue;
        aside_path(&digest, &aside);
        disk_blob_path(&digest, &path);
        st = put_back(s, &aside, &path, err);
    }
    disk_names_release(&names);
    return st;
}

/* ---- listing: blobs/, its directories, theirs ---- */

struct blob_walk {
    struct disk_store *s;
    char after[DIGEST_HEX_CHARS + 1]; /* "": from the start */
    blob_list_fn *fn;
    void *arg;
    bool more;
};

static bool hex_pair(const char *name)
{
    return strlen(name) == 2 && strspn(name, "0123456789abcdef") == 2;
}

static enum blob_status walk_leaf(struct blob_walk *walk, const char *dir, struct blob_error *err)
{
    struct disk_names names;
    enum blob_status st = disk_names_read(walk->s->root_fd, dir, strcmp, &names, err);
    if (st != BLOB_OK)
        return st;
    for (size_t i = 0; st == BLOB_OK && walk->more && i < names.count; i++) {
        struct digest digest;
        struct disk_path path;
        struct stat sb;
        if (strcmp(names.names[i], walk->after) <= 0 || strlen(names.names[i]) != DIGEST_HEX_CHARS ||
            digest_parse(names.names[i], &digest) != BLOB_OK)
            continue;
        disk_blob_path(&digest, &path);
        if (fstatat(walk->s->root_fd, path.text, &sb, 0) == 0) {
            const struct blob_info info = {.size = (uint64_t)sb.st_size, .touched_ms = file_mtime_ms(&sb)};
            walk->more = walk->fn(&digest, &info, walk->arg);
        } else if (errno != ENOENT) {
            st = file_fail(err, errno, "stat", path.text);
        }
    }
    disk_names_release(&names);
    return st;
}

/* The directories below dir, which is the level-th (blobs/ is the first); depth is two. */
static enum blob_status walk_level(struct blob_walk *walk, const char *dir, unsigned level, struct blob_error *err)
{
    struct disk_names names;
    enum blob_status st = disk_names_read(walk->s->root_fd, dir, strcmp, &names, err);
    if (st != BLOB_OK)
        return st;
    for (size_t i = 0; st == BLOB_OK && walk->more && i < names.count; i++) {
        struct disk_path below;
        if (!hex_pair(names.names[i]))
            continue;
        CHECK(snprintf(below.text, sizeof below.text, "%s/%s", dir, names.names[i]) < (int)sizeof below.text);
        /* The hex digits so far: below all of `after`'s, nothing there can follow it. */
        char digits[8];
        snprintf(digits, sizeof digits, "%.2s%.2s", below.text + sizeof DISK_BLOBS,
                 level == 2 ? below.text + sizeof DISK_BLOBS + 3 : "");
        if (strncmp(digits, walk->after, strlen(digits)) < 0)
            continue;
        st = level == 2 ? walk_leaf(walk, below.text, err) : walk_level(walk, below.text, level + 1, err);
    }
    disk_names_release(&names);
    return st;
}

enum blob_status disk_blob_list(struct blob_store *base, const struct digest *after, blob_list_fn *fn, void *arg,
                                struct blob_error *err)
{
    struct disk_store *s = disk_of(base);
    struct blob_walk walk = {.s = s, .fn = fn, .arg = arg, .more = true};
    if (after)
        digest_hex(after, walk.after);
    enum blob_status st = disk_settle_all(s, err);
    return st == BLOB_OK ? walk_level(&walk, DISK_BLOBS, 1, err) : st;
}
