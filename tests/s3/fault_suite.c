/*
 * fault_suite - s3_client against tests/integration/faulty_s3.py: each fault ends in the right bytes or in an error,
 * never in a success that is none. A key FAULT.3/x meets the fault in its first 3
 * requests.
 */
#include "core/clock.h"
#include "tests/rig/unit_main.h"
#include "tests/s3/s3_environment.h"

#include <signal.h>
#include <string.h>

#define LEN (3u << 20) /* over curl's threshold for Expect: 100-continue */

static struct s3_options options(void)
{
    struct s3_options o = s3_environment();
    o.retry_timeout_ms = 3000;
    return o;
}

static struct s3_client *open_client(const struct s3_options *o)
{
    struct s3_client *c;
    struct blob_error err;
    enum blob_status st = s3_client_open(o, &c, &err);
    if (st != BLOB_OK)
        fprintf(stderr, "%s\n", err.text);
    CU_ASSERT_EQUAL_FATAL(st, BLOB_OK);
    return c;
}

static bool is_sigv4(const struct s3_client *c)
{
    return strcmp(s3_client_driver(c), "sigv4") == 0;
}

static uint8_t *content(void)
{
    uint8_t *buf = malloc(LEN);
    CU_ASSERT_PTR_NOT_NULL_FATAL(buf);
    for (size_t i = 0; i < LEN; i++)
        buf[i] = (uint8_t)(i * 31 >> 5);
    return buf;
}

static void expect(const char *what, enum blob_status st, enum blob_status want, const struct blob_error *err,
                   const char *word)
{
    if (st != want || (st != BLOB_OK && !strstr(err->text, word)))
        fprintf(stderr, "%s: %s, wanted %s: %s\n", what, blob_status_name(st), blob_status_name(want), err->text);
    CU_ASSERT_EQUAL(st, want);
    if (st != BLOB_OK)
        CU_ASSERT_PTR_NOT_NULL(strstr(err->text, word));
}

/* Puts under key, and when that succeeds, looks through an untroubled handle at what is really there. */
static void check_put_of(const struct s3_options *o, const char *key, enum blob_status want, const char *word)
{
    struct s3_client *c = open_client(o);
    uint8_t *in = content(), *out = malloc(LEN);
    struct s3_body body = {.data = in, .length = LEN};
    struct blob_error err = {.text = ""};
    size_t got = 0;
    enum blob_status st = s3_put(c, key, &body, NULL, NULL, &err);
    expect(key, st, want, &err, word);
    if (st == BLOB_OK) {
        st = s3_get(c, key, out, LEN, &got, NULL, &err);
        CU_ASSERT_TRUE(st == BLOB_OK && got == LEN && memcmp(in, out, LEN) == 0);
    }
    free(in);
    free(out);
    s3_client_close(c);
}

static void check_put(const char *key, enum blob_status want, const char *word)
{
    struct s3_options o = options();
    check_put_of(&o, key, want, word);
}

/* What libs3 cannot do must fail, not pass for done. */
static enum blob_status unless_libs3(enum blob_status st)
{
    return strcmp(options().driver, "libs3") == 0 ? BLOB_E_UNAVAILABLE : st;
}

static void test_put_faults(void)
{
    check_put("fine/x", BLOB_OK, "");
    check_put("empty-503.2/x", BLOB_OK, "");
    check_put("empty-503.all/x", BLOB_E_UNAVAILABLE, "503");
    check_put("html-502.2/x", BLOB_OK, "");
    check_put("html-502.all/x", BLOB_E_UNAVAILABLE, "502");
    check_put("early-503.1/x", BLOB_OK, "");
    check_put("internal.2/x", BLOB_OK, "");
    check_put("drop.1/x", BLOB_OK, "");
    check_put("drop.all/x", BLOB_E_UNAVAILABLE, "broke off");
    check_put("drop-after.1/x", BLOB_OK, "");
    check_put("no-continue.all/x", unless_libs3(BLOB_OK), "");
    check_put("lower-case.all/x", unless_libs3(BLOB_OK), "");
    check_put("upper-case.all/x", unless_libs3(BLOB_OK), "");
    check_put("garbage.1/x", BLOB_OK, "");
}

/* Where no 100 Continue comes, libcurl waits for a second before it sends a body. */
static void test_small_body_waits_for_nothing(void)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    const struct s3_body body = {.data = "small", .length = 5};
    struct blob_error err = {.text = ""};
    int64_t began = clock_steady_us();
    if (is_sigv4(c)) {
        expect("small", s3_put(c, "no-continue.all/small", &body, NULL, NULL, &err), BLOB_OK, &err, "");
        CU_ASSERT_TRUE(clock_steady_us() - began < 900000);
    }
    s3_client_close(c);
}

