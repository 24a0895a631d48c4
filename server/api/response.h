/*
 * response - how answers read: the headers all of them have, and errors in PortSIP's form,
 * {"errors":[{"code":"UPLOAD_UNKNOWN","message":"…","detail":{…}}]}, or RFC 9457's for a client whose Accept asks.
 *
 * Threads: on the request's loop. Each response_*() without "add" in its text ends the request.
 * Source: RFC 9110 (sections 10.2.1, 10.2.3, 11.6.1), RFC 6750 (section 3), RFC 9457, RFC 9111 (section 5.2.2).
 */
#ifndef BLOBD_SERVER_API_RESPONSE_H
#define BLOBD_SERVER_API_RESPONSE_H

#include "core/api_error.h"
#include "server/http/http_server.h"

struct bytebuf;
struct exchange;

#define CACHE_NEVER "no-store"

/* Keeps the client's X-Request-ID where it is 1 to 128 of A-Za-z0-9._-; else makes one. */
void response_set_request_id(struct http_request *req);

/* Adds the headers of every answer. Called by the others here; by hand before an http_reply_*() of one's own. */
void response_common_headers(struct exchange *x, const char *cache_control);
/* Adds Allow, for METHOD_BITs. */
void response_allow(struct exchange *x, unsigned methods);

/* err->code is not API_OK. Headers added before (Allow, an upload's) go with it. */
void response_error(struct exchange *x, const struct api_error *err);
/* 503: no worker is free. */
void response_busy(struct exchange *x);
void response_empty(struct exchange *x, int status);
/* A body that failed to grow is answered 503. */
void response_json(struct exchange *x, int status, const struct bytebuf *body);
/* The 204 of OPTIONS. */
void response_options(struct exchange *x, unsigned methods);

#endif
