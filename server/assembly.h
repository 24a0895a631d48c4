/*
 * assembly - the server put together from settings and two opened stores: pool, catalog, cache, uploads, janitor, auth,
 * and the two listeners; and the order in which all that starts and stops.
 *
 * Threads: from main's thread only. Ownership: borrows what it is given until assembly_free(). Errors: one line in err,
 * fit for the operator.
 */
#ifndef BLOBD_SERVER_ASSEMBLY_H
#define BLOBD_SERVER_ASSEMBLY_H

#include "core/blob_store.h"
#include "core/session_store.h"

struct assembly;
struct config;
struct logger;
struct metrics;

enum blob_status assembly_new(const struct config *cfg, struct blob_store *store, struct session_store *sessions,
                              struct logger *log, struct metrics *metrics, struct assembly **out,
                              struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status assembly_start(struct assembly *a, struct blob_error *err) BLOB_MUST_CHECK;
/* HUP: what fresh says that need not wait for a restart, and certificate, key and tokens again, from where fresh says
 * they are (NULL, where it could not be read: from where they were). What fails is logged and stays as it was: false.
 */
bool assembly_reload(struct assembly *a, const struct config *fresh);
/*
 * TERM: /readyz fails, delay_ms later the listener closes, requests in flight end; what has not ended by timeout_ms is
 * cut, uploads so that they keep what arrived. False: something still runs, and must not be freed: leave by exit.
 */
bool assembly_drain(struct assembly *a, int64_t delay_ms, int64_t timeout_ms);
/* Drained, or never started. NULL is fine. */
void assembly_free(struct assembly *a);

#endif
