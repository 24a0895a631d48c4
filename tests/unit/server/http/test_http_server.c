/* http_server - the life of connections: kept alive, pipelined, late, too many, drained; and of the port. */
#include "tests/rig/http_fixture.h"
#include "tests/rig/unit_main.h"

#include <sys/resource.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static void test_keep_alive(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    for (int i = 0; i < 50; i++) {
        CU_ASSERT(client_send(fd, GET("/hello")));
        struct answer answer = client_read(fd, false);
        CU_ASSERT_EQUAL(answer.status, 200);
        CU_ASSERT_EQUAL(memcmp(answer.body, "hello", 5), 0);
        CU_ASSERT_PTR_NULL(answer_header(&answer, "Connection"));
        CU_ASSERT_PTR_NULL(answer_header(&answer, "Content-Type"));
        CU_ASSERT_PTR_NOT_NULL(answer_header(&answer, "Date"));
        free(answer.body);
    }
    CU_ASSERT_EQUAL(http_server_connections(fx.srv), 1);
    close(fd);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    CU_ASSERT_EQUAL(atomic_load(&fx.done), 50);
    fixture_end(&fx);
}

static void test_asked_to_close(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: TE, close\r\n\r\n");
    struct answer answer = client_read(fd, false);
    CU_ASSERT_STRING_EQUAL(answer_header(&answer, "Connection"), "close");
    free(answer.body);
    CU_ASSERT(client_closed(fd));
    close(fd);

    fd = client_open(&fx);
    client_send(fd, "GET /hello HTTP/1.0\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    CU_ASSERT(client_closed(fd));
    close(fd);

    fd = client_open(&fx);
    for (int i = 0; i < 3; i++) {
        client_send(fd, "GET /hello HTTP/1.0\r\nConnection: x, keep-alive\r\n\r\n");
        answer = client_read(fd, false);
        CU_ASSERT_EQUAL(answer.status, 200);
        CU_ASSERT_STRING_EQUAL(answer_header(&answer, "Connection"), "keep-alive");
        free(answer.body);
    }
    close(fd);
    fixture_end(&fx);
}

static void test_pipelining(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    static const char round[] =
        GET("/hello") "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET("/204")
            GET("/job") "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" GET(
                "/file");
    static const int expected[] = {200, 200, 204, 200, 200, 206};
    fixture_release(&fx);
    for (int i = 0; i < 20; i++)
        CU_ASSERT(client_send(fd, round));
    for (int i = 0; i < 120; i++)
        CU_ASSERT_EQUAL(client_status(fd), expected[i % 6]);
    close(fd);
    fixture_end(&fx);
}

enum { FLOOD = 40000 };

static void *flood_send(void *arg)
{
    static const char request[] = "GET /hello HTTP/1.1\r\nHost:\r\n\r\n";
    static char many[100 * (sizeof request - 1)];
    for (size_t i = 0; i < 100; i++)
        memcpy(many + i * (sizeof request - 1), request, sizeof request - 1);
    for (int i = 0; i < FLOOD / 100; i++)
        CU_ASSERT(client_send_bytes(*(int *)arg, many, sizeof many));
    return NULL;
}

/* Faster than it can be answered: the rest has to wait in the socket, and nothing is lost. */
static void test_pipelined_flood(void)
{
    struct fixture fx;
    pthread_t sender;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&sender, NULL, flood_send, &fd), 0);
    char buf[65536];
    size_t bodies = 0, at = 0;
    while (bodies < FLOOD) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        CU_ASSERT_FATAL(n > 0);
        for (ssize_t i = 0; i < n; i++) { /* "\r\n\r\nhello" */
            at = buf[i] == "\r\n\r\nhello"[at] ? at + 1 : buf[i] == '\r';
            bodies += at == 9;
            at %= 9;
        }
    }
    pthread_join(sender, NULL);
    WAIT_UNTIL(atomic_load(&fx.done) == FLOOD);
    close(fd);
    fixture_end(&fx);
}

