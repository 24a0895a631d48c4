/*
 * disk_store - passes the contract with its journal, without, and shared; and its own promises: who may open it, what a
 * full or failing disk does, what the journal brings back.
 */
#include "backends/disk/disk_store.h"

#include "backends/disk/disk_layout.h"
#include "core/check.h"
#include "core/fault.h"
#include "tests/contract/blob_contract_parts.h"
#include "tests/contract/blob_store_contract.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char root[TEMP_DIR_CHARS];

static void reset_root(void)
{
    temp_dir_remove(root);
    temp_dir_make(root);
}

static int drop_root(void)
{
    temp_dir_remove(root);
    root[0] = '\0';
    return 0;
}

/* ---- the contract ---- */

/* Small segments, so that they fill up and are reused. */
static struct disk_options options(bool journal, bool shared)
{
    return (struct disk_options){.root = root,
                                 .journal = journal,
                                 .shared = shared,
                                 .journal_segment_bytes = 1u << 20,
                                 .journal_segments = 4,
                                 .checkpoint_ms = 300};
}

static enum blob_status open_journal(struct blob_store **out, struct blob_error *err)
{
    const struct disk_options opt = options(true, false);
    return disk_store_open(&opt, out, err);
}

static enum blob_status open_plain(struct blob_store **out, struct blob_error *err)
{
    const struct disk_options opt = options(false, false);
    return disk_store_open(&opt, out, err);
}

static enum blob_status open_shared(struct blob_store **out, struct blob_error *err)
{
    const struct disk_options opt = options(false, true);
    return disk_store_open(&opt, out, err);
}

static enum blob_status open_direct(struct blob_store **out, struct blob_error *err)
{
    struct disk_options opt = options(true, false);
    opt.direct_min_bytes = 1;
    return disk_store_open(&opt, out, err);
}

static void path_of(const char *name, char out[512])
{
    CHECK(snprintf(out, 512, "%s/%s", root, name) < 512);
}

static void damage(const struct digest *digest)
{
    struct disk_path path;
    char whole[512];
    disk_blob_path(digest, &path);
    path_of(path.text, whole);
    CHECK(truncate(whole, 5) == 0);
}

static void corrupt(const struct digest *digest)
{
    struct disk_path path;
    struct stat sb;
    char whole[512], byte;
    disk_blob_path(digest, &path);
    path_of(path.text, whole);
    int fd = open(whole, O_RDWR);
    CHECK(fd >= 0 && fstat(fd, &sb) == 0 && pread(fd, &byte, 1, sb.st_size / 2) == 1);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, sb.st_size / 2) == 1);
    const struct timespec times[2] = {sb.st_atim, sb.st_mtim}; /* as a disk does it */
    CHECK(futimens(fd, times) == 0 && close(fd) == 0);
}

static int use_journal(void)
{
    static const struct blob_contract contract = {.name = "disk",
                                                  .reset = reset_root,
                                                  .open = open_journal,
                                                  .persists = true,
                                                  .damage = damage,
                                                  .corrupt = corrupt};
    blob_contract_use(&contract);
    return 0;
}

static int use_plain(void)
{
    static const struct blob_contract contract = {.name = "disk without a journal",
                                                  .reset = reset_root,
                                                  .open = open_plain,
                                                  .persists = true,
                                                  .damage = damage,
                                                  .corrupt = corrupt};
    blob_contract_use(&contract);
    return 0;
}

static int use_direct(void)
{
    static const struct blob_contract contract = {.name = "disk past the page cache",
                                                  .reset = reset_root,
                                                  .open = open_direct,
                                                  .persists = true,
                                                  .damage = damage,
                                                  .corrupt = corrupt};
    blob_contract_use(&contract);
    return 0;
}

static int use_shared(void)
{
    static const struct blob_contract contract = {.name = "disk shared",
                                                  .reset = reset_root,
                                                  .open = open_shared,
                                                  .persists = true,
                                                  .damage = damage,
                                                  .corrupt = corrupt};
    blob_contract_use(&contract);
    return 0;
}

