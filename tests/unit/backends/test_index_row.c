/* index_row - the bytes of a row: round trips, damage, and what version 1 has written. */
#include "backends/index_row.h"
#include "tests/rig/codec_rig.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static struct index_row sample(void)
{
    static const char value[] = "{\"id\":\"p1Yq\"}";
    struct index_row row = {.size = 4096,
                            .created_ms = INT64_C(1767225600000),
                            .expires_ms = INT64_C(1767312000000),
                            .value = value,
                            .value_len = sizeof value - 1};
    snprintf(row.id, sizeof row.id, "p1Yq_Vnk95AYkHe9DxBl-jKQ9YjK6g1pw8ug8NQ8e4mXdhM4p9IEwA");
    snprintf(row.name, sizeof row.name, "Grüße 2026.wav");
    snprintf(row.owner, sizeof row.owner, "alice");
    return row;
}

static void expect_same(const struct index_row *a, const struct index_row *b)
{
    CU_ASSERT_STRING_EQUAL(a->id, b->id);
    CU_ASSERT_STRING_EQUAL(a->name, b->name);
    CU_ASSERT_STRING_EQUAL(a->owner, b->owner);
    CU_ASSERT_TRUE(a->size == b->size && a->created_ms == b->created_ms && a->expires_ms == b->expires_ms);
    CU_ASSERT_EQUAL_FATAL(a->value_len, b->value_len);
    CU_ASSERT_EQUAL(memcmp(a->value, b->value, a->value_len), 0);
}

/* arg: the row that is expected, or NULL. */
static enum blob_status decode(const void *data, size_t len, void *arg)
{
    struct byteview in = {.data = data, .len = len};
    struct index_row row;
    enum blob_status st = index_row_decode(&in, &row);
    if (st != BLOB_OK)
        return st;
    CU_ASSERT_PTR_NOT_NULL(memchr(row.id, '\0', sizeof row.id));
    CU_ASSERT_PTR_NOT_NULL(memchr(row.name, '\0', sizeof row.name));
    CU_ASSERT_PTR_NOT_NULL(memchr(row.owner, '\0', sizeof row.owner));
    const char *value = row.value, *end = (const char *)data + len;
    CU_ASSERT_TRUE(value >= (const char *)data && value + row.value_len <= end && in.pos <= len);
    if (arg != NULL)
        expect_same(arg, &row);
    return BLOB_OK;
}

static void test_round_trip(void)
{
    struct index_row row = sample();
    struct bytebuf bytes;
    bytebuf_init(&bytes);
    index_row_encode(&row, &bytes);
    CU_ASSERT_EQUAL(decode(bytes.data, bytes.len, &row), BLOB_OK);
    codec_refuses_truncations(bytes.data, bytes.len, decode, NULL);
    CU_ASSERT_TRUE(codec_bears_flips(bytes.data, bytes.len, decode, NULL) > 0);
    bytebuf_release(&bytes);
}

static void test_extremes(void)
{
    struct index_row longest = sample(), empty = {.value = ""};
    memset(longest.id, 'i', sizeof longest.id - 1);
    memset(longest.name, 'n', sizeof longest.name - 1);
    memset(longest.owner, 'o', sizeof longest.owner - 1);
    const struct index_row *const rows[] = {&longest, &empty};
    for (size_t i = 0; i < 2; i++) {
        struct bytebuf bytes;
        bytebuf_init(&bytes);
        index_row_encode(rows[i], &bytes);
        CU_ASSERT_EQUAL(decode(bytes.data, bytes.len, (void *)rows[i]), BLOB_OK);
        bytebuf_release(&bytes);
    }
}

static bool count_row(const struct index_row *row, void *arg)
{
    struct index_row expected = sample();
    unsigned *seen = arg;
    expected.size = *seen;
    expect_same(&expected, row);
    return ++*seen < 3;
}

static void test_page(void)
{
    struct row_page page;
    struct blob_error err;
    unsigned seen = 0;
    row_page_init(&page);
    for (unsigned i = 0; i < 5; i++) {
        struct index_row row = sample();
        row.size = i;
        row_page_add(&page, &row);
    }
    CU_ASSERT_EQUAL(row_page_give(&page, count_row, &seen, &err), BLOB_OK);
    CU_ASSERT_EQUAL(seen, 3);
    row_page_release(&page);
}

static void test_sample(void)
{
    struct index_row row = sample();
    struct bytebuf bytes;
    bytebuf_init(&bytes);
    codec_sample("index-row-1.bin", &bytes);
    CU_ASSERT_EQUAL(decode(bytes.data, bytes.len, &row), BLOB_OK);
    bytebuf_release(&bytes);
}

int main(void)
{
    CU_TestInfo tests[] = {{"what is encoded is decoded; damage is refused or harmless", test_round_trip},
                           {"the longest and the emptiest row", test_extremes},
                           {"a page gives its rows in order, until it is told to stop", test_page},
                           {"what version 1 has written", test_sample},
                           CU_TEST_INFO_NULL};
    return unit_main("index_row", tests);
}
