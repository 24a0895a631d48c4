/* memory_index - rows in no order; each is found by walking all. Invariant: no two rows have the same id. */
#include "backends/memory/memory_index.h"

#include "core/check.h"
#include "core/index_order.h"
#include "core/text/casefold.h"

#include <stdlib.h>
#include <string.h>

struct memory_row {
    struct index_row row; /* its value is owned */
    char *folded;
    uint64_t generation;
};

static char *fold(const char *text)
{
    struct bytebuf b;
    bytebuf_init(&b);
    casefold_add(text, &b);
    char *folded = bytebuf_take(&b, NULL);
    CHECK(folded);
    return folded;
}

static struct memory_row *row_new(const struct index_row *from, uint64_t generation)
{
    struct memory_row *r = calloc(1, sizeof *r);
    void *value = malloc(from->value_len + 1u);
    CHECK(r && value);
    r->row = *from;
    if (from->value_len)
        memcpy(value, from->value, from->value_len);
    r->row.value = value;
    r->folded = fold(from->name);
    r->generation = generation;
    return r;
}

static void row_free(struct memory_row *r)
{
    free((void *)r->row.value);
    free(r->folded);
    free(r);
}

void memory_index_init(struct memory_index *x)
{
    *x = (struct memory_index){.generation = 1};
}

void memory_index_empty(struct memory_index *x)
{
    for (size_t i = 0; i < x->count; i++)
        row_free(x->rows[i]);
    x->count = 0;
    x->whole = false;
}

void memory_index_release(struct memory_index *x)
{
    memory_index_empty(x);
    free(x->rows);
}

/* Its place, or count when it is not there. */
static size_t find(const struct memory_index *x, const char *id)
{
    size_t i = 0;
    while (i < x->count && strcmp(x->rows[i]->row.id, id) != 0)
        i++;
    return i;
}

void memory_index_put(struct memory_index *x, const struct index_row *row)
{
    struct memory_row *r = row_new(row, x->generation);
    size_t at = find(x, row->id);
    if (at < x->count) {
        row_free(x->rows[at]);
        x->rows[at] = r;
        return;
    }
    if (x->count == x->cap) {
        x->cap = x->cap ? x->cap * 2 : 64;
        x->rows = realloc(x->rows, x->cap * sizeof(struct memory_row *));
        CHECK(x->rows);
    }
    x->rows[x->count++] = r;
}

static void remove_at(struct memory_index *x, size_t at)
{
    row_free(x->rows[at]);
    x->rows[at] = x->rows[--x->count];
}

void memory_index_remove(struct memory_index *x, const char *id)
{
    size_t at = find(x, id);
    if (at < x->count)
        remove_at(x, at);
}

static struct index_sort_row sort_row_of(const struct memory_row *r)
{
    return (struct index_sort_row){r->row.id, r->row.owner, r->folded, r->row.size, r->row.created_ms};
}

static int compare_rows(const void *a, const void *b, void *q)
{
    const struct index_sort_row sa = sort_row_of(*(struct memory_row *const *)a);
    const struct index_sort_row sb = sort_row_of(*(struct memory_row *const *)b);
    return index_order_compare(&sa, &sb, q);
}

uint64_t memory_index_list(const struct memory_index *x, const struct index_query *q, struct row_page *page)
{
    struct memory_row **sorted = malloc((x->count + 1) * sizeof(struct memory_row *));
    char *needle = fold(q->search ? q->search : "");
    CHECK(sorted);
    size_t count = 0;
    for (size_t i = 0; i < x->count; i++) {
        struct memory_row *r = x->rows[i];
        if ((!q->owner || strcmp(q->owner, r->row.owner) == 0) && strstr(r->folded, needle))
            sorted[count++] = r;
    }
    qsort_r(sorted, count, sizeof(struct memory_row *), compare_rows, (void *)q);
    for (size_t i = 0; i < q->top && q->skip < count && q->skip + i < count; i++)
        row_page_add(page, &sorted[q->skip + i]->row);
    free(needle);
    free(sorted);
    return count;
}

void memory_index_expired(const struct memory_index *x, int64_t now_ms, size_t limit, struct row_page *page)
{
    for (size_t i = 0; i < x->count && page->count < limit; i++) {
        const struct index_row *row = &x->rows[i]->row;
        if (row->expires_ms > 0 && row->expires_ms < now_ms)
            row_page_add(page, row);
    }
}

void memory_index_rebuild_begin(struct memory_index *x)
{
    x->generation++;
    x->whole = false;
}

void memory_index_rebuild_end(struct memory_index *x)
{
    for (size_t i = x->count; i > 0; i--)
        if (x->rows[i - 1]->generation < x->generation)
            remove_at(x, i - 1);
    x->whole = true;
}

bool memory_index_has(const struct memory_index *x, const char *stem)
{
    size_t i = 0;
    while (i < x->count && strncmp(x->rows[i]->row.id, stem, strlen(stem)) != 0)
        i++;
    return i < x->count;
}