/* ---- opening ---- */

static struct blob_store *open_or_fail(enum blob_status (*open_store)(struct blob_store **, struct blob_error *))
{
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    enum blob_status st = open_store(&s, &err);
    if (st != BLOB_OK) {
        fprintf(stderr, "%s: %s\n", blob_status_name(st), err.text);
        CU_FAIL_FATAL("the store does not open");
    }
    return s;
}

static void test_second_refused(void)
{
    reset_root();
    struct blob_store *s = open_or_fail(open_journal), *second = NULL;
    struct blob_error err = {0};
    char pid[32];
    snprintf(pid, sizeof pid, "process %ld", (long)getpid());
    CU_ASSERT_EQUAL(open_plain(&second, &err), BLOB_E_CONFLICT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, pid));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, root));
    CU_ASSERT_PTR_NULL(second);
    blob_store_close(s);
    s = open_or_fail(open_plain);
    blob_store_close(s);
}

static void test_shared_or_not(void)
{
    reset_root();
    struct blob_store *a = open_or_fail(open_shared), *b = open_or_fail(open_shared), *c = NULL;
    CU_ASSERT_EQUAL(open_journal(&c, NULL), BLOB_E_CONFLICT);
    blob_store_close(a);
    CU_ASSERT_EQUAL(open_plain(&c, NULL), BLOB_E_CONFLICT);
    blob_store_close(b);
    a = open_or_fail(open_journal);
    blob_store_close(a);
}

static void write_file(const char *name, const char *text)
{
    char path[512];
    path_of(name, path);
    FILE *f = fopen(path, "w");
    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0);
}

static void test_bad_store_file(void)
{
    static const struct {
        const char *text;
        enum blob_status status;
    } cases[] = {
        {"", BLOB_E_CORRUPT},
        {"{", BLOB_E_CORRUPT},
        {"[]", BLOB_E_CORRUPT},
        {"{\"format\": 2}", BLOB_E_CORRUPT},
        {"{\"format\": 2, \"store_id\": \"x\"}", BLOB_E_CORRUPT},
        {"{\"format\": 1, \"store_id\": \"5f0e0a36-0000-4000-8000-000000000000\"}", BLOB_E_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct blob_store *s = NULL;
        reset_root();
        write_file(DISK_STORE_FILE, cases[i].text);
        CU_ASSERT_EQUAL(open_journal(&s, NULL), cases[i].status);
        CU_ASSERT_PTR_NULL(s);
    }
    char path[512];
    struct blob_store *s = NULL;
    reset_root();
    path_of(DISK_BLOBS, path);
    CU_ASSERT_EQUAL(mkdir(path, 0700), 0);
    CU_ASSERT_EQUAL(open_journal(&s, NULL), BLOB_E_CORRUPT);
}

static void test_root_unusable(void)
{
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    struct disk_options opt = {.root = "/nonexistent/blobd/root"};
    CU_ASSERT_EQUAL(disk_store_open(&opt, &s, &err), BLOB_E_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, opt.root));
    opt.root = "/dev/null";
    CU_ASSERT_NOT_EQUAL(disk_store_open(&opt, &s, &err), BLOB_OK);
    CU_ASSERT_PTR_NULL(s);
}

