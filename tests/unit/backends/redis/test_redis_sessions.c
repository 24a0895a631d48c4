/*
 * redis_sessions - passes the contract on a real redis-server; answers fast and comes back by itself when that server
 * is killed, stopped, emptied or failed over; refuses what cannot go well, saying what to change.
 */
#include "backends/redis/redis_config.h"
#include "backends/redis/redis_scripts.h"
#include "tests/contract/session_store_contract.h"
#include "tests/rig/redis_rig.h"

#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdatomic.h>

static enum blob_status open_here(struct session_store **out, struct blob_error *err)
{
    struct redis_sessions_options opt = options();
    return redis_sessions_open(&opt, out, err);
}

static int use_redis(void)
{
    static const struct session_contract contract = {
        .name = "redis", .reset = flush_all, .open = open_here, .persists = false};
    session_contract_use(&contract);
    return start_plain();
}

/* ---- Redis is away ---- */

static void test_killed_and_restarted(void)
{
    struct session_store *s = joined_here();
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_OK);
    redis_server_signal(&server, SIGKILL);
    int64_t began = clock_steady_us();
    for (int i = 0; i < 100; i++)
        CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_E_UNAVAILABLE);
    CU_ASSERT(clock_steady_us() - began < 4 * TIMEOUT_MS * 1000); /* not one time-out each */
    CU_ASSERT_EQUAL(session_store_check(s, NULL), BLOB_E_UNAVAILABLE);
    redis_server_restart(&server);
    int64_t took = wait_for(s, 3000);
    CU_ASSERT(took >= 0 && took < 2000);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_OK);
    session_store_close(s);
}

struct load {
    struct session_store *s;
    atomic_bool stop;
    atomic_int ok, away, wrong;
    atomic_llong slowest_us;
};

/* Each thread keeps a session of its own and checks that no change that was answered OK is ever gone. */
static void *load_main(void *arg)
{
    struct load *l = arg;
    struct uuid id;
    uint64_t epoch = 0;
    while (!l->stop) {
        int64_t began = clock_steady_us();
        enum blob_status st;
        if (epoch == 0) {
            uuid_new(&id);
            st = session_insert(l->s, &id, 1, "v", 1, later(), NULL);
            epoch = st == BLOB_OK;
        } else {
            st = session_replace(l->s, &id, epoch, epoch + 1, "v", 1, later(), NULL);
            if (st == BLOB_OK)
                epoch++;
            else if (st == BLOB_E_UNAVAILABLE || st == BLOB_E_CONFLICT || st == BLOB_E_NOT_FOUND) {
                /* It may have happened, or Redis forgot: look. */
                uint64_t now = epoch_of(l->s, &id);
                l->wrong += now != 0 && now != epoch && now != epoch + 1;
                epoch = now;
            }
        }
        int64_t took = clock_steady_us() - began, slowest = l->slowest_us;
        while (took > slowest && !atomic_compare_exchange_weak(&l->slowest_us, &slowest, took))
            ;
        l->ok += st == BLOB_OK;
        l->away += st == BLOB_E_UNAVAILABLE;
        if (st == BLOB_E_UNAVAILABLE)
            sleep_ms(2);
        l->wrong += st != BLOB_OK && st != BLOB_E_UNAVAILABLE && st != BLOB_E_CONFLICT && st != BLOB_E_NOT_FOUND;
    }
    return NULL;
}

#define LOADERS 16

static void load_start(struct load *l, struct session_store *s, pthread_t threads[LOADERS])
{
    *l = (struct load){.s = s};
    for (int i = 0; i < LOADERS; i++)
        CHECK(pthread_create(&threads[i], NULL, load_main, l) == 0);
}

static void load_stop(struct load *l, pthread_t threads[LOADERS])
{
    l->stop = true;
    for (int i = 0; i < LOADERS; i++)
        pthread_join(threads[i], NULL);
}

