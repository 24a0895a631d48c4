/* memory_sessions - the reference: it passes the contract alone and shared, and its hub fails as a test asks it to. */
#include "backends/memory/memory_sessions.h"

#include "core/clock.h"
#include "tests/contract/session_store_contract.h"
#include "tests/rig/unit_main.h"

#include <string.h>

/* The hub of the test that runs; made anew by every reset. */
static struct memory_hub *hub;

static void no_reset(void)
{
}

static enum blob_status open_alone(struct session_store **out, struct blob_error *err)
{
    (void)err;
    *out = memory_sessions_open(NULL);
    return BLOB_OK;
}

static void reset_hub(void)
{
    if (hub)
        memory_hub_free(hub);
    hub = memory_hub_new();
}

static enum blob_status open_shared(struct session_store **out, struct blob_error *err)
{
    (void)err;
    *out = memory_sessions_open(hub);
    return BLOB_OK;
}

static int use_alone(void)
{
    static const struct session_contract contract = {.name = "memory alone", .reset = no_reset, .open = open_alone};
    session_contract_use(&contract);
    return 0;
}

static int use_shared(void)
{
    static const struct session_contract contract = {
        .name = "memory shared", .reset = reset_hub, .open = open_shared, .persists = true};
    session_contract_use(&contract);
    return 0;
}

static int drop_hub(void)
{
    if (hub)
        memory_hub_free(hub);
    hub = NULL;
    return 0;
}

static void test_hub_failures(void)
{
    reset_hub();
    struct session_store *s = memory_sessions_open(hub);
    struct uuid id;
    struct bytebuf b;
    uint64_t epoch = 0;
    int64_t later = clock_wall_ms() + 60000;
    uuid_new(&id);
    bytebuf_init(&b);
    CU_ASSERT_FALSE(memory_hub_roll_back(hub, &id));
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, later, NULL), BLOB_OK);
    CU_ASSERT_FALSE(memory_hub_roll_back(hub, &id));
    CU_ASSERT_EQUAL(session_replace(s, &id, 1, 2, "b", 1, later, NULL), BLOB_OK);
    memory_hub_set_down(hub, true);
    CU_ASSERT_EQUAL(session_load(s, &id, &b, &epoch, NULL), BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(session_store_check(s, NULL), BLOB_E_UNAVAILABLE);
    memory_hub_set_down(hub, false);
    CU_ASSERT_TRUE(memory_hub_roll_back(hub, &id));
    CU_ASSERT_EQUAL(session_load(s, &id, &b, &epoch, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(epoch, 1);
    CU_ASSERT_STRING_EQUAL(b.data, "a");
    memory_hub_empty(hub);
    CU_ASSERT_EQUAL(session_load(s, &id, &b, &epoch, NULL), BLOB_E_NOT_FOUND);
    bytebuf_release(&b);
    session_store_close(s);
}

int main(void)
{
    CU_TestInfo own[] = {{"the hub goes down, rolls back and empties when told", test_hub_failures}, CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"memory sessions alone", use_alone, NULL, NULL, NULL, session_contract_tests()},
                             {"memory sessions shared", use_shared, drop_hub, NULL, NULL, session_contract_tests()},
                             {"memory hub", NULL, drop_hub, NULL, NULL, own},
                             CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
