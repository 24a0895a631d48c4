/* http_tls - the same answers and bodies through TLS, nothing older than 1.2, and a new certificate without a restart.
 */
#include "core/fault.h"
#include "tests/rig/tls_fixture.h"
#include "tests/rig/unit_main.h"

#include <signal.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static void test_versions(void)
{
    struct tls_fixture tf;
    tls_begin(&tf);
    static const int good[] = {TLS1_2_VERSION, TLS1_3_VERSION}, bad[] = {TLS1_VERSION, TLS1_1_VERSION};
    for (int i = 0; i < 2; i++) {
        SSL *ssl = tls_open(&tf, good[i]);
        CU_ASSERT_PTR_NOT_NULL_FATAL(ssl);
        tls_send_text(ssl, GET("/hello"));
        CU_ASSERT_EQUAL(tls_status(ssl), 200);
        tls_close(ssl);
        CU_ASSERT_PTR_NULL(tls_open(&tf, bad[i]));
    }
    int plain = client_open(&tf.fx); /* plain text is told that it is wrong here */
    client_send(plain, GET("/hello"));
    CU_ASSERT_EQUAL(client_status(plain), 400);
    close(plain);
    WAIT_UNTIL(http_server_connections(tf.fx.srv) == 0);
    tls_end(&tf);
}

static void expect_body(SSL *ssl, const char *request, const uint8_t *bytes, size_t len)
{
    tls_send_text(ssl, request);
    struct answer answer = tls_read(ssl);
    CU_ASSERT(answer.whole && answer.body_len == len && memcmp(answer.body, bytes, len) == 0);
    free(answer.body);
}

static void test_answers(void)
{
    struct tls_fixture tf;
    tls_begin(&tf);
    SSL *ssl = tls_open(&tf, 0);
    for (int i = 0; i < 5; i++) {
        expect_body(ssl, GET("/hello"), (const uint8_t *)"hello", 5);
        expect_body(ssl, GET("/shared"), tf.fx.bytes, FIXTURE_BYTES);
        expect_body(ssl, GET("/file"), tf.fx.bytes + 100, FIXTURE_BYTES - 100);
        expect_body(ssl, GET("/smallfile"), tf.fx.bytes + 100, 1000);
        expect_body(ssl, GET("/stream"), tf.fx.bytes, FIXTURE_BYTES);
    }
    for (unsigned warm = 0; warm < 6; warm++) {
        fault_arm("http.cold", EAGAIN, warm, 1 + warm % 2); /* a worker brings what is not in memory */
        expect_body(ssl, GET("/file"), tf.fx.bytes + 100, FIXTURE_BYTES - 100);
        expect_body(ssl, GET("/smallfile"), tf.fx.bytes + 100, 1000);
    }
    fault_disarm_all();
    tls_send_text(ssl, GET("/short"));
    struct answer answer = tls_read(ssl);
    CU_ASSERT_FALSE(answer.whole);
    free(answer.body);
    tls_close(ssl);
    WAIT_UNTIL(atomic_load(&tf.fx.done) == 38);
    WAIT_UNTIL(atomic_load(&tf.fx.released) == 28);
    tls_end(&tf);
}

/* More is asked for than the sockets hold, and read late: also with new keys in between, and where nothing beyond a
 * record may be held. */
static void slow_reader(int version, size_t answer_memory)
{
    enum { ANSWERS = 5 };
    static const char *const requests[] = {GET("/shared"), GET("/file"), GET("/stream"), GET("/counted"),
                                           GET("/takeback")};
    struct tls_fixture tf;
    tls_init(&tf);
    tf.fx.cfg.answer_memory_bytes = answer_memory;
    tls_start(&tf);
    for (size_t i = 0; i < 5; i++) {
        SSL *ssl = tls_open(&tf, version);
        size_t skip = i == 1 ? 100 : 0;
        for (int j = 0; j < ANSWERS; j++)
            tls_send_text(ssl, requests[i]);
        sleep_ms(100);
        CU_ASSERT((i == 3 && answer_memory > 0) || atomic_load(&tf.fx.done) < i * (ANSWERS + 1) + ANSWERS);
        for (int j = 0; j < ANSWERS; j++) {
            if (version == TLS1_3_VERSION)
                CU_ASSERT_EQUAL(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED), 1);
            struct answer answer = tls_read(ssl);
            bool refused = answer.status == 503;
            CU_ASSERT(!refused || (i == 3 && answer_memory > 0));
            CU_ASSERT(answer.whole);
            CU_ASSERT(refused || (answer.body_len == FIXTURE_BYTES - skip &&
                                  memcmp(answer.body, tf.fx.bytes + skip, FIXTURE_BYTES - skip) == 0));
            free(answer.body);
        }
        tls_send_text(ssl, GET("/hello")); /* and nothing was left over */
        CU_ASSERT_EQUAL(tls_status(ssl), 200);
        tls_close(ssl);
        WAIT_UNTIL(atomic_load(&tf.fx.done) == (i + 1) * (ANSWERS + 1));
    }
    CU_ASSERT(atomic_load(&tf.fx.taken_back) > 0);
    CU_ASSERT_EQUAL(atomic_load(&tf.fx.lent), 0);
    tls_end(&tf);
}