/* Signature V4 has the endpoint check what it keeps. libs3 looks at what is there. */
static void test_kept_otherwise(void)
{
    if (strcmp(options().driver, "libs3") != 0)
        return;
    check_put("keep-other.1/x", BLOB_OK, "");
    check_put("keep-other.all/x", BLOB_E_UNAVAILABLE, "another object");
    check_put("keep-short.1/x", BLOB_OK, "");
    check_put("keep-short.all/x", BLOB_E_UNAVAILABLE, "another object");
}

static void test_slow_down(void)
{
    check_put("slowdown.3/x", BLOB_OK, "");
    check_put("slowdown.all/x", BLOB_E_UNAVAILABLE, "slow down");
    int64_t began = clock_steady_us();
    check_put("too-many.1/x", BLOB_OK, "");
    if (unless_libs3(BLOB_OK) == BLOB_OK)
        CU_ASSERT_TRUE(clock_steady_us() - began >= 1000000); /* Retry-After: 1 */
}

/* Puts without trouble under its own name, then gets with the fault. */
static void check_get(const char *fault, bool whole, enum blob_status want)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    uint8_t *in = content(), *out = malloc(LEN);
    struct s3_body body = {.data = in, .length = LEN};
    struct blob_error err = {.text = ""};
    struct s3_object seen;
    size_t got = 0;
    /* These faults leave PUT alone. */
    enum blob_status put = s3_put(c, fault, &body, NULL, NULL, &err);
    if (want == BLOB_OK)
        expect(fault, put, BLOB_OK, &err, "");
    enum blob_status st = whole ? s3_get(c, fault, out, LEN, &got, &seen, &err)
                                : s3_get_range(c, fault, 1000, LEN - 1000, out, &got, &seen, &err);
    expect(fault, st, want, &err, "");
    if (st == BLOB_OK) {
        CU_ASSERT_EQUAL(got, whole ? LEN : LEN - 1000);
        CU_ASSERT_EQUAL(memcmp(out, whole ? in : in + 1000, got), 0);
        CU_ASSERT_EQUAL(seen.size, LEN);
    }
    free(in);
    free(out);
    s3_client_close(c);
}

static void test_get_faults(void)
{
    check_get("cut-body.3/a", true, BLOB_OK);
    check_get("cut-body.all/a", true, BLOB_E_UNAVAILABLE);
    check_get("cut-body.all/b", false, BLOB_E_UNAVAILABLE);
    check_get("no-length.all/a", true, BLOB_E_UNAVAILABLE);
    check_get("no-length.3/b", true, BLOB_OK);
    check_get("ignore-range.all/a", false, BLOB_E_UNAVAILABLE);
    check_get("other-range.all/a", false, BLOB_E_UNAVAILABLE);
    check_get("other-range.3/b", false, BLOB_OK);
    check_get("lower-case.all/b", true, unless_libs3(BLOB_OK));
    check_get("lower-case.all/c", false, unless_libs3(BLOB_OK));
}

/* What a stream of the object's last bytes gives: all of them, right, or an error with this word. */
static void check_stream_of(const struct s3_options *o, const char *key, bool opens, const char *word)
{
    struct s3_client *c = open_client(o);
    uint8_t *in = content(), *out = malloc(LEN);
    struct s3_body body = {.data = in, .length = LEN};
    struct blob_error err = {.text = ""};
    struct s3_object seen;
    struct s3_stream *stream = NULL;
    enum blob_status put = s3_put(c, key, &body, NULL, NULL, &err);
    (void)put; /* where the fault forbids it, there is less to read */
    enum blob_status st = s3_stream_open(c, key, 1000, LEN - 1000, &stream, &seen, &err);
    CU_ASSERT_EQUAL(stream != NULL, st == BLOB_OK);
    CU_ASSERT_EQUAL(opens, st == BLOB_OK);
    if (st == BLOB_OK) {
        CU_ASSERT_EQUAL(seen.size, LEN);
        st = s3_stream_read(stream, out, LEN - 1000, &err);
    }
    expect(key, st, word[0] ? BLOB_E_UNAVAILABLE : BLOB_OK, &err, word);
    if (st == BLOB_OK)
        CU_ASSERT_EQUAL(memcmp(out, in + 1000, LEN - 1000), 0);
    s3_stream_close(stream);
    free(in);
    free(out);
    s3_client_close(c);
}

