/*
 * index_order - what order and search of a listing mean, for whoever lists rows itself instead of asking a database.
 *
 * Threads: plain functions. Ownership: everything is borrowed.
 */
#ifndef BLOBD_CORE_INDEX_ORDER_H
#define BLOBD_CORE_INDEX_ORDER_H

#include "core/session_store.h"

struct index_sort_row {
    const struct index_row *row;
    const char *folded; /* its name under casefold_add() */
};

/* By the keys of the query, then by id: below, at or above 0. */
int index_order_compare(const struct index_sort_row *a, const struct index_sort_row *b, const struct index_query *q);
/* Is the row one of the query's? needle: q->search under casefold_add(), "" for none. */
bool index_order_matches(const struct index_sort_row *row, const struct index_query *q, const char *needle);

#endif
