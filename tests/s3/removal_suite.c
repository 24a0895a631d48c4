/*
 * removal_suite - what the S3 store takes out of the bucket: removed blobs, and leftovers; and what it must not take.
 */
#include "tests/s3/store_rig.h"

#include <signal.h>

/* A remover that was cut off, or held up, after any of its steps: the content is stored again at once, and no step that
 * comes afterwards reaches what was stored. */
static void test_late_remover(void)
{
    struct rig r = rig_open();
    struct s3_store *s = s3_store_of(r.store);
    uint8_t *data = content(1000, 17);
    struct digest digest = store_small(&r, data, 1000);
    struct s3_pointer live, gone, now;
    OK(s3_pointer_read(s, &digest, &live, err));
    gone = live;
    gone.removed = true;
    gone.touched_ms = clock_wall_ms() - 3600000;
    OK(s3_pointer_write(s, &digest, &live, &gone, err)); /* its first step; then it stands still */
    CU_ASSERT_EQUAL(blob_stat(r.store, &digest, &(struct blob_info){0}, NULL), BLOB_E_NOT_FOUND);
    store_small(&r, data, 1000);
    check_only_blob(&r, 1000);               /* also what the tombstone named is gone */
    OK(s3_delete(r.s3, gone.data_key, err)); /* and goes on */
    now = gone;
    now.clearing = true;
    CU_ASSERT_EQUAL(s3_pointer_write(s, &digest, &gone, &now, NULL), BLOB_E_CONFLICT);
    check_blob(&r, data, 1000, &digest);

    free(data);
    rig_close(&r);
}

/* A tombstone that is being cleared away since ago_ms, by a request of which nothing more was heard. */
static struct s3_pointer clear_half(struct rig *r, const struct digest *digest, int64_t ago_ms)
{
    struct s3_store *s = s3_store_of(r->store);
    struct s3_pointer gone, now;
    OK(blob_remove(r->store, digest, INT64_MAX, err));
    OK(s3_pointer_read(s, digest, &gone, err));
    CU_ASSERT_TRUE(gone.removed && !gone.clearing);
    now = gone;
    now.clearing = true;
    now.touched_ms = clock_wall_ms() - ago_ms;
    OK(s3_pointer_write(s, digest, &gone, &now, err));
    return now;
}

/* The sweep leaves it alone; an upload of the same content does not wait, and loses nothing when the request takes
 * effect after all: at once, once its pointer was changed again, or never. */
static void test_late_clearing(void)
{
    for (unsigned i = 0; i < 4; i++) {
        struct rig r = rig_open();
        struct s3_store *s = s3_store_of(r.store);
        uint8_t *data = content(1000, 30 + i);
        struct digest digest = store_small(&r, data, 1000);
        struct s3_pointer before = clear_half(&r, &digest, 20 * 60000), now;
        OK(blob_store_sweep(r.store, clock_wall_ms() + 1000, err));
        OK(blob_list(r.store, NULL, no_blob, NULL, err));
        OK(s3_pointer_read(s, &digest, &now, err));
        CU_ASSERT_STRING_EQUAL(now.etag, before.etag);
        store_small(&r, data, 1000);
        check_blob(&r, data, 1000, &digest);
        CU_ASSERT_EQUAL(blob_remove(r.store, &digest, INT64_MAX, NULL), BLOB_E_CONFLICT);
        if (i == 1)
            OK(blob_touch(r.store, &digest, NULL, err));
        if (i == 2)
            store_small(&r, data, 1000);
        if (i != 3)
            OK(s3_delete(r.s3, pointer_name(&digest).text, err)); /* it happens */
        check_blob(&r, data, 1000, &digest);
        OK(blob_touch(r.store, &digest, NULL, err));
        check_blob(&r, data, 1000, &digest);
        OK(blob_store_sweep(r.store, clock_wall_ms() + 3600000, err));
        check_blob(&r, data, 1000, &digest);

        /* When it cannot happen any more, no copy is kept, and the blob may be removed. */
        OK(s3_pointer_read(s, &digest, &before, err));
        now = before;
        now.doubted_ms -= 31 * 60000;
        OK(s3_pointer_write(s, &digest, &before, &now, err));
        OK(blob_remove(r.store, &digest, INT64_MAX, err));
        CU_ASSERT_EQUAL(blob_stat(r.store, &digest, &(struct blob_info){0}, NULL), BLOB_E_NOT_FOUND);
        CU_ASSERT_EQUAL(count_below(&r, "blobs/"), 1);
        CU_ASSERT_EQUAL(count_below(&r, "data/"), 0);
        free(data);
        rig_close(&r);
    }
}