static void check_stream(const char *key, bool opens, const char *word)
{
    struct s3_options o = options();
    check_stream_of(&o, key, opens, word);
}

/* One attempt, on connections of its own; only one that was kept and had died is replaced. */
static void test_stream_faults(void)
{
    struct s3_options o = options();
    if (unless_libs3(BLOB_OK) != BLOB_OK)
        return;
    check_stream("fine/s", true, "");
    check_stream("lower-case.all/s", true, "");
    check_stream("upper-case.all/s", true, "");
    check_stream("cut-body.all/s", true, "broke off");
    check_stream("no-length.all/s", false, "not as a stream");
    check_stream("chunked.all/s", false, "not as a stream");
    check_stream("ignore-range.all/s", false, "does not heed Range");
    check_stream("other-range.all/s", false, "another range");
    check_stream("html-404.all/s", false, "404");
    check_stream("internal.all/s", false, "500");
    check_stream("redirect.all/s", false, "307");
    check_stream("garbage.all/s", false, "broke off");
    check_stream("drop.all/s", false, "broke off");
    check_stream("no-status.all/s", false, "answered 0");
    o.stall_timeout_ms = 1000;
    o.retry_timeout_ms = 100;
    check_stream_of(&o, "stall-body.all/s", true, "stalled");
    check_stream_of(&o, "drip.all/s", true, "stalled");
    check_stream_of(&o, "late.all/s", false, "stalled");
    o = options();
    o.endpoint = "http://127.0.0.1:1";
    o.retry_timeout_ms = 100;
    check_stream_of(&o, "fine/s", false, "storage.s3.endpoint");
}

/* One stream after another, each of which gets the right bytes, whatever the one before has left. */
static void check_streams(const struct s3_options *o, const char *const *keys, size_t count)
{
    struct s3_client *c = open_client(o);
    const struct s3_body body = {.data = "0123456789", .length = 10};
    for (size_t i = 0; i < count && is_sigv4(c); i++) {
        struct s3_stream *stream = NULL;
        struct blob_error err = {.text = ""};
        struct s3_object seen;
        char got[10];
        expect(keys[i], s3_put(c, keys[i], &body, NULL, NULL, &err), BLOB_OK, &err, "");
        expect(keys[i], s3_stream_open(c, keys[i], 0, 10, &stream, &seen, &err), BLOB_OK, &err, "");
        CU_ASSERT_PTR_NOT_NULL_FATAL(stream);
        expect(keys[i], s3_stream_read(stream, got, 10, &err), BLOB_OK, &err, "");
        CU_ASSERT_EQUAL(memcmp(got, body.data, 10), 0);
        s3_stream_close(stream);
    }
    s3_client_close(c);
}

static void test_kept_stream_connection(void)
{
    /* On the connection that the first has left, the second meets its fault before any byte of an answer. */
    static const char *const dying[] = {"fine/k", "drop-get.2/k", "fine/l"};
    static const char *const surplus[] = {"fine/k", "surplus.all/k", "fine/l", "surplus.all/l", "fine/m"};
    struct s3_options o = options();
    check_streams(&o, dying, 3);
    check_streams(&o, surplus, 5);
    o.endpoint = getenv("BLOBD_TEST_S3_TLS_ENDPOINT");
    o.ca_file = getenv("BLOBD_TEST_S3_CA_FILE");
    if (unless_libs3(BLOB_OK) == BLOB_OK)
        check_streams(&o, surplus, 5);
}

static void test_late_answers(void)
{
    struct s3_options o = options();
    o.stall_timeout_ms = 30000;
    struct s3_client *patient = open_client(&o);
    o.stall_timeout_ms = 1000;
    o.retry_timeout_ms = 15000;
    o.retries = 1;
    struct s3_client *hasty = open_client(&o);
    const struct s3_body body = {.data = "late", .length = 4};
    struct blob_error err = {.text = ""};
    expect("patient", s3_put(patient, "late.1/a", &body, NULL, NULL, &err), BLOB_OK, &err, "");
    if (is_sigv4(hasty)) {
        expect("hasty", s3_put(hasty, "late.all/b", &body, NULL, NULL, &err), BLOB_E_UNAVAILABLE, &err, "stalled");
        expect("hasty once", s3_put(hasty, "late.1/c", &body, NULL, NULL, &err), BLOB_OK, &err, "");
    }
    s3_client_close(patient);
    s3_client_close(hasty);
}

