/*
 * upload - whatever became of a change of the session that was not answered, and whatever the stores disagree about,
 * all nodes tell one offset from the next request on, and none takes back what another has told.
 */
#include "tests/rig/upload_rig.h"

/* ---- two nodes; the first one's changes of sessions fail on demand ---- */

enum trouble { NONE, NOT_MADE, MADE_UNSAID, MADE_LATE };

struct late_change {
    struct uuid id;
    uint64_t expected, next;
    uint8_t value[SESSION_VALUE_MAX];
    size_t len;
    int64_t expires_ms;
};

static struct upload_rig u;
static struct session_store_ops ops;
static const struct session_store_ops *real;
static enum trouble trouble;
static struct late_change late[8];
static unsigned lates;

static enum blob_status unsaid(struct blob_error *err)
{
    return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "no answer in time, in this test");
}

static enum blob_status troubled_replace(struct session_store *s, const struct uuid *id, uint64_t expected,
                                         uint64_t next, const void *value, size_t len, int64_t expires_ms,
                                         struct blob_error *err)
{
    if (trouble == NOT_MADE)
        return unsaid(err);
    if (trouble == MADE_LATE) {
        CU_ASSERT_FATAL(lates < 8);
        late[lates] = (struct late_change){*id, expected, next, {0}, len, expires_ms};
        memcpy(late[lates++].value, value, len);
        return unsaid(err);
    }
    enum blob_status st = real->replace(s, id, expected, next, value, len, expires_ms, err);
    return trouble == MADE_UNSAID ? unsaid(err) : st;
}

/* What was on its way arrives. */
static void arrive(void)
{
    for (unsigned i = 0; i < lates; i++) {
        struct late_change *c = &late[i];
        (void)!real->replace(u.node[0].sessions, &c->id, c->expected, c->next, c->value, c->len, c->expires_ms, NULL);
    }
    lates = 0;
}

static void open_nodes(int nodes)
{
    upload_rig_open(&u, NULL, nodes);
    real = u.base.sessions->ops;
    ops = *real;
    ops.replace = troubled_replace;
    u.base.sessions->ops = &ops;
    trouble = NONE;
    lates = 0;
}

static void close_nodes(void)
{
    u.base.sessions->ops = real;
    upload_rig_close(&u);
}

static enum api_code complete_at(struct client *c, uint64_t offset, const char *content)
{
    struct digest d = text_digest(content);
    return client_ask(c,
                      &(struct ask){.has_offset = true, .offset = offset, .completes = true, .digest = &d, .data = ""});
}

/* An append of node 0 whose end is not answered: begun and written in peace. */
static void append_unanswered(struct client *c, const char *data, enum trouble how)
{
    struct upload_append *a;
    struct ask ask = {.has_offset = true, .offset = c->offset, .data = data, .len = strlen(data)};
    CU_ASSERT_EQUAL_FATAL(client_begin(c, &ask, &a), API_OK);
    CU_ASSERT_EQUAL(client_write(a, data, strlen(data), &c->err), API_OK);
    trouble = how;
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_WHOLE, &c->result, &c->err), API_UNAVAILABLE);
    trouble = NONE;
}

/* ---- a change that was not answered ---- */

/* By the way, what the one tells is what the other takes. */
static void unanswered_then(enum trouble how, int first, int second)
{
    open_nodes(2);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(append_at(&c, 0, "one "), API_OK);
    append_unanswered(&c, "two ", how);
    struct client a = on_node(&c, first), b = on_node(&c, second);
    CU_ASSERT_EQUAL(client_status(&a), API_OK);
    arrive();
    CU_ASSERT_EQUAL(client_peek(&b), a.offset);
    CU_ASSERT_EQUAL(client_peek(&a), a.offset);
    b.offset = a.offset;
    const char *rest = a.offset == 8 ? "three" : "two three";
    CU_ASSERT_EQUAL(append_at(&b, a.offset, rest), API_OK);
    CU_ASSERT_EQUAL(client_peek(&a), 13);
    CU_ASSERT_EQUAL(complete_at(&a, 13, "one two three"), API_OK);
    close_nodes();
}

static void test_unanswered(void)
{
    const enum trouble kinds[] = {NOT_MADE, MADE_UNSAID, MADE_LATE};
    for (int kind = 0; kind < 3; kind++)
        for (int way = 0; way < 4; way++)
            unanswered_then(kinds[kind], way & 1, way >> 1);
}

