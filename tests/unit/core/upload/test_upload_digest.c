/*
 * upload - a complete that names no digest: the upload completes with the one that was computed, and every repeat, with
 * that digest or without, by whatever way its answer was lost, gives the same file.
 */
#include "tests/rig/upload_rig.h"

#define HELLO "hello, world"

struct way {
    const char *appended, *brought; /* before the complete, and by it */
    bool chunked, by_offset;
};

static const struct way ways[] = {
    {.appended = HELLO, .brought = ""},
    {.appended = "hello, ", .brought = "world"},
    {.appended = "", .brought = HELLO},
    {.appended = "", .brought = ""},
    {.appended = "hello, ", .brought = "world", .chunked = true},
    {.appended = HELLO, .brought = "", .chunked = true},
    {.appended = "", .brought = HELLO, .chunked = true},
    {.appended = "hello, ", .brought = "world", .by_offset = true},
    {.appended = HELLO, .brought = "", .by_offset = true},
};
#define WAYS (sizeof ways / sizeof ways[0])

static struct ask ask_of(const struct way *way)
{
    return (struct ask){.completes = true,
                        .data = way->brought,
                        .len = strlen(way->brought),
                        .length_unknown = way->chunked,
                        .has_offset = way->by_offset,
                        .offset = strlen(way->appended)};
}

static void same_file(struct client *c, const struct ask *ask, const struct digest *named, const char *id)
{
    struct ask again = *ask;
    again.digest = named;
    CU_ASSERT_EQUAL(client_ask(c, &again), API_OK);
    CU_ASSERT_TRUE(c->result.completed);
    CU_ASSERT_STRING_EQUAL(c->result.file.id, id);
}

static void repeat_it(struct client *c, const struct ask *ask, const struct digest *d, const char *id)
{
    struct digest other = text_digest("other");
    struct ask bare = {.completes = true, .data = ""};
    for (int named = 0; named < 2; named++) {
        same_file(c, ask, named ? d : NULL, id);
        same_file(c, &bare, named ? d : NULL, id);
    }
    bare.digest = &other;
    CU_ASSERT_EQUAL(client_ask(c, &bare), API_DIGEST_INVALID);
}

static void complete_by(const struct way *way, int nodes, bool readable)
{
    struct upload_rig u;
    char content[64], id[FILE_ID_MAX];
    upload_rig_open(&u, NULL, nodes);
    if (!readable)
        u.base.store->caps &= ~STORE_READ_STAGED;
    struct client c = client_new(&u);
    struct ask ask = ask_of(way);
    snprintf(content, sizeof content, "%s%s", way->appended, way->brought);
    struct digest d = text_digest(content);
    if (way->appended[0])
        CU_ASSERT_EQUAL(client_append(&c, NULL, way->appended), API_OK);
    c.node = nodes - 1;
    CU_ASSERT_EQUAL_FATAL(client_ask(&c, &ask), API_OK);
    CU_ASSERT_TRUE(digest_equal(&c.result.file.digest, &d));
    CU_ASSERT_EQUAL(c.result.file.size, strlen(content));
    CU_ASSERT_TRUE(rig_serves(&u, content, strlen(content)));
    memcpy(id, c.result.file.id, sizeof id);
    repeat_it(&c, &ask, &d, id);
    if (nodes > 1)
        memory_hub_empty(u.hub);
    else
        CU_ASSERT_EQUAL(session_remove(u.base.sessions, &c.id, NULL), BLOB_OK);
    repeat_it(&c, &ask, &d, id);
    c.node = 0;
    repeat_it(&c, &ask, &d, id);
    CU_ASSERT_EQUAL(file_catalog_heal_index(u.base.catalog, NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    upload_rig_close(&u);
}

static void test_all_ways(void)
{
    for (size_t i = 0; i < WAYS; i++) {
        for (int nodes = 1; nodes <= 2; nodes++) {
            complete_by(&ways[i], nodes, true);
            complete_by(&ways[i], nodes, false);
        }
    }
}

/* The rules of offsets, lengths and cuts are no others. */
static void test_refusals(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "hello"), API_OK);
    struct ask ask = {.completes = true, .data = ", world", .len = 7, .has_offset = true, .offset = 4};
    CU_ASSERT_EQUAL(client_ask(&c, &ask), API_UPLOAD_OFFSET_MISMATCH);
    ask.offset = 5;
    ask.has_length = true;
    ask.length = 8;
    CU_ASSERT_EQUAL(client_ask(&c, &ask), API_VALIDATE_FAILED);
    ask.length_unknown = true;
    CU_ASSERT_EQUAL(client_ask(&c, &ask), API_VALIDATE_FAILED);
    CU_ASSERT_EQUAL(client_peek(&c), 5);
    ask = (struct ask){.completes = true, .data = ", world", .len = 7, .cut = true, .arrives = 2};
    CU_ASSERT_EQUAL(client_ask(&c, &ask), API_BAD_REQUEST);
    CU_ASSERT_EQUAL(client_peek(&c), 7);
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 0);
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, NULL, "world"), API_OK);
    CU_ASSERT_TRUE(rig_serves(&u, HELLO, strlen(HELLO)));
    upload_rig_close(&u);
}