static void check_multipart(const char *key, enum blob_status want, const char *word)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    struct blob_error err = {.text = ""};
    if (s3_client_caps(c) & S3_CAP_MULTIPART) {
        uint8_t *in = content(), *out = malloc(LEN);
        struct s3_body first = {.data = in, .length = LEN / 2}, second = {.data = in + LEN / 2, .length = LEN / 2};
        struct s3_part parts[2];
        struct s3_object object = {0};
        char id[S3_UPLOAD_ID_MAX] = "x";
        size_t got = 0;
        expect(key, s3_multipart_create(c, key, id, &err), BLOB_OK, &err, "");
        expect(key, s3_multipart_put(c, key, id, 1, &first, &parts[0], &err), BLOB_OK, &err, "");
        expect(key, s3_multipart_put(c, key, id, 2, &second, &parts[1], &err), BLOB_OK, &err, "");
        enum blob_status st = s3_multipart_complete(c, key, id, parts, 2, &object, &err);
        expect(key, st, want, &err, word);
        if (st == BLOB_OK) {
            CU_ASSERT_EQUAL(object.size, LEN);
            CU_ASSERT_EQUAL(s3_get(c, key, out, LEN, &got, NULL, &err), BLOB_OK);
            CU_ASSERT_EQUAL(memcmp(in, out, LEN), 0);
        }
        free(in);
        free(out);
    }
    s3_client_close(c);
}

static void test_multipart_faults(void)
{
    check_multipart("error-in-200.4/x", BLOB_OK, ""); /* create, two parts, then the first complete */
    check_multipart("error-in-200.all/x", BLOB_E_UNAVAILABLE, "InternalError");
    check_multipart("empty-200.all/x", BLOB_E_UNAVAILABLE, "not whole");
    check_multipart("wrong-size.all/x", BLOB_E_CORRUPT, "bytes after its parts");
    check_multipart("lower-case.all/m", BLOB_OK, "");
}

/* The upload is gone when it is completed again; the object proves that it was this that did it. */
static void test_lost_answer_to_complete(void)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    if (s3_client_caps(c) & S3_CAP_MULTIPART)
        check_multipart("drop-after-post.all/x", BLOB_OK, "");
    s3_client_close(c);
}

/* The object that is in the way was made by this very call; one of somebody else's stays in the way. */
static void test_lost_answer_to_create(void)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    const struct s3_condition absent = {.absent = true};
    const struct s3_body mine = {.data = "mine", .length = 4}, other = {.data = "other", .length = 5};
    struct blob_error err = {.text = ""};
    if (s3_client_caps(c) & S3_CAP_CONDITIONAL_PUT) {
        expect("own", s3_put(c, "drop-after.1/e", &mine, &absent, NULL, &err), BLOB_OK, &err, "");
        expect("own again", s3_put(c, "drop-after.1/e", &mine, &absent, NULL, &err), BLOB_E_EXISTS, &err, "");
        expect("other", s3_put(c, "fine/e", &other, &absent, NULL, &err), BLOB_OK, &err, "");
        expect("theirs", s3_put(c, "fine/e", &mine, &absent, NULL, &err), BLOB_E_EXISTS, &err, "");
    }
    s3_client_close(c);
}

static void test_redirects(void)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    bool v4 = is_sigv4(c);
    s3_client_close(c);
    if (!v4)
        return;
    char endpoint[64];
    snprintf(endpoint, sizeof endpoint, "http://localhost%s", strrchr(o.endpoint, ':'));
    o.endpoint = endpoint;
    check_put_of(&o, "redirect.all/x", BLOB_OK, "");
    check_put_of(&o, "astray.all/x", BLOB_E_UNAVAILABLE, "stranger.localhost");
    check_put("redirect.all/x", BLOB_E_UNAVAILABLE, "not storage.s3.endpoint's");
    check_put("circle.all/x", BLOB_E_UNAVAILABLE, "circle");
    check_put("moved.all/x", BLOB_E_UNAVAILABLE, "eu-central-1");
    check_put("other-region.all/x", BLOB_E_DENIED, "eu-central-1");
}

