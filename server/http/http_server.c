/*
 * http_server - the loops: made, started, drained, stopped.
 *
 * Each loop is an event base, an evhttp and a thread that runs them; libevent is used without its locks, since no
 * object of it is shared. What has to reach a loop from outside is posted to it. One timer a loop looks for what is
 * overdue on all of its connections, which spares a timer a request; a deadline is met within an eighth of the shortest
 * limit.
 */
#include "server/http/http_internal.h"

#include "core/check.h"
#include "server/http/evhttp_newreqcb.h"
#include "server/http/http_tls.h"

#include <event2/http.h>
#include <event2/listener.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SWEEP_MIN_MS 10
#define SWEEP_MAX_MS 500

/* ---- a loop ---------------------------------------------------------------------------------------------------- */

/* Out of descriptors, mostly: until the next sweep, or the loop would spin on what it cannot accept. */
static void accept_failed(struct evconnlistener *listener, void *arg)
{
    (void)arg;
    evconnlistener_disable(listener);
}

static void loop_accept_again(struct http_loop *loop)
{
    unsigned limit = loop->srv->cfg.max_connections;
    if (loop->bound && (limit == 0 || atomic_load(&loop->srv->connections) <= limit))
        evconnlistener_enable(evhttp_bound_socket_get_listener(loop->bound));
}

static void loop_sweep(evutil_socket_t fd, short what, void *arg)
{
    struct http_loop *loop = arg;
    (void)fd;
    (void)what;
    MAGIC_OK(loop, HTTP_LOOP_MAGIC);
    int64_t now_ms = http_now_ms();
    struct http_conn *conn = TAILQ_FIRST(&loop->conns);
    while (conn) {
        struct http_conn *next = TAILQ_NEXT(conn, link);
        http_conn_sweep(conn, now_ms);
        conn = next;
    }
    http_linger_sweep(loop, now_ms);
    loop_accept_again(loop);
}

static void loop_unlisten(struct http_loop *loop)
{
    if (loop->bound)
        evhttp_del_accept_socket(loop->http, loop->bound);
    loop->bound = NULL;
}

static void loop_drain(struct http_task *task)
{
    struct http_loop *loop = CONTAINER_OF(task, struct http_loop, drain_task);
    MAGIC_OK(loop, HTTP_LOOP_MAGIC);
    loop->draining = true;
    loop_unlisten(loop);
    struct http_conn *conn = TAILQ_FIRST(&loop->conns);
    while (conn) {
        struct http_conn *next = TAILQ_NEXT(conn, link);
        if (http_conn_is_idle(conn) && conn->evcon)
            http_conn_break(conn);
        conn = next;
    }
}

static void loop_stop(struct http_task *task)
{
    struct http_loop *loop = CONTAINER_OF(task, struct http_loop, stop_task);
    MAGIC_OK(loop, HTTP_LOOP_MAGIC);
    loop->stopping = true;
    event_base_loopbreak(loop->base);
}

