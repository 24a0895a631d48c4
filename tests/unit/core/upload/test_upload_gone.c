/*
 * upload - a file that was made and destroyed does not come back by a repeat of its completion, whatever became of the
 * sessions, whoever else holds the content, and for as long as a repeat can come.
 */
#include "tests/rig/upload_rig.h"

#include "core/session/upload_record.h"

#define HELLO "hello, world"

enum sessions { KEPT, LOST, ROLLED_BACK, RESTARTED, SESSIONS };

struct gone {
    struct upload_rig u;
    struct client c;
    struct digest d;
    char id[FILE_ID_MAX];
};

static void destroy_file(struct gone *g)
{
    struct digest d;
    bool last;
    CU_ASSERT_EQUAL_FATAL(file_catalog_destroy(g->u.base.catalog, g->id, NULL, &d, &last, NULL), BLOB_OK);
}

/* An upload, completed; where shared, another one of the same content. */
static void gone_open(struct gone *g, const struct upload_options *opt, bool temporary, bool at_once, bool shared)
{
    memset(g, 0, sizeof *g);
    upload_rig_open(&g->u, opt, 2);
    g->d = text_digest(HELLO);
    g->c = client_create(&g->u, "greeting.wav", temporary, NULL);
    if (!at_once)
        CU_ASSERT_EQUAL(client_append(&g->c, NULL, "hello, "), API_OK);
    CU_ASSERT_EQUAL_FATAL(client_complete(&g->c, NULL, &g->d, at_once ? HELLO : "world"), API_OK);
    memcpy(g->id, g->c.result.file.id, sizeof g->id);
    if (shared) {
        struct client other = client_new(&g->u);
        CU_ASSERT_EQUAL(client_complete(&other, NULL, &g->d, HELLO), API_OK);
    }
}

static void lose(struct gone *g, enum sessions how)
{
    if (how == LOST)
        memory_hub_empty(g->u.hub);
    if (how == ROLLED_BACK)
        (void)memory_hub_roll_back(g->u.hub, &g->c.id);
    if (how == RESTARTED) {
        node_stop(&g->u, 1);
        node_start(&g->u, 1);
        memory_hub_empty(g->u.hub);
    }
    CU_ASSERT_EQUAL(file_catalog_heal_index(g->u.base.catalog, NULL, NULL), BLOB_OK);
}

/* Repeats with and without body and digest, on both nodes. */
static void repeats_answer(struct gone *g, enum api_code code, unsigned listed)
{
    for (int i = 0; i < 8; i++) {
        g->c.node = i & 1;
        CU_ASSERT_EQUAL(client_complete(&g->c, g->c.first, i & 2 ? &g->d : NULL, i & 4 ? HELLO : NULL), code);
        CU_ASSERT_FALSE(g->c.result.completed);
        CU_ASSERT_EQUAL(rig_listed(&g->u.base, NULL), listed);
    }
    struct file_record file;
    CU_ASSERT_EQUAL(file_catalog_get(g->u.base.catalog, g->id, NULL, &file, NULL), BLOB_E_NOT_FOUND);
}

static void test_destroyed_stays_destroyed(void)
{
    for (int i = 0; i < 4 * SESSIONS; i++) {
        struct gone g;
        bool at_once = i & 1, shared = i & 2;
        gone_open(&g, NULL, false, at_once, shared);
        destroy_file(&g);
        lose(&g, (enum sessions)(i / 4));
        repeats_answer(&g, API_UPLOAD_COMPLETED, shared);
        /* It is a completed upload in everything else. */
        struct upload_view view;
        if (i / 4 != ROLLED_BACK) {
            CU_ASSERT_EQUAL(upload_status(g.u.node[0].svc, &g.c.id, NULL, &view, &g.c.err), API_OK);
            CU_ASSERT_TRUE(view.completed);
            CU_ASSERT_EQUAL(client_append(&g.c, NULL, "more"), API_UPLOAD_COMPLETED);
        }
        CU_ASSERT_EQUAL(client_complete(&g.c, NULL, &(struct digest){{1}}, NULL), API_DIGEST_INVALID);
        /* Who uploads the content again, uploads it. */
        struct client again = client_new(&g.u);
        CU_ASSERT_EQUAL(client_complete(&again, NULL, &g.d, HELLO), API_OK);
        CU_ASSERT_EQUAL(rig_listed(&g.u.base, NULL), 1u + shared);
        upload_rig_close(&g.u);
    }
}

static void test_expired_temporary_file(void)
{
    struct upload_options opt = rig_upload_options;
    opt.temp_file_retention_ms = 1;
    for (int swept = 0; swept < 2; swept++) {
        for (int how = KEPT; how < SESSIONS; how++) {
            struct gone g;
            size_t done;
            gone_open(&g, &opt, true, true, true);
            usleep(3000);
            if (swept)
                CU_ASSERT_EQUAL(file_catalog_expire(g.u.base.catalog, clock_wall_ms(), 10, &done, NULL), BLOB_OK);
            lose(&g, (enum sessions)how);
            repeats_answer(&g, API_UPLOAD_COMPLETED, 1 + !swept);
            upload_rig_close(&g.u);
        }
    }
}

