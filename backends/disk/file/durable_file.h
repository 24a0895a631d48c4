/*
 * durable_file - the few file operations that durability is made of: write whole, sync, make directories, replace.
 *
 * A file's content is durable after file_sync(); its name is durable after dir_sync() of the directory that holds it,
 * and that directory's own name after dir_sync() of the one above. Nothing here syncs unless it says so.
 *
 * Threads: any. Ownership: arguments are borrowed; descriptors stay the caller's. Paths are relative to dirfd. Errors:
 * the status of the errno, with a text that names the path. Fault points: disk.write, disk.sync, disk.rename,
 * disk.mkdir. Source: POSIX.1-2017 fsync(), rename(); syncfs(2) (reports write-back errors since Linux 5.8).
 */
#ifndef BLOBD_BACKENDS_DISK_FILE_DURABLE_FILE_H
#define BLOBD_BACKENDS_DISK_FILE_DURABLE_FILE_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Fills err (may be NULL) with "what path" and the text of `error`, an errno, and returns the status of that errno. */
enum blob_status file_fail(struct blob_error *err, int error, const char *what, const char *path);
/* Writes all of data, or fails; some of it may be written then. `what` names the file in the error. */
enum blob_status file_write_at(int fd, const void *data, size_t len, uint64_t offset, const char *what,
                               struct blob_error *err) BLOB_MUST_CHECK;
/* Writes parts one after the other in the same way. The call uses the array up: its elements are changed. */
enum blob_status file_write_parts_at(int fd, struct iovec *parts, int count, uint64_t offset, const char *what,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* Reads len bytes. *got is less than len only at the end of the file. */
enum blob_status file_read_at(int fd, void *buf, size_t len, uint64_t offset, size_t *got, const char *what,
                              struct blob_error *err) BLOB_MUST_CHECK;
/* Makes content and size durable, by fdatasync. */
enum blob_status file_sync(int fd, const char *what, struct blob_error *err) BLOB_MUST_CHECK;
/* Makes all that is known of the file durable, its times and attributes too, by fsync. For a directory that is its
 * names. */
enum blob_status file_sync_all(int fd, const char *what, struct blob_error *err) BLOB_MUST_CHECK;
/* Makes the names in the directory at path durable. */
enum blob_status dir_sync(int dirfd, const char *path, struct blob_error *err) BLOB_MUST_CHECK;
/* Makes the names in the directory that holds path durable. */
enum blob_status dir_sync_parent(int dirfd, const char *path, struct blob_error *err) BLOB_MUST_CHECK;
/* Makes the whole file system under fd durable. */
enum blob_status tree_sync(int fd, const char *what, struct blob_error *err) BLOB_MUST_CHECK;
/* Makes the directories above path's last part where they are missing. If sync is set, the names of all of them are
 * durable on OK, also of those that were there. */
enum blob_status dir_make_parents(int dirfd, const char *path, bool sync, struct blob_error *err) BLOB_MUST_CHECK;
/*
 * Asks the file system to place the directories that will be made in this one far from each other (chattr +T: the top
 * of a hierarchy, to ext2's and ext4's Orlov allocator). The inodes of files follow their directory; of the places near
 * each other only one would be filled at a time, and ext4 searches it, for each new inode, past all that were deleted
 * in the last minutes. A hint: what does not know it ignores it.
 */
void dir_spread(int dirfd, const char *path);
/* Creates a file with this content, and syncs the content if sync is set. On failure there is no such file. EXISTS. */
enum blob_status file_create(int dirfd, const char *path, const void *data, size_t len, bool sync,
                             struct blob_error *err) BLOB_MUST_CHECK;
/* Renames atomically, and replaces what is at `to`. */
enum blob_status file_rename(int dirfd, const char *from, const char *to, struct blob_error *err) BLOB_MUST_CHECK;
/* Removes the file. It is OK if there is none. */
enum blob_status file_remove(int dirfd, const char *path, struct blob_error *err) BLOB_MUST_CHECK;
/* When the file was last modified, in milliseconds since 1970. */
struct stat;
int64_t file_mtime_ms(const struct stat *sb);
/* Sets that time of the file at path. NOT_FOUND. */
enum blob_status file_set_mtime(int dirfd, const char *path, int64_t ms, struct blob_error *err) BLOB_MUST_CHECK;

#endif
