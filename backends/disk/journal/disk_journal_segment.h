/*
 * disk_journal_segment - the files of the journal's segments: made, taken over, begun.
 *
 * Threads: any, each segment by one at a time. Ownership: directories are borrowed. Durability: each returns when what
 * it did is durable.
 */
#ifndef BLOBD_BACKENDS_DISK_JOURNAL_DISK_JOURNAL_SEGMENT_H
#define BLOBD_BACKENDS_DISK_JOURNAL_DISK_JOURNAL_SEGMENT_H

#include "backends/disk/journal/disk_journal_format.h"
#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

bool journal_segment_there(int dir_fd, unsigned i);
/* The file of segment i, below JOURNAL_SEGMENTS_MAX; made where it is missing or has another size. */
enum blob_status journal_segment_open(int dir_fd, unsigned i, uint64_t bytes, int *fd,
                                      struct blob_error *err) BLOB_MUST_CHECK;
/* Writes a header with a new salt: h's number and oldest are given. What was in the segment is no longer read. */
enum blob_status journal_segment_begin(int fd, struct segment_header *h, struct blob_error *err) BLOB_MUST_CHECK;

#endif
