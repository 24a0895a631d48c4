/* file_ends - against a model: sets of numbers of every shape, and other keys among them. */
#include "backends/memory/memory_store.h"
#include "core/files/file_ends.h"
#include "core/files/file_record.h"
#include "tests/rig/unit_main.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES_MAX = 3000 };

struct model {
    struct blob_store *store;
    struct digest digest;
    size_t count;
    uint64_t numbers[FILES_MAX]; /* ascending */
    uint64_t seed;
    unsigned lists, keys;
    struct blob_store_ops ops;
    const struct blob_store_ops *real;
};

static struct model *counted;

struct pass {
    record_list_fn *fn;
    void *arg;
};

static bool count_key(const char *key, const void *value, size_t len, void *arg)
{
    const struct pass *pass = arg;
    counted->keys++;
    return pass->fn(key, value, len, pass->arg);
}

static enum blob_status list_counted(struct blob_store *s, const char *prefix, const char *after, size_t limit,
                                     bool with_values, record_list_fn *fn, void *arg, struct blob_error *err)
{
    struct pass pass = {fn, arg};
    counted->lists++;
    return counted->real->record_list(s, prefix, after, limit, with_values, count_key, &pass, err);
}

static uint64_t dice(struct model *m)
{
    m->seed ^= m->seed << 13;
    m->seed ^= m->seed >> 7;
    m->seed ^= m->seed << 17;
    return m->seed;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void put_key(const struct model *m, const char *key)
{
    CU_ASSERT_EQUAL_FATAL(record_put(m->store, key, "v", 1, 0, NULL), BLOB_OK);
}

/* Ends of the range, neighbours, bursts, and whatever is between. */
static void fill(struct model *m, size_t count)
{
    char key[FILE_KEY_CHARS + 1];
    uint64_t burst = dice(m);
    for (size_t i = 0; i < count; i++) {
        switch (dice(m) % 4) {
        case 0:
            m->numbers[i] = dice(m) >> (dice(m) % 64);
            break;
        case 1:
            m->numbers[i] = UINT64_MAX - 1 - (dice(m) >> (dice(m) % 63 + 1));
            break;
        case 2:
            m->numbers[i] = burst + i < UINT64_MAX ? burst + i : i;
            break;
        default:
            m->numbers[i] = (burst >> 1) + (dice(m) >> (20 + dice(m) % 40));
        }
    }
    qsort(m->numbers, count, sizeof *m->numbers, compare);
    m->count = 0;
    for (size_t i = 0; i < count; i++)
        if (m->count == 0 || m->numbers[i] != m->numbers[m->count - 1])
            m->numbers[m->count++] = m->numbers[i];
    for (size_t i = 0; i < m->count; i++) {
        file_key_make(&m->digest, m->numbers[i], key);
        put_key(m, key);
    }
}

static void model_open(struct model *m, uint64_t seed, size_t count)
{
    struct memory_options opt = {0};
    char prefix[FILE_PREFIX_CHARS + 1], key[RECORD_KEY_MAX + 1];
    memset(m, 0, sizeof *m);
    m->seed = seed;
    m->digest.bytes[5] = 7;
    CU_ASSERT_EQUAL_FATAL(memory_store_open(&opt, &m->store, NULL), BLOB_OK);
    fill(m, count);
    /* Another blob's on either side, and what is no file's. */
    struct digest other = m->digest;
    for (int i = 6; i <= 8; i++) {
        other.bytes[5] = (unsigned char)i;
        file_key_make(&other, dice(m), key);
        if (i != 7)
            put_key(m, key);
    }
    file_prefix_make(&m->digest, prefix);
    for (int i = 0; i < 5; i++) {
        snprintf(key, sizeof key, "%s%c", prefix, "05az9"[i]);
        put_key(m, key);
    }
    counted = m;
    m->real = m->store->ops;
    m->ops = *m->real;
    m->ops.record_list = list_counted;
    m->store->ops = &m->ops;
}

static void model_close(struct model *m)
{
    m->store->ops = m->real;
    blob_store_close(m->store);
}

static void check_from(struct model *m)
{
    uint64_t got[200], from = dice(m) % 2 ? m->numbers[dice(m) % m->count] + dice(m) % 2 : dice(m) >> (dice(m) % 64);
    uint64_t below = dice(m) % 2 ? UINT64_MAX : m->numbers[dice(m) % m->count] + dice(m) % 2;
    size_t most = 1 + dice(m) % 200, count = 0, want = 0;
    bool more;
    CU_ASSERT_EQUAL_FATAL(file_numbers_from(m->store, &m->digest, from, below, most, got, &count, &more, NULL),
                          BLOB_OK);
    for (size_t i = 0; i < m->count; i++)
        if (m->numbers[i] >= from && m->numbers[i] < below && want < most) {
            CU_ASSERT_TRUE_FATAL(want < count && got[want] == m->numbers[i]);
            want++;
        }
    CU_ASSERT_EQUAL(count, want);
    CU_ASSERT_TRUE(more || want < most);
}

static void check_last(struct model *m)
{
    static struct file_tail tail;
    size_t low = dice(m) % m->count, end = low + dice(m) % (m->count - low) + 1;
    uint64_t below = dice(m) % 2 && end < m->count ? m->numbers[end] : UINT64_MAX;
    if (below == UINT64_MAX)
        end = m->count;
    uint64_t hint = 0;
    if (dice(m) % 2)
        hint = dice(m) % 2 ? dice(m) : m->numbers[dice(m) % m->count];
    m->lists = m->keys = 0;
    CU_ASSERT_EQUAL_FATAL(file_numbers_last(m->store, &m->digest, m->numbers[low], below, hint, &tail, NULL), BLOB_OK);
    CU_ASSERT_TRUE_FATAL(tail.count > 0 && tail.count <= end);
    for (size_t i = 1; i <= tail.count; i++)
        CU_ASSERT_EQUAL(tail.numbers[tail.count - i], m->numbers[end - i]);
    CU_ASSERT_TRUE(m->lists <= FILE_PROBES_MAX + 10);
    CU_ASSERT_TRUE(m->keys <= FILE_TAIL_MAX + FILE_PROBES_MAX * FILE_PROBE_KEYS);
}

static void test_model(void)
{
    static struct model m;
    for (uint64_t seed = 1; seed <= 24; seed++) {
        model_open(&m, seed * UINT64_C(0x9e3779b97f4a7c15), seed % 6 == 0 ? FILES_MAX : 1 + seed * 29);
        for (int i = 0; i < 60; i++) {
            check_from(&m);
            check_last(&m);
        }
        model_close(&m);
    }
}

/* The file it was to begin from is gone: what is given may be gone as well, and is never more. */
static void test_begin_is_gone(void)
{
    static struct model m;
    static struct file_tail tail;
    model_open(&m, 99, 40);
    uint64_t low = m.numbers[m.count - 1] + 1;
    CU_ASSERT_EQUAL(file_numbers_last(m.store, &m.digest, low, UINT64_MAX, 0, &tail, NULL), BLOB_OK);
    CU_ASSERT_TRUE(tail.count == 1 && tail.numbers[0] == low);
    model_close(&m);
}

static void test_hint_saves_the_search(void)
{
    static struct model m;
    static struct file_tail tail;
    model_open(&m, 5, FILES_MAX);
    m.lists = 0;
    uint64_t last = m.numbers[m.count - 1];
    CU_ASSERT_EQUAL(file_numbers_last(m.store, &m.digest, m.numbers[0], UINT64_MAX, last, &tail, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(tail.numbers[tail.count - 1], last);
    CU_ASSERT_TRUE(m.lists <= 2);
    model_close(&m);
}

int main(void)
{
    CU_TestInfo tests[] = {{"numbers are what a model says, and few listings find them", test_model},
                           {"the file to begin from may be gone", test_begin_is_gone},
                           {"where the last were tells where they are", test_hint_saves_the_search},
                           CU_TEST_INFO_NULL};
    return unit_main("file_ends", tests);
}
