/*
 * redis_node - the registry is one hash: node id → until when (in Redis' time) and which blob store it sees. Each node
 * renews its field at every heartbeat, and the script that does it looks at the others' fields first, so two nodes on
 * different blob stores are found out whichever came first, and again after Redis was emptied.
 *
 * Locks: lock guards state and ids; it is never held while Redis is asked or a callback runs. calling is held around
 * the notice callback and nothing else, so that whoever ends the listening waits for a call under way.
 */
#include "backends/redis/redis_node.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/node_clock.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CLOCK_SKEW_MAX_MS 5000
#define BEAT_MAX_MS       2000

enum node_state {
    NODE_ALONE,   /* join was not called */
    NODE_PENDING, /* called, and Redis was away */
    NODE_JOINED,
    NODE_REFUSED /* by what another node said, or by Redis' settings */
};

struct redis_node {
    const struct redis_config *config;
    struct redis_pool *pool;
    struct logger *log;
    redis_node_tick_fn *tick;
    void *tick_arg;
    int wake_fd;
    int64_t ttl_ms, beat_us;
    char nodes_key[96], channel[128];

    pthread_mutex_t lock;
    pthread_cond_t subscribed_changed;
    bool subscribed;
    enum node_state state;
    struct blob_error refusal;
    char node_id[NODE_ID_CHARS + 1], store_id[64];
    struct node_clock *clock; /* NULL before join */
    atomic_bool listens;
    pthread_mutex_t calling;
    session_notice_fn *notice_fn; /* this and notice_arg: under calling */
    void *notice_arg;

    /* The thread's own. */
    pthread_t thread;
    atomic_bool stop;
    struct redis_conn *listening;
    unsigned long listening_generation;
    int64_t beat_due_us, heard_us;
};

/* ---- the registry ---- */

static bool is_text(const redisReply *r)
{
    return r->type == REDIS_REPLY_STRING;
}

