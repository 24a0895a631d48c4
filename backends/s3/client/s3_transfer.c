/* s3_transfer - sets a request on a handle, takes the answer by curl's callbacks, and tells what a failure means. */
#include "backends/s3/client/s3_transfer_internal.h"

#include "core/check.h"
#include "core/clock.h"

#include <errno.h>
#include <openssl/x509_vfy.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BUFFER_BYTES (256L * 1024)
#define TEXT_MAX     (8u << 20)

enum blob_status s3_transport_init(struct s3_transport *t, const struct s3_http_config *cfg, struct blob_error *err)
{
    *t = (struct s3_transport){.connect_timeout_ms = cfg->connect_timeout_ms, .gate = cfg->gate};
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "libcurl cannot be initialised");
    t->ca_file = strdup(cfg->ca_file ? cfg->ca_file : "");
    if (t->ca_file)
        return BLOB_OK;
    curl_global_cleanup();
    return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 transport");
}

void s3_transport_release(struct s3_transport *t)
{
    free(t->ca_file);
    curl_global_cleanup();
}

/* ---- curl's callbacks ---- */

static size_t on_read(char *buf, size_t size, size_t n, void *arg)
{
    struct s3_transfer *x = arg;
    MAGIC_OK(x, S3_TRANSFER_MAGIC);
    const struct s3_body *body = x->req->body;
    uint64_t left = body->length - x->sent;
    size_t len = left < size * n ? (size_t)left : size * n;
    if (len == 0)
        return 0;
    if (body->data) {
        memcpy(buf, (const char *)body->data + x->sent, len);
    } else {
        x->body_st = body->read(body->arg, x->sent, buf, len, x->err);
        if (x->body_st != BLOB_OK)
            return CURL_READFUNC_ABORT;
    }
    x->sent += len;
    return len;
}

/* A kept-alive connection that died before its first byte makes curl send again, on a new one. */
static int on_seek(void *arg, curl_off_t offset, int origin)
{
    struct s3_transfer *x = arg;
    MAGIC_OK(x, S3_TRANSFER_MAGIC);
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > x->req->body->length)
        return CURL_SEEKFUNC_FAIL;
    x->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

static size_t on_write(char *data, size_t size, size_t n, void *arg)
{
    struct s3_transfer *x = arg;
    MAGIC_OK(x, S3_TRANSFER_MAGIC);
    size_t len = size * n;
    struct s3_http_answer *a = x->answer;
    if (x->req->sink && (a->status == 200 || a->status == 206)) {
        if (len > x->req->sink_size - a->sunk) {
            x->overflow = true;
            return 0;
        }
        memcpy((char *)x->req->sink + a->sunk, data, len);
        a->sunk += len;
        return len;
    }
    if (len > TEXT_MAX - a->text.len) {
        x->overflow = true;
        return 0;
    }
    bytebuf_add(&a->text, data, len);
    return len;
}