static void test_pipelined_fault(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    client_send(fd, GET("/hello") "GET / HTTP/1.1\nHost: a\r\n\r\n" GET("/hello"));
    CU_ASSERT_EQUAL(client_status(fd), 200);
    CU_ASSERT_EQUAL(client_status(fd), 400);
    CU_ASSERT(client_closed(fd));
    CU_ASSERT_EQUAL(atomic_load(&fx.requests), 1);
    close(fd);
    fixture_end(&fx);
}

static void test_half_close(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    client_send(fd, GET("/file"));
    shutdown(fd, SHUT_WR);
    struct answer answer = client_read(fd, false);
    CU_ASSERT(answer.whole && answer.body_len == FIXTURE_BYTES - 100);
    free(answer.body);
    CU_ASSERT(client_closed(fd));
    close(fd);

    fd = client_open(&fx);
    client_send(fd, GET("/job"));
    shutdown(fd, SHUT_WR);
    WAIT_UNTIL(atomic_load(&fx.requests) == 2);
    fixture_release(&fx);
    CU_ASSERT_EQUAL(client_status(fd), 200);
    close(fd);
    fixture_end(&fx);
}

static void test_client_gone(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    for (int i = 0; i < 10; i++) {
        int fd = client_open(&fx);
        client_send(fd, GET("/job"));
        WAIT_UNTIL(atomic_load(&fx.requests) == (unsigned)i + 1);
        struct linger hard = {.l_onoff = 1};
        if (i % 2)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
        close(fd);
    }
    pthread_mutex_lock(&fx.lock);
    unsigned gone = 0;
    for (struct fixture_job *job = fx.jobs; job; job = job->next)
        gone += http_request_gone(job->req);
    pthread_mutex_unlock(&fx.lock);
    CU_ASSERT_EQUAL(gone, 5); /* those that reset; the others might still be reading */
    fixture_release(&fx);
    WAIT_UNTIL(atomic_load(&fx.done) == 10);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    fixture_end(&fx);
}

static void test_slow_head(void)
{
    struct fixture fx;
    fixture_init(&fx);
    fx.cfg.head_timeout_ms = 400;
    fixture_start(&fx);
    int silent = client_open(&fx), slow = client_open(&fx), kept = client_open(&fx);
    client_send(kept, GET("/hello"));
    CU_ASSERT_EQUAL(client_status(kept), 200);
    for (int i = 0; i < 8; i++) { /* a byte every 50 ms is not silence, but it is late all the same */
        client_send_bytes(slow, &"GET / HTTP/1.1\r\n"[i], 1);
        sleep_ms(50);
    }
    CU_ASSERT_EQUAL(client_status(slow), 408);
    CU_ASSERT(client_closed(slow));
    CU_ASSERT(client_closed(silent));
    sleep_ms(100);
    client_send(kept, GET("/hello")); /* idle between requests is another limit */
    CU_ASSERT_EQUAL(client_status(kept), 200);
    close(silent);
    close(slow);
    close(kept);
    fixture_end(&fx);
}

static void test_idle(void)
{
    struct fixture fx;
    fixture_init(&fx);
    fx.cfg.idle_timeout_ms = 300;
    fixture_start(&fx);
    int fd = client_open(&fx);
    client_send(fd, GET("/hello"));
    CU_ASSERT_EQUAL(client_status(fd), 200);
    CU_ASSERT(client_closed(fd));
    CU_ASSERT_EQUAL(atomic_load(&fx.faults), 0);
    close(fd);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    fixture_end(&fx);
}

