/* http_pool - a request that waits for memory is told when there is some, however the moments fall. */
#include "server/http/http_internal.h"
#include "server/http/http_pool.h"
#include "server/http/loop_bridge.h"
#include "tests/rig/unit_main.h"

#include <event2/event.h>

#define ONE_PIECE (16u << 10)

static struct event_base *base;
static struct http_loop loop;
static struct http_pool *pool;
static struct http_flow *flow;
static struct http_piece *held;
static unsigned resumed;
static bool give_back_within;

/* Takes one piece, and waits for another; a worker may give the first one back at any moment after that. */
static void take_and_wait(void)
{
    struct http_piece *piece;
    CU_ASSERT_FATAL(http_flow_take(flow, ONE_PIECE, &held));
    CU_ASSERT_FALSE_FATAL(http_flow_take(flow, ONE_PIECE, &piece));
}

static void give_back(void)
{
    http_pool_give(pool, held);
    held = NULL;
}

static void on_resume(void *arg)
{
    (void)arg;
    resumed++;
    take_and_wait();
    if (give_back_within)
        give_back();
    give_back_within = false;
}

static void set_up(size_t pool_bytes, size_t flow_bytes)
{
    resumed = 0;
    base = event_base_new();
    CU_ASSERT_EQUAL_FATAL(loop_bridge_new(base, &loop.bridge, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(http_pool_new(pool_bytes, &pool, NULL), BLOB_OK);
    flow = http_flow_new(pool, &loop, flow_bytes, on_resume, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(flow);
}

static void tear_down(void)
{
    if (held != NULL)
        give_back();
    loop_bridge_run(loop.bridge);
    if (held != NULL)
        give_back();
    http_flow_end(flow);
    loop_bridge_run(loop.bridge);
    http_pool_free(pool);
    loop_bridge_free(loop.bridge);
    event_base_free(base);
}

static void expect_resumes(void)
{
    take_and_wait();
    loop_bridge_run(loop.bridge);
    CU_ASSERT_EQUAL(resumed, 0);
    give_back();
    loop_bridge_run(loop.bridge);
    CU_ASSERT_EQUAL(resumed, 1);
    give_back_within = true;
    give_back();
    loop_bridge_run(loop.bridge);
    CU_ASSERT_EQUAL(resumed, 2);
    loop_bridge_run(loop.bridge);
    CU_ASSERT_EQUAL(resumed, 3);
}

static void test_own_bound(void)
{
    set_up(16 * ONE_PIECE, ONE_PIECE);
    expect_resumes();
    tear_down();
}

static void test_pool_bound(void)
{
    set_up(ONE_PIECE, 16 * ONE_PIECE);
    expect_resumes();
    tear_down();
}

static void no_resume(void *arg)
{
    (void)arg;
}

/* What a flow may have besides, without waiting: within its own bound, and never past those who wait. */
static void test_take_free(void)
{
    enum { MIDDLES = 11 };
    struct http_piece *small[3], *middle[MIDDLES], *none = NULL;
    set_up(48 * ONE_PIECE, 3 * ONE_PIECE);
    struct http_flow *other = http_flow_new(pool, &loop, 64 * ONE_PIECE, no_resume, NULL);
    for (int i = 0; i < MIDDLES; i++)
        CU_ASSERT_FATAL(http_flow_take(other, 4 * ONE_PIECE, &middle[i]));
    CU_ASSERT_FATAL(http_flow_take(flow, ONE_PIECE, &small[0]));
    CU_ASSERT_FATAL(http_flow_take_free(flow, ONE_PIECE, &small[1]));
    CU_ASSERT_FATAL(http_flow_take_free(flow, ONE_PIECE, &small[2]));
    CU_ASSERT_FALSE(http_flow_take_free(flow, ONE_PIECE, &none)); /* its bound */
    http_pool_give(pool, small[2]);
    CU_ASSERT_FALSE(http_flow_take(other, 4 * ONE_PIECE, &none)); /* two small ones are free, and it waits for more */
    CU_ASSERT_FALSE(http_flow_take_free(flow, ONE_PIECE, &none));
    CU_ASSERT_PTR_NULL(none);
    http_pool_give(pool, small[0]);
    http_pool_give(pool, small[1]);
    while (loop_bridge_run(loop.bridge)) {}
    CU_ASSERT_EQUAL(resumed, 0); /* nothing was awaited */
    for (int i = 0; i < MIDDLES; i++)
        http_pool_give(pool, middle[i]);
    http_flow_end(other);
    tear_down();
}

/* Large pieces that one flow gets before it would have to wait. */
static size_t pieces_there(void)
{
    struct http_piece *pieces[64];
    size_t count = 0, given = 0;
    while (count < 64 && http_flow_take(flow, 256u << 10, &pieces[count]))
        count++;
    while (given < count)
        http_pool_give(pool, pieces[given++]);
    while (loop_bridge_run(loop.bridge)) {}
    return count;
}

static void test_many_flows(void)
{
    struct http_flow *others[1000];
    set_up(32 * (256u << 10), 64 * (256u << 10));
    http_flow_end(flow);
    flow = http_flow_new(pool, &loop, 64 * (256u << 10), no_resume, NULL);
    CU_ASSERT_EQUAL(pieces_there(), 32);
    for (size_t i = 0; i < 1000; i++) {
        others[i] = http_flow_new(pool, &loop, ONE_PIECE, no_resume, NULL);
        CU_ASSERT_PTR_NOT_NULL_FATAL(others[i]);
    }
    CU_ASSERT_EQUAL(pieces_there(), 16);
    for (size_t i = 0; i < 1000; i++)
        http_flow_end(others[i]);
    CU_ASSERT_EQUAL(pieces_there(), 32);
    tear_down();
}

int main(void)
{
    CU_TestInfo tests[] = {{"memory given back while a request resumes wakes it again: its own bound", test_own_bound},
                           {"memory given back while a request resumes wakes it again: the pool's", test_pool_bound},
                           {"what can be had without waiting is taken past nobody", test_take_free},
                           {"many open flows leave half of the pool for pieces", test_many_flows},
                           CU_TEST_INFO_NULL};
    return unit_main("http_pool", tests);
}
