/*
 * keyed_sum - beside a second writing of its definition, word by word and with nothing remembered; in pieces; and each
 * bit of message, key and tail counts.
 */
#include "backends/disk/file/disk_bytes.h"
#include "backends/disk/journal/keyed_sum.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define LONGEST 2200

static struct sum_key key;
static uint8_t message[LONGEST];

static int prepare(void)
{
    uint8_t bytes[SIPHASH_KEY_BYTES];
    for (uint8_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(200 + 3 * i);
    sum_key_prepare(&key, bytes);
    for (size_t i = 0; i < sizeof message; i++)
        message[i] = (uint8_t)(i * i + i / 256 + 0xf0);
    return 0;
}

static uint64_t word_of(size_t len, size_t index)
{
    uint64_t word = 0;
    for (size_t i = 0; i < 8; i++)
        if (8 * index + i < len)
            word |= (uint64_t)message[8 * index + i] << 8 * i;
    return word;
}

/* 64 × 64 bits, by halves. */
static void add_product(uint64_t a, uint64_t b, uint64_t *low, uint64_t *high)
{
    uint64_t al = a & UINT32_MAX, ah = a >> 32, bl = b & UINT32_MAX, bh = b >> 32;
    uint64_t mid = (al * bl >> 32) + (ah * bl & UINT32_MAX) + (al * bh & UINT32_MAX);
    uint64_t product = a * b;
    *high += ah * bh + (ah * bl >> 32) + (al * bh >> 32) + (mid >> 32);
    *low += product;
    *high += *low < product;
}

static uint64_t by_definition(size_t len, const char *tail)
{
    uint8_t input[16 * (LONGEST / 1024 + 2) + 64];
    size_t n = 0;
    for (size_t block = 0; block * 1024 < len; block++) {
        uint64_t low = 0, high = 0;
        for (size_t pair = 0; pair < 64 && block * 1024 + pair * 16 < len; pair++)
            add_product(word_of(len, block * 128 + 2 * pair) + key.words[2 * pair],
                        word_of(len, block * 128 + 2 * pair + 1) + key.words[2 * pair + 1], &low, &high);
        put_le(input + n, low, 8);
        put_le(input + n + 8, high, 8);
        n += 16;
    }
    put_le(input + n, len, 8);
    memcpy(input + n + 8, tail, strlen(tail));
    struct siphash s;
    siphash_begin(&s, key.bytes);
    siphash_update(&s, input, n + 8 + strlen(tail));
    return siphash_end(&s);
}

static uint64_t sum_of(size_t len, const char *tail)
{
    struct keyed_sum s;
    keyed_sum_begin(&s, &key);
    keyed_sum_update(&s, message, len);
    return keyed_sum_end(&s, tail, strlen(tail));
}

static void test_definition(void)
{
    for (size_t len = 0; len <= LONGEST; len++)
        CU_ASSERT_EQUAL(sum_of(len, len % 3 == 0 ? "" : "tail"), by_definition(len, len % 3 == 0 ? "" : "tail"));
}

/* It is on disks: it must not change. */
static void test_kept(void)
{
    CU_ASSERT_EQUAL(sum_of(0, ""), 0xa2efd213fd3e35f7u);
    CU_ASSERT_EQUAL(sum_of(44, "tail"), 0x5369f5c976a87068u);
    CU_ASSERT_EQUAL(sum_of(LONGEST, "tail"), 0x43d80da56d624a70u);
}

static void test_pieces(void)
{
    static const size_t cuts[] = {0, 1, 7, 8, 15, 16, 17, 36, 44, 1008, 1023, 1024, 1025, 2048, 2199};
    size_t n = sizeof cuts / sizeof cuts[0];
    for (size_t a = 0; a < n; a++) {
        for (size_t b = a; b < n; b++) {
            struct keyed_sum s;
            keyed_sum_begin(&s, &key);
            keyed_sum_update(&s, message, cuts[a]);
            keyed_sum_update(&s, message + cuts[a], cuts[b] - cuts[a]);
            keyed_sum_update(&s, message + cuts[b], LONGEST - cuts[b]);
            CU_ASSERT_EQUAL(keyed_sum_end(&s, "x", 1), sum_of(LONGEST, "x"));
        }
    }
}

static void test_every_bit(void)
{
    uint64_t whole = sum_of(1100, "tail");
    for (size_t bit = 0; bit < (size_t)8 * 1100; bit++) {
        message[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CU_ASSERT_NOT_EQUAL(sum_of(1100, "tail"), whole);
        message[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CU_ASSERT_NOT_EQUAL(sum_of(1100, "taik"), whole);
    CU_ASSERT_NOT_EQUAL(sum_of(1100, "tai"), whole);
    struct sum_key own = key;
    for (size_t bit = 0; bit < 8 * sizeof own.bytes; bit++) {
        uint8_t bytes[SIPHASH_KEY_BYTES];
        memcpy(bytes, own.bytes, sizeof bytes);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        sum_key_prepare(&key, bytes);
        CU_ASSERT_NOT_EQUAL(sum_of(1100, "tail"), whole);
    }
    key = own;
    /* Zeros at the end are a longer message. */
    memset(message, 0, 64);
    for (size_t len = 1; len < 64; len++)
        CU_ASSERT_NOT_EQUAL(sum_of(len, ""), sum_of(len - 1, ""));
    prepare();
}

int main(void)
{
    CU_TestInfo tests[] = {{"it is what the header says", test_definition},
                           {"it stays what it was", test_kept},
                           {"a sum goes on over any cut", test_pieces},
                           {"each bit counts", test_every_bit},
                           CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"keyed sum", prepare, NULL, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
