/*
 * clock_record - what time it was, kept in the blob store as the record clock/last, for the next start.
 *
 * A process that is started while the wall clock is wrong cannot tell that by itself. But it can read at what time a
 * process ran here before: now is later than that. If the machine has not been started again since, its boot clock
 * tells how much later. The record is written at each sweep, which costs nothing to speak of, so it is ten minutes old
 * at most.
 *
 * Threads: any. Errors: as the store's; CORRUPT.
 */
#ifndef BLOBD_CORE_CLOCK_RECORD_H
#define BLOBD_CORE_CLOCK_RECORD_H

#include "core/blob_store.h"

struct logger;
struct node_clock;

struct clock_known {
    int64_t now_ms;  /* it is this time, or later */
    bool exact;      /* it is this time, unless the clock was wrong when it was kept */
    int64_t lead_ms; /* node_clock_lead_ms() as it was then */
};

/* now_ms: by a clock that is believed; lead_ms: of the same. */
enum blob_status clock_record_keep(struct blob_store *store, int64_t now_ms, int64_t lead_ms,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* NOT_FOUND: nothing is known. */
enum blob_status clock_record_recall(struct blob_store *store, struct clock_known *out,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* Called at start, before the clock is asked. Takes over what is known, and logs if the wall clock says otherwise. */
void clock_record_start(struct blob_store *store, struct node_clock *clock, struct logger *log);

#endif
