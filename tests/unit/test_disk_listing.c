/*
 * disk_records - a listing of part of a directory gives just what a model gives, whatever else is in the directory:
 * other prefixes, files that are no records, changes that are not in their files yet.
 */
#include "backends/disk_store.h"
#include "core/check.h"
#include "tests/unit/temp_dir.h"
#include "tests/unit/unit_main.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { KEYS = 90 };

static const char *const prefixes[] = {"files/abc0/", "files/abc1/", "files/abd/"};

struct model {
    struct blob_store *store;
    const char *root;
    bool journal, there[KEYS];
    unsigned seed;
};

static unsigned dice(struct model *m, unsigned below)
{
    m->seed = m->seed * 1103515245u + 12345u;
    return (m->seed >> 16) % below;
}

/* In the order of the numbers. */
static void key_of(unsigned i, char key[RECORD_KEY_MAX])
{
    snprintf(key, RECORD_KEY_MAX, "%s%03u", prefixes[i / (KEYS / 3)], i);
}

static void model_open(struct model *m)
{
    struct disk_options opt = {.root = m->root, .journal = m->journal, .journal_segment_bytes = 1u << 20};
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &m->store, NULL), BLOB_OK);
}

static void change_some(struct model *m, unsigned changes)
{
    char key[RECORD_KEY_MAX];
    while (changes-- > 0) {
        unsigned i = dice(m, KEYS);
        key_of(i, key);
        m->there[i] = dice(m, 3) != 0;
        CU_ASSERT_EQUAL(m->there[i] ? record_put(m->store, key, "v", 1, BLOB_LAZY, NULL)
                                    : record_delete(m->store, key, BLOB_LAZY, NULL),
                        BLOB_OK);
    }
}

static void foreign_file(const struct model *m, const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/records/files/abc/%s", m->root, name);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    CU_ASSERT_FATAL(fd >= 0);
    close(fd);
}

struct got {
    size_t count, stop_at;
    char keys[KEYS][RECORD_KEY_MAX];
};

static bool note(const char *key, const void *value, size_t len, void *arg)
{
    struct got *g = arg;
    (void)value;
    (void)len;
    CHECK(g->count < KEYS);
    snprintf(g->keys[g->count++], RECORD_KEY_MAX, "%s", key);
    return g->count != g->stop_at;
}

static void listing_is_right(struct model *m, const char *prefix, const char *after, size_t limit, bool values)
{
    struct got g = {.stop_at = dice(m, 4) == 0 ? 2 : 0};
    size_t want = 0;
    CU_ASSERT_EQUAL(record_list(m->store, prefix, after, limit, values, note, &g, NULL), BLOB_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        char key[RECORD_KEY_MAX];
        key_of(i, key);
        if (!m->there[i] || strncmp(key, prefix, strlen(prefix)) != 0 || (after && strcmp(key, after) <= 0) ||
            (limit && want == limit) || (g.stop_at && want == g.stop_at))
            continue;
        if (want < g.count)
            CU_ASSERT_STRING_EQUAL(g.keys[want], key);
        want++;
    }
    CU_ASSERT_EQUAL(g.count, want);
}

static void listings_are_right(struct model *m, unsigned rounds)
{
    char after[RECORD_KEY_MAX];
    static const char *const all[] = {"files/", "files/abc0/", "files/abc1/", "files/abd/"};
    while (rounds-- > 0) {
        key_of(dice(m, KEYS), after);
        unsigned limit = dice(m, 5) == 0 ? 0 : 1 + dice(m, 12);
        listing_is_right(m, all[dice(m, 4)], dice(m, 3) ? after : NULL, limit, dice(m, 2));
    }
}

static void test_listings(void)
{
    for (int journal = 0; journal < 2; journal++) {
        char root[TEMP_DIR_CHARS];
        temp_dir_make_in_memory(root);
        struct model m = {.root = root, .journal = journal, .seed = 7};
        model_open(&m);
        for (int round = 0; round < 12; round++) {
            change_some(&m, round % 4 == 0 ? 60 : 5);
            listings_are_right(&m, 60);
            if (round == 3) {
                /* Before, between and behind the records; of the shape of one, or not. */
                static const char *const names[] = {"abc0,~",   "abc0,000~", "abc0,.~",  "abc1,",
                                                    "abc1,0 0", "abc~",      "abc0,015%"};
                for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
                    foreign_file(&m, names[i]);
            }
            if (round % 3 == 2) { /* all is in its file then, and later changes in the journal alone */
                blob_store_close(m.store);
                model_open(&m);
            }
        }
        blob_store_close(m.store);
        temp_dir_remove(root);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {{"a listing of part of a directory is what a model says", test_listings}, CU_TEST_INFO_NULL};
    return unit_main("disk_listing", tests);
}
