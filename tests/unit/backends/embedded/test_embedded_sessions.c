/*
 * embedded_sessions - passes the contract; survives kill -9; does not trust files that a power loss may have cut; sets
 * damaged ones aside; keeps a second process out.
 */
#include "backends/embedded/embedded_sessions.h"

#include "core/check.h"
#include "core/clock.h"
#include "tests/contract/session_store_contract.h"
#include "tests/rig/unit_main.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STORE_ID "5f0e0a36-0000-4000-8000-000000000000"

static char dir[64], path[96], lock_path[112], index_path[112];

static void empty_dir(void)
{
    DIR *d = opendir(dir);
    CHECK(d);
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
}

static int make_dir(void)
{
    snprintf(dir, sizeof dir, "/tmp/blobd-sessions-XXXXXX");
    CHECK(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/sessions.db", dir);
    snprintf(lock_path, sizeof lock_path, "%s.lock", path);
    snprintf(index_path, sizeof index_path, "%s.index", path);
    return 0;
}

static int remove_dir(void)
{
    empty_dir();
    return rmdir(dir);
}

static enum blob_status open_here(struct session_store **out, struct blob_error *err)
{
    struct embedded_sessions_options opt = {.path = path};
    return embedded_sessions_open(&opt, out, err);
}

static struct session_store *opened(void)
{
    struct session_store *s = NULL;
    struct blob_error err = {0};
    enum blob_status st = open_here(&s, &err);
    if (st == BLOB_OK)
        st = session_store_join(s, "node", STORE_ID, clock_wall_ms(), &err);
    if (st != BLOB_OK) {
        fprintf(stderr, "%s: %s\n", blob_status_name(st), err.text);
        CU_FAIL_FATAL("open");
    }
    return s;
}

static int use_embedded(void)
{
    static const struct session_contract contract = {
        .name = "embedded", .reset = empty_dir, .open = open_here, .persists = true};
    session_contract_use(&contract);
    return make_dir();
}

/* The session's epoch, or 0 when it is not there. */
static uint64_t epoch_of(struct session_store *s, const struct uuid *id)
{
    struct bytebuf b;
    uint64_t epoch = 0;
    bytebuf_init(&b);
    enum blob_status st = session_load(s, id, &b, &epoch, NULL);
    CU_ASSERT(st == BLOB_OK || st == BLOB_E_NOT_FOUND);
    bytebuf_release(&b);
    return epoch;
}

static void put_row(struct session_store *s, const char *id)
{
    struct index_row row = {.size = 1, .created_ms = 1, .value = "{}", .value_len = 2};
    snprintf(row.id, sizeof row.id, "%s", id);
    snprintf(row.name, sizeof row.name, "%s.wav", id);
    CU_ASSERT_EQUAL(index_put(s, &row, NULL), BLOB_OK);
}

static bool no_row(const struct index_row *row, void *arg)
{
    (void)row;
    (void)arg;
    return true;
}

static uint64_t row_count(struct session_store *s)
{
    struct index_query q = {.order = {{INDEX_BY_CREATED, false}}, .orders = 1, .top = 1};
    uint64_t count = 0;
    CU_ASSERT_EQUAL(index_list(s, &q, &count, no_row, NULL, NULL), BLOB_OK);
    return count;
}

static bool name_exists(const char *part)
{
    bool found = false;
    DIR *d = opendir(dir);
    CHECK(d);
    for (struct dirent *e; (e = readdir(d));)
        found |= strstr(e->d_name, part) != NULL;
    closedir(d);
    return found;
}

static void overwrite(const char *file, off_t at, const char *bytes, size_t len, bool truncate)
{
    int fd = open(file, O_WRONLY | O_CREAT | (truncate ? O_TRUNC : 0), 0600);
    CHECK(fd >= 0 && pwrite(fd, bytes, len, at) == (ssize_t)len);
    close(fd);
}

/* ---- ends that are not clean ---- */

/* Runs body in a child that dies by SIGKILL in the middle of its work. */
static void killed(void (*body)(struct session_store *s, const struct uuid *id), const struct uuid *id)
{
    fflush(stdout);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct session_store *s = NULL;
        if (open_here(&s, NULL) == BLOB_OK &&
            session_store_join(s, "child", STORE_ID, clock_wall_ms(), NULL) == BLOB_OK)
            body(s, id);
        kill(getpid(), SIGKILL);
    }
    int status = 0;
    CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void insert_and_replace(struct session_store *s, const struct uuid *id)
{
    int64_t later = clock_wall_ms() + 60000;
    if (session_insert(s, id, 1, "a", 1, later, NULL) != BLOB_OK)
        _exit(1);
    for (uint64_t epoch = 1; epoch < 2000; epoch++)
        if (session_replace(s, id, epoch, epoch + 1, &epoch, sizeof epoch, later, NULL) != BLOB_OK)
            _exit(1);
    if (index_rebuild_begin(s, NULL) != BLOB_OK || index_rebuild_end(s, NULL) != BLOB_OK)
        _exit(1);
}

static void test_kill(void)
{
    empty_dir();
    struct uuid id;
    uuid_new(&id);
    killed(insert_and_replace, &id);
    struct session_store *s = opened();
    CU_ASSERT_EQUAL(epoch_of(s, &id), 2000);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    session_store_close(s);
}

static void test_power_loss(void)
{
    empty_dir();
    struct uuid id;
    uuid_new(&id);
    struct session_store *s = opened();
    CU_ASSERT_EQUAL(session_insert(s, &id, 7, "a", 1, clock_wall_ms() + 60000, NULL), BLOB_OK);
    put_row(s, "row");
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    session_store_close(s);
    /* As if it had been open when another boot ended. */
    static const char note[] = "open 00000000-0000-4000-8000-000000000000\n";
    overwrite(lock_path, 0, note, strlen(note), true);
    s = opened();
    CU_ASSERT_EQUAL(epoch_of(s, &id), 0);
    CU_ASSERT_EQUAL(row_count(s), 0);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    session_store_close(s);
    s = opened(); /* and now it was closed cleanly */
    CU_ASSERT_EQUAL(session_insert(s, &id, 3, "a", 1, clock_wall_ms() + 60000, NULL), BLOB_OK);
    session_store_close(s);
    s = opened();
    CU_ASSERT_EQUAL(epoch_of(s, &id), 3);
    session_store_close(s);
    overwrite(lock_path, 0, "op", 2, true); /* a torn note */
    s = opened();
    CU_ASSERT_EQUAL(epoch_of(s, &id), 0);
    session_store_close(s);
}

/* ---- damage ---- */

static struct uuid store_with_much(void)
{
    struct uuid id;
    struct session_store *s = opened();
    char value[700] = "value";
    for (int i = 0; i < 500; i++) {
        uuid_new(&id);
        CU_ASSERT_EQUAL_FATAL(session_insert(s, &id, 1, value, sizeof value, clock_wall_ms() + 60000, NULL), BLOB_OK);
        char row[16];
        snprintf(row, sizeof row, "row-%d", i);
        put_row(s, row);
    }
    session_store_close(s);
    return id;
}

/* The store opens, and after at most one refused operation each of its halves works again. */
static void check_heals(const char *what, const struct uuid *id)
{
    struct session_store *s = opened();
    struct bytebuf b;
    struct uuid fresh;
    uint64_t epoch = 0, count = 0;
    struct index_query q = {.order = {{INDEX_BY_NAME, false}}, .orders = 1, .top = 100};
    bytebuf_init(&b);
    enum blob_status st = session_load(s, id, &b, &epoch, NULL);
    CU_ASSERT(st == BLOB_E_NOT_FOUND || st == BLOB_E_UNAVAILABLE);
    st = index_list(s, &q, &count, no_row, NULL, NULL);
    CU_ASSERT((st == BLOB_OK && count == 0) || st == BLOB_E_UNAVAILABLE);
    uuid_new(&fresh);
    CU_ASSERT_EQUAL(session_insert(s, &fresh, 2, "v", 1, clock_wall_ms() + 60000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(epoch_of(s, &fresh), 2);
    put_row(s, "after");
    CU_ASSERT_EQUAL(row_count(s), 1);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_TRUE(name_exists("sessions.db.damaged-"));
    CU_ASSERT_TRUE(name_exists("sessions.db.index.damaged-"));
    if (CU_get_number_of_failures() > 0)
        fprintf(stderr, "with %s\n", what);
    bytebuf_release(&b);
    session_store_close(s);
}

static void test_not_a_database(void)
{
    empty_dir();
    struct uuid id = store_with_much();
    char junk[8192];
    memset(junk, 'j', sizeof junk);
    overwrite(path, 0, junk, sizeof junk, true);
    overwrite(index_path, 0, junk, sizeof junk, true);
    check_heals("files of junk", &id);
}

static void test_damage_inside(void)
{
    empty_dir();
    struct uuid id = store_with_much();
    char junk[8192];
    memset(junk, 0xee, sizeof junk);
    /* Every page but the first. */
    struct stat st;
    CHECK(stat(path, &st) == 0);
    for (off_t at = 4096; at < st.st_size; at += 4096)
        overwrite(path, at, junk, 4096, false);
    CHECK(stat(index_path, &st) == 0);
    for (off_t at = 8192; at < st.st_size; at += 8192)
        overwrite(index_path, at, junk, 8192, false);
    check_heals("pages of junk", &id);
}

/* ---- one process, one blob store ---- */

static void test_second_process(void)
{
    empty_dir();
    struct session_store *s = opened(), *other = NULL;
    struct blob_error err = {0};
    CU_ASSERT_EQUAL(open_here(&other, &err), BLOB_E_CONFLICT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "redis"));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, path));
    struct uuid id;
    uuid_new(&id);
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, clock_wall_ms() + 60000, NULL), BLOB_OK);
    session_store_close(s);
    s = opened();
    CU_ASSERT_EQUAL(epoch_of(s, &id), 1);
    session_store_close(s);
}

