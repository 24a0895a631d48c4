/*
 * evhttp_newreqcb - see the header for what it is for.
 *
 * libevent calls evhttp_request_new() through its procedure linkage table, from two places: for a request that comes
 * in, where the second argument is the evhttp, and for one that goes out, where it is the caller's. Only an evhttp that
 * was registered here is looked at, so that the second kind passes untouched.
 *
 * The interposed function has no argument through which state could reach it, hence mutable variables here, outside
 * main: a list of slots that only grows, a slot being reused when its evhttp has gone. A slot's callback and argument
 * are written before its evhttp is published and read after it is seen, so that looking up takes no lock.
 */
#include "server/http/evhttp_newreqcb.h"

#include "core/check.h"

#include <dlfcn.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct newreq_slot {
    struct newreq_slot *next;
    _Atomic(struct evhttp *) http; /* NULL: free */
    int (*cb)(struct evhttp_request *req, void *arg);
    void *arg;
};

static _Atomic(struct newreq_slot *) newreq_slots;

/* ---- registering ----------------------------------------------------------------------------------------------- */

static struct newreq_slot *slot_of(const struct evhttp *http)
{
    struct newreq_slot *slot = atomic_load_explicit(&newreq_slots, memory_order_acquire);
    while (slot && atomic_load_explicit(&slot->http, memory_order_acquire) != http)
        slot = slot->next;
    return slot;
}

enum blob_status evhttp_newreqcb_set(struct evhttp *http, int (*cb)(struct evhttp_request *req, void *arg), void *arg)
{
    static pthread_mutex_t setting = PTHREAD_MUTEX_INITIALIZER;
    enum blob_status st = BLOB_OK;
    pthread_mutex_lock(&setting);
    evhttp_newreqcb_clear(http);
    struct newreq_slot *slot = slot_of(NULL);
    if (!slot && (slot = calloc(1, sizeof *slot)) != NULL) {
        slot->next = atomic_load(&newreq_slots);
        atomic_store_explicit(&newreq_slots, slot, memory_order_release);
    }
    if (slot) {
        slot->cb = cb;
        slot->arg = arg;
        atomic_store_explicit(&slot->http, http, memory_order_release);
    } else {
        st = BLOB_E_NO_MEMORY;
    }
    pthread_mutex_unlock(&setting);
    return st;
}

void evhttp_newreqcb_clear(struct evhttp *http)
{
    struct newreq_slot *slot = slot_of(http);
    if (slot)
        atomic_store_explicit(&slot->http, NULL, memory_order_release);
}

/* ---- the interposed function ----------------------------------------------------------------------------------- */

typedef struct evhttp_request *request_new_fn(void (*cb)(struct evhttp_request *, void *), void *arg);

static request_new_fn *libevent_request_new(void)
{
    /* POSIX lets a void * from dlsym() be a function's address; ISO C has no cast for it. */
    request_new_fn *fn = NULL;
    void *symbol = dlsym(RTLD_NEXT, "evhttp_request_new");
    memcpy(&fn, &symbol, sizeof fn);
    return fn;
}

/* Declared by <event2/http.h>. */
__attribute__((visibility("default"))) struct evhttp_request *
evhttp_request_new(void (*cb)(struct evhttp_request *, void *), void *arg)
{
    static _Atomic(request_new_fn *) real;
    request_new_fn *fn = atomic_load_explicit(&real, memory_order_relaxed);
    if (!fn) {
        fn = libevent_request_new();
        CHECK(fn != NULL);
        atomic_store_explicit(&real, fn, memory_order_relaxed);
    }
    struct evhttp_request *req = fn(cb, arg);
    struct newreq_slot *slot = req && arg ? slot_of(arg) : NULL;
    if (slot)
        (void)slot->cb(req, slot->arg);
    return req;
}

/* ---- the proof ------------------------------------------------------------------------------------------------- */

static int proof_seen(struct evhttp_request *req, void *arg)
{
    (void)req;
    *(bool *)arg = true;
    return 0;
}

/* The server's end of a loopback connection is accepted by evhttp, which makes the request at once. */
static enum blob_status proof_connect(struct evhttp *http, int *client, struct blob_error *err)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t addr_len = sizeof addr;
    struct evhttp_bound_socket *bound = evhttp_bind_socket_with_handle(http, "127.0.0.1", 0);
    if (!bound || getsockname(evhttp_bound_socket_get_fd(bound), (struct sockaddr *)&addr, &addr_len) != 0)
        return blob_fail(err, BLOB_E_IO, errno, "bind a loopback socket");
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return blob_fail(err, BLOB_E_IO, errno, "socket");
    if (connect(fd, (struct sockaddr *)&addr, sizeof addr) != 0 && errno != EINPROGRESS) {
        int saved = errno;
        close(fd);
        return blob_fail(err, BLOB_E_IO, saved, "connect to a loopback socket");
    }
    *client = fd;
    return BLOB_OK;
}

enum blob_status evhttp_newreqcb_prove(struct blob_error *err)
{
    enum blob_status st = BLOB_E_NO_MEMORY;
    bool seen = false;
    int client = -1;
    struct event_base *base = event_base_new();
    struct evhttp *http = base ? evhttp_new(base) : NULL;
    if (!http || evhttp_newreqcb_set(http, proof_seen, &seen) != BLOB_OK) {
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for an event loop");
        goto out;
    }
    st = proof_connect(http, &client, err);
    if (st != BLOB_OK)
        goto out;
    for (int i = 0; i < 20 && !seen; i++) {
        struct timeval tenth = {.tv_usec = 100 * 1000};
        event_base_loopexit(base, &tenth);
        event_base_loop(base, EVLOOP_ONCE);
    }
    st = seen ? BLOB_OK
              : blob_fail(err, BLOB_E_UNSUPPORTED, 0,
                          "evhttp_request_new is not interposed: link libevent dynamically and export symbols");

out:
    if (client >= 0)
        close(client);
    if (http) {
        evhttp_newreqcb_clear(http);
        evhttp_free(http);
    }
    if (base)
        event_base_free(base);
    return st;
}
