/*
 * redis_batch - calls of many threads share exchanges, and nothing else: each has its own answer, its own error, and
 * runs once; and whatever happens to the connection in the middle of it, everybody hears of it in time.
 */
#include "backends/redis/redis_batch.h"

#include "core/check.h"
#include "core/clock.h"
#include "tests/contract/redis_server.h"
#include "tests/rig/unit_main.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENT_MS 10000 /* where answers come: the machine may be busy */
#define SHORT_MS   1000  /* where they do not */
#define CALLERS    12

static struct redis_server server;

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

/* ---- a batch on a pool on a server ---- */

struct rig {
    struct redis_config config;
    int wake_fd;
    struct redis_pool *pool;
    struct redis_batch *batch;
};

static void rig_open(struct rig *r, int port, int64_t timeout_ms)
{
    char url[64];
    struct redis_sessions_options opt = {.url = url,
                                         .prefix = "t:",
                                         .connections = 4,
                                         .connect_timeout_ms = timeout_ms,
                                         .command_timeout_ms = timeout_ms,
                                         .node_ttl_ms = 900};
    snprintf(url, sizeof url, "redis://127.0.0.1:%d", port);
    CHECK(redis_config_parse(&opt, &r->config, NULL) == BLOB_OK);
    r->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    CHECK(redis_pool_new(&r->config, NULL, r->wake_fd, &r->pool, NULL) == BLOB_OK);
    CHECK(redis_batch_new(r->pool, &r->batch, NULL) == BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(redis_pool_probe(r->pool, NULL), BLOB_OK);
}

static void rig_close(struct rig *r)
{
    redis_batch_free(r->batch);
    redis_pool_free(r->pool);
    close(r->wake_fd);
}

/* One thread's call. */
struct caller {
    struct rig *rig;
    struct redis_call call;
    pthread_t thread;
    enum blob_status st;
    redisReply *reply;
    struct blob_error err;
    int64_t took_ms;
};

static void *caller_main(void *arg)
{
    struct caller *c = arg;
    int64_t began_us = clock_steady_us();
    c->st = redis_batch_run(c->rig->batch, &c->call, &c->reply, &c->err);
    c->took_ms = (clock_steady_us() - began_us) / 1000;
    return NULL;
}

static void caller_start(struct caller *c)
{
    CHECK(pthread_create(&c->thread, NULL, caller_main, c) == 0);
}

static void caller_free(struct caller *c)
{
    if (c->st == BLOB_OK)
        freeReplyObject(c->reply);
}

/* ---- calls that go together ---- */

/* One call, and others that wait for the exchange after it: a case of its own. */
struct together {
    struct rig rig;
    struct caller first, rest[CALLERS];
    char keys[CALLERS][32];
};

static void together_open(struct together *t, int port, int64_t timeout_ms)
{
    rig_open(&t->rig, port, timeout_ms);
    for (size_t i = 0; i < CALLERS; i++) {
        snprintf(t->keys[i], sizeof t->keys[i], "t:count:%zu", i);
        redis_call_begin(&t->rest[i].call, "INCRBY");
        redis_call_text(&t->rest[i].call, t->keys[i]);
        redis_call_number(&t->rest[i].call, (int64_t)i + 1);
    }
}

static void together_close(struct together *t)
{
    caller_free(&t->first);
    for (size_t i = 0; i < CALLERS; i++)
        caller_free(&t->rest[i]);
    rig_close(&t->rig);
}

/* The first exchange is a PING, and cannot end while the server is stopped: what the others ask is all in the next. */
static void together_start(struct together *t)
{
    t->first.rig = &t->rig;
    redis_call_begin(&t->first.call, "PING");
    caller_start(&t->first);
    sleep_ms(60);
    for (size_t i = 0; i < CALLERS; i++) {
        t->rest[i].rig = &t->rig;
        caller_start(&t->rest[i]);
    }
    sleep_ms(60);
}

static void together_join(struct together *t)
{
    pthread_join(t->first.thread, NULL);
    for (size_t i = 0; i < CALLERS; i++)
        pthread_join(t->rest[i].thread, NULL);
}

/* All of it, on the server; what it gets when everybody has asked: SIGCONT, or worse. */
static void together_ask(struct together *t, int then)
{
    redis_server_signal(&server, SIGSTOP);
    together_start(t);
    redis_server_signal(&server, then);
    together_join(t);
}

static size_t count_of(const struct together *t, enum blob_status st)
{
    size_t n = 0;
    for (size_t i = 0; i < CALLERS; i++)
        n += t->rest[i].st == st;
    return n;
}

/* ---- a real server ---- */

static void empty_server(void)
{
    CHECK(redis_server_command(&server, "FLUSHALL"));
}

static bool counted(const struct caller *c, long long value)
{
    return c->st == BLOB_OK && c->reply->type == REDIS_REPLY_INTEGER && c->reply->integer == value;
}

static void test_together(void)
{
    struct together t = {0};
    empty_server();
    together_open(&t, server.port, PATIENT_MS);
    long long before = redis_server_info(&server, "total_reads_processed");
    together_ask(&t, SIGCONT);
    /* Two exchanges, and the two connections of those who ask here. */
    CU_ASSERT(redis_server_info(&server, "total_reads_processed") - before <= 6);
    CU_ASSERT_EQUAL(t.first.st, BLOB_OK);
    for (size_t i = 0; i < CALLERS; i++)
        CU_ASSERT(counted(&t.rest[i], (long long)i + 1));
    together_close(&t);
}

#define ROUNDS 2000

static void *stress_main(void *arg)
{
    struct caller *c = arg;
    for (int round = 1; round <= ROUNDS && c->st == BLOB_OK; round++) {
        struct redis_call twice = c->call;
        struct redis_asked asked[] = {{.call = &c->call}, {.call = &twice}};
        size_t count = round % 3 ? 2 : 1;
        redis_batch_run_all(c->rig->batch, asked, count);
        for (size_t i = 0; i < count; i++) {
            c->st = c->st == BLOB_OK ? asked[i].st : c->st;
            if (asked[i].st != BLOB_OK)
                continue;
            c->took_ms++;
            if (asked[i].reply->integer != c->took_ms)
                c->st = BLOB_E_CORRUPT;
            freeReplyObject(asked[i].reply);
        }
    }
    return NULL;
}

static void test_stress(void)
{
    struct rig r;
    struct caller all[CALLERS] = {0};
    char keys[CALLERS][32];
    empty_server();
    rig_open(&r, server.port, PATIENT_MS);
    for (size_t i = 0; i < CALLERS; i++) {
        all[i].rig = &r;
        snprintf(keys[i], sizeof keys[i], "t:count:%zu", i);
        redis_call_begin(&all[i].call, "INCR");
        redis_call_text(&all[i].call, keys[i]);
        CHECK(pthread_create(&all[i].thread, NULL, stress_main, &all[i]) == 0);
    }
    for (size_t i = 0; i < CALLERS; i++) {
        pthread_join(all[i].thread, NULL);
        CU_ASSERT_EQUAL(all[i].st, BLOB_OK);
        CU_ASSERT_EQUAL(all[i].took_ms, ROUNDS * 2 - ROUNDS / 3);
    }
    rig_close(&r);
}

static void test_error_of_one(void)
{
    struct together t = {0};
    empty_server();
    CHECK(redis_server_command(&server, "SET t:count:3 text"));
    together_open(&t, server.port, PATIENT_MS);
    together_ask(&t, SIGCONT);
    for (size_t i = 0; i < CALLERS; i++)
        if (i != 3)
            CU_ASSERT(counted(&t.rest[i], (long long)i + 1));
    CU_ASSERT_EQUAL(t.rest[3].st, BLOB_E_IO);
    CU_ASSERT_PTR_NOT_NULL(strstr(t.rest[3].err.text, "not an integer"));
    CU_ASSERT(redis_pool_up(t.rig.pool));
    together_close(&t);
}

/* Scripts that the server does not know, among commands: all run, and once. */
static void test_noscript(void)
{
    struct together t = {0};
    empty_server();
    CHECK(redis_server_command(&server, "SCRIPT FLUSH"));
    together_open(&t, server.port, PATIENT_MS);
    for (size_t i = 0; i < CALLERS; i += 2) {
        redis_call_begin_script(&t.rest[i].call, REDIS_SCRIPT_LEASE, 1);
        redis_call_text(&t.rest[i].call, t.keys[i]);
        redis_call_text(&t.rest[i].call, i == 4 ? "" : "me");
        redis_call_number(&t.rest[i].call, i == 4 ? -1 : 60000); /* one that fails, by its text as well */
    }
    together_ask(&t, SIGCONT);
    for (size_t i = 0; i < CALLERS; i++) {
        const struct caller *c = &t.rest[i];
        if (i % 2)
            CU_ASSERT(counted(c, (long long)i + 1))
        else if (i == 4)
            CU_ASSERT_EQUAL(c->st, BLOB_E_IO)
        else
            CU_ASSERT(c->st == BLOB_OK && c->reply->type == REDIS_REPLY_STRING && c->reply->len == 0);
    }
    together_close(&t);
}

/* However short it was idle. */
static void test_hung_up_on(void)
{
    struct rig r;
    struct caller c = {.rig = &r};
    empty_server();
    rig_open(&r, server.port, PATIENT_MS);
    redis_call_begin(&c.call, "INCR");
    redis_call_text(&c.call, "t:count");
    for (int round = 1; round <= 50; round++) {
        caller_main(&c);
        CU_ASSERT(counted(&c, round));
        caller_free(&c);
        CU_ASSERT_EQUAL(redis_server_command(&server, "CLIENT KILL TYPE normal"), 1);
    }
    CU_ASSERT(redis_pool_up(r.pool));
    rig_close(&r);
}

static void test_killed(void)
{
    struct together t = {0};
    together_open(&t, server.port, PATIENT_MS);
    together_ask(&t, SIGKILL);
    CU_ASSERT_EQUAL(t.first.st, BLOB_E_UNAVAILABLE);
    for (size_t i = 0; i < CALLERS; i++) {
        CU_ASSERT_EQUAL(t.rest[i].st, BLOB_E_UNAVAILABLE);
        CU_ASSERT(*t.rest[i].err.text != '\0');
        CU_ASSERT(t.rest[i].took_ms < PATIENT_MS / 2);
    }
    CU_ASSERT_FALSE(redis_pool_up(t.rig.pool));
    redis_server_restart(&server);
    CU_ASSERT_EQUAL(redis_pool_probe(t.rig.pool, NULL), BLOB_OK);
    CU_ASSERT_EQUAL((caller_main(&t.first), t.first.st), BLOB_OK);
    together_close(&t);
}

/* Those who wait for an exchange that is never answered are not made to wait for a second one. */
static void test_stopped(void)
{
    struct together t = {0};
    together_open(&t, server.port, SHORT_MS);
    together_ask(&t, SIGSTOP);
    redis_server_signal(&server, SIGCONT);
    CU_ASSERT_EQUAL(t.first.st, BLOB_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(t.first.err.text, "in time"));
    for (size_t i = 0; i < CALLERS; i++) {
        CU_ASSERT_EQUAL(t.rest[i].st, BLOB_E_UNAVAILABLE);
        CU_ASSERT(t.rest[i].took_ms < 2 * SHORT_MS - 200);
    }
    together_close(&t);
}

static void test_demoted(void)
{
    struct together t = {0};
    empty_server();
    together_open(&t, server.port, PATIENT_MS);
    redis_call_begin(&t.rest[CALLERS / 2].call, "ECHO");
    redis_call_text(&t.rest[CALLERS / 2].call, "a replica reads");
    CHECK(redis_server_command(&server, "REPLICAOF 127.0.0.1 1"));
    together_ask(&t, SIGCONT);
    CHECK(redis_server_command(&server, "REPLICAOF NO ONE"));
    for (size_t i = 0; i < CALLERS; i++)
        CU_ASSERT_EQUAL(t.rest[i].st, i == CALLERS / 2 ? BLOB_OK : BLOB_E_UNAVAILABLE);
    CU_ASSERT_FALSE(redis_pool_up(t.rig.pool));
    together_close(&t);
}

/* ---- a server that stops in the middle of its answers ---- */

struct liar {
    int listening, port, client;
    pthread_t thread;
    atomic_int answers; /* more of them to give, then it hangs up */
    long pause_ms;      /* before each but the first */
    atomic_bool hold;   /* the first of them */
};

static void say(const struct liar *l, const char *text)
{
    CHECK(send(l->client, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text) || errno == EPIPE ||
          errno == ECONNRESET);
}

/* Answers what a connection begins with, and as many PINGs as it may. */
static void *liar_main(void *arg)
{
    struct liar *l = arg;
    char got[4096];
    int given = 0;
    l->client = accept(l->listening, NULL, NULL);
    for (ssize_t n; l->client >= 0 && (n = recv(l->client, got, sizeof got - 1, 0)) > 0;) {
        got[n] = '\0';
        if (strstr(got, "ROLE"))
            say(l, "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
        if (strstr(got, "SCRIPT"))
            say(l, "+OK\r\n");
        for (const char *at = got; (at = strstr(at, "PING")); at += 4) {
            while (given > 0 && l->hold)
                sleep_ms(5);
            if (given > 0 && l->answers-- <= 0) {
                close(l->client);
                return NULL;
            }
            if (given++ > 2)
                sleep_ms(l->pause_ms);
            say(l, "+PONG\r\n");
        }
    }
    close(l->client);
    return NULL;
}

static void liar_start(struct liar *l)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    l->listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(l->listening >= 0 && bind(l->listening, (struct sockaddr *)&at, len) == 0 && listen(l->listening, 1) == 0 &&
          getsockname(l->listening, (struct sockaddr *)&at, &len) == 0);
    l->port = ntohs(at.sin_port);
    CHECK(pthread_create(&l->thread, NULL, liar_main, l) == 0);
}

static void liar_stop(struct liar *l)
{
    pthread_join(l->thread, NULL);
    close(l->listening);
}

/* Calls of one exchange on such a server: the first exchange is answered, and of the second as many as it likes. */
static void ask_liar(struct liar *l, struct together *t, int64_t timeout_ms)
{
    l->hold = true;
    liar_start(l);
    together_open(t, l->port, timeout_ms);
    for (size_t i = 0; i < CALLERS; i++)
        redis_call_begin(&t->rest[i].call, "PING");
    together_start(t);
    l->hold = false;
    together_join(t);
}

static void test_cut(void)
{
    struct liar l = {.answers = 1 + 5};
    struct together t = {0};
    ask_liar(&l, &t, PATIENT_MS);
    CU_ASSERT_EQUAL(t.first.st, BLOB_OK);
    CU_ASSERT_EQUAL(count_of(&t, BLOB_OK), 5);
    CU_ASSERT_EQUAL(count_of(&t, BLOB_E_UNAVAILABLE), CALLERS - 5);
    CU_ASSERT_FALSE(redis_pool_up(t.rig.pool));
    together_close(&t);
    liar_stop(&l);
}

/* Each answer within the time-out, all of them far beyond it. */
static void test_drips(void)
{
    struct liar l = {.answers = 1 + CALLERS, .pause_ms = SHORT_MS * 2 / 5};
    struct together t = {0};
    ask_liar(&l, &t, SHORT_MS);
    size_t ok = count_of(&t, BLOB_OK);
    CU_ASSERT(ok >= 1 && ok <= 5);
    CU_ASSERT_EQUAL(count_of(&t, BLOB_E_UNAVAILABLE), CALLERS - ok);
    for (size_t i = 0; i < CALLERS; i++)
        CU_ASSERT(t.rest[i].took_ms < CALLERS * SHORT_MS * 2 / 5);
    together_close(&t);
    liar_stop(&l);
}

static int start(void)
{
    redis_server_start(&server, NULL);
    return 0;
}

static int stop(void)
{
    redis_server_release(&server);
    return 0;
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_TestInfo tests[] = {{"what waits for an exchange goes in one, each with its answer", test_together},
                           {"under load each call runs once, in its thread's order", test_stress},
                           {"an error reply to one call harms no other", test_error_of_one},
                           {"scripts that are not known run by their text, and nothing runs twice", test_noscript},
                           {"a replica refuses changes one by one, and is left", test_demoted},
                           {"a connection that was hung up on is not written to", test_hung_up_on},
                           {"killed in mid-exchange: all are told, at once", test_killed},
                           {"stopped: all are told within one time-out", test_stopped},
                           {"cut between two answers: those before hold", test_cut},
                           {"answers that drip are bounded in all", test_drips},
                           CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"redis batch", start, stop, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
