/* disk_cache - of a large upload no more stays in the page cache than is asked for. */
#include "backends/disk/disk_layout.h"
#include "backends/disk/disk_store.h"
#include "tests/contract/blob_contract_parts.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MIB  ((size_t)1 << 20)
#define SIZE (6 * MIB)

static char root[TEMP_DIR_CHARS];

static struct blob_store *open_keeping(size_t bytes)
{
    struct blob_store *s = NULL;
    const struct disk_options opt = {.root = root, .journal = true, .keep_cached_bytes = bytes};
    temp_dir_make(root);
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
    return s;
}

static void close_and_remove(struct blob_store *s)
{
    blob_store_close(s);
    temp_dir_remove(root);
}

/* Bytes of a file in [from, to) that are in memory. */
static size_t resident(int fd, size_t from, size_t to)
{
    static unsigned char pages[SIZE / 4096];
    void *map = mmap(NULL, SIZE, PROT_READ, MAP_SHARED, fd, 0);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), count = 0;
    CU_ASSERT_NOT_EQUAL_FATAL(map, MAP_FAILED);
    CU_ASSERT_EQUAL_FATAL(mincore(map, SIZE, pages), 0);
    for (size_t i = from / page; i < to / page; i++)
        count += pages[i] & 1;
    munmap(map, SIZE);
    return count * page;
}

/* Writes and flushes an upload, and opens its file. */
static int upload_file(struct blob_store *s, const struct uuid *id)
{
    struct blob_writer *w = NULL;
    struct upload_mark mark = {0};
    struct disk_path path;
    char whole[sizeof root + sizeof path.text + 1];
    CU_ASSERT_EQUAL_FATAL(staged_open(s, id, &mark, 1, &w, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, SIZE / 2, 50000, 7), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, SIZE / 2, NULL, 0, 0, &mark, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, SIZE, 50000, 7), BLOB_OK);
    CU_ASSERT_EQUAL(writer_flush(w, SIZE, NULL, 0, 0, &mark, NULL), BLOB_OK);
    writer_close(w);
    disk_upload_path(id, &path);
    snprintf(whole, sizeof whole, "%s/%s", root, path.text);
    int fd = open(whole, O_RDONLY | O_CLOEXEC);
    CU_ASSERT_FATAL(fd >= 0);
    return fd;
}

/* A file system that lives in the page cache, or answers a hint as it likes. */
static bool takes_hints(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == EXT4_SUPER_MAGIC;
}

static void test_leaves(void)
{
    struct uuid id;
    uuid_new(&id);
    struct blob_store *s = open_keeping(MIB);
    int fd = upload_file(s, &id);
    bool looked_at = takes_hints(fd);
    if (!looked_at)
        printf("(not on ext4: not looked at) ");
    CU_ASSERT(!looked_at || resident(fd, MIB, SIZE) < MIB);
    close(fd);
    close_and_remove(s);
}

/* Not even on its way to the disk, where writes are large. */
static void test_passes_by(void)
{
    struct uuid id;
    struct disk_path path;
    char whole[sizeof root + sizeof path.text + 1];
    struct blob_writer *w = NULL;
    const struct upload_mark mark = {0};
    uuid_new(&id);
    struct blob_store *s = open_keeping(MIB);
    CU_ASSERT_EQUAL_FATAL(staged_open(s, &id, &mark, 1, &w, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(content_write(w, SIZE, 300001, 7), BLOB_OK);
    disk_upload_path(&id, &path);
    snprintf(whole, sizeof whole, "%s/%s", root, path.text);
    int fd = open(whole, O_RDONLY | O_CLOEXEC);
    CU_ASSERT_FATAL(fd >= 0);
    bool looked_at = takes_hints(fd);
    if (!looked_at)
        printf("(not on ext4: not looked at) ");
    CU_ASSERT(!looked_at || resident(fd, MIB + 300001, SIZE) == 0);
    close(fd);
    writer_close(w);
    close_and_remove(s);
}

static void test_stays(void)
{
    struct uuid id;
    uuid_new(&id);
    struct blob_store *s = open_keeping(SIZE);
    int fd = upload_file(s, &id);
    CU_ASSERT(resident(fd, 0, SIZE) > SIZE / 2);
    close(fd);
    close_and_remove(s);
}

int main(void)
{
    CU_TestInfo tests[] = {{"what is durable leaves the page cache, but for the beginning", test_leaves},
                           {"large writes pass by the page cache", test_passes_by},
                           {"an upload that is small enough stays", test_stays},
                           CU_TEST_INFO_NULL};
    return unit_main("disk cache", tests);
}
