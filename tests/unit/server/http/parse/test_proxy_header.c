/* The PROXY header, version 2: every cut of it, every family, what is malformed, and that nothing behind it is taken.
 */
#include "server/http/parse/proxy_header.h"

#include "tests/rig/unit_main.h"

#include <string.h>

static const uint8_t v4[] = "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\1\x0a\0\0\1\x30\x39\1\xbb";
static const uint8_t v6[] = "\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\5"
                            "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\6\x30\x39\1\xbb";
#define V4_BYTES (sizeof v4 - 1)
#define V6_BYTES (sizeof v6 - 1)

/* As a socket would bring it: never more than is wanted, at most step at once. */
static enum proxy_state feed(struct proxy_header *header, const uint8_t *data, size_t len, size_t step, size_t *taken)
{
    enum proxy_state state = PROXY_MORE;
    memset(header, 0, sizeof *header);
    for (*taken = 0; state == PROXY_MORE && *taken < len;) {
        size_t n = proxy_header_wants(header);
        n = n < step ? n : step;
        n = n < len - *taken ? n : len - *taken;
        state = proxy_header_feed(header, data + *taken, n);
        *taken += n;
    }
    return state;
}

static void test_addresses(void)
{
    struct proxy_header header;
    struct ip_address want;
    uint8_t longer[V6_BYTES + 4];
    size_t taken;
    for (size_t step = 1; step <= V6_BYTES; step++) {
        CU_ASSERT_EQUAL(feed(&header, v4, V4_BYTES, step, &taken), PROXY_DONE);
        CU_ASSERT_EQUAL(ip_parse("192.0.2.1", 9, &want), BLOB_OK);
        CU_ASSERT(header.relayed && header.port == 12345 && memcmp(&want, &header.source, sizeof want) == 0);
        memcpy(longer, v6, V6_BYTES);
        memcpy(longer + V6_BYTES, "GET ", 4);
        CU_ASSERT_EQUAL(feed(&header, longer, sizeof longer, step, &taken), PROXY_DONE);
        CU_ASSERT_EQUAL(taken, V6_BYTES);
        CU_ASSERT_EQUAL(ip_parse("2001:db8::5", 11, &want), BLOB_OK);
        CU_ASSERT(header.relayed && header.port == 12345 && memcmp(&want, &header.source, sizeof want) == 0);
    }
    for (size_t cut = 0; cut < V4_BYTES; cut++)
        CU_ASSERT_EQUAL(feed(&header, v4, cut, 64, &taken), PROXY_MORE);
}

/* The header with bytes 12 to 15 changed, and so many zeros behind them. */
static enum proxy_state changed(uint8_t command, uint8_t family, unsigned length, struct proxy_header *header)
{
    static uint8_t data[16 + 65535 + 5];
    size_t taken;
    memset(data, 0, sizeof data);
    memcpy(data, v4, 12);
    data[12] = command;
    data[13] = family;
    data[14] = (uint8_t)(length >> 8);
    data[15] = (uint8_t)length;
    enum proxy_state state = feed(header, data, sizeof data, 1000, &taken);
    if (state == PROXY_DONE)
        CU_ASSERT_EQUAL(taken, 16 + length);
    return state;
}

static void test_kinds(void)
{
    struct proxy_header header;
    CU_ASSERT(changed(0x20, 0x00, 0, &header) == PROXY_DONE && !header.relayed); /* LOCAL: a health check */
    CU_ASSERT(changed(0x20, 0x11, 0, &header) == PROXY_DONE && !header.relayed);
    CU_ASSERT(changed(0x20, 0x11, 12, &header) == PROXY_DONE && !header.relayed);
    CU_ASSERT(changed(0x21, 0x00, 9, &header) == PROXY_DONE && !header.relayed);
    CU_ASSERT(changed(0x21, 0x31, 216, &header) == PROXY_DONE && !header.relayed);  /* a Unix socket */
    CU_ASSERT(changed(0x21, 0x11, 65535, &header) == PROXY_DONE && header.relayed); /* many TLVs */
    CU_ASSERT(changed(0x21, 0x21, 36, &header) == PROXY_DONE && header.relayed);
}

static void test_malformed(void)
{
    struct proxy_header header;
    size_t taken;
    CU_ASSERT_EQUAL(changed(0x21, 0x11, 11, &header), PROXY_BROKEN);
    CU_ASSERT_EQUAL(changed(0x21, 0x21, 35, &header), PROXY_BROKEN);
    CU_ASSERT_EQUAL(changed(0x11, 0x11, 12, &header), PROXY_BROKEN);
    CU_ASSERT_EQUAL(changed(0x22, 0x11, 12, &header), PROXY_BROKEN);
    CU_ASSERT_EQUAL(changed(0x21, 0x41, 12, &header), PROXY_BROKEN);
    CU_ASSERT_EQUAL(changed(0x21, 0x13, 12, &header), PROXY_BROKEN);
    static const char *const others[] = {"GET / HTTP/1.1\r\n\r\n", "\r\n\r\nGET", "\x16\x03\x01",
                                         "PROXY TCP4 192.0.2.1"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        CU_ASSERT_EQUAL(feed(&header, (const uint8_t *)others[i], strlen(others[i]), 1, &taken), PROXY_BROKEN);
        CU_ASSERT(header.fault != NULL && taken < 8);
    }
    CU_ASSERT(strstr(header.fault, "version 1") != NULL);
}

int main(void)
{
    CU_TestInfo tests[] = {{"both families, in any pieces, and nothing behind", test_addresses},
                           {"health checks, unknown families and long tails are read over", test_kinds},
                           {"what is malformed is refused at its first wrong byte", test_malformed},
                           CU_TEST_INFO_NULL};
    return unit_main("proxy_header", tests);
}