static void test_stopped_under_load(void)
{
    struct session_store *s = joined_here();
    struct load l;
    pthread_t threads[LOADERS];
    load_start(&l, s, threads);
    sleep_ms(200);
    CU_ASSERT(l.ok > 0);
    redis_server_signal(&server, SIGSTOP);
    sleep_ms(2 * TIMEOUT_MS);
    /* By now it is known to be away: nobody waits any more. */
    l.slowest_us = 0;
    sleep_ms(5000 - 4 * TIMEOUT_MS);
    CU_ASSERT(l.slowest_us < TIMEOUT_MS * 1000 / 2);
    CU_ASSERT(l.away > LOADERS);
    redis_server_signal(&server, SIGCONT);
    int64_t took = wait_for(s, 5000);
    CU_ASSERT(took >= 0 && took < 3000);
    l.ok = 0;
    sleep_ms(200);
    CU_ASSERT(l.ok > 0);
    load_stop(&l, threads);
    CU_ASSERT_EQUAL(l.wrong, 0);
    session_store_close(s);
}

static void test_killed_under_load(void)
{
    struct session_store *s = joined_here();
    struct load l;
    pthread_t threads[LOADERS];
    load_start(&l, s, threads);
    for (int i = 0; i < 3; i++) {
        sleep_ms(150);
        redis_server_signal(&server, SIGKILL);
        sleep_ms(100);
        redis_server_restart(&server);
        CU_ASSERT(wait_for(s, 3000) >= 0);
    }
    l.ok = 0;
    sleep_ms(200);
    CU_ASSERT(l.ok > 0);
    load_stop(&l, threads);
    CU_ASSERT_EQUAL(l.wrong, 0);
    session_store_close(s);
}

static bool ignore_row(const struct index_row *row, void *arg)
{
    (void)row;
    (void)arg;
    return true;
}

