/* uuid - form, difference, and what is not one. */
#include "core/uuid.h"
#include "tests/rig/unit_main.h"

#include <pthread.h>
#include <string.h>

static void test_new(void)
{
    struct uuid a, b, parsed;
    for (int i = 0; i < 100; i++) {
        uuid_new(&a);
        uuid_new(&b);
        CU_ASSERT_EQUAL(strlen(a.text), UUID_CHARS);
        CU_ASSERT_EQUAL(a.text[14], '4');
        CU_ASSERT_PTR_NOT_NULL(strchr("89ab", a.text[19]));
        CU_ASSERT_STRING_NOT_EQUAL(a.text, b.text);
        CU_ASSERT_EQUAL(uuid_parse(a.text, &parsed), BLOB_OK);
        CU_ASSERT_STRING_EQUAL(a.text, parsed.text);
    }
}

#define THREADS 4
#define EACH    200

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void *make_many(void *arg)
{
    struct uuid *ids = arg;
    for (int i = 0; i < EACH; i++)
        uuid_new(&ids[i]);
    return NULL;
}

static void test_threads(void)
{
    static struct uuid ids[THREADS * EACH];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, make_many, &ids[i * EACH]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    qsort(ids, THREADS * EACH, sizeof ids[0], compare);
    for (int i = 1; i < THREADS * EACH; i++)
        CU_ASSERT_STRING_NOT_EQUAL(ids[i - 1].text, ids[i].text);
}

static void test_parse(void)
{
    static const char *const bad[] = {"",
                                      "6ba7b810-9dad-11d1-80b4-00c04fd430c",
                                      "6ba7b810-9dad-11d1-80b4-00c04fd430c88",
                                      "6ba7b810+9dad-11d1-80b4-00c04fd430c8",
                                      "6ba7b8109-dad-11d1-80b4-00c04fd430c8",
                                      "6ba7b810-9dad-11d1-80b4-00c04fd430cg",
                                      "{6ba7b810-9dad-11d1-80b4-00c04fd430c}",
                                      "../../../../../../../../../../../../"};
    struct uuid id;
    CU_ASSERT_EQUAL_FATAL(uuid_parse("6BA7B810-9DAD-11D1-80B4-00C04FD430C8", &id), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(id.text, "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CU_ASSERT_EQUAL(uuid_parse(bad[i], &id), BLOB_E_INVALID);
    CU_ASSERT_STRING_EQUAL(id.text, "6ba7b810-9dad-11d1-80b4-00c04fd430c8");
}

int main(void)
{
    CU_TestInfo tests[] = {{"new ones are version 4, and differ", test_new},
                           {"threads never make the same one", test_threads},
                           {"any case is read as lower case; other texts are refused", test_parse},
                           CU_TEST_INFO_NULL};
    return unit_main("uuid", tests);
}
