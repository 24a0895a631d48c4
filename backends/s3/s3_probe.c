/*
 * s3_probe - tries what uploads need, since an endpoint that lacks it says so too late: it takes parts and acknowledges
 * them, and then refuses to list them or to put them together; or it takes no notice of a condition, and two writers
 * both believe that they were first.
 *
 * What lacks conditions may be cured by an update, so only a full success is remembered, with the endpoint it was of.
 */
#include "backends/s3/s3_probe.h"

#include "backends/s3/s3_staged.h"
#include "core/clock.h"
#include "core/uuid.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define CHECKED_KEY   "checked.json"
#define CHECKED_MS    (24ll * 3600 * 1000)
#define PART_MIN      (5u << 20)
#define OTHER_ETAG    "\"00000000000000000000000000000000\""
#define CHECK_CONTENT "self-check"

/* A condition that is not heeded, not known, or answered by nonsense is lacking all the same. */
static enum blob_status lacks(enum blob_status st, const char *what, struct blob_error *err)
{
    if (st == BLOB_OK || st == BLOB_E_UNSUPPORTED || st == BLOB_E_INVALID || st == BLOB_E_IO)
        return blob_fail(err, BLOB_E_UNSUPPORTED, 0,
                         "%s is not heeded: run one blobd only on this bucket, or update the S3 server", what);
    return st;
}

enum blob_status s3_probe_create_only(struct s3_client *c, const char *key, struct blob_error *err)
{
    const struct s3_body body = {.data = "again", .length = 5};
    const struct s3_condition absent = {.absent = true};
    enum blob_status st = s3_put(c, key, &body, &absent, NULL, err);
    return st == BLOB_E_EXISTS ? BLOB_OK : lacks(st, "If-None-Match", err);
}

enum blob_status s3_probe_swap(struct s3_client *c, const char *key, struct blob_error *err)
{
    const struct s3_body body = {.data = "other", .length = 5};
    struct s3_condition cond = {.etag = OTHER_ETAG};
    enum blob_status st = s3_put(c, key, &body, &cond, NULL, err);
    if (st != BLOB_E_CONFLICT)
        return lacks(st, "If-Match", err);
    struct s3_object now;
    st = s3_head(c, key, &now, err);
    if (st != BLOB_OK)
        return st;
    cond.etag = now.etag;
    st = s3_put(c, key, &body, &cond, NULL, err);
    return st == BLOB_E_CONFLICT ? lacks(BLOB_OK, "If-Match of the right ETag", err) : st;
}

static enum blob_status list_parts(struct s3_client *c, const char *key, const char *id, const struct s3_part *wanted,
                                   unsigned count, struct blob_error *err)
{
    struct s3_parts parts;
    enum blob_status st = s3_multipart_parts(c, key, id, 0, &parts, err);
    if (st != BLOB_OK)
        return st;
    bool right = parts.count == count;
    for (unsigned i = 0; right && i < count; i++)
        right = parts.parts[i].number == wanted[i].number && parts.parts[i].size == wanted[i].size;
    s3_parts_release(&parts);
    return right ? BLOB_OK
                 : blob_fail(err, BLOB_E_UNSUPPORTED, 0, "the parts of an upload are not listed as they were sent");
}

enum blob_status s3_probe_multipart(struct s3_client *c, const char *key, const void *part, size_t len,
                                    struct blob_error *err)
{
    struct s3_part parts[2];
    struct s3_object object;
    char id[S3_UPLOAD_ID_MAX];
    unsigned count = len >= PART_MIN ? 2 : 1;
    const struct s3_body bodies[2] = {{.data = part, .length = len}, {.data = part, .length = 1}};
    enum blob_status st = s3_multipart_create(c, key, id, err);
    if (st != BLOB_OK)
        return st;
    for (unsigned i = 0; i < count && st == BLOB_OK; i++)
        st = s3_multipart_put(c, key, id, i + 1, &bodies[i], &parts[i], err);
    if (st == BLOB_OK)
        st = list_parts(c, key, id, parts, count, err);
    if (st == BLOB_OK)
        st = s3_multipart_complete(c, key, id, parts, count, &object, err);
    struct blob_error ignored;
    enum blob_status ended = s3_multipart_abort(c, key, id, st == BLOB_OK ? err : &ignored);
    /* What was put together is no upload any more: that an endpoint cannot abort it does no harm. */
    return st == BLOB_OK && ended != BLOB_E_UNSUPPORTED ? ended : st;
}

/* ---- at start ---- */

