/*
 * blob_store_contract - the frame of the suite, and the tests of the store as a whole. Each test empties the store,
 * opens it and tries one promise of the header; the others are in blob_upload_contract.c, blob_blob_contract.c and
 * blob_record_contract.c.
 */
#include "core/check.h"
#include "tests/contract/blob_contract_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct blob_contract *in_use;

void blob_contract_use(const struct blob_contract *contract)
{
    in_use = contract;
}

const struct blob_contract *blob_contract(void)
{
    return in_use;
}

struct blob_store *blob_contract_open(void)
{
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    enum blob_status st = in_use->open(&s, &err);
    if (st != BLOB_OK) {
        fprintf(stderr, "%s: %s: %s\n", in_use->name, blob_status_name(st), err.text);
        CU_FAIL_FATAL("the store does not open");
    }
    return s;
}

struct blob_store *blob_contract_start(void)
{
    in_use->reset();
    return blob_contract_open();
}

void blob_contract_sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&t, &t) != 0)
        ;
}

/* ---- content ---- */

void content_fill(char *buf, size_t len, uint64_t offset, unsigned seed)
{
    for (size_t i = 0; i < len; i++) {
        uint64_t at = offset + i, word = (at / 8 + 1) * 0x9e3779b97f4a7c15u + seed * 0xbf58476d1ce4e5b9u;
        word ^= word >> 29;
        buf[i] = (char)(word >> (8 * (at % 8)));
    }
}

#define PIECE 65536

void content_digest(uint64_t size, unsigned seed, struct digest *out)
{
    char buf[PIECE];
    struct hash h;
    hash_init(&h);
    for (uint64_t at = 0; at < size; at += PIECE) {
        size_t len = size - at < PIECE ? (size_t)(size - at) : PIECE;
        content_fill(buf, len, at, seed);
        hash_update(&h, buf, len);
    }
    hash_peek(&h, out);
}

enum blob_status content_write(struct blob_writer *w, uint64_t end, size_t piece, unsigned seed)
{
    char *buf = malloc(piece);
    CHECK(buf);
    enum blob_status st = BLOB_OK;
    while (st == BLOB_OK && w->position < end) {
        size_t len = end - w->position < piece ? (size_t)(end - w->position) : piece;
        content_fill(buf, len, w->position, seed);
        const struct iovec parts[] = {
            {.iov_base = buf, .iov_len = len / 3}, {.iov_base = buf, .iov_len = 0}, {buf + len / 3, len - len / 3}};
        st = writer_write(w, parts, 3, NULL);
    }
    free(buf);
    return st;
}

enum blob_status content_store(struct blob_store *s, uint64_t size, unsigned seed, unsigned flags, struct digest *out)
{
    struct uuid id;
    const struct upload_mark start = {0};
    struct blob_writer *w = NULL;
    uuid_new(&id);
    content_digest(size, seed, out);
    enum blob_status st = staged_open(s, &id, &start, 1, &w, NULL);
    if (st != BLOB_OK)
        return st;
    st = content_write(w, size, PIECE, seed);
    if (st == BLOB_OK)
        st = writer_commit(w, out, flags, NULL);
    if (st != BLOB_OK)
        writer_close(w);
    return st;
}

bool content_intact(struct blob_store *s, uint64_t size, unsigned seed)
{
    struct digest digest;
    struct blob_reader *r = NULL;
    struct blob_info info = {0};
    content_digest(size, seed, &digest);
    if (blob_open(s, &digest, &r, &info, NULL) != BLOB_OK)
        return false;
    bool ok = info.size == size && r->size == size;
    char got[PIECE], want[PIECE];
    for (uint64_t at = 0; ok && at < size; at += PIECE) {
        size_t len = size - at < PIECE ? (size_t)(size - at) : PIECE;
        content_fill(want, len, at, seed);
        ok = reader_read(r, at, got, len, NULL) == BLOB_OK && memcmp(got, want, len) == 0;
    }
    reader_close(r);
    return ok;
}

