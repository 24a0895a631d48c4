/*
 * tls - the server's certificate and key, and the sessions made from them. TLS 1.2 and later.
 *
 * Threads: any, but for reloading. Ownership: copies the paths; tls_session() gives. Errors: INVALID names the file.
 * Source: RFC 8446; RFC 9325 (what to offer).
 */
#ifndef BLOBD_SERVER_HTTP_TLS_H
#define BLOBD_SERVER_HTTP_TLS_H

#include "server/http/http_server.h"

#include <openssl/ssl.h>

struct tls_server;

enum blob_status tls_server_new(const struct http_tls_files *files, struct tls_server **out,
                                struct blob_error *err) BLOB_MUST_CHECK;
void tls_server_free(struct tls_server *tls);
/* Reads both files, where they are now (NULL: where they were); sessions made from now on use them. On failure nothing
 * changes. One thread at a time. */
enum blob_status tls_server_reload(struct tls_server *tls, const struct http_tls_files *files,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* When the server's own certificate ends, in seconds since 1970; of the one that new sessions get. Any thread. */
int64_t tls_server_certificate_end_s(struct tls_server *tls);
/* Has it ended, or will it within two weeks? Then text says so, with the file and the day. */
bool tls_server_ends_soon(struct tls_server *tls, char *text, size_t size);
/* A new session for one accepted connection, or NULL without memory. */
SSL *tls_session(struct tls_server *tls);

#endif