static void test_stalled_reader(void)
{
    struct fixture fx;
    fixture_init(&fx);
    fx.cfg.idle_timeout_ms = 300;
    fixture_start(&fx);
    int fd = client_open(&fx);
    for (int i = 0; i < 10; i++) /* more than the socket buffers hold */
        client_send(fd, GET("/file"));
    sleep_ms(100);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    WAIT_UNTIL(atomic_load(&fx.released) == atomic_load(&fx.done)); /* bufferevent lets the output go a turn later */
    close(fd);
    fixture_end(&fx);
}

static void test_max_connections(void)
{
    struct fixture fx;
    fixture_init(&fx);
    fx.cfg.max_connections = 4;
    fixture_start(&fx);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = client_open(&fx);
        client_send(fds[i], GET("/hello"));
        CU_ASSERT_EQUAL(client_status(fds[i]), 200);
    }
    int over = client_open(&fx);
    client_send(over, GET("/hello"));
    CU_ASSERT_EQUAL(client_status(over), 503);
    CU_ASSERT(client_closed(over));
    close(over);
    int crowd[64]; /* far over the limit nothing is accepted, and it must not stay that way */
    for (int i = 0; i < 64; i++)
        crowd[i] = client_open(&fx);
    sleep_ms(50);
    CU_ASSERT(http_server_connections(fx.srv) <= 4 + 16 + 4);
    for (int i = 0; i < 64; i++)
        close(crowd[i]);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    /* What waited to be accepted is dead by now, and counts for a moment. */
    int status = 0;
    for (int i = 0; i < 100 && status != 200; i++) {
        int after = client_open(&fx);
        client_send(after, GET("/hello"));
        status = client_status(after);
        close(after);
        sleep_ms(status == 200 ? 0 : 20);
    }
    CU_ASSERT_EQUAL(status, 200);
    fixture_end(&fx);
}

static double cpu_seconds(void)
{
    struct timespec spent;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (double)spent.tv_sec + (double)spent.tv_nsec / 1e9;
}

static void test_out_of_descriptors(void)
{
    enum { CLIENTS = 4 };
    struct fixture fx;
    int fds[CLIENTS];
    struct rlimit before, none;
    fixture_begin(&fx);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(fx.port)};
    inet_pton(AF_INET, "127.0.0.1", &addr.sin_addr);
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 3;
    setrlimit(RLIMIT_NOFILE, &none);
    double spent = cpu_seconds();
    for (int i = 0; i < CLIENTS; i++) {
        CU_ASSERT_EQUAL(connect(fds[i], (struct sockaddr *)&addr, sizeof addr), 0);
        client_send(fds[i], GET("/hello"));
    }
    sleep_ms(400);
    CU_ASSERT(cpu_seconds() - spent < 0.2); /* it must not spin on what it cannot accept */
    CU_ASSERT_EQUAL(atomic_load(&fx.requests), 0);
    setrlimit(RLIMIT_NOFILE, &before);
    for (int i = 0; i < CLIENTS; i++) {
        CU_ASSERT_EQUAL(client_status(fds[i]), 200);
        close(fds[i]);
    }
    fixture_end(&fx);
}

/* False once nobody listens; every loop closes its listener in its own time. */
static bool still_listening(const struct fixture *fx)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(fx->port)};
    inet_pton(AF_INET, "127.0.0.1", &addr.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool connected = connect(fd, (struct sockaddr *)&addr, sizeof addr) == 0;
    close(fd);
    return connected;
}

static void test_drain(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int idle = client_open(&fx), busy = client_open(&fx);
    client_send(idle, GET("/hello"));
    CU_ASSERT_EQUAL(client_status(idle), 200);
    client_send(busy, GET("/job"));
    WAIT_UNTIL(atomic_load(&fx.requests) == 2);
    CU_ASSERT_EQUAL(http_server_in_flight(fx.srv), 1);
    http_server_drain(fx.srv);
    http_server_drain(fx.srv);
    CU_ASSERT(client_closed(idle));
    WAIT_UNTIL(!still_listening(&fx));
    fixture_release(&fx);
    struct answer answer = client_read(busy, false);
    CU_ASSERT_EQUAL(answer.status, 200);
    CU_ASSERT_STRING_EQUAL(answer_header(&answer, "Connection"), "close");
    free(answer.body);
    CU_ASSERT(client_closed(busy));
    close(idle);
    close(busy);
    fixture_end(&fx);
}

