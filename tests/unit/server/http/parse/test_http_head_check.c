/* http_head_check - what a head may be, byte by byte and field by field; and that it does not matter how it is cut. */
#include "server/http/parse/http_head_check.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static const struct head_limits limits = {.max_head_bytes = 1024, .max_uri_bytes = 100};

/* Fed whole and fed byte by byte must end in the same place. */
static struct head_scan scan_of(const char *bytes, size_t len)
{
    struct head_scan whole = {0}, single = {0};
    size_t used = head_scan_feed(&whole, &limits, bytes, len), singly = 0;
    while (singly < len && head_scan_feed(&single, &limits, bytes + singly, 1) == 1)
        singly++;
    CU_ASSERT_EQUAL(whole.place, single.place);
    CU_ASSERT_EQUAL(whole.fault.fault, single.fault.fault);
    CU_ASSERT_EQUAL(used, singly);
    CU_ASSERT_EQUAL(whole.bytes, used);
    return whole;
}

static bool passes(const char *head)
{
    return scan_of(head, strlen(head)).place == HEAD_DONE;
}

static bool refused_as(const char *head, enum http_fault fault)
{
    struct head_scan scan = scan_of(head, strlen(head));
    return scan.place == HEAD_FAULTY && scan.fault.detail && scan.fault.fault == fault;
}

static bool is_bad(const char *head)
{
    return refused_as(head, HTTP_FAULT_BAD_REQUEST);
}

static void test_good_heads(void)
{
    CU_ASSERT(passes("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    CU_ASSERT(passes("GET / HTTP/1.0\r\n\r\n"));
    CU_ASSERT(passes("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n"));
    CU_ASSERT(passes("POST /a?b=%20c HTTP/1.1\r\nHost: a:1\r\nX-Name:\tcaf\xc3\xa9 \t x\r\n\r\n"));
    struct head_scan scan = scan_of("PROPFIND /x HTTP/1.0\r\n\r\nrest", 28);
    CU_ASSERT_EQUAL(scan.bytes, 24);
    CU_ASSERT_STRING_EQUAL(scan.method, "PROPFIND");
    CU_ASSERT(scan.version_1_0);
    CU_ASSERT_FALSE(scan_of("GET / HTTP/1.1\r\n\r\n", 18).version_1_0);
}

static void test_line_ends(void)
{
    CU_ASSERT(is_bad("GET / HTTP/1.1\nHost: a\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nHost: a\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nHost: a\r\n\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\r\n\r\n"));
    CU_ASSERT(is_bad("\r\nGET / HTTP/1.1\r\n\r\n"));
}

static void test_request_lines(void)
{
    CU_ASSERT(is_bad("GET /  HTTP/1.1\r\n\r\n"));
    CU_ASSERT(is_bad("GET  / HTTP/1.1\r\n\r\n"));
    CU_ASSERT(is_bad(" GET / HTTP/1.1\r\n\r\n"));
    CU_ASSERT(is_bad("GET /a b HTTP/1.1\r\n\r\n"));
    CU_ASSERT(is_bad("GET /\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1 \r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/2.0\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.10\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/+1.1\r\n\r\n"));
    CU_ASSERT(is_bad("GET / http/1.1\r\n\r\n"));
    CU_ASSERT(is_bad("GET /#a HTTP/1.1\r\n\r\n"));
    CU_ASSERT(is_bad("GET /\x80 HTTP/1.1\r\n\r\n"));
    CU_ASSERT(is_bad("G(T / HTTP/1.1\r\n\r\n"));
    CU_ASSERT(is_bad("\x16\x03\x01\x02"));
}

static void test_header_lines(void)
{
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\n Host: a\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\n: a\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nHost\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nH\xc3\xb6st: a\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nX: a\x7f\r\n\r\n"));
    CU_ASSERT(is_bad("GET / HTTP/1.1\r\nX: a\vb\r\n\r\n"));
    static const char nul_in_value[] = "GET / HTTP/1.1\r\nX: a\0b\r\n\r\n";
    static const char nul_in_target[] = "GET /a\0b HTTP/1.1\r\n\r\n";
    CU_ASSERT_EQUAL(scan_of(nul_in_value, sizeof nul_in_value - 1).place, HEAD_FAULTY);
    CU_ASSERT_EQUAL(scan_of(nul_in_target, sizeof nul_in_target - 1).place, HEAD_FAULTY);
}

static void test_sizes(void)
{
    char head[4096];
    int n = snprintf(head, sizeof head, "GET /%099d HTTP/1.1\r\n\r\n", 0);
    CU_ASSERT_EQUAL(scan_of(head, (size_t)n).place, HEAD_DONE);
    snprintf(head, sizeof head, "GET /%0100d HTTP/1.1\r\n\r\n", 0);
    CU_ASSERT(refused_as(head, HTTP_FAULT_URI_TOO_LONG));

    /* 16 + 3 + digits + 2 + 2 = 1024: to the byte, line ends included. */
    n = snprintf(head, sizeof head, "GET / HTTP/1.1\r\nX: %0999d\r\n\r\n", 0);
    CU_ASSERT_EQUAL(n, 1022);
    CU_ASSERT(passes(head));
    snprintf(head, sizeof head, "GET / HTTP/1.1\r\nX: %01001d\r\n\r\n", 0);
    CU_ASSERT(passes(head));
    snprintf(head, sizeof head, "GET / HTTP/1.1\r\nX: %01002d\r\n\r\n", 0);
    CU_ASSERT(refused_as(head, HTTP_FAULT_HEAD_TOO_LARGE));

    size_t len = (size_t)snprintf(head, sizeof head, "GET / HTTP/1.1\r\n");
    for (int i = 0; i <= HEAD_MAX_LINES; i++)
        len += (size_t)snprintf(head + len, sizeof head - len, "a:\r\n");
    CU_ASSERT(refused_as(head, HTTP_FAULT_HEAD_TOO_LARGE));
}

/* ---- fields ---- */

/* "Name: value" up to NULL. */
static struct head_fault judge(bool version_1_0, struct head_framing *framing, const char *const *lines)
{
    struct head_fields fields = {0};
    for (; *lines; lines++) {
        char name[64];
        const char *colon = strchr(*lines, ':');
        snprintf(name, sizeof name, "%.*s", (int)(colon - *lines), *lines);
        head_fields_add(&fields, name, colon + 2);
    }
    return head_fields_judge(&fields, version_1_0, framing);
}

#define LINES(...) ((const char *const[]){__VA_ARGS__, NULL})

static bool judged_bad(const char *const *lines)
{
    struct head_framing framing;
    struct head_fault fault = judge(false, &framing, lines);
    return fault.detail && fault.fault == HTTP_FAULT_BAD_REQUEST;
}

static void test_hosts(void)
{
    struct head_framing framing;
    CU_ASSERT(judged_bad(LINES("A: b")));
    CU_ASSERT(judged_bad(LINES("Host: a", "host: a")));
    CU_ASSERT(judged_bad(LINES("Host: a b")));
    CU_ASSERT(judged_bad(LINES("Host: a/b")));
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: [::1]:8887")).detail);
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: ")).detail);
    CU_ASSERT_PTR_NULL(judge(true, &framing, LINES("A: b")).detail);
}

static void test_lengths(void)
{
    struct head_framing framing;
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: a", "Content-Length: 9223372036854775807")).detail);
    CU_ASSERT_EQUAL(framing.kind, HTTP_BODY_LENGTH);
    CU_ASSERT_EQUAL(framing.length, (uint64_t)INT64_MAX);
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: a", "content-length: 0")).detail);
    CU_ASSERT_EQUAL(framing.kind, HTTP_BODY_NONE);
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: 9223372036854775808")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: 5", "Content-Length: 5")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: 5, 5")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: ")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: +5")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: -5")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: 0x5")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: 5 ")));
    /* Zeros in front are of the grammar, but nobody sends more digits than any number has. */
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: a", "Content-Length: 00000000000000000005")).detail);
    CU_ASSERT_EQUAL(framing.length, 5);
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: 000000000000000000005")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Content-Length: 000000000000000000000")));
}