static void test_slow_reader(void)
{
    slow_reader(TLS1_3_VERSION, 0);
    slow_reader(TLS1_2_VERSION, 0);
    slow_reader(TLS1_3_VERSION, 1);
}

static void test_reader_leaves(void)
{
    static const char *const requests[] = {GET("/shared"), GET("/file"), GET("/stream"), GET("/takeback")};
    struct tls_fixture tf;
    tls_begin(&tf);
    for (int i = 0; i < 40; i++) {
        SSL *ssl = tls_open(&tf, 0);
        char some[1000];
        tls_send_text(ssl, requests[i % 4]);
        if (i >= 3)
            CU_ASSERT(SSL_read(ssl, some, sizeof some) > 0);
        tls_close(ssl); /* with bytes unread: a reset */
    }
    WAIT_UNTIL(http_server_connections(tf.fx.srv) == 0);
    WAIT_UNTIL(atomic_load(&tf.fx.done) == atomic_load(&tf.fx.requests));
    WAIT_UNTIL(atomic_load(&tf.fx.lent) == 0);
    CU_ASSERT_EQUAL(atomic_load(&tf.fx.released) + atomic_load(&tf.fx.sources_closed), atomic_load(&tf.fx.done));
    tls_end(&tf);
}

/* Each asks for an answer of a few bytes. Whoever takes none of them is not given memory without end. */
static void test_new_keys_for_ever(void)
{
    struct tls_fixture tf;
    tls_begin(&tf);
    SSL *ssl = tls_open(&tf, TLS1_3_VERSION);
    struct timeval short_patience = {.tv_sec = 1};
    setsockopt(SSL_get_fd(ssl), SOL_SOCKET, SO_SNDTIMEO, &short_patience, sizeof short_patience);
    int sent = 0;
    while (sent < 200000 && SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED) == 1 && SSL_do_handshake(ssl) == 1)
        sent++;
    SSL *other = tls_open(&tf, 0);
    CU_ASSERT_PTR_NOT_NULL_FATAL(other);
    tls_send_text(other, GET("/hello"));
    CU_ASSERT_EQUAL(tls_status(other), 200);
    tls_close(other);
    tls_close(ssl);
    WAIT_UNTIL(http_server_connections(tf.fx.srv) == 0);
    tls_end(&tf);
}

static void test_bodies(void)
{
    static const size_t lengths[] = {1, 5000, 16384, 16385, 100000, FIXTURE_BYTES};
    struct tls_fixture tf;
    tls_begin(&tf);
    SSL *ssl = tls_open(&tf, 0);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char head[128], expected[64];
        snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %zu\r\n\r\n", lengths[i]);
        tls_send_text(ssl, head);
        tls_send(ssl, tf.fx.bytes, lengths[i]);
        struct answer answer = tls_read(ssl);
        snprintf(expected, sizeof expected, "%zu ", lengths[i]);
        CU_ASSERT_EQUAL(answer.status, 200);
        CU_ASSERT(answer.body && strncmp((char *)answer.body, expected, strlen(expected)) == 0);
        free(answer.body);
    }
    tls_send_text(ssl, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    CU_ASSERT_EQUAL(tls_status(ssl), 100);
    tls_send_text(ssl, "ab");
    CU_ASSERT_EQUAL(tls_status(ssl), 200);
    tls_close(ssl);
    tls_end(&tf);
}

/* One record that holds the end of a body and requests after it: none of it may wait for the socket. */
static void test_pipelined_in_a_record(void)
{
    static const char requests[] = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" GET(
        "/hello") "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n" GET("/204")
        GET("/hello");
    struct tls_fixture tf;
    tls_begin(&tf);
    SSL *ssl = tls_open(&tf, 0);
    static const int expected[] = {200, 200, 200, 204, 200};
    for (int i = 0; i < 10; i++) {
        tls_send_text(ssl, requests);
        for (int j = 0; j < 5; j++)
            CU_ASSERT_EQUAL(tls_status(ssl), expected[j]);
    }
    /* The head alone first, so that the record with the rest is read by the body's reader. */
    tls_send_text(ssl, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    sleep_ms(50);
    tls_send_text(ssl, "abc" GET("/hello"));
    CU_ASSERT_EQUAL(tls_status(ssl), 200);
    CU_ASSERT_EQUAL(tls_status(ssl), 200);
    tls_close(ssl);
    tls_end(&tf);
}

