/*
 * http_evict - which connection a full server can miss most, where a new one matters more: at the admin port, whose
 * question may be the one that decides whether this process lives on.
 *
 * First those that are answered and only being closed, then those that have not asked yet or not again (silent, or with
 * a head that does not end), then those that do not take their answer; the oldest of each. One whose request is worked
 * on is never closed. The look at all of them costs little: such a server has few.
 */
#include "server/http/http_internal.h"

static bool is_older(const struct http_conn *conn, const struct http_conn *than)
{
    return !than || conn->since_ms < than->since_ms;
}

bool http_evict(struct http_loop *loop)
{
    struct http_conn *conn, *asking = NULL, *answered = NULL;
    if (http_linger_evict(loop))
        return true;
    TAILQ_FOREACH(conn, &loop->conns, link)
    {
        if (!conn->evcon)
            continue;
        if (conn->phase == CONN_HEAD && is_older(conn, asking))
            asking = conn;
        else if (conn->phase == CONN_BUSY && conn->req->reply.kind != REPLY_NONE && is_older(conn, answered))
            answered = conn;
    }
    if (asking)
        http_conn_break(asking);
    else if (answered)
        http_conn_reset(answered);
    return asking || answered;
}
