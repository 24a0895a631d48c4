/*
 * node_clock - each clock as its difference to the steady one, which stays while it is not set.
 *
 * seen is the wall clock's as it was last looked at; believed is that of the time that goes on; latest the greatest
 * that was believed, within bounds. believed <= latest. While `together` is set, believed and seen are the same, and a
 * look that finds the wall clock where it was takes no lock.
 */
#include "core/node_clock.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/clock_watch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define DRIFT_US       50000 /* a wall clock that is slewed by this much is looked at again */
#define LATEST_LEAD_US (INT64_C(2) * 24 * 3600 * 1000000)
#define COMPARED_US    (INT64_C(60) * 1000000) /* for how long another clock's word counts */
#define APART_MS       5000                    /* nodes do not start whose clocks differ by more */

struct node_clock {
    int64_t calm_us;
    pthread_mutex_t lock; /* guards all changes, and what is not atomic */
    atomic_bool together;
    _Atomic int64_t seen_us, believed_us, latest_us;
    int64_t steady_since_us, step_us;
    int64_t compared_us; /* with another clock; 0: never */
    bool apart;          /* they disagreed then */
};

static int64_t distance(int64_t a, int64_t b)
{
    return a > b ? a - b : b - a;
}

static bool is_step(int64_t us)
{
    return us > CLOCK_STEP_MS * INT64_C(1000) || us < -CLOCK_STEP_MS * INT64_C(1000);
}

/* With the lock held. The wall clock is believed from now on. */
static void believe(struct node_clock *c, int64_t offset_us)
{
    int64_t latest_us = atomic_load(&c->latest_us);
    if (offset_us > latest_us - CLOCK_STEP_MS * 1000 || offset_us < latest_us - LATEST_LEAD_US)
        atomic_store(&c->latest_us, offset_us);
    atomic_store(&c->believed_us, offset_us);
    atomic_store(&c->together, true);
}

/* With the lock held. Where another clock is asked now and then, it has been asked since the last step. */
static bool is_calm(const struct node_clock *c, int64_t now_us)
{
    bool asked = c->compared_us != 0 && now_us - c->compared_us < COMPARED_US;
    return now_us - c->steady_since_us >= c->calm_us && !(asked && (c->apart || c->compared_us < c->steady_since_us));
}

/* With the lock held. Gives the wall clock as it is seen now. */
static int64_t note(struct node_clock *c)
{
    int64_t offset_us = clock_wall_offset_us(), now_us = clock_steady_us();
    int64_t step_us = offset_us - atomic_load(&c->seen_us);
    atomic_store(&c->seen_us, offset_us);
    if (is_step(step_us)) {
        c->step_us += step_us;
        c->steady_since_us = now_us;
        atomic_store(&c->together, false);
    }
    if (atomic_load(&c->together) || !is_step(offset_us - atomic_load(&c->believed_us)) || is_calm(c, now_us))
        believe(c, offset_us);
    return offset_us;
}

/* The wall clock as it is seen now, and the one that is believed. */
static int64_t look(struct node_clock *c, int64_t *believed_us)
{
    int64_t offset_us = clock_wall_offset_us();
    *believed_us = offset_us;
    if (atomic_load(&c->together) && distance(offset_us, atomic_load(&c->seen_us)) < DRIFT_US)
        return offset_us;
    pthread_mutex_lock(&c->lock);
    offset_us = note(c);
    *believed_us = atomic_load(&c->believed_us);
    pthread_mutex_unlock(&c->lock);
    return offset_us;
}

struct node_clock *node_clock_new(int64_t calm_ms)
{
    struct node_clock *c = calloc(1, sizeof *c);
    CHECK(c && calm_ms > 0);
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0);
    int64_t offset_us = clock_wall_offset_us();
    c->calm_us = calm_ms * 1000;
    c->steady_since_us = clock_steady_us();
    atomic_init(&c->together, true);
    atomic_init(&c->seen_us, offset_us);
    atomic_init(&c->believed_us, offset_us);
    atomic_init(&c->latest_us, offset_us);
    return c;
}

void node_clock_free(struct node_clock *c)
{
    if (!c)
        return;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static int64_t at_ms(int64_t offset_us)
{
    return (clock_steady_us() + offset_us) / 1000;
}

int64_t node_clock_at_least_ms(struct node_clock *c)
{
    int64_t believed_us;
    if (!c)
        return clock_wall_ms();
    int64_t wall_us = look(c, &believed_us);
    return at_ms(wall_us < believed_us ? wall_us : believed_us);
}

int64_t node_clock_at_most_ms(struct node_clock *c)
{
    int64_t believed_us;
    if (!c)
        return clock_wall_ms();
    int64_t wall_us = look(c, &believed_us), latest_us = atomic_load(&c->latest_us);
    return at_ms(wall_us > latest_us ? wall_us : latest_us);
}

int64_t node_clock_best_ms(struct node_clock *c)
{
    int64_t believed_us;
    if (!c)
        return clock_wall_ms();
    look(c, &believed_us);
    return at_ms(believed_us);
}

bool node_clock_calm(struct node_clock *c, int64_t *now_ms, int64_t *step_ms)
{
    pthread_mutex_lock(&c->lock);
    *now_ms = clock_wall_ms();
    note(c); /* after it was read: a step in between is seen */
    int64_t now_us = clock_steady_us();
    bool calm = atomic_load(&c->together) && is_calm(c, now_us);
    if (step_ms) {
        *step_ms = c->step_us / 1000;
        c->step_us = 0;
    }
    pthread_mutex_unlock(&c->lock);
    return calm;
}

int64_t node_clock_lead_ms(struct node_clock *c)
{
    return (atomic_load(&c->latest_us) - atomic_load(&c->believed_us)) / 1000;
}

void node_clock_start_at(struct node_clock *c, int64_t known_ms, int64_t lead_ms)
{
    pthread_mutex_lock(&c->lock);
    c->steady_since_us = clock_steady_us();
    int64_t known_us = known_ms * 1000 - c->steady_since_us;
    atomic_store(&c->believed_us, known_us);
    atomic_store(&c->latest_us, known_us + lead_ms * 1000);
    atomic_store(&c->together, false);
    note(c);
    pthread_mutex_unlock(&c->lock);
}

void node_clock_compare(struct node_clock *c, int64_t ahead_ms)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->compared_us = clock_steady_us();
    c->apart = ahead_ms > APART_MS || ahead_ms < -APART_MS;
    pthread_mutex_unlock(&c->lock);
}
