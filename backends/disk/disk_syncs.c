/*
 * disk_syncs - syncs whose failure is not forgotten.
 *
 * A sync that fails is told once: the kernel takes what it could not write for clean, and the next sync, of this or of
 * another descriptor, finds nothing to do and succeeds. So a failure is final for what it was about. Of a file being
 * written that is its writer (disk_uploads): what was durable before stays, the rest comes again from the client, into
 * new pages. Of a directory it is the store: its entries belong to many, who sync it each for themselves, and which of
 * them are on the disk nobody can tell. Of the journal, see there.
 *
 * Two that sync one directory at the same time do so beside each other. That the second were told success between the
 * first's failure and the noting of it is left to the file system: those that are relied on stop by themselves where
 * the blocks of a directory cannot be written.
 */
#include "backends/disk/disk_impl.h"
#include "backends/disk/file/durable_file.h"
#include "core/check.h"
#include "core/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

void disk_break(struct disk_store *s, enum blob_status st, const struct blob_error *why)
{
    pthread_mutex_lock(&s->break_lock);
    bool first = s->broken == BLOB_OK;
    if (first) {
        s->broken = st;
        s->broken_error = *why;
    }
    pthread_mutex_unlock(&s->break_lock);
    if (first && !s->journal)
        log_line(s->log, LOG_ERROR, NULL, "%s; nothing more can be made durable until a restart", why->text);
    if (s->journal)
        disk_journal_fail(s->journal, st, why);
}

enum blob_status disk_unbroken(struct disk_store *s, struct blob_error *err)
{
    pthread_mutex_lock(&s->break_lock);
    enum blob_status st = s->broken;
    if (st != BLOB_OK && err)
        *err = s->broken_error;
    pthread_mutex_unlock(&s->break_lock);
    return st;
}

enum blob_status disk_dir_sync(struct disk_store *s, const char *path, struct blob_error *err)
{
    int fd = openat(s->root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(err, errno, "open directory", path);
    struct blob_error why = {0};
    enum blob_status st = disk_unbroken(s, &why);
    if (st == BLOB_OK) {
        st = file_sync_all(fd, path, &why);
        if (st != BLOB_OK)
            disk_break(s, st, &why);
        else
            st = disk_unbroken(s, &why);
    }
    close(fd);
    if (st != BLOB_OK && err)
        *err = why;
    return st;
}

/* The first len bytes of path. */
static enum blob_status sync_prefix(struct disk_store *s, const char *path, size_t len, struct blob_error *err)
{
    char dir[DISK_PATH_MAX];
    CHECK(len < sizeof dir);
    memcpy(dir, path, len);
    dir[len] = '\0';
    return disk_dir_sync(s, dir, err);
}

enum blob_status disk_dir_sync_parent(struct disk_store *s, const char *path, struct blob_error *err)
{
    const char *slash = strrchr(path, '/');
    return slash ? sync_prefix(s, path, (size_t)(slash - path), err) : disk_dir_sync(s, ".", err);
}

enum blob_status disk_dirs_sync_above(struct disk_store *s, const char *path, struct blob_error *err)
{
    enum blob_status st = disk_dir_sync(s, ".", err);
    const char *last = strrchr(path, '/');
    for (const char *slash = strchr(path, '/'); st == BLOB_OK && slash && slash != last; slash = strchr(slash + 1, '/'))
        st = sync_prefix(s, path, (size_t)(slash - path), err);
    return st;
}

enum blob_status disk_name_changes(struct disk_store *s, const struct disk_path *path, struct blob_error *err)
{
    enum blob_status st = disk_unbroken(s, err);
    if (st == BLOB_OK && !key_set_add(&s->unsynced, key_hash(path->text, strlen(path->text))))
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "%s", path->text);
    return st;
}

void disk_name_is_durable(struct disk_store *s, const struct disk_path *path)
{
    key_set_remove(&s->unsynced, key_hash(path->text, strlen(path->text)));
}

/* A sync that has failed broke the store, so this one says so, whatever the kernel would. */
enum blob_status disk_name_durable(struct disk_store *s, const struct disk_path *path, struct blob_error *err)
{
    if (!key_set_has(&s->unsynced, key_hash(path->text, strlen(path->text))))
        return BLOB_OK;
    return disk_dir_sync_parent(s, path->text, err);
}
