/*
 * registry - the one list of backends: which implementation each setting names, and how it is opened from the settings.
 *
 * Threads: from main's thread only. Ownership: config is borrowed until return, log until the store is closed; the
 * caller closes what is opened. Errors: the backend's, with a text for the operator; UNSUPPORTED: not in this build.
 */
#ifndef BLOBD_BACKENDS_REGISTRY_H
#define BLOBD_BACKENDS_REGISTRY_H

#include "core/blob_store.h"
#include "core/session_store.h"

struct config;
struct logger;

/* As storage.backend says. */
/* to_check: although it may lack what it needs, for blob_store_self_check(). */
enum blob_status registry_open_store(const struct config *cfg, bool to_check, struct logger *log,
                                     struct blob_store **out, struct blob_error *err) BLOB_MUST_CHECK;
/* As sessions.store says; after the blob store, under whose root the embedded one is by default. */
enum blob_status registry_open_sessions(const struct config *cfg, struct logger *log, struct session_store **out,
                                        struct blob_error *err) BLOB_MUST_CHECK;

#endif
