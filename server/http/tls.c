/*
 * tls - one SSL_CTX that is replaced whole on a reload. A session holds a reference of its own to the context it was
 * made from, so connections that are open keep theirs. The mutex covers the pointer only and is a leaf.
 */
#include "server/http/tls.h"

#include "core/clock.h"
#include "core/text/rfc3339.h"

#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ENDS_SOON_S (14 * 24 * 3600)

struct tls_server {
    pthread_mutex_t lock;
    SSL_CTX *ctx;               /* under lock */
    char *cert_file, *key_file; /* the reloading thread's */
};

/* Why, from the first of what OpenSSL has queued: the later ones only say who had called. */
static enum blob_status tls_fail(struct blob_error *err, const char *what, const char *file)
{
    unsigned long code = ERR_peek_error();
    ERR_clear_error();
    if (ERR_SYSTEM_ERROR(code))
        return blob_fail(err, BLOB_E_INVALID, ERR_GET_REASON(code), "%s %s", what, file);
    const char *lib = ERR_lib_error_string(code), *reason = ERR_reason_error_string(code);
    return blob_fail(err, BLOB_E_INVALID, 0, "%s %s: nothing in it can be used (%s: %s)", what, file,
                     lib ? lib : "OpenSSL", reason ? reason : "unknown reason");
}

/* A key with a pass phrase must fail, not ask on the terminal. */
static int no_pass_phrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    if (arg)
        *(bool *)arg = true;
    return -1;
}

/* Whether it is the certificate's key is looked at by the first call where both are of one kind, else by the second. */
static enum blob_status use_key(SSL_CTX *ctx, const char *key_file, struct blob_error *err)
{
    bool asked = false;
    SSL_CTX_set_default_passwd_cb_userdata(ctx, &asked);
    bool used = SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) == 1;
    SSL_CTX_set_default_passwd_cb_userdata(ctx, NULL);
    if (!used && asked) {
        ERR_clear_error();
        return blob_fail(
            err, BLOB_E_INVALID, 0,
            "tls.key_file %s: the key is encrypted, and blobd asks for no pass phrase: decrypt it (openssl "
            "pkey -in KEY -out NEW) into a file that only blobd may read",
            key_file);
    }
    unsigned long code = ERR_peek_error();
    if (!used && ERR_SYSTEM_ERROR(code))
        return tls_fail(err, "tls.key_file", key_file);
    if (!used && ERR_GET_LIB(code) != ERR_LIB_X509) {
        ERR_clear_error();
        return blob_fail(err, BLOB_E_INVALID, 0, "tls.key_file %s is not a PEM private key", key_file);
    }
    if (used && SSL_CTX_check_private_key(ctx) == 1)
        return BLOB_OK;
    ERR_clear_error();
    return blob_fail(err, BLOB_E_INVALID, 0, "tls.key_file %s is not the key of tls.cert_file's certificate", key_file);
}

static enum blob_status context_new(const char *cert_file, const char *key_file, SSL_CTX **out, struct blob_error *err)
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a TLS context");
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE |
                                 SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_read_ahead(ctx, 1); /* a record is read at once, not its header first */
    /* Sessions are resumed by tickets, which the client keeps; the cache here would be memory that nobody counts. One
     * ticket is what a client uses. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 1);
    SSL_CTX_set_default_passwd_cb(ctx, no_pass_phrase);
    enum blob_status st = BLOB_OK;
    if (SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1)
        st = blob_fail(err, BLOB_E_INVALID, 0, "OpenSSL knows none of the ciphers that are offered");
    else if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1)
        st = tls_fail(err, "tls.cert_file", cert_file);
    else
        st = use_key(ctx, key_file, err);
    if (st != BLOB_OK) {
        SSL_CTX_free(ctx);
        return st;
    }
    *out = ctx;
    return BLOB_OK;
}

/* The context and the paths it is from: all three, or none. */
static enum blob_status parts_new(const struct http_tls_files *files, SSL_CTX **ctx, char **cert_file, char **key_file,
                                  struct blob_error *err)
{
    enum blob_status st = context_new(files->cert_file, files->key_file, ctx, err);
    if (st != BLOB_OK)
        return st;
    *cert_file = strdup(files->cert_file);
    *key_file = strdup(files->key_file);
    if (*cert_file && *key_file)
        return BLOB_OK;
    free(*cert_file);
    free(*key_file);
    SSL_CTX_free(*ctx);
    return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a TLS context");
}

enum blob_status tls_server_new(const struct http_tls_files *files, struct tls_server **out, struct blob_error *err)
{
    if (!files->key_file)
        return blob_fail(err, BLOB_E_INVALID, 0, "a certificate without a key file");
    struct tls_server *tls = calloc(1, sizeof *tls);
    if (!tls)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a TLS context");
    enum blob_status st = parts_new(files, &tls->ctx, &tls->cert_file, &tls->key_file, err);
    if (st != BLOB_OK) {
        free(tls);
        return st;
    }
    pthread_mutex_init(&tls->lock, NULL);
    *out = tls;
    return BLOB_OK;
}

void tls_server_free(struct tls_server *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->ctx);
    free(tls->cert_file);
    free(tls->key_file);
    pthread_mutex_destroy(&tls->lock);
    free(tls);
}

enum blob_status tls_server_reload(struct tls_server *tls, const struct http_tls_files *files, struct blob_error *err)
{
    SSL_CTX *ctx = NULL;
    char *cert_file = NULL, *key_file = NULL;
    const struct http_tls_files now = {.cert_file = files->cert_file ? files->cert_file : tls->cert_file,
                                       .key_file = files->key_file ? files->key_file : tls->key_file};
    enum blob_status st = parts_new(&now, &ctx, &cert_file, &key_file, err);
    if (st != BLOB_OK)
        return st;
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *old = tls->ctx;
    tls->ctx = ctx;
    pthread_mutex_unlock(&tls->lock);
    SSL_CTX_free(old);
    free(tls->cert_file);
    free(tls->key_file);
    tls->cert_file = cert_file;
    tls->key_file = key_file;
    return BLOB_OK;
}

int64_t tls_server_certificate_end_s(struct tls_server *tls)
{
    struct tm end = {0};
    pthread_mutex_lock(&tls->lock);
    const X509 *certificate = SSL_CTX_get0_certificate(tls->ctx);
    bool known = certificate && ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) == 1;
    pthread_mutex_unlock(&tls->lock);
    return known ? (int64_t)timegm(&end) : 0;
}

bool tls_server_ends_soon(struct tls_server *tls, char *text, size_t size)
{
    int64_t end_s = tls_server_certificate_end_s(tls), now_s = clock_wall_ms() / 1000;
    char day[RFC3339_CHARS + 1];
    if (end_s - now_s > ENDS_SOON_S)
        return false;
    rfc3339_format(end_s * 1000, day);
    snprintf(text, size, "tls.cert_file %s: the certificate %s at %s: %s", tls->cert_file,
             end_s <= now_s ? "has ended" : "ends soon,", day,
             end_s <= now_s ? "clients refuse it; renew it, then HUP" : "renew it, then HUP");
    return true;
}

SSL *tls_session(struct tls_server *tls)
{
    pthread_mutex_lock(&tls->lock);
    SSL_CTX *ctx = tls->ctx;
    SSL_CTX_up_ref(ctx);
    pthread_mutex_unlock(&tls->lock);
    SSL *ssl = SSL_new(ctx);
    SSL_CTX_free(ctx);
    return ssl;
}