static void test_leftovers(void)
{
    char path[512];
    reset_root();
    blob_store_close(open_or_fail(open_journal));
    write_file("tmp/0123456789ab.1", "half a record");
    path_of("tmp/0123456789ab.1", path);
    blob_store_close(open_or_fail(open_journal));
    CU_ASSERT_EQUAL(access(path, F_OK), -1);
    /* While others share it, only old ones go. */
    struct blob_store *s = open_or_fail(open_shared);
    write_file("tmp/0123456789ab.1", "half a record");
    CU_ASSERT_EQUAL(blob_store_sweep(s, 1000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(access(path, F_OK), 0);
    CU_ASSERT_EQUAL(blob_store_sweep(s, INT64_MAX, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(access(path, F_OK), -1);
    blob_store_close(s);
}

/* ---- failing disks ---- */

static bool record_is(struct blob_store *s, const char *key, const char *value)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bool ok = record_get(s, key, &b, NULL) == BLOB_OK && strcmp(b.data, value) == 0;
    bytebuf_release(&b);
    return ok;
}

static void digest_of(const char *text, struct digest *out)
{
    struct hash h;
    hash_init(&h);
    hash_update(&h, text, strlen(text));
    hash_peek(&h, out);
}

static bool blob_is(struct blob_store *s, const char *text)
{
    struct digest digest;
    struct blob_reader *r = NULL;
    struct blob_info info;
    char got[64] = "";
    digest_of(text, &digest);
    if (blob_open(s, &digest, &r, &info, NULL) != BLOB_OK)
        return false;
    bool ok =
        info.size == strlen(text) && reader_read(r, 0, got, strlen(text), NULL) == BLOB_OK && strcmp(got, text) == 0;
    reader_close(r);
    return ok;
}

static struct blob_writer *begin(struct blob_store *s, struct uuid *id)
{
    struct blob_writer *w = NULL;
    const struct upload_mark start = {0};
    uuid_new(id);
    CU_ASSERT_EQUAL_FATAL(staged_open(s, id, &start, 1, &w, NULL), BLOB_OK);
    return w;
}

/* What the file system does not take past the page cache goes through it; what fails is as if it had never come. */
static void test_direct_refused(void)
{
    reset_root();
    struct blob_store *s = open_or_fail(open_direct);
    struct uuid id;
    struct digest digest;
    struct blob_writer *w = begin(s, &id);
    content_digest(90000, 3, &digest);
    CU_ASSERT_EQUAL(content_write(w, 10000, 10000, 3), BLOB_OK);
    fault_arm("disk.write", EINVAL, 0, 1);
    CU_ASSERT_EQUAL(content_write(w, 30001, 30000, 3), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, 50000, 30000, 3), BLOB_OK);
    fault_arm("disk.write", ENOSPC, 0, 1);
    CU_ASSERT_EQUAL(content_write(w, 70000, 30000, 3), BLOB_E_NO_SPACE);
    CU_ASSERT_EQUAL(w->position, 50000);
    fault_disarm_all();
    CU_ASSERT_EQUAL(content_write(w, 90000, 30000, 3), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT(content_intact(s, 90000, 3));
    blob_store_close(s);
}

/* late: records are durable in the journal, and their files written when there is room again. */
static void full_disk(enum blob_status (*open_store)(struct blob_store **, struct blob_error *), bool late)
{
    const enum blob_status full = late ? BLOB_OK : BLOB_E_NO_SPACE;
    const char *const kept = late ? "new" : "old";
    reset_root();
    struct blob_store *s = open_or_fail(open_store);
    struct uuid id;
    struct upload_mark mark = {0};
    struct digest digest;
    struct blob_info info;
    struct hash hash;
    struct blob_writer *w = begin(s, &id);
    hash_init(&hash);
    hash_update(&hash, "onetwo", 6);
    hash_peek(&hash, &digest);
    CU_ASSERT_EQUAL(writer_write_bytes(w, "one", 3, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "old", 3, 0, NULL), BLOB_OK);
    fault_arm("disk.write", ENOSPC, 0, 0);
    CU_ASSERT_EQUAL(writer_write_bytes(w, "two", 3, NULL), BLOB_E_NO_SPACE);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "new", 3, 0, NULL), full);
    CU_ASSERT_EQUAL(record_put(s, "files/a/2", "new", 3, BLOB_LAZY, NULL), full);
    CU_ASSERT_TRUE(record_is(s, "files/a/1", kept));
    fault_disarm_all();
    fault_arm("disk.rename", ENOSPC, 0, 0);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "new", 3, 0, NULL), full);
    CU_ASSERT_EQUAL(writer_write_bytes(w, "two", 3, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_E_NO_SPACE);
    fault_disarm_all();
    CU_ASSERT_EQUAL(w->position, 6);
    CU_ASSERT_TRUE(record_is(s, "files/a/1", kept));
    CU_ASSERT_EQUAL(blob_stat(s, &digest, &info, NULL), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(writer_flush(w, 6, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    /* Nothing that failed comes back with a restart, nothing that was promised is gone; and the upload goes on. */
    blob_store_close(s);
    s = open_or_fail(open_store);
    CU_ASSERT_TRUE(record_is(s, "files/a/1", kept));
    CU_ASSERT_EQUAL(record_is(s, "files/a/2", "new"), late);
    CU_ASSERT_EQUAL_FATAL(staged_open(s, &id, &mark, 2, &w, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_stat(s, &digest, &info, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(info.size, 6);
    blob_store_close(s);
}

static void test_full_disk(void)
{
    full_disk(open_journal, true);
    full_disk(open_plain, false);
}

static bool count_record(const char *key, const void *value, size_t len, void *arg)
{
    (void)key;
    (void)value;
    (void)len;
    ++*(size_t *)arg;
    return true;
}

/* A record whose file could not be written is kept, and is there after a kill too. */
static void test_full_disk_lazily(void)
{
    reset_root();
    struct blob_store *s = open_or_fail(open_journal);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "old", 3, 0, NULL), BLOB_OK);
    fault_arm("disk.write", ENOSPC, 0, 0);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "new", 3, BLOB_LAZY, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "newer", 5, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(record_delete(s, "files/a/2", 0, NULL), BLOB_OK);
    size_t listed = 0;
    CU_ASSERT_EQUAL(record_list(s, "files/a/", NULL, 0, true, count_record, &listed, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(listed, 1);
    CU_ASSERT_TRUE(record_is(s, "files/a/1", "newer"));
    fault_disarm_all();
    CU_ASSERT_TRUE(record_is(s, "files/a/1", "newer"));
    blob_store_close(s);
    s = open_or_fail(open_journal);
    CU_ASSERT_TRUE(record_is(s, "files/a/1", "newer"));
    blob_store_close(s);
}

/* What cannot be carried out does not keep a store from closing, nor the next one from having it. */
static void test_close_full(void)
{
    struct digest digest;
    struct blob_info info;
    struct uuid id;
    reset_root();
    struct blob_store *s = open_or_fail(open_journal);
    struct blob_writer *w = begin(s, &id);
    CU_ASSERT_EQUAL(writer_write_bytes(w, "kept", 4, NULL), BLOB_OK);
    digest_of("kept", &digest);
    fault_arm("disk.rename", ENOSPC, 0, 0);
    CU_ASSERT_EQUAL(writer_commit(w, &digest, BLOB_LAZY, NULL), BLOB_OK);
    fault_arm("disk.write", ENOSPC, 0, 0);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "kept", 4, 0, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_stat(s, &digest, &info, NULL), BLOB_E_NO_SPACE);
    blob_store_close(s);
    fault_disarm_all();
    s = open_or_fail(open_journal);
    CU_ASSERT_TRUE(blob_is(s, "kept"));
    CU_ASSERT_TRUE(record_is(s, "files/a/1", "kept"));
    blob_store_close(s);
}

/* Enough to fill every segment, with a checkpoint due all the time. */
static void test_segments_run_out(void)
{
    reset_root();
    struct disk_options opt = options(true, false);
    opt.journal_segments = 3;
    opt.checkpoint_ms = 1;
    struct blob_store *s = NULL;
    static char value[RECORD_VALUE_MAX];
    memset(value, 'v', sizeof value);
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    for (unsigned i = 0; i < 300; i++) {
        char key[40];
        snprintf(key, sizeof key, "files/a/%u", i % 10);
        CU_ASSERT_EQUAL(record_put(s, key, value, sizeof value, BLOB_LAZY, NULL), BLOB_OK);
    }
    blob_store_close(s);
}

/* How many descriptors this process may have open: as many as it has, or as before. */
static void leave_no_descriptor(struct rlimit *before)
{
    int lowest = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(lowest >= 0 && close(lowest) == 0 && getrlimit(RLIMIT_NOFILE, before) == 0);
    const struct rlimit none = {.rlim_cur = (rlim_t)lowest, .rlim_max = before->rlim_max};
    CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
}

static enum blob_status put_segment(struct blob_store *s, struct blob_error *err)
{
    static char value[RECORD_VALUE_MAX];
    memset(value, 'v', sizeof value);
    enum blob_status st = BLOB_OK;
    for (unsigned i = 0; st == BLOB_OK && i < 20; i++)
        st = record_put(s, "files/a/large", value, sizeof value, 0, err);
    return st;
}

/* Nothing was lost when a segment could not be opened, so that is not the end: it is tried again. */
static void test_no_descriptors(void)
{
    reset_root();
    struct disk_options opt = options(true, false);
    opt.checkpoint_ms = 60000;
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    struct rlimit before;
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "one", 3, 0, NULL), BLOB_OK);
    leave_no_descriptor(&before);
    enum blob_status st = BLOB_OK;
    for (unsigned i = 0; st == BLOB_OK && i < 4; i++)
        st = put_segment(s, &err);
    CU_ASSERT_EQUAL(st, BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(blob_store_check(s, &err), BLOB_OK);
    CU_ASSERT_TRUE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    for (unsigned i = 0; st != BLOB_OK && i < 300; i++) {
        const struct timespec pause = {.tv_nsec = 50000000};
        nanosleep(&pause, NULL);
        st = put_segment(s, &err);
    }
    CU_ASSERT_EQUAL(st, BLOB_OK);
    blob_store_close(s);
    s = open_or_fail(open_journal);
    CU_ASSERT_TRUE(record_is(s, "files/a/1", "one"));
    blob_store_close(s);
}

/* After a failed sync nobody can know what is on the disk: nothing is acknowledged any more. */
static void test_failed_sync(void)
{
    reset_root();
    struct blob_store *s = open_or_fail(open_journal);
    struct blob_error err = {0};
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "one", 3, 0, NULL), BLOB_OK);
    fault_arm("disk.sync", EIO, 0, 1);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "two", 3, 0, &err), BLOB_E_IO);
    fault_disarm_all();
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "three", 5, 0, NULL), BLOB_E_IO);
    CU_ASSERT_EQUAL(blob_store_check(s, &err), BLOB_E_IO);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "journal"));
    blob_store_close(s);
    s = open_or_fail(open_journal);
    CU_ASSERT_EQUAL(record_put(s, "files/a/1", "four", 4, 0, NULL), BLOB_OK);
    blob_store_close(s);
}

