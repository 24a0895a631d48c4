/*
 * index_order - what order and search of a listing mean, for whoever lists rows itself instead of asking a database.
 *
 * Threads: plain values, one at a time. Ownership: see below.
 */
#ifndef BLOBD_CORE_INDEX_ORDER_H
#define BLOBD_CORE_INDEX_ORDER_H

#include "core/session_store.h"

/* What of a row is filtered and sorted by; texts are borrowed. */
struct index_sort_row {
    const char *id, *owner;
    const char *folded; /* its name under casefold_add() */
    uint64_t size;
    int64_t created_ms;
};

/* By the keys of the query, then by id: below, at or above 0. */
int index_order_compare(const struct index_sort_row *a, const struct index_sort_row *b, const struct index_query *q);

/*
 * The page of a query out of rows that come in any order. Keeps at most twice as many rows as the page and what lies
 * before it: copies, each with its value, or rows that stay where they are.
 *
 *     index_page_init(&page, query);
 *     for each row: index_page_offer(&page, &row, value, len);
 *     index_page_sort(&page);
 *     for (i = 0; i < index_page_rows(&page); i++) … index_page_row(&page, i, &value, &len)
 */
struct index_page {
    const struct index_query *q; /* borrowed */
    struct bytebuf needle;
    struct index_page_slot *slots;
    size_t count, wanted;
    uint64_t matches; /* rows that match, whatever skip and top */
    bool bounded;     /* slots[wanted - 1] is the worst that can be in the page */
    bool failed;      /* no memory */
};

void index_page_init(struct index_page *page, const struct index_query *q);
void index_page_release(struct index_page *page);
/* Copies row and value. */
void index_page_offer(struct index_page *page, const struct index_sort_row *row, const void *value, size_t len);
/* Borrows row and its texts until release. */
void index_page_offer_lasting(struct index_page *page, const struct index_sort_row *row);
/* After the last offer. */
void index_page_sort(struct index_page *page);
size_t index_page_rows(const struct index_page *page);
/* The i-th row of the page; borrowed from it. A row without a value: NULL and 0. */
const struct index_sort_row *index_page_row(const struct index_page *page, size_t i, const void **value, size_t *len);

#endif
