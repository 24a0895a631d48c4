/*
 * router - which route a request's path and method mean.
 *
 * A table lists every route once: methods, pattern, handler. A pattern is parts joined by '/', where a part is literal
 * or "{}", which takes any one non-empty part; at most one "{}" in a pattern. The first pattern that fits the path
 * wins, so literal ones stand before those with "{}" in the same place. Parts are percent-decoded before they are
 * compared: an encoded '/' belongs to its part.
 *
 * Threads: plain values; tables are constant. Source: RFC 3986 section 3.3, 6.2.2.2; RFC 9110 sections 9.1, 15.5.6.
 */
#ifndef BLOBD_SERVER_API_ROUTER_H
#define BLOBD_SERVER_API_ROUTER_H

#include "server/http/http_server.h"

struct exchange;

enum route_auth {
    ROUTE_OPEN,     /* anybody */
    ROUTE_BEARER,   /* a valid bearer */
    ROUTE_DOWNLOAD, /* as auth.downloads says */
};

#define METHOD_BIT(method) (1u << (method))
#define METHODS_GET        (METHOD_BIT(HTTP_GET) | METHOD_BIT(HTTP_HEAD))
#define METHODS_POST       METHOD_BIT(HTTP_POST)

struct route {
    const char *name; /* the metrics' label */
    unsigned methods; /* METHOD_BITs; OPTIONS is answered for all */
    const char *pattern;
    enum route_auth auth;
    void (*handler)(struct exchange *x);
};

/* Longest decoded value of "{}", NUL not counted: more than any digest with its "sha256:", file id or UUID has. */
#define ROUTE_PARAM_MAX 127

enum route_outcome {
    ROUTE_FOUND,
    ROUTE_NO_PATH,    /* 404 */
    ROUTE_NO_METHOD,  /* 405; allowed is set */
    ROUTE_BAD_ESCAPE, /* 400: broken percent-encoding in a literal part */
};

struct route_match {
    const struct route *route;       /* ROUTE_FOUND */
    unsigned allowed;                /* METHOD_BITs of all routes of the path; also for ROUTE_FOUND */
    char param[ROUTE_PARAM_MAX + 1]; /* what "{}" took, cut where too long; "" where its encoding is broken */
};

/* path is undecoded, without the query. */
enum route_outcome router_match(const struct route *table, size_t count, enum http_method method, const char *path,
                                struct route_match *out);

/* The Allow header's value for METHOD_BITs, OPTIONS included. */
#define ROUTER_ALLOW_MAX 64
void router_allow(unsigned methods, char out[ROUTER_ALLOW_MAX]);

#endif