/* ---- sessions older than the store ---- */

enum left { FILE_MADE, BLOB_MADE };

/* As a kill leaves it: the blob was made, perhaps its file, and the session was not moved. */
static void complete_and_forget(struct upload_rig *u, struct client *c, enum left left, struct ask *ask, char *id)
{
    struct bytebuf old;
    uint64_t epoch;
    bytebuf_init(&old);
    CU_ASSERT_EQUAL_FATAL(session_load(u->base.sessions, &c->id, &old, &epoch, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(client_ask(c, ask), API_OK);
    memcpy(id, c->result.file.id, FILE_ID_MAX);
    if (left == BLOB_MADE) {
        char key[FILE_KEY_CHARS + 1];
        file_key_make(&c->result.file.digest, c->result.file.number, key);
        CU_ASSERT_EQUAL(record_delete(u->base.store, key, 0, NULL), BLOB_OK);
    }
    CU_ASSERT_EQUAL(session_remove(u->base.sessions, &c->id, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_insert(u->base.sessions, &c->id, epoch, old.data, old.len, clock_wall_ms() + 3600000, NULL),
                    BLOB_OK);
    bytebuf_release(&old);
    node_stop(u, 0);
    node_start(u, 0);
}

static void repeat_on_an_old_session(const char *appended, const char *brought, enum left left, bool bare, bool named)
{
    struct upload_rig u;
    char content[64], id[FILE_ID_MAX];
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    snprintf(content, sizeof content, "%s%s", appended, brought);
    struct digest d = text_digest(content);
    if (appended[0])
        CU_ASSERT_EQUAL(client_append(&c, NULL, appended), API_OK);
    struct ask ask = {.completes = true, .data = brought, .len = strlen(brought), .token = c.first};
    complete_and_forget(&u, &c, left, &ask, id);
    struct ask again = bare ? (struct ask){.completes = true, .data = ""} : ask;
    again.digest = named ? &d : NULL;
    CU_ASSERT_EQUAL(client_ask(&c, &again), API_OK);
    CU_ASSERT_STRING_EQUAL(c.result.file.id, id);
    CU_ASSERT_TRUE(rig_serves(&u, content, strlen(content)));
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    upload_rig_close(&u);
}

static void test_repeats_on_old_sessions(void)
{
    for (int i = 0; i < 8; i++) {
        enum left left = i & 1 ? BLOB_MADE : FILE_MADE;
        bool bare = i & 2, named = i & 4;
        repeat_on_an_old_session("", HELLO, left, bare, named);
        repeat_on_an_old_session("hello, ", "world", left, bare, named);
        repeat_on_an_old_session(HELLO, "", left, bare, named);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {{"it completes with the digest that was computed, and so do repeats", test_all_ways},
                           {"offsets, lengths and cuts are judged as ever", test_refusals},
                           {"a repeat on a session older than the store", test_repeats_on_old_sessions},
                           CU_TEST_INFO_NULL};
    return unit_main("upload_digest", tests);
}