/* What the server's settings may not be; CONFLICT says what to change. */
static enum blob_status check_policy(struct redis_node *node, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    redis_call_begin(&call, "INFO");
    redis_call_text(&call, "memory");
    enum blob_status st = redis_pool_run(node->pool, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    const char *limit = is_text(reply) ? strstr(reply->str, "\nmaxmemory:") : NULL;
    const char *policy = is_text(reply) ? strstr(reply->str, "\nmaxmemory_policy:") : NULL;
    bool limited = limit && strtoull(limit + strlen("\nmaxmemory:"), NULL, 10) > 0;
    policy = policy ? policy + strlen("\nmaxmemory_policy:") : "noeviction";
    int len = (int)strcspn(policy, "\r\n");
    if (limited && strncmp(policy, "allkeys-", 8) == 0)
        st =
            blob_fail(err, BLOB_E_CONFLICT, 0,
                      "redis evicts keys when it is full (maxmemory-policy %.*s), which would tear holes into the file "
                      "index: set maxmemory-policy noeviction in redis.conf",
                      len, policy);
    else if (limited && strncmp(policy, "volatile-", 9) == 0)
        log_line(node->log, LOG_WARN, NULL,
                 "redis drops upload sessions when it is full (maxmemory-policy %.*s); they are rebuilt at a cost: set "
                 "maxmemory-policy noeviction in redis.conf",
                 len, policy);
    freeReplyObject(reply);
    return st;
}

static enum blob_status run_join(struct redis_node *node, int64_t ttl_ms, redisReply **reply, struct blob_error *err)
{
    struct redis_call call;
    redis_call_begin_script(&call, REDIS_SCRIPT_JOIN, 1);
    redis_call_text(&call, node->nodes_key);
    redis_call_text(&call, node->node_id);
    redis_call_text(&call, node->store_id);
    redis_call_number(&call, ttl_ms);
    enum blob_status st = redis_pool_run(node->pool, &call, reply, err);
    if (st != BLOB_OK)
        return st;
    const redisReply *r = *reply;
    if (r->type == REDIS_REPLY_ARRAY && (r->elements == 1 || r->elements == 3) && is_text(r->element[0]))
        return BLOB_OK;
    freeReplyObject(*reply);
    return blob_fail(err, BLOB_E_IO, 0, "redis: an answer that makes no sense");
}

static void leave_registry(struct redis_node *node)
{
    redisReply *reply = NULL;
    if (run_join(node, 0, &reply, NULL) == BLOB_OK)
        freeReplyObject(reply);
}

/* Enters or renews this node. now_ms: by its clock, when the call began. */
static enum blob_status enter_registry(struct redis_node *node, int64_t now_ms, struct blob_error *err)
{
    redisReply *reply = NULL;
    int64_t began_us = clock_steady_us();
    enum blob_status st = run_join(node, node->ttl_ms, &reply, err);
    if (st != BLOB_OK)
        return st;
    now_ms += (clock_steady_us() - began_us) / 2000;
    int64_t ahead_ms = now_ms - strtoll(reply->element[0]->str, NULL, 10);
    node_clock_compare(node->clock, ahead_ms);
    if (reply->elements == 3) {
        st = blob_fail(err, BLOB_E_CONFLICT, 0,
                       "node %s sees blob store %s, this node %s: give both the same storage (if that node was "
                       "stopped, wait %lld s)",
                       reply->element[1]->str, reply->element[2]->str, node->store_id,
                       (long long)(node->ttl_ms + 999) / 1000);
    } else if (ahead_ms > CLOCK_SKEW_MAX_MS || ahead_ms < -CLOCK_SKEW_MAX_MS) {
        st = blob_fail(err, BLOB_E_CONFLICT, 0,
                       "this node's clock is %.1f s %s redis': keep both right by NTP (chrony or systemd-timesyncd)",
                       (double)llabs(ahead_ms) / 1000, ahead_ms > 0 ? "ahead of" : "behind");
    }
    freeReplyObject(reply);
    return st;
}

/* The state after an attempt; says so in the log when it changed. */
static void settle(struct redis_node *node, enum blob_status st, const struct blob_error *err)
{
    pthread_mutex_lock(&node->lock);
    enum node_state before = node->state;
    if (st == BLOB_OK)
        node->state = NODE_JOINED;
    else if (st == BLOB_E_CONFLICT || st == BLOB_E_DENIED)
        node->state = NODE_REFUSED;
    else if (before == NODE_ALONE)
        node->state = NODE_PENDING;
    if (st != BLOB_OK)
        node->refusal = *err;
    enum node_state now = node->state;
    pthread_mutex_unlock(&node->lock);
    if (now == before || before == NODE_ALONE)
        return;
    if (now == NODE_REFUSED)
        log_line(node->log, LOG_ERROR, NULL, "uploads are refused: %s", err->text);
    else if (now == NODE_JOINED)
        log_line(node->log, LOG_INFO, NULL, "joined the cluster");
}

static void wake(struct redis_node *node)
{
    static const uint64_t one = 1;
    CHECK(write(node->wake_fd, &one, sizeof one) == sizeof one);
}

/* So that no take-over is missed after join. Bounded: hearing of them is best effort in any case. */
static void wait_subscribed(struct redis_node *node)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;
    wake(node);
    pthread_mutex_lock(&node->lock);
    while (!node->subscribed && pthread_cond_timedwait(&node->subscribed_changed, &node->lock, &until) == 0)
        ;
    pthread_mutex_unlock(&node->lock);
}

enum blob_status redis_node_join(struct redis_node *node, const char *node_id, const char *store_id,
                                 struct node_clock *clock, int64_t now_ms, struct blob_error *err)
{
    struct blob_error why = {0};
    CHECK(strlen(node_id) < sizeof node->node_id && strlen(store_id) < sizeof node->store_id);
    pthread_mutex_lock(&node->lock);
    CHECK(node->state == NODE_ALONE || node->state == NODE_REFUSED);
    memcpy(node->node_id, node_id, strlen(node_id) + 1);
    memcpy(node->store_id, store_id, strlen(store_id) + 1);
    node->clock = clock;
    node->state = NODE_ALONE;
    pthread_mutex_unlock(&node->lock);
    enum blob_status st = redis_pool_probe(node->pool, &why);
    if (st == BLOB_OK)
        st = check_policy(node, &why);
    if (st == BLOB_OK)
        st = enter_registry(node, now_ms, &why);
    if (st == BLOB_E_CONFLICT)
        leave_registry(node);
    settle(node, st, &why);
    if (st == BLOB_OK && node->listens)
        wait_subscribed(node);
    return st == BLOB_OK ? BLOB_OK : blob_fail(err, st, 0, "%s", why.text);
}

enum blob_status redis_node_ready(struct redis_node *node, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    pthread_mutex_lock(&node->lock);
    if (node->state == NODE_ALONE)
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "this node has not joined the cluster yet");
    else if (node->state != NODE_JOINED)
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "%s", node->refusal.text);
    pthread_mutex_unlock(&node->lock);
    return st;
}

const char *redis_node_id(const struct redis_node *node)
{
    return node->node_id;
}