static void test_emptied(void)
{
    struct session_store *s = joined_here();
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_insert(s, &id, 5, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    put_row(s, "a", BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    flush_all();
    CU_ASSERT_EQUAL(epoch_of(s, &id), 0);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(session_insert(s, &id, 6, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    put_row(s, "a", BLOB_OK);
    flush_all();
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_E_UNAVAILABLE); /* half of it is gone */
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    /* The registry comes back by itself. */
    sleep_ms(700);
    CU_ASSERT_EQUAL(redis_server_command(&server, "HLEN blobd:nodes"), 1);
    session_store_close(s);
    CU_ASSERT_EQUAL(redis_server_command(&server, "HLEN blobd:nodes"), 0);
}

static void test_index_after_restart(void)
{
    stop();
    static const char *const aof[] = {"--appendonly", "yes", "--appendfsync", "always", NULL};
    start_with(aof);
    struct session_store *s = joined_here();
    struct uuid id;
    uint64_t count = 0;
    struct index_query q = {.order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 1};
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_insert(s, &id, 5, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    put_row(s, "a", BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    redis_server_signal(&server, SIGKILL);
    put_row(s, "b", BLOB_E_UNAVAILABLE);
    redis_server_restart(&server);
    CU_ASSERT(wait_for(s, 3000) >= 0);
    CU_ASSERT_EQUAL(epoch_of(s, &id), 5);
    /* The rows are there, but the last second of them may not be: only a rebuild can tell. */
    CU_ASSERT_EQUAL(index_list(s, &q, &count, ignore_row, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, 1);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    session_store_close(s);
    stop();
    start_plain();
}

static const struct index_row some_row = {.id = "a", .size = 1, .created_ms = 1, .value = "{}", .value_len = 2};

/* With a session at epoch 2, which went in with the row. */
static struct session_store *joined_with_row(struct uuid *id, struct index_put *put)
{
    struct session_store *s = joined_here();
    uuid_new(id);
    CU_ASSERT_EQUAL(session_insert(s, id, 1, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_replace_listed(s, id, 1, 2, "b", 1, later(), put, NULL), BLOB_OK);
    return s;
}

/* What the server answers to a command: an array, given. */
static redisReply *server_array(const char *command)
{
    redisContext *c = redisConnect("127.0.0.1", server.port);
    CHECK(c && !c->err);
    redisReply *reply = redisCommand(c, command);
    CHECK(reply && reply->type == REDIS_REPLY_ARRAY);
    redisFree(c);
    return reply;
}

/* Where in Redis' slow log, the newest first, a script is. */
static size_t place_in_log(const redisReply *log, enum redis_script script)
{
    char sha[REDIS_SHA_CHARS + 1];
    size_t at = 0;
    redis_script_sha(script, sha);
    for (; at < log->elements; at++) {
        const redisReply *args = log->element[at]->element[3];
        if (args->elements > 1 && strcmp(args->element[1]->str, sha) == 0)
            break;
    }
    CU_ASSERT(at < log->elements);
    return at;
}

/* What is not answered any more may have run to anywhere: so the row goes first. */
static void test_row_before_session(void)
{
    struct index_put put = {.row = &some_row};
    struct uuid id;
    struct session_store *s = joined_with_row(&id, &put);
    CHECK(redis_server_command(&server, "CONFIG SET slowlog-log-slower-than 0"));
    CU_ASSERT_EQUAL(session_replace_listed(s, &id, 2, 3, "b", 1, later(), &put, NULL), BLOB_OK);
    CHECK(redis_server_command(&server, "CONFIG SET slowlog-log-slower-than 10000"));
    redisReply *log = server_array("SLOWLOG GET 100");
    CU_ASSERT(place_in_log(log, REDIS_SCRIPT_INDEX_PUT) > place_in_log(log, REDIS_SCRIPT_REPLACE));
    freeReplyObject(log);
    session_store_close(s);
}

static bool redis_knows(enum redis_script script)
{
    char sha[REDIS_SHA_CHARS + 1], command[80];
    redis_script_sha(script, sha);
    snprintf(command, sizeof command, "SCRIPT EXISTS %s", sha);
    redisReply *reply = server_array(command);
    CHECK(reply->elements == 1);
    bool known = reply->element[0]->integer == 1;
    freeReplyObject(reply);
    return known;
}

/* After a restart it must not be the session's script alone that Redis has learnt. */
static void test_row_script_known(void)
{
    struct index_put put = {.row = &some_row};
    struct uuid id;
    struct session_store *s = joined_with_row(&id, &put);
    /* The store's own thread may be back, and have it loaded, before it is looked for. */
    for (int i = 0; i < 50 && redis_knows(REDIS_SCRIPT_INDEX_PUT); i++) {
        CHECK(redis_server_command(&server, "SCRIPT FLUSH"));
        CHECK(redis_server_command(&server, "CLIENT KILL TYPE normal"));
    }
    CU_ASSERT_EQUAL(session_replace(s, &id, 2, 3, "c", 1, later(), NULL), BLOB_OK);
    CU_ASSERT(redis_knows(REDIS_SCRIPT_REPLACE) && redis_knows(REDIS_SCRIPT_INDEX_PUT));
    session_store_close(s);
}

/* A node that has not joined may not touch the index; what it should have put is missing. */
static void test_row_refused(void)
{
    struct session_store *s = joined_here(), *alone = NULL;
    struct redis_sessions_options opt = options();
    struct index_put put = {.row = &some_row};
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(redis_sessions_open(&opt, &alone, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_replace_listed(alone, &id, 1, 2, "b", 1, later(), &put, NULL), BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(put.st, BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_store_join(alone, "node-b", STORE_ID, clock_wall_ms(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(alone, NULL), BLOB_E_NOT_FOUND);
    session_store_close(alone);
    session_store_close(s);
}

/* Completing an upload asks Redis once for both. */
static void test_row_with_session(void)
{
    struct index_put put = {.row = &some_row};
    struct uuid id;
    struct session_store *s = joined_with_row(&id, &put);
    long long before = redis_server_info(&server, "total_reads_processed");
    for (uint64_t epoch = 2; epoch < 102; epoch++)
        CU_ASSERT_EQUAL(session_replace_listed(s, &id, epoch, epoch + 1, "b", 1, later(), &put, NULL), BLOB_OK);
    /* And a few for a heartbeat, and for asking. */
    CU_ASSERT(redis_server_info(&server, "total_reads_processed") - before < 120);
    /* Lost together: the row is remembered as missed. */
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    redis_server_signal(&server, SIGSTOP);
    CU_ASSERT_EQUAL(session_replace_listed(s, &id, 102, 103, "b", 1, later(), &put, NULL), BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(put.st, BLOB_E_UNAVAILABLE);
    redis_server_signal(&server, SIGCONT);
    CU_ASSERT(wait_for(s, 3000) >= 0);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    session_store_close(s);
}

static void test_away_at_start(void)
{
    redis_server_signal(&server, SIGKILL);
    struct session_store *s = NULL;
    struct blob_error err = {0};
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL_FATAL(open_here(&s, &err), BLOB_OK);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), &err), BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(session_store_join(s, "node-a", STORE_ID, clock_wall_ms(), &err), BLOB_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "127.0.0.1"));
    redis_server_restart(&server);
    CU_ASSERT(wait_for(s, 3000) >= 0);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(redis_server_command(&server, "HLEN blobd:nodes"), 1);
    session_store_close(s);
}

static void test_stores_differ_later(void)
{
    /* Both started while Redis was away, so neither saw the other: whoever comes second is refused then. */
    redis_server_signal(&server, SIGKILL);
    struct session_store *a = NULL, *b = NULL;
    CU_ASSERT_EQUAL_FATAL(open_here(&a, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(open_here(&b, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_store_join(a, "node-a", STORE_ID, clock_wall_ms(), NULL), BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(session_store_join(b, "node-b", "another", clock_wall_ms(), NULL), BLOB_E_UNAVAILABLE);
    redis_server_restart(&server);
    sleep_ms(2500);
    struct blob_error err = {0};
    enum blob_status st_a = session_store_check(a, &err), st_b = session_store_check(b, &err);
    CU_ASSERT((st_a == BLOB_OK) != (st_b == BLOB_OK));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "blob store"));
    session_store_close(a);
    session_store_close(b);
}

/* ---- settings ---- */

static enum blob_status try_join(const struct redis_sessions_options *opt, struct blob_error *err)
{
    struct session_store *s = NULL;
    enum blob_status st = redis_sessions_open(opt, &s, err);
    if (st == BLOB_OK)
        st = session_store_join(s, "node-a", STORE_ID, clock_wall_ms(), err);
    session_store_close(s);
    return st;
}

static void test_login(void)
{
    CHECK(
        redis_server_command(&server, "ACL SETUSER blobd on >s%%cret ~blobd:* &blobd:* +@all -@dangerous +info +role"));
    CHECK(redis_server_command(&server, "CONFIG SET requirepass top"));
    char text[128];
    struct blob_error err = {0};
    struct redis_sessions_options opt = options();
    CU_ASSERT_EQUAL(try_join(&opt, &err), BLOB_E_DENIED);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "NOAUTH"));
    snprintf(text, sizeof text, "redis://:wrong@127.0.0.1:%d", server.port);
    opt.url = text;
    CU_ASSERT_EQUAL(try_join(&opt, &err), BLOB_E_DENIED);
    CU_ASSERT_PTR_NULL(strstr(err.text, "wrong"));
    snprintf(text, sizeof text, "redis://:top@127.0.0.1:%d/3", server.port);
    CU_ASSERT_EQUAL(try_join(&opt, &err), BLOB_OK);
    snprintf(text, sizeof text, "redis://blobd:s%%25cret@127.0.0.1:%d", server.port);
    struct session_store *s = joined(&opt, "node-a");
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_replace(s, &id, 1, 2, "b", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_lease(s, "janitor", 1000, NULL), BLOB_OK);
    put_row(s, "a", BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_OK);
    session_announce(s, &id, 1);
    session_store_close(s);
    snprintf(text, sizeof text, "redis://127.0.0.1:%d", server.port);
    opt.password = "top";
    CU_ASSERT_EQUAL(try_join(&opt, &err), BLOB_OK);
    stop();
    start_plain();
}

static void test_socket_and_database(void)
{
    char text[160];
    struct redis_sessions_options opt = options();
    struct uuid id;
    uuid_new(&id);
    snprintf(text, sizeof text, "unix://%s?db=2", server.socket);
    opt.url = text;
    struct session_store *s = joined(&opt, "node-a"), *zero = joined_here();
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_OK);
    CU_ASSERT_EQUAL(epoch_of(s, &id), 1);
    CU_ASSERT_EQUAL(epoch_of(zero, &id), 0);
    session_store_close(zero);
    session_store_close(s);
}

static void test_eviction(void)
{
    struct blob_error err = {0};
    struct redis_sessions_options opt = options();
    CHECK(redis_server_command(&server, "CONFIG SET maxmemory-policy allkeys-lru"));
    CU_ASSERT_EQUAL(try_join(&opt, &err), BLOB_OK); /* without a limit nothing is evicted */
    CHECK(redis_server_command(&server, "CONFIG SET maxmemory 100mb"));
    CU_ASSERT_EQUAL(try_join(&opt, &err), BLOB_E_CONFLICT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "noeviction"));
    CHECK(redis_server_command(&server, "CONFIG SET maxmemory-policy noeviction"));
    struct session_store *s = joined_here();
    struct uuid id;
    uuid_new(&id);
    CHECK(redis_server_command(&server, "CONFIG SET maxmemory 1mb"));
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_E_NO_SPACE);
    CHECK(redis_server_command(&server, "CONFIG SET maxmemory 0"));
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later(), NULL), BLOB_OK);
    session_store_close(s);
}

static void test_bad_settings(void)
{
    static const char *const bad[] = {
        "",         "redis://",        "redis://host:port", "redis://host:0",     "redis://host:70000",
        "http://h", "rediss://h",      "redis://h/x",       "redis://user@h",     "redis://%zz:p@h",
        "unix://",  "unix://relative", "unix:///s?db=x",    "redis://user:@host", "redis://[::1",
    };
    struct redis_config config;
    struct blob_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct redis_sessions_options opt = options();
        opt.url = bad[i];
        enum blob_status st = redis_config_parse(&opt, &config, &err);
        if (st != BLOB_E_INVALID)
            fprintf(stderr, "%s\n", bad[i]);
        CU_ASSERT_EQUAL(st, BLOB_E_INVALID);
        CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "sessions.redis"));
    }
    struct redis_sessions_options opt = options();
    opt.url = "redis://me:p%40ss:w/rd@[::1]:7000/12";
    CU_ASSERT_EQUAL(redis_config_parse(&opt, &config, &err), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(config.endpoint.host, "::1");
    CU_ASSERT_EQUAL(config.endpoint.port, 7000);
    CU_ASSERT_STRING_EQUAL(config.user, "me");
    CU_ASSERT_STRING_EQUAL(config.password, "p@ss:w/rd");
    CU_ASSERT_EQUAL(config.db, 12);
    opt.sentinels = "a:1  b c:3";
    CU_ASSERT_EQUAL(redis_config_parse(&opt, &config, &err), BLOB_E_INVALID); /* no master's name */
    opt.master_name = "blobd";
    CU_ASSERT_EQUAL(redis_config_parse(&opt, &config, &err), BLOB_OK);
    CU_ASSERT_EQUAL(config.sentinel_count, 3);
    CU_ASSERT_EQUAL(config.sentinels[1].port, 26379);
    opt.sentinels = "a:b";
    CU_ASSERT_EQUAL(redis_config_parse(&opt, &config, &err), BLOB_E_INVALID);
}

static void test_few_connections(void)
{
    struct redis_sessions_options opt = options();
    opt.connections = 2;
    struct session_store *s = joined(&opt, "node-a");
    struct load l;
    pthread_t threads[LOADERS];
    load_start(&l, s, threads);
    sleep_ms(200);
    /* And the one that asks. */
    CU_ASSERT(redis_server_info(&server, "connected_clients") <= 3);
    load_stop(&l, threads);
    CU_ASSERT(l.ok > 0);
    CU_ASSERT_EQUAL(l.wrong, 0);
    CU_ASSERT_EQUAL(l.away, 0);
    session_store_close(s);
}

static void test_memory(void)
{
    enum { SESSIONS = 5000 };
    struct session_store *s = joined_here();
    static char value[400];
    flush_all();
    long long before = redis_server_info(&server, "used_memory");
    for (int i = 0; i < SESSIONS; i++) {
        struct uuid id;
        uuid_new(&id);
        CU_ASSERT_EQUAL(session_insert(s, &id, 1, value, sizeof value, later(), NULL), BLOB_OK);
    }
    long long each = (redis_server_info(&server, "used_memory") - before) / SESSIONS;
    printf("%lld bytes for a value of %zu: ", each, sizeof value);
    CU_ASSERT(each > 0 && each < (long long)sizeof value + 300);
    session_store_close(s);
}

static void test_text_is_cleaned(void)
{
    enum { FILES = 2000, ROUNDS = 12 };
    struct session_store *s = joined_here();
    flush_all();
    struct index_row row = {.value = "{}", .value_len = 2};
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < FILES; i++) {
            snprintf(row.id, sizeof row.id, "file-%d", i);
            snprintf(row.name, sizeof row.name, "Name %d of round %d, rather long so that segments fill up", i, round);
            row.created_ms = i;
            row.size = (uint64_t)round;
            CU_ASSERT_EQUAL_FATAL(index_put(s, &row, NULL), BLOB_OK);
        }
    struct index_query q = {.order = {{INDEX_BY_SIZE, false}, {INDEX_BY_NAME, false}}, .orders = 2, .top = 100};
    uint64_t count = 0;
    CU_ASSERT_EQUAL(index_list(s, &q, &count, ignore_row, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, FILES);
    q.search = "round 11";
    CU_ASSERT_EQUAL(index_list(s, &q, &count, ignore_row, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, FILES);
    q.search = "round 10";
    CU_ASSERT_EQUAL(index_list(s, &q, &count, ignore_row, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, 0);
    /* 24,000 records were written; what is kept is the live ones and at most as much again, and the last segment. */
    CU_ASSERT(redis_server_command(&server, "HLEN blobd:index:{files}:text:dead") <= 4);
    for (int i = 0; i < FILES; i++) {
        snprintf(row.id, sizeof row.id, "file-%d", i);
        CU_ASSERT_EQUAL_FATAL(index_remove(s, row.id, NULL), BLOB_OK);
    }
    CU_ASSERT_EQUAL(redis_server_command(&server, "HLEN blobd:index:{files}:rows"), 0);
    q.search = NULL;
    CU_ASSERT_EQUAL(index_list(s, &q, &count, ignore_row, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(count, 0);
    session_store_close(s);
}

/* ---- sentinels ---- */

static void test_failover(void)
{
    struct redis_server replica, sentinel;
    char replica_of[32], sentinels[64];
    const char *extra[] = {"--replicaof", replica_of, "--repl-diskless-sync-delay", "0", NULL};
    snprintf(replica_of, sizeof replica_of, "127.0.0.1 %d", server.port);
    redis_server_start(&replica, extra);
    redis_server_start_sentinel(&sentinel, server.port);
    snprintf(sentinels, sizeof sentinels, "127.0.0.1:1 127.0.0.1:%d", sentinel.port); /* the first is dead */
    struct redis_sessions_options opt = options();
    opt.url = NULL;
    opt.sentinels = sentinels;
    opt.master_name = "blobd";
    struct session_store *s = joined(&opt, "node-a");
    struct load l;
    pthread_t threads[LOADERS];
    load_start(&l, s, threads);
    for (int i = 0; i < 500 && redis_server_command(&server, "WAIT 1 100") != 1; i++)
        sleep_ms(10);
    sleep_ms(1500); /* the sentinel finds the replica */
    redis_server_signal(&server, SIGKILL);
    sleep_ms(100);
    l.ok = 0;
    int64_t took = wait_for(s, 20000);
    CU_ASSERT(took >= 0);
    sleep_ms(300);
    CU_ASSERT(l.ok > 0);
    load_stop(&l, threads);
    printf("followed after %lld ms: ", (long long)took);
    session_store_close(s);

    opt.master_name = "unknown";
    struct blob_error err = {0};
    CU_ASSERT_EQUAL(try_join(&opt, &err), BLOB_E_UNAVAILABLE);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "unknown"));
    redis_server_release(&sentinel);
    redis_server_release(&replica);
    redis_server_restart(&server);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_TestInfo own[] = {{"killed: refused at once; restarted: back by itself", test_killed_and_restarted},
                         {"stopped for 5 s under load: nobody waits longer than the time-out", test_stopped_under_load},
                         {"killed and restarted under load: no epoch is won twice", test_killed_under_load},
                         {"emptied: sessions are gone, the index knows, the node enters again", test_emptied},
                         {"restarted with its data: the index asks to be rebuilt", test_index_after_restart},
                         {"a row and its session go in one exchange, and are lost as two", test_row_with_session},
                         {"the row is put before the session is replaced", test_row_before_session},
                         {"and its script is known by then, after a restart, too", test_row_script_known},
                         {"a row that a node alone could not put is known to be missing", test_row_refused},
                         {"away at start: joined as soon as it is there", test_away_at_start},
                         {"nodes on different blob stores are found out later too", test_stores_differ_later},
                         {"logs in with password or ACL user, and never says the password", test_login},
                         {"a unix socket and a database number are used", test_socket_and_database},
                         {"an evicting policy is refused, a full Redis is no space", test_eviction},
                         {"wrong settings are named", test_bad_settings},
                         {"many threads share few connections", test_few_connections},
                         {"a session takes little memory", test_memory},
                         {"the search text does not grow with changes", test_text_is_cleaned},
                         {"a failover is followed by way of the sentinels", test_failover},
                         CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"redis sessions: contract", use_redis, stop, NULL, NULL, session_contract_tests()},
                             {"redis sessions", start_plain, stop, NULL, NULL, own},
                             CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
