/*
 * disk_marks - a staged file's length is no promise: what a power cut left beyond the flushed offset is not told, in
 * every mode, and what versions without marks have staged is taken as they left it.
 */
#include "backends/disk/disk_store.h"
#include "tests/contract/blob_contract_parts.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FLUSHED 100000u
#define TAIL    800000u
#define SEED    7
#define MARK    "user.blobd.flushed"

enum mode { JOURNAL, PLAIN, SHARED, MODES };

static struct blob_store *store_in(const char *root, enum mode mode)
{
    const struct disk_options opt = {.root = root, .journal = mode == JOURNAL, .shared = mode == SHARED};
    struct blob_store *s = NULL;
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    return s;
}

static void stage(struct blob_store *s, const struct uuid *id, uint64_t from, uint64_t to)
{
    struct upload_mark mark = {.offset = from};
    struct blob_writer *w = NULL;
    CU_ASSERT_EQUAL_FATAL(staged_open(s, id, &mark, 1, &w, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, to, 50000, SEED), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, to, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
}

static uint64_t told(struct blob_store *s, const struct uuid *id)
{
    struct staged_stat stat = {.mark = {.offset = 0}};
    enum blob_status st = staged_stat(s, id, &stat, NULL);
    CU_ASSERT_TRUE(st == BLOB_OK || st == BLOB_E_NOT_FOUND);
    return stat.mark.offset;
}

static int open_staged(const char *root, const struct uuid *id)
{
    char path[TEMP_DIR_CHARS + 64];
    snprintf(path, sizeof path, "%s/uploads/%.2s/%s", root, id->text, id->text);
    int fd = open(path, O_RDWR | O_CREAT, 0640);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    return fd;
}

/* As a power cut may leave it: pages that were not synced, of which only the length survived. */
static void leave_tail(const char *root, const struct uuid *id, off_t size)
{
    int fd = open_staged(root, id);
    CU_ASSERT_EQUAL(ftruncate(fd, size), 0);
    close(fd);
}

static void write_lock(const char *root, const char *text)
{
    char path[TEMP_DIR_CHARS + 8];
    snprintf(path, sizeof path, "%s/lock", root);
    FILE *f = fopen(path, "we");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    fputs(text, f);
    fclose(f);
}

static void test_tail(void)
{
    for (enum mode mode = JOURNAL; mode < MODES; mode++) {
        char root[TEMP_DIR_CHARS];
        struct uuid id, fresh;
        uuid_new(&id);
        uuid_new(&fresh);
        temp_dir_make(root);
        struct blob_store *s = store_in(root, mode);
        stage(s, &id, 0, FLUSHED);
        CU_ASSERT_EQUAL(told(s, &id), FLUSHED);
        blob_store_close(s);
        leave_tail(root, &id, FLUSHED + TAIL);
        s = store_in(root, mode);
        CU_ASSERT_EQUAL(told(s, &id), FLUSHED);
        const struct upload_mark beyond = {.offset = FLUSHED + TAIL};
        struct blob_writer *w = NULL;
        CU_ASSERT_EQUAL(staged_open(s, &id, &beyond, 2, &w, NULL), BLOB_E_NOT_FOUND);
        stage(s, &id, FLUSHED, 2 * FLUSHED);
        CU_ASSERT_EQUAL(told(s, &id), 2 * FLUSHED);
        const struct upload_mark end = {.offset = 2 * FLUSHED};
        struct digest digest;
        content_digest(2 * FLUSHED, SEED, &digest);
        CU_ASSERT_EQUAL_FATAL(staged_open(s, &id, &end, 3, &w, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
        CU_ASSERT_TRUE(content_intact(s, 2 * FLUSHED, SEED));
        blob_store_close(s);
        temp_dir_remove(root);
    }
}

/* Nothing of it was ever flushed. */
static void test_never_flushed(void)
{
    for (enum mode mode = JOURNAL; mode < MODES; mode++) {
        char root[TEMP_DIR_CHARS];
        struct uuid id;
        uuid_new(&id);
        temp_dir_make(root);
        struct blob_store *s = store_in(root, mode);
        const struct upload_mark start = {0};
        struct blob_writer *w = NULL;
        CU_ASSERT_EQUAL_FATAL(staged_open(s, &id, &start, 1, &w, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(content_write(w, FLUSHED, 50000, SEED), BLOB_OK);
        writer_close(w);
        CU_ASSERT_EQUAL(told(s, &id), 0);
        blob_store_close(s);
        s = store_in(root, mode);
        CU_ASSERT_EQUAL(told(s, &id), 0);
        stage(s, &id, 0, FLUSHED);
        CU_ASSERT_EQUAL(told(s, &id), FLUSHED);
        blob_store_close(s);
        temp_dir_remove(root);
    }
}

/* Whose sum is of other bytes: the mark survived, its content did not. */
static void test_mark_without_content(void)
{
    char root[TEMP_DIR_CHARS];
    struct uuid id;
    uuid_new(&id);
    temp_dir_make(root);
    struct blob_store *s = store_in(root, PLAIN);
    stage(s, &id, 0, 1000);
    stage(s, &id, 1000, FLUSHED);
    blob_store_close(s);
    int fd = open_staged(root, &id);
    CU_ASSERT_EQUAL(pwrite(fd, "damage", 6, FLUSHED - 6), 6);
    close(fd);
    s = store_in(root, PLAIN);
    CU_ASSERT_EQUAL(told(s, &id), 1000);
    stage(s, &id, 1000, FLUSHED);
    CU_ASSERT_EQUAL(told(s, &id), FLUSHED);
    blob_store_close(s);
    temp_dir_remove(root);
}

/* A version without marks has used the store: what it staged has none, and what it went on with an old one. */
static void test_older_version(void)
{
    for (enum mode mode = JOURNAL; mode < MODES; mode++) {
        char root[TEMP_DIR_CHARS];
        struct uuid marked, unmarked;
        uuid_new(&marked);
        uuid_new(&unmarked);
        temp_dir_make(root);
        struct blob_store *s = store_in(root, mode);
        stage(s, &marked, 0, FLUSHED);
        stage(s, &unmarked, 0, FLUSHED);
        blob_store_close(s);
        int fd = open_staged(root, &unmarked);
        CU_ASSERT_EQUAL(fremovexattr(fd, MARK), 0);
        close(fd);
        leave_tail(root, &marked, 2 * FLUSHED);
        write_lock(root, "123\n");
        s = store_in(root, mode);
        CU_ASSERT_EQUAL(told(s, &marked), 2 * FLUSHED);
        CU_ASSERT_EQUAL(told(s, &unmarked), FLUSHED);
        blob_store_close(s);
        /* From now on marks count. */
        leave_tail(root, &unmarked, 2 * FLUSHED);
        s = store_in(root, mode);
        CU_ASSERT_EQUAL(told(s, &unmarked), FLUSHED);
        blob_store_close(s);
        temp_dir_remove(root);
    }
}

/* Beside nodes of a version without marks nothing is known but the length. */
static void test_beside_older_version(void)
{
    char root[TEMP_DIR_CHARS];
    struct uuid id;
    uuid_new(&id);
    temp_dir_make(root);
    struct blob_store *s = store_in(root, SHARED);
    stage(s, &id, 0, FLUSHED);
    write_lock(root, "123\n");
    leave_tail(root, &id, 2 * FLUSHED);
    CU_ASSERT_EQUAL(told(s, &id), 2 * FLUSHED);
    struct blob_store *other = store_in(root, SHARED);
    CU_ASSERT_EQUAL(told(other, &id), 2 * FLUSHED);
    blob_store_close(other);
    blob_store_close(s);
    temp_dir_remove(root);
}

int main(void)
{
    CU_TestInfo tests[] = {{"a tail that was not flushed is not told", test_tail},
                           {"what was never flushed has no bytes", test_never_flushed},
                           {"a mark whose content is lost does not count", test_mark_without_content},
                           {"what a version without marks staged counts by its length", test_older_version},
                           {"beside nodes without marks the length counts", test_beside_older_version},
                           CU_TEST_INFO_NULL};
    return unit_main("disk marks", tests);
}