static enum node_state state_of(struct redis_node *node)
{
    pthread_mutex_lock(&node->lock);
    enum node_state state = node->state;
    pthread_mutex_unlock(&node->lock);
    return state;
}

/* A clock that drifts away while running is told, not punished: uploads under way would be cut. */
static void beat(struct redis_node *node)
{
    struct blob_error why = {0};
    enum node_state state = state_of(node);
    if (state == NODE_ALONE)
        return;
    enum blob_status st = BLOB_OK;
    if (state == NODE_PENDING)
        st = check_policy(node, &why);
    if (st == BLOB_OK)
        st = enter_registry(node, clock_wall_ms(), &why);
    if (st == BLOB_E_CONFLICT && state == NODE_JOINED && strstr(why.text, "clock")) {
        log_line(node->log, LOG_ERROR, NULL, "%s", why.text);
        st = BLOB_OK;
    }
    settle(node, st, &why);
    if (st == BLOB_OK)
        node->tick(node->tick_arg);
}

/* ---- take-overs ---- */

void redis_node_listen(struct redis_node *node, session_notice_fn *fn, void *arg)
{
    pthread_mutex_lock(&node->calling);
    CHECK(!fn || !node->notice_fn);
    node->notice_fn = fn;
    node->notice_arg = arg;
    node->listens = fn != NULL;
    pthread_mutex_unlock(&node->calling);
}

void redis_node_announce(struct redis_node *node, const struct uuid *id, uint64_t epoch)
{
    char text[NODE_ID_CHARS + UUID_CHARS + 32];
    struct redis_call call;
    redisReply *reply = NULL;
    snprintf(text, sizeof text, "%s %s %llu", node->node_id, id->text, (unsigned long long)epoch);
    redis_call_begin(&call, "PUBLISH");
    redis_call_text(&call, node->channel);
    redis_call_text(&call, text);
    /* Best effort: whoever is not told is stopped by the epoch. */
    if (redis_pool_run(node->pool, &call, &reply, NULL) == BLOB_OK)
        freeReplyObject(reply);
}

/* "<node> <uuid> <epoch>" of another node. */
static void hear(struct redis_node *node, const char *text)
{
    size_t from_len = strcspn(text, " ");
    struct uuid id;
    char uuid_text[UUID_CHARS + 1] = "";
    if (from_len == strlen(node->node_id) && memcmp(text, node->node_id, from_len) == 0)
        return;
    const char *rest = text + from_len;
    if (strlen(rest) < UUID_CHARS + 3)
        return;
    memcpy(uuid_text, rest + 1, UUID_CHARS);
    if (uuid_parse(uuid_text, &id) != BLOB_OK)
        return;
    pthread_mutex_lock(&node->calling);
    if (node->notice_fn)
        node->notice_fn(&id, strtoull(rest + 1 + UUID_CHARS, NULL, 10), node->notice_arg);
    pthread_mutex_unlock(&node->calling);
}

static void stop_listening(struct redis_node *node)
{
    redis_conn_close(node->listening);
    node->listening = NULL;
}

static void start_listening(struct redis_node *node)
{
    struct redis_endpoint at;
    struct redis_call call;
    struct blob_error err;
    redis_pool_where(node->pool, &at, &node->listening_generation);
    if (redis_conn_open(node->config, &at, true, &node->listening, &err) != BLOB_OK)
        return;
    redis_call_begin(&call, "SUBSCRIBE");
    redis_call_text(&call, node->channel);
    if (redis_conn_send(node->listening, &call, &err) != BLOB_OK)
        stop_listening(node);
    node->heard_us = clock_steady_us();
}

static void set_subscribed(struct redis_node *node)
{
    pthread_mutex_lock(&node->lock);
    node->subscribed = true;
    pthread_cond_broadcast(&node->subscribed_changed);
    pthread_mutex_unlock(&node->lock);
}

/* Reads what has come: messages, and answers to SUBSCRIBE and PING. */
static void read_notices(struct redis_node *node)
{
    redisContext *context = node->listening->context;
    void *got = NULL;
    bool ok = redisBufferRead(context) == REDIS_OK;
    while (ok && (ok = redisGetReplyFromReader(context, &got) == REDIS_OK) && got) {
        redisReply *r = got;
        node->heard_us = clock_steady_us();
        bool triple = r->type == REDIS_REPLY_ARRAY && r->elements == 3 && is_text(r->element[0]);
        if (triple && is_text(r->element[2]) && strcmp(r->element[0]->str, "message") == 0)
            hear(node, r->element[2]->str);
        else if (triple && strcmp(r->element[0]->str, "subscribe") == 0)
            set_subscribed(node);
        ok = r->type != REDIS_REPLY_ERROR;
        freeReplyObject(r);
        got = NULL;
    }
    if (!ok)
        stop_listening(node);
}

