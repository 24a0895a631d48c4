/*
 * s3_error - one table from S3's error codes to status, retry and advice.
 *
 * The code decides before the HTTP status, because endpoints disagree on the latter, and an <Error> can stand in a 200.
 * Without a code the HTTP status decides, carefully: a bare 404 does not mean that the key is missing, it may come
 * from any web server. Texts name settings; the server's own message is left out, as it can quote what was signed.
 */
#include "backends/s3/client/s3_error.h"

#include <stdio.h>
#include <string.h>

struct ruling {
    const char *code;
    enum blob_status status;
    bool retry;
    const char *advice;
};

static const struct ruling rulings[] = {
    {"NoSuchKey", BLOB_E_NOT_FOUND, false, "no such object"},
    {"NoSuchUpload", BLOB_E_NOT_FOUND, false, "no such multipart upload"},
    {"NoSuchBucket", BLOB_E_UNAVAILABLE, false, "there is no such bucket: create it, or correct storage.s3.bucket"},
    {"InvalidBucketName", BLOB_E_UNAVAILABLE, false, "not a bucket name: correct storage.s3.bucket"},
    {"AllAccessDisabled", BLOB_E_DENIED, false, "the bucket is disabled by its provider"},

    {"AccessDenied", BLOB_E_DENIED, false,
     "these credentials may not do this: check the bucket's policy (docs/s3.md has the least one)"},
    {"InvalidAccessKeyId", BLOB_E_DENIED, false,
     "the endpoint does not know storage.s3.cred_id: correct it, or storage.s3.endpoint"},
    {"SignatureDoesNotMatch", BLOB_E_DENIED, false,
     "storage.s3.cred_secret does not belong to cred_id: correct it (or a proxy changed the request)"},
    {"ExpiredToken", BLOB_E_DENIED, false, "the session token has expired: supply a fresh one"},
    {"InvalidToken", BLOB_E_DENIED, false, "the session token is not valid for these credentials"},
    {"TokenRefreshRequired", BLOB_E_DENIED, false, "the session token has expired: supply a fresh one"},
    {"InvalidSecurity", BLOB_E_DENIED, false, "the credentials are not valid"},
    {"AccountProblem", BLOB_E_DENIED, false, "the provider has blocked the account"},
    {"RequestTimeTooSkewed", BLOB_E_DENIED, false,
     "this machine's clock is too far from the endpoint's: set it right (NTP)"},
    {"RequestExpired", BLOB_E_DENIED, false, "this machine's clock is too far from the endpoint's: set it right (NTP)"},
    {"AuthorizationHeaderMalformed", BLOB_E_DENIED, false, "the bucket is in another region: set storage.s3.region"},
    {"AuthorizationQueryParametersError", BLOB_E_DENIED, false,
     "the bucket is in another region: set storage.s3.region"},
    {"PermanentRedirect", BLOB_E_UNAVAILABLE, false,
     "the bucket lives at another endpoint: set storage.s3.region and storage.s3.endpoint"},
    {"IllegalLocationConstraintException", BLOB_E_UNAVAILABLE, false,
     "the bucket is in another region: set storage.s3.region and storage.s3.endpoint"},

    {"PreconditionFailed", BLOB_E_CONFLICT, false, "the object is there already, or has changed"},
    {"ConditionalRequestConflict", BLOB_E_UNAVAILABLE, true, "another write to the same key is under way"},
    {"OperationAborted", BLOB_E_UNAVAILABLE, true, "another operation on the same key is under way"},
    {"ConcurrentModification", BLOB_E_UNAVAILABLE, true, "another write to the same key is under way"},
    {"InvalidPart", BLOB_E_CONFLICT, false, "the endpoint does not have these parts"},
    {"InvalidPartOrder", BLOB_E_CONFLICT, false, "the endpoint does not have these parts"},
    {"EntityTooSmall", BLOB_E_INVALID, false, "a part is under the endpoint's minimum: raise storage.s3.part_size"},
    {"EntityTooLarge", BLOB_E_TOO_LARGE, false, "over the endpoint's size limit"},
    {"InvalidRange", BLOB_E_INVALID, false, "the range is outside the object"},
    {"QuotaExceeded", BLOB_E_NO_SPACE, false, "the bucket's or the user's quota is used up"},
    {"XMinioStorageFull", BLOB_E_NO_SPACE, false, "the storage behind the endpoint is full"},
    {"StorageFull", BLOB_E_NO_SPACE, false, "the storage behind the endpoint is full"},
    {"XAmzContentSHA256Mismatch", BLOB_E_UNAVAILABLE, true, "the body was damaged on its way"},
    {"BadDigest", BLOB_E_UNAVAILABLE, true, "the body was damaged on its way"},
    {"IncompleteBody", BLOB_E_UNAVAILABLE, true, "the body was cut short on its way"},
    {"RequestTimeout", BLOB_E_UNAVAILABLE, true, "the endpoint waited too long for the body"},
    {"SlowDown", BLOB_E_UNAVAILABLE, true, "the endpoint asks to slow down"},
    {"SlowDownRead", BLOB_E_UNAVAILABLE, true, "the endpoint asks to slow down"},
    {"SlowDownWrite", BLOB_E_UNAVAILABLE, true, "the endpoint asks to slow down"},
    {"TooManyRequests", BLOB_E_UNAVAILABLE, true, "the endpoint asks to slow down"},
    {"RequestLimitExceeded", BLOB_E_UNAVAILABLE, true, "the endpoint asks to slow down"},
    {"ServiceUnavailable", BLOB_E_UNAVAILABLE, true, "the endpoint is not available"},
    {"InternalError", BLOB_E_UNAVAILABLE, true, "the endpoint failed inside"},
    {"NotImplemented", BLOB_E_UNSUPPORTED, false, "the endpoint does not implement this"},
    {"MethodNotAllowed", BLOB_E_UNSUPPORTED, false, "the endpoint does not allow this"},
    {"TemporaryRedirect", BLOB_E_UNAVAILABLE, true, "the endpoint redirects in a circle"},
    {"Redirect", BLOB_E_UNAVAILABLE, true, "the endpoint redirects in a circle"},
};

