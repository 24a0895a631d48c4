/*
 * http_tls - a connection's TLS. evhttp is given a bufferevent without a descriptor: it parses what is put into the
 * bufferevent's input and never touches the socket. The handshake, all reading and all writing are ours.
 *
 *                    readable                                     writable
 *      HANDSHAKE ---------------> SSL_accept                      what is held is sent
 *          | done
 *      READING   ---------------> SSL_read, into evhttp's input   (a lookout for no longer than something is held)
 *          | the head is there; its answer went out whole: READING goes on, and no event was touched
 *      SEIZED    (a body is read by http_body, from the same session)
 *          | an answer
 *      ANSWERING                                                  what is held is sent; then the next of the answer is
 *          |                                                      encrypted, gathered and sent (http_reply_tls)
 *          | out
 *      READING   what the session has read already is not announced by the socket: it is looked at once
 *
 * What is written goes through a BIO of ours that always takes it: while an answer is gathered into the loop's buffer,
 * otherwise to the socket at once. What the socket does not take is held, in order, and nothing else is encrypted
 * before it is out. So OpenSSL never has half a record to offer again, and no caller has to repeat a write.
 *
 * Memory: how much is gathered follows the room that the socket says it has, so that mostly nothing is held. One record
 * may be held in any case: it is part of what a connection is reckoned at (memory_budget). Whatever might be held
 * beyond is taken from http_config.answer_memory_bytes before it is encrypted, and where that has no more, a connection
 * goes on record by record.
 *
 * Threads: its loop's own.
 */
#ifndef BLOBD_SERVER_HTTP_HTTP_TLS_H
#define BLOBD_SERVER_HTTP_HTTP_TLS_H

#include "server/http/http_internal.h"
#include "server/http/parse/http_tls_hello.h"

#include <openssl/bio.h>

#define HTTP_TLS_RECORD       ((size_t)16 * 1024) /* of plaintext */
#define HTTP_TLS_OVERHEAD     ((size_t)64)        /* of a record, more than it takes */
#define HTTP_TLS_GATHER       ((size_t)256 * 1024)
#define HTTP_TLS_GATHERED_MAX (HTTP_TLS_GATHER + HTTP_TLS_GATHER / HTTP_TLS_RECORD * HTTP_TLS_OVERHEAD)

#define HTTP_TLS_STAGE ((size_t)32 * 1024) /* of what is brought together before it is encrypted */

#define HTTP_TLS_MAGIC 0x68746c73u

struct http_tls {
    unsigned magic;
    struct http_conn *conn;
    SSL *ssl;
    struct evbuffer *output;  /* of an answer, not encrypted yet */
    struct event readable;    /* while HANDSHAKE and READING */
    struct event writable;    /* while something is held, or an answer waits for room */
    bool begun;               /* the events are made */
    bool open;                /* the handshake is done */
    bool watching;            /* writable is pending */
    bool gathering;           /* what is encrypted goes into the loop's buffer */
    bool broken;              /* the socket, or there was no memory to hold what it did not take */
    struct tls_hello hello;   /* until it is done, what came of the client's */
    size_t turn;              /* bytes that may still be read from the socket */
    size_t reserved;          /* taken from answer_memory_bytes */
    uint8_t *held;            /* NULL: nothing is */
    size_t held_at, held_end; /* of held, what is still to be sent */
};

/* ---- http_tls.c ---- */

/* Takes ssl, also on failure: NULL, without memory. */
struct http_tls *http_tls_new(struct http_conn *conn, SSL *ssl);
/* The connection's descriptor is known: the handshake begins. */
void http_tls_begin(struct http_tls *tls, int fd);
/* Reads for evhttp until http_tls_seize(). */
void http_tls_resume(struct http_tls *tls);
void http_tls_seize(struct http_tls *tls);
/* Gives the session's record buffers back, twice 17 KiB: for one that rests, since each request would make them anew.
 */
void http_tls_trim(struct http_tls *tls);
/* Before the descriptor is closed. NULL is allowed. */
void http_tls_free(struct http_tls *tls);

/* ---- http_tls_out.c ---- */

/* Before each call whose failure is asked about: what this thread has left of errors would be taken for its own. */
void http_tls_forget_errors(void);

/* What http_server.tls_out is; NULL without memory. Gives. */
BIO_METHOD *http_tls_method(void);
/* The BIO that a session reads from and writes to; NULL without memory. Gives. */
BIO *http_tls_bio(struct http_tls *tls);
/* Sends what is held. False: the connection is broken. */
bool http_tls_push(struct http_tls *tls);
bool http_tls_holds(const struct http_tls *tls);
/* How many bytes of the `left` of an answer may be encrypted now, at most HTTP_TLS_GATHER. With `some`, a record at
 * least; otherwise 0 where the socket has no room for one. Nothing may be held. */
size_t http_tls_room(struct http_tls *tls, size_t left, bool some);
/* Encrypts, into the loop's buffer. False: broken. */
bool http_tls_encrypt(struct http_tls *tls, const void *data, size_t len);
/* Sends what was encrypted since http_tls_room(), and holds what the socket does not take. False: broken. */
bool http_tls_send(struct http_tls *tls);
/* The loop calls back when the socket has room; until http_tls_rest(). */
void http_tls_watch(struct http_tls *tls);
void http_tls_rest(struct http_tls *tls);

/* ---- http_reply_tls.c ---- */

/* One round of an answer: true when another may move it on. */
bool http_reply_tls_round(struct http_request *req, bool first);
/* Encrypts and sends what is in the output, beside any answer. False: the connection broke and is gone. */
bool http_tls_flush(struct http_conn *conn);

#endif
