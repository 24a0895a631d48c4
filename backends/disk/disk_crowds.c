/*
 * disk_crowds - one table, of the keys without "files/", in the order of bytes, which is the keys'.
 *
 * A directory counts as kept from before it is read on: what changes after that is noted, behind the reading, and what
 * changed before is found by it. Notes of one name come in the order of its changes, as both are done under the lock
 * that the name is changed under.
 *
 * The file has no journal and is never synced: it dies with the process. After a failure it is made anew, not earlier
 * than RETRY_US later, so that a full disk does not have a crowd taken in again and again.
 */
#include "backends/disk/disk_crowds.h"

#include "backends/disk/file/durable_file.h"
#include "backends/sqlite_db.h"
#include "core/check.h"
#include "core/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES      "files"
#define FILES_DIR  DISK_RECORDS "/" FILES
#define SHARDS     (1u << (4 * DISK_SHARD_CHARS))
#define NO_SHARD   SHARDS
#define RETRY_US   60000000
/* A directory of fewer bytes is not crowded, on any file system that tells a size which grows with the names. */
#define LEAN_BYTES (32 * CROWD_NAMES)

struct disk_crowds {
    char *path;          /* of the file */
    const char *in_root; /* its part below the root */
    struct logger *log;
    atomic_bool kept[SHARDS];
    pthread_mutex_t lock; /* guards the rest */
    sqlite3 *db;          /* NULL: nothing is kept */
    sqlite3_stmt *add, *drop, *list;
    int64_t failed_us; /* 0: has not */
};

struct disk_crowds *disk_crowds_new(struct disk_store *s, const char *root)
{
    struct disk_crowds *c = calloc(1, sizeof *c);
    struct disk_path tmp;
    if (!c)
        return NULL;
    disk_tmp_path(s, &tmp);
    size_t size = strlen(root) + 1 + strlen(tmp.text) + 1;
    c->path = malloc(size);
    if (!c->path) {
        free(c);
        return NULL;
    }
    snprintf(c->path, size, "%s/%s", root, tmp.text);
    c->in_root = c->path + strlen(root) + 1;
    c->log = s->log;
    pthread_mutex_init(&c->lock, NULL);
    return c;
}

/* ---- the file; the lock is held ---- */

static void forget(struct disk_crowds *c)
{
    for (unsigned i = 0; i < SHARDS; i++)
        atomic_store(&c->kept[i], false);
    sqlite3_finalize(c->add);
    sqlite3_finalize(c->drop);
    sqlite3_finalize(c->list);
    sqlite3_close(c->db);
    c->db = NULL;
    c->add = c->drop = c->list = NULL;
    unlink(c->path);
}

static void fail(struct disk_crowds *c, const struct blob_error *why)
{
    forget(c);
    c->failed_us = clock_steady_us();
    log_line(c->log, LOG_WARN, NULL, "crowded directories of records are read whole for a while: %s", why->text);
}

