/* timed_op - a histogram and a counter for every operation of a vtable. */
#include "core/timed_op.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/fault.h"
#include "core/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct one_op {
    struct metric *seconds, *errors;
};

struct op_metrics {
    size_t count;
    struct metric *denied; /* NULL: not counted */
    struct one_op ops[];
};

struct op_metrics *op_metrics_new(struct metrics *metrics, const struct op_metric_names *kind, const char *const *names,
                                  size_t count)
{
    struct op_metrics *m = calloc(1, sizeof *m + count * sizeof m->ops[0]);
    CHECK(m && metrics);
    m->count = count;
    if (kind->denied)
        m->denied = metrics_counter(metrics, kind->denied, kind->denied_help, NULL);
    for (size_t op = 0; op < count; op++) {
        char labels[64];
        snprintf(labels, sizeof labels, "op=\"%s\"", strchr(names[op], '.') + 1);
        m->ops[op].seconds = metrics_histogram(metrics, kind->seconds, kind->seconds_help, labels);
        m->ops[op].errors = metrics_counter(metrics, kind->errors, kind->errors_help, labels);
    }
    return m;
}

void op_metrics_free(struct op_metrics *m)
{
    free(m);
}

enum blob_status timed_op_begin(struct timed_op *t, struct op_metrics *metrics, unsigned op, const char *name,
                                struct blob_error *err)
{
    CHECK(!metrics || op < metrics->count);
    *t = (struct timed_op){.metrics = metrics, .op = op, .began_us = metrics ? clock_steady_us() : 0};
    int fault = FAULT_POINT(name);
    return fault ? blob_fail(err, blob_status_from_errno(fault), fault, "%s", name) : BLOB_OK;
}

enum blob_status timed_op_end(const struct timed_op *t, enum blob_status st)
{
    if (!t->metrics)
        return st;
    metric_observe_us(t->metrics->ops[t->op].seconds, clock_steady_us() - t->began_us);
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND && st != BLOB_E_EXISTS && st != BLOB_E_CONFLICT)
        metric_add(t->metrics->ops[t->op].errors, 1);
    if (st == BLOB_E_DENIED && t->metrics->denied)
        metric_add(t->metrics->denied, 1);
    return st;
}
