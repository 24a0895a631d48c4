/*
 * load - one epoll loop, level-triggered. A connection is in one of three states: sending (bytes of its request are
 * left and it may send them: EPOLLOUT is armed), waiting for the answer or for its next second's share, or retired.
 */
#include "load.h"

#include "content.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SEND_TURN (4u << 20) /* bytes a connection may send before the others get their turn */

struct connection {
    int fd; /* -1: none */
    bool wants_out, retired;
    enum step step;
    struct upload up;
    struct blob_stamp stamp;
    char head[4096];
    size_t head_len, head_sent;
    uint64_t sent;    /* offset in the blob */
    uint64_t allowed; /* slow: may send up to this offset */
    double started, next_share;
    int shares;
    char answer[16384];
    size_t answer_len;
};

struct load {
    const struct load_options *opt;
    struct load_result *result;
    struct content *content;
    struct connection *connections;
    unsigned pending; /* connections not retired */
    uint64_t next_number;
    int epoll;
};

double load_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* ---- connections ---- */

static void connection_drop(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void connection_retire(struct load *ld, struct connection *c)
{
    connection_drop(c);
    c->retired = true;
    ld->pending--;
}

static void connection_fail(struct load *ld, struct connection *c, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void connection_fail(struct load *ld, struct connection *c, const char *fmt, ...)
{
    static const char *const steps[] = {"create", "append", "complete"};
    struct load_result *r = ld->result;
    if (!r->first_error[0]) {
        int n = snprintf(r->first_error, sizeof r->first_error, "blob %llu, %s: ", (unsigned long long)c->up.number,
                         steps[c->step]);
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(r->first_error + n, sizeof r->first_error - (size_t)n, fmt, ap);
        va_end(ap);
    }
    r->failed++;
    r->ended = load_now();
    connection_retire(ld, c);
}

static void connection_arm(struct load *ld, struct connection *c, bool out)
{
    if (out == c->wants_out)
        return;
    struct epoll_event ev = {.events = EPOLLIN | (out ? EPOLLOUT : 0u), .data.ptr = c};
    c->wants_out = out;
    (void)epoll_ctl(ld->epoll, EPOLL_CTL_MOD, c->fd, &ev);
}

static void connection_dial(struct load *ld, struct connection *c)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)ld->opt->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.ptr = c};
    int one = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        connection_fail(ld, c, "socket: %s", strerror(errno));
        return;
    }
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->wants_out = true;
    if ((connect(c->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS) ||
        epoll_ctl(ld->epoll, EPOLL_CTL_ADD, c->fd, &ev))
        connection_fail(ld, c, "connect: %s", strerror(errno));
}

/* ---- sending ---- */

static void connection_count_sent(struct connection *c, size_t n)
{
    size_t head = c->head_len - c->head_sent;
    head = head < n ? head : n;
    c->head_sent += head;
    c->sent += n - head;
}

static void connection_send(struct load *ld, struct connection *c)
{
    uint64_t turn = c->sent + SEND_TURN;
    for (;;) {
        struct iovec iov[8];
        size_t n = 0;
        uint64_t end = c->up.to < c->allowed ? c->up.to : c->allowed;
        end = end < turn ? end : turn;
        if (c->head_sent < c->head_len)
            iov[n++] = (struct iovec){c->head + c->head_sent, c->head_len - c->head_sent};
        n += content_slice(ld->content, &c->stamp, c->sent, end, iov + n, 8 - n);
        if (n == 0)
            break;
        struct msghdr msg = {.msg_iov = iov, .msg_iovlen = n};
        ssize_t r = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
        if (r >= 0) {
            connection_count_sent(c, (size_t)r);
        } else if (errno == EAGAIN) {
            connection_arm(ld, c, true);
            return;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            connection_arm(ld, c, false); /* an answer may be there to tell why */
            return;
        } else {
            connection_fail(ld, c, "send: %s", strerror(errno));
            return;
        }
    }
    connection_arm(ld, c, c->sent < c->up.to && c->sent < c->allowed);
}

