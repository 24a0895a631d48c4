/*
 * http_peer - for whom a connection, or a request on it, speaks: its peer; or, where the peer is a proxy that the
 * settings name, the client that the proxy names, by a PROXY header before the connection's first byte or by
 * X-Forwarded-For in a request. Nobody else is listened to: an address that anybody may choose is no address.
 *
 * While a PROXY header is awaited (held), the bufferevent has no descriptor, so that neither evhttp nor TLS sees a byte
 * of it; what is behind the header stays in the socket. The time for it is the one for a head.
 */
#include "server/http/http_internal.h"

#include "core/check.h"
#include "server/http/parse/proxy_header.h"
#include "server/limiter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TOLD_MAX 64u

struct http_proxy {
    struct event event;
    struct proxy_header header;
};

/* With a port "address:port", IPv6 in brackets; without one the address alone. */
static void format_remote(const struct ip_address *address, unsigned port, bool has_port, char *out, size_t size)
{
    char text[INET6_ADDRSTRLEN] = "-";
    bool v4 = ip_is_v4(address);
    inet_ntop(v4 ? AF_INET : AF_INET6, address->bytes + (v4 ? 12 : 0), text, sizeof text);
    if (has_port)
        snprintf(out, size, v4 ? "%s:%u" : "[%s]:%u", text, port);
    else
        snprintf(out, size, "%s", text);
}

/* ---- a connection ------------------------------------------------------------------------------------------------ */

/* How many may be connected only to be told that their address has too many: few, or they would fill the server. */
static unsigned told_max(const struct http_server *srv)
{
    unsigned few = srv->cfg.max_connections / 128;
    return few < 1 ? 1 : few > TOLD_MAX ? TOLD_MAX : few;
}

/* evhttp is at work on the connection, which it has just accepted; and it may go on to accept thousands before the loop
 * comes to close this one. So it counts no more from here on. */
static void refuse_later(struct http_conn *conn)
{
    struct http_loop *loop = conn->loop;
    conn->doomed = true;
    atomic_fetch_sub(&loop->srv->connections, 1);
    if (conn->fd >= 0)
        bufferevent_setfd(conn->bev, -1);
    if (!loop->dooming)
        http_loop_post(loop, &loop->doom_task);
    loop->dooming = true;
}

/* The client is known. A little over what one may have, it is told so; well over it, it is told nothing, which costs
 * nothing. False: that is so, and the connection is not to begin. */
static bool conn_admit(struct http_conn *conn)
{
    const struct http_config *cfg = &conn->loop->srv->cfg;
    if (!cfg->limiter || ip_networks_have(cfg->forwarders, &conn->client))
        return true;
    struct limit_key key = limit_key_of_address(&conn->client);
    switch (limiter_enter(cfg->limiter, LIMIT_CONNECTIONS_ADDRESS, &key)) {
    case LIMIT_FREE:
        return true;
    case LIMIT_HELD:
        conn->counted = true;
        return true;
    case LIMIT_REFUSED:
        break;
    }
    if (atomic_fetch_add(&conn->loop->srv->over_share, 1) < told_max(conn->loop->srv)) {
        conn->over_share = true;
        return true;
    }
    atomic_fetch_sub(&conn->loop->srv->over_share, 1);
    refuse_later(conn);
    return false;
}

static void proxy_free(struct http_conn *conn)
{
    if (!conn->proxy)
        return;
    event_del(&conn->proxy->event);
    free(conn->proxy);
    conn->proxy = NULL;
}

static void proxy_fail(struct http_conn *conn, const char *fault)
{
    const struct http_config *cfg = &conn->loop->srv->cfg;
    if (cfg->on_proxy_fault)
        cfg->on_proxy_fault(conn->remote, fault, cfg->arg);
    http_conn_reset(conn);
}

static void proxy_done(struct http_conn *conn)
{
    const struct proxy_header *header = &conn->proxy->header;
    if (header->relayed) {
        conn->client = header->source;
        format_remote(&header->source, header->port, true, conn->remote, sizeof conn->remote);
    }
    proxy_free(conn);
    if (conn_admit(conn))
        http_conn_begin(conn);
}

static void proxy_readable(evutil_socket_t fd, short what, void *arg)
{
    struct http_conn *conn = arg;
    uint8_t data[512];
    (void)what;
    MAGIC_OK(conn, HTTP_CONN_MAGIC);
    for (;;) {
        struct proxy_header *header = &conn->proxy->header;
        size_t wanted = proxy_header_wants(header);
        ssize_t n = recv((int)fd, data, wanted < sizeof data ? wanted : sizeof data, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            http_conn_break(conn);
            return;
        }
        switch (proxy_header_feed(header, data, (size_t)n)) {
        case PROXY_MORE:
            break;
        case PROXY_DONE:
            proxy_done(conn);
            return;
        case PROXY_BROKEN:
            proxy_fail(conn, header->fault);
            return;
        }
    }
}

