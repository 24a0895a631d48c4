/*
 * memory_index - the file index of memory_sessions: an array that is filtered and sorted for every listing. Written to
 * be plainly right, so that the others can be compared with it.
 *
 * Threads: the caller's lock. Ownership: rows are copied in and copied out into a page. Errors: no memory (CHECK: it
 * serves tests).
 */
#ifndef BLOBD_BACKENDS_MEMORY_MEMORY_INDEX_H
#define BLOBD_BACKENDS_MEMORY_MEMORY_INDEX_H

#include "backends/index_row.h"

struct memory_row;

struct memory_index {
    struct memory_row **rows;
    size_t count, cap;
    uint64_t generation; /* rows of an older one go when a rebuild ends */
    bool whole;
};

void memory_index_init(struct memory_index *x);
void memory_index_release(struct memory_index *x);
/* No rows, and not whole. */
void memory_index_empty(struct memory_index *x);
void memory_index_put(struct memory_index *x, const struct index_row *row);
void memory_index_remove(struct memory_index *x, const char *id);
/* Does any row's id begin so? */
bool memory_index_has(const struct memory_index *x, const char *stem);
/* Fills page; how many match in all. */
uint64_t memory_index_list(const struct memory_index *x, const struct index_query *q, struct row_page *page);
void memory_index_expired(const struct memory_index *x, int64_t now_ms, size_t limit, struct row_page *page);
void memory_index_rebuild_begin(struct memory_index *x);
void memory_index_rebuild_end(struct memory_index *x);

#endif