static struct ruling by_http_status(int status)
{
    if (status == 429)
        return (struct ruling){NULL, BLOB_E_UNAVAILABLE, true, "the endpoint asks to slow down"};
    if (status == 501)
        return (struct ruling){NULL, BLOB_E_UNSUPPORTED, false, "the endpoint does not implement this"};
    if (status == 507)
        return (struct ruling){NULL, BLOB_E_NO_SPACE, false, "the storage behind the endpoint is full"};
    if (status >= 500)
        return (struct ruling){NULL, BLOB_E_UNAVAILABLE, true, "the endpoint, or a proxy before it, failed"};
    if (status == 401 || status == 403)
        return (struct ruling){NULL, BLOB_E_DENIED, false, "refused: check credentials, policy and clock"};
    if (status == 404)
        return (struct ruling){NULL, BLOB_E_UNAVAILABLE, false,
                               "a 404 that is not S3's: is storage.s3.endpoint an S3 endpoint?"};
    if (status == 408)
        return (struct ruling){NULL, BLOB_E_UNAVAILABLE, true, "the endpoint waited too long for the body"};
    if (status == 409)
        return (struct ruling){NULL, BLOB_E_UNAVAILABLE, true, "another operation on the same key is under way"};
    if (status == 412)
        return (struct ruling){NULL, BLOB_E_CONFLICT, false, "the object is there already, or has changed"};
    if (status == 416)
        return (struct ruling){NULL, BLOB_E_INVALID, false, "the range is outside the object"};
    if (status >= 300 && status < 400)
        return (struct ruling){NULL, BLOB_E_UNAVAILABLE, false,
                               "redirected: set storage.s3.region and storage.s3.endpoint to where the bucket is"};
    return (struct ruling){NULL, BLOB_E_IO, false, "not an answer of S3: is storage.s3.endpoint an S3 endpoint?"};
}

static struct ruling find_ruling(const struct s3_refusal *refusal)
{
    for (size_t i = 0; i < sizeof rulings / sizeof rulings[0]; i++) {
        if (strcmp(rulings[i].code, refusal->code) == 0)
            return rulings[i];
    }
    return by_http_status(refusal->http_status);
}

bool s3_refusal_is_of_keys(const struct s3_refusal *refusal)
{
    static const char *const codes[] = {"ExpiredToken",       "InvalidToken",    "TokenRefreshRequired",
                                        "InvalidAccessKeyId", "InvalidSecurity", "SignatureDoesNotMatch"};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (strcmp(codes[i], refusal->code) == 0)
            return true;
    }
    return false;
}

enum blob_status s3_refusal_judge(const struct s3_refusal *refusal, const struct s3_errand *errand, bool *retry,
                                  struct blob_error *err)
{
    struct ruling r = find_ruling(refusal);
    if (r.status == BLOB_E_CONFLICT && refusal->http_status == 412 && errand->create_only)
        r.status = BLOB_E_EXISTS;
    char moved[96] = "";
    if (refusal->region[0] && strcmp(refusal->region, errand->region) != 0)
        snprintf(moved, sizeof moved, " (the bucket is in %s)", refusal->region);
    *retry = r.retry;
    return blob_fail(err, r.status, 0, "S3 %s %.64s at %.64s/%.63s: %d %s: %s%s", errand->verb,
                     errand->key ? errand->key : "bucket", errand->endpoint, errand->bucket, refusal->http_status,
                     refusal->code, r.advice, moved);
}
