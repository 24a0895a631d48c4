/*
 * api_error - the API's error codes: what a refused request is told, in upper case and stable.
 *
 * core decides which code; the server writes it as JSON with the HTTP status of api_code_http(). Everything
 * else about the answer (offset, fresh token) comes from the operation's own result.
 *
 * Threads: plain values.
 */
#ifndef BLOBD_CORE_API_ERROR_H
#define BLOBD_CORE_API_ERROR_H

#include "core/status.h"

enum api_code {
    API_OK = 0,
    API_VALIDATE_FAILED,
    API_BAD_REQUEST,
    API_DIGEST_INVALID,
    API_UNAUTHORIZED,
    API_UPLOAD_TOKEN_INVALID,
    API_UPLOAD_UNKNOWN,
    API_BLOB_UNKNOWN,
    API_FILE_UNKNOWN,
    API_NOT_FOUND,
    API_METHOD_NOT_ALLOWED,
    API_REQUEST_TIMEOUT,
    API_UPLOAD_SUPERSEDED,
    API_UPLOAD_COMPLETED,
    API_UPLOAD_BUSY,
    API_PRECONDITION_FAILED,
    API_SIZE_LIMIT_EXCEEDED,
    API_URI_TOO_LONG,
    API_UPLOAD_OFFSET_MISMATCH,
    API_RANGE_INVALID,
    API_EXPECTATION_FAILED,
    API_TOO_MANY_REQUESTS,
    API_HEADERS_TOO_LARGE,
    API_UNKNOWN,
    API_NOT_IMPLEMENTED,
    API_UNAVAILABLE,
    API_INSUFFICIENT_STORAGE,
    API_CODE_COUNT
};

struct api_error {
    enum api_code code;
    char text[240];    /* for the client: what is wrong with the request; no internals */
    char field[32];    /* detail.field where one field is at fault, else "" */
    char expected[80]; /* detail.expected and detail.actual (digests, offsets), else "" */
    char actual[80];
    unsigned retry_after_s; /* 0: none */
};

/* "UPLOAD_UNKNOWN" and the like. */
const char *api_code_name(enum api_code code);
/* The HTTP status of a code (RFC 9110 section 15); 200 for API_OK. */
int api_code_http(enum api_code code);

/* Fills err and returns code, so that a refusal ends in: return api_fail(err, API_…, "…"). */
enum api_code api_fail(struct api_error *err, enum api_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* The same, naming the field at fault. */
enum api_code api_fail_field(struct api_error *err, enum api_code code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* What a failed store or session operation means to the client: NO_SPACE → 507, UNAVAILABLE → 503 with Retry-After, the
 * rest → 500. The text stays general; the detail is for the log. */
enum api_code api_fail_status(struct api_error *err, enum blob_status st);

#endif