static void connection_request(struct load *ld, struct connection *c)
{
    uint64_t left = ld->opt->size - c->up.from, chunk = ld->opt->dialect->whole ? 0 : ld->opt->chunk;
    uint64_t body = c->step != STEP_APPEND ? 0 : chunk && chunk < left ? chunk : left;
    size_t room = sizeof c->head;

    c->up.to = c->up.from + body;
    c->sent = c->up.from;
    c->head_sent = c->answer_len = 0;
    size_t n = (size_t)ld->opt->dialect->head(&c->up, c->step, c->head, room);
    if (n < room)
        n += (size_t)snprintf(c->head + n, room - n, "Host: 127.0.0.1:%d\r\nContent-Length: %llu\r\n\r\n", c->up.port,
                              (unsigned long long)body);
    if (n >= room) {
        connection_fail(ld, c, "the request's head is too long");
        return;
    }
    c->head_len = n;
    if (c->fd < 0)
        connection_dial(ld, c); /* being writable then sends it */
    else
        connection_send(ld, c);
}

static void connection_start_blob(struct load *ld, struct connection *c)
{
    const struct load_options *opt = ld->opt;
    if (ld->next_number >= opt->count || (opt->seconds > 0 && load_now() - ld->result->began >= opt->seconds)) {
        connection_retire(ld, c);
        return;
    }
    c->up.number = ld->next_number++;
    c->up.from = 0;
    c->up.hex = c->stamp.hex;
    c->up.bearer = opt->bearer;
    c->up.port = opt->port;
    c->step = opt->dialect->first;
    c->allowed = opt->slow_bytes ? opt->slow_bytes : UINT64_MAX;
    c->shares = 0;
    content_stamp(ld->content, c->up.number, &c->stamp);
    c->started = load_now();
    c->next_share = c->started + 1;
    connection_request(ld, c);
}

/* ---- answers ---- */

/* Keeps an even sample of the uploads, so that not only the first are read back. */
static void load_sample(struct load *ld, const struct connection *c)
{
    struct load_result *r = ld->result;
    size_t slot = r->sample_count < ld->opt->samples ? r->sample_count++ : (size_t)((uint64_t)random() % r->finished);
    if (slot >= ld->opt->samples)
        return;
    (void)ld->opt->dialect->path(&c->up, r->samples[slot].path, sizeof r->samples[slot].path);
    memcpy(r->samples[slot].hex, c->stamp.hex, sizeof c->stamp.hex);
}

static void connection_answered(struct load *ld, struct connection *c, int status, const char *body)
{
    const struct dialect *d = ld->opt->dialect;
    char value[64];
    if (status != d->status[c->step]) {
        connection_fail(ld, c, "status %d, want %d: %.160s", status, d->status[c->step], body);
        return;
    }
    if (c->sent < c->up.to) {
        connection_fail(ld, c, "status %d before the whole body was sent", status);
        return;
    }
    d->note(&c->up, c->answer);
    if (head_value(c->answer, "Connection", value, sizeof value) && strcasecmp(value, "close") == 0)
        connection_drop(c);
    if (c->step == STEP_APPEND)
        c->up.from = c->up.to;
    if (c->step == d->last && c->up.from == ld->opt->size) {
        ld->result->ended = load_now();
        ld->result->latency[ld->result->finished++] = ld->result->ended - c->started;
        load_sample(ld, c);
        connection_start_blob(ld, c);
        return;
    }
    if (c->step == STEP_CREATE)
        c->next_share = load_now() + 1;
    if (c->step == STEP_CREATE || c->up.from == ld->opt->size)
        c->step++;
    connection_request(ld, c);
}

/* Whether the answer that has come in so far is whole. */
static bool answer_is_whole(const struct connection *c, int status, const char *body)
{
    size_t have = c->answer_len - (size_t)(body - c->answer);
    char value[64];
    if (status == 204 || status == 304)
        return true;
    if (head_value(c->answer, "Content-Length", value, sizeof value))
        return have >= strtoull(value, NULL, 10);
    if (head_value(c->answer, "Transfer-Encoding", value, sizeof value))
        return have >= 5 && memcmp(body + have - 5, "0\r\n\r\n", 5) == 0;
    return true;
}

