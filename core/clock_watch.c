/* clock_watch - the difference of the two clocks, which stays while neither is set. */
#include "core/clock_watch.h"

#include "core/clock.h"

#define READ_TRIES  10
#define READ_MAX_US 100000

/* Both are read at one moment: not with a pause of the thread's in between. */
static int64_t offset_us(void)
{
    int64_t before_us, wall_us;
    int tries = 0;
    do {
        before_us = clock_steady_us();
        wall_us = clock_wall_us();
    } while (clock_steady_us() - before_us > READ_MAX_US && ++tries < READ_TRIES);
    return wall_us - before_us;
}

static bool is_step(int64_t us)
{
    return us > CLOCK_STEP_MS * INT64_C(1000) || us < -CLOCK_STEP_MS * INT64_C(1000);
}

void clock_watch_begin(struct clock_watch *w)
{
    *w = (struct clock_watch){.offset_us = offset_us(), .steady_since_us = clock_steady_us()};
}

bool clock_watch_look(struct clock_watch *w, int64_t *step_ms)
{
    int64_t now_us = offset_us(), step_us = now_us - w->offset_us;
    w->offset_us = now_us;
    if (!is_step(step_us))
        return false;
    w->steady_since_us = clock_steady_us();
    *step_ms = step_us / 1000;
    return true;
}

bool clock_watch_stepped(const struct clock_watch *w)
{
    return is_step(offset_us() - w->offset_us);
}

int64_t clock_watch_steady_ms(const struct clock_watch *w)
{
    return (clock_steady_us() - w->steady_since_us) / 1000;
}