static void test_codings(void)
{
    struct head_framing framing;
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: a", "Transfer-Encoding: Chunked")).detail);
    CU_ASSERT_EQUAL(framing.kind, HTTP_BODY_CHUNKED);
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked", "Content-Length: 5")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked, chunked")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked, gzip")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: xchunked")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: identity")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked;q=1")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: ")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: ,chunked")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: , chunked")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked,")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked, \t,")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: gzip,, chunked")));
    CU_ASSERT_PTR_NOT_NULL(judge(true, &framing, LINES("Host: a", "Transfer-Encoding: chunked")).detail);
    struct head_fault fault = judge(false, &framing, LINES("Host: a", "Transfer-Encoding: gzip, chunked"));
    CU_ASSERT_EQUAL(fault.fault, HTTP_FAULT_NOT_IMPLEMENTED);
}

/* Several lines are one list: they are judged as if they stood on one. */
static void test_codings_on_lines(void)
{
    struct head_framing framing;
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: chunked", "Transfer-Encoding: ")));
    CU_ASSERT(judged_bad(LINES("Host: a", "Transfer-Encoding: ", "Transfer-Encoding: chunked")));
    struct head_fault fault =
        judge(false, &framing, LINES("Host: a", "Transfer-Encoding: gzip", "transfer-encoding: chunked"));
    CU_ASSERT_PTR_NOT_NULL(fault.detail);
    CU_ASSERT_EQUAL(fault.fault, HTTP_FAULT_NOT_IMPLEMENTED);
}

