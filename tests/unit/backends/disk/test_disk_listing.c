/*
 * disk_records - a listing of part of a directory gives just what a model gives, whatever else is in the directory:
 * other prefixes, files that are no records, changes that are not in their files yet.
 */
#include "backends/disk/disk_store.h"
#include "core/check.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"

#include <fcntl.h>
#include <pthread.h>
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

/* ---- crowded directories ---- */

enum { CROWD = 6000, BOUND = 1024 };

struct crowd {
    struct blob_store *store;
    struct disk_options opt;
    bool there[CROWD];
    unsigned count, seed, met, stop_at;
    bool right;
    unsigned next; /* the model's, while a listing is checked */
};

/* Of two blobs, in one directory; some behind and before all others of it. */
static void crowd_key(unsigned i, char key[RECORD_KEY_MAX])
{
    snprintf(key, RECORD_KEY_MAX, "files/abc%s/%05u", i % 3 == 0 ? "0" : "1", i);
}

static void crowd_open(struct crowd *c)
{
    CU_ASSERT_EQUAL_FATAL(disk_store_open(&c->opt, &c->store, NULL), BLOB_OK);
}

static void crowd_set(struct crowd *c, unsigned i, bool there)
{
    char key[RECORD_KEY_MAX];
    crowd_key(i, key);
    CU_ASSERT_EQUAL(there ? record_put(c->store, key, "v", 1, c->opt.journal ? BLOB_LAZY : 0, NULL)
                          : record_delete(c->store, key, c->opt.journal ? BLOB_LAZY : 0, NULL),
                    BLOB_OK);
    c->there[i] = there;
}

static bool see_crowd(const char *key, const void *value, size_t len, void *arg)
{
    struct crowd *c = arg;
    char want[RECORD_KEY_MAX];
    (void)value;
    (void)len;
    while (c->next < CROWD && !c->there[c->next])
        c->next += 3;
    crowd_key(c->next, want);
    c->right &= c->next < CROWD && strcmp(key, want) == 0;
    c->next += 3;
    return ++c->met != c->stop_at;
}

/* Of one of the blobs, from its file `from` on, at most limit. */
static uint64_t crowd_list(struct crowd *c, unsigned from, unsigned limit)
{
    char prefix[RECORD_KEY_MAX], after[RECORD_KEY_MAX];
    crowd_key(from, after);
    snprintf(prefix, sizeof prefix, "%.*s", (int)(strrchr(after, '/') + 1 - after), after);
    uint64_t before = disk_store_names_read(c->store);
    c->right = true;
    c->met = 0;
    c->next = from + 3;
    CU_ASSERT_EQUAL(record_list(c->store, prefix, after, limit, false, see_crowd, c, NULL), BLOB_OK);
    unsigned left = 0;
    for (unsigned i = from + 3; i < CROWD; i += 3)
        left += c->there[i];
    CU_ASSERT_TRUE(c->right);
    CU_ASSERT_EQUAL(c->met, limit && limit < left ? limit : left);
    return disk_store_names_read(c->store) - before;
}

static void crowd_of(const char *root, bool journal)
{
    static struct crowd c;
    memset(&c, 0, sizeof c);
    c.opt = (struct disk_options){.root = root, .journal = journal, .journal_segment_bytes = 1u << 20};
    crowd_open(&c);
    for (unsigned i = 0; i < CROWD; i++)
        if (i % 3 != 2)
            crowd_set(&c, i, true);
    blob_store_close(c.store); /* all is in its file now */
    for (int life = 0; life < 2; life++) {
        crowd_open(&c);
        if (life == 0)
            (void)crowd_list(&c, 0, 1); /* a listing finds the crowd, or a sweep */
        else
            CU_ASSERT_EQUAL(blob_store_sweep(c.store, 0, NULL), BLOB_OK);
        for (unsigned round = 0; round < 40; round++) {
            for (unsigned i = 0; i < 20; i++) {
                unsigned at = (round * 7919 + i * 104729 + (unsigned)life) % CROWD;
                crowd_set(&c, at % 3 == 2 ? at - 1 : at, i % 3 != 0);
            }
            CU_ASSERT_EQUAL(crowd_list(&c, 3 * (round * 37 % 1000), 1 + round % 70), 0);
            CU_ASSERT_EQUAL(crowd_list(&c, 1 + 3 * (round * 31 % 1000), round % 9 ? 3 : 0), 0);
        }
        blob_store_close(c.store);
    }
}

/* A listing of few reads few, whoever else has how many names in that directory. */
static void test_crowds(void)
{
    for (int journal = 0; journal < 2; journal++) {
        char root[TEMP_DIR_CHARS];
        temp_dir_make_in_memory(root);
        crowd_of(root, journal);
        temp_dir_remove(root);
    }
}