/* The repeat of a chunk whose answer was lost is acknowledged; the other node must have heard of it. */
static void test_repeat_is_kept(void)
{
    for (int node = 0; node < 2; node++) {
        open_nodes(2);
        struct client c = client_new(&u);
        CU_ASSERT_EQUAL(client_append(&c, NULL, "one "), API_OK);
        struct client before = c;
        CU_ASSERT_EQUAL(client_append(&c, NULL, "two "), API_OK); /* rotates from here on */
        before = c;
        append_unanswered(&c, "three", NOT_MADE);
        before.node = node;
        CU_ASSERT_EQUAL(client_append(&before, NULL, "three"), API_OK);
        CU_ASSERT_EQUAL_FATAL(before.offset, 13);
        struct client other = on_node(&before, 1 - node);
        CU_ASSERT_EQUAL(client_peek(&other), 13);
        CU_ASSERT_EQUAL(complete_at(&other, 13, "one two three"), API_OK);
        close_nodes();
    }
}

/* A 201 is out, and the session still says that the first node is at it. */
static void test_completed_unanswered(void)
{
    open_nodes(2);
    struct client c = client_new(&u);
    struct upload_append *a;
    struct upload_view view;
    struct digest d = text_digest("one two");
    CU_ASSERT_EQUAL(append_at(&c, 0, "one "), API_OK);
    struct ask ask = {.completes = true, .digest = &d, .data = "two", .len = 3};
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &ask, &a), API_OK);
    CU_ASSERT_EQUAL(client_write(a, "two", 3, &c.err), API_OK);
    ops.replace_listed = NULL;
    trouble = NONE;
    /* The last change alone: announced it was. */
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_WHOLE, &c.result, &c.err), API_OK);
    CU_ASSERT_TRUE(memory_hub_roll_back(u.hub, &c.id));
    struct client b = on_node(&c, 1);
    CU_ASSERT_EQUAL(upload_status(u.node[1].svc, &c.id, NULL, &view, &b.err), API_OK);
    CU_ASSERT_TRUE(view.completed);
    CU_ASSERT_EQUAL(view.offset, 7);
    CU_ASSERT_EQUAL(complete_at(&b, 7, "one two"), API_OK);
    CU_ASSERT_STRING_EQUAL(b.result.file.id, c.result.file.id);
    CU_ASSERT_EQUAL(upload_destroy(u.node[1].svc, &c.id, NULL, &b.err), API_UPLOAD_COMPLETED);
    close_nodes();
}

/* Sessions of a moment ago: an append is in flight in them, and its end was acknowledged since. */
static void test_old_session_in_flight(void)
{
    open_nodes(2);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(append_at(&c, 0, "one "), API_OK);
    CU_ASSERT_EQUAL(append_at(&c, 4, "two "), API_OK);
    CU_ASSERT_TRUE(memory_hub_roll_back(u.hub, &c.id));
    for (int node = 1; node >= 0; node--) {
        struct client other = on_node(&c, node);
        CU_ASSERT_EQUAL(client_peek(&other), 8);
        CU_ASSERT_EQUAL(append_at(&other, 4, "bad "), API_UPLOAD_OFFSET_MISMATCH);
        CU_ASSERT_EQUAL(other.offset, 8);
    }
    struct client b = on_node(&c, 1);
    CU_ASSERT_EQUAL(append_at(&b, 8, "three"), API_OK);
    CU_ASSERT_EQUAL(complete_at(&c, 13, "one two three"), API_OK);
    close_nodes();
}

/* A status of another node, or an append that it refuses, leaves alone what is in flight. */
static void test_in_flight_is_left_alone(void)
{
    open_nodes(2);
    struct client c = client_new(&u), b = on_node(&c, 1);
    struct upload_append *a;
    struct ask ask = {.has_offset = true, .data = "one two", .len = 7};
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &ask, &a), API_OK);
    CU_ASSERT_EQUAL(client_write(a, "one ", 4, &c.err), API_OK);
    CU_ASSERT_EQUAL(client_peek(&b), 0);
    CU_ASSERT_EQUAL(append_at(&b, 3, "x"), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(client_write(a, "two", 3, &c.err), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_WHOLE, &c.result, &c.err), API_OK);
    CU_ASSERT_EQUAL(client_peek(&b), 7);
    close_nodes();
}

/* ---- what is destroyed ---- */

