/*
 * http_loop - what every part of the layer asks its loop or its server for: the time, a task on the loop's thread, and
 * memory for answers that are held.
 */
#include "server/http/http_internal.h"

#include <time.h>

int64_t http_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void http_loop_post(struct http_loop *loop, struct http_task *task)
{
    loop_bridge_post(loop->bridge, task);
}

bool http_answers_take(struct http_server *srv, size_t bytes)
{
    size_t limit = srv->cfg.answer_memory_bytes;
    size_t held = atomic_fetch_add(&srv->answers, bytes) + bytes;
    if (limit == 0 || held <= limit)
        return true;
    atomic_fetch_sub(&srv->answers, bytes);
    return false;
}

void http_answers_give(struct http_server *srv, size_t bytes)
{
    if (bytes > 0)
        atomic_fetch_sub(&srv->answers, bytes);
}
