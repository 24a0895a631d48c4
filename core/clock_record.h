/*
 * clock_record - what time it was, kept in the blob store as the record clock/last, for the next start.
 *
 * A process that is started while the wall clock is wrong cannot tell by itself. What it has is the time at which a
 * process has been before: it is later than that, and where the machine has not been started again since, its boot
 * clock tells how much later. Written at each sweep, so it costs nothing to speak of, and is ten minutes old at most.
 *
 * Threads: any. Errors: as the store's; CORRUPT.
 */
#ifndef BLOBD_CORE_CLOCK_RECORD_H
#define BLOBD_CORE_CLOCK_RECORD_H

#include "core/blob_store.h"

struct logger;
struct node_clock;

/* now_ms: by a clock that is believed. */
enum blob_status clock_record_keep(struct blob_store *store, int64_t now_ms, struct blob_error *err) BLOB_MUST_CHECK;
/* It is *known_ms or later; *exact: it is that, unless the clock was wrong then. NOT_FOUND: nothing is known. */
enum blob_status clock_record_recall(struct blob_store *store, int64_t *known_ms, bool *exact,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* At start, before the clock is asked: takes over what is known, and logs where the wall clock says something else. */
void clock_record_start(struct blob_store *store, struct node_clock *clock, struct logger *log);

#endif
