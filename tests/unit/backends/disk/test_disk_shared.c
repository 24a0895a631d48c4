/*
 * disk_shared - nodes that share a directory: whenever a node takes an upload over, be it between any two system calls
 * of another's commit, each blob is what its name says, and nobody's bytes are lost. The system calls that change names
 * are defined here, so that the other node can act just before the n-th of them.
 */
#include "backends/disk/disk_layout.h"
#include "backends/disk/disk_store.h"
#include "core/check.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static char root[TEMP_DIR_CHARS];

/* ---- the moment ---- */

static struct {
    void (*act)(void);
    int before; /* so many calls pass first; negative: all */
    bool crash; /* the calls from then on do nothing, and fail */
} moment = {.before = -1};

static bool pass(void)
{
    if (moment.before < 0)
        return true;
    if (moment.before > 0) {
        moment.before--;
        return true;
    }
    if (moment.crash) {
        errno = EIO;
        return false;
    }
    moment.before = -1;
    moment.act();
    return true;
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return pass() ? (int)syscall(SYS_renameat2, from_fd, from, to_fd, to, 0) : -1;
}

int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    return pass() ? (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags) : -1;
}

int unlinkat(int dirfd, const char *path, int flags)
{
    return pass() ? (int)syscall(SYS_unlinkat, dirfd, path, flags) : -1;
}

/* ---- two nodes ---- */

static struct blob_store *node[2];

static struct blob_store *open_shared(void)
{
    const struct disk_options opt = {.root = root, .shared = true};
    struct blob_store *s = NULL;
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    return s;
}

static void open_nodes(void)
{
    temp_dir_make(root);
    node[0] = open_shared();
    node[1] = open_shared();
}

static void close_nodes(void)
{
    blob_store_close(node[0]);
    blob_store_close(node[1]);
    temp_dir_remove(root);
}

static struct digest digest_of(const char *text)
{
    struct hash h;
    struct digest d;
    hash_init(&h);
    hash_update(&h, text, strlen(text));
    hash_peek(&h, &d);
    return d;
}

static struct blob_writer *writer(int n, const struct uuid *id, uint64_t offset, bool contended, uint64_t epoch)
{
    const struct upload_mark mark = {.offset = offset, .contended = contended};
    struct blob_writer *w = NULL;
    CU_ASSERT_EQUAL_FATAL(staged_open(node[n], id, &mark, epoch, &w, NULL), BLOB_OK);
    return w;
}

