/*
 * client_suite - what s3_client promises, against a real S3 endpoint. Every test works under a prefix of its own run.
 */
#include "core/text/bytebuf.h"
#include "tests/rig/unit_main.h"
#include "tests/s3/s3_environment.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MIB (1u << 20)

static struct s3_options options(void)
{
    struct s3_options o = s3_environment();
    o.retry_timeout_ms = 2000;
    return o;
}

/* A client with a prefix that nobody else has. */
static struct s3_client *open_client(void)
{
    static int serial;
    char prefix[64];
    struct blob_error err;
    struct s3_client *c;
    struct s3_options o = options();
    snprintf(prefix, sizeof prefix, "suite-%d-%ld-%d", (int)getpid(), (long)time(NULL), serial++);
    o.prefix = prefix;
    enum blob_status st = s3_client_open(&o, &c, &err);
    if (st != BLOB_OK)
        fprintf(stderr, "%s\n", err.text);
    CU_ASSERT_EQUAL_FATAL(st, BLOB_OK);
    return c;
}

static void fill(uint8_t *buf, size_t len, unsigned seed)
{
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        buf[i] = (uint8_t)(x >> 24);
    }
}

static uint8_t *filled(size_t len, unsigned seed)
{
    uint8_t *buf = malloc(len ? len : 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(buf);
    fill(buf, len, seed);
    return buf;
}

/* Says what went wrong, which the assertion alone does not. */
#define EXPECT(call, want)                                                                                             \
    do {                                                                                                               \
        struct blob_error err_ = {.text = ""}, *err = &err_;                                                           \
        enum blob_status st_ = (call);                                                                                 \
        if (st_ != (want))                                                                                             \
            fprintf(stderr, "%s: %s: %s\n", #call, blob_status_name(st_), err_.text);                                  \
        CU_ASSERT_EQUAL(st_, want);                                                                                    \
    } while (0)

static void test_put_get(void)
{
    static const size_t sizes[] = {0, 1, 4096, MIB + 1, 9 * MIB};
    struct s3_client *c = open_client();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t len = sizes[i], got = 0;
        uint8_t *in = filled(len, (unsigned)i), *out = filled(len + 1, 99);
        struct s3_body body = {.data = in, .length = len};
        struct s3_object put = {0}, seen = {0};
        EXPECT(s3_put(c, "a/b", &body, NULL, &put, err), BLOB_OK);
        EXPECT(s3_get(c, "a/b", out, len + 1, &got, &seen, err), BLOB_OK);
        CU_ASSERT_EQUAL(got, len);
        CU_ASSERT_EQUAL(seen.size, len);
        CU_ASSERT_EQUAL(memcmp(in, out, len), 0);
        EXPECT(s3_head(c, "a/b", &seen, err), BLOB_OK);
        CU_ASSERT_EQUAL(seen.size, len);
        CU_ASSERT_TRUE(seen.modified_ms > 1700000000000);
        CU_ASSERT_STRING_EQUAL(seen.etag, put.etag);
        free(in);
        free(out);
    }
    EXPECT(s3_delete(c, "a/b", err), BLOB_OK);
    s3_client_close(c);
}

static void test_ranges(void)
{
    struct s3_client *c = open_client();
    uint8_t *in = filled(100000, 1), out[70000];
    struct s3_body body = {.data = in, .length = 100000};
    struct s3_object seen;
    size_t got = 0;
    EXPECT(s3_put(c, "r", &body, NULL, NULL, err), BLOB_OK);
    EXPECT(s3_get_range(c, "r", 0, 1, out, &got, &seen, err), BLOB_OK);
    CU_ASSERT_EQUAL(got, 1);
    CU_ASSERT_EQUAL(seen.size, 100000);
    EXPECT(s3_get_range(c, "r", 500, 65536, out, &got, &seen, err), BLOB_OK);
    CU_ASSERT_EQUAL(got, 65536);
    CU_ASSERT_EQUAL(memcmp(out, in + 500, got), 0);
    EXPECT(s3_get_range(c, "r", 99990, 65536, out, &got, &seen, err), BLOB_OK);
    CU_ASSERT_EQUAL(got, 10);
    CU_ASSERT_EQUAL(memcmp(out, in + 99990, got), 0);
    EXPECT(s3_get_range(c, "r", 100000, 10, out, &got, &seen, err), BLOB_E_INVALID);
    EXPECT(s3_get(c, "r", out, sizeof out, &got, &seen, err), BLOB_E_TOO_LARGE);
    EXPECT(s3_delete(c, "r", err), BLOB_OK);
    free(in);
    s3_client_close(c);
}

/* The next len bytes of a stream are those at want. */
static void read_on(struct s3_stream *stream, const uint8_t *want, size_t len)
{
    uint8_t *got = filled(len, 98);
    EXPECT(s3_stream_read(stream, got, len, err), BLOB_OK);
    CU_ASSERT_EQUAL(memcmp(got, want, len), 0);
    free(got);
}

static void test_streams(void)
{
    struct s3_client *c = open_client();
    size_t len = 3 * MIB + 17;
    uint8_t *in = filled(len, 3);
    struct s3_body body = {.data = in, .length = len};
    struct s3_stream *whole = NULL, *part = NULL, *none = NULL;
    struct s3_object seen = {0};
    EXPECT(s3_put(c, "s", &body, NULL, NULL, err), BLOB_OK);
    if (!(s3_client_caps(c) & S3_CAP_STREAM)) {
        EXPECT(s3_stream_open(c, "s", 0, len, &whole, &seen, err), BLOB_E_UNSUPPORTED);
    } else {
        for (int i = 0; i < 2; i++) { /* the second time on connections that the first has left */
            EXPECT(s3_stream_open(c, "s", 0, len, &whole, &seen, err), BLOB_OK);
            CU_ASSERT_EQUAL(seen.size, len);
            EXPECT(s3_stream_open(c, "s", MIB, MIB, &part, &seen, err), BLOB_OK);
            CU_ASSERT_EQUAL(seen.size, len);
            read_on(whole, in, 1);
            read_on(part, in + MIB, MIB / 2);
            usleep(300000); /* at rest, with more in the kernel's buffers than it wants */
            read_on(whole, in + 1, 2 * MIB);
            read_on(part, in + MIB + MIB / 2, MIB / 2);
            read_on(whole, in + 1 + 2 * MIB, len - 1 - 2 * MIB);
            s3_stream_close(whole);
            s3_stream_close(part);
        }
        EXPECT(s3_stream_open(c, "s", 0, len, &whole, &seen, err), BLOB_OK);
        read_on(whole, in, 70000);
        s3_stream_close(whole); /* long before its end */
        EXPECT(s3_stream_open(c, "s", len - 1, 1, &whole, &seen, err), BLOB_OK);
        read_on(whole, in + len - 1, 1);
        s3_stream_close(whole);
        EXPECT(s3_stream_open(c, "s", 0, len + 1, &none, &seen, err), BLOB_E_INVALID);
        EXPECT(s3_stream_open(c, "s", len, 1, &none, &seen, err), BLOB_E_UNAVAILABLE);
        EXPECT(s3_stream_open(c, "none", 0, 1, &none, &seen, err), BLOB_E_UNAVAILABLE);
        CU_ASSERT_PTR_NULL(none);
        EXPECT(s3_stream_open(c, "s", 0, len, &whole, &seen, err), BLOB_OK);
        s3_client_cancel(c);
        uint8_t byte;
        while (s3_stream_read(whole, &byte, 1, NULL) == BLOB_OK) /* what had come with the head */
            continue;
        EXPECT(s3_stream_open(c, "s", 0, len, &none, &seen, err), BLOB_E_CANCELED);
        s3_stream_close(whole);
        s3_client_close(c);
        c = open_client();
    }
    s3_stream_close(NULL);
    EXPECT(s3_delete(c, "s", err), BLOB_OK);
    free(in);
    s3_client_close(c);
}

static void test_missing(void)
{
    struct s3_client *c = open_client();
    struct s3_object seen;
    char buf[8];
    size_t got;
    EXPECT(s3_head(c, "none", &seen, err), BLOB_E_NOT_FOUND);
    EXPECT(s3_get(c, "none", buf, sizeof buf, &got, &seen, err), BLOB_E_NOT_FOUND);
    EXPECT(s3_get_range(c, "none", 0, 8, buf, &got, &seen, err), BLOB_E_NOT_FOUND);
    EXPECT(s3_delete(c, "none", err), BLOB_OK);
    s3_client_close(c);
}

struct pattern {
    unsigned calls;
    enum blob_status fail;
};

static enum blob_status read_pattern(void *arg, uint64_t offset, void *buf, size_t len, struct blob_error *err)
{
    struct pattern *p = arg;
    p->calls++;
    if (p->fail != BLOB_OK)
        return blob_fail(err, p->fail, 0, "the source broke");
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)buf)[i] = (uint8_t)((offset + i) * 7 >> 3);
    return BLOB_OK;
}