static void *loop_main(void *arg)
{
    struct http_loop *loop = arg;
    MAGIC_OK(loop, HTTP_LOOP_MAGIC);
    event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

static int64_t sweep_ms(const struct http_config *cfg)
{
    int64_t shortest = cfg->head_timeout_ms < cfg->idle_timeout_ms ? cfg->head_timeout_ms : cfg->idle_timeout_ms;
    int64_t ms = shortest / 8;
    return ms < SWEEP_MIN_MS ? SWEEP_MIN_MS : ms > SWEEP_MAX_MS ? SWEEP_MAX_MS : ms;
}

/* Takes fd, also on failure; the rest is cleaned up by loop_release. */
static enum blob_status loop_init(struct http_loop *loop, struct http_server *srv, int fd, struct blob_error *err)
{
    enum blob_status st = BLOB_E_NO_MEMORY;
    int64_t ms = sweep_ms(&srv->cfg);
    struct timeval period = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    loop->magic = HTTP_LOOP_MAGIC;
    loop->srv = srv;
    loop->drain_task.run = loop_drain;
    loop->stop_task.run = loop_stop;
    loop->doom_task.run = http_peer_doom;
    TAILQ_INIT(&loop->conns);
    TAILQ_INIT(&loop->lingers);
    loop->base = event_base_new();
    loop->http = loop->base ? evhttp_new(loop->base) : NULL;
    if (loop->http)
        loop->bound = evhttp_accept_socket_with_handle(loop->http, fd);
    if (!loop->bound) {
        close(fd);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for an event loop");
    }
    evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(loop->bound), accept_failed);
    st = loop_bridge_new(loop->base, &loop->bridge, err);
    if (st != BLOB_OK)
        return st;
    if (srv->tls) {
        loop->stage = malloc(HTTP_TLS_STAGE);
        loop->gathered = malloc(HTTP_TLS_GATHERED_MAX);
        if (!loop->stage || !loop->gathered)
            return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for an event loop");
    }
    loop->sweep = event_new(loop->base, -1, EV_PERSIST, loop_sweep, loop);
    if (!loop->sweep || event_add(loop->sweep, &period) != 0 || http_conn_attach(loop) != BLOB_OK)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for an event loop");
    return BLOB_OK;
}

static void loop_release(struct http_loop *loop)
{
    loop->stopping = true;
    if (loop->http) {
        evhttp_newreqcb_clear(loop->http);
        evhttp_free(loop->http);
        if (loop->opening) {
            http_tls_free(loop->opening->tls);
            free(loop->opening);
        }
        http_linger_free_all(loop);
    }
    if (loop->bridge)
        loop_bridge_run(loop->bridge); /* pieces that came back meanwhile */
    loop_bridge_free(loop->bridge);
    if (loop->sweep)
        event_free(loop->sweep);
    if (loop->base)
        event_base_free(loop->base);
    free(loop->send_buffer);
    free(loop->stage);
    free(loop->gathered);
}

/* ---- the server ------------------------------------------------------------------------------------------------ */

static enum blob_status config_judge(const struct http_config *cfg, struct blob_error *err)
{
    CHECK(cfg->on_request && cfg->on_fault && cfg->on_done);
    CHECK(!cfg->evicts || cfg->loops == 1);
    if (!cfg->listen || cfg->loops < 1 || cfg->loops > 1024)
        return blob_fail(err, BLOB_E_INVALID, 0, "a listen address and 1 to 1024 event loops are needed");
    if (cfg->max_head_bytes < 512 || cfg->max_uri_bytes < 64)
        return blob_fail(err, BLOB_E_INVALID, 0, "a head needs at least 512 bytes, its URI 64");
    if (cfg->head_timeout_ms <= 0 || cfg->idle_timeout_ms <= 0)
        return blob_fail(err, BLOB_E_INVALID, 0, "the timeouts of heads and of idle connections must be positive");
    return BLOB_OK;
}

static enum blob_status server_listen(struct http_server *srv, struct blob_error *err)
{
    unsigned count = srv->cfg.loops;
    int *fds = calloc(count, sizeof *fds);
    srv->loops = calloc(count, sizeof *srv->loops);
    if (!fds || !srv->loops) {
        free(fds);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for event loops");
    }
    enum blob_status st = http_listen(srv->cfg.listen, count, fds, &srv->port, err);
    bool listening = st == BLOB_OK;
    for (unsigned i = 0; i < count && listening; i++) {
        if (st == BLOB_OK)
            st = loop_init(&srv->loops[srv->loop_count++], srv, fds[i], err);
        else
            close(fds[i]);
    }
    free(fds);
    return st;
}

/* libevent's own default is calloc(), which glibc (to 2.40) serves from the arena, under its lock, and not from what
 * each thread has at hand. */
void http_server_prepare(void)
{
    event_set_mem_functions(malloc, realloc, free);
}