static void destroyed_stays(uint64_t bytes)
{
    open_nodes(2);
    struct bytebuf value;
    uint64_t epoch;
    struct client c = client_new(&u), b = on_node(&c, 1);
    if (bytes > 0)
        CU_ASSERT_EQUAL(append_at(&c, 0, "one "), API_OK);
    bytebuf_init(&value);
    CU_ASSERT_EQUAL_FATAL(session_load(u.node[0].sessions, &c.id, &value, &epoch, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(upload_destroy(u.node[0].svc, &c.id, NULL, &c.err), API_OK);
    for (int again = 0; again < 4; again++) {
        enum blob_status st =
            real->insert(u.node[0].sessions, &c.id, epoch, value.data, value.len, clock_wall_ms() + 60000, NULL);
        CU_ASSERT_TRUE(st == BLOB_OK);
        struct client asks = again & 1 ? b : c;
        if (again < 2)
            CU_ASSERT_EQUAL(client_status(&asks), API_UPLOAD_UNKNOWN)
        else if (again == 2)
            CU_ASSERT_EQUAL(append_at(&asks, bytes, "more"), API_UPLOAD_UNKNOWN)
        else
            CU_ASSERT_EQUAL(upload_destroy(u.node[1].svc, &c.id, NULL, &b.err), API_UPLOAD_UNKNOWN)
    }
    CU_ASSERT_EQUAL(complete_at(&c, bytes, "one "), API_UPLOAD_UNKNOWN);
    bytebuf_release(&value);
    close_nodes();
}

static void test_destroyed_stays_destroyed(void)
{
    destroyed_stays(0);
    destroyed_stays(4);
}

/* ---- a store that has less than the session ---- */

/* An upload of eight bytes, of which the store has the first four. */
static struct client client_with_missing_bytes(int nodes)
{
    struct staged_stat stat;
    struct blob_writer *w;
    open_nodes(nodes);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&c, c.first, "one "), API_OK);
    CU_ASSERT_EQUAL_FATAL(staged_stat(u.base.store, &c.id, &stat, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(client_append(&c, c.first, "two "), API_OK);
    CU_ASSERT_EQUAL_FATAL(staged_open(u.base.store, &c.id, &stat.mark, (uint64_t)clock_wall_us(), &w, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 4, stat.keep, stat.keep_len, 0, &stat.mark, NULL), BLOB_OK);
    writer_close(w);
    return c;
}

static void bytes_missing(int nodes, bool explicit_offset)
{
    struct client c = client_with_missing_bytes(nodes);
    struct client b = on_node(&c, nodes - 1);
    if (explicit_offset)
        CU_ASSERT_EQUAL(append_at(&b, 8, "three"), API_UPLOAD_OFFSET_MISMATCH)
    else
        CU_ASSERT_EQUAL(client_append(&b, c.first, "three"), API_UPLOAD_OFFSET_MISMATCH)
    CU_ASSERT_EQUAL(b.offset, 4);
    CU_ASSERT_EQUAL(client_peek(&c), 4);
    c.offset = 4;
    CU_ASSERT_EQUAL(append_at(&c, 4, "two three"), API_OK);
    CU_ASSERT_EQUAL(complete_at(&b, 13, "one two three"), API_OK);
    close_nodes();
}

static void test_bytes_missing(void)
{
    for (int way = 0; way < 4; way++)
        bytes_missing(1 + (way & 1), way >> 1);
}

/* Nothing is completed out of what is left. */
static void test_bytes_missing_at_the_end(void)
{
    struct client c = client_with_missing_bytes(1);
    struct digest d = text_digest("one ");
    CU_ASSERT_EQUAL(client_complete(&c, c.first, &d, NULL), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(c.offset, 4);
    close_nodes();
}

int main(void)
{
    CU_TestInfo tests[] = {{"a change that was not answered, not made, made or made late", test_unanswered},
                           {"a repeat that was acknowledged is known to all", test_repeat_is_kept},
                           {"a completion whose session was not moved is known to all", test_completed_unanswered},
                           {"an old session with an append in flight", test_old_session_in_flight},
                           {"what is in flight elsewhere is left alone", test_in_flight_is_left_alone},
                           {"what was destroyed stays so when its session comes back", test_destroyed_stays_destroyed},
                           {"bytes that are missing are told once, and by all", test_bytes_missing},
                           {"a complete over missing bytes adds nothing up", test_bytes_missing_at_the_end},
                           CU_TEST_INFO_NULL};
    return unit_main("upload_converge", tests);
}
