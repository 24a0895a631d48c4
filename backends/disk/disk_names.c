/* disk_names - the names in a directory, read at once and sorted: no directory stays open while callbacks run. */
#include "backends/disk/disk_impl.h"
#include "backends/disk/file/durable_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool disk_names_add(struct disk_names *names, const char *name)
{
    if (names->count == names->cap) {
        size_t cap = names->cap ? 2 * names->cap : 64;
        char **grown = realloc(names->names, cap * sizeof *grown);
        if (!grown)
            return false;
        names->names = grown;
        names->cap = cap;
    }
    names->names[names->count] = strdup(name);
    return names->names[names->count] != NULL && ++names->count > 0;
}

static void swap(char **a, char **b)
{
    char *t = *a;
    *a = *b;
    *b = t;
}

static void sift_down(char **names, size_t root, size_t count, int (*compare)(const char *, const char *))
{
    for (size_t child; (child = 2 * root + 1) < count; root = child) {
        if (child + 1 < count && compare(names[child], names[child + 1]) < 0)
            child++;
        if (compare(names[root], names[child]) >= 0)
            return;
        swap(&names[root], &names[child]);
    }
}

/* Heap sort: bounded whatever names somebody chose, and with the comparison as it is (qsort's takes other arguments).
 */
static void sort(char **names, size_t count, int (*compare)(const char *, const char *))
{
    for (size_t i = count / 2; i-- > 0;)
        sift_down(names, i, count, compare);
    for (size_t end = count; end-- > 1;) {
        swap(&names[0], &names[end]);
        sift_down(names, 0, end, compare);
    }
}

/* Keeps the first range->most: once there are so many they are a heap, whose last is the one to give way. */
static bool keep(struct disk_names *names, const char *name, int (*compare)(const char *, const char *),
                 const struct disk_names_range *range)
{
    if (strncmp(name, range->prefix, strlen(range->prefix)) != 0 || compare(name, range->after) <= 0)
        return true;
    if (names->count < range->most) {
        if (!disk_names_add(names, name))
            return false;
        for (size_t i = names->count == range->most ? names->count / 2 : 0; i-- > 0;)
            sift_down(names->names, i, names->count, compare);
        return true;
    }
    if (range->most == 0 || compare(name, names->names[0]) >= 0)
        return true;
    char *copy = strdup(name);
    if (!copy)
        return false;
    free(names->names[0]);
    names->names[0] = copy;
    sift_down(names->names, 0, names->count, compare);
    return true;
}

enum blob_status disk_names_read_range(int root_fd, const char *path, int (*compare)(const char *, const char *),
                                       const struct disk_names_range *range, struct disk_names *out,
                                       struct blob_error *err)
{
    struct disk_names names = {0};
    int fd = openat(root_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        *out = names;
        return BLOB_OK;
    }
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return file_fail(err, error, "open directory", path);
    }
    enum blob_status st = BLOB_OK;
    struct dirent *de;
    while (st == BLOB_OK && (errno = 0, de = readdir(dir)) != NULL) {
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0)
            continue;
        names.met++;
        if (!keep(&names, de->d_name, compare, range))
            st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "list %s", path);
    }
    if (st == BLOB_OK && errno != 0)
        st = file_fail(err, errno, "list", path);
    closedir(dir);
    if (st != BLOB_OK) {
        disk_names_release(&names);
        return st;
    }
    sort(names.names, names.count, compare);
    *out = names;
    return BLOB_OK;
}

enum blob_status disk_names_read(int root_fd, const char *path, int (*compare)(const char *, const char *),
                                 struct disk_names *out, struct blob_error *err)
{
    const struct disk_names_range all = {.prefix = "", .after = "", .most = SIZE_MAX};
    return disk_names_read_range(root_fd, path, compare, &all, out, err);
}

static bool has(const struct disk_names *sorted, const char *name, int (*compare)(const char *, const char *))
{
    size_t from = 0, end = sorted->count;
    while (from < end) {
        size_t middle = from + (end - from) / 2;
        int order = compare(sorted->names[middle], name);
        if (order == 0)
            return true;
        if (order < 0)
            from = middle + 1;
        else
            end = middle;
    }
    return false;
}

bool disk_names_merge(struct disk_names *names, struct disk_names *gone, struct disk_names *added,
                      int (*compare)(const char *, const char *))
{
    size_t kept = 0;
    sort(gone->names, gone->count, compare);
    sort(added->names, added->count, compare);
    for (size_t i = 0; i < names->count; i++) {
        if (has(gone, names->names[i], compare))
            free(names->names[i]);
        else
            names->names[kept++] = names->names[i];
    }
    names->count = kept;
    for (size_t i = 0; i < added->count; i++) {
        const struct disk_names sorted = {.names = names->names, .count = kept}; /* it may have been moved */
        if (!has(&sorted, added->names[i], compare) && !disk_names_add(names, added->names[i]))
            return false;
    }
    if (names->count > kept)
        sort(names->names, names->count, compare);
    return true;
}

void disk_names_release(struct disk_names *names)
{
    for (size_t i = 0; i < names->count; i++)
        free(names->names[i]);
    free(names->names);
    *names = (struct disk_names){0};
}
