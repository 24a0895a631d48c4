/*
 * direct_file - appends to a file past the page cache (O_DIRECT).
 *
 * What is uploaded in bulk is read back rarely, and the page cache takes more time than hashing: a page found, filled,
 * queued and dropped for every 4 KiB. Here whole pages go to the device from the caller's memory, as many at once as
 * there are; where that memory, or the place in the file, is not aligned, they go by a buffer of a pool. The bytes
 * after the last whole page are held here until more come or they are asked for: direct_file_settle() puts them into
 * the file by the page cache.
 *
 * What was written is in the file, and durable like anything else after fdatasync(), not before.
 *
 * Threads: one call at a time for a file; a pool serves any number. Ownership: a file closes its direct descriptor; the
 * other, the pool and what is written stay the caller's. Errors: UNSUPPORTED, and nothing is changed, where the file
 * system does not do this, or no buffer is free: write by the page cache (after direct_file_settle). Source: open(2)
 * O_DIRECT; alignment by a page suits every block device.
 */
#ifndef BLOBD_BACKENDS_DISK_FILE_DIRECT_FILE_H
#define BLOBD_BACKENDS_DISK_FILE_DIRECT_FILE_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* What offsets, lengths and memory are multiples of on their way past the page cache. */
#define DIRECT_PAGE ((size_t)4096)

struct direct_pool;
struct direct_file;

/* Up to `count` buffers of a MiB, made when first needed. NULL: no memory. */
struct direct_pool *direct_pool_new(unsigned count);
/* NULL is fine; no buffer is lent. */
void direct_pool_free(struct direct_pool *pool);

/* direct_fd: opened with O_DIRECT for writing, is the file's from now on, also on failure; cached_fd: the same file,
 * for reading and writing. */
enum blob_status direct_file_new(struct direct_pool *pool, int direct_fd, int cached_fd, struct direct_file **out,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* What is held is lost. NULL is fine. */
void direct_file_free(struct direct_file *f);

/*
 * Appends at `position`, the end of what was written by whatever way. All or nothing: after a failure the file may be
 * longer or shorter than position, and direct_file_in_file() says how much of it counts.
 */
enum blob_status direct_file_write(struct direct_file *f, const struct iovec *parts, int count, uint64_t position,
                                   const char *what, struct blob_error *err) BLOB_MUST_CHECK;
/* So many of the first `position` bytes are in the file; the rest is held. */
uint64_t direct_file_in_file(const struct direct_file *f, uint64_t position);
/* Puts what is held into the file. */
enum blob_status direct_file_settle(struct direct_file *f, const char *what, struct blob_error *err) BLOB_MUST_CHECK;

#endif
