/*
 * tls_fixture - the HTTP fixture behind TLS, with a certificate of its own, and its blocking client.
 *
 * Threads: as http_fixture; a session is its opener's.
 */
#ifndef BLOBD_TESTS_TLS_FIXTURE_H
#define BLOBD_TESTS_TLS_FIXTURE_H

#include "tests/rig/http_fixture.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

struct tls_fixture {
    struct fixture fx; /* first */
    char dir[64], cert[96], key[96];
    SSL_CTX *ctx;
};

/* Writes a self-signed certificate with this serial number, and its key. */
static inline void certificate_write(const struct tls_fixture *tf, long serial)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1,
                               -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    CU_ASSERT(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *out = fopen(tf->cert, "w");
    PEM_write_X509(out, cert);
    fclose(out);
    out = fopen(tf->key, "w");
    PEM_write_PrivateKey(out, key, NULL, NULL, 0, NULL, NULL);
    fclose(out);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static inline void tls_init(struct tls_fixture *tf)
{
    fixture_init(&tf->fx);
    snprintf(tf->dir, sizeof tf->dir, "/tmp/blobd-tls-test-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(tf->dir));
    snprintf(tf->cert, sizeof tf->cert, "%s/cert.pem", tf->dir);
    snprintf(tf->key, sizeof tf->key, "%s/key.pem", tf->dir);
    certificate_write(tf, 1);
}

static inline void tls_start(struct tls_fixture *tf)
{
    tf->fx.cfg.tls = (struct http_tls_files){.cert_file = tf->cert, .key_file = tf->key};
    fixture_start(&tf->fx);
    tf->ctx = SSL_CTX_new(TLS_client_method());
}

static inline void tls_begin(struct tls_fixture *tf)
{
    tls_init(tf);
    tls_start(tf);
}

static inline void tls_end(struct tls_fixture *tf)
{
    fixture_end(&tf->fx);
    SSL_CTX_free(tf->ctx);
    unlink(tf->cert);
    unlink(tf->key);
    rmdir(tf->dir);
}

/* NULL when the handshake fails. */
static inline SSL *tls_open(struct tls_fixture *tf, int version)
{
    SSL *ssl = SSL_new(tf->ctx);
    if (version) {
        SSL_set_security_level(ssl, 0);
        SSL_set_min_proto_version(ssl, version);
        SSL_set_max_proto_version(ssl, version);
    }
    SSL_set_fd(ssl, client_open(&tf->fx));
    if (SSL_connect(ssl) == 1)
        return ssl;
    close(SSL_get_fd(ssl));
    SSL_free(ssl);
    return NULL;
}

static inline void tls_close(SSL *ssl)
{
    int fd = SSL_get_fd(ssl);
    SSL_free(ssl);
    close(fd);
}

static inline void tls_send(SSL *ssl, const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    while (len > 0) {
        int n = SSL_write(ssl, at, (int)(len < 100000 ? len : 100000));
        if (n <= 0)
            return;
        at += n;
        len -= (size_t)n;
    }
}

static inline void tls_send_text(SSL *ssl, const char *text)
{
    tls_send(ssl, text, strlen(text));
}

static inline ssize_t take_from_tls(void *ssl, void *buf, size_t len)
{
    return SSL_read(ssl, buf, (int)len);
}

static inline struct answer tls_read(SSL *ssl)
{
    return answer_read(take_from_tls, ssl, false);
}

static inline int tls_status(SSL *ssl)
{
    struct answer answer = tls_read(ssl);
    free(answer.body);
    return answer.status;
}

#endif
