/* memory_store - the reference passes the contract it is the reference of; and refuses what does not fit. */
#include "backends/memory/memory_store.h"

#include "tests/contract/blob_store_contract.h"
#include "tests/rig/unit_main.h"

static void no_reset(void)
{
}

static enum blob_status open_memory(struct blob_store **out, struct blob_error *err)
{
    return memory_store_open(NULL, out, err);
}

static int use_memory(void)
{
    static const struct blob_contract contract = {.name = "memory", .reset = no_reset, .open = open_memory};
    blob_contract_use(&contract);
    return 0;
}

static void test_full(void)
{
    const struct memory_options opt = {.max_bytes = 100};
    struct blob_store *s = NULL;
    struct blob_writer *w = NULL;
    struct upload_mark mark = {0};
    struct uuid id;
    char bytes[101] = {0};
    uuid_new(&id);
    CU_ASSERT_EQUAL_FATAL(memory_store_open(&opt, &s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_store_room(s, 100, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_store_room(s, 101, NULL), BLOB_E_NO_SPACE);
    CU_ASSERT_EQUAL_FATAL(staged_open(s, &id, &mark, 1, &w, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_write_bytes(w, bytes, 101, NULL), BLOB_E_NO_SPACE);
    CU_ASSERT_EQUAL(w->position, 0);
    CU_ASSERT_EQUAL(writer_write_bytes(w, bytes, 60, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_write_bytes(w, bytes, 41, NULL), BLOB_E_NO_SPACE);
    const struct iovec parts[] = {{.iov_base = bytes, .iov_len = 30}, {.iov_base = bytes, .iov_len = 11}};
    CU_ASSERT_EQUAL(writer_write(w, parts, 2, NULL), BLOB_E_NO_SPACE); /* all or nothing */
    CU_ASSERT_EQUAL(w->position, 60);
    CU_ASSERT_EQUAL(writer_write_bytes(w, bytes, 40, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, 100, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    CU_ASSERT_EQUAL(staged_discard(s, &id, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_store_room(s, 100, NULL), BLOB_OK);
    blob_store_close(s);
}

/* Another node begins as soon as it is told that this writer is done, which may be before it is closed. */
static void test_closing_late(void)
{
    struct blob_store *s = NULL;
    struct blob_writer *older = NULL, *newer = NULL;
    struct upload_mark mark = {0};
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL_FATAL(memory_store_open(NULL, &s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(staged_open(s, &id, &mark, 1, &older, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_write_bytes(older, "flushed, lost", 13, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(older, 7, NULL, 0, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(staged_open(s, &id, &mark, 2, &newer, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_write_bytes(newer, " newer", 6, NULL), BLOB_OK);
    writer_close(older);
    CU_ASSERT_EQUAL(writer_write_bytes(newer, " bytes", 6, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(newer->position, 19);
    CU_ASSERT_EQUAL(writer_flush(newer, 19, NULL, 0, 0, &mark, NULL), BLOB_OK);
    char found[20] = "";
    size_t got = 0;
    CU_ASSERT_EQUAL(staged_read(s, &id, 0, found, 19, &got, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(found, "flushed newer bytes");
    writer_close(newer);
    blob_store_close(s);
}

static void test_foreign_mark(void)
{
    struct blob_store *s = NULL;
    struct blob_writer *w = NULL;
    struct upload_mark mark = {.offset = 10};
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL_FATAL(memory_store_open(NULL, &s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(staged_open(s, &id, &mark, 1, &w, NULL), BLOB_E_INVALID);
    CU_ASSERT_PTR_NULL(w);
    blob_store_close(s);
}

int main(void)
{
    CU_TestInfo own[] = {{"what does not fit is refused, and harms nothing", test_full},
                         {"a writer that is closed late takes nothing from the next", test_closing_late},
                         {"a mark of another store is refused", test_foreign_mark},
                         CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"memory store", use_memory, NULL, NULL, NULL, blob_contract_tests()},
                             {"memory store, by itself", NULL, NULL, NULL, NULL, own},
                             CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
