/*
 * status - the result of every call that can fail, and the detail beside it.
 *
 * A fallible function returns enum blob_status and gives its results by out-parameters, which it leaves
 * untouched on failure. Where a caller can use more than the code, the last parameter is a struct blob_error
 * (may be NULL): filled on failure only.
 *
 * Threads: plain values. Ownership: the texts are static or inside the struct.
 */
#ifndef BLOBD_CORE_STATUS_H
#define BLOBD_CORE_STATUS_H

#include <stdbool.h>

#define BLOB_MUST_CHECK __attribute__((warn_unused_result))

enum blob_status {
    BLOB_OK = 0,
    BLOB_E_INVALID,     /* what came from outside is malformed or out of bounds */
    BLOB_E_NOT_FOUND,   /* the named thing is not there: positive knowledge, never a guess after an error */
    BLOB_E_EXISTS,      /* create-only, and it is there already */
    BLOB_E_CONFLICT,    /* a compare-and-swap was lost, or a writer was fenced off */
    BLOB_E_NO_SPACE,    /* disk full or quota reached */
    BLOB_E_TOO_LARGE,   /* over a configured or built-in bound */
    BLOB_E_UNAVAILABLE, /* cannot answer now; the same call may succeed later (retryable) */
    BLOB_E_CORRUPT,     /* stored bytes are not what they must be */
    BLOB_E_DENIED,      /* credentials or permissions are refused */
    BLOB_E_UNSUPPORTED, /* this backend cannot; its capability bits say so beforehand */
    BLOB_E_CANCELED,    /* stopped by the caller or by shutdown */
    BLOB_E_NO_MEMORY,
    BLOB_E_IO, /* any other failure of disk or network */
    BLOB_STATUS_COUNT
};

struct blob_error {
    int sys_errno;  /* 0 where no system call failed */
    bool retryable; /* the same call may succeed later, unchanged */
    char text[240]; /* one line for the log and the operator: what failed on what, never a secret */
};

/* "NO_SPACE" and the like; never NULL. */
const char *blob_status_name(enum blob_status st);

/*
 * Fill err (may be NULL) and return st, so that a failing function ends in
 *     return blob_fail(err, BLOB_E_IO, errno, "fsync %s", path);
 * With sys_errno, the text gets ": <strerror>" appended. Of a text that is too long the middle is left out.
 */
enum blob_status blob_fail(struct blob_error *err, enum blob_status st, int sys_errno, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* The status an errno stands for: ENOSPC, EDQUOT → NO_SPACE, ENOENT → NOT_FOUND, EACCES → DENIED, else IO. */
enum blob_status blob_status_from_errno(int sys_errno);

#endif
