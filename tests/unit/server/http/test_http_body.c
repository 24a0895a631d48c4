/* http_body - bodies arrive whole however they are sent, stop at their end, and never take more memory than allowed. */
#include "core/fault.h"
#include "tests/rig/http_fixture.h"
#include "tests/rig/unit_main.h"

/* Sanitizers surround every allocation. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CONNECTION_BYTES (1024 * 1024)
#else
#define CONNECTION_BYTES (10 * 1024)
#endif

#define POST(path, fields) "POST " path " HTTP/1.1\r\nHost: a\r\n" fields "\r\n"

/* What /echo says of these bytes. */
static bool answer_is_sum(const struct answer *answer, const uint8_t *bytes, size_t len)
{
    uint64_t sum = 0;
    char expected[96];
    for (size_t i = 0; i < len; i++)
        sum = sum * 31 + bytes[i];
    snprintf(expected, sizeof expected, "%zu %llu", len, (unsigned long long)sum);
    return answer->status == 200 && answer->body && strcmp((char *)answer->body, expected) == 0;
}

static void expect_sum(int fd, const uint8_t *bytes, size_t len)
{
    struct answer answer = client_read(fd, false);
    CU_ASSERT(answer_is_sum(&answer, bytes, len));
    free(answer.body);
}

static void test_lengths(void)
{
    static const size_t lengths[] = {1, 2, 4095, 4096, 16384, 16385, 65537, 300000, FIXTURE_BYTES};
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char head[128];
        snprintf(head, sizeof head, POST("/echo", "Content-Length: %zu\r\n"), lengths[i]);
        CU_ASSERT(client_send(fd, head));
        CU_ASSERT(client_send_bytes(fd, fx.bytes, lengths[i]));
        expect_sum(fd, fx.bytes, lengths[i]);
    }
    close(fd);
    fixture_end(&fx);
}

/* However reads are cut: what the socket had not yet when it was read comes in a piece of its own. */
static void test_placed(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    for (int i = 0; i < 3; i++) {
        CU_ASSERT(client_send(fd, POST("/echo", "Content-Length: 3145745\r\n")));
        for (size_t at = 0, part; at < FIXTURE_BYTES; at += part) {
            part = FIXTURE_BYTES - at < 100001 ? FIXTURE_BYTES - at : 100001;
            CU_ASSERT(client_send_bytes(fd, fx.bytes + at, part));
            sleep_ms(i);
        }
        expect_sum(fd, fx.bytes, FIXTURE_BYTES);
    }
    CU_ASSERT(atomic_load(&fx.placed) > 10);
    CU_ASSERT_EQUAL(atomic_load(&fx.misplaced), 0);
    close(fd);
    fixture_end(&fx);
}

static void test_chunked_at_every_byte(void)
{
    static const char request[] =
        POST("/echo", "Transfer-Encoding: chunked\r\n") "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: x\r\n\r\n";
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    for (size_t cut = 1; cut < sizeof request - 1; cut++) {
        client_send_bytes(fd, request, cut);
        sleep_ms(2);
        client_send_bytes(fd, request + cut, sizeof request - 1 - cut);
        expect_sum(fd, (const uint8_t *)"hello world", 11);
    }
    close(fd);
    fixture_end(&fx);
}

static void test_chunked_large(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    CU_ASSERT(client_send(fd, POST("/echo", "Transfer-Encoding: chunked\r\n")));
    size_t sent = 0;
    for (size_t chunk = 1; sent < FIXTURE_BYTES; chunk = chunk * 3 % 100003) {
        char line[32];
        size_t n = FIXTURE_BYTES - sent < chunk ? FIXTURE_BYTES - sent : chunk;
        snprintf(line, sizeof line, "%zx\r\n", n);
        CU_ASSERT(client_send(fd, line));
        CU_ASSERT(client_send_bytes(fd, fx.bytes + sent, n));
        CU_ASSERT(client_send(fd, "\r\n"));
        sent += n;
    }
    /* What follows the body, in the same write, is the next request. */
    CU_ASSERT(client_send(fd, "0\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n"));
    expect_sum(fd, fx.bytes, FIXTURE_BYTES);
    CU_ASSERT_EQUAL(client_status(fd), 200);
    close(fd);
    fixture_end(&fx);
}