/* It grows under the store: no listing reads more than what makes a crowd. */
static void test_growing_crowd(void)
{
    static struct crowd c;
    char root[TEMP_DIR_CHARS];
    temp_dir_make_in_memory(root);
    memset(&c, 0, sizeof c);
    c.opt = (struct disk_options){.root = root, .journal_segment_bytes = 1u << 20};
    crowd_open(&c);
    for (unsigned i = 0; i < CROWD; i++) {
        if (i % 3 != 2)
            crowd_set(&c, i, true);
        if (i % 100 == 0)
            CU_ASSERT_TRUE(crowd_list(&c, 0, 1) <= 2 * (BOUND + 100));
    }
    CU_ASSERT_EQUAL(crowd_list(&c, 0, 1), 0);
    blob_store_close(c.store);
    temp_dir_remove(root);
}

/* Where the names cannot be kept, the directory is read, and nothing is missed. */
static void test_crowd_without_a_file(void)
{
    static struct crowd c;
    char root[TEMP_DIR_CHARS], tmp[TEMP_DIR_CHARS + 8], aside[TEMP_DIR_CHARS + 8];
    temp_dir_make_in_memory(root);
    snprintf(tmp, sizeof tmp, "%s/tmp", root);
    snprintf(aside, sizeof aside, "%s/aside", root);
    memset(&c, 0, sizeof c);
    c.opt = (struct disk_options){.root = root, .journal = true, .journal_segment_bytes = 1u << 20};
    crowd_open(&c);
    for (unsigned i = 0; i < CROWD; i++)
        crowd_set(&c, i, i % 3 != 2);
    blob_store_close(c.store);
    crowd_open(&c);
    CU_ASSERT_EQUAL_FATAL(rename(tmp, aside), 0);
    for (unsigned i = 0; i < 3; i++) {
        CU_ASSERT_TRUE(crowd_list(&c, 30 * i, 50) > BOUND);
        crowd_set(&c, 300 + 3 * i, false);
    }
    CU_ASSERT_EQUAL_FATAL(rename(aside, tmp), 0);
    blob_store_close(c.store);
    temp_dir_remove(root);
}

/* Each thread changes keys of its own, while the crowd is found, kept and listed. */
enum { CROWD_THREADS = 3 };

struct crowd_thread {
    struct crowd *c;
    unsigned number;
};

static void *change_crowd(void *arg)
{
    const struct crowd_thread *t = arg;
    for (unsigned i = 0; i < 600; i++) {
        unsigned at = 3 * ((i * 37 + t->number) % 900) + t->number % 2;
        if (at / 3 % CROWD_THREADS == t->number)
            crowd_set(t->c, at, i % 3 != 0);
    }
    return NULL;
}

static bool count_keys(const char *key, const void *value, size_t len, void *arg)
{
    (void)key;
    (void)value;
    (void)len;
    ++*(unsigned *)arg;
    return true;
}

/* What nobody changes is in every listing. */
static void *list_crowd(void *arg)
{
    const struct crowd_thread *t = arg;
    for (unsigned i = 0; i < 200; i++) {
        unsigned seen = 0;
        CU_ASSERT_EQUAL(record_list(t->c->store, "files/abc0/", "files/abc0/03000", 40, false, count_keys, &seen, NULL),
                        BLOB_OK);
        CU_ASSERT_EQUAL(seen, 40);
    }
    return NULL;
}

static void threads_in_a_crowd(const char *root, bool journal)
{
    static struct crowd c;
    pthread_t threads[CROWD_THREADS + 1];
    struct crowd_thread args[CROWD_THREADS + 1];
    memset(&c, 0, sizeof c);
    c.opt = (struct disk_options){.root = root, .journal = journal, .journal_segment_bytes = 1u << 20};
    crowd_open(&c);
    for (unsigned i = 0; i < CROWD; i++)
        if (i % 3 != 2)
            crowd_set(&c, i, true);
    blob_store_close(c.store);
    crowd_open(&c);
    for (unsigned i = 0; i <= CROWD_THREADS; i++) {
        args[i] = (struct crowd_thread){&c, i};
        CU_ASSERT_EQUAL_FATAL(
            pthread_create(&threads[i], NULL, i < CROWD_THREADS ? change_crowd : list_crowd, &args[i]), 0);
    }
    for (unsigned i = 0; i <= CROWD_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int life = 0; life < 2; life++) { /* what was kept, and what is there */
        (void)crowd_list(&c, 0, 0);
        (void)crowd_list(&c, 1, 0);
        blob_store_close(c.store);
        crowd_open(&c);
    }
    blob_store_close(c.store);
}

static void test_threads_in_a_crowd(void)
{
    for (int journal = 0; journal < 2; journal++) {
        char root[TEMP_DIR_CHARS];
        temp_dir_make_in_memory(root);
        threads_in_a_crowd(root, journal);
        temp_dir_remove(root);
    }
}

int main(void)
{
    CU_TestInfo tests[] = {{"a listing of part of a directory is what a model says", test_listings},
                           {"a listing of few does not read a crowded directory", test_crowds},
                           {"nor one that became crowded meanwhile", test_growing_crowd},
                           {"where names cannot be kept the directory is read", test_crowd_without_a_file},
                           {"threads change a crowd while it is found and listed", test_threads_in_a_crowd},
                           CU_TEST_INFO_NULL};
    return unit_main("disk_listing", tests);
}
