/*
 * metrics - families in order of registration, instruments in each; plain lists, since rendering walks them all and
 * looking up happens at start only.
 *
 * After registration the lists do not change, so updates and rendering need no lock: an instrument is an array of
 * atomics on a cache line of its own. A scrape sees each value whole, not all of one instant; a histogram's count is
 * summed from its buckets, so that it agrees with them.
 */
#include "core/metrics.h"

#include "core/check.h"
#include "core/text/bytebuf.h"

#include <inttypes.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

static const char *const kind_names[] = {
    [METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};

static const struct {
    int64_t us;
    const char *seconds;
} bucket_bounds[] = {{100, "0.0001"},  {250, "0.00025"}, {500, "0.0005"},  {1000, "0.001"},  {2500, "0.0025"},
                     {5000, "0.005"},  {10000, "0.01"},  {25000, "0.025"}, {50000, "0.05"},  {100000, "0.1"},
                     {250000, "0.25"}, {500000, "0.5"},  {1000000, "1"},   {2500000, "2.5"}, {5000000, "5"},
                     {10000000, "10"}, {30000000, "30"}, {60000000, "60"}};

#define BUCKETS (sizeof bucket_bounds / sizeof bucket_bounds[0])

struct metric {
    alignas(64) atomic_int_fast64_t value; /* of a histogram: the sum in microseconds */
    atomic_int_fast64_t *buckets;          /* BUCKETS + 1, histograms only */
    char *labels;                          /* "" for none */
    int64_t (*read)(void *arg);
    void *arg;
    struct metric *next;
};

struct metric_family {
    enum metric_kind kind;
    char *name, *help;
    struct metric *first, **end;
    struct metric_family *next;
};

struct metrics {
    struct metric_family *first, **end;
};

static void *need(void *memory)
{
    CHECK(memory != NULL);
    return memory;
}

struct metrics *metrics_new(void)
{
    struct metrics *m = need(calloc(1, sizeof *m));
    m->end = &m->first;
    return m;
}

static void family_free(struct metric_family *family)
{
    while (family->first) {
        struct metric *metric = family->first;
        family->first = metric->next;
        free(metric->buckets);
        free(metric->labels);
        free(metric);
    }
    free(family->name);
    free(family->help);
    free(family);
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    while (m->first) {
        struct metric_family *family = m->first;
        m->first = family->next;
        family_free(family);
    }
    free(m);
}

static struct metric_family *metrics_family(struct metrics *m, enum metric_kind kind, const char *name,
                                            const char *help)
{
    for (struct metric_family *family = m->first; family; family = family->next) {
        if (strcmp(family->name, name) != 0)
            continue;
        CHECK(family->kind == kind);
        return family;
    }
    struct metric_family *family = need(calloc(1, sizeof *family));
    family->kind = kind;
    family->name = need(strdup(name));
    family->help = need(strdup(help));
    family->end = &family->first;
    *m->end = family;
    m->end = &family->next;
    return family;
}

static struct metric *metrics_register(struct metrics *m, enum metric_kind kind, const char *name, const char *help,
                                       const char *labels)
{
    struct metric_family *family = metrics_family(m, kind, name, help);
    for (struct metric *metric = family->first; metric; metric = metric->next)
        if (strcmp(metric->labels, labels ? labels : "") == 0)
            return metric;
    struct metric *metric = need(aligned_alloc(alignof(struct metric), sizeof *metric));
    *metric = (struct metric){.labels = need(strdup(labels ? labels : ""))};
    if (kind == METRIC_HISTOGRAM)
        metric->buckets = need(calloc(BUCKETS + 1, sizeof *metric->buckets));
    *family->end = metric;
    family->end = &metric->next;
    return metric;
}

struct metric *metrics_counter(struct metrics *m, const char *name, const char *help, const char *labels)
{
    return metrics_register(m, METRIC_COUNTER, name, help, labels);
}

struct metric *metrics_gauge(struct metrics *m, const char *name, const char *help, const char *labels)
{
    return metrics_register(m, METRIC_GAUGE, name, help, labels);
}

struct metric *metrics_histogram(struct metrics *m, const char *name, const char *help, const char *labels)
{
    return metrics_register(m, METRIC_HISTOGRAM, name, help, labels);
}

void metrics_gauge_fn(struct metrics *m, const char *name, const char *help, const char *labels,
                      int64_t (*read)(void *arg), void *arg)
{
    struct metric *metric = metrics_register(m, METRIC_GAUGE, name, help, labels);
    CHECK(metric->read == NULL);
    metric->read = read;
    metric->arg = arg;
}

void metric_add(struct metric *metric, int64_t n)
{
    if (metric)
        atomic_fetch_add_explicit(&metric->value, n, memory_order_relaxed);
}

void metric_set(struct metric *metric, int64_t value)
{
    if (metric)
        atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}

void metric_observe_us(struct metric *metric, int64_t microseconds)
{
    if (!metric)
        return;
    CHECK(metric->buckets != NULL);
    size_t i = 0;
    while (i < BUCKETS && microseconds > bucket_bounds[i].us)
        i++;
    atomic_fetch_add_explicit(&metric->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&metric->value, microseconds, memory_order_relaxed);
}

static int64_t bucket_value(const struct metric *metric, size_t i)
{
    return atomic_load_explicit(&metric->buckets[i], memory_order_relaxed);
}

int64_t metric_value(const struct metric *metric)
{
    if (!metric)
        return 0;
    if (metric->read)
        return metric->read(metric->arg);
    if (!metric->buckets)
        return atomic_load_explicit(&metric->value, memory_order_relaxed);
    int64_t count = 0;
    for (size_t i = 0; i <= BUCKETS; i++)
        count += bucket_value(metric, i);
    return count;
}

/* name, suffix and the label set, ready for the value. le may be NULL. */
static void render_series(struct bytebuf *out, const struct metric_family *family, const struct metric *metric,
                          const char *suffix, const char *le)
{
    const char *labels = metric->labels;
    bytebuf_printf(out, "%s%s", family->name, suffix);
    if (le)
        bytebuf_printf(out, "{%s%sle=\"%s\"}", labels, *labels ? "," : "", le);
    else if (*labels)
        bytebuf_printf(out, "{%s}", labels);
    bytebuf_text(out, " ");
}

static void render_histogram(struct bytebuf *out, const struct metric_family *family, const struct metric *metric)
{
    int64_t count = 0;
    for (size_t i = 0; i <= BUCKETS; i++) {
        count += bucket_value(metric, i);
        render_series(out, family, metric, "_bucket", i < BUCKETS ? bucket_bounds[i].seconds : "+Inf");
        bytebuf_printf(out, "%" PRId64 "\n", count);
    }
    int64_t sum_us = atomic_load_explicit(&metric->value, memory_order_relaxed);
    render_series(out, family, metric, "_sum", NULL);
    bytebuf_printf(out, "%" PRId64 ".%06" PRId64 "\n", sum_us / 1000000, sum_us % 1000000);
    render_series(out, family, metric, "_count", NULL);
    bytebuf_printf(out, "%" PRId64 "\n", count);
}

void metrics_render(const struct metrics *m, struct bytebuf *out)
{
    for (const struct metric_family *family = m->first; family; family = family->next) {
        bytebuf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name,
                       kind_names[family->kind]);
        for (const struct metric *metric = family->first; metric; metric = metric->next) {
            if (family->kind == METRIC_HISTOGRAM) {
                render_histogram(out, family, metric);
                continue;
            }
            render_series(out, family, metric, "", NULL);
            bytebuf_printf(out, "%" PRId64 "\n", metric_value(metric));
        }
    }
}