/* Was all well at this endpoint, within the last day? */
static bool is_remembered(struct s3_client *c, const struct s3_options *opts)
{
    char text[512];
    size_t len;
    struct blob_error ignored;
    json_int_t at_ms;
    const char *endpoint, *driver;
    if (s3_get(c, CHECKED_KEY, text, sizeof text, &len, NULL, &ignored) != BLOB_OK)
        return false;
    json_t *root = json_loadb(text, len, 0, NULL);
    bool fresh =
        root && json_unpack(root, "{s:I,s:s,s:s}", "at_ms", &at_ms, "endpoint", &endpoint, "driver", &driver) == 0 &&
        strcmp(endpoint, opts->endpoint ? opts->endpoint : "") == 0 && strcmp(driver, s3_client_driver(c)) == 0 &&
        at_ms <= clock_wall_ms() && clock_wall_ms() - at_ms < CHECKED_MS;
    json_decref(root);
    return fresh;
}

/* Failing to costs another look at the next start. */
static void remember(struct s3_client *c, const struct s3_options *opts)
{
    struct blob_error ignored;
    json_t *root = json_pack("{s:I,s:s,s:s}", "at_ms", (json_int_t)clock_wall_ms(), "endpoint",
                             opts->endpoint ? opts->endpoint : "", "driver", s3_client_driver(c));
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    if (text) {
        const struct s3_body body = {.data = text, .length = strlen(text)};
        enum blob_status st = s3_put(c, CHECKED_KEY, &body, NULL, NULL, &ignored);
        (void)st;
    }
    free(text);
    json_decref(root);
}

enum blob_status s3_probe_forget(struct s3_client *c, struct blob_error *err)
{
    return s3_delete(c, CHECKED_KEY, err);
}

/* Written, read whole and in part, listed. */
static enum blob_status probe_object(struct s3_client *c, const char *key, struct blob_error *err)
{
    const struct s3_body body = {.data = CHECK_CONTENT, .length = strlen(CHECK_CONTENT)};
    char got[16];
    size_t len;
    struct s3_page page;
    enum blob_status st = s3_put(c, key, &body, NULL, NULL, err);
    if (st == BLOB_OK)
        st = s3_get_range(c, key, 5, 5, got, &len, NULL, err);
    if (st == BLOB_OK && (len != 5 || memcmp(got, "check", 5) != 0))
        return blob_fail(err, BLOB_E_UNSUPPORTED, 0, "other bytes came back than were stored");
    if (st == BLOB_OK)
        st = s3_list(c, key, NULL, 10, &page, err);
    if (st != BLOB_OK)
        return st;
    size_t count = page.count;
    s3_page_release(&page);
    return count == 1 ? BLOB_OK
                      : blob_fail(err, BLOB_E_UNSUPPORTED, 0,
                                  "an object that was just written is not listed: the endpoint is not consistent");
}

static enum blob_status probe_conditions(struct s3_client *c, const char *key, bool *conditional,
                                         struct blob_error *err)
{
    *conditional = false;
    if (!(s3_client_caps(c) & S3_CAP_CONDITIONAL_PUT))
        return BLOB_OK;
    enum blob_status st = s3_probe_create_only(c, key, err);
    if (st == BLOB_OK)
        st = s3_probe_swap(c, key, err);
    *conditional = st == BLOB_OK;
    return st == BLOB_E_UNSUPPORTED ? BLOB_OK : st;
}

enum blob_status s3_probe(struct s3_client *c, const struct s3_options *opts, bool *conditional, struct blob_error *err)
{
    char key[64], big[72];
    struct uuid id;
    struct blob_error why = {.text = ""}, ignored;
    bool multipart = s3_client_caps(c) & S3_CAP_MULTIPART;
    if (is_remembered(c, opts)) {
        *conditional = s3_client_caps(c) & S3_CAP_CONDITIONAL_PUT;
        return BLOB_OK;
    }
    uuid_new(&id);
    snprintf(key, sizeof key, S3_STAGED_ROOT "check/%s", id.text);
    snprintf(big, sizeof big, "%s.big", key);
    const char *step = "storing an object";
    enum blob_status st = probe_object(c, key, &why);
    if (st == BLOB_OK) {
        step = "conditional writes";
        st = probe_conditions(c, key, conditional, &why);
    }
    if (st == BLOB_OK && multipart) {
        step = "a multipart upload (create, put, list parts, complete)";
        st = s3_probe_multipart(c, big, CHECK_CONTENT, strlen(CHECK_CONTENT), &why);
    }
    enum blob_status gone = s3_delete(c, key, st == BLOB_OK ? &why : &ignored);
    if (st == BLOB_OK && multipart)
        gone = gone == BLOB_OK ? s3_delete(c, big, &why) : gone;
    if (st == BLOB_OK && gone != BLOB_OK) {
        step = "deleting an object";
        st = gone;
    }
    if (st != BLOB_OK)
        return blob_fail(err, st, 0, "uploads could not complete here: %s failed: %.140s", step, why.text);
    if (*conditional)
        remember(c, opts);
    return BLOB_OK;
}
