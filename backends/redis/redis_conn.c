/*
 * redis_conn - hiredis 0.14 made safe: a context that timed out is dead and is never used or reconnected (that would
 * also lose its time-out); error replies become statuses in one place; NOSCRIPT is answered by sending the text.
 *
 * Nothing is ever sent twice: after a lost answer nobody knows whether the command ran, and only the caller can look.
 * (A script refused with NOSCRIPT did not run.)
 */
#include "backends/redis/redis_conn.h"

#include "core/check.h"
#include "core/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- calls ---- */

void redis_call_bytes(struct redis_call *call, const void *bytes, size_t len)
{
    CHECK(call->argc < REDIS_ARGS_MAX);
    call->argv[call->argc] = len ? bytes : "";
    call->lens[call->argc++] = len;
}

void redis_call_text(struct redis_call *call, const char *text)
{
    redis_call_bytes(call, text, strlen(text));
}

void redis_call_number(struct redis_call *call, int64_t value)
{
    CHECK(call->numbers_used < sizeof call->numbers / sizeof *call->numbers);
    char *text = call->numbers[call->numbers_used++];
    snprintf(text, sizeof *call->numbers, "%lld", (long long)value);
    redis_call_text(call, text);
}

void redis_call_begin(struct redis_call *call, const char *command)
{
    call->script = REDIS_SCRIPT_NONE;
    call->argc = 0;
    call->numbers_used = 0;
    redis_call_text(call, command);
}

void redis_call_begin_script(struct redis_call *call, enum redis_script script, int keys)
{
    redis_call_begin(call, "EVALSHA");
    call->script = script;
    redis_call_text(call, ""); /* the name, filled in when it is run */
    redis_call_number(call, keys);
}

/* ---- errors ---- */

/* hiredis' own failure: the connection is of no use any more. */
static void set_dead(struct redis_conn *conn, const char *what)
{
    bool late = conn->context->err == 0 || (conn->context->err == REDIS_ERR_IO && errno == EAGAIN);
    conn->broken = true;
    conn->dead = true;
    (void)blob_fail(&conn->why, BLOB_E_UNAVAILABLE, 0, "redis: %s: %s", what,
                    late ? "no answer in time" : conn->context->errstr);
}

static enum blob_status fail_dead(const struct redis_conn *conn, struct blob_error *err)
{
    if (err)
        *err = conn->why;
    return BLOB_E_UNAVAILABLE;
}

static bool begins(const char *text, const char *word)
{
    size_t len = strlen(word);
    return strncmp(text, word, len) == 0 && (text[len] == ' ' || text[len] == '\0');
}

static enum blob_status fail_reply(struct redis_conn *conn, const char *text, struct blob_error *err)
{
    static const char *const elsewhere[] = {"READONLY", "MASTERDOWN"};
    static const char *const later[] = {"LOADING", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF"};
    static const char *const denied[] = {"NOAUTH", "WRONGPASS", "NOPERM"};
    for (size_t i = 0; i < sizeof elsewhere / sizeof *elsewhere; i++)
        if (begins(text, elsewhere[i])) {
            conn->broken = true;
            conn->demoted = true;
            return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "redis: %s", text);
        }
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (begins(text, later[i]))
            return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "redis: %s", text);
    for (size_t i = 0; i < sizeof denied / sizeof *denied; i++)
        if (begins(text, denied[i]))
            return blob_fail(err, BLOB_E_DENIED, 0, "redis: %s", text);
    if (begins(text, "OOM"))
        return blob_fail(err, BLOB_E_NO_SPACE, 0, "redis: %s", text);
    return blob_fail(err, BLOB_E_IO, 0, "redis: %s", text);
}

/* ---- running ---- */

/* Into the output buffer; by_text: a script's text instead of its name. */
static void append_call(struct redis_conn *conn, const struct redis_call *call, bool by_text)
{
    const char *argv[REDIS_ARGS_MAX];
    size_t lens[REDIS_ARGS_MAX];
    memcpy(argv, call->argv, (size_t)call->argc * sizeof *argv);
    memcpy(lens, call->lens, (size_t)call->argc * sizeof *lens);
    if (call->script != REDIS_SCRIPT_NONE) {
        argv[0] = by_text ? "EVAL" : "EVALSHA";
        lens[0] = strlen(argv[0]);
        argv[1] = by_text ? redis_script_text(call->script) : conn->shas[call->script];
        lens[1] = strlen(argv[1]);
    }
    if (!conn->dead && redisAppendCommandArgv(conn->context, call->argc, argv, lens) != REDIS_OK)
        set_dead(conn, argv[0]);
}

