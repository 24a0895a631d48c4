/*
 * index_order - the one place that says how rows compare; the databases' orders are tested against it.
 *
 * A page keeps the best so far: when twice as many rows as are wanted have gathered, the farther half goes. From then
 * on a row that is not better than the worst one wanted is only counted. Nothing is sorted but the page itself: what
 * lies before and behind it is told apart by quickselect, so that far pages of many rows cost little more than near
 * ones.
 *
 * Each slot begins with a number made of the first key, which decides most comparisons without a look at the row.
 */
#include "core/index_order.h"

#include "core/check.h"
#include "core/text/casefold.h"

#include <stdlib.h>
#include <string.h>

#define SMALL_SORT 32

struct index_page_entry {
    struct index_sort_row row;
    const void *value;
    size_t len;
    char bytes[]; /* id, owner, folded, each with its NUL, and the value */
};

struct index_page_slot {
    uint64_t rank; /* rank_of() */
    const struct index_sort_row *row;
    struct index_page_entry *copy; /* where row is, or NULL */
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
        free(page->slots[--page->count].copy);
    free(page->slots);
    bytebuf_release(&page->needle);
}

/* ---- order ---- */

/* Orders as the first key does, in its direction; rows of equal rank are compared in full. */
static uint64_t rank_of(const struct index_sort_row *row, const struct index_query *q)
{
    uint64_t rank = 0;
    switch (q->order[0].key) {
    case INDEX_BY_NAME:
        for (size_t i = 0, ended = 0; i < sizeof rank; i++) {
            ended = ended || row->folded[i] == '\0';
            rank = rank << 8 | (ended ? 0 : (uint8_t)row->folded[i]);
        }
        break;
    case INDEX_BY_SIZE:
        rank = row->size;
        break;
    case INDEX_BY_CREATED:
        rank = (uint64_t)row->created_ms ^ UINT64_C(1) << 63;
        break;
    }
    return q->order[0].descending ? ~rank : rank;
}

static int compare_slots(const void *a, const void *b, void *q)
{
    const struct index_page_slot *sa = a, *sb = b;
    if (sa->rank != sb->rank)
        return sa->rank < sb->rank ? -1 : 1;
    return index_order_compare(sa->row, sb->row, q);
}

static void sort_slots(struct index_page_slot *slots, size_t count, const struct index_query *q)
{
    if (count > 1)
        qsort_r(slots, count, sizeof *slots, compare_slots, (void *)q);
}

static void swap_slots(struct index_page_slot *a, struct index_page_slot *b)
{
    struct index_page_slot t = *a;
    *a = *b;
    *b = t;
}

/* Moves the middle one of the first, middle and last slot to the front. */
static void choose_pivot(struct index_page_slot *slots, size_t count, const struct index_query *q)
{
    struct index_page_slot *mid = &slots[count / 2], *last = &slots[count - 1];
    if (compare_slots(mid, last, (void *)q) > 0)
        swap_slots(mid, last);
    if (compare_slots(slots, last, (void *)q) > 0)
        swap_slots(slots, last);
    if (compare_slots(mid, slots, (void *)q) > 0)
        swap_slots(mid, slots);
}

/* Hoare's: what is left of the place it gives does not come after what is right of it; count is at least 2. */
static size_t partition(struct index_page_slot *slots, size_t count, const struct index_query *q)
{
    choose_pivot(slots, count, q);
    const struct index_page_slot pivot = slots[0];
    for (size_t i = 0, j = count - 1;; i++, j--) {
        while (compare_slots(&slots[i], &pivot, (void *)q) < 0)
            i++;
        while (compare_slots(&slots[j], &pivot, (void *)q) > 0)
            j--;
        if (i >= j)
            return j + 1;
        swap_slots(&slots[i], &slots[j]);
    }
}

/* Brings the slot of place nth there; none before it comes after it, none behind it before. Names are chosen by
 * clients: after many bad pivots the rest is sorted instead. */
static void select_slot(struct index_page_slot *slots, size_t count, size_t nth, const struct index_query *q)
{
    for (int rounds = 64; count > SMALL_SORT && rounds > 0; rounds--) {
        size_t left = partition(slots, count, q);
        if (nth < left) {
            count = left;
        } else {
            slots += left;
            count -= left;
            nth -= left;
        }
    }
    sort_slots(slots, count, q);
}

/* Drops what cannot be in the page any more. */
static void trim(struct index_page *page)
{
    if (page->count < page->wanted || page->wanted == 0)
        return;
    select_slot(page->slots, page->count, page->wanted - 1, page->q);
    while (page->count > page->wanted)
        free(page->slots[--page->count].copy);
    page->bounded = true;
}

void index_page_sort(struct index_page *page)
{
    size_t skip = (size_t)page->q->skip;
    trim(page);
    if (page->count <= skip)
        return;
    select_slot(page->slots, page->count, skip, page->q);
    sort_slots(page->slots + skip, page->count - skip, page->q);
}

/* ---- offers ---- */

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

/* Room for one more; the slots grow by doubling up to twice what is wanted. */
static bool make_room(struct index_page *page)
{
    size_t n = page->count;
    if (n < 64 ? n != 0 : (n & (n - 1)) != 0)
        return true;
    struct index_page_slot *grown = realloc(page->slots, (n < 64 ? 64 : 2 * n) * sizeof *grown);
    if (grown)
        page->slots = grown;
    return grown != NULL;
}

/* Not better than the worst row wanted? */
static bool too_far(const struct index_page *page, const struct index_sort_row *row, uint64_t rank)
{
    if (!page->bounded)
        return false;
    const struct index_page_slot *worst = &page->slots[page->wanted - 1];
    return rank != worst->rank ? rank > worst->rank : index_order_compare(row, worst->row, page->q) >= 0;
}

/* Counts the row if it matches. Is it to be kept? */
static bool wants(struct index_page *page, const struct index_sort_row *row, uint64_t *rank)
{
    const struct index_query *q = page->q;
    if (page->failed || (q->owner && strcmp(q->owner, row->owner) != 0) ||
        (page->needle.len > 0 && !strstr(row->folded, page->needle.data)))
        return false;
    page->matches++;
    *rank = rank_of(row, q);
    if (too_far(page, row, *rank))
        return false;
    page->failed = !make_room(page);
    return !page->failed;
}

static void add_slot(struct index_page *page, struct index_page_slot slot)
{
    page->slots[page->count++] = slot;
    if (page->count == 2 * page->wanted)
        trim(page);
}

void index_page_offer(struct index_page *page, const struct index_sort_row *row, const void *value, size_t len)
{
    uint64_t rank;
    if (!wants(page, row, &rank))
        return;
    struct index_page_entry *e = entry_new(row, value, len);
    if (e)
        add_slot(page, (struct index_page_slot){rank, &e->row, e});
    else
        page->failed = true;
}

void index_page_offer_lasting(struct index_page *page, const struct index_sort_row *row)
{
    uint64_t rank;
    if (wants(page, row, &rank))
        add_slot(page, (struct index_page_slot){rank, row, NULL});
}

size_t index_page_rows(const struct index_page *page)
{
    return page->count > page->q->skip ? page->count - (size_t)page->q->skip : 0;
}

const struct index_sort_row *index_page_row(const struct index_page *page, size_t i, const void **value, size_t *len)
{
    CHECK(i < index_page_rows(page));
    const struct index_page_slot *slot = &page->slots[(size_t)page->q->skip + i];
    if (value)
        *value = slot->copy ? slot->copy->value : NULL;
    if (len)
        *len = slot->copy ? slot->copy->len : 0;
    return slot->row;
}
