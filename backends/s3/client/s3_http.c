/*
 * s3_http - libcurl's easy interface on handles that are pooled last-in-first-out, so that few connections stay warm.
 *
 * Each handle keeps its own connections. A handle is reset between two transfers, which keeps its connections and
 * forgets everything else. A transfer succeeds when both libcurl and this file say so: libcurl checks that as many
 * bytes came as Content-Length promised, and this file that there was one where a sink is filled.
 */
#include "backends/s3/client/s3_http.h"

#include "backends/s3/client/s3_transfer_internal.h"
#include "core/check.h"
#include "core/fault.h"

#include <pthread.h>
#include <stdlib.h>

#define EXPECT_MIN (1u << 20)
#define HTTP_MAGIC 0x53336874u

struct s3_http {
    unsigned magic;
    struct s3_transport transport;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t returned;
    CURL **idle;
    unsigned idle_count, made, max;
};

enum blob_status s3_http_new(const struct s3_http_config *cfg, struct s3_http **out, struct blob_error *err)
{
    struct s3_http *h = calloc(1, sizeof *h);
    if (!h)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 transport");
    h->magic = HTTP_MAGIC;
    h->max = cfg->max_connections ? cfg->max_connections : 1;
    h->idle = calloc(h->max, sizeof(CURL *));
    enum blob_status st =
        h->idle ? s3_transport_init(&h->transport, cfg, err) : blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 transport");
    if (st != BLOB_OK) {
        free(h->idle);
        free(h);
        return st;
    }
    CHECK(pthread_mutex_init(&h->lock, NULL) == 0);
    CHECK(pthread_cond_init(&h->returned, NULL) == 0);
    *out = h;
    return BLOB_OK;
}

void s3_http_free(struct s3_http *h)
{
    if (!h)
        return;
    MAGIC_OK(h, HTTP_MAGIC);
    CHECK(h->idle_count == h->made);
    for (unsigned i = 0; i < h->idle_count; i++)
        curl_easy_cleanup(h->idle[i]);
    pthread_cond_destroy(&h->returned);
    pthread_mutex_destroy(&h->lock);
    s3_transport_release(&h->transport);
    free(h->idle);
    h->magic = 0;
    free(h);
}

/* Waits for a handle that nobody else uses. NULL: no memory. */
static CURL *acquire(struct s3_http *h)
{
    CURL *easy = NULL;
    pthread_mutex_lock(&h->lock);
    while (h->idle_count == 0 && h->made == h->max)
        pthread_cond_wait(&h->returned, &h->lock);
    if (h->idle_count > 0) {
        easy = h->idle[--h->idle_count];
    } else {
        easy = curl_easy_init();
        h->made += easy != NULL;
    }
    pthread_mutex_unlock(&h->lock);
    return easy;
}

static void hand_back(struct s3_http *h, CURL *easy)
{
    curl_easy_reset(easy);
    pthread_mutex_lock(&h->lock);
    h->idle[h->idle_count++] = easy;
    pthread_cond_signal(&h->returned);
    pthread_mutex_unlock(&h->lock);
}

static bool add_header(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    if (longer)
        *list = longer;
    return longer != NULL;
}

/* libcurl would have every PUT wait for 100 Continue. That spares sending a large body which the endpoint refuses. With
 * a small body it is a round trip for nothing, so there the header is taken out. */
static struct curl_slist *header_list(const struct s3_http_request *req)
{
    struct curl_slist *list = NULL;
    bool added = !req->body || req->body->length >= EXPECT_MIN || add_header(&list, "Expect:");
    for (size_t i = 0; i < req->header_count && added; i++)
        added = add_header(&list, req->headers[i]);
    if (added)
        return list;
    curl_slist_free_all(list);
    return NULL;
}

enum blob_status s3_http_send(struct s3_http *http, const struct s3_http_request *req, struct s3_http_answer *answer,
                              bool *retry, struct blob_error *err)
{
    *answer = (struct s3_http_answer){0};
    bytebuf_init(&answer->text);
    *retry = false;
    struct s3_transfer x = {
        .magic = S3_TRANSFER_MAGIC, .transport = &http->transport, .req = req, .answer = answer, .err = err};
    if (s3_gate_is_shut(http->transport.gate))
        return s3_transfer_judge(&x, NULL, CURLE_OK, "", retry);
    struct curl_slist *headers = header_list(req);
    CURL *easy = headers ? acquire(http) : NULL;
    if (!easy) {
        curl_slist_free_all(headers);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 transport");
    }
    char detail[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, detail);
    s3_transfer_prepare(easy, &x, headers);
    CURLcode rc = FAULT_POINT("s3.request") ? CURLE_SEND_ERROR : curl_easy_perform(easy);
    if (rc == CURLE_OK && FAULT_POINT("s3.answer")) /* it was done, and nobody knows */
        rc = CURLE_RECV_ERROR;
    enum blob_status st = BLOB_OK;
    if (rc != CURLE_OK)
        st = s3_transfer_judge(&x, easy, rc, detail[0] ? detail : curl_easy_strerror(rc), retry);
    hand_back(http, easy);
    curl_slist_free_all(headers);

    if (st != BLOB_OK)
        return st;
    if (answer->text.failed)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 answer");
    if (req->sink && answer->status / 100 == 2 && (!answer->has_length || answer->length != answer->sunk)) {
        *retry = true;
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 %s: the answer's length does not fit what it promised",
                         req->method);
    }
    return BLOB_OK;
}
