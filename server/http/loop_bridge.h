/*
 * loop_bridge - brings tasks from any thread to the thread of one event loop.
 *
 * Threads: loop_bridge_post() from any; the rest on the loop's thread, or while the loop does not run.
 * Ownership: borrows each task from posting until its run() begins. Order: tasks run in the order of posting.
 */
#ifndef BLOBD_SERVER_HTTP_LOOP_BRIDGE_H
#define BLOBD_SERVER_HTTP_LOOP_BRIDGE_H

#include "server/http/http_server.h"

struct event_base;
struct loop_bridge;

enum blob_status loop_bridge_new(struct event_base *base, struct loop_bridge **out,
                                 struct blob_error *err) BLOB_MUST_CHECK;
/* Tasks still queued are forgotten: run them first. */
void loop_bridge_free(struct loop_bridge *bridge);

/* Any thread. Cannot fail, allocates nothing. */
void loop_bridge_post(struct loop_bridge *bridge, struct http_task *task);
/* Runs what is queued now; true when anything was. */
bool loop_bridge_run(struct loop_bridge *bridge);

#endif