struct blob_writer *writer_at(struct blob_store *s, const struct uuid *id, const struct upload_mark *mark,
                              uint64_t epoch)
{
    struct blob_writer *w = NULL;
    struct blob_error err = {0};
    enum blob_status st = staged_open(s, id, mark, epoch, &w, &err);
    if (st != BLOB_OK) {
        fprintf(stderr, "%s: %s: %s\n", in_use->name, blob_status_name(st), err.text);
        CU_FAIL_FATAL("the upload does not open");
    }
    CU_ASSERT_EQUAL(w->position, mark->offset);
    CU_ASSERT_PTR_EQUAL(w->store, s);
    return w;
}

bool upload_gone(struct blob_store *s, const struct uuid *id)
{
    struct staged_stat stat;
    return staged_stat(s, id, &stat, NULL) == BLOB_E_NOT_FOUND;
}

/* ---- the store as a whole ---- */

static void store_whole(void)
{
    struct blob_store *s = blob_contract_start();
    struct uuid id;
    CU_ASSERT_PTR_NOT_NULL(s->ops->name);
    CU_ASSERT_EQUAL(uuid_parse(s->store_id, &id), BLOB_OK);
    CU_ASSERT_EQUAL(blob_store_check(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_store_room(s, 1, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_store_sweep(s, 1000, NULL), BLOB_OK);
    CU_ASSERT_TRUE(!(s->caps & STORE_READ_STAGED) || s->ops->staged_read);
    CU_ASSERT_TRUE(!(s->caps & STORE_HAS_FD) || s->ops->reader_fd);
    CU_ASSERT_TRUE(!(s->caps & STORE_REDIRECT) || s->ops->blob_url);
    blob_store_close(s);
}

static void store_id_stays(void)
{
    struct blob_store *s = blob_contract_start();
    char id[STORE_ID_CHARS + 1];
    memcpy(id, s->store_id, sizeof id);
    blob_store_close(s);
    s = blob_contract_open();
    CU_ASSERT_TRUE(!blob_contract()->persists || strcmp(id, s->store_id) == 0);
    blob_store_close(s);
}

static bool self_check_lines;

static void self_check_line(bool ok, const char *what, const char *meaning, void *arg)
{
    (void)arg;
    self_check_lines = self_check_lines && ok && what[0] != '\0' && meaning[0] != '\0';
}

static void store_self_check(void)
{
    struct blob_store *s = blob_contract_start();
    struct blob_error err = {0};
    self_check_lines = true;
    CU_ASSERT_EQUAL(blob_store_self_check(s, self_check_line, NULL, &err), BLOB_OK);
    CU_ASSERT_TRUE(self_check_lines);
    blob_store_close(s);
}

/* What a sweep may not take: uploads, blobs, records, and what is being written. */
static void store_sweep_spares(void)
{
    struct blob_store *s = blob_contract_start();
    struct digest digest;
    struct uuid id;
    struct upload_mark mark = {0};
    uuid_new(&id);
    struct blob_writer *w = writer_at(s, &id, &mark, 1);
    CU_ASSERT_EQUAL(content_write(w, 5000, 1000, 2), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 5000, NULL, 0, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_store(s, 3000, 1, 0, &digest), BLOB_OK);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "{}", 2, 0, NULL), BLOB_OK);
    blob_contract_sleep_ms(20);
    CU_ASSERT_EQUAL(blob_store_sweep(s, 1000, NULL), BLOB_OK);
    content_digest(5000, 2, &digest);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_TRUE(content_intact(s, 5000, 2));
    CU_ASSERT_TRUE(content_intact(s, 3000, 1));
    blob_store_close(s);
}

