/* Addresses and networks as people write them, and nothing else. */
#include "core/ip_address.h"

#include "tests/rig/unit_main.h"

#include <arpa/inet.h>
#include <string.h>

static const char *const good[] = {"0.0.0.0",
                                   "192.0.2.1",
                                   "255.255.255.255",
                                   "::",
                                   "::1",
                                   "1::",
                                   "2001:db8::1",
                                   "1:2:3:4:5:6:7:8",
                                   "1:2:3:4:5:6:7::",
                                   "::2:3:4:5:6:7:8",
                                   "fe80::A:b",
                                   "::ffff:192.0.2.1",
                                   "1:2:3:4:5:6:192.0.2.1",
                                   "::192.0.2.1",
                                   "1::192.0.2.1"};
static const char *const bad[] = {"",
                                  "1",
                                  "1.2.3",
                                  "1.2.3.4.5",
                                  "1.2.3.",
                                  ".1.2.3",
                                  "256.1.1.1",
                                  "01.2.3.4",
                                  "1.2.3.4 ",
                                  "1.2.3.4:80",
                                  "a.b.c.d",
                                  ":",
                                  ":::",
                                  "1:::2",
                                  "1::2::3",
                                  "1:2:3:4:5:6:7",
                                  "12345::",
                                  "1:2:3:4:5:6:7:8:9",
                                  "1:2:3:4:5:6:7:8::",
                                  "::1:2:3:4:5:6:7:8",
                                  "1:",
                                  ":1",
                                  "g::",
                                  "[::1]",
                                  "::1%lo",
                                  "1:2:3:4:5:6:7:192.0.2.1",
                                  "::192.0.2",
                                  "::1.2.3.4:1",
                                  "unknown"};

static void test_addresses(void)
{
    struct ip_address got;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint8_t want[16] = {[10] = 0xff, [11] = 0xff};
        int family = strchr(good[i], ':') ? AF_INET6 : AF_INET;
        CU_ASSERT_EQUAL(inet_pton(family, good[i], family == AF_INET ? want + 12 : want), 1);
        CU_ASSERT_EQUAL(ip_parse(good[i], strlen(good[i]), &got), BLOB_OK);
        CU_ASSERT(memcmp(got.bytes, want, sizeof want) == 0);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CU_ASSERT_EQUAL(ip_parse(bad[i], strlen(bad[i]), &got), BLOB_E_INVALID);
}

static bool has(const char *networks, const char *text)
{
    struct ip_networks *list = NULL;
    struct ip_address address;
    CU_ASSERT_EQUAL(ip_networks_parse(networks, &list), BLOB_OK);
    CU_ASSERT_EQUAL(ip_parse(text, strlen(text), &address), BLOB_OK);
    bool found = ip_networks_have(list, &address);
    free(list);
    return found;
}

static void test_networks(void)
{
    CU_ASSERT(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
    CU_ASSERT(has("192.0.2.1", "192.0.2.1") && !has("192.0.2.1", "192.0.2.2"));
    CU_ASSERT(has("192.0.2.128/25", "192.0.2.129") && !has("192.0.2.128/25", "192.0.2.127"));
    CU_ASSERT(has("1.1.1.1, 2001:db8::/33\t127.0.0.0/8", "2001:db8:7fff::1"));
    CU_ASSERT(!has("1.1.1.1, 2001:db8::/33 127.0.0.0/8", "2001:db8:8000::1"));
    CU_ASSERT(has("0.0.0.0/0", "8.8.8.8") && !has("0.0.0.0/0", "2001:db8::1"));
    CU_ASSERT(has("::1", "::1") && !has("::1", "127.0.0.1") && has("127.0.0.0/8", "::ffff:127.0.0.1"));
    CU_ASSERT(!has("", "::1") && !has(" , ", "::1"));
    static const char *const wrong[] = {"10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/",   "10.0.0.0/-1",  "10.0.0.0/08",
                                        "::/129",     "localhost",   "10.0.0.0/8;", "10.0.0.0/8/8", "2001:db8::1/64"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct ip_networks *list;
        CU_ASSERT_EQUAL(ip_networks_parse(wrong[i], &list), BLOB_E_INVALID);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {{"addresses are read as the system reads them, and only whole ones", test_addresses},
                           {"networks hold what is in them", test_networks},
                           CU_TEST_INFO_NULL};
    return unit_main("ip_address", tests);
}