static void write_out(struct redis_conn *conn, const char *what)
{
    int done = 0;
    conn->posted_us = clock_steady_us();
    errno = 0;
    while (!conn->dead && !done)
        if (redisBufferWrite(conn->context, &done) != REDIS_OK)
            set_dead(conn, what);
}

/* The next answer, as it is; NULL: the connection is dead. first: of the exchange. */
static redisReply *next_reply(struct redis_conn *conn, const char *what, bool first)
{
    void *got = NULL;
    while (!conn->dead) {
        errno = 0;
        if (redisGetReplyFromReader(conn->context, &got) != REDIS_OK)
            set_dead(conn, what);
        if (got || conn->dead)
            break;
        /* Each read waits for the time-out at most: this bounds answers that come drop by drop. */
        if (!first && clock_steady_us() - conn->posted_us > conn->timeout_us)
            set_dead(conn, what);
        else if (redisBufferRead(conn->context) != REDIS_OK)
            set_dead(conn, what);
    }
    return got;
}

/* An error reply is freed and becomes a status. */
static enum blob_status settle(struct redis_conn *conn, redisReply **reply, struct blob_error *err)
{
    if ((*reply)->type != REDIS_REPLY_ERROR)
        return BLOB_OK;
    enum blob_status st = fail_reply(conn, (*reply)->str, err);
    freeReplyObject(*reply);
    *reply = NULL;
    return st;
}

static const char *call_name(const struct redis_call *call)
{
    return call->script == REDIS_SCRIPT_NONE ? call->argv[0] : "script";
}

static bool is_noscript(const redisReply *reply)
{
    return reply && reply->type == REDIS_REPLY_ERROR && begins(reply->str, "NOSCRIPT");
}

static void settle_asked(struct redis_conn *conn, struct redis_asked *asked)
{
    asked->st = asked->reply ? settle(conn, &asked->reply, &asked->err) : fail_dead(conn, &asked->err);
}

void redis_conn_post(struct redis_conn *conn, struct redis_asked *const *asked, size_t count)
{
    CHECK(!conn->broken && count > 0);
    for (size_t i = 0; i < count; i++)
        append_call(conn, asked[i]->call, false);
    write_out(conn, call_name(asked[0]->call));
}

/* Redis is new, restarted or failed over: EVAL runs the text and keeps it. The refused call did not run. */
static void ask_by_text(struct redis_conn *conn, struct redis_asked *const *asked, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (is_noscript(asked[i]->reply))
            append_call(conn, asked[i]->call, true);
    write_out(conn, "script");
    bool first = true;
    for (size_t i = 0; i < count; i++) {
        if (!is_noscript(asked[i]->reply))
            continue;
        freeReplyObject(asked[i]->reply);
        asked[i]->reply = next_reply(conn, "script", first);
        settle_asked(conn, asked[i]);
        first = false;
    }
}

void redis_conn_collect(struct redis_conn *conn, struct redis_asked *const *asked, size_t count)
{
    bool unknown = false;
    for (size_t i = 0; i < count; i++) {
        asked[i]->reply = next_reply(conn, call_name(asked[i]->call), i == 0);
        if (is_noscript(asked[i]->reply))
            unknown = true;
        else
            settle_asked(conn, asked[i]);
    }
    if (unknown)
        ask_by_text(conn, asked, count);
}

enum blob_status redis_conn_run(struct redis_conn *conn, const struct redis_call *call, redisReply **reply,
                                struct blob_error *err)
{
    struct redis_asked asked = {.call = call}, *all = &asked;
    redis_conn_post(conn, &all, 1);
    redis_conn_collect(conn, &all, 1);
    if (asked.st == BLOB_OK)
        *reply = asked.reply;
    else if (err)
        *err = asked.err;
    return asked.st;
}

enum blob_status redis_conn_send(struct redis_conn *conn, const struct redis_call *call, struct blob_error *err)
{
    CHECK(!conn->broken && call->script == REDIS_SCRIPT_NONE);
    append_call(conn, call, false);
    write_out(conn, call->argv[0]);
    return conn->dead ? fail_dead(conn, err) : BLOB_OK;
}

enum blob_status redis_conn_receive(struct redis_conn *conn, redisReply **reply, struct blob_error *err)
{
    CHECK(!conn->broken);
    redisReply *got = next_reply(conn, "answer", true);
    if (!got)
        return fail_dead(conn, err);
    enum blob_status st = settle(conn, &got, err);
    if (st == BLOB_OK)
        *reply = got;
    return st;
}

/* ---- opening ---- */

