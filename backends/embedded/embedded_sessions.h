/*
 * embedded_sessions - the session contract in SQLite, for a node on its own.
 *
 * Files: <path> (sessions), <path>.index (the file index), <path>.lock, and SQLite's -wal of the first two. They can
 * be deleted while blobd is stopped: what they held is rebuilt from the blob store.
 *
 * A second process on the same path is refused at open with CONFLICT. kill -9 loses no session; the index is rebuilt
 * after one. After power loss both begin empty (embedded_guard.h says why). Damaged files are moved aside and logged.
 *
 * Threads: any. Ownership: options are copied, log is borrowed until close. Errors: as session_store.h.
 */
#ifndef BLOBD_BACKENDS_EMBEDDED_EMBEDDED_SESSIONS_H
#define BLOBD_BACKENDS_EMBEDDED_EMBEDDED_SESSIONS_H

#include "core/session_store.h"

struct logger;

struct embedded_sessions_options {
    const char *path;   /* its directory exists */
    struct logger *log; /* may be NULL */
};

enum blob_status embedded_sessions_open(const struct embedded_sessions_options *opt, struct session_store **out,
                                        struct blob_error *err) BLOB_MUST_CHECK;

#endif
