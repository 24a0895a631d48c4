/*
 * evhttp_newreqcb - libevent 2.2's evhttp_set_newreqcb on libevent 2.1: a look at each request of an evhttp server
 * before its first byte is read. Without it evhttp shows a request only once its whole body is in memory.
 *
 * On 2.1 evhttp_request_new() is interposed: the program's own definition is found first by the dynamic linker, and
 * calls libevent's. So the program must link libevent dynamically and export its symbols (ENABLE_EXPORTS), and
 * evhttp_newreqcb_prove() must have succeeded before anything relies on the callback.
 *
 * Threads: set and clear from any thread while the evhttp is not running; the callback runs on its loop's thread.
 * Ownership: borrows everything. On 2.1 the request is not yet tied to its connection when the callback runs.
 */
#ifndef BLOBD_SERVER_HTTP_EVHTTP_NEWREQCB_H
#define BLOBD_SERVER_HTTP_EVHTTP_NEWREQCB_H

#include "core/status.h"

struct evhttp;
struct evhttp_request;

/* Return 0. There is one callback an evhttp; setting it again replaces it. */
enum blob_status evhttp_newreqcb_set(struct evhttp *http, int (*cb)(struct evhttp_request *req, void *arg),
                                     void *arg) BLOB_MUST_CHECK;
/* Before the evhttp is freed. */
void evhttp_newreqcb_clear(struct evhttp *http);

/* Sends one request over a loopback connection to an evhttp of its own and sees whether the callback fires; at most
 * two seconds. UNSUPPORTED when it does not: then the program was linked in a way that defeats the interposing. */
enum blob_status evhttp_newreqcb_prove(struct blob_error *err) BLOB_MUST_CHECK;

#endif
