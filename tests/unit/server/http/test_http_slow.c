/* http_slow - how long a slow reader is served: as long as it acknowledges something, and no longer. What the kernel
 * has taken is nobody's progress. Plain and through TLS, every kind of answer, and one that the kernel takes whole. */
#include "tests/rig/tls_fixture.h"
#include "tests/rig/unit_main.h"

#include <signal.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

#define IDLE_MS    1000
#define SLOW_MS    2500 /* longer than one who acknowledges nothing is kept, up to the sweep that finds it */
#define STEP_MS    20
#define STEP_BYTES 8192
#define ANSWERS    3 /* asked for at once: more than the sockets hold */

struct reader {
    struct tls_fixture *tf; /* of its server; without a context it is plain */
    const char *request;
    unsigned answers;
    size_t content; /* of all of them */
    bool late;      /* the last request follows when the content has been read, not at once */
    pthread_t thread;
    bool whole;
};

struct client {
    SSL *ssl;
    int fd;
};

static struct client client_begin(struct tls_fixture *tf)
{
    SSL *ssl = tf->ctx ? tls_open(tf, 0) : NULL;
    return (struct client){.ssl = ssl, .fd = ssl ? SSL_get_fd(ssl) : client_open(&tf->fx)};
}

static void client_end(struct client *client)
{
    SSL_free(client->ssl);
    close(client->fd);
}

static void client_ask(struct client *client, const char *request)
{
    if (client->ssl)
        tls_send_text(client->ssl, request);
    else
        client_send(client->fd, request);
}

static int client_get(struct client *client, char *to, int max)
{
    return client->ssl ? SSL_read(client->ssl, to, max) : (int)recv(client->fd, to, (size_t)max, 0);
}

/* Slowly for SLOW_MS, without ever pausing; then what is left, at once. The last answer ends in "hello". */
static void *reader_run(void *arg)
{
    struct reader *reader = arg;
    struct client client = client_begin(reader->tf);
    char buffer[5 + STEP_BYTES] = "";
    size_t got = 0;
    for (unsigned i = 0; i < reader->answers; i++)
        client_ask(&client, reader->request);
    if (!reader->late)
        client_ask(&client, GET("/hello"));
    for (int ms = 0; !reader->whole; ms += STEP_MS) {
        int n = client_get(&client, buffer + 5, STEP_BYTES);
        if (n <= 0)
            break;
        memmove(buffer, buffer + n, 5);
        got += (size_t)n;
        reader->whole = got > reader->content && memcmp(buffer, "hello", 5) == 0;
        if (reader->late && got > reader->content) {
            client_ask(&client, GET("/hello"));
            reader->late = false;
        }
        if (ms < SLOW_MS)
            sleep_ms(STEP_MS);
    }
    client_end(&client);
    return NULL;
}

/* The status of an answer that is whole. */
static int client_answer(struct client *client)
{
    struct answer answer = client->ssl ? tls_read(client->ssl) : client_read(client->fd, false);
    free(answer.body);
    return answer.whole ? answer.status : 0;
}

static void both_init(struct tls_fixture both[2], int64_t idle_ms)
{
    memset(both, 0, 2 * sizeof *both);
    for (int tls = 0; tls < 2; tls++) {
        tls_init(&both[tls]);
        both[tls].fx.cfg.idle_timeout_ms = idle_ms;
    }
}

static void both_start(struct tls_fixture both[2])
{
    for (int tls = 0; tls < 2; tls++) {
        if (tls)
            tls_start(&both[tls]);
        else
            fixture_start(&both[tls].fx);
    }
}

static void both_begin(struct tls_fixture both[2])
{
    both_init(both, IDLE_MS);
    both_start(both);
}

static void both_end(struct tls_fixture both[2])
{
    for (int tls = 0; tls < 2; tls++)
        tls_end(&both[tls]);
}