static void test_chunked_broken(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    client_send(fd, POST("/echo", "Transfer-Encoding: chunked\r\n") "5\r\nhelloGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 400);
    CU_ASSERT(client_closed(fd));
    CU_ASSERT_EQUAL(atomic_load(&fx.body_ends[HTTP_BODY_MALFORMED]), 1);
    CU_ASSERT_EQUAL(atomic_load(&fx.requests), 1);
    close(fd);
    fixture_end(&fx);
}

static void test_continue(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    for (int i = 0; i < 3; i++) {
        client_send(fd, POST("/echo", "Content-Length: 5\r\nExpect: 100-continue\r\n"));
        CU_ASSERT_EQUAL(client_status(fd), 100);
        client_send(fd, "hello");
        expect_sum(fd, (const uint8_t *)"hello", 5);
    }
    client_send(fd, POST("/echo", "Content-Length: 5\r\nExpect: 100-continue\r\n") "hello");
    expect_sum(fd, (const uint8_t *)"hello", 5); /* it did not wait: no 100 */
    client_send(fd, POST("/refuse", "Content-Length: 5\r\nExpect: 100-continue\r\n"));
    CU_ASSERT_EQUAL(client_status(fd), 413);
    CU_ASSERT(client_closed(fd));
    close(fd);
    fixture_end(&fx);
}

/* The client sends on without looking, and must still find the answer. */
static void test_refused_while_sending(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    for (int i = 0; i < 5; i++) {
        int fd = client_open(&fx);
        client_send(fd, POST("/refuse", "Content-Length: 30000000\r\n"));
        bool sent = true;
        for (int part = 0; part < 8 && sent; part++)
            sent = client_send_bytes(fd, fx.bytes, FIXTURE_BYTES);
        CU_ASSERT(sent);
        struct answer answer = client_read(fd, false);
        CU_ASSERT_EQUAL(answer.status, 413);
        CU_ASSERT_STRING_EQUAL(answer_header(&answer, "Connection"), "close");
        free(answer.body);
        CU_ASSERT(client_closed(fd));
        close(fd);
    }
    CU_ASSERT_EQUAL(atomic_load(&fx.body_bytes), 0);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    fixture_end(&fx);
}

static void stop_in_the_middle(const char *request)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    client_send(fd, request);
    CU_ASSERT(client_send_bytes(fd, fx.bytes, FIXTURE_BYTES));
    CU_ASSERT_EQUAL(client_status(fd), 409);
    CU_ASSERT(client_closed(fd));
    close(fd);
    unsigned ends = 0;
    for (int i = 0; i < 6; i++)
        ends += atomic_load(&fx.body_ends[i]);
    CU_ASSERT_EQUAL(ends, 0);
    fixture_end(&fx);
}

static void test_stopped_in_the_middle(void)
{
    stop_in_the_middle(POST("/first", "Content-Length: 3145745\r\n"));
}

/* One read fills several pieces then: those behind the first are given back, not delivered. */
static void test_stopped_in_a_large_read(void)
{
    stop_in_the_middle(POST("/large", "Content-Length: 3145745\r\n"));
}

static void test_cut(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    client_send(fd, POST("/echo", "Content-Length: 100\r\n") "half");
    WAIT_UNTIL(atomic_load(&fx.body_bytes) == 4);
    close(fd);
    WAIT_UNTIL(atomic_load(&fx.body_ends[HTTP_BODY_CUT]) == 1);

    fd = client_open(&fx); /* half-closed: it can still be told */
    client_send(fd, POST("/echo", "Content-Length: 100\r\n") "half");
    shutdown(fd, SHUT_WR);
    CU_ASSERT_EQUAL(client_status(fd), 499);
    CU_ASSERT(client_closed(fd));
    close(fd);

    fd = client_open(&fx);
    struct linger hard = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    client_send(fd, POST("/echo", "Transfer-Encoding: chunked\r\n") "5\r\nhe");
    WAIT_UNTIL(atomic_load(&fx.body_bytes) == 10);
    close(fd);
    WAIT_UNTIL(atomic_load(&fx.body_ends[HTTP_BODY_CUT]) == 3);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    fixture_end(&fx);
}