static void test_room(void)
{
    reset_root();
    struct disk_options opt = options(true, false);
    opt.reserve_bytes = UINT64_MAX / 2;
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_store_room(s, 0, &err), BLOB_E_NO_SPACE);
    blob_store_close(s);
    s = open_or_fail(open_journal);
    CU_ASSERT_EQUAL(blob_store_room(s, 1000, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(blob_store_room(s, UINT64_MAX, NULL), BLOB_E_NO_SPACE);
    blob_store_close(s);
}

/* ---- the journal, left behind by a process that was killed ---- */

/* Runs work on an opened store in a process that ends without closing it. */
static void in_killed_process(void (*work)(struct blob_store *s))
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct blob_store *s = NULL;
        struct disk_options opt = options(true, false);
        opt.checkpoint_ms = 3600 * 1000;
        if (disk_store_open(&opt, &s, NULL) == BLOB_OK) {
            work(s);
            kill(getpid(), SIGKILL);
        }
        _exit(1);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CU_ASSERT_TRUE(WIFSIGNALED(status));
}

static const char staged_id[] = "5f0e0a36-1111-4000-8000-000000000000";

static void stage(struct blob_store *s, const char *id_text, const char *text, struct blob_writer **w)
{
    struct uuid id;
    struct upload_mark mark = {0};
    CHECK(uuid_parse(id_text, &id) == BLOB_OK);
    CHECK(staged_open(s, &id, &mark, 1, w, NULL) == BLOB_OK);
    CHECK(writer_write_bytes(*w, text, strlen(text), NULL) == BLOB_OK);
    CHECK(writer_flush(*w, strlen(text), NULL, 0, 0, &mark, NULL) == BLOB_OK);
}