static void test_port(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    char listen[32];
    snprintf(listen, sizeof listen, "127.0.0.1:%u", (unsigned)fx.port);
    struct http_config cfg = fx.cfg;
    cfg.listen = listen;
    struct http_server *second = NULL;
    struct blob_error err;
    CU_ASSERT_EQUAL(http_server_new(&cfg, &second, &err), BLOB_E_UNAVAILABLE);
    CU_ASSERT_PTR_NULL(second);
    int fd = client_open(&fx); /* left in TIME_WAIT on the server's side */
    client_send(fd, "GET /hello HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    CU_ASSERT_EQUAL(client_status(fd), 200);
    CU_ASSERT(client_closed(fd));
    close(fd);
    fixture_end(&fx);
    CU_ASSERT_EQUAL(http_server_new(&cfg, &second, &err), BLOB_OK); /* a restart is not in its own way */
    http_server_free(second);
}

static void test_addresses(void)
{
    static const char *const bad[] = {"", "127.0.0.1", "127.0.0.1:", ":x", "::1:80", "127.0.0.1:99999x", "300.1.1.1:0"};
    struct fixture fx;
    struct blob_error err;
    fixture_begin(&fx);
    struct http_config cfg = fx.cfg;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct http_server *none = NULL;
        cfg.listen = bad[i];
        CU_ASSERT_EQUAL(http_server_new(&cfg, &none, &err), BLOB_E_INVALID);
    }
    struct http_server *six = NULL;
    cfg.listen = "[::1]:0";
    enum blob_status st = http_server_new(&cfg, &six, &err);
    CU_ASSERT(st == BLOB_OK || err.sys_errno == EAFNOSUPPORT || err.sys_errno == EADDRNOTAVAIL);
    http_server_free(six);
    fixture_end(&fx);
}

static void test_freed_while_open(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int idle = client_open(&fx), reading = client_open(&fx), half = client_open(&fx);
    client_send(half, "GET / HT");
    client_send(reading, GET("/shared") GET("/file"));
    WAIT_UNTIL(atomic_load(&fx.requests) >= 1);
    sleep_ms(20);
    http_server_free(fx.srv);
    CU_ASSERT_EQUAL(atomic_load(&fx.released), atomic_load(&fx.requests));
    CU_ASSERT_EQUAL(atomic_load(&fx.done), atomic_load(&fx.requests));
    close(idle);
    close(reading);
    close(half);
    close(fx.file);
    free(fx.bytes);
}

int main(void)
{
    CU_TestInfo tests[] = {{"a connection serves request after request", test_keep_alive},
                           {"a connection is closed or kept as asked", test_asked_to_close},
                           {"pipelined requests are answered in order", test_pipelining},
                           {"a flood of pipelined requests is answered", test_pipelined_flood},
                           {"a pipelined fault ends the connection", test_pipelined_fault},
                           {"a half-closed client gets its answer", test_half_close},
                           {"a client that went away costs nothing", test_client_gone},
                           {"a head has a deadline however it trickles", test_slow_head},
                           {"an idle connection is closed in silence", test_idle},
                           {"a client that reads nothing is dropped", test_stalled_reader},
                           {"connections are limited, and recover", test_max_connections},
                           {"without descriptors it waits, and recovers", test_out_of_descriptors},
                           {"draining closes idle and ends busy ones", test_drain},
                           {"a port that is taken is an error, a restart is not", test_port},
                           {"addresses are judged", test_addresses},
                           {"freeing drops what is open", test_freed_while_open},
                           CU_TEST_INFO_NULL};
    return unit_main("http_server", tests);
}
