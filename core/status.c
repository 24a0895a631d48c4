/* status - names of the result codes, and the one way to fill an error. */
#include "core/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LONGEST 4352 /* a path, and what is said about it */
#define CUT     "[...]"

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

/* Bytes of text that are not the middle of a character. */
static size_t whole_characters(const char *text, size_t len)
{
    while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
        len--;
    return len;
}

/* What is long is a path or a URL, and why it failed stands behind it: what does not fit is left out of the middle. */
static void fit(char *out, size_t size, const char *text)
{
    size_t len = strlen(text), cut = strlen(CUT);
    if (len < size) {
        memcpy(out, text, len + 1);
        return;
    }
    size_t head = whole_characters(text, (size - cut) / 2), tail = len - (size - 1 - cut - head);
    while (((unsigned char)text[tail] & 0xc0) == 0x80)
        tail++;
    memcpy(out, text, head);
    memcpy(out + head, CUT, cut);
    memcpy(out + head + cut, text + tail, len - tail + 1);
}

enum blob_status blob_fail(struct blob_error *err, enum blob_status st, int sys_errno, const char *fmt, ...)
{
    if (!err)
        return st;
    char whole[LONGEST], buf[96];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(whole, sizeof whole - sizeof buf, fmt, ap);
    va_end(ap);
    whole[n < 0 ? 0 : sizeof whole - sizeof buf] = '\0';
    if (sys_errno) { /* the GNU strerror_r: it may answer with a static string instead of buf */
        size_t len = strlen(whole);
        snprintf(whole + len, sizeof whole - len, ": %s", strerror_r(sys_errno, buf, sizeof buf));
    }
    fit(err->text, sizeof err->text, whole);
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
