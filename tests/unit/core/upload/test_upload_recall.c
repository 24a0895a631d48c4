/*
 * upload - a node goes on from the session it stored last, without loading it, and nobody can tell: whatever has
 * happened to the upload elsewhere meanwhile, the answer is that of the session as it is stored.
 */
#include "tests/rig/upload_rig.h"

/* ---- two nodes, the loads of the first counted ---- */

static struct upload_rig u;
static struct session_store_ops counting;
static const struct session_store_ops *real;
static unsigned loads;

static enum blob_status count_load(struct session_store *s, const struct uuid *id, struct bytebuf *out, uint64_t *epoch,
                                   struct blob_error *err)
{
    loads++;
    return real->load(s, id, out, epoch, err);
}

static void open_nodes(void)
{
    upload_rig_open(&u, NULL, 2);
    real = u.base.sessions->ops;
    counting = *real;
    counting.load = count_load;
    u.base.sessions->ops = &counting;
    loads = 0;
}

static void close_nodes(void)
{
    u.base.sessions->ops = real;
    upload_rig_close(&u);
}

/* ---- the tests ---- */

static void test_no_loads(void)
{
    open_nodes();
    struct client c = client_new(&u);
    struct digest d = text_digest("one two three");
    CU_ASSERT_EQUAL(client_append(&c, NULL, "one "), API_OK);
    CU_ASSERT_EQUAL(append_at(&c, 4, "two "), API_OK);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, "three"), API_OK);
    CU_ASSERT_EQUAL(loads, 0);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, NULL), API_OK);
    CU_ASSERT_EQUAL(loads, 1);
    CU_ASSERT_TRUE(rig_serves(&u, "one two three", 13));
    close_nodes();
}

static void test_moved_elsewhere(void)
{
    open_nodes();
    struct client a = client_new(&u);
    CU_ASSERT_EQUAL(append_at(&a, 0, "one "), API_OK);
    struct client b = on_node(&a, 1);
    CU_ASSERT_EQUAL(append_at(&b, 4, "two "), API_OK);
    CU_ASSERT_EQUAL(append_at(&a, 4, "bad "), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(a.offset, 8);
    CU_ASSERT_EQUAL(append_at(&b, 8, "three "), API_OK);
    CU_ASSERT_EQUAL(append_at(&a, 14, "four"), API_OK);
    CU_ASSERT_EQUAL(append_at(&b, 18, " five"), API_OK);
    struct digest d = text_digest("one two three four five");
    CU_ASSERT_EQUAL(client_complete(&a, b.token, &d, NULL), API_OK);
    close_nodes();
}

/* The first node thinks that the token is the newest; it is that of the last chunk, whose answer was lost. */
static void test_repeated_elsewhere(void)
{
    open_nodes();
    struct client a = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&a, NULL, "one "), API_OK);
    CU_ASSERT_EQUAL(client_append(&a, NULL, "two "), API_OK);
    struct client b = on_node(&a, 1), again = a;
    CU_ASSERT_EQUAL(client_append(&b, NULL, "three"), API_OK);
    CU_ASSERT_EQUAL(client_append(&again, NULL, "three"), API_OK);
    CU_ASSERT_EQUAL(again.offset, 13);
    CU_ASSERT_EQUAL(client_peek(&b), 13);
    close_nodes();
}

static void test_ended_elsewhere(void)
{
    open_nodes();
    struct client a = client_new(&u), gone = client_new(&u);
    struct digest d = text_digest("hello");
    CU_ASSERT_EQUAL(client_append(&a, NULL, "hello"), API_OK);
    CU_ASSERT_EQUAL(client_append(&gone, NULL, "hello"), API_OK);
    struct client b = on_node(&a, 1);
    CU_ASSERT_EQUAL(client_complete(&b, NULL, &d, NULL), API_OK);
    CU_ASSERT_EQUAL(upload_destroy(u.node[1].svc, &gone.id, NULL, &gone.err), API_OK);
    CU_ASSERT_EQUAL(client_append(&a, NULL, "more"), API_UPLOAD_COMPLETED);
    CU_ASSERT_EQUAL(client_complete(&a, NULL, &d, NULL), API_OK);
    CU_ASSERT_STRING_EQUAL(a.result.file.id, b.result.file.id);
    CU_ASSERT_EQUAL(client_append(&gone, NULL, "more"), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    close_nodes();
}

/* Another node writes: what it may still write late must make this one hash the upload again, or be told. */
static void test_in_flight_elsewhere(void)
{
    open_nodes();
    struct client a = client_new(&u);
    struct upload_append *older;
    CU_ASSERT_EQUAL(client_append(&a, a.first, "one "), API_OK);
    struct client b = on_node(&a, 1);
    struct ask ask = {.token = a.first, .data = "stale", .len = 5};
    CU_ASSERT_EQUAL_FATAL(client_begin(&b, &ask, &older), API_OK);
    CU_ASSERT_EQUAL(upload_append_write_bytes(older, "stale", 5, &b.err), API_OK);
    CU_ASSERT_EQUAL(client_append(&a, a.first, "two"), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(older, UPLOAD_BODY_WHOLE, &b.result, &b.err), API_UPLOAD_SUPERSEDED);
    struct digest d = text_digest("one two");
    CU_ASSERT_EQUAL(client_complete(&a, a.first, &d, NULL), API_OK);
    close_nodes();
}

static void test_forgotten(void)
{
    open_nodes();
    struct client a = client_new(&u);
    CU_ASSERT_EQUAL(append_at(&a, 0, "one "), API_OK);
    memory_hub_empty(u.hub);
    CU_ASSERT_EQUAL(append_at(&a, 4, "two "), API_OK);
    CU_ASSERT_TRUE(memory_hub_roll_back(u.hub, &a.id));
    CU_ASSERT_EQUAL(append_at(&a, 8, "three"), API_OK);
    struct digest d = text_digest("one two three");
    CU_ASSERT_EQUAL(client_complete(&a, NULL, &d, NULL), API_OK);
    close_nodes();
}

static void test_strangers(void)
{
    open_nodes();
    struct identity alice = {.name = "alice", .known = true}, bob = {.name = "bob", .known = true};
    struct client a = client_create(&u, "a", false, &alice), other = client_new(&u);
    struct ask ask = {.who = &bob, .data = "x", .len = 1};
    CU_ASSERT_EQUAL(client_ask(&a, &ask), API_UPLOAD_UNKNOWN);
    ask = (struct ask){.who = &alice, .token = other.token, .data = "x", .len = 1};
    CU_ASSERT_EQUAL(client_ask(&a, &ask), API_UPLOAD_TOKEN_INVALID);
    ask = (struct ask){.who = &alice, .data = "x", .len = 1};
    CU_ASSERT_EQUAL(client_ask(&a, &ask), API_OK);
    close_nodes();
}

int main(void)
{
    CU_TestInfo tests[] = {{"a whole upload on one node loads no session; a repeated complete does", test_no_loads},
                           {"another node has gone on", test_moved_elsewhere},
                           {"another node has the chunk already", test_repeated_elsewhere},
                           {"another node has completed or destroyed it", test_ended_elsewhere},
                           {"another node is at it", test_in_flight_elsewhere},
                           {"the sessions are gone, or went back in time", test_forgotten},
                           {"strangers and foreign tokens are refused", test_strangers},
                           CU_TEST_INFO_NULL};
    return unit_main("upload_recall", tests);
}
