/* siphash - the known answers of the paper and of the reference implementation, whole and in pieces. */
#include "backends/disk/journal/siphash.h"
#include "tests/rig/unit_main.h"

static uint8_t key[SIPHASH_KEY_BYTES], bytes[64];

static int prepare(void)
{
    for (uint8_t i = 0; i < sizeof bytes; i++)
        bytes[i] = i;
    for (uint8_t i = 0; i < sizeof key; i++)
        key[i] = i;
    return 0;
}

static uint64_t whole(size_t len)
{
    struct siphash s;
    siphash_begin(&s, key);
    siphash_update(&s, bytes, len);
    return siphash_end(&s);
}

/* vectors_sip64 of the reference implementation: of the bytes 0, 1, 2, … under the key 0, 1, …, 15. */
static void test_known_answers(void)
{
    static const uint64_t answers[] = {
        0x726fdb47dd0e0e31u, 0x74f839c593dc67fdu, 0x0d6c8009d9a94f5au, 0x85676696d7fb7e2du,
        0xcf2794e0277187b7u, 0x18765564cd99a68du, 0xcbc9466e58fee3ceu, 0xab0200f58b01d137u,
        0x93f5f5799a932462u, 0x9e0082df0ba9e4b0u, 0x7a5dbbc594ddb9f3u, 0xf4b32f46226bada7u,
        0x751e8fbc860ee5fbu, 0x14ea5627c0843d90u, 0xf723ca908e7af2eeu, 0xa129ca6149be45e5u,
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
        CU_ASSERT_EQUAL(whole(i), answers[i]);
}

static void test_pieces(void)
{
    for (size_t first = 0; first <= 20; first++) {
        for (size_t second = 0; second <= 20; second++) {
            struct siphash s, copy;
            siphash_begin(&s, key);
            siphash_update(&s, bytes, first);
            siphash_update(&s, bytes + first, second);
            copy = s;
            siphash_update(&s, bytes + first + second, sizeof bytes - first - second);
            CU_ASSERT_EQUAL(siphash_end(&s), whole(sizeof bytes));
            CU_ASSERT_EQUAL(siphash_end(&copy), whole(first + second));
        }
    }
}

static void test_key(void)
{
    uint64_t before = whole(40);
    for (size_t bit = 0; bit < 8 * sizeof key; bit++) {
        key[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CU_ASSERT_NOT_EQUAL(whole(40), before);
        key[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CU_ASSERT_EQUAL(whole(40), before);
}

int main(void)
{
    CU_TestInfo tests[] = {{"the known answers come out", test_known_answers},
                           {"a sum goes on over any cut", test_pieces},
                           {"each bit of the key counts", test_key},
                           CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"siphash", prepare, NULL, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