static void write_text(struct blob_writer *w, const char *text)
{
    struct upload_mark mark;
    CU_ASSERT_EQUAL_FATAL(writer_write_bytes(w, text, strlen(text), NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(writer_flush(w, w->position, NULL, 0, 0, &mark, NULL), BLOB_OK);
}

static enum blob_status commit(struct blob_writer *w, const char *text)
{
    struct digest d = digest_of(text);
    return writer_commit(w, &d, 0, NULL);
}

/* NOT_FOUND, OK, or CORRUPT where it is not what its name says. */
static enum blob_status look_at(const char *text)
{
    struct digest d = digest_of(text);
    struct blob_reader *r = NULL;
    struct blob_info info;
    char got[64] = "";
    enum blob_status st = blob_open(node[1], &d, &r, &info, NULL);
    if (st != BLOB_OK)
        return st;
    bool same = info.size == strlen(text) && reader_read(r, 0, got, strlen(text), NULL) == BLOB_OK &&
                memcmp(got, text, strlen(text)) == 0;
    reader_close(r);
    return same ? BLOB_OK : BLOB_E_CORRUPT;
}

/* ---- a takeover beside a commit ---- */

static struct uuid id;
static struct blob_writer *later;

/* NOT_FOUND: what was there has ended. */
static void take_over(void)
{
    const struct upload_mark mark = {.offset = 6, .contended = true};
    enum blob_status st = staged_open(node[1], &id, &mark, 7, &later, NULL);
    CU_ASSERT_TRUE(st == BLOB_OK || st == BLOB_E_NOT_FOUND);
}

/* False: there is no such moment any more. */
static bool takeover_before(int call)
{
    open_nodes();
    uuid_new(&id);
    struct blob_writer *older = writer(0, &id, 0, false, 5);
    write_text(older, "common");
    write_text(older, " older");
    later = NULL;
    moment.act = take_over;
    moment.crash = false;
    moment.before = call;
    enum blob_status st = commit(older, "common older");
    bool met = moment.before < 0;
    moment.before = -1;
    enum blob_status seen = look_at("common older");
    CU_ASSERT_TRUE(st == BLOB_OK || st == BLOB_E_CONFLICT);
    CU_ASSERT_EQUAL(seen, st == BLOB_OK ? BLOB_OK : BLOB_E_NOT_FOUND);
    CU_ASSERT_TRUE(later || st == BLOB_OK);
    if (st != BLOB_OK)
        writer_close(older);
    if (later) {
        write_text(later, " newer");
        CU_ASSERT_EQUAL(commit(later, "common newer"), BLOB_OK);
        CU_ASSERT_EQUAL(look_at("common newer"), BLOB_OK);
        struct staged_stat stat;
        CU_ASSERT_EQUAL(staged_stat(node[0], &id, &stat, NULL), BLOB_E_NOT_FOUND);
    }
    close_nodes();
    return met;
}

static void test_takeover_at_any_moment(void)
{
    int calls = 0;
    while (takeover_before(calls))
        calls++;
    CU_ASSERT_TRUE(calls > 0);
}

/* ---- cut off ---- */

/* A node that dies in its commit leaves the upload, or the blob, or both; then they must not be one file that is
 * written on. */
static void test_cut_off_at_any_moment(void)
{
    for (int call = 0; call < 6; call++) {
        open_nodes();
        uuid_new(&id);
        struct blob_writer *w = writer(0, &id, 0, false, 5);
        write_text(w, "finished");
        moment.crash = true;
        moment.before = call;
        enum blob_status st = commit(w, "finished");
        moment.before = -1;
        if (st != BLOB_OK)
            writer_close(w);
        enum blob_status seen = look_at("finished");
        CU_ASSERT_TRUE(seen == BLOB_OK || (st != BLOB_OK && seen == BLOB_E_NOT_FOUND));
        struct staged_stat stat;
        if (staged_stat(node[1], &id, &stat, NULL) == BLOB_OK) {
            CU_ASSERT_EQUAL(stat.mark.offset, 8);
            w = writer(1, &id, 8, false, 6);
            write_text(w, ", and more");
            CU_ASSERT_EQUAL(look_at("finished"), seen);
            CU_ASSERT_EQUAL(commit(w, "finished, and more"), BLOB_OK);
            CU_ASSERT_EQUAL(look_at("finished, and more"), BLOB_OK);
            CU_ASSERT_EQUAL(look_at("finished"), seen);
        } else {
            CU_ASSERT_EQUAL(seen, BLOB_OK);
        }
        close_nodes();
    }
}

/* ---- the fence ---- */

#define ROUNDS 3000

struct claim {
    pthread_barrier_t *start;
    int node;
    uint64_t epoch;
    atomic_int *passed;
};

static void *claim_main(void *arg)
{
    struct claim *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct blob_writer *w = NULL;
        pthread_barrier_wait(c->start);
        if (staged_open(node[c->node], &id, &(struct upload_mark){0}, c->epoch + (uint64_t)i * 10, &w, NULL) ==
            BLOB_OK) {
            atomic_fetch_add(c->passed, 1);
            writer_close(w);
        }
        pthread_barrier_wait(c->start);
    }
    return NULL;
}

static bool has_attributes(void)
{
    return fsetxattr(open(root, O_RDONLY), "user.blobd.test", "1", 1, 0) == 0;
}

/* Of two that claim an upload at one time, the higher passes, and is what later ones meet. */
static void test_fence_of_two_at_a_time(void)
{
    open_nodes();
    if (!has_attributes()) {
        close_nodes();
        return;
    }
    uuid_new(&id);
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, 3);
    atomic_int low_passed = 0, high_passed = 0;
    struct claim low = {&start, 0, 5, &low_passed}, high = {&start, 1, 7, &high_passed};
    pthread_t threads[2];
    CHECK(pthread_create(&threads[0], NULL, claim_main, &low) == 0);
    CHECK(pthread_create(&threads[1], NULL, claim_main, &high) == 0);
    int lowered = 0;
    for (int i = 0; i < ROUNDS; i++) {
        struct blob_writer *w = NULL;
        pthread_barrier_wait(&start);
        pthread_barrier_wait(&start);
        if (staged_open(node[0], &id, &(struct upload_mark){0}, 6 + (uint64_t)i * 10, &w, NULL) != BLOB_E_CONFLICT) {
            lowered++;
            writer_close(w);
        }
    }
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    pthread_barrier_destroy(&start);
    CU_ASSERT_EQUAL(lowered, 0);
    CU_ASSERT_EQUAL(high_passed, ROUNDS);
    close_nodes();
}

/* Left by a version that kept one attribute. */
static void test_fence_of_an_earlier_version(void)
{
    open_nodes();
    uuid_new(&id);
    struct disk_path path;
    char whole[TEMP_DIR_CHARS + DISK_PATH_MAX];
    struct blob_writer *w = writer(0, &id, 0, false, 3);
    writer_close(w);
    disk_upload_path(&id, &path);
    snprintf(whole, sizeof whole, "%s/%s", root, path.text);
    const uint8_t nine[8] = {0, 0, 0, 0, 0, 0, 0, 9};
    if (setxattr(whole, "user.blobd.epoch", nine, sizeof nine, 0) == 0) {
        CU_ASSERT_EQUAL(staged_open(node[0], &id, &(struct upload_mark){0}, 8, &w, NULL), BLOB_E_CONFLICT);
        writer_close(writer(0, &id, 0, false, 10));
    }
    close_nodes();
}

int main(void)
{
    CU_TestInfo tests[] = {{"an upload is taken over at any moment of a commit", test_takeover_at_any_moment},
                           {"a commit is cut off at any moment", test_cut_off_at_any_moment},
                           {"of two claims at a time the higher one stays", test_fence_of_two_at_a_time},
                           {"the fence of an earlier version holds", test_fence_of_an_earlier_version},
                           CU_TEST_INFO_NULL};
    return unit_main("disk, shared by nodes", tests);
}
