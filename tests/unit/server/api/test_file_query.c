/* file_query - the listing's query is read strictly; what is not given has its default. */
#include "server/api/file_query.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static struct file_query q;
static struct api_error err;

static void test_defaults(void)
{
    CU_ASSERT_EQUAL(file_query_parse(NULL, &q, &err), API_OK);
    CU_ASSERT_EQUAL(q.index.top, 100);
    CU_ASSERT_EQUAL(q.index.skip, 0);
    CU_ASSERT_EQUAL(q.index.orders, 1);
    CU_ASSERT_EQUAL(q.index.order[0].key, INDEX_BY_CREATED);
    CU_ASSERT_FALSE(q.index.order[0].descending);
    CU_ASSERT_PTR_NULL(q.index.search);
    CU_ASSERT_PTR_NULL(q.index.owner);
}

static void test_all(void)
{
    CU_ASSERT_EQUAL(file_query_parse("search=a%20b&orderby=size+desc,name&skip=7&top=1&other=1", &q, &err), API_OK);
    CU_ASSERT_STRING_EQUAL(q.index.search, "a b");
    CU_ASSERT_EQUAL(q.index.orders, 2);
    CU_ASSERT_EQUAL(q.index.order[0].key, INDEX_BY_SIZE);
    CU_ASSERT_TRUE(q.index.order[0].descending);
    CU_ASSERT_EQUAL(q.index.order[1].key, INDEX_BY_NAME);
    CU_ASSERT_FALSE(q.index.order[1].descending);
    CU_ASSERT_EQUAL(q.index.skip, 7);
    CU_ASSERT_EQUAL(q.index.top, 1);
    CU_ASSERT_EQUAL(file_query_parse("search=&orderby=%20created_at%20%20ASC%20,%20name%20desc", &q, &err), API_OK);
    CU_ASSERT_PTR_NULL(q.index.search);
    CU_ASSERT_EQUAL(q.index.orders, 2);
}

static void test_refused(void)
{
    static const struct {
        const char *query, *field;
    } bad[] = {
        {"top=0", "top"},
        {"top=101", "top"},
        {"top=", "top"},
        {"top=1&top=2", "top"},
        {"skip=-1", "skip"},
        {"skip=99999999999999999999", "skip"},
        {"orderby=", "orderby"},
        {"orderby=id", "orderby"},
        {"orderby=name+up", "orderby"},
        {"orderby=name,,size", "orderby"},
        {"orderby=name,name+desc", "orderby"},
        {"orderby=name,size,created_at,name", "orderby"},
        {"filter=name+eq+'x'", "filter"},
        {"filter", "filter"},
        {"search=%ff", "search"},
        {"search=%zz", "search"},
        {"search=a&search=b", "search"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CU_ASSERT_EQUAL(file_query_parse(bad[i].query, &q, &err), API_VALIDATE_FAILED);
        CU_ASSERT_STRING_EQUAL(err.field, bad[i].field);
    }
    char longest[400] = "search=";
    memset(longest + 7, 'a', 256);
    CU_ASSERT_EQUAL(file_query_parse(longest, &q, &err), API_VALIDATE_FAILED);
}

int main(void)
{
    CU_TestInfo tests[] = {{"without a query, all by time, a hundred", test_defaults},
                           {"every parameter is taken, unknown ones are ignored", test_all},
                           {"what is out of bounds, repeated or broken is refused by its name", test_refused},
                           CU_TEST_INFO_NULL};
    return unit_main("file_query", tests);
}
