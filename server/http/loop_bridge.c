/*
 * loop_bridge - a queue under a mutex and an eventfd. The eventfd is written only when the queue was empty: whoever
 * finds tasks in it knows that a wake is on its way, because the loop takes the whole queue after reading the eventfd.
 * The mutex is a leaf: nothing is called under it.
 */
#include "server/http/loop_bridge.h"

#include "core/check.h"

#include <errno.h>
#include <event2/event.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct loop_bridge {
    pthread_mutex_t lock;
    struct http_task *first; /* oldest */
    struct http_task **end;
    int fd;
    struct event *wake;
};

static void bridge_woken(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    uint64_t count;
    /* Nothing to read means that an earlier run took the tasks of this wake along. */
    ssize_t n = read(fd, &count, sizeof count);
    (void)n;
    loop_bridge_run(arg);
}

enum blob_status loop_bridge_new(struct event_base *base, struct loop_bridge **out, struct blob_error *err)
{
    struct loop_bridge *bridge = calloc(1, sizeof *bridge);
    if (!bridge)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a loop's queue");
    pthread_mutex_init(&bridge->lock, NULL);
    bridge->end = &bridge->first;
    bridge->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (bridge->fd < 0) {
        int saved = errno;
        loop_bridge_free(bridge);
        return blob_fail(err, BLOB_E_UNAVAILABLE, saved, "eventfd");
    }
    bridge->wake = event_new(base, bridge->fd, EV_READ | EV_PERSIST, bridge_woken, bridge);
    if (!bridge->wake || event_add(bridge->wake, NULL) != 0) {
        loop_bridge_free(bridge);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a loop's queue");
    }
    *out = bridge;
    return BLOB_OK;
}

void loop_bridge_free(struct loop_bridge *bridge)
{
    if (!bridge)
        return;
    if (bridge->wake)
        event_free(bridge->wake);
    if (bridge->fd >= 0)
        close(bridge->fd);
    pthread_mutex_destroy(&bridge->lock);
    free(bridge);
}

void loop_bridge_post(struct loop_bridge *bridge, struct http_task *task)
{
    task->next = NULL;
    pthread_mutex_lock(&bridge->lock);
    bool was_empty = !bridge->first;
    *bridge->end = task;
    bridge->end = &task->next;
    pthread_mutex_unlock(&bridge->lock);
    if (!was_empty)
        return;
    uint64_t one = 1;
    /* It can only fail by reaching 2^64 - 1, and then the loop is awake anyway. */
    ssize_t n = write(bridge->fd, &one, sizeof one);
    (void)n;
}

bool loop_bridge_run(struct loop_bridge *bridge)
{
    pthread_mutex_lock(&bridge->lock);
    struct http_task *task = bridge->first;
    bridge->first = NULL;
    bridge->end = &bridge->first;
    pthread_mutex_unlock(&bridge->lock);
    bool any = task != NULL;
    while (task) {
        struct http_task *next = task->next; /* run() may free or post the task */
        task->run(task);
        task = next;
    }
    return any;
}
