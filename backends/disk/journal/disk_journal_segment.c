/*
 * disk_journal_segment - a file that is there before it is needed.
 */
#include "backends/disk/journal/disk_journal_segment.h"

#include "backends/disk/file/durable_file.h"
#include "core/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEGMENT_NAME_CHARS 12
#define ZERO_CHUNK         (1u << 20)

/* Zeros, so that the blocks are there and written: a sync of overwritten blocks has no metadata to wait for. */
static enum blob_status segment_fill(int dir_fd, int fd, const char *name, uint64_t bytes, struct blob_error *err)
{
    uint8_t *zeros = calloc(1, ZERO_CHUNK);
    if (!zeros)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "journal");
    enum blob_status st = BLOB_OK;
    for (uint64_t at = 0; st == BLOB_OK && at < bytes; at += ZERO_CHUNK) {
        uint64_t left = bytes - at;
        st = file_write_at(fd, zeros, left < ZERO_CHUNK ? (size_t)left : ZERO_CHUNK, at, name, err);
    }
    free(zeros);
    if (st == BLOB_OK && fsync(fd) != 0)
        st = file_fail(err, errno, "sync journal segment", name);
    return st == BLOB_OK ? dir_sync(dir_fd, ".", err) : st;
}

static void segment_name(unsigned i, char name[SEGMENT_NAME_CHARS])
{
    snprintf(name, SEGMENT_NAME_CHARS, "%02u", i);
}

bool journal_segment_there(int dir_fd, unsigned i)
{
    char name[SEGMENT_NAME_CHARS];
    segment_name(i, name);
    return faccessat(dir_fd, name, F_OK, 0) == 0;
}

enum blob_status journal_segment_open(int dir_fd, unsigned i, uint64_t bytes, int *out, struct blob_error *err)
{
    char name[SEGMENT_NAME_CHARS];
    segment_name(i, name);
    struct stat sb;
    if (fstatat(dir_fd, name, &sb, 0) == 0 && (uint64_t)sb.st_size != bytes)
        unlinkat(dir_fd, name, 0);
    int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0 || fstat(fd, &sb) != 0) {
        enum blob_status st = file_fail(err, errno, "open journal segment", name);
        if (fd >= 0)
            close(fd);
        return st;
    }
    enum blob_status st = BLOB_OK;
    if ((uint64_t)sb.st_size != bytes)
        st = segment_fill(dir_fd, fd, name, bytes, err);
    if (st != BLOB_OK) {
        unlinkat(dir_fd, name, 0);
        close(fd);
        return st;
    }
    *out = fd;
    return BLOB_OK;
}

enum blob_status journal_segment_begin(int fd, struct segment_header *h, struct blob_error *err)
{
    uint8_t bytes[JOURNAL_HEADER_BYTES];
    CHECK(getrandom(h->salt, sizeof h->salt, 0) == sizeof h->salt);
    disk_segment_header_encode(h, bytes);
    enum blob_status st = file_write_at(fd, bytes, sizeof bytes, 0, "journal segment", err);
    return st == BLOB_OK ? file_sync(fd, "journal segment", err) : st;
}