static void leave_journal(struct blob_store *s)
{
    struct blob_writer *w;
    struct digest digest;
    digest_of("finished", &digest);
    stage(s, "5f0e0a36-2222-4000-8000-000000000000", "finished", &w);
    CHECK(writer_commit(w, &digest, BLOB_LAZY, NULL) == BLOB_OK);
    CHECK(record_put(s, "files/a/1", "one", 3, BLOB_LAZY, NULL) == BLOB_OK);
    CHECK(record_put(s, "files/a/2", "two", 3, 0, NULL) == BLOB_OK);
    CHECK(record_put(s, "files/a/3", "three", 5, 0, NULL) == BLOB_OK);
    CHECK(record_delete(s, "files/a/3", 0, NULL) == BLOB_OK);
    CHECK(record_put(s, "files/a/2", "two again", 9, BLOB_LAZY, NULL) == BLOB_OK);
    stage(s, staged_id, "staged", &w);
}

static void expect_left(struct blob_store *s)
{
    struct uuid id;
    char got[32] = "";
    size_t n = 0;
    CU_ASSERT_TRUE(blob_is(s, "finished"));
    CU_ASSERT_TRUE(record_is(s, "files/a/1", "one"));
    CU_ASSERT_TRUE(record_is(s, "files/a/2", "two again"));
    CU_ASSERT_FALSE(record_is(s, "files/a/3", "three"));
    CU_ASSERT_EQUAL(uuid_parse(staged_id, &id), BLOB_OK);
    CU_ASSERT_EQUAL(staged_read(s, &id, 0, got, sizeof got - 1, &n, NULL), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(got, "staged");
}

static void test_killed(void)
{
    reset_root();
    in_killed_process(leave_journal);
    struct blob_store *s = open_or_fail(open_journal);
    expect_left(s);
    blob_store_close(s);
    /* With other options too, and as often as one likes. */
    reset_root();
    in_killed_process(leave_journal);
    s = open_or_fail(open_plain);
    expect_left(s);
    blob_store_close(s);
    s = open_or_fail(open_shared);
    expect_left(s);
    blob_store_close(s);
    s = open_or_fail(open_journal);
    expect_left(s);
    blob_store_close(s);
}

/* What a power loss may do to files that were not synced: nothing of them is left, but the journal. */
static void lose_files(void)
{
    char path[600], command[700];
    static const char *const names[] = {DISK_UPLOADS, DISK_BLOBS, DISK_RECORDS, DISK_TMP};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        path_of(names[i], path);
        snprintf(command, sizeof command, "rm -rf '%s'", path);
        CHECK(system(command) == 0);
    }
}

