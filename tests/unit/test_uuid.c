/* uuid - form, difference, and what is not one. */
#include "core/uuid.h"
#include "tests/unit/unit_main.h"

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
                           {"any case is read as lower case; other texts are refused", test_parse},
                           CU_TEST_INFO_NULL};
    return unit_main("uuid", tests);
}
