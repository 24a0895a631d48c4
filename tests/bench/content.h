/*
 * content - what the load generator uploads: any number of distinct blobs of one size, at no cost while it is measured.
 *
 * Blob number i is a pseudo-random pattern, repeated, followed by a stamp of 64 bytes that holds seed and i. Its
 * SHA-256 costs one block on top of a state that is computed beforehand. Threads: one. Units: bytes.
 */
#ifndef BLOBD_BENCH_CONTENT_H
#define BLOBD_BENCH_CONTENT_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define CONTENT_STAMP 64u
#define CONTENT_HEX   64u

struct content;

/* What is particular to one blob. */
struct blob_stamp {
    char text[CONTENT_STAMP + 1];
    char hex[CONTENT_HEX + 1]; /* SHA-256 of the whole blob */
};

/* size is at least CONTENT_STAMP. Ends the program when memory is out. */
struct content *content_new(uint64_t size, uint64_t seed);
void content_free(struct content *c);

void content_stamp(struct content *c, uint64_t number, struct blob_stamp *out);
/* Describes the bytes from..to of a blob in at most max pieces (perhaps fewer bytes); how many pieces. Borrows. */
size_t content_slice(const struct content *c, const struct blob_stamp *stamp, uint64_t from, uint64_t to,
                     struct iovec *iov, size_t max);

#endif
