/* direct_file - what is written past the page cache is in the file, however it is cut and aligned. */
#include "backends/disk/file/direct_file.h"
#include "core/check.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE  4096u
#define MOST  ((size_t)6 << 20)
#define PARTS 8

static char root[TEMP_DIR_CHARS];
static char path[sizeof root + 8];
static uint8_t *source; /* aligned */

struct setup {
    struct direct_pool *pool;
    struct direct_file *file;
    int fd;
    size_t position;
};

static int make_source(void)
{
    temp_dir_make(root);
    snprintf(path, sizeof path, "%s/file", root);
    source = aligned_alloc(PAGE, MOST);
    CHECK(source != NULL);
    unsigned x = 12345;
    for (size_t i = 0; i < MOST; i++)
        source[i] = (uint8_t)((x = x * 1103515245u + 12345u) >> 16);
    return 0;
}

static int drop_source(void)
{
    free(source);
    temp_dir_remove(root);
    return 0;
}

/* NULL file: this file system does not know O_DIRECT. */
static struct setup set_up(unsigned buffers)
{
    struct setup t = {.pool = direct_pool_new(buffers), .fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    CHECK(t.pool != NULL && t.fd >= 0);
    int direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (direct < 0)
        printf("(no O_DIRECT here: not looked at) ");
    CU_ASSERT_FATAL(direct < 0 || direct_file_new(t.pool, direct, t.fd, &t.file, NULL) == BLOB_OK);
    return t;
}

static void tear_down(struct setup *t)
{
    direct_file_free(t->file);
    close(t->fd);
    direct_pool_free(t->pool);
}

/* The next bytes of the source, from memory that is `shift` off, in so many parts. */
static enum blob_status write_next(struct setup *t, size_t len, size_t shift, int count)
{
    static uint8_t *copy;
    struct iovec parts[PARTS];
    if (!copy)
        copy = aligned_alloc(PAGE, MOST);
    CHECK(copy != NULL && shift + len <= MOST && t->position + len <= MOST);
    memcpy(copy + shift, source + t->position, len);
    size_t each = len / (size_t)count & ~(size_t)(PAGE - 1);
    for (int i = 0; i < count; i++)
        parts[i] = (struct iovec){.iov_base = copy + shift + (size_t)i * each, .iov_len = each};
    parts[count - 1].iov_len = len - (size_t)(count - 1) * each;
    enum blob_status st = direct_file_write(t->file, parts, count, t->position, path, NULL);
    if (st == BLOB_OK)
        t->position += len;
    return st;
}

static bool file_is_source(const struct setup *t, size_t len)
{
    static uint8_t *back;
    struct stat sb;
    if (!back)
        back = malloc(MOST);
    return back && fstat(t->fd, &sb) == 0 && (size_t)sb.st_size == len && pread(t->fd, back, MOST, 0) == (ssize_t)len &&
           memcmp(back, source, len) == 0;
}

static bool settled_is_source(struct setup *t)
{
    return direct_file_settle(t->file, path, NULL) == BLOB_OK && file_is_source(t, t->position) &&
           direct_file_in_file(t->file, t->position) == t->position;
}

static void test_aligned(void)
{
    struct setup t = set_up(0); /* no buffer: from where it is, or not at all */
    for (int i = 0; t.file && i < 4; i++) {
        CU_ASSERT_EQUAL(write_next(&t, 256u << 10, 0, 1 + i), BLOB_OK);
        CU_ASSERT(file_is_source(&t, t.position));
    }
    if (t.file) {
        CU_ASSERT_EQUAL(write_next(&t, (256u << 10) + 5, 0, 2), BLOB_OK);
        CU_ASSERT_EQUAL(direct_file_in_file(t.file, t.position), t.position - 5);
        CU_ASSERT(settled_is_source(&t));
    }
    tear_down(&t);
}

static void test_every_way(void)
{
    struct setup t = set_up(1);
    unsigned x = 7;
    while (t.file && t.position + (600u << 10) < MOST) {
        x = x * 1103515245u + 12345u;
        size_t len = x >> 8 & 1 ? (x >> 9) % (600u << 10) : ((x >> 9) % 140 + 1) * PAGE;
        CU_ASSERT_EQUAL(write_next(&t, len + 1, x >> 20 & 1 ? x >> 21 & 4095 : 0, 1 + (int)(x >> 12 & 7)), BLOB_OK);
        CU_ASSERT(direct_file_in_file(t.file, t.position) + PAGE > t.position);
        if ((x >> 16 & 3) == 0)
            CU_ASSERT(settled_is_source(&t));
    }
    CU_ASSERT(!t.file || settled_is_source(&t));
    tear_down(&t);
}

static void test_between_cached_writes(void)
{
    struct setup t = set_up(1);
    for (int i = 0; t.file && i < 20; i++) {
        size_t cached = (size_t)i * 777 + 1;
        CU_ASSERT_EQUAL(write_next(&t, 150000 + (size_t)i, 0, 3), BLOB_OK);
        CU_ASSERT_EQUAL(direct_file_settle(t.file, path, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(pwrite(t.fd, source + t.position, cached, (off_t)t.position), (ssize_t)cached);
        t.position += cached;
    }
    CU_ASSERT(!t.file || settled_is_source(&t));
    tear_down(&t);
}

static void test_no_buffer(void)
{
    struct setup t = set_up(0);
    if (t.file) {
        CU_ASSERT_EQUAL(write_next(&t, 8192, 1, 1), BLOB_E_UNSUPPORTED);
        CU_ASSERT_EQUAL(write_next(&t, 8192 + 9, 0, 1), BLOB_OK);
        CU_ASSERT_EQUAL(write_next(&t, 8192, 0, 1), BLOB_E_UNSUPPORTED); /* nine bytes are held before it */
        CU_ASSERT_EQUAL(direct_file_in_file(t.file, t.position), 8192);
        CU_ASSERT(settled_is_source(&t));
    }
    tear_down(&t);
}

/* The file may not grow beyond 1 MiB: what was held before is held still, and goes with the next. */
static void test_failed_write(void)
{
    struct rlimit was, now;
    struct setup t = set_up(1);
    CHECK(getrlimit(RLIMIT_FSIZE, &was) == 0);
    signal(SIGXFSZ, SIG_IGN);
    if (t.file) {
        CU_ASSERT_EQUAL(write_next(&t, 500001, 0, 1), BLOB_OK);
        now = (struct rlimit){.rlim_cur = 1u << 20, .rlim_max = was.rlim_max};
        CHECK(setrlimit(RLIMIT_FSIZE, &now) == 0);
        CU_ASSERT_NOT_EQUAL(write_next(&t, 900000, 0, 1), BLOB_OK);
        CHECK(setrlimit(RLIMIT_FSIZE, &was) == 0);
        uint64_t in_file = direct_file_in_file(t.file, t.position);
        CU_ASSERT_EQUAL(in_file, 500001 - 500001 % PAGE);
        CU_ASSERT_EQUAL(ftruncate(t.fd, (off_t)in_file), 0);
        CU_ASSERT_EQUAL(write_next(&t, 900000, 0, 1), BLOB_OK);
        CU_ASSERT(settled_is_source(&t));
    }
    signal(SIGXFSZ, SIG_DFL);
    tear_down(&t);
}

int main(void)
{
    CU_TestInfo tests[] = {{"aligned parts go from where they are", test_aligned},
                           {"any length, from any place, in any number of parts", test_every_way},
                           {"writes by the page cache between them", test_between_cached_writes},
                           {"without a buffer nothing is changed", test_no_buffer},
                           {"after a failure it goes on from where it stood", test_failed_write},
                           CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"direct file", make_source, drop_source, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