/* Without memory the connection waits for its time to be over. */
static void proxy_await(struct http_conn *conn)
{
    bufferevent_setfd(conn->bev, -1);
    conn->proxy = calloc(1, sizeof *conn->proxy);
    if (!conn->proxy)
        return;
    event_assign(&conn->proxy->event, conn->loop->base, conn->fd, EV_READ | EV_PERSIST, proxy_readable, conn);
    event_add(&conn->proxy->event, NULL);
}

void http_peer_open(struct http_conn *conn)
{
    const struct http_config *cfg = &conn->loop->srv->cfg;
    char *address = NULL;
    uint16_t port = 0;
    evhttp_connection_get_peer(conn->evcon, &address, &port);
    snprintf(conn->remote, sizeof conn->remote, strchr(address, ':') ? "[%s]:%u" : "%s:%u", address, (unsigned)port);
    if (ip_parse(address, strcspn(address, "%"), &conn->client) != BLOB_OK)
        conn->client = (struct ip_address){0};
    if (ip_networks_have(cfg->proxies, &conn->client))
        proxy_await(conn);
    else if (conn_admit(conn))
        http_conn_begin(conn);
}

void http_peer_close(struct http_conn *conn)
{
    struct http_server *srv = conn->loop->srv;
    proxy_free(conn);
    if (conn->over_share)
        atomic_fetch_sub(&srv->over_share, 1);
    conn->over_share = false;
    if (!conn->counted)
        return;
    struct limit_key key = limit_key_of_address(&conn->client);
    limiter_leave(srv->cfg.limiter, LIMIT_CONNECTIONS_ADDRESS, &key);
    conn->counted = false;
}

void http_peer_doom(struct http_task *task)
{
    struct http_loop *loop = CONTAINER_OF(task, struct http_loop, doom_task);
    MAGIC_OK(loop, HTTP_LOOP_MAGIC);
    struct http_conn *conn = TAILQ_FIRST(&loop->conns);
    loop->dooming = false;
    while (conn) {
        struct http_conn *next = TAILQ_NEXT(conn, link);
        if (conn->doomed)
            http_conn_reset(conn);
        conn = next;
    }
}

/* ---- a request --------------------------------------------------------------------------------------------------- */

/* An element of X-Forwarded-For: an address, with a port perhaps, IPv6 then in brackets. */
static bool parse_forwarded(const char *text, size_t len, struct ip_address *out)
{
    if (len > 0 && text[0] == '[') {
        const char *end = memchr(text, ']', len);
        return end && (end + 1 == text + len || end[1] == ':') &&
               ip_parse(text + 1, (size_t)(end - text) - 1, out) == BLOB_OK;
    }
    const char *colon = memchr(text, ':', len);
    bool has_port = colon && !memchr(colon + 1, ':', len - (size_t)(colon - text) - 1);
    return ip_parse(text, has_port ? (size_t)(colon - text) : len, out) == BLOB_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* From the end, where the last proxy wrote: past all that are believed themselves. What stands before the first other
 * one is what that one said, and anybody may say anything. */
void http_peer_of_request(struct http_request *req)
{
    const struct ip_networks *forwarders = req->loop->srv->cfg.forwarders;
    if (!ip_networks_have(forwarders, &req->client))
        return;
    const char *list = http_request_header(req, "X-Forwarded-For");
    size_t end = list ? strlen(list) : 0;
    bool found = false;
    while (end > 0) {
        size_t begin = end;
        while (begin > 0 && list[begin - 1] != ',')
            begin--;
        size_t from = begin, to = end;
        while (from < to && is_blank(list[from]))
            from++;
        while (to > from && is_blank(list[to - 1]))
            to--;
        if (to > from && !parse_forwarded(list + from, to - from, &req->client))
            break;
        found = found || to > from;
        if (to > from && !ip_networks_have(forwarders, &req->client))
            break;
        end = begin > 0 ? begin - 1 : 0;
    }
    if (found)
        format_remote(&req->client, 0, false, req->remote, sizeof req->remote);
}

void http_request_client_text(const struct http_request *req, char out[HTTP_CLIENT_MAX])
{
    struct ip_address client = ip_client(&req->client);
    format_remote(&client, 0, false, out, HTTP_CLIENT_MAX);
}