static void test_other_blob_store(void)
{
    empty_dir();
    struct uuid id;
    uuid_new(&id);
    struct session_store *s = opened();
    CU_ASSERT_EQUAL(session_insert(s, &id, 1, "a", 1, clock_wall_ms() + 60000, NULL), BLOB_OK);
    put_row(s, "row");
    CU_ASSERT_EQUAL(index_rebuild_begin(s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(index_rebuild_end(s, NULL), BLOB_OK);
    session_store_close(s);
    s = NULL;
    CU_ASSERT_EQUAL_FATAL(open_here(&s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(session_store_join(s, "node", "99999999-0000-4000-8000-000000000000", clock_wall_ms(), NULL),
                    BLOB_OK);
    CU_ASSERT_EQUAL(epoch_of(s, &id), 0);
    CU_ASSERT_EQUAL(row_count(s), 0);
    CU_ASSERT_EQUAL(index_whole(s, NULL), BLOB_E_NOT_FOUND);
    session_store_close(s);
}

static void test_no_directory(void)
{
    struct session_store *s = NULL;
    struct blob_error err = {0};
    struct embedded_sessions_options opt = {.path = "/nonexistent/blobd/sessions.db"};
    CU_ASSERT_NOT_EQUAL(embedded_sessions_open(&opt, &s, &err), BLOB_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "/nonexistent/blobd"));
    CU_ASSERT_PTR_NULL(s);
}

static void test_queue_longer_than_a_batch(void)
{
    empty_dir();
    struct session_store *s = opened();
    char value[4000] = "{}";
    struct index_row row = {.size = 1, .value = value, .value_len = sizeof value};
    for (int i = 0; i < 5000; i++) {
        snprintf(row.id, sizeof row.id, "%d", i);
        row.created_ms = i;
        CU_ASSERT_EQUAL_FATAL(index_put(s, &row, NULL), BLOB_OK);
    }
    CU_ASSERT_EQUAL(row_count(s), 5000);
    session_store_close(s);
}

int main(void)
{
    CU_TestInfo own[] = {{"kill -9 loses no session, and the index knows that it may have", test_kill},
                         {"files open at a power loss are not read again", test_power_loss},
                         {"files that are no databases are set aside", test_not_a_database},
                         {"damage found while running is healed by a new file", test_damage_inside},
                         {"a second process is refused, and told of Redis", test_second_process},
                         {"sessions of another blob store are dropped", test_other_blob_store},
                         {"a path without a directory is an error that names it", test_no_directory},
                         {"more rows than a batch holds are all listed", test_queue_longer_than_a_batch},
                         CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {
        {"embedded sessions: contract", use_embedded, remove_dir, NULL, NULL, session_contract_tests()},
        {"embedded sessions", make_dir, remove_dir, NULL, NULL, own},
        CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
