/* http_tls_hello - a ClientHello of one record passes, a larger one does not, however either is cut. */
#include "server/http/parse/http_tls_hello.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static uint8_t bytes[256 * 1024];

/* A message of so many bytes, in records of `cut`; returns their length. */
static size_t message(uint8_t *to, size_t len, size_t cut)
{
    const uint8_t header[4] = {1, (uint8_t)(len >> 16), (uint8_t)(len >> 8), (uint8_t)len};
    size_t at = 0, all = len + sizeof header;
    for (size_t i = 0; i < all; i++) {
        if (i % cut == 0) {
            size_t record = all - i < cut ? all - i : cut;
            const uint8_t head[5] = {22, 3, 1, (uint8_t)(record >> 8), (uint8_t)record};
            memcpy(to + at, head, sizeof head);
            at += sizeof head;
        }
        to[at++] = i < sizeof header ? header[i] : 0xff;
    }
    return at;
}

static bool fits(size_t len, size_t at_a_time)
{
    struct tls_hello hello = {0};
    for (size_t at = 0; at < len; at += at_a_time) {
        if (!tls_hello_fits(&hello, bytes + at, len - at < at_a_time ? len - at : at_a_time))
            return false;
    }
    return true;
}

static void test_sizes(void)
{
    static const size_t cuts[] = {1, 3, 4, 5, 1000, 16384}, pieces[] = {1, 2, 7, 4096, sizeof bytes};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        for (size_t j = 0; j < sizeof pieces / sizeof *pieces; j++) {
            CU_ASSERT(fits(message(bytes, 300, cuts[i]), pieces[j]));
            CU_ASSERT(fits(message(bytes, TLS_HELLO_MAX, cuts[i]), pieces[j]));
            CU_ASSERT_FALSE(fits(message(bytes, TLS_HELLO_MAX + 1, cuts[i]), pieces[j]));
        }
    }
}

static void test_announced(void)
{
    message(bytes, 131396, 16384);
    CU_ASSERT(fits(8, 8));
    CU_ASSERT_FALSE(fits(9, 9)); /* its length is there, and none of it */
}

static void test_second(void)
{
    static const uint8_t change[] = {20, 3, 3, 0, 1, 1}, data[] = {23, 3, 3, 0, 4, 1, 0xff, 0xff, 0xff};
    size_t len = message(bytes, 500, 16384);
    memcpy(bytes + len, change, sizeof change);
    len += sizeof change;
    memcpy(bytes + len, data, sizeof data); /* encrypted: no handshake's */
    len += sizeof data;
    size_t small = message(bytes + len, 600, 16384);
    CU_ASSERT(fits(len + small, 11));
    size_t large = message(bytes + len, 131396, 16384);
    CU_ASSERT_FALSE(fits(len + large, 11));
}

int main(void)
{
    CU_TestInfo tests[] = {{"what fits into a record passes, and not a byte more", test_sizes},
                           {"what is too large is known by its header", test_announced},
                           {"the second hello is looked at as the first", test_second},
                           CU_TEST_INFO_NULL};
    return unit_main("http_tls_hello", tests);
}
