/*
 * disk_journal_log - reads the journal at start.
 *
 * Which segments count: the highest number tells (in its header) the oldest that was still needed when it was begun.
 * Between the two, a missing number is one that was freed and being reused, so it and all below it are done with. The
 * run of numbers up to the highest is read until an entry does not check; nothing behind that place was ever
 * acknowledged, because a sync covers everything before it.
 */
#include "backends/disk/file/durable_file.h"
#include "backends/disk/journal/disk_journal.h"
#include "backends/disk/journal/disk_journal_format.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum blob_status fail_in_journal(struct blob_error *err, int error, const char *what, const char *name)
{
    return blob_fail(err, blob_status_from_errno(error), error, "%s " JOURNAL_DIR "/%s", what, name);
}

static bool segment_name(const char *name)
{
    return strlen(name) == 2 && strspn(name, "0123456789") == 2;
}

/* Maps a segment; what is not one (torn header, wrong size) is passed over. */
static enum blob_status map_segment(struct journal_log *log, int dirfd, const char *name, struct blob_error *err)
{
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_in_journal(err, errno, "open", name);
    enum blob_status st = BLOB_OK;
    struct stat sb;
    void *data = MAP_FAILED;
    if (fstat(fd, &sb) != 0)
        st = fail_in_journal(err, errno, "stat", name);
    else if (sb.st_size >= (off_t)JOURNAL_BLOCK)
        data = mmap(NULL, (size_t)sb.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (st == BLOB_OK && sb.st_size >= (off_t)JOURNAL_BLOCK && data == MAP_FAILED)
        st = fail_in_journal(err, errno, "map", name);
    close(fd);
    if (st != BLOB_OK || data == MAP_FAILED)
        return st;
    struct segment_header h;
    struct journal_map *grown = realloc(log->maps, (log->map_count + 1) * sizeof *grown);
    if (grown)
        log->maps = grown;
    if (!grown || !disk_segment_header_decode(data, &h)) {
        munmap(data, (size_t)sb.st_size);
        return grown ? BLOB_OK : blob_fail(err, BLOB_E_NO_MEMORY, 0, "journal");
    }
    log->maps[log->map_count++] =
        (struct journal_map){.data = data, .size = (size_t)sb.st_size, .number = h.number, .oldest = h.oldest};
    memcpy(log->maps[log->map_count - 1].name, name, strlen(name) + 1);
    return BLOB_OK;
}

static enum blob_status map_segments(struct journal_log *log, int root_fd, struct blob_error *err)
{
    int fd = openat(root_fd, JOURNAL_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? BLOB_OK : fail_in_journal(err, errno, "open", "");
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "journal");
    }
    enum blob_status st = BLOB_OK;
    struct dirent *de;
    while (st == BLOB_OK && (errno = 0, de = readdir(dir)) != NULL)
        if (segment_name(de->d_name))
            st = map_segment(log, fd, de->d_name, err);
    if (st == BLOB_OK && errno != 0)
        st = fail_in_journal(err, errno, "list", "");
    closedir(dir);
    return st;
}