static void test_streamed_put(void)
{
    struct s3_client *c = open_client();
    struct pattern p = {0};
    struct s3_body body = {.length = 3 * MIB + 5, .read = read_pattern, .arg = &p};
    size_t len = 3 * MIB + 5, got = 0;
    uint8_t *out = malloc(len), *want = malloc(len);
    EXPECT(s3_put(c, "stream", &body, NULL, NULL, err), BLOB_OK);
    CU_ASSERT_TRUE(p.calls > 1);
    EXPECT(s3_get(c, "stream", out, len, &got, NULL, err), BLOB_OK);
    CU_ASSERT_EQUAL(got, len);
    CU_ASSERT_EQUAL(read_pattern(&p, 0, want, len, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(memcmp(out, want, len), 0);
    p.fail = BLOB_E_CORRUPT;
    EXPECT(s3_put(c, "broken", &body, NULL, NULL, err), BLOB_E_CORRUPT);
    struct s3_object seen;
    EXPECT(s3_head(c, "broken", &seen, err), BLOB_E_NOT_FOUND);
    EXPECT(s3_delete(c, "stream", err), BLOB_OK);
    free(out);
    free(want);
    s3_client_close(c);
}

/* Found out by the endpoint, which then keeps nothing, or by the driver, after it was sent. */
static void test_promised_digest(void)
{
    struct s3_client *c = open_client();
    struct pattern p = {0};
    struct hash hash;
    struct digest digest;
    struct s3_object seen;
    size_t len = 2 * MIB;
    uint8_t *data = malloc(len);
    CU_ASSERT_PTR_NOT_NULL_FATAL(data);
    CU_ASSERT_EQUAL(read_pattern(&p, 0, data, len, NULL), BLOB_OK);
    hash_init(&hash);
    hash_update(&hash, data, len);
    hash_peek(&hash, &digest);
    const struct s3_body whole = {.length = len, .data = data, .sha256 = &digest};
    const struct s3_body source = {.length = len, .read = read_pattern, .arg = &p, .sha256 = &digest};
    EXPECT(s3_put(c, "whole", &whole, NULL, NULL, err), BLOB_OK);
    EXPECT(s3_put(c, "source", &source, NULL, NULL, err), BLOB_OK);
    EXPECT(s3_delete(c, "whole", err), BLOB_OK);
    EXPECT(s3_delete(c, "source", err), BLOB_OK);
    digest.bytes[0] ^= 1;
    EXPECT(s3_put(c, "whole", &whole, NULL, NULL, err), BLOB_E_UNAVAILABLE);
    EXPECT(s3_put(c, "source", &source, NULL, NULL, err), BLOB_E_UNAVAILABLE);
    if (strcmp(s3_client_driver(c), "sigv4") == 0) {
        EXPECT(s3_head(c, "whole", &seen, err), BLOB_E_NOT_FOUND);
        EXPECT(s3_head(c, "source", &seen, err), BLOB_E_NOT_FOUND);
    }
    EXPECT(s3_delete(c, "whole", err), BLOB_OK);
    EXPECT(s3_delete(c, "source", err), BLOB_OK);
    free(data);
    s3_client_close(c);
}

static void test_conditions(void)
{
    struct s3_client *c = open_client();
    const struct s3_condition absent = {.absent = true};
    const struct s3_body one = {.data = "one", .length = 3}, two = {.data = "two", .length = 3};
    if (!(s3_client_caps(c) & S3_CAP_CONDITIONAL_PUT)) {
        EXPECT(s3_put(c, "c", &one, &absent, NULL, err), BLOB_E_UNSUPPORTED);
        s3_client_close(c);
        return;
    }
    struct s3_object first, seen;
    char buf[8];
    size_t got = 0;
    EXPECT(s3_put(c, "c", &one, &absent, &first, err), BLOB_OK);
    EXPECT(s3_put(c, "c", &two, &absent, NULL, err), BLOB_E_EXISTS);
    const struct s3_condition same = {.etag = first.etag};
    EXPECT(s3_put(c, "c", &two, &same, &seen, err), BLOB_OK);
    EXPECT(s3_put(c, "c", &one, &same, &seen, err), BLOB_E_CONFLICT);
    EXPECT(s3_get(c, "c", buf, sizeof buf, &got, NULL, err), BLOB_OK);
    CU_ASSERT_EQUAL(memcmp(buf, "two", 3), 0);
    EXPECT(s3_delete(c, "c", err), BLOB_OK);
    s3_client_close(c);
}

static void test_listing(void)
{
    struct s3_client *c = open_client();
    const struct s3_body body = {.data = "x", .length = 1};
    char key[64], last[64] = "";
    for (int i = 0; i < 25; i++) {
        snprintf(key, sizeof key, "l/%02d", i);
        EXPECT(s3_put(c, key, &body, NULL, NULL, err), BLOB_OK);
    }
    EXPECT(s3_put(c, "m/other", &body, NULL, NULL, err), BLOB_OK);
    unsigned seen = 0, pages = 0;
    bool more = true;
    while (more && pages < 10) {
        struct s3_page page = {0};
        EXPECT(s3_list(c, "l/", last[0] ? last : NULL, 10, &page, err), BLOB_OK);
        for (size_t i = 0; i < page.count; i++) {
            snprintf(key, sizeof key, "l/%02u", seen++);
            CU_ASSERT_STRING_EQUAL(page.entries[i].key, key);
            CU_ASSERT_EQUAL(page.entries[i].object.size, 1);
            CU_ASSERT_TRUE(page.entries[i].object.modified_ms > 1700000000000);
        }
        if (page.count)
            snprintf(last, sizeof last, "%s", page.entries[page.count - 1].key);
        more = page.more;
        pages++;
        s3_page_release(&page);
    }
    CU_ASSERT_EQUAL(seen, 25);
    CU_ASSERT_EQUAL(pages, 3);
    struct s3_page page = {0};
    EXPECT(s3_list(c, "nothing/", NULL, 10, &page, err), BLOB_OK);
    CU_ASSERT_EQUAL(page.count, 0);
    CU_ASSERT_FALSE(page.more);
    s3_page_release(&page);
    EXPECT(s3_list(c, "", NULL, 1000, &page, err), BLOB_OK);
    CU_ASSERT_EQUAL(page.count, 26);
    for (size_t i = 0; i < page.count; i++)
        EXPECT(s3_delete(c, page.entries[i].key, err), BLOB_OK);
    s3_page_release(&page);
    s3_client_close(c);
}

static void test_multipart(void)
{
    struct s3_client *c = open_client();
    char id[S3_UPLOAD_ID_MAX] = "";
    if (!(s3_client_caps(c) & S3_CAP_MULTIPART)) {
        EXPECT(s3_multipart_create(c, "mp", id, err), BLOB_E_UNSUPPORTED);
        s3_client_close(c);
        return;
    }
    size_t part = 5 * MIB, tail = 12345, got = 0;
    uint8_t *in = filled(2 * part + tail, 7), *out = malloc(2 * part + tail);
    struct s3_part parts[3];
    struct s3_parts listed = {0};
    struct s3_uploads uploads = {0};
    struct s3_object object = {0};

    EXPECT(s3_multipart_create(c, "mp", id, err), BLOB_OK);
    for (unsigned i = 3; i >= 1; i--) { /* the order of arrival does not matter */
        struct s3_body body = {.data = in + (i - 1) * part, .length = i == 3 ? tail : part};
        EXPECT(s3_multipart_put(c, "mp", id, i, &body, &parts[i - 1], err), BLOB_OK);
    }
    EXPECT(s3_multipart_list(c, "", NULL, NULL, &uploads, err), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(uploads.count, 1);
    CU_ASSERT_STRING_EQUAL(uploads.uploads[0].key, "mp");
    CU_ASSERT_STRING_EQUAL(uploads.uploads[0].upload_id, id);
    CU_ASSERT_TRUE(uploads.uploads[0].initiated_ms > 1700000000000);
    s3_uploads_release(&uploads);
    EXPECT(s3_multipart_parts(c, "mp", id, 1, &listed, err), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(listed.count, 2);
    CU_ASSERT_EQUAL(listed.parts[0].number, 2);
    CU_ASSERT_EQUAL(listed.parts[0].size, part);
    CU_ASSERT_EQUAL(listed.parts[1].size, tail);
    s3_parts_release(&listed);

    EXPECT(s3_multipart_complete(c, "mp", id, parts, 3, &object, err), BLOB_OK);
    CU_ASSERT_EQUAL(object.size, 2 * part + tail);
    EXPECT(s3_multipart_complete(c, "mp", id, parts, 3, &object, err), BLOB_OK);
    EXPECT(s3_multipart_abort(c, "mp", id, err), BLOB_OK);
    EXPECT(s3_get(c, "mp", out, 2 * part + tail, &got, NULL, err), BLOB_OK);
    CU_ASSERT_EQUAL(got, 2 * part + tail);
    CU_ASSERT_EQUAL(memcmp(in, out, got), 0);
    EXPECT(s3_multipart_list(c, "", NULL, NULL, &uploads, err), BLOB_OK);
    CU_ASSERT_EQUAL(uploads.count, 0);
    s3_uploads_release(&uploads);
    EXPECT(s3_delete(c, "mp", err), BLOB_OK);
    free(in);
    free(out);
    s3_client_close(c);
}

static void test_multipart_gone(void)
{
    struct s3_client *c = open_client();
    if (!(s3_client_caps(c) & S3_CAP_MULTIPART)) {
        s3_client_close(c);
        return;
    }
    char id[S3_UPLOAD_ID_MAX] = "";
    struct s3_part part, other = {.number = 1, .size = 5, .etag = "\"00000000000000000000000000000000\""};
    struct s3_parts listed;
    struct s3_object object;
    const struct s3_body body = {.data = "hello", .length = 5};
    EXPECT(s3_multipart_create(c, "gone", id, err), BLOB_OK);
    EXPECT(s3_multipart_put(c, "gone", id, 1, &body, &part, err), BLOB_OK);
    EXPECT(s3_multipart_complete(c, "gone", id, &other, 1, &object, err), BLOB_E_CONFLICT);
    EXPECT(s3_multipart_abort(c, "gone", id, err), BLOB_OK);
    EXPECT(s3_multipart_abort(c, "gone", id, err), BLOB_OK);
    EXPECT(s3_multipart_put(c, "gone", id, 1, &body, &part, err), BLOB_E_NOT_FOUND);
    EXPECT(s3_multipart_parts(c, "gone", id, 0, &listed, err), BLOB_E_NOT_FOUND);
    EXPECT(s3_multipart_complete(c, "gone", id, &part, 1, &object, err), BLOB_E_NOT_FOUND);
    s3_client_close(c);
}

static size_t append(char *data, size_t size, size_t n, void *arg)
{
    bytebuf_add(arg, data, size * n);
    return size * n;
}

static void test_presign(void)
{
    struct s3_client *c = open_client();
    char *url = NULL;
    const struct s3_body body = {.data = "presigned bytes", .length = 15};
    if (!(s3_client_caps(c) & S3_CAP_PRESIGN)) {
        EXPECT(s3_presign(c, "p", 60, NULL, NULL, &url, err), BLOB_E_UNSUPPORTED);
        s3_client_close(c);
        return;
    }
    EXPECT(s3_put(c, "p", &body, NULL, NULL, err), BLOB_OK);
    EXPECT(s3_presign(c, "p", 60, "attachment; filename=\"a b.wav\"", "audio/wav", &url, err), BLOB_OK);
    struct bytebuf answer;
    bytebuf_init(&answer);
    CURL *easy = curl_easy_init();
    long status = 0;
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HEADER, 1L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, append);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &answer);
    CU_ASSERT_EQUAL(curl_easy_perform(easy), CURLE_OK);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_cleanup(easy);
    CU_ASSERT_EQUAL(status, 200);
    CU_ASSERT_PTR_NOT_NULL(strstr(answer.data, "presigned bytes"));
    CU_ASSERT_PTR_NOT_NULL(strcasestr(answer.data, "content-disposition: attachment; filename=\"a b.wav\""));
    CU_ASSERT_PTR_NOT_NULL(strcasestr(answer.data, "content-type: audio/wav"));
    bytebuf_release(&answer);
    free(url);
    EXPECT(s3_delete(c, "p", err), BLOB_OK);
    s3_client_close(c);
}

/* What an operator gets wrong, and that the text names it. */
static void expect_refusal(struct s3_options o, enum blob_status want, const char *word)
{
    struct s3_client *c;
    struct s3_page page;
    struct blob_error err = {.text = ""};
    enum blob_status st = s3_client_open(&o, &c, &err);
    if (st == BLOB_OK) {
        st = s3_list(c, "", NULL, 1, &page, &err);
        if (st == BLOB_OK)
            s3_page_release(&page);
        s3_client_close(c);
    }
    if (st != want || !strstr(err.text, word))
        fprintf(stderr, "wanted %s: %s: %s\n", word, blob_status_name(st), err.text);
    CU_ASSERT_EQUAL(st, want);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, word));
    CU_ASSERT_PTR_NULL(strstr(err.text, o.cred_secret[0] ? o.cred_secret : "\n"));
}

