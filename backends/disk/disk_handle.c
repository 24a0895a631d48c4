/*
 * disk_handle - what every part of the disk store needs of struct disk_store: the way to it from the base that callers
 * hold, the room that is left, and names for temporary files.
 *
 * It is the lowest module that knows the struct. It calls none of the others, so each of them may call it.
 */
#include "backends/disk/disk_impl.h"
#include "backends/disk/file/durable_file.h"
#include "core/check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/statvfs.h>

/* The file system is asked for its free bytes at most this often. */
#define ROOM_CACHE_US 1000000

struct disk_store *disk_of(struct blob_store *base)
{
    struct disk_store *s = (struct disk_store *)base;
    MAGIC_OK(s, DISK_MAGIC);
    return s;
}

void disk_tmp_path(struct disk_store *s, struct disk_path *out)
{
    snprintf(out->text, sizeof out->text, DISK_TMP "/%s.%" PRIuFAST64, s->tmp_tag, atomic_fetch_add(&s->tmp_serial, 1));
}

enum blob_status disk_fits(struct disk_store *s, uint64_t bytes, uint64_t reserve_bytes, struct blob_error *err)
{
    int64_t now_us = clock_steady_us(), asked_us = atomic_load(&s->free_asked_us);
    if (asked_us == 0 || now_us - asked_us >= ROOM_CACHE_US) {
        struct statvfs vfs;
        if (fstatvfs(s->root_fd, &vfs) != 0)
            return file_fail(err, errno, "look at", "the storage root");
        atomic_store(&s->free_bytes, (uint64_t)vfs.f_bavail * vfs.f_frsize);
        atomic_store(&s->free_asked_us, now_us);
    }
    uint64_t free_bytes = atomic_load(&s->free_bytes);
    uint64_t room = free_bytes > reserve_bytes ? free_bytes - reserve_bytes : 0;
    if (bytes > room || room == 0)
        return blob_fail(err, BLOB_E_NO_SPACE, 0, "%" PRIu64 " bytes do not fit: %" PRIu64 " are free", bytes, room);
    return BLOB_OK;
}
