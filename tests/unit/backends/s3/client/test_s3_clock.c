/* s3_clock - the median of what an endpoint's answers say, and how far any of them was off. */
#include "backends/s3/client/s3_clock.h"
#include "tests/rig/unit_main.h"

#define WALL_S INT64_C(1700000000)
#define HOUR_S 3600

/* The steady clock stands at steady_ms when the wall's is at WALL_S and a half. */
static struct s3_clock_view look(struct s3_clock *c, int64_t steady_ms, int64_t wall_moved_ms)
{
    struct s3_clock_view view;
    s3_clock_look(c, steady_ms, WALL_S * 1000 + 500 + wall_moved_ms, &view);
    return view;
}

static void test_nothing_is_known_before_an_answer(void)
{
    struct s3_clock c;
    s3_clock_init(&c);
    struct s3_clock_view view = look(&c, 1000, 0);
    CU_ASSERT_TRUE(view.samples == 0 && view.median_ms == 0 && s3_clock_worst_ms(&view) == 0);
    s3_clock_release(&c);
}

static void test_one_wrong_answer_moves_no_median_and_is_not_hidden(void)
{
    struct s3_clock c;
    s3_clock_init(&c);
    s3_clock_see(&c, WALL_S + 2 * HOUR_S, 1000);
    for (int i = 0; i < 40; i++) /* many more than are kept */
        s3_clock_see(&c, WALL_S + i % 2, 1000);
    struct s3_clock_view view = look(&c, 1000, 0);
    CU_ASSERT_EQUAL(view.samples, S3_CLOCK_SAMPLES);
    CU_ASSERT_TRUE(view.median_ms >= 0 && view.median_ms <= 1000);
    CU_ASSERT_EQUAL(s3_clock_worst_ms(&view), 2 * HOUR_S * 1000);
    s3_clock_see(&c, WALL_S - 3 * HOUR_S, 1000);
    view = look(&c, 1000, 0);
    CU_ASSERT_EQUAL(s3_clock_worst_ms(&view), -3 * HOUR_S * 1000);
    s3_clock_release(&c);
}

static void test_answers_are_forgotten(void)
{
    struct s3_clock c;
    s3_clock_init(&c);
    s3_clock_see(&c, WALL_S + 2 * HOUR_S, 1000);
    int64_t later_ms = 1000 + S3_CLOCK_KEEP_MS + 1000;
    s3_clock_see(&c, WALL_S, later_ms);
    struct s3_clock_view view = look(&c, later_ms, 0);
    CU_ASSERT_EQUAL(view.samples, 1);
    CU_ASSERT_EQUAL(s3_clock_worst_ms(&view), 0);
    view = look(&c, later_ms + S3_CLOCK_KEEP_MS + 1, 0);
    CU_ASSERT_EQUAL(view.samples, 0);
    s3_clock_release(&c);
}

static void test_own_clock_that_steps_is_seen_without_another_answer(void)
{
    struct s3_clock c;
    s3_clock_init(&c);
    s3_clock_see(&c, WALL_S, 1000);
    struct s3_clock_view view = look(&c, 2000, 1000);
    CU_ASSERT_EQUAL(view.median_ms, 0);
    view = look(&c, 2000, 1000 + 24 * HOUR_S * 1000);
    CU_ASSERT_EQUAL(view.median_ms, -24 * HOUR_S * 1000);
    CU_ASSERT_EQUAL(s3_clock_worst_ms(&view), -24 * HOUR_S * 1000);
    s3_clock_release(&c);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"nothing is known before an answer", test_nothing_is_known_before_an_answer},
        {"one wrong answer moves no median, and is not hidden",
         test_one_wrong_answer_moves_no_median_and_is_not_hidden},
        {"answers are forgotten after a while", test_answers_are_forgotten},
        {"a step of our own clock is seen at once", test_own_clock_that_steps_is_seen_without_another_answer},
        CU_TEST_INFO_NULL};
    return unit_main("s3_clock", tests);
}