static void connection_read(struct load *ld, struct connection *c)
{
    ssize_t r = recv(c->fd, c->answer + c->answer_len, sizeof c->answer - 1 - c->answer_len, 0);
    if (r < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (r <= 0) {
        connection_fail(ld, c, "connection closed: %s", r ? strerror(errno) : "end of stream");
        return;
    }
    c->answer_len += (size_t)r;
    c->answer[c->answer_len] = '\0';
    char *end = strstr(c->answer, "\r\n\r\n");
    if (end) {
        char *body = end + 4;
        long status = c->answer_len > 12 ? strtol(c->answer + 9, NULL, 10) : 0;
        if (status == 100) {
            c->answer_len -= (size_t)(body - c->answer);
            memmove(c->answer, body, c->answer_len + 1);
        } else if (answer_is_whole(c, (int)status, body)) {
            connection_answered(ld, c, (int)status, body);
            return;
        }
    }
    if (c->answer_len == sizeof c->answer - 1)
        connection_fail(ld, c, "the answer is too long");
}

/* ---- the run ---- */

/* Slow uploads: the connections start spread over the first second; each second brings a share. */
static void load_share(struct load *ld, double now)
{
    const struct load_options *opt = ld->opt;
    for (unsigned i = 0; i < opt->clients; i++) {
        struct connection *c = &ld->connections[i];
        if (c->retired)
            continue;
        if (c->started == 0) {
            if (now >= ld->result->began + (double)i / opt->clients)
                connection_start_blob(ld, c);
        } else if (c->step == STEP_APPEND && c->allowed != UINT64_MAX && now >= c->next_share) {
            c->next_share += 1;
            c->allowed = ++c->shares < opt->slow_seconds ? c->allowed + opt->slow_bytes : UINT64_MAX;
            if (c->fd >= 0)
                connection_send(ld, c);
        }
    }
}

static void load_give_up(struct load *ld)
{
    for (unsigned i = 0; i < ld->opt->clients; i++)
        if (!ld->connections[i].retired)
            connection_fail(ld, &ld->connections[i], "not finished after %.0f s", ld->opt->max_seconds);
}

static void load_loop(struct load *ld)
{
    struct epoll_event events[256];
    double next_share = 0;
    while (ld->pending > 0) {
        double now = load_now();
        if (now - ld->result->began > ld->opt->max_seconds) {
            load_give_up(ld);
            return;
        }
        if (ld->opt->slow_bytes && now >= next_share) {
            load_share(ld, now);
            next_share = now + .005;
        }
        int n = epoll_wait(ld->epoll, events, 256, ld->opt->slow_bytes ? 5 : 1000);
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->fd >= 0 && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
                connection_read(ld, c);
            else if (c->fd >= 0 && events[i].events & EPOLLOUT)
                connection_send(ld, c);
        }
    }
}

bool load_run(const struct load_options *opt, struct load_result *out)
{
    struct load ld = {.opt = opt, .result = out, .pending = opt->clients, .epoll = -1};
    bool ok = false;

    memset(out, 0, sizeof *out);
    ld.connections = calloc(opt->clients, sizeof *ld.connections);
    out->latency = calloc(opt->count, sizeof *out->latency);
    out->samples = calloc(opt->samples + 1, sizeof *out->samples);
    ld.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!ld.connections || !out->latency || !out->samples || ld.epoll < 0)
        goto out;
    ld.content = content_new(opt->size, opt->seed);
    for (unsigned i = 0; i < opt->clients; i++)
        ld.connections[i].fd = -1;

    double cpu = cpu_seconds();
    out->began = out->ended = load_now();
    for (unsigned i = 0; !opt->slow_bytes && i < opt->clients; i++)
        connection_start_blob(&ld, &ld.connections[i]);
    load_loop(&ld);
    out->cpu = cpu_seconds() - cpu;
    content_free(ld.content);
    ok = true;
out:
    if (ld.epoll >= 0)
        close(ld.epoll);
    free(ld.connections);
    return ok;
}

void load_free(struct load_result *result)
{
    free(result->latency);
    free(result->samples);
    memset(result, 0, sizeof *result);
}
