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
/* A new session for one accepted connection, or NULL without memory. */
SSL *tls_session(struct tls_server *tls);

#endif
