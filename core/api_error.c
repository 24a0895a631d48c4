/* api_error - one table of codes: name and HTTP status side by side. */
#include "core/api_error.h"

#include "core/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NO_SPACE_RETRY_S 60 /* somebody has to make room, or a sweep */

static const struct {
    const char *name;
    int http;
} codes[API_CODE_COUNT] = {
    [API_OK] = {"OK", 200},
    [API_VALIDATE_FAILED] = {"VALIDATE_FAILED", 400},
    [API_BAD_REQUEST] = {"BAD_REQUEST", 400},
    [API_DIGEST_INVALID] = {"DIGEST_INVALID", 400},
    [API_UNAUTHORIZED] = {"UNAUTHORIZED", 401},
    [API_UPLOAD_TOKEN_INVALID] = {"UPLOAD_TOKEN_INVALID", 403},
    [API_UPLOAD_UNKNOWN] = {"UPLOAD_UNKNOWN", 404},
    [API_BLOB_UNKNOWN] = {"BLOB_UNKNOWN", 404},
    [API_FILE_UNKNOWN] = {"FILE_UNKNOWN", 404},
    [API_NOT_FOUND] = {"NOT_FOUND", 404},
    [API_METHOD_NOT_ALLOWED] = {"METHOD_NOT_ALLOWED", 405},
    [API_REQUEST_TIMEOUT] = {"REQUEST_TIMEOUT", 408},
    [API_UPLOAD_SUPERSEDED] = {"UPLOAD_SUPERSEDED", 409},
    [API_UPLOAD_COMPLETED] = {"UPLOAD_COMPLETED", 409},
    [API_UPLOAD_BUSY] = {"UPLOAD_BUSY", 409},
    [API_PRECONDITION_FAILED] = {"PRECONDITION_FAILED", 412},
    [API_SIZE_LIMIT_EXCEEDED] = {"SIZE_LIMIT_EXCEEDED", 413},
    [API_URI_TOO_LONG] = {"URI_TOO_LONG", 414},
    [API_UPLOAD_OFFSET_MISMATCH] = {"UPLOAD_OFFSET_MISMATCH", 416},
    [API_RANGE_INVALID] = {"RANGE_INVALID", 416},
    [API_EXPECTATION_FAILED] = {"EXPECTATION_FAILED", 417},
    [API_TOO_MANY_REQUESTS] = {"TOO_MANY_REQUESTS", 429},
    [API_HEADERS_TOO_LARGE] = {"HEADERS_TOO_LARGE", 431},
    [API_UNKNOWN] = {"UNKNOWN", 500},
    [API_NOT_IMPLEMENTED] = {"NOT_IMPLEMENTED", 501},
    [API_UNAVAILABLE] = {"UNAVAILABLE", 503},
    [API_INSUFFICIENT_STORAGE] = {"INSUFFICIENT_STORAGE", 507},
};

const char *api_code_name(enum api_code code)
{
    CHECK((unsigned)code < API_CODE_COUNT);
    return codes[code].name;
}

int api_code_http(enum api_code code)
{
    CHECK((unsigned)code < API_CODE_COUNT);
    return codes[code].http;
}

__attribute__((format(printf, 3, 0))) static void api_set(struct api_error *err, enum api_code code, const char *fmt,
                                                          va_list ap)
{
    memset(err, 0, sizeof *err);
    err->code = code;
    vsnprintf(err->text, sizeof err->text, fmt, ap);
}

enum api_code api_fail(struct api_error *err, enum api_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    api_set(err, code, fmt, ap);
    va_end(ap);
    return code;
}

enum api_code api_fail_field(struct api_error *err, enum api_code code, const char *field, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    api_set(err, code, fmt, ap);
    va_end(ap);
    snprintf(err->field, sizeof err->field, "%s", field);
    return code;
}

enum api_code api_fail_status(struct api_error *err, enum blob_status st)
{
    switch (st) {
    case BLOB_E_NO_SPACE:
        api_fail(err, API_INSUFFICIENT_STORAGE, "the storage is full; what was acknowledged is kept");
        err->retry_after_s = NO_SPACE_RETRY_S;
        return API_INSUFFICIENT_STORAGE;
    case BLOB_E_UNAVAILABLE:
    case BLOB_E_DENIED: /* to blobd, by its storage: the operator can cure it, and the client need not give up */
    case BLOB_E_CONFLICT:
    case BLOB_E_NO_MEMORY:
    case BLOB_E_CANCELED:
        api_fail(err, API_UNAVAILABLE, "the service cannot do this just now; try again");
        err->retry_after_s = 1;
        return API_UNAVAILABLE;
    default:
        return api_fail(err, API_UNKNOWN, "an internal error occurred; the log tells more under this request's id");
    }
}
