/*
 * endpoint - one listener's side of the API: a request comes from the HTTP layer, and goes, by route, limits and
 * bearer, to its handler.
 *
 * Threads: the callbacks run on the request's loop. Source: RFC 9110 (sections 9.3.7, 15.5.2, 15.5.5, 15.5.6).
 */
#ifndef BLOBD_SERVER_API_ENDPOINT_H
#define BLOBD_SERVER_API_ENDPOINT_H

#include "server/api/exchange.h"

/* The http_config callbacks; arg is a struct endpoint. */
void endpoint_on_request(struct http_request *req, void *arg);
void endpoint_on_fault(struct http_request *req, enum http_fault fault, const char *detail, void *arg);
void endpoint_on_done(struct http_request *req, void *arg);
void endpoint_on_proxy_fault(const char *remote, const char *fault, void *arg);

#endif
