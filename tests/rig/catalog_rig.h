/*
 * catalog_rig - a memory store, memory sessions and a catalog on them, for the tests of what works on files and blobs.
 *
 * A test may put a hook before one operation of the store (rig.ops), to do in the middle of another call what would
 * otherwise take luck with threads.
 */
#ifndef BLOBD_TESTS_CATALOG_RIG_H
#define BLOBD_TESTS_CATALOG_RIG_H

#include "backends/memory/memory_sessions.h"
#include "backends/memory/memory_store.h"
#include "core/clock.h"
#include "core/files/file_catalog.h"
#include "tests/rig/unit_main.h"

#include <string.h>

struct rig {
    struct blob_store *store;
    struct session_store *sessions;
    struct file_catalog *catalog;
    struct blob_store_ops ops; /* what the store runs: real, but for a test's hooks */
    const struct blob_store_ops *real;
};

static inline void rig_open_on(struct rig *r, struct memory_hub *hub)
{
    struct blob_error err;
    CU_ASSERT_EQUAL_FATAL(memory_store_open(NULL, &r->store, &err), BLOB_OK);
    r->sessions = memory_sessions_open(hub);
    r->catalog = file_catalog_new(r->store, r->sessions, NULL);
    CU_ASSERT_EQUAL_FATAL(file_catalog_heal_index(r->catalog, NULL, NULL), BLOB_OK); /* as the janitor does at once */
    r->real = r->store->ops;
    r->ops = *r->real;
    r->store->ops = &r->ops;
}

static inline void rig_open(struct rig *r)
{
    rig_open_on(r, NULL);
}

static inline void rig_close(struct rig *r)
{
    file_catalog_free(r->catalog);
    session_store_close(r->sessions);
    r->store->ops = r->real;
    blob_store_close(r->store);
}

static inline struct digest rig_digest(const void *content, size_t len)
{
    struct hash h;
    struct digest d;
    hash_init(&h);
    hash_update(&h, content, len);
    hash_peek(&h, &d);
    return d;
}

/* Commits content as the blob `digest`, whatever it hashes to. From any thread. */
static inline bool rig_try_commit(struct rig *r, const struct digest *digest, const void *content, size_t len)
{
    struct uuid id;
    struct upload_mark mark = {0};
    struct blob_writer *w;
    uuid_new(&id);
    if (staged_open(r->store, &id, &mark, 1, &w, NULL) != BLOB_OK)
        return false;
    if ((len == 0 || writer_write_bytes(w, content, len, NULL) == BLOB_OK) &&
        writer_commit(w, digest, 0, NULL) == BLOB_OK)
        return true;
    writer_close(w);
    return false;
}

static inline void rig_commit(struct rig *r, const struct digest *digest, const void *content, size_t len)
{
    CU_ASSERT_TRUE_FATAL(rig_try_commit(r, digest, content, len));
}

static inline struct digest rig_put(struct rig *r, const char *content)
{
    struct digest d = rig_digest(content, strlen(content));
    rig_commit(r, &d, content, strlen(content));
    return d;
}

static inline struct file_record rig_file(const struct digest *digest, uint64_t size, const char *name,
                                          const char *owner, int64_t created_ms)
{
    struct file_record f = {.digest = *digest, .size = size, .created_ms = created_ms};
    uuid_new(&f.upload);
    f.number = file_number(created_ms, &f.upload);
    snprintf(f.name, sizeof f.name, "%s", name);
    snprintf(f.owner, sizeof f.owner, "%s", owner);
    snprintf(f.media_type, sizeof f.media_type, "%s", media_type_of_name(name));
    return f;
}

static inline struct file_record rig_add(struct rig *r, const struct digest *digest, uint64_t size, const char *name,
                                         const char *owner, int64_t created_ms)
{
    struct file_record f = rig_file(digest, size, name, owner, created_ms);
    struct blob_error err;
    CU_ASSERT_EQUAL_FATAL(file_catalog_add(r->catalog, &f, 0, &err), BLOB_OK);
    return f;
}

static inline void rig_destroy(struct rig *r, const char *id, bool expect_last)
{
    struct digest digest;
    bool last;
    struct blob_error err;
    CU_ASSERT_EQUAL(file_catalog_destroy(r->catalog, id, NULL, &digest, &last, &err), BLOB_OK);
    CU_ASSERT_EQUAL(last, expect_last);
}

static inline bool rig_has_blob(struct rig *r, const struct digest *digest)
{
    struct blob_info info;
    return blob_stat(r->store, digest, &info, NULL) == BLOB_OK;
}

static inline bool count_file(const struct file_record *file, void *arg)
{
    (void)file;
    ++*(unsigned *)arg;
    return true;
}

/* How many files who sees listed. */
static inline uint64_t rig_listed(struct rig *r, const struct identity *who)
{
    struct index_query q = {.orders = 1, .top = 100};
    uint64_t count = 0;
    unsigned passed = 0;
    struct blob_error err;
    CU_ASSERT_EQUAL(file_catalog_list(r->catalog, who, &q, &count, count_file, &passed, &err), BLOB_OK);
    CU_ASSERT_EQUAL(count, passed);
    return count;
}

#endif
