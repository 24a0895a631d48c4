/*
 * metrics - counters, gauges and histograms, written out in Prometheus' text format (version 0.0.4).
 *
 * A registry is made by main. Instruments are registered at start, by name (prefix "blobd_"), help text and up to
 * one fixed label pair set ("method=\"GET\""); updating one is an atomic add, without a lock.
 *
 * Threads: register from one thread before serving; update and render from any. Ownership: the registry owns the
 * instruments; names, help and labels are copied. Registering cannot fail but for memory (CHECK).
 */
#ifndef BLOBD_CORE_METRICS_H
#define BLOBD_CORE_METRICS_H

#include <stddef.h>
#include <stdint.h>

struct metrics;
struct metric;
struct bytebuf;

struct metrics *metrics_new(void);
void metrics_free(struct metrics *m);

/* labels may be NULL; the same name with other labels joins the same family. The same name and labels again gives
 * the same instrument. */
struct metric *metrics_counter(struct metrics *m, const char *name, const char *help, const char *labels);
struct metric *metrics_gauge(struct metrics *m, const char *name, const char *help, const char *labels);
/* Seconds, in fixed buckets from 100 µs to 60 s. */
struct metric *metrics_histogram(struct metrics *m, const char *name, const char *help, const char *labels);
/* A gauge that is asked when rendered; read must be callable from any thread until metrics_free(). */
void metrics_gauge_fn(struct metrics *m, const char *name, const char *help, const char *labels,
                      int64_t (*read)(void *arg), void *arg);

/* metric may be NULL: nothing happens, so that tests need no registry. */
void metric_add(struct metric *metric, int64_t n);
void metric_set(struct metric *metric, int64_t value);
void metric_observe_us(struct metric *metric, int64_t microseconds);
int64_t metric_value(const struct metric *metric);

void metrics_render(const struct metrics *m, struct bytebuf *out);

#endif
