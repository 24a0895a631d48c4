/*
 * node_clock - what time it is, on a node whose wall clock may be set, or be wrong.
 *
 * What decides on the age of something asks here, not the wall clock: a clock that is a day ahead, for a moment or for
 * hours, would make everything a day old. The wall clock is compared with the steady one. When it has moved by more
 * than CLOCK_STEP_MS at once, either way, the time from before goes on, by the steady clock, until the new one has
 * stood for the calm time, or has been set back to where it was. Meanwhile there are two times, and each question has
 * the answer that takes nothing from anybody:
 *
 *   node_clock_at_least_ms   the earlier of both: what ended before it has ended
 *   node_clock_at_most_ms    the later of both: lives are counted from it
 *   node_clock_best_ms       what is likely: the time from before, until the new one is believed
 *
 * Where the wall clock was set back for longer, node_clock_at_most_ms goes on with the time from before, by up to two
 * days. That time may come back, and then what was made meanwhile still has its whole life before it.
 *
 * While the two clocks are together, all three are the wall clock's. Another clock may have a say too (that of a
 * session store that nodes share): while it disagrees, the wall clock is not believed.
 *
 * Threads: any. Units: milliseconds since the epoch (UTC). Cannot fail. NULL stands for the wall clock itself.
 */
#ifndef BLOBD_CORE_NODE_CLOCK_H
#define BLOBD_CORE_NODE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

struct node_clock;

/* At first the wall clock is believed as it is. Another time must stand for calm_ms before it is believed. */
struct node_clock *node_clock_new(int64_t calm_ms);
void node_clock_free(struct node_clock *c); /* NULL is fine */

int64_t node_clock_at_least_ms(struct node_clock *c);
int64_t node_clock_at_most_ms(struct node_clock *c);
int64_t node_clock_best_ms(struct node_clock *c);

/* Can it be told now what is old? It can when the clocks have been together for the calm time. Then *now_ms is the time
 * of all. *step_ms (which may be NULL) tells once, after each step of the wall clock, by how much that was; else 0. */
bool node_clock_calm(struct node_clock *c, int64_t *now_ms, int64_t *step_ms);

/* By how much a time that was believed before is ahead of the one that is now: what was made in between is to end no
 * earlier than by that one. At most two days. */
int64_t node_clock_lead_ms(struct node_clock *c);
/* At start: it is known to be this late, or later, whatever the wall clock says; lead_ms as told before. */
void node_clock_start_at(struct node_clock *c, int64_t known_ms, int64_t lead_ms);
/* Another clock has been asked; the wall clock is ahead of it by so much. */
void node_clock_compare(struct node_clock *c, int64_t ahead_ms);

#endif
