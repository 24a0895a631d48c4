/*
 * telemetry - what is counted and logged of every answered request: by route, method and class of status.
 *
 * Threads: telemetry_new() before serving, on the thread that registers metrics; the rest on any loop's thread.
 * Ownership: instruments belong to the registry; routes are borrowed for good.
 */
#ifndef BLOBD_SERVER_API_TELEMETRY_H
#define BLOBD_SERVER_API_TELEMETRY_H

#include "server/api/router.h"

struct logger;
struct metrics;
struct telemetry;

/* listener is a label's value: "api" or "admin". NULL when memory is out. */
struct telemetry *telemetry_new(struct metrics *metrics, const char *listener, const struct route *routes,
                                size_t route_count);
void telemetry_free(struct telemetry *t); /* NULL is fine */

/* route: one of the table's, or NULL where none matched. */
void telemetry_count(struct telemetry *t, const struct http_request *req, const struct route *route);
/* The access log's line. identity: NULL where unknown. */
void telemetry_log(struct logger *log, const struct http_request *req, const char *identity);

#endif