CU_TestInfo *blob_contract_tests(void)
{
    static CU_TestInfo tests[] = {
        {"a new store has an id, capabilities that hold, and room", store_whole},
        {"the store's id stays", store_id_stays},
        {"the self-check finds nothing wrong and says what it tried", store_self_check},
        {"a sweep spares what is in use", store_sweep_spares},
        {"an upload becomes a blob, and is gone", contract_upload_whole},
        {"any size comes back, written in any pieces", contract_upload_sizes},
        {"an upload without bytes becomes the empty blob", contract_upload_empty},
        {"an upload goes on where a flush ended", contract_upload_resume},
        {"opening at a lower offset drops what was beyond", contract_upload_rollback},
        {"what was written beyond a flush is dropped when it is reopened", contract_upload_part_flushed},
        {"opening beyond what is there is NOT_FOUND", contract_upload_beyond},
        {"closing without a flush harms nothing that was flushed", contract_upload_unflushed},
        {"keep bytes come back with their offset", contract_upload_keep},
        {"upload_stat tells offset and time", contract_upload_stat},
        {"staged bytes can be read", contract_upload_read},
        {"a discarded upload is gone, and may be discarded again", contract_upload_discard},
        {"an upload discarded under its writer cannot be committed", contract_upload_discard_under_writer},
        {"every staged upload is listed", contract_upload_list},
        {"a commit that failed can be tried again", contract_upload_commit_again},
        {"a flush may run beside writes", contract_upload_flush_beside_write},
        {"uploads run in parallel", contract_upload_parallel},
        {"a late writer of another node changes nothing", contract_upload_contended},
        {"a writer that opens late cuts nothing off", contract_upload_late},
        {"flushed bytes are there after reopening", contract_upload_reopen},
        {"a blob that is not there is NOT_FOUND", contract_blob_missing},
        {"any range can be read", contract_blob_ranges},
        {"cursors read in order, beside each other, and end anywhere", contract_blob_cursors},
        {"a reader's descriptor gives the content", contract_blob_fd},
        {"equal content is stored once, and touched", contract_blob_dedupe},
        {"a damaged blob is replaced by the next commit", contract_blob_heals},
        {"damage that nobody has noticed heals, too", contract_blob_heals_unnoticed},
        {"damage that was noticed heals, whatever its size", contract_blob_heals_noticed},
        {"a blob is set aside only if not touched since", contract_blob_set_aside},
        {"an open reader survives that, or fails", contract_blob_set_aside_open},
        {"what came after is not set aside by who comes late", contract_blob_set_aside_again},
        {"touching starts the grace time anew", contract_blob_touch},
        {"each touch and commit has a time of its own", contract_blob_touch_tells},
        {"a blob is removed only if not touched since", contract_blob_remove},
        {"an open reader survives the removal, or fails", contract_blob_remove_open},
        {"blobs are listed in order, after any digest", contract_blob_list},
        {"a listing may remove blobs", contract_blob_list_removing},
        {"a removal does not undo a commit beside it", contract_blob_commit_beside_remove},
        {"what one node stores the others see", contract_blob_nodes},
        {"a lazy commit is seen at once, and stays", contract_blob_lazy},
        {"a record is put, replaced and got", contract_record_put},
        {"keys and values up to their bounds", contract_record_bounds},
        {"BLOB_IF_NONE creates, and changes nothing that is there", contract_record_if_none},
        {"a record is deleted, and may be deleted again", contract_record_delete},
        {"records are listed in byte order of their keys", contract_record_order},
        {"listings go on after a key, up to a limit", contract_record_pages},
        {"a listing gives values when asked", contract_record_list_values},
        {"a listing may delete records", contract_record_list_removing},
        {"lazy puts and deletes are seen at once, and stay", contract_record_lazy},
        {"of creators at the same time one wins", contract_record_if_none_race},
        {"a reader never sees half of a record", contract_record_whole},
        {"many records by many threads are all there", contract_record_many},
        CU_TEST_INFO_NULL};
    return tests;
}
