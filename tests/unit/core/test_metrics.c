/* metrics - what Prometheus will read. */
#include "core/metrics.h"
#include "core/text/bytebuf.h"
#include "tests/rig/unit_main.h"

#include <pthread.h>
#include <string.h>

static int64_t read_answer(void *arg)
{
    return *(int64_t *)arg;
}

static void test_render(void)
{
    int64_t answer = 42;
    struct metrics *m = metrics_new();
    struct metric *get = metrics_counter(m, "blobd_requests_total", "Requests.", "method=\"GET\"");
    struct metric *queue = metrics_gauge(m, "blobd_queue", "Waiting jobs.", NULL);
    struct metric *post = metrics_counter(m, "blobd_requests_total", "Requests.", "method=\"POST\"");
    metrics_gauge_fn(m, "blobd_answer", "Asked when rendered.", NULL, read_answer, &answer);
    metric_add(get, 2);
    metric_add(post, 5);
    metric_set(queue, 9);
    metric_add(queue, -10);
    struct bytebuf out;
    bytebuf_init(&out);
    metrics_render(m, &out);
    CU_ASSERT_STRING_EQUAL(out.data, "# HELP blobd_requests_total Requests.\n# TYPE blobd_requests_total counter\n"
                                     "blobd_requests_total{method=\"GET\"} 2\nblobd_requests_total{method=\"POST\"} 5\n"
                                     "# HELP blobd_queue Waiting jobs.\n# TYPE blobd_queue gauge\nblobd_queue -1\n"
                                     "# HELP blobd_answer Asked when rendered.\n# TYPE blobd_answer gauge\n"
                                     "blobd_answer 42\n");
    bytebuf_release(&out);
    metrics_free(m);
}

static void test_histogram(void)
{
    struct metrics *m = metrics_new();
    struct metric *h = metrics_histogram(m, "blobd_seconds", "Time.", "op=\"put\"");
    metric_observe_us(h, 100);      /* on a bound: inside it */
    metric_observe_us(h, 101);      /* the next */
    metric_observe_us(h, 90000000); /* above all */
    struct bytebuf out;
    bytebuf_init(&out);
    metrics_render(m, &out);
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nblobd_seconds_bucket{op=\"put\",le=\"0.0001\"} 1\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nblobd_seconds_bucket{op=\"put\",le=\"0.00025\"} 2\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nblobd_seconds_bucket{op=\"put\",le=\"60\"} 2\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nblobd_seconds_bucket{op=\"put\",le=\"+Inf\"} 3\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nblobd_seconds_sum{op=\"put\"} 90.000201\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nblobd_seconds_count{op=\"put\"} 3\n"));
    CU_ASSERT_EQUAL(metric_value(h), 3);
    bytebuf_release(&out);
    metrics_free(m);
}

static void test_same_again(void)
{
    struct metrics *m = metrics_new();
    struct metric *a = metrics_counter(m, "blobd_a", "A.", "x=\"1\"");
    CU_ASSERT_PTR_EQUAL(metrics_counter(m, "blobd_a", "A.", "x=\"1\""), a);
    CU_ASSERT_PTR_NOT_EQUAL(metrics_counter(m, "blobd_a", "A.", "x=\"2\""), a);
    metric_add(NULL, 1);
    metric_set(NULL, 1);
    metric_observe_us(NULL, 1);
    CU_ASSERT_EQUAL(metric_value(NULL), 0);
    metrics_free(m);
    metrics_free(NULL);
}

#define THREADS 4
#define ROUNDS  10000

static void *add_many(void *metric)
{
    for (int i = 0; i < ROUNDS; i++)
        metric_add(metric, 1);
    return NULL;
}

static void test_threads(void)
{
    struct metrics *m = metrics_new();
    struct metric *counter = metrics_counter(m, "blobd_c", "C.", NULL);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, add_many, counter), 0);
    struct bytebuf out;
    bytebuf_init(&out);
    metrics_render(m, &out);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_EQUAL(metric_value(counter), THREADS * ROUNDS);
    bytebuf_release(&out);
    metrics_free(m);
}

int main(void)
{
    CU_TestInfo tests[] = {{"counters and gauges are rendered by family", test_render},
                           {"histograms are cumulative, in seconds", test_histogram},
                           {"the same name and labels are the same instrument", test_same_again},
                           {"no addition is lost between threads", test_threads},
                           CU_TEST_INFO_NULL};
    return unit_main("metrics", tests);
}
