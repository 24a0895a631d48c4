/*
 * index_order - the one place that says how rows compare; the databases' orders are tested against it.
 *
 * A page keeps the best so far: when twice as many rows as are wanted have gathered, they are sorted and the farther
 * half goes. From then on a row that is not better than the worst one wanted is only counted.
 */
#include "core/index_order.h"

#include "core/casefold.h"
#include "core/check.h"

#include <stdlib.h>
#include <string.h>

struct index_page_entry {
    struct index_sort_row row;
    const void *value;
    size_t len;
    char bytes[]; /* id, owner, folded, each with its NUL, and the value */
};

static int compare_key(const struct index_sort_row *a, const struct index_sort_row *b, enum index_key key)
{
    switch (key) {
    case INDEX_BY_NAME:
        return strcmp(a->folded, b->folded);
    case INDEX_BY_SIZE:
        return (a->size > b->size) - (a->size < b->size);
    case INDEX_BY_CREATED:
        break;
    }
    return (a->created_ms > b->created_ms) - (a->created_ms < b->created_ms);
}

int index_order_compare(const struct index_sort_row *a, const struct index_sort_row *b, const struct index_query *q)
{
    for (unsigned i = 0; i < q->orders; i++) {
        int c = compare_key(a, b, q->order[i].key);
        if (c)
            return q->order[i].descending ? -c : c;
    }
    int c = strcmp(a->id, b->id);
    return q->order[0].descending ? -c : c;
}

void index_page_init(struct index_page *page, const struct index_query *q)
{
    *page = (struct index_page){.q = q, .wanted = (size_t)q->skip + q->top};
    CHECK(q->skip < SIZE_MAX / 4);
    bytebuf_init(&page->needle);
    if (q->search)
        casefold_add(q->search, &page->needle);
    page->failed = page->needle.failed;
}

void index_page_release(struct index_page *page)
{
    while (page->count > 0)
        free(page->entries[--page->count]);
    free(page->entries);
    bytebuf_release(&page->needle);
}

static int compare_entries(const void *a, const void *b, void *q)
{
    const struct index_page_entry *ea = *(struct index_page_entry *const *)a;
    const struct index_page_entry *eb = *(struct index_page_entry *const *)b;
    return index_order_compare(&ea->row, &eb->row, q);
}

void index_page_sort(struct index_page *page)
{
    if (page->count > 1)
        qsort_r(page->entries, page->count, sizeof(struct index_page_entry *), compare_entries, (void *)page->q);
    while (page->count > page->wanted)
        free(page->entries[--page->count]);
    page->bounded = page->count == page->wanted;
}

static const char *put_text(char **at, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = memcpy(*at, text, size);
    *at += size;
    return copy;
}

static struct index_page_entry *entry_new(const struct index_sort_row *row, const void *value, size_t len)
{
    size_t texts = strlen(row->id) + strlen(row->owner) + strlen(row->folded) + 3;
    struct index_page_entry *e = malloc(sizeof *e + texts + len);
    if (!e)
        return NULL;
    char *at = e->bytes;
    e->row = *row;
    e->row.id = put_text(&at, row->id);
    e->row.owner = put_text(&at, row->owner);
    e->row.folded = put_text(&at, row->folded);
    e->value = at;
    e->len = len;
    if (len > 0)
        memcpy(at, value, len);
    return e;
}

/* Room for one more; the entries grow by doubling up to twice what is wanted. */
static bool make_room(struct index_page *page)
{
    size_t n = page->count;
    if (n < 64 ? n != 0 : (n & (n - 1)) != 0)
        return true;
    struct index_page_entry **grown = realloc(page->entries, (n < 64 ? 64 : 2 * n) * sizeof(struct index_page_entry *));
    if (grown)
        page->entries = grown;
    return grown != NULL;
}

void index_page_offer(struct index_page *page, const struct index_sort_row *row, const void *value, size_t len)
{
    const struct index_query *q = page->q;
    if (page->failed || (q->owner && strcmp(q->owner, row->owner) != 0) ||
        (page->needle.len > 0 && !strstr(row->folded, page->needle.data)))
        return;
    page->matches++;
    if (page->bounded && index_order_compare(row, &page->entries[page->wanted - 1]->row, q) >= 0)
        return;
    struct index_page_entry *e = make_room(page) ? entry_new(row, value, len) : NULL;
    if (!e) {
        page->failed = true;
        return;
    }
    page->entries[page->count++] = e;
    if (page->count == 2 * page->wanted)
        index_page_sort(page);
}

size_t index_page_rows(const struct index_page *page)
{
    return page->count > page->q->skip ? page->count - (size_t)page->q->skip : 0;
}

const struct index_sort_row *index_page_row(const struct index_page *page, size_t i, const void **value, size_t *len)
{
    CHECK(i < index_page_rows(page));
    const struct index_page_entry *e = page->entries[(size_t)page->q->skip + i];
    if (value)
        *value = e->value;
    if (len)
        *len = e->len;
    return &e->row;
}