static void test_skewed_clock(void)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    const struct s3_body body = {.data = "skew", .length = 4};
    struct blob_error err = {.text = ""};
    if (is_sigv4(c)) {
        expect("skewed", s3_put(c, "skewed.all/x", &body, NULL, NULL, &err), BLOB_OK, &err, "");
        expect("skewed", s3_put(c, "skewed.all/y", &body, NULL, NULL, &err), BLOB_OK, &err, "");
        expect("far", s3_put(c, "far-skewed.all/x", &body, NULL, NULL, &err), BLOB_E_DENIED, &err, "clock");
        struct s3_options tls = options();
        tls.endpoint = getenv("BLOBD_TEST_S3_TLS_ENDPOINT");
        tls.ca_file = getenv("BLOBD_TEST_S3_CA_FILE");
        struct s3_client *known = open_client(&tls);
        expect("known", s3_put(known, "far-skewed.all/x", &body, NULL, NULL, &err), BLOB_OK, &err, "");
        s3_client_close(known);
    } else {
        CU_ASSERT_NOT_EQUAL(s3_put(c, "skewed.all/x", &body, NULL, NULL, &err), BLOB_OK);
    }
    s3_client_close(c);
}

/* The endpoint's clock is what its successes say. */
static void test_clock_of_a_failure(void)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    const struct s3_body body = {.data = "late", .length = 4};
    struct blob_error err = {.text = ""};
    struct s3_clock_view clock;
    if (is_sigv4(c)) {
        expect("fails first", s3_put(c, "ahead-503.2/x", &body, NULL, NULL, &err), BLOB_OK, &err, "");
        s3_client_clock(c, &clock);
        CU_ASSERT_TRUE(clock.samples == 1 && s3_clock_worst_ms(&clock) < 60000 && s3_clock_worst_ms(&clock) > -60000);
        expect("ahead", s3_put(c, "ahead.all/x", &body, NULL, NULL, &err), BLOB_OK, &err, "");
        s3_client_clock(c, &clock);
        CU_ASSERT_TRUE(clock.samples == 2 && s3_clock_worst_ms(&clock) > 7000000);
    }
    s3_client_close(c);
}

static void test_absence(void)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    struct s3_object seen;
    char buf[64];
    size_t got;
    struct blob_error err = {.text = ""};
    const struct s3_body body = {.data = "there", .length = 5};
    expect("get", s3_get(c, "none/x", buf, sizeof buf, &got, &seen, &err), BLOB_E_NOT_FOUND, &err, "");
    expect("head", s3_head(c, "none/x", &seen, &err), BLOB_E_NOT_FOUND, &err, "");
    expect("get", s3_get(c, "html-404.all/x", buf, sizeof buf, &got, &seen, &err), BLOB_E_UNAVAILABLE, &err, "404");
    expect("head", s3_head(c, "html-404.all/x", &seen, &err), BLOB_E_UNAVAILABLE, &err, "404");
    if (is_sigv4(c)) {
        expect("put", s3_put(c, "head-404.all/x", &body, NULL, NULL, &err), BLOB_OK, &err, "");
        expect("head", s3_head(c, "head-404.all/x", &seen, &err), BLOB_E_UNAVAILABLE, &err, "then had it");
    }
    s3_client_close(c);
}

/* One page after another, as the store goes. Gives how many there were before the end, or the failure. */
static enum blob_status walk(struct s3_client *c, const char *prefix, unsigned *pages, struct blob_error *err)
{
    char after[S3_KEY_MAX + 1] = "";
    for (*pages = 0; *pages < 20; ++*pages) {
        struct s3_page page;
        enum blob_status st = s3_list(c, prefix, after[0] ? after : NULL, 2, &page, err);
        if (st != BLOB_OK)
            return st;
        bool more = page.more;
        if (page.count > 0)
            snprintf(after, sizeof after, "%s", page.entries[page.count - 1].key);
        s3_page_release(&page);
        if (!more)
            return BLOB_OK;
    }
    return BLOB_OK;
}

static enum blob_status walk_uploads(struct s3_client *c, const char *prefix, struct blob_error *err)
{
    char after_key[S3_KEY_MAX + 1] = "", after_id[S3_UPLOAD_ID_MAX] = "";
    for (unsigned pages = 0; pages < 5; pages++) {
        struct s3_uploads page;
        enum blob_status st =
            s3_multipart_list(c, prefix, after_key[0] ? after_key : NULL, after_id[0] ? after_id : NULL, &page, err);
        if (st != BLOB_OK || page.count == 0)
            return st;
        snprintf(after_key, sizeof after_key, "%s", page.uploads[0].key);
        snprintf(after_id, sizeof after_id, "%s", page.uploads[0].upload_id);
        s3_uploads_release(&page);
    }
    return BLOB_OK;
}

