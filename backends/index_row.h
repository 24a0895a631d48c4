/*
 * index_row - rows of the file index as bytes, and pages of them: what the session stores keep, queue and hand out.
 *
 * A page is filled while a store's lock is held and given to the caller's callback after it was released, so that no
 * callback runs under a lock.
 *
 * Threads: plain values, one at a time. Ownership: a page owns its bytes; decoded rows borrow their value from them.
 */
#ifndef BLOBD_BACKENDS_INDEX_ROW_H
#define BLOBD_BACKENDS_INDEX_ROW_H

#include "core/session_store.h"

/* Adds the row's bytes to out: version, lengths and numbers in little-endian order. */
void index_row_encode(const struct index_row *row, struct bytebuf *out);
/* CORRUPT: not what index_row_encode() wrote, or a later version's. row->value borrows from in. */
enum blob_status index_row_decode(struct byteview *in, struct index_row *row) BLOB_MUST_CHECK;

struct row_page {
    struct bytebuf bytes;
    size_t count;
};

void row_page_init(struct row_page *page);
void row_page_release(struct row_page *page);
void row_page_add(struct row_page *page, const struct index_row *row);
/* Calls fn for each row until it returns false. NO_MEMORY when one did not fit. */
enum blob_status row_page_give(const struct row_page *page, index_row_fn *fn, void *arg,
                               struct blob_error *err) BLOB_MUST_CHECK;

#endif
