/*
 * disk_shared - uploads in a directory that nodes share; used by disk_uploads.c. The .c tells how nodes are kept apart.
 *
 * Threads: any, one at a time a writer. Ownership: descriptors stay the caller's. Errors: as the store's. Fault points:
 * those of durable_file. Durability: what returns OK is on the disk.
 */
#ifndef BLOBD_BACKENDS_DISK_DISK_SHARED_H
#define BLOBD_BACKENDS_DISK_DISK_SHARED_H

#include "backends/disk/disk_impl.h"

#include <sys/types.h>

/* Makes epoch the latest writer of the open file. CONFLICT: a higher one has been here. */
enum blob_status disk_fence_pass(int fd, uint64_t epoch, const char *path, struct blob_error *err) BLOB_MUST_CHECK;
/* The highest that passed; 0: none, or the file system has no attributes. */
enum blob_status disk_fence_highest(int fd, uint64_t *epoch, const char *path, struct blob_error *err) BLOB_MUST_CHECK;
/* A file of this writer's own with the first `offset` bytes of old_fd, in the place of the one that an older writer
 * still has open, or that has a second name. */
enum blob_status disk_take_over(struct disk_store *s, const struct disk_path *path, int old_fd, uint64_t offset,
                                uint64_t epoch, int *out, struct blob_error *err) BLOB_MUST_CHECK;
/* Is the open file the one that has the upload's name? CONFLICT: another is. NOT_FOUND: none is. */
enum blob_status disk_still_named(struct disk_store *s, int fd, ino_t inode, const struct disk_path *upload,
                                  struct blob_error *err) BLOB_MUST_CHECK;
/* Takes the upload's name away where it is that of `inode`; OK also where it is not. */
enum blob_status disk_end_upload(struct disk_store *s, ino_t inode, const struct disk_path *upload,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* Does the blob hold what the open file does? False also where that cannot be told. Reads both. */
bool disk_same_content(struct disk_store *s, int fd, uint64_t size, const struct disk_path *blob);
/* Gives the open file one more name. CONFLICT: it has none any more. */
enum blob_status disk_link_open_file(struct disk_store *s, int fd, const struct disk_path *as,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* Gives the open file, whose content is durable, the blob's name and that time, and takes the upload's away. CONFLICT:
 * the file has no name any more, since another took the upload over or ended it; nothing has changed. */
enum blob_status disk_commit_open_file(struct disk_store *s, int fd, ino_t inode, int64_t touched_ms,
                                       const struct disk_path *upload, const struct disk_path *blob,
                                       struct blob_error *err) BLOB_MUST_CHECK;

#endif
