/* crc32c - the known answers of RFC 3720, whole and in pieces. */
#include "backends/crc32c.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static void test_known_answers(void)
{
    uint8_t bytes[32];
    memset(bytes, 0, sizeof bytes);
    CU_ASSERT_EQUAL(crc32c(0, bytes, 32), 0x8a9136aau);
    memset(bytes, 0xff, sizeof bytes);
    CU_ASSERT_EQUAL(crc32c(0, bytes, 32), 0x62a8ab43u);
    for (uint8_t i = 0; i < 32; i++)
        bytes[i] = i;
    CU_ASSERT_EQUAL(crc32c(0, bytes, 32), 0x46dd794eu);
    CU_ASSERT_EQUAL(crc32c(0, "123456789", 9), 0xe3069283u);
    CU_ASSERT_EQUAL(crc32c(0, NULL, 0), 0);
}

static void test_pieces(void)
{
    const char *text = "123456789";
    for (size_t cut = 0; cut <= 9; cut++)
        CU_ASSERT_EQUAL(crc32c(crc32c(0, text, cut), text + cut, 9 - cut), 0xe3069283u);
}

int main(void)
{
    CU_TestInfo tests[] = {{"the known answers come out", test_known_answers},
                           {"a sum goes on over any cut", test_pieces},
                           CU_TEST_INFO_NULL};
    return unit_main("crc32c", tests);
}