static void test_files_lost(void)
{
    reset_root();
    in_killed_process(leave_journal);
    lose_files();
    struct blob_store *s = open_or_fail(open_journal);
    expect_left(s);
    blob_store_close(s);
}

static void test_content_lost(void)
{
    struct digest digest;
    reset_root();
    in_killed_process(leave_journal);
    /* The names are there, the content is not. */
    blob_store_close(open_or_fail(open_plain));
    reset_root();
    in_killed_process(leave_journal);
    struct disk_path path;
    char whole[600];
    digest_of("finished", &digest);
    disk_blob_path(&digest, &path);
    path_of(path.text, whole);
    CU_ASSERT_EQUAL(truncate(whole, 0), 0);
    path_of("uploads/5f/5f0e0a36-1111-4000-8000-000000000000", whole);
    CU_ASSERT_EQUAL(truncate(whole, 2), 0);
    disk_record_path("files/a/1", &path);
    path_of(path.text, whole);
    CU_ASSERT_TRUE(truncate(whole, 0) == 0 || errno == ENOENT); /* it may not have been written yet */
    struct blob_store *s = open_or_fail(open_journal);
    expect_left(s);
    blob_store_close(s);
}

/* Recovery that is itself cut off starts anew. */
static void test_recovery_killed(void)
{
    static const char *const points[] = {"disk.write", "disk.rename", "disk.sync", "disk.mkdir"};
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        for (unsigned after = 0; after < 4; after++) {
            reset_root();
            in_killed_process(leave_journal);
            lose_files();
            pid_t pid = fork();
            CHECK(pid >= 0);
            if (pid == 0) {
                struct blob_store *s = NULL;
                fault_arm(points[i], FAULT_KILL, after, 1);
                _exit(open_journal(&s, NULL) == BLOB_OK ? 0 : 1);
            }
            int status;
            CHECK(waitpid(pid, &status, 0) == pid);
            struct blob_store *s = open_or_fail(open_journal);
            expect_left(s);
            blob_store_close(s);
        }
    }
}

