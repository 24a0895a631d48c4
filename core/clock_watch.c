/* clock_watch - the difference of the two clocks, which stays while neither is set. */
#include "core/clock_watch.h"

#include "core/clock.h"

static bool is_step(int64_t us)
{
    return us > CLOCK_STEP_MS * INT64_C(1000) || us < -CLOCK_STEP_MS * INT64_C(1000);
}

void clock_watch_begin(struct clock_watch *w)
{
    *w = (struct clock_watch){.offset_us = clock_wall_offset_us(), .steady_since_us = clock_steady_us()};
}

bool clock_watch_look(struct clock_watch *w, int64_t *step_ms)
{
    int64_t now_us = clock_wall_offset_us(), step_us = now_us - w->offset_us;
    w->offset_us = now_us;
    if (!is_step(step_us))
        return false;
    w->steady_since_us = clock_steady_us();
    *step_ms = step_us / 1000;
    return true;
}

bool clock_watch_stepped(const struct clock_watch *w)
{
    return is_step(clock_wall_offset_us() - w->offset_us);
}

int64_t clock_watch_steady_ms(const struct clock_watch *w)
{
    return (clock_steady_us() - w->steady_since_us) / 1000;
}
