/* index_order - the one place that says how rows compare; the databases' orders are tested against it. */
#include "core/index_order.h"

#include <string.h>

static int compare_key(const struct index_sort_row *a, const struct index_sort_row *b, enum index_key key)
{
    switch (key) {
    case INDEX_BY_NAME:
        return strcmp(a->folded, b->folded);
    case INDEX_BY_SIZE:
        return (a->row->size > b->row->size) - (a->row->size < b->row->size);
    case INDEX_BY_CREATED:
        break;
    }
    return (a->row->created_ms > b->row->created_ms) - (a->row->created_ms < b->row->created_ms);
}

int index_order_compare(const struct index_sort_row *a, const struct index_sort_row *b, const struct index_query *q)
{
    for (unsigned i = 0; i < q->orders; i++) {
        int c = compare_key(a, b, q->order[i].key);
        if (c)
            return q->order[i].descending ? -c : c;
    }
    int c = strcmp(a->row->id, b->row->id);
    return q->order[0].descending ? -c : c;
}

bool index_order_matches(const struct index_sort_row *row, const struct index_query *q, const char *needle)
{
    return (!q->owner || strcmp(q->owner, row->row->owner) == 0) && strstr(row->folded, needle) != NULL;
}
