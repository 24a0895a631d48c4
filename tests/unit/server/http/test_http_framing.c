/* http_framing - what two parsers could read differently is refused over the wire too, and the connection with it: the
 * request that a smuggler hid behind the first is never served. */
#include "tests/rig/http_fixture.h"
#include "tests/rig/unit_main.h"

#define HIDDEN "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"

struct refusal {
    const char *what;
    const char *head;
    int status;
};

static const struct refusal refusals[] = {
    {"length and coding",
     "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"coding and length",
     "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", 400},
    {"two lengths", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 31\r\n\r\n", 400},
    {"two equal lengths", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", 400},
    {"a list of lengths", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n", 400},
    {"a blank before the colon", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 31\r\n\r\n", 400},
    {"a signed length", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n", 400},
    {"a length of more digits than any number has",
     "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 000000000000000000000\r\n\r\n", 400},
    {"an endless length", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400},
    {"a lookalike coding", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400},
    {"chunked twice", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400},
    {"an empty coding before chunked", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
     400},
    {"chunked on two lines",
     "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
     400},
    {"an unknown coding on a line of its own",
     "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501},
    {"a coding after chunked", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400},
    {"an unknown coding", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
    {"a coding in 1.0", "POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
    {"a folded coding", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},
    {"a folded line", "GET /hello HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400},
    {"a bare LF in the request line", "GET /hello HTTP/1.1\nHost: a\r\n\r\n", 400},
    {"a bare LF in a header", "GET /hello HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400},
    {"a bare LF at the end", "GET /hello HTTP/1.1\r\nHost: a\r\n\n", 400},
    {"a bare CR", "GET /hello HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", 400},
    {"no Host", "GET /hello HTTP/1.1\r\n\r\n", 400},
    {"two Hosts", "GET /hello HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
    {"a blank in the target", "GET /hello x HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"another version", "GET /hello HTTP/9.9\r\nHost: a\r\n\r\n", 400},
    {"HTTP/0.9", "GET /hello\r\n\r\n", 400},
    {"not HTTP at all", "\x16\x03\x01\x02\r\n\r\n", 400},
    {"a name that is no token", "GET /hello HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", 400},
    {"no colon", "GET /hello HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400},
    {"a control byte", "GET /hello HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n", 400},
    {"a relative target", "GET hello HTTP/1.1\r\nHost: a\r\n\r\n", 400},
    {"an unknown method", "BREW /hello HTTP/1.1\r\nHost: a\r\n\r\n", 501},
    {"TRACE", "TRACE /hello HTTP/1.1\r\nHost: a\r\n\r\n", 501},
    {"CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501},
    {"an unknown expectation", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nExpect: tea\r\n\r\n", 417},
};

static bool refused(const struct fixture *fx, const char *bytes, size_t len, int status)
{
    int fd = client_open(fx);
    client_send_bytes(fd, bytes, len);
    client_send(fd, HIDDEN);
    struct answer answer = client_read(fd, false);
    const char *type = answer.status ? answer_header(&answer, "Content-Type") : NULL;
    bool ok = answer.status == status && type && strcmp(type, "application/json") == 0;
    const char *connection = answer.status ? answer_header(&answer, "Connection") : NULL;
    ok = ok && connection && strcmp(connection, "close") == 0 && client_closed(fd);
    if (!ok)
        fprintf(stderr, "status %d instead of %d: %.40s\n", answer.status, status, bytes);
    free(answer.body);
    close(fd);
    return ok;
}

static void test_refusals(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++)
        CU_ASSERT(refused(&fx, refusals[i].head, strlen(refusals[i].head), refusals[i].status));
    CU_ASSERT_EQUAL(atomic_load(&fx.requests), 0);
    CU_ASSERT_EQUAL(atomic_load(&fx.faults), sizeof refusals / sizeof refusals[0]);
    static const char nul[] = "GET /hello HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n";
    CU_ASSERT(refused(&fx, nul, sizeof nul - 1, 400));
    static const char nul_name[] = "GET /hello HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n";
    CU_ASSERT(refused(&fx, nul_name, sizeof nul_name - 1, 400));
    fixture_end(&fx);
}

static void test_refusals_byte_by_byte(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i += 4) {
        int fd = client_open(&fx);
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
        for (const char *at = refusals[i].head; *at && client_send_bytes(fd, at, 1); at++)
            sleep_ms(1);
        CU_ASSERT_EQUAL(client_status(fd), refusals[i].status);
        CU_ASSERT(client_closed(fd));
        close(fd);
    }
    CU_ASSERT_EQUAL(atomic_load(&fx.requests), 0);
    fixture_end(&fx);
}

static void test_sizes(void)
{
    struct fixture fx;
    char head[8192];
    fixture_begin(&fx);
    size_t len = (size_t)snprintf(head, sizeof head, "GET /%01100d HTTP/1.1\r\nHost: a\r\n\r\n", 0);
    CU_ASSERT(refused(&fx, head, len, 414));
    len = (size_t)snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: a\r\nX: %05000d\r\n\r\n", 0);
    CU_ASSERT(refused(&fx, head, len, 431));
    len = (size_t)snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: a\r\n");
    while (len < 1000)
        len += (size_t)snprintf(head + len, sizeof head - len, "a:b\r\n");
    CU_ASSERT(refused(&fx, head, len, 431)); /* too many lines, and the head not even complete */
    fixture_end(&fx);
}

/* What must not be refused. */
static void test_accepted(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    client_send(fd, "GET http://a:1/hello?x HTTP/1.1\r\nHost: a:1\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    client_send(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    client_send(fd, "POST /echo HTTP/1.2\r\nHost: a\r\ntransfer-encoding: CHUNKED\r\n\r\n1\r\na\r\n0\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    client_send(fd, "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 404); /* the handler's */
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    client_send(fd, "POST /echo HTTP/1.1\r\nHost:\ta\t\r\nContent-Length:\t 1 \t\r\n\r\na");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    client_send(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\t \tchunKed \t\r\n\r\n1\r\na\r\n0\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    client_send(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 00000000000000000001\r\n\r\na");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nExpect:\t100-continue\r\nConnection:\tTE\r\n"
                    "Connection:\tclose\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    CU_ASSERT(client_closed(fd));
    close(fd);
    fixture_end(&fx);
}

/* What a handler reads of a field, as "lines [value]". */
static void expect_field(const struct fixture *fx, const char *lines, const char *expected)
{
    char head[512];
    int fd = client_open(fx);
    snprintf(head, sizeof head, "GET /field HTTP/1.1\r\nHost: a\r\n%sLast: z\r\n\r\n", lines);
    client_send(fd, head);
    struct answer answer = client_read(fd, false);
    CU_ASSERT_EQUAL(answer.status, 200);
    CU_ASSERT_STRING_EQUAL(answer.body ? (const char *)answer.body : "", expected);
    free(answer.body);
    close(fd);
}

static void test_fields(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    expect_field(&fx, "", "0 [none]");
    expect_field(&fx, "X-Field:\r\n", "1 []");
    expect_field(&fx, "X-Field: \t \r\n", "1 []");
    expect_field(&fx, "X-Field:\t a \tb\t \r\n", "1 [a \tb]");
    expect_field(&fx, "X-Field: a\r\nOther: o\r\nx-field:\tb\r\nX-FIELD: c, d\r\n", "3 [a, b, c, d]");
    expect_field(&fx, "X-Field:\r\nX-Field: b\r\n", "2 [, b]");
    expect_field(&fx, "Other: 1\r\nOther: 2\r\nX-Fields: no\r\nX-Field: a\r\nOther: 3\r\n", "1 [a]");
    fixture_end(&fx);
}

/* A body that nobody reads must not be taken for the next request, whatever the method says about bodies. */
static void test_unread_body(void)
{
    static const char *const heads[] = {
        "HEAD /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n",
        "GET /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n",
        "DELETE /hello HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n",
        "HEAD /hello HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    struct fixture fx;
    fixture_begin(&fx);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        int fd = client_open(&fx);
        client_send(fd, heads[i]);
        client_send(fd, HIDDEN);
        struct answer answer = client_read(fd, heads[i][0] == 'H');
        CU_ASSERT_EQUAL(answer.status, 200);
        CU_ASSERT_STRING_EQUAL(answer_header(&answer, "Connection"), "close");
        free(answer.body);
        CU_ASSERT(client_closed(fd));
        close(fd);
    }
    CU_ASSERT_EQUAL(atomic_load(&fx.requests), sizeof heads / sizeof heads[0]);
    fixture_end(&fx);
}

int main(void)
{
    CU_TestInfo tests[] = {{"ambiguous heads are refused, with what follows them", test_refusals},
                           {"however slowly they come", test_refusals_byte_by_byte},
                           {"414 and 431 are told apart", test_sizes},
                           {"unusual heads that are sound are served", test_accepted},
                           {"lines of one name are one field, without the blanks around it", test_fields},
                           {"an unread body is never a request", test_unread_body},
                           CU_TEST_INFO_NULL};
    return unit_main("http_framing", tests);
}