static enum blob_status open_file(struct disk_crowds *c, struct blob_error *err)
{
    if (c->db)
        return BLOB_OK;
    int fd = open(c->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return file_fail(err, errno, "create", c->path);
    close(fd);
    if (sqlite3_open_v2(c->path, &c->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        return c->db ? sqlite_db_fail(c->db, "open", err) : blob_fail(err, BLOB_E_NO_MEMORY, 0, "sqlite");
    enum blob_status st =
        sqlite_db_exec(c->db,
                       "PRAGMA page_size=8192; PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=OFF;"
                       "PRAGMA synchronous=OFF; PRAGMA cache_size=-1024; PRAGMA temp_store=MEMORY;"
                       "CREATE TABLE names(name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
                       err);
    if (st == BLOB_OK)
        st = sqlite_db_prepare(c->db, "INSERT OR IGNORE INTO names VALUES(?1)", true, &c->add, err);
    if (st == BLOB_OK)
        st = sqlite_db_prepare(c->db, "DELETE FROM names WHERE name = ?1", true, &c->drop, err);
    if (st == BLOB_OK)
        st = sqlite_db_prepare(c->db,
                               "SELECT name FROM names WHERE name > ?1 AND name >= ?2 AND name < ?3"
                               " ORDER BY name LIMIT ?4",
                               true, &c->list, err);
    return st;
}

void disk_crowds_free(struct disk_crowds *c)
{
    if (!c)
        return;
    if (c->db)
        forget(c);
    pthread_mutex_destroy(&c->lock);
    free(c->path);
    free(c);
}

/* ---- names and shards ---- */

static unsigned shard_of(const char *name)
{
    unsigned shard = 0;
    for (int i = 0; i < DISK_SHARD_CHARS; i++) {
        static const char digits[] = "0123456789abcdef";
        const char *at = name[i] ? strchr(digits, name[i]) : NULL;
        if (!at)
            return NO_SHARD;
        shard = shard << 4 | (unsigned)(at - digits);
    }
    return shard;
}

/* dir: of records. */
static unsigned shard_of_dir(const char *dir)
{
    const size_t len = sizeof FILES_DIR - 1;
    if (strncmp(dir, FILES_DIR "/", len + 1) != 0 || strlen(dir + len + 1) != DISK_SHARD_CHARS)
        return NO_SHARD;
    return shard_of(dir + len + 1);
}

/* Replaces a character by another, in place. */
static void turn(char *text, char from, char to)
{
    for (; *text; text++)
        if (*text == from)
            *text = to;
}

/* ---- taking a crowd in ---- */

/* What is no record's name is left out. */
static enum blob_status add_name(struct disk_crowds *c, unsigned shard, const char *name, struct blob_error *err)
{
    char key[RECORD_KEY_MAX + 1];
    if (shard_of(name) != shard || !disk_record_key(FILES, name, key))
        return BLOB_OK;
    sqlite_bind_text(c->add, 1, key + sizeof FILES);
    return sqlite_db_run(c->db, c->add, NULL, err);
}

static enum blob_status add_names(struct disk_store *s, struct disk_crowds *c, unsigned shard, const char *path,
                                  struct blob_error *err)
{
    int fd = openat(s->root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return file_fail(err, error, "open directory", path);
    }
    enum blob_status st = BLOB_OK;
    const struct dirent *de;
    while (st == BLOB_OK && (errno = 0, de = readdir(dir)) != NULL) {
        atomic_fetch_add(&s->names_read, 1);
        st = add_name(c, shard, de->d_name, err);
    }
    if (st == BLOB_OK && errno != 0)
        st = file_fail(err, errno, "list", path);
    closedir(dir);
    return st;
}

static void take_in(struct disk_store *s, struct disk_crowds *c, unsigned shard, const char *dir)
{
    struct blob_error err;
    pthread_mutex_lock(&c->lock);
    bool wait = c->failed_us != 0 && clock_steady_us() - c->failed_us < RETRY_US;
    if (!wait && !atomic_load(&c->kept[shard])) {
        enum blob_status st = open_file(c, &err);
        atomic_store(&c->kept[shard], true); /* before it is read: what changes from now on is noted */
        if (st == BLOB_OK)
            st = sqlite_db_exec(c->db, "BEGIN", &err);
        if (st == BLOB_OK)
            st = add_names(s, c, shard, dir, &err);
        if (st == BLOB_OK)
            st = sqlite_db_exec(c->db, "COMMIT", &err);
        if (st != BLOB_OK)
            fail(c, &err);
    }
    pthread_mutex_unlock(&c->lock);
}

/* ---- changes ---- */

void disk_crowds_note(struct disk_crowds *c, const char *key, bool there)
{
    struct blob_error err;
    if (!c || strncmp(key, FILES "/", sizeof FILES) != 0)
        return;
    unsigned shard = shard_of(key + sizeof FILES);
    if (shard == NO_SHARD || !atomic_load(&c->kept[shard]))
        return;
    pthread_mutex_lock(&c->lock);
    if (atomic_load(&c->kept[shard])) {
        sqlite3_stmt *stmt = there ? c->add : c->drop;
        sqlite_bind_text(stmt, 1, key + sizeof FILES);
        if (sqlite_db_run(c->db, stmt, NULL, &err) != BLOB_OK)
            fail(c, &err);
    }
    pthread_mutex_unlock(&c->lock);
}

void disk_crowds_look_at(struct disk_store *s, struct disk_crowds *c, const char *key)
{
    struct disk_path path;
    disk_record_path(key, &path);
    disk_crowds_note(c, key, faccessat(s->root_fd, path.text, F_OK, 0) == 0);
}

/* ---- listings ---- */

static enum blob_status list_rows(struct disk_crowds *c, const struct disk_names_range *range, struct disk_names *out,
                                  struct blob_error *err)
{
    int rc = SQLITE_DONE;
    enum blob_status st = BLOB_OK;
    sqlite3_bind_int64(c->list, 4, range->most < INT64_MAX ? (sqlite3_int64)range->most : INT64_MAX);
    while (st == BLOB_OK && (rc = sqlite3_step(c->list)) == SQLITE_ROW) {
        if (!disk_names_add(out, (const char *)sqlite3_column_text(c->list, 0)))
            st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "list records");
        else
            turn(out->names[out->count - 1], '/', ',');
    }
    if (st == BLOB_OK && rc != SQLITE_DONE)
        st = sqlite_db_fail(c->db, "read", err);
    sqlite3_reset(c->list);
    return st;
}

/* OK: out has the names. Else nothing is said of them: the directory is to be read. */
static bool list_kept(struct disk_crowds *c, unsigned shard, const char *dir, const struct disk_names_range *range,
                      struct disk_names *out)
{
    char after[RECORD_KEY_MAX + 1], from[RECORD_KEY_MAX + 1], end[RECORD_KEY_MAX + 1];
    struct blob_error err;
    bool longer = strlen(range->prefix) > DISK_SHARD_CHARS;
    snprintf(from, sizeof from, "%s", longer ? range->prefix : dir + sizeof FILES_DIR);
    snprintf(after, sizeof after, "%s", range->after);
    turn(from, ',', '/');
    turn(after, ',', '/');
    snprintf(end, sizeof end, "%s", from);
    end[strlen(end) - 1]++;
    struct disk_names names = {0};
    pthread_mutex_lock(&c->lock);
    bool kept = atomic_load(&c->kept[shard]);
    if (kept) {
        sqlite_bind_text(c->list, 1, after);
        sqlite_bind_text(c->list, 2, from);
        sqlite_bind_text(c->list, 3, end);
        enum blob_status st = list_rows(c, range, &names, &err);
        if (st != BLOB_OK && st != BLOB_E_NO_MEMORY)
            fail(c, &err);
        kept = st == BLOB_OK;
    }
    pthread_mutex_unlock(&c->lock);
    if (kept)
        *out = names;
    else
        disk_names_release(&names);
    return kept;
}

enum blob_status disk_crowds_names(struct disk_store *s, struct disk_crowds *c, const char *dir,
                                   const struct disk_names_range *range, struct disk_names *out, struct blob_error *err)
{
    unsigned shard = c ? shard_of_dir(dir) : NO_SHARD;
    if (shard != NO_SHARD && atomic_load(&c->kept[shard]) && list_kept(c, shard, dir, range, out))
        return BLOB_OK;
    enum blob_status st = disk_names_read_range(s->root_fd, dir, disk_record_name_compare, range, out, err);
    if (st == BLOB_OK) {
        atomic_fetch_add(&s->names_read, out->met);
        if (shard != NO_SHARD && out->met > CROWD_NAMES)
            take_in(s, c, shard, dir);
    }
    return st;
}

void disk_crowds_look_for(struct disk_store *s, struct disk_crowds *c)
{
    const struct disk_names_range none = {.prefix = "", .after = "", .most = 0};
    struct disk_names dirs, names;
    if (!c || disk_names_read(s->root_fd, FILES_DIR, strcmp, &dirs, NULL) != BLOB_OK)
        return;
    for (size_t i = 0; i < dirs.count; i++) {
        char dir[DISK_PATH_MAX];
        struct stat sb;
        int n = snprintf(dir, sizeof dir, FILES_DIR "/%s", dirs.names[i]);
        if (n >= (int)sizeof dir || fstatat(s->root_fd, dir, &sb, 0) != 0 || sb.st_size < LEAN_BYTES)
            continue;
        unsigned shard = shard_of_dir(dir);
        if (shard != NO_SHARD && !atomic_load(&c->kept[shard]) &&
            disk_crowds_names(s, c, dir, &none, &names, NULL) == BLOB_OK)
            disk_names_release(&names);
    }
    disk_names_release(&dirs);
}