/* A subscription that is dead without telling is found by a PING that stays unanswered. */
static void keep_listening(struct redis_node *node)
{
    struct redis_call call;
    struct redis_endpoint at;
    unsigned long generation;
    redis_pool_where(node->pool, &at, &generation);
    int64_t silent_us = clock_steady_us() - node->heard_us;
    if (node->listening && (generation != node->listening_generation ||
                            silent_us > 2 * node->beat_us + node->config->command_timeout_ms * 1000))
        stop_listening(node);
    if (!node->listening) {
        start_listening(node);
        return;
    }
    redis_call_begin(&call, "PING");
    if (redis_conn_send(node->listening, &call, NULL) != BLOB_OK)
        stop_listening(node);
}

/* ---- the thread ---- */

static void wait_until(struct redis_node *node, int64_t due_us)
{
    int64_t wait_ms = (due_us - clock_steady_us() + 999) / 1000;
    struct pollfd fds[2] = {{.fd = node->wake_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    if (node->listening)
        fds[1].fd = node->listening->context->fd;
    if (poll(fds, 2, wait_ms < 0 ? 0 : (int)wait_ms) <= 0)
        return;
    uint64_t woken;
    if (fds[0].revents && read(node->wake_fd, &woken, sizeof woken) != sizeof woken)
        return;
    if (fds[1].revents)
        read_notices(node);
}

static void *node_main(void *arg)
{
    struct redis_node *node = arg;
    while (!node->stop) {
        int64_t now_us = clock_steady_us(), due_us;
        /* Nobody asks before join, which reaches for Redis itself and wants its error. */
        bool joined = state_of(node) != NODE_ALONE;
        if (!joined) {
            due_us = now_us + node->beat_us;
        } else if (!redis_pool_up(node->pool)) {
            if (node->listening)
                stop_listening(node);
            if (now_us >= redis_pool_probe_due_us(node->pool) && redis_pool_probe(node->pool, NULL) == BLOB_OK)
                continue;
            due_us = redis_pool_probe_due_us(node->pool);
            node->beat_due_us = 0;
        } else {
            if (now_us >= node->beat_due_us) {
                redis_pool_watch_master(node->pool);
                beat(node);
                if (node->listens)
                    keep_listening(node);
                node->beat_due_us = clock_steady_us() + node->beat_us;
            }
            due_us = node->beat_due_us;
        }
        wait_until(node, due_us);
    }
    stop_listening(node);
    return NULL;
}

enum blob_status redis_node_new(const struct redis_config *config, struct redis_pool *pool, int wake_fd,
                                int64_t node_ttl_ms, redis_node_tick_fn *tick, void *tick_arg, struct logger *log,
                                struct redis_node **out, struct blob_error *err)
{
    struct redis_node *node = calloc(1, sizeof *node);
    if (!node)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the cluster's node");
    int64_t beat_ms = node_ttl_ms / 3 < BEAT_MAX_MS ? node_ttl_ms / 3 : BEAT_MAX_MS;
    node->config = config;
    node->pool = pool;
    node->log = log;
    node->tick = tick;
    node->tick_arg = tick_arg;
    node->wake_fd = wake_fd;
    node->ttl_ms = node_ttl_ms;
    node->beat_us = beat_ms * 1000;
    snprintf(node->nodes_key, sizeof node->nodes_key, "%snodes", config->prefix);
    snprintf(node->channel, sizeof node->channel, "%stakeover:%u", config->prefix, config->db);
    pthread_mutex_init(&node->lock, NULL);
    pthread_mutex_init(&node->calling, NULL);
    pthread_cond_init(&node->subscribed_changed, NULL);
    if (pthread_create(&node->thread, NULL, node_main, node) != 0) {
        pthread_cond_destroy(&node->subscribed_changed);
        pthread_mutex_destroy(&node->calling);
        pthread_mutex_destroy(&node->lock);
        free(node);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no thread for the cluster's node");
    }
    *out = node;
    return BLOB_OK;
}

void redis_node_free(struct redis_node *node)
{
    node->stop = true;
    wake(node);
    pthread_join(node->thread, NULL);
    if (node->state == NODE_JOINED)
        leave_registry(node);
    pthread_cond_destroy(&node->subscribed_changed);
    pthread_mutex_destroy(&node->calling);
    pthread_mutex_destroy(&node->lock);
    free(node);
}
