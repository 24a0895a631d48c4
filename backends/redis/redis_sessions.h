/*
 * redis_sessions - the session contract in Redis 7, for a cluster of nodes.
 *
 * Keys, behind a prefix: s:{<uuid>} one string a session, with a TTL; nodes, lease:<name>; index:{files}:… the file
 * index; a channel for take-overs. docs/sessions.md lists them and the ACL they need.
 *
 * When Redis is away every operation answers UNAVAILABLE: those under way within the time-outs, the others at once. A
 * thread of the store tries again, with back-off, and the store recovers by itself; with sentinels it follows the
 * master. Open needs no Redis; join does, but after UNAVAILABLE it is repeated in the background, and nothing else is
 * answered until it went well.
 *
 * Threads: any. Ownership: options are copied, log is borrowed until close. The process must ignore SIGPIPE.
 * Errors: as session_store.h; open: INVALID with a text that names the setting.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_SESSIONS_H
#define BLOBD_BACKENDS_REDIS_REDIS_SESSIONS_H

#include "backends/redis/redis_options.h"
#include "core/session_store.h"

enum blob_status redis_sessions_open(const struct redis_sessions_options *opt, struct session_store **out,
                                     struct blob_error *err) BLOB_MUST_CHECK;

#endif