enum blob_status http_server_new(const struct http_config *cfg, struct http_server **out, struct blob_error *err)
{
    enum blob_status st = config_judge(cfg, err);
    if (st == BLOB_OK)
        st = evhttp_newreqcb_prove(err);
    if (st != BLOB_OK)
        return st;
    struct http_server *srv = calloc(1, sizeof *srv);
    if (!srv)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a server");
    srv->cfg = *cfg;
    srv->cfg.tls = (struct http_tls_files){0}; /* the TLS context has copies of its own */
    srv->cfg.listen = strdup(cfg->listen);
    srv->head_limits = (struct head_limits){.max_head_bytes = cfg->max_head_bytes, .max_uri_bytes = cfg->max_uri_bytes};
    st = srv->cfg.listen ? BLOB_OK : blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a server");
    if (st == BLOB_OK)
        st = http_pool_new(cfg->body_memory_bytes, &srv->pool, err);
    if (st == BLOB_OK && cfg->tls.cert_file)
        st = tls_server_new(&cfg->tls, &srv->tls, err);
    if (st == BLOB_OK && srv->tls && !(srv->tls_out = http_tls_method()))
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a TLS context");
    if (st == BLOB_OK)
        st = server_listen(srv, err);
    if (st != BLOB_OK) {
        http_server_free(srv);
        return st;
    }
    *out = srv;
    return BLOB_OK;
}

/* Signals are main's: a loop's thread takes none, and a write to a closed socket is an error, not a signal. */
static enum blob_status loops_start(struct http_server *srv, struct blob_error *err)
{
    for (unsigned i = 0; i < srv->loop_count; i++) {
        struct http_loop *loop = &srv->loops[i];
        int rc = pthread_create(&loop->thread, NULL, loop_main, loop);
        if (rc != 0)
            return blob_fail(err, BLOB_E_UNAVAILABLE, rc, "start an event loop's thread");
        pthread_setname_np(loop->thread, "blobd-loop");
        loop->started = true;
    }
    return BLOB_OK;
}

enum blob_status http_server_start(struct http_server *srv, struct blob_error *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    enum blob_status st = loops_start(srv, err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return st;
}

uint16_t http_server_port(const struct http_server *srv)
{
    return srv->port;
}

int64_t http_server_certificate_end_s(const struct http_server *srv)
{
    return srv->tls ? tls_server_certificate_end_s(srv->tls) : 0;
}

bool http_server_certificate_ends_soon(const struct http_server *srv, char *text, size_t size)
{
    return srv->tls && tls_server_ends_soon(srv->tls, text, size);
}

enum blob_status http_server_reload_tls(struct http_server *srv, const struct http_tls_files *files,
                                        struct blob_error *err)
{
    static const struct http_tls_files same = {0};
    return srv->tls ? tls_server_reload(srv->tls, files ? files : &same, err) : BLOB_OK;
}

void http_server_drain(struct http_server *srv)
{
    if (atomic_exchange(&srv->draining, true))
        return;
    for (unsigned i = 0; i < srv->loop_count; i++)
        http_loop_post(&srv->loops[i], &srv->loops[i].drain_task);
}

unsigned http_server_in_flight(const struct http_server *srv)
{
    return atomic_load(&srv->in_flight);
}

unsigned http_server_connections(const struct http_server *srv)
{
    return atomic_load(&srv->connections);
}

void http_server_free(struct http_server *srv)
{
    if (!srv)
        return;
    for (unsigned i = 0; i < srv->loop_count; i++) {
        if (srv->loops[i].started)
            http_loop_post(&srv->loops[i], &srv->loops[i].stop_task);
    }
    for (unsigned i = 0; i < srv->loop_count; i++) {
        if (srv->loops[i].started)
            pthread_join(srv->loops[i].thread, NULL);
    }
    for (unsigned i = 0; i < srv->loop_count; i++)
        loop_release(&srv->loops[i]);
    free(srv->loops);
    BIO_meth_free(srv->tls_out);
    tls_server_free(srv->tls);
    http_pool_free(srv->pool);
    free((char *)srv->cfg.listen);
    free(srv);
}