/* A crash while a journal was given up leaves it under another name, carried out. */
static void test_old_journal(void)
{
    char old[512], segment[520];
    for (int journal = 0; journal < 2; journal++) {
        reset_root();
        struct blob_store *s = open_or_fail(open_journal);
        CU_ASSERT_EQUAL(record_put(s, "files/a/1", "one", 3, 0, NULL), BLOB_OK);
        blob_store_close(s);
        path_of("journal.old", old);
        snprintf(segment, sizeof segment, "%s/00", old);
        CHECK(mkdir(old, 0750) == 0);
        int fd = open(segment, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
        CHECK(fd >= 0 && close(fd) == 0);
        s = open_or_fail(journal ? open_journal : open_plain);
        CU_ASSERT_TRUE(record_is(s, "files/a/1", "one"));
        CU_ASSERT_NOT_EQUAL(access(old, F_OK), 0);
        blob_store_close(s);
    }
}

int main(void)
{
    CU_TestInfo opening[] = {{"a second process is refused, and told by whom", test_second_refused},
                             {"shared with those who share it only", test_shared_or_not},
                             {"a store.json that is none is refused", test_bad_store_file},
                             {"a root that cannot be is refused", test_root_unusable},
                             {"leftovers of a crash are removed", test_leftovers},
                             {"so is what is left of a journal", test_old_journal},
                             CU_TEST_INFO_NULL};
    CU_TestInfo failing[] = {{"a full disk harms nothing", test_full_disk},
                             {"a queued change waits for room", test_full_disk_lazily},
                             {"what cannot pass by the page cache goes through it", test_direct_refused},
                             {"closing with a full disk ends, and loses nothing", test_close_full},
                             {"a journal that fills up waits for its checkpoint", test_segments_run_out},
                             {"without descriptors it waits for some", test_no_descriptors},
                             {"after a failed sync nothing is acknowledged", test_failed_sync},
                             {"the reserve is kept free", test_room},
                             CU_TEST_INFO_NULL};
    CU_TestInfo recovery[] = {{"what was done is there after kill -9", test_killed},
                              {"files lost with the power come back", test_files_lost},
                              {"content lost with the power comes back", test_content_lost},
                              {"recovery can be cut off anywhere", test_recovery_killed},
                              CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"disk store", use_journal, drop_root, NULL, NULL, blob_contract_tests()},
                             {"disk store, no journal", use_plain, drop_root, NULL, NULL, blob_contract_tests()},
                             {"disk store, direct", use_direct, drop_root, NULL, NULL, blob_contract_tests()},
                             {"disk store, shared", use_shared, drop_root, NULL, NULL, blob_contract_tests()},
                             {"disk store, opening", NULL, drop_root, NULL, NULL, opening},
                             {"disk store, failing", NULL, drop_root, NULL, NULL, failing},
                             {"disk store, recovery", NULL, drop_root, NULL, NULL, recovery},
                             CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
