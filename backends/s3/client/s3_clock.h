/*
 * s3_clock - how far the endpoint's clock is from ours, as its answers tell.
 *
 * Only successes count: an error page may come from anything on the way. A Date is kept beside the steady clock's time,
 * so that our own clock may step meanwhile. An endpoint is often several machines behind one name, and one of them may
 * be wrong: the median is what most say, the extremes tell whether all agree.
 *
 * Threads: any. Units: milliseconds; offsets are the endpoint's clock minus ours. Source: RFC 9110, 6.6.1 for Date.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_CLOCK_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_CLOCK_H

#include <pthread.h>
#include <stdint.h>

#define S3_CLOCK_SAMPLES  15
#define S3_CLOCK_KEEP_MS  (10 * 60 * 1000) /* how long an answer counts */
#define S3_CLOCK_LIMIT_MS (5 * 60 * 1000)  /* clocks that are farther apart do not agree */

struct s3_clock_sample {
    int64_t apart_ms; /* the endpoint's time minus the steady clock's */
    int64_t at_ms;    /* by the steady clock; 0: none */
};

struct s3_clock {
    pthread_mutex_t lock;
    struct s3_clock_sample seen[S3_CLOCK_SAMPLES];
    unsigned next;
    struct s3_clock_sample least, most; /* of what still counts */
};

struct s3_clock_view {
    unsigned samples; /* 0: nothing is known, and all offsets are 0 */
    int64_t median_ms, least_ms, most_ms;
};

void s3_clock_init(struct s3_clock *c);
void s3_clock_release(struct s3_clock *c);
/* A success whose Date is date_s, and whose head was read when the steady clock said at_ms. */
void s3_clock_see(struct s3_clock *c, int64_t date_s, int64_t at_ms);
/* Of the two extremes the one that is farther off. */
int64_t s3_clock_worst_ms(const struct s3_clock_view *view);
void s3_clock_look(struct s3_clock *c, int64_t steady_ms, int64_t wall_ms, struct s3_clock_view *out);

#endif