/* What was doubted and found damaged does not come back. */
static void test_doubted_and_damaged(void)
{
    struct rig r = rig_open();
    uint8_t *data = content(1000, 40);
    struct digest digest = store_small(&r, data, 1000);
    struct blob_info info = {0};
    clear_half(&r, &digest, 60000);
    store_small(&r, data, 1000);
    OK(blob_stat(r.store, &digest, &info, err));
    OK(blob_set_aside(r.store, &digest, info.touched_ms, err));
    OK(s3_delete(r.s3, pointer_name(&digest).text, err));
    CU_ASSERT_EQUAL(blob_stat(r.store, &digest, &info, NULL), BLOB_E_NOT_FOUND);
    store_small(&r, data, 1000);
    check_blob(&r, data, 1000, &digest);
    free(data);
    rig_close(&r);
}

/* What a signature of long ago allows is refused: this is what a late DELETE of a tombstone comes with. */
static void test_late_delete(void)
{
    struct rig r = rig_open();
    struct s3_object object;
    if (s3_client_caps(r.s3) & S3_CAP_CONDITIONAL_PUT) {
        CU_ASSERT_EQUAL(s3_delete_once(r.s3, "store.json", clock_wall_ms() - 16 * 60000, NULL), BLOB_E_DENIED);
        OK(s3_head(r.s3, "store.json", &object, err));
    }
    OK(s3_delete_once(r.s3, "store.json", clock_wall_ms() - 60000, err));
    OK(s3_delete_once(r.s3, "store.json", clock_wall_ms() - 60000, err));
    CU_ASSERT_EQUAL(s3_head(r.s3, "store.json", &object, NULL), BLOB_E_NOT_FOUND);
    rig_close(&r);
}
static void test_sweep(void)
{
    struct rig r = rig_open();
    struct s3_object object;
    struct uuid id;
    char key[200], hex[DIGEST_HEX_CHARS + 1], upload_id[S3_UPLOAD_ID_MAX];
    const struct s3_body body = {.data = "x", .length = 1};
    struct digest digest = digest_of("x", 1);
    struct upload_mark mark = {0};
    uint8_t *data = content(PART + 1, 13);
    digest_hex(&digest, hex);
    uuid_new(&id);
    append(&r, &id, &mark, 1, data, PART + 1); /* a live upload, whose parts must stay */
    struct uuid lost;
    uuid_new(&lost);
    snprintf(key, sizeof key, "data/%s.%s", lost.text, hex);
    OK(s3_put(r.s3, key, &body, NULL, NULL, err));
    if (multipart(&r))
        OK(s3_multipart_create(r.s3, s3_staged_data_key(&lost).text, upload_id, err));
    OK(blob_store_sweep(r.store, clock_wall_ms() - 60000, err)); /* within the grace time */
    OK(s3_head(r.s3, key, &object, err));
    OK(blob_store_sweep(r.store, clock_wall_ms() + 5000, err));
    CU_ASSERT_EQUAL(s3_head(r.s3, key, &object, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(count_multiparts(&r), multipart(&r) ? 1 : 0);
    struct digest whole = digest_of(data, PART + 1);
    commit(&r, &id, &mark, 2, &whole);
    OK(blob_store_sweep(r.store, clock_wall_ms() + 5000, err));
    check_blob(&r, data, PART + 1, &whole);
    free(data);
    rig_close(&r);
}

/* What an open writer made is no leftover, however old: nothing in S3 names it before the next flush, or the end. */
static void test_sweep_beside_a_writer(void)
{
    struct rig r = rig_open();
    struct upload_mark mark = {0};
    struct blob_writer *w = NULL;
    struct s3_object object;
    struct uuid id;
    size_t total = 2 * PART + 5;
    uint8_t *data = content(total, 14);
    struct digest digest = digest_of(data, total), small = digest_of(data, 10);
    const struct s3_body body = {.data = data, .length = 10};
    uuid_new(&id);
    struct s3_key key = s3_staged_whole_key(&id, &small);
    OK(staged_open(r.store, &id, &mark, 1, &w, err));
    OK(writer_write_bytes(w, data, PART + 1, err));
    OK(s3_put(r.s3, key.text, &body, NULL, NULL, err)); /* as if its pointer were to be written next */
    for (int i = 1; i <= 2; i++) {
        OK(blob_store_sweep(r.store, clock_wall_ms() + i * 120000, err));
        CU_ASSERT_EQUAL(count_multiparts(&r), multipart(&r) ? 1 : 0);
        OK(s3_head(r.s3, key.text, &object, err));
    }
    OK(writer_write_bytes(w, data + PART + 1, total - PART - 1, err));
    OK(writer_flush(w, total, "keep", 4, 0, &mark, err));
    writer_close(w);
    OK(blob_store_sweep(r.store, clock_wall_ms() + 360000, err)); /* the writer is gone, and never named it */
    CU_ASSERT_EQUAL(s3_head(r.s3, key.text, &object, NULL), BLOB_E_NOT_FOUND);
    commit(&r, &id, &mark, 2, &digest);
    check_blob(&r, data, total, &digest);
    check_only_blob(&r, total);
    free(data);
    rig_close(&r);
}

/* An upload whose commit was cut off after the object had been copied without left-over parts: the copy is all there is
 * of its parts. */
static struct s3_key cut_off_copied(const struct rig *r, const struct uuid *id, struct upload_mark *mark,
                                    const uint8_t *data, size_t len, const struct digest *digest)
{
    static uint8_t state[S3_STAGED_HEADER_BYTES + PART], keep[UPLOAD_KEEP_MAX];
    struct s3_key key = s3_staged_whole_key(id, digest);
    struct s3_page page = {0};
    struct s3_staged staged;
    uint32_t keep_len;
    size_t got;
    append(r, id, mark, 1, data, len);
    OK(s3_list(r->s3, s3_staged_state_prefix(id).text, NULL, 100, &page, err));
    CU_ASSERT_EQUAL_FATAL(page.count, 1);
    OK(s3_get(r->s3, page.entries[0].key, state, sizeof state, &got, NULL, err));
    CU_ASSERT_EQUAL_FATAL(s3_staged_read_header(state, &staged, keep, &keep_len), BLOB_OK);
    staged.committing = true;
    staged.digest = *digest;
    s3_staged_write_header(&staged, keep, keep_len, state);
    const struct s3_body body = {.data = state, .length = got}, whole = {.data = data, .length = len};
    OK(s3_put(r->s3, page.entries[0].key, &body, NULL, NULL, err));
    OK(s3_put(r->s3, key.text, &whole, NULL, NULL, err));
    OK(s3_multipart_abort(r->s3, s3_staged_data_key(id).text, staged.upload_id, err));
    s3_page_release(&page);
    return key;
}

static void test_sweep_beside_a_copy(void)
{
    struct rig r = rig_open();
    size_t total = PART + 5;
    uint8_t *data = content(total, 15);
    struct digest digest = digest_of(data, total);
    for (int i = 0; i < 2 && multipart(&r); i++) {
        struct upload_mark mark = {0};
        struct s3_object object;
        struct uuid id;
        uuid_new(&id);
        struct s3_key key = cut_off_copied(&r, &id, &mark, data, total, &digest);
        OK(blob_store_sweep(r.store, clock_wall_ms() + (i + 1) * 120000, err));
        OK(s3_head(r.s3, key.text, &object, err));
        if (i == 0) {
            OK(staged_discard(r.store, &id, &mark, err));
            CU_ASSERT_EQUAL(count_below(&r, ""), 1);
        } else {
            commit(&r, &id, &mark, 2, &digest);
            check_blob(&r, data, total, &digest);
            check_only_blob(&r, total);
        }
    }
    free(data);
    rig_close(&r);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_TestInfo tests[] = {
        {"a removal's late steps do not reach what was stored since", test_late_remover},
        {"the late end of a tombstone holds up no upload, and takes nothing with it", test_late_clearing},
        {"what was doubted and found damaged does not come back", test_doubted_and_damaged},
        {"a deletion signed long ago is refused", test_late_delete},
        {"the sweeper takes orphans only", test_sweep},
        {"what an open writer has made is no orphan", test_sweep_beside_a_writer},
        {"a copy stays until its upload has become the blob, or goes with it", test_sweep_beside_a_copy},
        CU_TEST_INFO_NULL};
    return unit_main("s3_removal", tests);
}
