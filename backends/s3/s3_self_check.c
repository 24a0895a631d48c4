/*
 * s3_self_check - what `blobd --check-storage` tries on the bucket, each step with what it means for the operator.
 *
 * Works on keys of its own below staging/, which are deleted at the end. A step that fails does not stop the others, so
 * that a policy that lacks three permissions is told of all three.
 */
#include "backends/s3/s3_probe.h"
#include "backends/s3/s3_store_internal.h"
#include "core/text/bytebuf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PART_BYTES (5u << 20)

struct check {
    struct s3_store *store;
    store_report_fn *report;
    void *arg;
    struct s3_key key; /* of a small object */
    struct s3_key big; /* of a multipart object */
    uint8_t *buf;      /* PART_BYTES + 1 */
    enum blob_status first;
    struct blob_error *err;
};

static bool step(struct check *c, enum blob_status st, const struct blob_error *e, const char *what,
                 const char *meaning)
{
    if (st == BLOB_OK) {
        c->report(true, what, meaning, c->arg);
        return true;
    }
    c->report(false, what, e->text, c->arg);
    if (c->first == BLOB_OK) {
        c->first = st;
        if (c->err)
            *c->err = *e;
    }
    return false;
}

static enum blob_status wrong(struct blob_error *e, const char *text)
{
    return blob_fail(e, BLOB_E_CORRUPT, 0, "%s", text);
}

static void check_objects(struct check *c)
{
    struct blob_error e = {.text = ""};
    struct s3_client *s3 = c->store->client;
    struct s3_object object;
    char got[16];
    size_t len = 0;
    const struct s3_body body = {.data = "self-check", .length = 10};
    step(c, s3_put(s3, c->key.text, &body, NULL, NULL, &e), &e, "write (PutObject)", "objects can be stored");
    enum blob_status st = s3_get(s3, c->key.text, got, sizeof got, &len, &object, &e);
    if (st == BLOB_OK && (len != 10 || memcmp(got, "self-check", 10) != 0))
        st = wrong(&e, "other bytes came back than were stored");
    step(c, st, &e, "read (GetObject)", "the bytes come back as they were");
    st = s3_get_range(s3, c->key.text, 5, 5, got, &len, &object, &e);
    if (st == BLOB_OK && (len != 5 || memcmp(got, "check", 5) != 0))
        st = wrong(&e, "a range came back wrong");
    step(c, st, &e, "read a range", "downloads can be resumed and streamed");
}

static void check_listing(struct check *c)
{
    struct blob_error e = {.text = ""};
    struct s3_page page;
    enum blob_status st = s3_list(c->store->client, c->key.text, NULL, 10, &page, &e);
    if (st == BLOB_OK) {
        if (page.count != 1)
            st = wrong(&e, "an object that was just written is not listed: the endpoint is not consistent");
        s3_page_release(&page);
    }
    step(c, st, &e, "list (ListBucket)", "what was written is listed at once");
}

static void check_conditions(struct check *c)
{
    struct blob_error e = {.text = ""};
    struct s3_client *s3 = c->store->client;
    if (!c->store->conditional) {
        c->report(true, "conditional writes", "this driver has none: run one blobd only on this bucket", c->arg);
        return;
    }
    step(c, s3_probe_create_only(s3, c->key.text, &e), &e, "create only (If-None-Match)",
         "nodes cannot overwrite each other's new objects");
    step(c, s3_probe_swap(s3, c->key.text, &e), &e, "compare and swap (If-Match)",
         "a blob cannot be removed while it is being used anew");
}

static void check_multipart(struct check *c)
{
    struct blob_error e = {.text = ""};
    struct s3_uploads uploads;
    if (!c->store->multipart) {
        c->report(true, "multipart uploads", "this driver has none: large uploads are sent twice, up to 5 GiB", c->arg);
        return;
    }
    step(c, s3_probe_multipart(c->store->client, c->big.text, c->buf, PART_BYTES, &e), &e,
         "multipart (CreateMultipartUpload, UploadPart, ListParts, Complete, Abort)",
         "large uploads become one object without a copy");
    enum blob_status st = s3_multipart_list(c->store->client, "data/", NULL, NULL, &uploads, &e);
    if (st == BLOB_OK)
        s3_uploads_release(&uploads);
    step(c, st, &e, "list multipart uploads (ListBucketMultipartUploads)", "leftovers of crashes can be cleared up");
}

static void check_clock(struct check *c)
{
    struct blob_error e = {.text = ""};
    char text[96];
    struct s3_clock_view clock;
    s3_client_clock(c->store->client, &clock);
    int64_t off = s3_clock_worst_ms(&clock);
    snprintf(text, sizeof text, "this machine and the endpoint differ by %lld ms", (long long)off);
    enum blob_status st = BLOB_OK;
    if (off > 60000 || off < -60000)
        st = blob_fail(&e, BLOB_E_DENIED, 0, "%s: set the clock right (NTP), or S3 will refuse at 15 minutes", text);
    step(c, st, &e, "clock", text);
}

static void check_delete(struct check *c)
{
    struct blob_error e = {.text = ""};
    struct s3_object object;
    struct s3_client *s3 = c->store->client;
    enum blob_status st = s3_delete(s3, c->key.text, &e), other = s3_delete(s3, c->big.text, &e);
    if (st == BLOB_OK)
        st = other;
    if (st == BLOB_OK)
        st = s3_probe_forget(s3, &e); /* so that the next start looks for itself */
    if (st == BLOB_OK) {
        st = s3_head(s3, c->key.text, &object, &e);
        if (st == BLOB_OK)
            st = wrong(&e, "a deleted object is still there: is versioning or object lock on?");
        else if (st == BLOB_E_NOT_FOUND)
            st = BLOB_OK;
    }
    step(c, st, &e, "delete (DeleteObject)", "removed blobs free their space");
}

enum blob_status s3_self_check(struct blob_store *base, store_report_fn *report, void *arg, struct blob_error *err)
{
    struct s3_store *s = s3_store_of(base);
    struct check c = {.store = s, .report = report, .arg = arg, .err = err};
    struct uuid id;
    uuid_new(&id);
    snprintf(c.key.text, sizeof c.key.text, S3_STAGED_ROOT "check/%s", id.text);
    snprintf(c.big.text, sizeof c.big.text, S3_STAGED_ROOT "check/%s.big", id.text);
    c.buf = calloc(1, PART_BYTES);
    if (!c.buf)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 self-check");
    if (!(s3_client_caps(s->client) & S3_CAP_VERIFIED_TLS))
        report(true, "driver", "libs3 does not verify TLS certificates; use it on a trusted network only", arg);
    check_objects(&c);
    check_listing(&c);
    check_conditions(&c);
    check_multipart(&c);
    check_delete(&c);
    check_clock(&c);
    report(true, "the least policy for this bucket and prefix", s->policy, arg);
    free(c.buf);
    return c.first;
}
