/*
 * file_ends - which files a blob has, by their numbers: from a given one on, or the last of all, which is the first
 * file that named it.
 *
 * What either costs does not grow with the number of files: a store lists keys ascending only, so the last are found by
 * looking farther and farther ahead, and then by halving. How many keys a call lists is bounded by what it gives and
 * FILE_PROBES_MAX times FILE_PROBE_KEYS.
 *
 * Threads: any. Errors: as the store's. Keys that are no files' are passed over.
 */
#ifndef BLOBD_CORE_FILES_FILE_ENDS_H
#define BLOBD_CORE_FILES_FILE_ENDS_H

#include "core/blob_store.h"
#include "core/digest.h"

#define FILE_TAIL_MAX   1000 /* one request to a remote store; nearly always these are all that there are */
#define FILE_PROBE_KEYS 64
#define FILE_PROBES_MAX 96 /* 64 halvings, and 32 leaps before them */

/* The numbers in [from, below), ascending, at most `most`. *more: there may be others behind these. */
enum blob_status file_numbers_from(struct blob_store *store, const struct digest *digest, uint64_t from, uint64_t below,
                                   size_t most, uint64_t *numbers, size_t *count, bool *more,
                                   struct blob_error *err) BLOB_MUST_CHECK;

struct file_tail {
    size_t count;
    uint64_t numbers[FILE_TAIL_MAX]; /* ascending */
};
/*
 * The last numbers below `below`: one at least, and how many is chance. low: a file of this number is there, or was a
 * moment ago. hint: where the last were found some time ago, which saves the search where it is still so; 0: not known.
 */
enum blob_status file_numbers_last(struct blob_store *store, const struct digest *digest, uint64_t low, uint64_t below,
                                   uint64_t hint, struct file_tail *tail, struct blob_error *err) BLOB_MUST_CHECK;

#endif
