/* index_order - a page of rows in any order equals that part of all of them sorted, however far it lies. */
#include "core/index_order.h"

#include "core/check.h"
#include "tests/rig/unit_main.h"

#include <stdlib.h>
#include <string.h>

#define ROWS 3000

struct row {
    struct index_sort_row sort;
    char id[32], name[32];
};

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

/* Few sizes and times, so that most comparisons need a second key or the id; names that are equal in their beginning.
 */
static void make_rows(struct row *rows, uint32_t *seed)
{
    for (int i = 0; i < ROWS; i++) {
        struct row *r = &rows[i];
        snprintf(r->id, sizeof r->id, "id-%u-%d", next_random(seed) % 1000, i);
        snprintf(r->name, sizeof r->name, "%s%u", i % 3 ? "recording-" : "r", next_random(seed) % 200);
        r->sort = (struct index_sort_row){.id = r->id,
                                          .owner = i % 5 ? "pbx" : "bob",
                                          .folded = i % 100 ? r->name : "",
                                          .size = next_random(seed) % 4,
                                          .created_ms = (int64_t)(next_random(seed) % 50) - 25};
    }
}

static int compare_rows(const void *a, const void *b, void *q)
{
    return index_order_compare(*(const struct index_sort_row *const *)a, *(const struct index_sort_row *const *)b, q);
}

static size_t sort_all(const struct row *rows, const struct index_query *q, const struct index_sort_row **sorted)
{
    size_t count = 0;
    for (int i = 0; i < ROWS; i++)
        if (!q->owner || strcmp(q->owner, rows[i].sort.owner) == 0)
            sorted[count++] = &rows[i].sort;
    qsort_r(sorted, count, sizeof *sorted, compare_rows, (void *)q);
    return count;
}

static void check_page(const struct row *rows, const struct index_query *q)
{
    const struct index_sort_row *sorted[ROWS];
    size_t all = sort_all(rows, q, sorted), expected = q->skip < all ? all - (size_t)q->skip : 0, wrong = 0;
    expected = expected < q->top ? expected : q->top;
    struct index_page page;
    index_page_init(&page, q);
    for (int i = 0; i < ROWS; i++)
        if (i % 2)
            index_page_offer(&page, &rows[i].sort, rows[i].id, strlen(rows[i].id));
        else
            index_page_offer_lasting(&page, &rows[i].sort);
    index_page_sort(&page);
    CU_ASSERT_FALSE(page.failed);
    CU_ASSERT_EQUAL(page.matches, all);
    CU_ASSERT_EQUAL_FATAL(index_page_rows(&page), expected);
    for (size_t i = 0; i < expected; i++) {
        const void *value;
        size_t len;
        const struct index_sort_row *row = index_page_row(&page, i, &value, &len);
        wrong += strcmp(row->id, sorted[q->skip + i]->id) != 0;
        wrong += value && (len != strlen(row->id) || memcmp(value, row->id, len) != 0);
    }
    CU_ASSERT_EQUAL(wrong, 0);
    index_page_release(&page);
}

static void test_pages_of_random_rows(void)
{
    static struct row rows[ROWS];
    uint32_t seed = 7;
    make_rows(rows, &seed);
    for (int i = 0; i < 300; i++) {
        struct index_query q = {.orders = 1 + next_random(&seed) % 3,
                                .top = 1 + next_random(&seed) % INDEX_TOP_MAX,
                                .skip = next_random(&seed) % (ROWS + 200),
                                .owner = i % 4 ? NULL : "pbx"};
        for (unsigned k = 0; k < q.orders; k++)
            q.order[k] = (struct index_order){(enum index_key)(next_random(&seed) % 3), next_random(&seed) % 2};
        check_page(rows, &q);
    }
}

/* Orders that make a poor choice of pivots quadratic. */
static void test_pages_of_sorted_rows(void)
{
    static struct row rows[ROWS];
    for (int shape = 0; shape < 4; shape++) {
        for (int i = 0; i < ROWS; i++) {
            int at = shape == 0 ? i : shape == 1 ? ROWS - i : shape == 2 ? abs(ROWS / 2 - i) : 0;
            snprintf(rows[i].id, sizeof rows[i].id, "%08d", i);
            rows[i].sort = (struct index_sort_row){.id = rows[i].id, .owner = "", .folded = "", .size = (uint64_t)at};
        }
        for (uint64_t skip = 0; skip < ROWS; skip += 701) {
            struct index_query q = {.order = {{INDEX_BY_SIZE, skip % 2}}, .orders = 1, .top = 50, .skip = skip};
            check_page(rows, &q);
        }
    }
}

int main(void)
{
    CU_TestInfo tests[] = {{"any page of random rows, copied or not", test_pages_of_random_rows},
                           {"rows that come sorted, reversed, or equal", test_pages_of_sorted_rows},
                           CU_TEST_INFO_NULL};
    return unit_main("index_order", tests);
}