/* Also when repeats are answered no more, and the janitor has been there or not. */
static void test_after_the_retention(void)
{
    struct upload_options opt = rig_upload_options;
    opt.completed_retention_ms = 50;
    for (int how = KEPT; how < SESSIONS; how++) {
        struct gone g;
        gone_open(&g, &opt, false, true, true);
        usleep(60000);
        destroy_file(&g);
        lose(&g, (enum sessions)how);
        repeats_answer(&g, API_UPLOAD_UNKNOWN, 1);
        CU_ASSERT_EQUAL(upload_service_expire(g.u.node[0].svc, clock_wall_ms(), NULL, NULL), BLOB_OK);
        repeats_answer(&g, API_UPLOAD_UNKNOWN, 1);
        upload_rig_close(&g.u);
    }
}

/* A crash between the note and the removal: the file is there, and is what a repeat gets. */
static void test_noted_but_not_removed(void)
{
    struct gone g;
    gone_open(&g, NULL, false, true, false);
    CU_ASSERT_EQUAL(upload_record_note_gone(g.u.base.store, &g.c.id, NULL), BLOB_OK);
    for (int how = KEPT; how <= LOST; how++) {
        lose(&g, (enum sessions)how);
        CU_ASSERT_EQUAL(client_complete(&g.c, NULL, &g.d, NULL), API_OK);
        CU_ASSERT_STRING_EQUAL(g.c.result.file.id, g.id);
    }
    CU_ASSERT_EQUAL(rig_listed(&g.u.base, NULL), 1);
    upload_rig_close(&g.u);
}

/* Destroying a file works on a full disk, and long after its upload is forgotten; an open upload's record stays. */
static enum blob_status put_when_full(struct blob_store *s, const char *key, const void *value, size_t len,
                                      unsigned flags, struct blob_error *err)
{
    (void)s, (void)key, (void)value, (void)len, (void)flags;
    return blob_fail(err, BLOB_E_NO_SPACE, 0, "full");
}

static void test_destroying_needs_no_note(void)
{
    for (int full = 0; full < 2; full++) {
        struct gone g;
        char key[RECORD_KEY_MAX];
        struct bytebuf value;
        gone_open(&g, NULL, false, true, false);
        upload_record_key(&g.c.id, key);
        if (full)
            g.u.base.ops.record_put = put_when_full;
        else
            CU_ASSERT_EQUAL(record_delete(g.u.base.store, key, 0, NULL), BLOB_OK);
        destroy_file(&g);
        bytebuf_init(&value);
        CU_ASSERT_EQUAL(record_get(g.u.base.store, key, &value, NULL), full ? BLOB_OK : BLOB_E_NOT_FOUND);
        bytebuf_release(&value);
        upload_rig_close(&g.u);
    }
}

/* Its number was another's when it was completed; that other one is destroyed, and the sessions are lost. */
static void test_no_second_file_after_a_collision(void)
{
    struct gone g;
    char key[RECORD_KEY_MAX];
    struct bytebuf value;
    struct session s;
    struct digest d;
    bool last;
    memset(&g, 0, sizeof g);
    upload_rig_open(&g.u, NULL, 2);
    g.d = text_digest(HELLO);
    g.c = client_new(&g.u);
    upload_record_key(&g.c.id, key);
    bytebuf_init(&value);
    CU_ASSERT_EQUAL_FATAL(record_get(g.u.base.store, key, &value, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(upload_record_decode(value.data, value.len, &s), BLOB_OK);
    bytebuf_release(&value);
    struct file_record other = rig_file(&g.d, strlen(HELLO), "other", "", s.created_ms);
    other.number = file_number(s.created_ms, &g.c.id);
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(g.u.base.catalog, &other, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(client_complete(&g.c, NULL, &g.d, HELLO), API_OK);
    CU_ASSERT_EQUAL(g.c.result.file.number, other.number - 1);
    memcpy(g.id, g.c.result.file.id, sizeof g.id);
    CU_ASSERT_EQUAL_FATAL(file_catalog_destroy(g.u.base.catalog, other.id, NULL, &d, &last, NULL), BLOB_OK);
    for (int how = KEPT; how < SESSIONS; how++) {
        lose(&g, (enum sessions)how);
        CU_ASSERT_EQUAL(client_complete(&g.c, g.c.first, &g.d, NULL), API_OK);
        CU_ASSERT_STRING_EQUAL(g.c.result.file.id, g.id);
        CU_ASSERT_EQUAL(rig_listed(&g.u.base, NULL), 1);
    }
    upload_rig_close(&g.u);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a destroyed file stays destroyed", test_destroyed_stays_destroyed},
        {"and so does a temporary one past its time", test_expired_temporary_file},
        {"also when repeats are answered no more", test_after_the_retention},
        {"a file not destroyed after all is what a repeat gets", test_noted_but_not_removed},
        {"destroying a file does not depend on its upload", test_destroying_needs_no_note},
        {"a file is found again though its number was another's", test_no_second_file_after_a_collision},
        CU_TEST_INFO_NULL};
    return unit_main("upload_gone", tests);
}
