/* http_reply - answers from memory, files and sources arrive byte for byte; what breaks is never taken for whole; what
 * was lent comes back exactly once. */
#include "tests/rig/http_fixture.h"
#include "tests/rig/unit_main.h"

#define GET(path)  "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"
#define HEAD(path) "HEAD " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static bool body_is(const struct answer *answer, const uint8_t *bytes, size_t len)
{
    return answer->whole && answer->body_len == len && memcmp(answer->body, bytes, len) == 0;
}

static void expect_body(int fd, const char *request, int status, const uint8_t *bytes, size_t len)
{
    client_send(fd, request);
    struct answer answer = client_read(fd, false);
    CU_ASSERT_EQUAL(answer.status, status);
    CU_ASSERT(body_is(&answer, bytes, len));
    CU_ASSERT_STRING_EQUAL(answer_header(&answer, "X-Test"), "yes");
    free(answer.body);
}

static void test_kinds(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    for (int i = 0; i < 10; i++) {
        expect_body(fd, GET("/hello"), 200, (const uint8_t *)"hello", 5);
        expect_body(fd, GET("/shared"), 200, fx.bytes, FIXTURE_BYTES);
        expect_body(fd, GET("/file"), 206, fx.bytes + 100, FIXTURE_BYTES - 100);
        expect_body(fd, GET("/smallfile"), 206, fx.bytes + 100, 1000);
        expect_body(fd, GET("/stream"), 200, fx.bytes, FIXTURE_BYTES);
    }
    WAIT_UNTIL(atomic_load(&fx.done) == 50);
    CU_ASSERT_EQUAL(atomic_load(&fx.released), 30);
    CU_ASSERT_EQUAL(atomic_load(&fx.sources_closed), 10);
    CU_ASSERT_EQUAL(atomic_load(&fx.lent), 0);
    close(fd);
    fixture_end(&fx);
}

/* More is asked for than the sockets can hold, and read late: everything passes through the waiting paths. */
static void test_slow_reader(void)
{
    enum { ANSWERS = 8 };
    static const char *const requests[] = {GET("/shared"), GET("/file"), GET("/stream"), GET("/takeback")};
    struct fixture fx;
    fixture_begin(&fx);
    for (size_t i = 0; i < 4; i++) {
        int fd = client_open(&fx);
        size_t skip = i == 1 ? 100 : 0;
        for (int j = 0; j < ANSWERS; j++)
            client_send(fd, requests[i]);
        sleep_ms(100);
        CU_ASSERT(atomic_load(&fx.done) < i * ANSWERS + ANSWERS);
        for (int j = 0; j < ANSWERS; j++) {
            struct answer answer = client_read(fd, false);
            CU_ASSERT(body_is(&answer, fx.bytes + skip, FIXTURE_BYTES - skip));
            free(answer.body);
        }
        close(fd);
    }
    CU_ASSERT(atomic_load(&fx.taken_back) > 0);
    CU_ASSERT_EQUAL(atomic_load(&fx.lent), 0);
    fixture_end(&fx);
}

static void test_without_content(void)
{
    static const char *const paths[] = {HEAD("/hello"), HEAD("/shared"), HEAD("/file"), HEAD("/smallfile"),
                                        HEAD("/stream")};
    static const char *const lengths[] = {"5", "3145745", "3145645", "1000", "3145745"};
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    for (size_t i = 0; i < 5; i++) {
        client_send(fd, paths[i]);
        struct answer answer = client_read(fd, true);
        CU_ASSERT_STRING_EQUAL(answer_header(&answer, "Content-Length"), lengths[i]);
        free(answer.body);
    }
    WAIT_UNTIL(atomic_load(&fx.done) == 5);
    CU_ASSERT_EQUAL(atomic_load(&fx.released), 3);
    CU_ASSERT_EQUAL(atomic_load(&fx.sources_closed), 1);
    static const char *const bare[] = {GET("/204"), GET("/304")};
    for (size_t i = 0; i < 2; i++) {
        client_send(fd, bare[i]);
        struct answer answer = client_read(fd, false);
        CU_ASSERT_EQUAL(answer.status, i == 0 ? 204 : 304);
        CU_ASSERT_PTR_NULL(answer_header(&answer, "Content-Length"));
        free(answer.body);
    }
    client_send(fd, GET("/hello")); /* and nothing was left over */
    CU_ASSERT_EQUAL(client_status(fd), 200);
    close(fd);
    fixture_end(&fx);
}

