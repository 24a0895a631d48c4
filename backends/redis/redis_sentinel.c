/*
 * redis_sentinel - a short connection for each question, so that a sentinel that hangs costs one time-out and no more.
 * Sentinels are asked without the login and database of the master.
 */
#include "backends/redis/redis_sentinel.h"

#include "backends/redis/redis_conn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* SENTINEL get-master-addr-by-name: [ip, port], or nil. */
static enum blob_status read_address(const redisReply *reply, struct redis_endpoint *out, struct blob_error *err)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_STRING)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "it knows no master of this name");
    struct redis_endpoint at = {.port = (int)strtol(reply->element[1]->str, NULL, 10)};
    if (at.port < 1 || at.port > 65535 ||
        (size_t)snprintf(at.host, sizeof at.host, "%s", reply->element[0]->str) >= sizeof at.host)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "it gave an address that makes no sense");
    *out = at;
    return BLOB_OK;
}

static enum blob_status ask(const struct redis_config *config, const struct redis_endpoint *sentinel,
                            struct redis_endpoint *out, struct blob_error *err)
{
    struct redis_config anonymous = {.connect_timeout_ms = config->connect_timeout_ms,
                                     .command_timeout_ms = config->command_timeout_ms};
    struct redis_conn *conn = NULL;
    struct redis_call call;
    redisReply *reply = NULL;
    enum blob_status st = redis_conn_open(&anonymous, sentinel, false, &conn, err);
    if (st != BLOB_OK)
        return st;
    redis_call_begin(&call, "SENTINEL");
    redis_call_text(&call, "get-master-addr-by-name");
    redis_call_text(&call, config->master_name);
    st = redis_conn_run(conn, &call, &reply, err);
    if (st == BLOB_OK) {
        st = read_address(reply, out, err);
        freeReplyObject(reply);
    }
    redis_conn_close(conn);
    return st;
}

enum blob_status redis_sentinel_master(const struct redis_config *config, unsigned *first, struct redis_endpoint *out,
                                       struct blob_error *err)
{
    struct blob_error why = {0};
    for (unsigned i = 0; i < config->sentinel_count; i++) {
        unsigned n = (*first + i) % config->sentinel_count;
        if (ask(config, &config->sentinels[n], out, &why) == BLOB_OK) {
            *first = n;
            return BLOB_OK;
        }
    }
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "no sentinel tells where \"%s\" is; the last: %s", config->master_name,
                     why.text);
}
