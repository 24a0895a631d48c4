/*
 * timed_op - what the wrappers of both vtables do around every operation: it is counted and timed, and a test can make
 * it fail by arming the fault point of its name.
 *
 * Names are "<store>.<operation>"; what stands behind the dot is also the label in the metrics. They are indexed by the
 * caller's own enumeration, and live as long as the metrics do.
 *
 * Threads: any; a timed_op is its caller's.
 */
#ifndef BLOBD_CORE_TIMED_OP_H
#define BLOBD_CORE_TIMED_OP_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

struct metrics;
struct op_metrics;

struct op_metric_names {
    const char *seconds, *seconds_help;
    const char *errors, *errors_help;
    const char *denied, *denied_help; /* of all operations together: those that failed with DENIED; NULL: not counted */
};

struct timed_op {
    struct op_metrics *metrics;
    unsigned op;
    int64_t began_us;
};

/* A histogram and a counter for each of the names. */
struct op_metrics *op_metrics_new(struct metrics *metrics, const struct op_metric_names *kind, const char *const *names,
                                  size_t count);
void op_metrics_free(struct op_metrics *m); /* NULL is fine; the metrics themselves stay */

/* With metrics NULL nothing is counted. It fails only when a test armed name: the operation is skipped then, but
 * timed_op_end() is called all the same. */
enum blob_status timed_op_begin(struct timed_op *t, struct op_metrics *metrics, unsigned op, const char *name,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* Returns st, as it was given. NOT_FOUND, EXISTS and CONFLICT count as answers, not as errors. */
enum blob_status timed_op_end(const struct timed_op *t, enum blob_status st);

#endif