/* A listing that goes round is followed for ever unless somebody looks. */
static void test_endless_listings(void)
{
    struct s3_options o = options();
    struct s3_client *c = open_client(&o);
    struct blob_error err = {.text = ""};
    const struct s3_body body = {.data = "x", .length = 1};
    struct s3_parts parts;
    unsigned pages;
    for (int i = 0; i < 5; i++) {
        char key[32];
        snprintf(key, sizeof key, "fine/list/%d", i);
        expect(key, s3_put(c, key, &body, NULL, NULL, &err), BLOB_OK, &err, "");
    }
    expect("fine", walk(c, "fine/list/", &pages, &err), BLOB_OK, &err, "");
    CU_ASSERT_EQUAL(pages, 2);
    expect("same page", walk(c, "same-page.all/", &pages, &err), BLOB_E_UNAVAILABLE, &err, "");
    expect("nothing", walk(c, "more-of-nothing.all/", &pages, &err), BLOB_E_UNAVAILABLE, &err, "");
    if (s3_client_caps(c) & S3_CAP_MULTIPART) {
        expect("same uploads", walk_uploads(c, "same-page.all/", &err), BLOB_E_UNAVAILABLE, &err, "");
        expect("no uploads", walk_uploads(c, "more-of-nothing.all/", &err), BLOB_E_UNAVAILABLE, &err, "");
        expect("same parts", s3_multipart_parts(c, "same-page.all/x", "id", 1, &parts, &err), BLOB_E_UNAVAILABLE, &err,
               "");
        expect("no parts", s3_multipart_parts(c, "more-of-nothing.all/x", "id", 0, &parts, &err), BLOB_E_UNAVAILABLE,
               &err, "");
    }
    s3_client_close(c);
}

static void test_certificate(void)
{
    struct s3_options o = options();
    o.endpoint = getenv("BLOBD_TEST_S3_TLS_ENDPOINT");
    const struct s3_body body = {.data = "tls", .length = 3};
    struct blob_error err = {.text = ""};
    struct s3_client *c = open_client(&o);
    if (s3_client_caps(c) & S3_CAP_VERIFIED_TLS) {
        expect("untrusted", s3_put(c, "fine/t", &body, NULL, NULL, &err), BLOB_E_UNAVAILABLE, &err, "certificate");
        s3_client_close(c);
        o.ca_file = getenv("BLOBD_TEST_S3_CA_FILE");
        c = open_client(&o);
    }
    expect("trusted", s3_put(c, "fine/t", &body, NULL, NULL, &err), BLOB_OK, &err, "");
    if (s3_client_caps(c) & S3_CAP_STREAM)
        check_stream_of(&o, "fine/ts", true, "");
    s3_client_close(c);
    if (strcmp(o.driver, "sigv4") == 0) {
        o.ca_file = "/nonexistent.pem";
        c = open_client(&o);
        expect("no file", s3_put(c, "fine/t", &body, NULL, NULL, &err), BLOB_E_INVALID, &err, "ca_file");
        s3_client_close(c);
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_TestInfo tests[] = {
        {"a failed upload is tried again, and never reported as done", test_put_faults},
        {"a small body goes with its head", test_small_body_waits_for_nothing},
        {"what is kept otherwise than it was sent is not reported as done", test_kept_otherwise},
        {"SlowDown and Retry-After are heeded", test_slow_down},
        {"a download is the bytes asked for, all of them, or an error", test_get_faults},
        {"a stream gives the bytes asked for, or an error", test_stream_faults},
        {"a kept connection that died, or has more to say, is replaced", test_kept_stream_connection},
        {"an answer may be late, up to the setting", test_late_answers},
        {"an error inside the 200 of a complete is an error", test_multipart_faults},
        {"a complete whose answer was lost is found done", test_lost_answer_to_complete},
        {"a create whose answer was lost is told from somebody else's", test_lost_answer_to_create},
        {"a redirect is followed to the endpoint's own hosts alone, a permanent one explained", test_redirects},
        {"the clock's offset is learned from the refusal", test_skewed_clock},
        {"the clock is what successes say, not failures", test_clock_of_a_failure},
        {"only S3's own word makes an object missing", test_absence},
        {"a listing that would never end is not followed", test_endless_listings},
        {"a certificate that is not trusted is refused by name", test_certificate},
        CU_TEST_INFO_NULL};
    return unit_main("s3 faults", tests);
}
