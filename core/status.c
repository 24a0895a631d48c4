/* status - names of the result codes, and the one way to fill an error. */
#include "core/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const status_names[BLOB_STATUS_COUNT] = {
    [BLOB_OK] = "OK",
    [BLOB_E_INVALID] = "INVALID",
    [BLOB_E_NOT_FOUND] = "NOT_FOUND",
    [BLOB_E_EXISTS] = "EXISTS",
    [BLOB_E_CONFLICT] = "CONFLICT",
    [BLOB_E_NO_SPACE] = "NO_SPACE",
    [BLOB_E_TOO_LARGE] = "TOO_LARGE",
    [BLOB_E_UNAVAILABLE] = "UNAVAILABLE",
    [BLOB_E_CORRUPT] = "CORRUPT",
    [BLOB_E_DENIED] = "DENIED",
    [BLOB_E_UNSUPPORTED] = "UNSUPPORTED",
    [BLOB_E_CANCELED] = "CANCELED",
    [BLOB_E_NO_MEMORY] = "NO_MEMORY",
    [BLOB_E_IO] = "IO",
};

const char *blob_status_name(enum blob_status st)
{
    if ((unsigned)st >= BLOB_STATUS_COUNT)
        return "?";
    return status_names[st];
}

enum blob_status blob_fail(struct blob_error *err, enum blob_status st, int sys_errno, const char *fmt, ...)
{
    if (!err)
        return st;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    if (sys_errno && n >= 0 && (size_t)n < sizeof err->text) {
        char buf[96];
        /* The GNU strerror_r: it may answer with a static string instead of buf. */
        snprintf(err->text + n, sizeof err->text - (size_t)n, ": %s", strerror_r(sys_errno, buf, sizeof buf));
    }
    err->sys_errno = sys_errno;
    err->retryable = st == BLOB_E_UNAVAILABLE || st == BLOB_E_NO_SPACE || st == BLOB_E_NO_MEMORY;
    return st;
}

enum blob_status blob_status_from_errno(int sys_errno)
{
    switch (sys_errno) {
    case 0:
        return BLOB_OK;
    case ENOSPC:
    case EDQUOT:
        return BLOB_E_NO_SPACE;
    case ENOENT:
        return BLOB_E_NOT_FOUND;
    case EEXIST:
        return BLOB_E_EXISTS;
    case EACCES:
    case EPERM:
    case EROFS:
        return BLOB_E_DENIED;
    case ENOMEM:
        return BLOB_E_NO_MEMORY;
    case EMFILE:
    case ENFILE:
    case EAGAIN:
        return BLOB_E_UNAVAILABLE;
    case EFBIG:
        return BLOB_E_TOO_LARGE;
    default:
        return BLOB_E_IO;
    }
}
