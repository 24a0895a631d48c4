/* clock - thin over clock_gettime(2), so that units and clock ids are chosen in one place. */
#include "core/clock.h"

#include "core/check.h"

#include <time.h>

int64_t clock_wall_ms(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_REALTIME, &t) == 0);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t clock_wall_ms_after(int64_t last_ms)
{
    int64_t now_ms = clock_wall_ms();
    return now_ms > last_ms ? now_ms : last_ms + 1;
}

int64_t clock_wall_us(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_REALTIME, &t) == 0);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t clock_steady_us(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &t) == 0);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}