static struct timeval timeval_ms(int64_t ms)
{
    return (struct timeval){.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

/* A command of the login, whose answer says nothing but OK. */
static enum blob_status run_plain(struct redis_conn *conn, const struct redis_call *call, struct blob_error *err)
{
    redisReply *reply = NULL;
    enum blob_status st = redis_conn_run(conn, call, &reply, err);
    if (st == BLOB_OK)
        freeReplyObject(reply);
    return st;
}

static enum blob_status log_in(struct redis_conn *conn, const struct redis_config *config, struct blob_error *err)
{
    struct redis_call call;
    enum blob_status st = BLOB_OK;
    if (*config->password) {
        redis_call_begin(&call, "AUTH");
        if (*config->user)
            redis_call_text(&call, config->user);
        redis_call_text(&call, config->password);
        st = run_plain(conn, &call, err);
    }
    if (st == BLOB_OK && config->db > 0) {
        redis_call_begin(&call, "SELECT");
        redis_call_number(&call, config->db);
        st = run_plain(conn, &call, err);
    }
    return st;
}

static enum blob_status check_master(struct redis_conn *conn, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    redis_call_begin(&call, "ROLE");
    enum blob_status st = redis_conn_run(conn, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 1 || reply->element[0]->type != REDIS_REPLY_STRING ||
        strcmp(reply->element[0]->str, "master") != 0)
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "redis: this server is a replica, not the master");
    freeReplyObject(reply);
    return st;
}

/*
 * A file's row goes in one exchange with its upload's session, and before it. Did Redis know the session's script and
 * not the row's, the row would be asked again by its text, and come after. So Redis is told the row's before either is
 * asked for. Where the ACL does not allow that, it stays as it is.
 */
static enum blob_status teach_row_script(struct redis_conn *conn, struct blob_error *err)
{
    struct redis_call call;
    redis_call_begin(&call, "SCRIPT");
    redis_call_text(&call, "LOAD");
    redis_call_text(&call, redis_script_text(REDIS_SCRIPT_INDEX_PUT));
    enum blob_status st = run_plain(conn, &call, err);
    return st == BLOB_E_DENIED ? BLOB_OK : st;
}

static redisContext *connect_to(const struct redis_endpoint *at, int64_t timeout_ms)
{
    if (*at->socket)
        return redisConnectUnixWithTimeout(at->socket, timeval_ms(timeout_ms));
    return redisConnectWithTimeout(at->host, at->port, timeval_ms(timeout_ms));
}

enum blob_status redis_conn_open(const struct redis_config *config, const struct redis_endpoint *at, bool as_master,
                                 struct redis_conn **out, struct blob_error *err)
{
    char where[300];
    struct blob_error why = {0};
    redis_endpoint_text(at, where, sizeof where);
    struct redis_conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a connection to redis");
    for (int script = 0; script < REDIS_SCRIPT_COUNT; script++)
        redis_script_sha((enum redis_script)script, conn->shas[script]);
    enum blob_status st = BLOB_OK;
    conn->timeout_us = config->command_timeout_ms * 1000;
    conn->context = connect_to(at, config->connect_timeout_ms);
    if (!conn->context)
        st = blob_fail(&why, BLOB_E_NO_MEMORY, 0, "no memory for a connection to redis");
    else if (conn->context->err)
        st = blob_fail(&why, BLOB_E_UNAVAILABLE, 0, "redis: connect: %s", conn->context->errstr);
    else if (redisSetTimeout(conn->context, timeval_ms(config->command_timeout_ms)) != REDIS_OK)
        st = blob_fail(&why, BLOB_E_IO, 0, "redis: time-out: %s", conn->context->errstr);
    if (st == BLOB_OK && !*at->socket)
        (void)redisEnableKeepAlive(conn->context);
    if (st == BLOB_OK)
        st = log_in(conn, config, &why);
    if (st == BLOB_OK && as_master)
        st = check_master(conn, &why);
    if (st == BLOB_OK && as_master)
        st = teach_row_script(conn, &why);
    if (st != BLOB_OK) {
        redis_conn_close(conn);
        return blob_fail(err, st, 0, "%s: %s", where, why.text);
    }
    *out = conn;
    return BLOB_OK;
}

void redis_conn_close(struct redis_conn *conn)
{
    if (!conn)
        return;
    if (conn->context)
        redisFree(conn->context);
    free(conn);
}

bool redis_conn_stale(const struct redis_conn *conn)
{
    char c;
    /* Nothing is due on an idle connection: whatever can be read, the end included, makes it useless. */
    return recv(conn->context->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}