static void test_refused_while_sending(void)
{
    struct tls_fixture tf;
    tls_begin(&tf);
    SSL *ssl = tls_open(&tf, 0);
    tls_send_text(ssl, "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n");
    for (int i = 0; i < 2; i++)
        tls_send(ssl, tf.fx.bytes, FIXTURE_BYTES);
    CU_ASSERT_EQUAL(tls_status(ssl), 413);
    char c;
    CU_ASSERT_EQUAL(SSL_read(ssl, &c, 1), 0);
    CU_ASSERT_EQUAL(SSL_get_error(ssl, 0), SSL_ERROR_ZERO_RETURN); /* closed by TLS, not cut */
    tls_close(ssl);
    tls_end(&tf);
}

static long serial_seen(SSL *ssl)
{
    X509 *cert = SSL_get1_peer_certificate(ssl);
    long serial = cert ? ASN1_INTEGER_get(X509_get_serialNumber(cert)) : -1;
    X509_free(cert);
    return serial;
}

static void test_reload(void)
{
    struct tls_fixture tf;
    struct blob_error err;
    tls_begin(&tf);
    SSL *old = tls_open(&tf, 0);
    CU_ASSERT_EQUAL(serial_seen(old), 1);
    certificate_write(&tf, 2);
    CU_ASSERT_EQUAL(http_server_reload_tls(tf.fx.srv, NULL, &err), BLOB_OK);
    SSL *fresh = tls_open(&tf, 0);
    CU_ASSERT_EQUAL(serial_seen(fresh), 2);
    FILE *broken = fopen(tf.cert, "w");
    fputs("no certificate\n", broken);
    fclose(broken);
    CU_ASSERT_EQUAL(http_server_reload_tls(tf.fx.srv, NULL, &err), BLOB_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, tf.cert));
    SSL *still = tls_open(&tf, 0);
    CU_ASSERT_EQUAL(serial_seen(still), 2);
    SSL *const all[] = {old, fresh, still};
    for (int i = 0; i < 3; i++) {
        tls_send_text(all[i], GET("/hello"));
        CU_ASSERT_EQUAL(tls_status(all[i]), 200);
        tls_close(all[i]);
    }
    struct http_server *none = NULL;
    struct http_config cfg = tf.fx.cfg;
    CU_ASSERT_EQUAL(http_server_new(&cfg, &none, &err), BLOB_E_INVALID);
    tls_end(&tf);
}

struct tls_crowd {
    struct tls_fixture *tf;
    unsigned failed;
};

static void *crowd_run(void *arg)
{
    struct tls_crowd *crowd = arg;
    for (int i = 0; i < 20; i++) {
        SSL *ssl = tls_open(crowd->tf, 0);
        crowd->failed += ssl == NULL;
        if (!ssl)
            continue;
        tls_send_text(ssl, GET("/smallfile"));
        crowd->failed += tls_status(ssl) != 206;
        tls_close(ssl);
    }
    return NULL;
}

static void test_reload_under_load(void)
{
    enum { THREADS = 4 };
    struct tls_fixture tf;
    tls_begin(&tf);
    pthread_t threads[THREADS];
    struct tls_crowd crowds[THREADS];
    for (int i = 0; i < THREADS; i++) {
        crowds[i] = (struct tls_crowd){.tf = &tf};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, crowd_run, &crowds[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        CU_ASSERT_EQUAL(http_server_reload_tls(tf.fx.srv, NULL, NULL), BLOB_OK);
        sleep_ms(2);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(crowds[i].failed, 0);
    }
    tls_end(&tf);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    CU_TestInfo tests[] = {{"TLS 1.2 and 1.3 are spoken, nothing older", test_versions},
                           {"every kind of answer arrives byte for byte", test_answers},
                           {"also at a slow reader's pace", test_slow_reader},
                           {"a reader may leave at any time", test_reader_leaves},
                           {"one that asks for new keys for ever harms nobody", test_new_keys_for_ever},
                           {"bodies of any length arrive whole", test_bodies},
                           {"what follows a body in its record is served", test_pipelined_in_a_record},
                           {"a refused client that sends on sees the answer", test_refused_while_sending},
                           {"a new certificate is for new connections", test_reload},
                           {"reloading disturbs nobody", test_reload_under_load},
                           CU_TEST_INFO_NULL};
    return unit_main("http_tls", tests);
}