static void test_never_pauses(void)
{
    static const struct reader kinds[] = {
        {.request = GET("/shared"), .answers = ANSWERS, .content = (size_t)ANSWERS * FIXTURE_BYTES},
        {.request = GET("/file"), .answers = ANSWERS, .content = (size_t)ANSWERS * (FIXTURE_BYTES - 100)},
        {.request = GET("/stream"), .answers = ANSWERS, .content = (size_t)ANSWERS * FIXTURE_BYTES},
        {.request = GET("/medium"), .answers = 1, .content = FIXTURE_MEDIUM, .late = true},
    };
    enum { KINDS = sizeof kinds / sizeof kinds[0] };
    struct tls_fixture both[2];
    struct reader readers[2 * KINDS];
    both_begin(both);
    for (int i = 0; i < 2 * KINDS; i++) {
        readers[i] = kinds[i / 2];
        readers[i].tf = &both[i % 2];
        CU_ASSERT_EQUAL_FATAL(pthread_create(&readers[i].thread, NULL, reader_run, &readers[i]), 0);
    }
    for (int i = 0; i < 2 * KINDS; i++) {
        pthread_join(readers[i].thread, NULL);
        if (!readers[i].whole)
            fprintf(stderr, "%s, %s: cut\n", i % 2 ? "TLS" : "plain", readers[i].request);
        CU_ASSERT(readers[i].whole);
    }
    both_end(both);
}

/* Reads a little, and then nothing: whether the rest is the server's or the kernel's to send, idle_timeout is what it
 * has. */
static void test_stands_still(void)
{
    static const char *const requests[] = {GET("/shared"), GET("/file"), GET("/stream"), GET("/medium")};
    enum { KINDS = sizeof requests / sizeof requests[0] };
    struct tls_fixture both[2];
    struct client clients[2][KINDS];
    char some[1000];
    both_begin(both);
    for (int i = 0; i < 2 * KINDS; i++) {
        struct client *client = &clients[i % 2][i / 2];
        *client = client_begin(&both[i % 2]);
        for (int j = 0; j < (i / 2 < KINDS - 1 ? ANSWERS : 1); j++)
            client_ask(client, requests[i / 2]);
        CU_ASSERT(client_get(client, some, sizeof some) > 0);
    }
    sleep_ms(IDLE_MS / 2);
    for (int tls = 0; tls < 2; tls++)
        CU_ASSERT_EQUAL(http_server_connections(both[tls].fx.srv), KINDS);
    for (int tls = 0; tls < 2; tls++)
        WAIT_UNTIL(http_server_connections(both[tls].fx.srv) == 0);
    for (int i = 0; i < 2 * KINDS; i++)
        client_end(&clients[i % 2][i / 2]);
    both_end(both);
}

/* Answers in memory count while they are held for somebody, and what does not fit any more is refused. */
static void test_memory(void)
{
    struct tls_fixture both[2];
    char some[1000];
    both_init(both, 10 * IDLE_MS);
    for (int tls = 0; tls < 2; tls++)
        both[tls].fx.cfg.answer_memory_bytes = FIXTURE_BYTES + FIXTURE_BYTES / 2;
    both_start(both);
    for (int tls = 0; tls < 2; tls++) {
        struct client slow = client_begin(&both[tls]), other = client_begin(&both[tls]);
        for (int i = 0; i < ANSWERS; i++)
            client_ask(&slow, GET("/counted"));
        CU_ASSERT(client_get(&slow, some, sizeof some) > 0);
        WAIT_UNTIL(atomic_load(&both[tls].fx.requests) >= 1);
        sleep_ms(50);
        for (int i = 0; i < 2; i++) {
            client_ask(&other, GET("/counted"));
            CU_ASSERT_EQUAL(client_answer(&other), 503);
            client_ask(&other, GET("/file"));
            CU_ASSERT_EQUAL(client_answer(&other), 206);
        }
        client_end(&slow);
        WAIT_UNTIL(http_server_connections(both[tls].fx.srv) == 1);
        client_ask(&other, GET("/counted"));
        CU_ASSERT_EQUAL(client_answer(&other), 200);
        client_end(&other);
    }
    both_end(both);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    CU_TestInfo tests[] = {{"a reader that never pauses is served to the end", test_never_pauses},
                           {"one that acknowledges nothing is ended", test_stands_still},
                           {"what is held for slow readers is bounded", test_memory},
                           CU_TEST_INFO_NULL};
    return unit_main("http_slow", tests);
}