static void test_wrong_settings(void)
{
    struct s3_options o = options();
    o.cred_secret = "not-the-secret";
    expect_refusal(o, BLOB_E_DENIED, "cred_secret");
    o = options();
    o.cred_id = "nobody";
    expect_refusal(o, BLOB_E_DENIED, "cred_id");
    o = options();
    o.cred_id = "";
    expect_refusal(o, BLOB_E_INVALID, "the key id is missing");
    o = options();
    o.bucket = "no-such-bucket";
    expect_refusal(o, BLOB_E_UNAVAILABLE, "storage.s3.bucket");
    o = options();
    o.retry_timeout_ms = 300;
    o.endpoint = "http://127.0.0.1:1";
    expect_refusal(o, BLOB_E_UNAVAILABLE, "storage.s3.endpoint");
    o.endpoint = "127.0.0.1:1";
    expect_refusal(o, BLOB_E_INVALID, "storage.s3.endpoint");
    o.endpoint = "http://127.0.0.1:1/path";
    expect_refusal(o, BLOB_E_INVALID, "storage.s3.endpoint");
    o = options();
    o.driver = "sigv5";
    expect_refusal(o, BLOB_E_INVALID, "storage.s3.driver");
    o = options();
    o.prefix = "a b";
    expect_refusal(o, BLOB_E_INVALID, "storage.s3.prefix");
}

