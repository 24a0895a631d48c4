/*
 * store_rig - an S3 store in a place of its own, with parts of 5 MiB, and what its suites do to it.
 */
#ifndef BLOBD_TESTS_STORE_RIG_H
#define BLOBD_TESTS_STORE_RIG_H

#include "backends/s3/s3_below.h"
#include "backends/s3/s3_store.h"
#include "backends/s3/s3_store_internal.h"
#include "core/clock.h"
#include "tests/rig/unit_main.h"
#include "tests/s3/s3_environment.h"

#include <string.h>
#include <unistd.h>

#define MIB  (1u << 20)
#define PART (5u * MIB)

static char prefix[64];
static unsigned connections; /* 0: as many as usual */

static inline struct s3_options options(void)
{
    struct s3_options o = s3_environment();
    o.part_size_bytes = PART;
    o.prefix = prefix;
    o.redirect = true;
    if (connections > 0)
        o.max_connections = connections;
    return o;
}

/* A store in a place of its own, and a client that looks at it from outside. */
struct rig {
    struct blob_store *store;
    struct s3_client *s3;
};

static inline struct rig rig_open_with(size_t memory_bytes)
{
    static int serial;
    struct rig r;
    struct blob_error err;
    snprintf(prefix, sizeof prefix, "store-%d-%lld-%d", (int)getpid(), (long long)clock_wall_ms(), serial++);
    struct s3_options o = options();
    if (memory_bytes > 0)
        o.memory_bytes = memory_bytes;
    enum blob_status st = s3_store_open(&o, NULL, &r.store, &err);
    if (st != BLOB_OK)
        fprintf(stderr, "%s\n", err.text);
    CU_ASSERT_EQUAL_FATAL(st, BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(s3_client_open(&o, &r.s3, &err), BLOB_OK);
    return r;
}

static inline struct rig rig_open(void)
{
    return rig_open_with(0);
}

static inline void rig_close(struct rig *r)
{
    blob_store_close(r->store);
    s3_client_close(r->s3);
}

static inline bool multipart(const struct rig *r)
{
    return s3_client_caps(r->s3) & S3_CAP_MULTIPART;
}

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        struct blob_error err_ = {.text = ""}, *err = &err_;                                                           \
        enum blob_status st_ = (call);                                                                                 \
        if (st_ != BLOB_OK)                                                                                            \
            fprintf(stderr, "%s: %s: %s\n", #call, blob_status_name(st_), err_.text);                                  \
        CU_ASSERT_EQUAL_FATAL(st_, BLOB_OK);                                                                           \
    } while (0)

/* checked.json is not counted, which is there where the driver lacks nothing, nor the end of all listings. */
static inline unsigned count_below(const struct rig *r, const char *below)
{
    struct s3_page page = {0};
    OK(s3_list(r->s3, below, NULL, 1000, &page, err));
    unsigned n = 0;
    for (size_t i = 0; i < page.count; i++)
        n += strcmp(page.entries[i].key, "checked.json") != 0 && strcmp(page.entries[i].key, S3_END_KEY) != 0;
    s3_page_release(&page);
    return n;
}

static inline unsigned count_multiparts(const struct rig *r)
{
    struct s3_uploads uploads = {0};
    if (!multipart(r))
        return 0;
    OK(s3_multipart_list(r->s3, "data/", NULL, NULL, &uploads, err));
    unsigned n = (unsigned)uploads.count;
    s3_uploads_release(&uploads);
    return n;
}

static inline uint8_t *content(size_t len, unsigned seed)
{
    uint8_t *buf = malloc(len + 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(buf);
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        buf[i] = (uint8_t)(x >> 24);
    }
    return buf;
}

static inline struct digest digest_of(const void *data, size_t len)
{
    struct hash h;
    struct digest d;
    hash_init(&h);
    hash_update(&h, data, len);
    hash_peek(&h, &d);
    return d;
}

static inline void check_blob(const struct rig *r, const uint8_t *want, size_t len, const struct digest *digest)
{
    struct blob_reader *reader = NULL;
    struct blob_info info = {0};
    uint8_t *got = malloc(len + 1);
    OK(blob_open(r->store, digest, &reader, &info, err));
    CU_ASSERT_EQUAL(info.size, len);
    for (size_t at = 0; at < len;) { /* in pieces, as a download goes */
        size_t n = len - at < 200000 ? len - at : 200000;
        OK(reader_read(reader, at, got + at, n, err));
        at += n;
    }
    CU_ASSERT_EQUAL(memcmp(got, want, len), 0);
    reader_close(reader);
    free(got);
}

/* The bucket holds this one blob and nothing else: one data object, its pointer, store.json. */
static inline void check_only_blob(const struct rig *r, size_t len)
{
    struct s3_page page = {0};
    OK(s3_list(r->s3, "data/", NULL, 1000, &page, err));
    CU_ASSERT_EQUAL(page.count, 1);
    if (page.count == 1)
        CU_ASSERT_EQUAL(page.entries[0].object.size, len);
    s3_page_release(&page);
    CU_ASSERT_EQUAL(count_below(r, ""), 3);
    CU_ASSERT_EQUAL(count_multiparts(r), 0);
}

/* Appends len bytes as one request would: open, write in pieces, flush, close. */
static inline void append(const struct rig *r, const struct uuid *id, struct upload_mark *mark, uint64_t epoch,
                          const uint8_t *data, size_t len)
{
    struct blob_writer *w = NULL;
    OK(staged_open(r->store, id, mark, epoch, &w, err));
    for (size_t at = 0; at < len;) {
        size_t n = len - at < 262144 ? len - at : 262144;
        OK(writer_write_bytes(w, data + at, n, err));
        at += n;
    }
    OK(writer_flush(w, mark->offset + len, "keep", 4, 0, mark, err));
    writer_close(w);
}

static inline void commit(const struct rig *r, const struct uuid *id, const struct upload_mark *mark, uint64_t epoch,
                          const struct digest *digest)
{
    struct blob_writer *w = NULL;
    OK(staged_open(r->store, id, mark, epoch, &w, err));
    OK(writer_commit(w, digest, 0, err));
}

static inline bool no_blob(const struct digest *digest, const struct blob_info *info, void *arg)
{
    (void)digest;
    (void)info;
    (void)arg;
    CU_FAIL("a blob that was removed is listed");
    return true;
}

static inline struct s3_key pointer_name(const struct digest *digest)
{
    struct s3_key key;
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    snprintf(key.text, sizeof key.text, "blobs/%.2s/%s.json", hex, hex);
    return key;
}
static inline struct digest store_small(const struct rig *r, const uint8_t *data, size_t len)
{
    struct upload_mark none = {0};
    struct blob_writer *w = NULL;
    struct digest digest = digest_of(data, len);
    struct uuid id;
    uuid_new(&id);
    OK(staged_open(r->store, &id, &none, 1, &w, err));
    OK(writer_write_bytes(w, data, len, err));
    OK(writer_commit(w, &digest, 0, err));
    return digest;
}

#endif
