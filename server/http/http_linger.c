/*
 * http_linger - closing a socket that the peer still sends to. Closing with unread bytes makes the kernel send a reset,
 * which can overtake the answer; so a duplicate of the descriptor keeps the socket open while evhttp closes its own
 * after shutting down the sending side, and what comes is discarded until the peer closes too, or has had enough of our
 * time.
 */
#include "server/http/http_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINGER_MS        10000
#define LINGER_SILENT_MS 2000
#define LINGER_BYTES     (64ull << 20)
#define DISCARD_BYTES    (64u << 10)

struct http_linger {
    TAILQ_ENTRY(http_linger) link;
    struct http_loop *loop;
    struct event event;
    int fd;
    uint64_t left;
    int64_t until_ms, silent_until_ms;
};

static void linger_end(struct http_linger *linger)
{
    event_del(&linger->event);
    close(linger->fd);
    TAILQ_REMOVE(&linger->loop->lingers, linger, link);
    atomic_fetch_sub(&linger->loop->srv->connections, 1);
    free(linger);
}

static void linger_readable(evutil_socket_t fd, short what, void *arg)
{
    struct http_linger *linger = arg;
    (void)what;
    /* Read, not discarded with MSG_TRUNC: that gives no buffer, and the thread sanitizer takes it for one. */
    uint8_t discarded[DISCARD_BYTES];
    ssize_t n = recv((int)fd, discarded, sizeof discarded, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || (uint64_t)n >= linger->left) {
        linger_end(linger);
        return;
    }
    linger->left -= (uint64_t)n;
    linger->silent_until_ms = http_now_ms() + LINGER_SILENT_MS;
}

void http_linger_start(struct http_loop *loop, int fd)
{
    /* Without memory or descriptors the peer gets its reset. */
    struct http_linger *linger = calloc(1, sizeof *linger);
    /* dup(), not fcntl(): the thread sanitizer has to see that the number is a new one. */
    int copy = linger ? dup(fd) : -1;
    if (copy < 0) {
        free(linger);
        return;
    }
    fcntl(copy, F_SETFD, FD_CLOEXEC);
    int64_t now_ms = http_now_ms();
    linger->loop = loop;
    linger->fd = copy;
    linger->left = LINGER_BYTES;
    linger->until_ms = now_ms + LINGER_MS;
    linger->silent_until_ms = now_ms + LINGER_SILENT_MS;
    event_assign(&linger->event, loop->base, copy, EV_READ | EV_PERSIST, linger_readable, linger);
    event_add(&linger->event, NULL);
    TAILQ_INSERT_TAIL(&loop->lingers, linger, link);
    atomic_fetch_add(&loop->srv->connections, 1);
}

void http_linger_sweep(struct http_loop *loop, int64_t now_ms)
{
    struct http_linger *linger = TAILQ_FIRST(&loop->lingers);
    while (linger) {
        struct http_linger *next = TAILQ_NEXT(linger, link);
        if (now_ms >= linger->until_ms || now_ms >= linger->silent_until_ms)
            linger_end(linger);
        linger = next;
    }
}

bool http_linger_evict(struct http_loop *loop)
{
    if (TAILQ_EMPTY(&loop->lingers))
        return false;
    linger_end(TAILQ_FIRST(&loop->lingers));
    return true;
}

void http_linger_free_all(struct http_loop *loop)
{
    while (!TAILQ_EMPTY(&loop->lingers))
        linger_end(TAILQ_FIRST(&loop->lingers));
}