static int map_compare(const void *a, const void *b)
{
    const struct journal_map *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

static bool log_add(struct journal_log *log, const struct journal_entry *entry)
{
    if (log->count == log->cap) {
        size_t cap = log->cap ? 2 * log->cap : 256;
        struct journal_entry *grown = realloc(log->entries, cap * sizeof *grown);
        if (!grown)
            return false;
        log->entries = grown;
        log->cap = cap;
    }
    log->entries[log->count++] = *entry;
    return true;
}

/* *sealed: it was read to its end, and the next segment follows. */
static enum blob_status read_segment(struct journal_log *log, const struct journal_map *map, bool *sealed,
                                     struct blob_error *err)
{
    struct journal_reader reader;
    if (!journal_reader_begin(&reader, map->data, map->size))
        return blob_fail(err, BLOB_E_CORRUPT, 0,
                         JOURNAL_DIR "/%s was written by a later version of blobd: start that one, have it end its "
                                     "journal (storage.disk.journal=false), and start this one then",
                         map->name);
    uint64_t pos = reader.first;
    for (;;) {
        struct entry_header h;
        if (!journal_reader_take(&reader, pos, &h)) {
            pos = journal_align(pos, JOURNAL_BLOCK);
            if (!journal_reader_take(&reader, pos, &h))
                return BLOB_OK;
        }
        if (h.kind == JOURNAL_SEAL) {
            *sealed = true;
            return BLOB_OK;
        }
        struct journal_entry entry = {.begin = map->number << 32 | pos,
                                      .kind = (enum journal_kind)h.kind,
                                      .len = h.len,
                                      .body = map->data + pos + JOURNAL_ENTRY_BYTES};
        if (!log_add(log, &entry))
            return blob_fail(err, BLOB_E_NO_MEMORY, 0, "journal");
        pos += journal_align(JOURNAL_ENTRY_BYTES + h.len, 8);
    }
}

/* Does a segment behind the one whose entries end too soon have any? */
static void note_torn(struct journal_log *log, const struct journal_map *torn, const struct journal_map *last)
{
    for (const struct journal_map *map = torn + 1; map <= last; map++) {
        struct journal_reader reader;
        struct entry_header h;
        if (!journal_reader_begin(&reader, map->data, map->size) || !journal_reader_take(&reader, reader.first, &h))
            continue;
        log->torn = torn->number;
        log->behind = map->number;
        return;
    }
}

static enum blob_status read_segments(struct journal_log *log, struct blob_error *err)
{
    if (log->map_count == 0)
        return BLOB_OK;
    qsort(log->maps, log->map_count, sizeof *log->maps, map_compare);
    const struct journal_map *last = &log->maps[log->map_count - 1], *first = last;
    log->next_segment = last->number + 1;
    while (first > log->maps && first[-1].number + 1 == first->number && first[-1].number >= last->oldest)
        first--;
    enum blob_status st = BLOB_OK;
    bool sealed = true;
    const struct journal_map *map = first;
    for (; st == BLOB_OK && sealed && map <= last; map++) {
        sealed = false;
        st = read_segment(log, map, &sealed, err);
    }
    if (st == BLOB_OK && !sealed)
        note_torn(log, map - 1, last);
    return st;
}

enum blob_status journal_log_read(int root_fd, struct journal_log *out, struct blob_error *err)
{
    struct journal_log log = {0};
    enum blob_status st = map_segments(&log, root_fd, err);
    if (st == BLOB_OK)
        st = read_segments(&log, err);
    if (st == BLOB_OK)
        *out = log;
    else
        journal_log_release(&log);
    return st;
}

void journal_log_release(struct journal_log *log)
{
    for (size_t i = 0; i < log->map_count; i++)
        munmap((void *)(uintptr_t)log->maps[i].data, log->maps[i].size);
    free(log->maps);
    free(log->entries);
    *log = (struct journal_log){0};
}

/* ---- what may be damaged ---- */

enum blob_status journal_log_set_aside(int root_fd, const struct journal_log *log, const char *into,
                                       struct blob_error *err)
{
    if (mkdirat(root_fd, into, 0750) != 0 && errno != EEXIST)
        return blob_fail(err, blob_status_from_errno(errno), errno, "make %s", into);
    for (size_t i = 0; i < log->map_count; i++) {
        const struct journal_map *map = &log->maps[i];
        char from[sizeof JOURNAL_DIR + sizeof map->name], to[64];
        snprintf(from, sizeof from, JOURNAL_DIR "/%s", map->name);
        snprintf(to, sizeof to, "%.20s/journal-%llu", into, (unsigned long long)map->number);
        if (map->number >= log->torn && renameat(root_fd, from, root_fd, to) != 0)
            return blob_fail(err, blob_status_from_errno(errno), errno, "move %s to %s", from, to);
    }
    return BLOB_OK;
}

/* ---- giving room ---- */

/*
 * A segment in front of the first entry, or behind the last, may go: what is left of the run begins with an entry that
 * its header vouches for, and next_segment was told before.
 */
void journal_log_give_room(int root_fd, struct journal_log *log)
{
    uint64_t first = UINT64_MAX, last = 0;
    if (log->count > 0) {
        first = log->entries[0].begin >> 32;
        last = log->entries[log->count - 1].begin >> 32;
    } else if (log->map_count > 0) {
        first = last = log->maps[log->map_count - 1].number;
    }
    size_t kept = 0;
    for (size_t i = 0; i < log->map_count; i++) {
        struct journal_map *map = &log->maps[i];
        char path[sizeof JOURNAL_DIR + sizeof map->name];
        snprintf(path, sizeof path, JOURNAL_DIR "/%s", map->name);
        bool needed = map->number >= first && map->number <= last;
        if (needed || unlinkat(root_fd, path, 0) != 0)
            log->maps[kept++] = *map;
        else
            munmap((void *)(uintptr_t)map->data, map->size); /* else it would keep its room */
    }
    log->map_count = kept;
}

/* ---- the journal's end ---- */

#define OLD JOURNAL_DIR ".old"

enum blob_status journal_log_remove_old(int root_fd, struct blob_error *err)
{
    int fd = openat(root_fd, OLD, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? BLOB_OK : file_fail(err, errno, "open", OLD);
    for (unsigned i = 0; i < JOURNAL_SEGMENTS_MAX; i++) {
        char name[3] = {(char)('0' + i / 10), (char)('0' + i % 10), '\0'};
        unlinkat(fd, name, 0);
    }
    close(fd);
    if (unlinkat(root_fd, OLD, AT_REMOVEDIR) == 0)
        return BLOB_OK;
    return blob_fail(err, blob_status_from_errno(errno), errno,
                     "remove " OLD " (a journal that was carried out; what else is in it has to be moved away)");
}

/*
 * The directory is moved away first: were the segments removed one by one, a crash in between could leave some of the
 * older ones to be replayed without the newer. It may also leave the directory that was moved away.
 */
enum blob_status journal_log_remove(int root_fd, struct blob_error *err)
{
    enum blob_status st = journal_log_remove_old(root_fd, err);
    if (st != BLOB_OK)
        return st;
    if (renameat(root_fd, JOURNAL_DIR, root_fd, OLD) != 0)
        return errno == ENOENT ? BLOB_OK : fail_in_journal(err, errno, "move", "");
    if (fsync(root_fd) != 0)
        return fail_in_journal(err, errno, "sync", "..");
    return journal_log_remove_old(root_fd, err);
}
