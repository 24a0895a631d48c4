/*
 * cors - which web origins may use the API from a browser.
 *
 * Threads: read-only once made. Ownership: copies its list. Source: the Fetch standard, section 3.2 (CORS protocol).
 */
#ifndef BLOBD_SERVER_API_CORS_H
#define BLOBD_SERVER_API_CORS_H

#include <stdbool.h>

struct cors;
struct http_request;

/* origins: separated by blanks, "*" for any; NULL or "": none, and no CORS header is ever sent. NULL: out of memory. */
struct cors *cors_new(const char *origins);
void cors_free(struct cors *cors); /* NULL is fine */

/* Adds to an answer what its Origin header calls for; preflight: also which methods and headers may be sent. */
void cors_reply(const struct cors *cors, struct http_request *req, bool preflight);

#endif
