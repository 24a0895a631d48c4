/* s3_clock - a ring of the last answers for the median, and the two extremes, which no crowd of good answers hides. */
#include "backends/s3/client/s3_clock.h"

#include "core/check.h"

#include <stdbool.h>
#include <stdlib.h>

void s3_clock_init(struct s3_clock *c)
{
    *c = (struct s3_clock){.next = 0};
    CHECK(pthread_mutex_init(&c->lock, NULL) == 0);
}

void s3_clock_release(struct s3_clock *c)
{
    pthread_mutex_destroy(&c->lock);
}

static bool counts(const struct s3_clock_sample *s, int64_t now_ms)
{
    return s->at_ms != 0 && now_ms - s->at_ms <= S3_CLOCK_KEEP_MS;
}

void s3_clock_see(struct s3_clock *c, int64_t date_s, int64_t at_ms)
{
    /* Date has whole seconds: half of one is the best guess. */
    const struct s3_clock_sample s = {.apart_ms = date_s * 1000 + 500 - at_ms, .at_ms = at_ms};
    pthread_mutex_lock(&c->lock);
    c->seen[c->next] = s;
    c->next = (c->next + 1) % S3_CLOCK_SAMPLES;
    if (!counts(&c->least, at_ms) || s.apart_ms <= c->least.apart_ms)
        c->least = s;
    if (!counts(&c->most, at_ms) || s.apart_ms >= c->most.apart_ms)
        c->most = s;
    pthread_mutex_unlock(&c->lock);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

void s3_clock_look(struct s3_clock *c, int64_t steady_ms, int64_t wall_ms, struct s3_clock_view *out)
{
    int64_t apart[S3_CLOCK_SAMPLES];
    unsigned count = 0;
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < S3_CLOCK_SAMPLES; i++) {
        if (counts(&c->seen[i], steady_ms))
            apart[count++] = c->seen[i].apart_ms + steady_ms - wall_ms;
    }
    *out = (struct s3_clock_view){.samples = count};
    if (count > 0) {
        qsort(apart, count, sizeof apart[0], by_value);
        out->median_ms = apart[count / 2];
        out->least_ms = counts(&c->least, steady_ms) ? c->least.apart_ms + steady_ms - wall_ms : apart[0];
        out->most_ms = counts(&c->most, steady_ms) ? c->most.apart_ms + steady_ms - wall_ms : apart[count - 1];
    }
    pthread_mutex_unlock(&c->lock);
}

int64_t s3_clock_worst_ms(const struct s3_clock_view *view)
{
    return view->most_ms > -view->least_ms ? view->most_ms : view->least_ms;
}
