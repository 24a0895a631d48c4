/* http_chunked - every cut of a body decodes alike; what is not the grammar is refused; what follows is left alone. */
#include "server/http/parse/http_chunked.h"
#include "tests/rig/unit_main.h"

#include <string.h>

struct decoded {
    char text[1024];
    size_t len;
    size_t used;
    enum http_chunked_place place;
};

/* Feeds text in fragments of step bytes. */
static struct decoded decode(const char *text, size_t step)
{
    struct decoded out = {.len = 0};
    struct http_chunked dec = {0};
    size_t total = strlen(text);
    while (out.used < total && dec.place < CHUNKED_END) {
        uint8_t buf[1024];
        size_t n = total - out.used < step ? total - out.used : step;
        memcpy(buf, text + out.used, n);
        struct http_chunked_run run = http_chunked_feed(&dec, buf, n);
        memcpy(out.text + out.len, run.data, run.len);
        out.len += run.len;
        out.used += run.used;
    }
    out.place = dec.place;
    return out;
}

static void test_every_cut(void)
{
    static const char body[] =
        "5\r\nhello\r\n00C;name=\"x y\"\r\n, wide world\r\n1 \r\n!\r\n0\r\nA: b\r\nC: d\r\n\r\nGET";
    for (size_t step = 1; step <= sizeof body; step++) {
        struct decoded out = decode(body, step);
        CU_ASSERT_EQUAL(out.place, CHUNKED_END);
        CU_ASSERT_EQUAL(out.len, 18);
        CU_ASSERT_EQUAL(memcmp(out.text, "hello, wide world!", 18), 0);
        CU_ASSERT_EQUAL(out.used, strlen(body) - 3);
    }
}

static void test_empty(void)
{
    struct decoded out = decode("0\r\n\r\n", 100);
    CU_ASSERT_EQUAL(out.place, CHUNKED_END);
    CU_ASSERT_EQUAL(out.len, 0);
    CU_ASSERT_EQUAL(out.used, 5);
}

static void test_one_run_stays(void)
{
    struct http_chunked dec = {0};
    uint8_t buf[] = "ff\r\nabcdef";
    struct http_chunked_run run = http_chunked_feed(&dec, buf, 10);
    CU_ASSERT_PTR_EQUAL(run.data, buf + 4);
    CU_ASSERT_EQUAL(run.len, 6);
    CU_ASSERT_EQUAL(dec.left, 255 - 6);
}

static bool broken(const char *text)
{
    return decode(text, 1).place == CHUNKED_BROKEN && decode(text, 1000).place == CHUNKED_BROKEN;
}

static void test_broken(void)
{
    CU_ASSERT(broken("\r\n"));
    CU_ASSERT(broken("x\r\n"));
    CU_ASSERT(broken("-1\r\n"));
    CU_ASSERT(broken("0x5\r\n"));
    CU_ASSERT(broken(" 5\r\n"));
    CU_ASSERT(broken("5 5\r\nhello"));
    CU_ASSERT_EQUAL(decode("5 \t;a=b\r\nhello\r\n0\r\n\r\n", 1).place, CHUNKED_END);
    CU_ASSERT(broken("5\nhello"));
    CU_ASSERT(broken("5\r\nhelloX\n"));
    CU_ASSERT(broken("5\r\nhello\n"));
    CU_ASSERT(broken("5\r\nhello\r\n\r\n"));
    CU_ASSERT(broken("1000000000000000\r\n"));
    CU_ASSERT(broken("0\r\nA: b\n\r\n"));
    CU_ASSERT(broken("0\r\n\n"));
    CU_ASSERT(broken("5;a\x01\r\n"));
    CU_ASSERT_EQUAL(decode("fffffffffffffff\r\n", 1).place, CHUNKED_DATA);
}

static void test_bounds(void)
{
    struct http_chunked dec = {0};
    uint8_t c[] = "5;";
    http_chunked_feed(&dec, c, 2);
    for (int i = 0; i < 300 && dec.place != CHUNKED_BROKEN; i++)
        http_chunked_feed(&dec, (uint8_t[]){'a'}, 1);
    CU_ASSERT_EQUAL(dec.place, CHUNKED_BROKEN);

    dec = (struct http_chunked){0};
    uint8_t last[] = "0\r\n";
    http_chunked_feed(&dec, last, 3);
    for (int i = 0; i < 5000 && dec.place != CHUNKED_BROKEN; i++) {
        uint8_t line[] = "a:\r\n";
        http_chunked_feed(&dec, line, 4);
    }
    CU_ASSERT_EQUAL(dec.place, CHUNKED_BROKEN);
}

int main(void)
{
    CU_TestInfo tests[] = {{"every cut decodes alike, and what follows is left", test_every_cut},
                           {"an empty body ends", test_empty},
                           {"a run of data is not moved", test_one_run_stays},
                           {"what is not the grammar is refused", test_broken},
                           {"extensions and trailers are bounded", test_bounds},
                           CU_TEST_INFO_NULL};
    return unit_main("http_chunked", tests);
}