static void test_broken(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    client_send(fd, GET("/short"));
    struct answer answer = client_read(fd, false);
    CU_ASSERT_EQUAL(answer.status, 200);
    CU_ASSERT_FALSE(answer.whole);
    free(answer.body);
    close(fd);

    fd = client_open(&fx);
    client_send(fd, GET("/abort"));
    answer = client_read(fd, false);
    CU_ASSERT_FALSE(answer.whole);
    free(answer.body);
    close(fd);
    WAIT_UNTIL(atomic_load(&fx.done) == 2);
    CU_ASSERT_EQUAL(atomic_load(&fx.released), 1);
    CU_ASSERT_EQUAL(atomic_load(&fx.sources_closed), 1);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    fixture_end(&fx);
}

static void test_reader_leaves(void)
{
    static const char *const requests[] = {GET("/shared"), GET("/file"), GET("/stream"), GET("/takeback")};
    struct fixture fx;
    fixture_begin(&fx);
    for (int i = 0; i < 40; i++) {
        int fd = client_open(&fx);
        char some[1000];
        client_send(fd, requests[i % 4]);
        CU_ASSERT(recv(fd, some, sizeof some, 0) > 0);
        close(fd); /* with bytes unread: a reset */
    }
    WAIT_UNTIL(atomic_load(&fx.done) == 40);
    WAIT_UNTIL(atomic_load(&fx.released) == 20);
    CU_ASSERT_EQUAL(atomic_load(&fx.sources_closed), 20);
    WAIT_UNTIL(http_server_connections(fx.srv) == 0);
    WAIT_UNTIL(atomic_load(&fx.lent) == 0);
    fixture_end(&fx);
}

struct crowd {
    struct fixture *fx;
    unsigned failed;
    unsigned seed;
};

static void *crowd_run(void *arg)
{
    static const char *const requests[] = {GET("/shared"), GET("/file"), GET("/stream"), GET("/hello"), GET("/job")};
    static const size_t lengths[] = {FIXTURE_BYTES, FIXTURE_BYTES - 100, FIXTURE_BYTES, 5, 3};
    struct crowd *crowd = arg;
    for (int i = 0; i < 6; i++) {
        int fd = client_open(crowd->fx);
        for (int j = 0; j < 4; j++) {
            unsigned which = (crowd->seed = crowd->seed * 1103515245 + 12345) >> 16;
            client_send(fd, requests[which % 5]);
            struct answer answer = client_read(fd, false);
            crowd->failed += !answer.whole || answer.body_len != lengths[which % 5];
            free(answer.body);
        }
        close(fd);
    }
    return NULL;
}

static void test_crowd(void)
{
    enum { THREADS = 8 };
    struct fixture fx;
    fixture_begin(&fx);
    fixture_release(&fx);
    pthread_t threads[THREADS];
    struct crowd crowds[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        crowds[i] = (struct crowd){.fx = &fx, .seed = i};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, crowd_run, &crowds[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(crowds[i].failed, 0);
    }
    WAIT_UNTIL(atomic_load(&fx.done) == THREADS * 24);
    fixture_end(&fx);
}

int main(void)
{
    CU_TestInfo tests[] = {{"every kind of answer arrives byte for byte", test_kinds},
                           {"also at a slow reader's pace", test_slow_reader},
                           {"HEAD, 204 and 304 have no content", test_without_content},
                           {"a short file and an aborted source break off", test_broken},
                           {"a reader may leave at any time", test_reader_leaves},
                           {"many at once are served alike", test_crowd},
                           CU_TEST_INFO_NULL};
    return unit_main("http_reply", tests);
}