static void test_expectations(void)
{
    struct head_framing framing;
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: a", "Content-Length: 1", "Expect: 100-Continue")).detail);
    CU_ASSERT(framing.expects_continue);
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: a", "Expect: 100-continue")).detail);
    CU_ASSERT_FALSE(framing.expects_continue); /* no body, nothing to wait for */
    struct head_fault fault = judge(false, &framing, LINES("Host: a", "Expect: coffee"));
    CU_ASSERT_PTR_NOT_NULL(fault.detail);
    CU_ASSERT_EQUAL(fault.fault, HTTP_FAULT_EXPECTATION);
    CU_ASSERT_PTR_NULL(judge(true, &framing, LINES("Host: a", "Content-Length: 1", "Expect: 100-continue")).detail);
    CU_ASSERT_FALSE(framing.expects_continue);
}

static bool waits(const char *first, const char *second)
{
    struct head_framing framing;
    struct head_fault fault = judge(false, &framing, LINES("Host: a", "Content-Length: 1", first, second));
    return !fault.detail && framing.expects_continue;
}

static bool unmet(const char *first, const char *second)
{
    struct head_framing framing;
    struct head_fault fault = judge(false, &framing, LINES("Host: a", "Content-Length: 1", first, second));
    return fault.detail && fault.fault == HTTP_FAULT_EXPECTATION;
}

static void test_expectations_are_a_list(void)
{
    CU_ASSERT(waits("Expect: 100-continue", "Expect: 100-continue"));
    CU_ASSERT(waits("Expect: 100-continue, 100-Continue", "A: b"));
    CU_ASSERT(waits("Expect: ,\t100-continue ,", "Expect: "));
    CU_ASSERT(unmet("Expect: 100-continue", "Expect: coffee"));
    CU_ASSERT(unmet("Expect: coffee", "Expect: 100-continue"));
    CU_ASSERT(unmet("Expect: 100-continue, coffee", "A: b"));
    CU_ASSERT(unmet("Expect: 100-continue;now=1", "A: b"));
    CU_ASSERT_FALSE(waits("Expect: ", "A: b"));
    CU_ASSERT_FALSE(unmet("Expect: ", "A: b"));
}

static bool kept_alive(bool version_1_0, const char *connection)
{
    struct head_framing framing = {0};
    CU_ASSERT_PTR_NULL(judge(version_1_0, &framing, LINES("Host: a", connection)).detail);
    return framing.keep_alive;
}

static void test_persistence(void)
{
    CU_ASSERT(kept_alive(false, "A: b"));
    CU_ASSERT_FALSE(kept_alive(true, "A: b"));
    CU_ASSERT(kept_alive(true, "Connection: Keep-Alive"));
    CU_ASSERT_FALSE(kept_alive(false, "Connection: TE, Close"));
    CU_ASSERT_FALSE(kept_alive(true, "Connection: keep-alive, close"));
    CU_ASSERT(kept_alive(false, "Connection: closely"));
    struct head_framing framing = {0};
    CU_ASSERT_PTR_NULL(judge(false, &framing, LINES("Host: a", "Connection: TE", "Connection: ,close")).detail);
    CU_ASSERT_FALSE(framing.keep_alive);
    CU_ASSERT_PTR_NULL(judge(true, &framing, LINES("Host: a", "Connection: TE", "Connection: keep-alive")).detail);
    CU_ASSERT(framing.keep_alive);
}

static void test_targets(void)
{
    CU_ASSERT_PTR_NULL(head_target_judge("/a", HTTP_GET).detail);
    CU_ASSERT_PTR_NULL(head_target_judge("http://a/b", HTTP_GET).detail);
    CU_ASSERT_PTR_NULL(head_target_judge("*", HTTP_OPTIONS).detail);
    CU_ASSERT_PTR_NOT_NULL(head_target_judge("*", HTTP_GET).detail);
    CU_ASSERT_PTR_NOT_NULL(head_target_judge("a", HTTP_GET).detail);
    CU_ASSERT_PTR_NOT_NULL(head_target_judge("ftp://a/", HTTP_GET).detail);
}

int main(void)
{
    CU_TestInfo tests[] = {{"well-formed heads pass, and end where they end", test_good_heads},
                           {"every line ends in CRLF", test_line_ends},
                           {"a request line is three words", test_request_lines},
                           {"a header line is a token, a colon and text", test_header_lines},
                           {"sizes are exact, line ends included", test_sizes},
                           {"1.1 has one Host", test_hosts},
                           {"a length is one number", test_lengths},
                           {"the one transfer coding is chunked", test_codings},
                           {"lines of transfer codings are one list", test_codings_on_lines},
                           {"the one expectation is 100-continue", test_expectations},
                           {"expectations are a list, on one line or several", test_expectations_are_a_list},
                           {"Connection is a list", test_persistence},
                           {"a target is a path, a URL, or * for OPTIONS", test_targets},
                           CU_TEST_INFO_NULL};
    return unit_main("http_head_check", tests);
}
