/*
 * http_tls_hello - how large a ClientHello may be. OpenSSL makes room for 128 KiB of one as soon as its length is
 * announced, and clears it, so that it is resident: of anybody, before a byte of it has come. Real ones are below 4
 * KiB, with keys that quantum computers cannot break; what fits into one record takes no more than the room that
 * OpenSSL has for every handshake.
 *
 * Looks at what a client sends before it is encrypted: records, and the handshake messages in them, wherever they are
 * cut. Threads: plain values. Source: RFC 8446 sections 4, 5.1.
 */
#ifndef BLOBD_SERVER_HTTP_PARSE_HTTP_TLS_HELLO_H
#define BLOBD_SERVER_HTTP_PARSE_HTTP_TLS_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TLS_HELLO_MAX ((size_t)16 * 1024 - 4) /* its own header not counted */

/* All zero at the beginning. */
struct tls_hello {
    uint8_t record[5], message[4]; /* the headers, as far as they have come */
    unsigned record_len, message_len;
    bool is_handshake;   /* the record */
    size_t record_left;  /* of the record's content */
    size_t message_left; /* of the message's */
};

/* Looks at the next bytes. False: they announce a message that is too large; nothing more may be fed. */
bool tls_hello_fits(struct tls_hello *hello, const uint8_t *data, size_t len);

#endif