/* Does line begin with this header's name? Then *value is what follows, of *len bytes without the spaces around. */
static bool header_is(const char *line, size_t line_len, const char *name, const char **value, size_t *len)
{
    size_t n = strlen(name);
    if (line_len <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
        return false;
    const char *begin = line + n + 1, *end = line + line_len;
    while (begin < end && (*begin == ' ' || *begin == '\t'))
        begin++;
    while (end > begin && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *value = begin;
    *len = (size_t)(end - begin);
    return true;
}

static void copy_bounded(char *out, size_t size, const char *text, size_t len)
{
    if (len >= size)
        len = 0; /* half of it would be worse than none */
    memcpy(out, text, len);
    out[len] = '\0';
}

static bool parse_digits(const char **at, uint64_t *out)
{
    if (**at < '0' || **at > '9')
        return false;
    char *end;
    errno = 0;
    *out = strtoull(*at, &end, 10);
    *at = end;
    return errno == 0;
}

/* "bytes 0-9/443" */
static void parse_content_range(const char *text, struct s3_http_answer *a)
{
    if (strncasecmp(text, "bytes ", 6) != 0)
        return;
    const char *at = text + 6;
    uint64_t first, last, total;
    if (!parse_digits(&at, &first) || *at++ != '-' || !parse_digits(&at, &last) || *at++ != '/' ||
        !parse_digits(&at, &total) || *at)
        return;
    a->has_range = true;
    a->range_first = first;
    a->range_last = last;
    a->range_total = total;
}

/* "HTTP/1.1 200 OK"; 0: not so. */
static int parse_status(const char *line, size_t len)
{
    const char *space = memchr(line, ' ', len);
    int status = 0;
    for (int i = 1; i <= 3; i++) {
        if (!space || space + i >= line + len || space[i] < '0' || space[i] > '9')
            return 0;
        status = 10 * status + space[i] - '0';
    }
    return status;
}

static void forget_headers(struct s3_http_answer *a, int status)
{
    struct bytebuf text = a->text;
    *a = (struct s3_http_answer){.status = status, .text = text};
}

size_t s3_transfer_on_header(char *line, size_t size, size_t n, void *arg)
{
    struct s3_transfer *x = arg;
    MAGIC_OK(x, S3_TRANSFER_MAGIC);
    struct s3_http_answer *a = x->answer;
    const char *value;
    size_t len, line_len = size * n;
    char text[128];
    if (line_len > 12 && memcmp(line, "HTTP/", 5) == 0) { /* also after a 100 Continue */
        forget_headers(a, parse_status(line, line_len));
    } else if (header_is(line, line_len, "content-length", &value, &len)) {
        copy_bounded(text, sizeof text, value, len);
        const char *at = text;
        a->has_length = parse_digits(&at, &a->length) && !*at;
    } else if (header_is(line, line_len, "content-range", &value, &len)) {
        copy_bounded(text, sizeof text, value, len);
        parse_content_range(text, a);
    } else if (header_is(line, line_len, "etag", &value, &len)) {
        copy_bounded(a->etag, sizeof a->etag, value, len);
    } else if (header_is(line, line_len, "last-modified", &value, &len)) {
        copy_bounded(text, sizeof text, value, len);
        time_t t = curl_getdate(text, NULL);
        a->modified_ms = t > 0 ? (int64_t)t * 1000 : 0;
    } else if (header_is(line, line_len, "date", &value, &len)) {
        copy_bounded(text, sizeof text, value, len);
        time_t t = curl_getdate(text, NULL);
        a->date_s = t > 0 ? t : 0;
        a->date_at_ms = clock_steady_us() / 1000;
    } else if (header_is(line, line_len, "retry-after", &value, &len)) {
        copy_bounded(text, sizeof text, value, len);
        const char *at = text;
        uint64_t seconds;
        if (parse_digits(&at, &seconds) && !*at && seconds < 3600)
            a->retry_after_ms = (int64_t)seconds * 1000;
    } else if (header_is(line, line_len, "x-amz-bucket-region", &value, &len)) {
        copy_bounded(a->region, sizeof a->region, value, len);
    } else if (header_is(line, line_len, "location", &value, &len)) {
        copy_bounded(a->location, sizeof a->location, value, len);
    }
    return line_len;
}

/* curl calls this at least once a second. */
static int on_progress(void *arg, curl_off_t dl_total, curl_off_t dl_now, curl_off_t ul_total, curl_off_t ul_now)
{
    struct s3_transfer *x = arg;
    MAGIC_OK(x, S3_TRANSFER_MAGIC);
    (void)dl_total;
    (void)dl_now;
    (void)ul_total;
    (void)ul_now;
    return s3_gate_is_shut(x->transport->gate);
}

/* ---- one transfer ---- */

/* What is the same for every request. */
static void set_transport(CURL *easy, struct s3_transfer *x)
{
    const struct s3_transport *transport = x->transport;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (transport->ca_file[0])
        curl_easy_setopt(easy, CURLOPT_CAINFO, transport->ca_file);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)transport->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, S3_HTTP_SLOWEST_RATE);
    curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, (long)((x->req->stall_timeout_ms + 999) / 1000));
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, x);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, s3_transfer_on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, x);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_write);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, x);
}