static void test_stalled(void)
{
    struct fixture fx;
    fixture_init(&fx);
    fx.cfg.idle_timeout_ms = 300;
    fixture_start(&fx);
    int fd = client_open(&fx);
    client_send(fd, POST("/echo", "Content-Length: 100\r\n") "half");
    CU_ASSERT_EQUAL(client_status(fd), 408);
    CU_ASSERT_EQUAL(atomic_load(&fx.body_ends[HTTP_BODY_STALLED]), 1);
    CU_ASSERT(client_closed(fd));
    close(fd);

    fd = client_open(&fx); /* not a byte, and the client had been asked for it */
    client_send(fd, POST("/echo", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"));
    CU_ASSERT_EQUAL(client_status(fd), 100);
    CU_ASSERT_EQUAL(client_status(fd), 408);
    CU_ASSERT_EQUAL(atomic_load(&fx.body_ends[HTTP_BODY_STALLED]), 2);
    close(fd);

    fd = client_open(&fx); /* it is we who pause there */
    client_send(fd, POST("/hold", "Content-Length: 3145745\r\n"));
    client_send_bytes(fd, fx.bytes, FIXTURE_BYTES);
    sleep_ms(700);
    fixture_release(&fx);
    CU_ASSERT_EQUAL(client_status(fd), 200);
    CU_ASSERT_EQUAL(atomic_load(&fx.body_ends[HTTP_BODY_STALLED]), 2);
    close(fd);
    fixture_end(&fx);
}

/* Without memory nothing is read, and that is not the client's doing. */
static void test_no_memory(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    fault_arm("http.memory", ENOMEM, 0, 1);
    client_send(fd, POST("/echo", "Content-Length: 4\r\n") "body");
    CU_ASSERT_EQUAL(client_status(fd), 503);
    CU_ASSERT_EQUAL(atomic_load(&fx.body_ends[HTTP_BODY_NO_MEMORY]), 1);
    CU_ASSERT(client_closed(fd));
    fault_disarm_all();
    close(fd);
    fixture_end(&fx);
}

/* The window is ten seconds, which is what this takes. */
static void test_too_slow(void)
{
    struct fixture fx;
    fixture_init(&fx);
    fx.cfg.min_body_rate = 100;
    fixture_start(&fx);
    int slow = client_open(&fx), enough = client_open(&fx), held = client_open(&fx);
    client_send(slow, POST("/echo", "Content-Length: 100000\r\n"));
    client_send(enough, POST("/echo", "Content-Length: 3000\r\n"));
    client_send(held, POST("/hold", "Content-Length: 3145745\r\n")); /* it is we who are slow there */
    client_send_bytes(held, fx.bytes, 1 << 20);
    for (int i = 0; i < 120 && atomic_load(&fx.body_ends[HTTP_BODY_TOO_SLOW]) == 0; i++) {
        client_send(slow, "x");
        client_send_bytes(enough, fx.bytes, 25);
        sleep_ms(100);
    }
    CU_ASSERT_EQUAL(client_status(slow), 429); /* the fixture's, to tell it from what stalls */
    CU_ASSERT(client_closed(slow));
    CU_ASSERT_EQUAL(atomic_load(&fx.done), 1);
    close(slow);
    close(enough);
    close(held);
    fixture_end(&fx);
}

static long resident_kib(void)
{
    long pages = 0, resident = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    CU_ASSERT_EQUAL(fscanf(statm, "%ld %ld", &pages, &resident), 2);
    fclose(statm);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* A consumer that keeps its pieces: no more is read than its bound, the socket pushes back, and all goes on later. */
static void test_backpressure(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    struct timeval brief = {.tv_usec = 300000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &brief, sizeof brief);
    client_send(fd, POST("/hold", "Content-Length: 314574500\r\n"));
    size_t sent = 0;
    for (;;) {
        ssize_t n = send(fd, fx.bytes, FIXTURE_BYTES, MSG_NOSIGNAL);
        if (n <= 0)
            break;
        sent += (size_t)n;
        CU_ASSERT_FATAL(sent < 100u << 20);
    }
    CU_ASSERT(atomic_load(&fx.body_bytes) <= 1 << 20);
    CU_ASSERT(sent > 1 << 20);
    fixture_release(&fx);
    struct timeval patient = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patient, sizeof patient);
    while (sent < 314574500) {
        size_t n = 314574500 - sent < FIXTURE_BYTES ? 314574500 - sent : FIXTURE_BYTES;
        CU_ASSERT_FATAL(client_send_bytes(fd, fx.bytes, n));
        sent += n;
    }
    CU_ASSERT_EQUAL(client_status(fd), 200);
    CU_ASSERT_EQUAL(atomic_load(&fx.body_bytes), 314574500);
    close(fd);
    fixture_end(&fx);
}

/* More readers than the pool has room for: each gets its turn, and all of them end. */
static void test_pool_is_shared(void)
{
    enum { CLIENTS = 40 };
    struct fixture fx;
    fixture_init(&fx);
    fx.cfg.body_memory_bytes = 256 << 10;
    fixture_start(&fx);
    int fds[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = client_open(&fx);
        client_send(fds[i], POST("/hold", "Content-Length: 60000\r\n"));
        client_send_bytes(fds[i], fx.bytes, 60000);
    }
    WAIT_UNTIL(atomic_load(&fx.requests) == CLIENTS);
    sleep_ms(50);
    CU_ASSERT(atomic_load(&fx.body_bytes) <= 256 << 10);
    close(fds[CLIENTS - 1]); /* one leaves while it waits */
    fixture_release(&fx);
    for (int i = 0; i < CLIENTS - 1; i++) {
        CU_ASSERT_EQUAL(client_status(fds[i]), 200);
        close(fds[i]);
    }
    fixture_end(&fx);
}

static void test_many_idle_bodies(void)
{
    enum { CLIENTS = 400 };
    struct fixture fx;
    fixture_begin(&fx);
    static int fds[CLIENTS];
    long before = resident_kib();
    for (int i = 0; i < CLIENTS; i++) {
        fds[i] = client_open(&fx);
        client_send(fds[i], POST("/echo", "Content-Length: 100000\r\n") "begun");
    }
    WAIT_UNTIL(atomic_load(&fx.body_bytes) == CLIENTS * 5);
    long each = (resident_kib() - before) * 1024 / CLIENTS;
    printf("(%ld bytes a connection) ", each);
    CU_ASSERT(each < CONNECTION_BYTES);
    for (int i = 0; i < CLIENTS; i++)
        close(fds[i]);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    fixture_end(&fx);
}

int main(void)
{
    CU_TestInfo tests[] = {{"bodies of any length arrive whole", test_lengths},
                           {"large pieces lie in memory as they will in the file", test_placed},
                           {"a chunked body may be cut at every byte", test_chunked_at_every_byte},
                           {"a large chunked body ends where it ends", test_chunked_large},
                           {"broken chunks end the connection", test_chunked_broken},
                           {"100 Continue is sent when the body is wanted", test_continue},
                           {"a refused client that sends on sees the answer", test_refused_while_sending},
                           {"a body may be given up in its middle", test_stopped_in_the_middle},
                           {"a body may be given up in the middle of a large read", test_stopped_in_a_large_read},
                           {"a lost client is told to the handler", test_cut},
                           {"a body that stalls is told from one that is cut", test_stalled},
                           {"a body that there is no memory for is not the client's fault", test_no_memory},
                           {"a body that trickles is too slow", test_too_slow},
                           {"a consumer that holds on stops the reading", test_backpressure},
                           {"the pool serves more readers than it has room for", test_pool_is_shared},
                           {"a body that waits costs kilobytes", test_many_idle_bodies},
                           CU_TEST_INFO_NULL};
    return unit_main("http_body", tests);
}