struct worker {
    struct s3_client *client;
    unsigned number;
    unsigned failures;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    char key[32];
    size_t len = 64 * 1024, got;
    uint8_t *in = malloc(len), *out = malloc(len);
    for (unsigned i = 0; i < 10; i++) {
        snprintf(key, sizeof key, "t/%u-%u", w->number, i);
        fill(in, len, w->number * 100 + i);
        struct s3_body body = {.data = in, .length = len};
        struct s3_object seen;
        if (s3_put(w->client, key, &body, NULL, NULL, NULL) != BLOB_OK ||
            s3_get(w->client, key, out, len, &got, &seen, NULL) != BLOB_OK || got != len || memcmp(in, out, len) != 0 ||
            s3_delete(w->client, key, NULL) != BLOB_OK)
            w->failures++;
    }
    free(in);
    free(out);
    return NULL;
}

static void test_threads(void)
{
    struct s3_client *c = open_client();
    pthread_t threads[8];
    struct worker workers[8];
    for (unsigned i = 0; i < 8; i++) {
        workers[i] = (struct worker){.client = c, .number = i};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        CU_ASSERT_EQUAL(workers[i].failures, 0);
    }
    s3_client_close(c);
}

static void test_cancel(void)
{
    struct s3_client *c = open_client();
    struct s3_object seen;
    s3_client_cancel(c);
    EXPECT(s3_head(c, "k", &seen, err), BLOB_E_CANCELED);
    s3_client_close(c);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_TestInfo tests[] = {{"what is put is got, whatever its size", test_put_get},
                           {"ranges are exact, also at the end", test_ranges},
                           {"a stream gives its bytes as they are asked for, beside others", test_streams},
                           {"a missing object is missing, and deleting it succeeds", test_missing},
                           {"a body may be read from a source, whose failure fails the put", test_streamed_put},
                           {"a body without the digest it was promised to have fails the put", test_promised_digest},
                           {"create-only and compare-and-swap", test_conditions},
                           {"a listing goes page by page in order, within its prefix", test_listing},
                           {"a multipart upload becomes one object, and completing again succeeds", test_multipart},
                           {"an aborted upload is gone, and wrong parts are a conflict", test_multipart_gone},
                           {"a presigned URL works for anyone, with the headers asked for", test_presign},
                           {"a wrong setting is named, without the secret", test_wrong_settings},
                           {"eight threads share a client", test_threads},
                           {"a cancelled client answers at once", test_cancel},
                           CU_TEST_INFO_NULL};
    return unit_main("s3_client", tests);
}