static void set_request(CURL *easy, struct s3_transfer *x, struct curl_slist *headers)
{
    const struct s3_http_request *req = x->req;
    curl_easy_setopt(easy, CURLOPT_URL, req->url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    if (req->body) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->body->length);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_read);
        curl_easy_setopt(easy, CURLOPT_READDATA, x);
        curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, on_seek);
        curl_easy_setopt(easy, CURLOPT_SEEKDATA, x);
    } else if (strcmp(req->method, "HEAD") == 0) {
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, req->method);
}

void s3_transfer_prepare(CURL *easy, struct s3_transfer *x, struct curl_slist *headers)
{
    set_transport(easy, x);
    set_request(easy, x, headers);
}

/* What to do about a certificate that was refused. */
static const char *cure_of_distrust(CURL *easy)
{
    long result = X509_V_OK;
    curl_easy_getinfo(easy, CURLINFO_SSL_VERIFYRESULT, &result);
    if (result == X509_V_ERR_CERT_HAS_EXPIRED || result == X509_V_ERR_CERT_NOT_YET_VALID)
        return "renew it, or set this machine's clock right";
    if (result == X509_V_ERR_UNSPECIFIED) /* OpenSSL has not refused it: libcurl has, for its name */
        return "set storage.s3.endpoint to a name that it has";
    return "set storage.s3.ca_file to its CA";
}

enum blob_status s3_transfer_judge(const struct s3_transfer *x, CURL *easy, CURLcode rc, const char *detail,
                                   bool *retry)
{
    const char *url = x->req->url;
    int host_len = (int)strcspn(url + strcspn(url, "/") + 2, "/");
    const char *host = url + strcspn(url, "/") + 2;
    struct blob_error *err = x->err;
    *retry = false;
    if (s3_gate_is_shut(x->transport->gate))
        return blob_fail(err, BLOB_E_CANCELED, 0, "S3 %s stopped", x->req->method);
    if (x->body_st != BLOB_OK)
        return x->body_st;
    if (x->overflow && x->req->sink)
        return blob_fail(err, BLOB_E_TOO_LARGE, 0, "S3 object is over %zu bytes", x->req->sink_size);
    switch (rc) {
    case CURLE_OUT_OF_MEMORY:
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 transport");
    case CURLE_SSL_CACERT_BADFILE:
        return blob_fail(err, BLOB_E_INVALID, 0, "storage.s3.ca_file %.100s cannot be read as PEM",
                         x->transport->ca_file);
    case CURLE_PEER_FAILED_VERIFICATION:
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the certificate of %.*s is not trusted (%.80s): %s", host_len,
                         host, detail, cure_of_distrust(easy));
    case CURLE_COULDNT_RESOLVE_HOST:
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "the name of %.*s cannot be resolved: check storage.s3.endpoint",
                         host_len, host);
    case CURLE_COULDNT_CONNECT:
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "no connection to %.*s: check storage.s3.endpoint (%.80s)",
                         host_len, host, detail);
    case CURLE_SSL_CONNECT_ERROR:
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0,
                         "no TLS with %.*s: check storage.s3.endpoint: is it an https port? (%.80s)", host_len, host,
                         detail);
    case CURLE_OPERATION_TIMEDOUT:
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s: %.*s stalled (%.80s)", x->req->method, host_len, host,
                         detail);
    default:
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s: exchange with %.*s broke off (%.80s)", x->req->method,
                         host_len, host, detail);
    }
}

void s3_http_answer_release(struct s3_http_answer *answer)
{
    bytebuf_release(&answer->text);
}
