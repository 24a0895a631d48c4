/*
 * disk_record_file - the file that one record is kept in.
 *
 * The memtable reads and writes it under the lock of its shard; without a journal the records read it as it is.
 */
#include "backends/disk/disk_impl.h"
#include "backends/disk/file/durable_file.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

enum blob_status disk_record_read(struct disk_store *s, const struct disk_path *path, struct bytebuf *out,
                                  struct blob_error *err)
{
    int fd = openat(s->root_fd, path->text, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return file_fail(err, errno, "open", path->text);
    char small[4096];
    size_t got = sizeof small;
    enum blob_status st = BLOB_OK;
    for (uint64_t at = 0; st == BLOB_OK && got == sizeof small; at += got) {
        st = file_read_at(fd, small, sizeof small, at, &got, path->text, err);
        if (st == BLOB_OK)
            bytebuf_add(out, small, got);
    }
    close(fd);
    return st == BLOB_OK && out->failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "%s", path->text) : st;
}

enum blob_status disk_record_write(struct disk_store *s, const struct disk_path *path, const void *value, size_t len,
                                   struct blob_error *err)
{
    int fd = openat(s->root_fd, path->text, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0)
        return file_fail(err, errno, "write", path->text);
    enum blob_status st = file_write_at(fd, value, len, 0, path->text, err);
    close(fd);
    return st;
}
