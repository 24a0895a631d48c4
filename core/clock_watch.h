/*
 * clock_watch - has the wall clock been set? It is compared with the steady one, look by look: between two looks both
 * must have gone on by the same. What is decided by the age of something (expiry, sweeping) asks here first, since a
 * clock that is a day ahead for a moment makes everything a day old.
 *
 * Threads: one at a time; clock_watch_stepped() also beside itself. Units: milliseconds. Cannot fail.
 */
#ifndef BLOBD_CORE_CLOCK_WATCH_H
#define BLOBD_CORE_CLOCK_WATCH_H

#include <stdbool.h>
#include <stdint.h>

/* A smaller change is no step: clocks are kept right by slewing them, or by setting them by a little. */
#define CLOCK_STEP_MS 1000

struct clock_watch {
    int64_t offset_us;       /* of the wall clock to the steady one, at the last look */
    int64_t steady_since_us; /* by the steady clock: no step has been seen since */
};

void clock_watch_begin(struct clock_watch *w);
/* Has the wall clock been set since the last look, either way? If so, *step_ms says by how much. */
bool clock_watch_look(struct clock_watch *w, int64_t *step_ms);
/* The same question, without taking note. */
bool clock_watch_stepped(const struct clock_watch *w);
/* For how long no step has been seen. */
int64_t clock_watch_steady_ms(const struct clock_watch *w);

#endif
