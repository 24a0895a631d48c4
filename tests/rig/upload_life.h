/*
 * upload_life - uploads that a crash test can foretell: from their number follow id, content, size and keys, so that
 * what was promised can be looked for by another process, after any crash.
 */
#ifndef BLOBD_TESTS_UPLOAD_LIFE_H
#define BLOBD_TESTS_UPLOAD_LIFE_H

#include "tests/contract/blob_contract_parts.h"

#include "core/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIFE_BLOB_VALUE "{\"blob\":1}"

/* What was begun (…ING) and acknowledged, in this order. */
enum life_step {
    LIFE_FLUSHING_PART,
    LIFE_FLUSHED_PART,
    LIFE_FLUSHING,
    LIFE_FLUSHED,
    LIFE_ROLLING_BACK, /* to what the first flush covered */
    LIFE_ROLLED_BACK,
    LIFE_COMMITTING,
    LIFE_DONE,
    LIFE_DELETING,
    LIFE_DELETED,
    LIFE_STEPS
};

struct life {
    unsigned number, seed;
    struct uuid id;
    uint64_t size, part; /* part: what the first flush covers */
    struct digest digest;
    char file_key[RECORD_KEY_MAX + 1], blob_key[RECORD_KEY_MAX + 1];
};

/* Called at each step: before it for …ING, else when it has been acknowledged. */
typedef void life_note(const struct life *life, enum life_step step, void *arg);

static inline void life_plan(struct life *life, unsigned number)
{
    static const uint64_t sizes[] = {10, 500, 4096, 16384, 16385, 40000, 131072, 131073, 300000};
    char text[UUID_CHARS + 1];
    *life = (struct life){.number = number, .seed = number, .size = sizes[number % 9] + number % 1000};
    /* Some content is stored again and again. */
    if (number % 5 == 0) {
        life->seed = 1000000 + number % 100;
        life->size = 20000;
    }
    life->part = life->size / 3;
    snprintf(text, sizeof text, "%08x-0000-4000-8000-000000000000", number);
    CHECK(uuid_parse(text, &life->id) == BLOB_OK);
    content_digest(life->size, life->seed, &life->digest);
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(&life->digest, hex);
    snprintf(life->file_key, sizeof life->file_key, "files/%s/%u", hex, number);
    snprintf(life->blob_key, sizeof life->blob_key, "blobs/%s", hex);
}

/* Of some, more is written than is flushed, as by a link that breaks: nobody may be told of that. */
static inline bool life_append(struct blob_store *s, const struct life *life, life_note *note, void *arg)
{
    const uint64_t ends[2] = {life->part, life->size};
    struct upload_mark mark = {0};
    for (int i = 0; i < 2; i++) {
        struct blob_writer *w = NULL;
        if (staged_open(s, &life->id, &mark, 1, &w, NULL) != BLOB_OK)
            return false;
        note(life, i == 0 ? LIFE_FLUSHING_PART : LIFE_FLUSHING, arg);
        bool ok = content_write(w, life->number % 3 == 0 ? life->size : ends[i], 50000, life->seed) == BLOB_OK &&
                  writer_flush(w, ends[i], NULL, 0, 0, &mark, NULL) == BLOB_OK;
        if (ok)
            note(life, i == 0 ? LIFE_FLUSHED_PART : LIFE_FLUSHED, arg);
        writer_close(w);
        if (!ok)
            return false;
    }
    return true;
}

/* As the server completes: lazily, but for the last step. */
static inline bool life_complete(struct blob_store *s, const struct life *life, life_note *note, void *arg)
{
    const struct upload_mark mark = {.offset = life->size};
    struct blob_writer *w = NULL;
    if (staged_open(s, &life->id, &mark, 2, &w, NULL) != BLOB_OK)
        return false;
    note(life, LIFE_COMMITTING, arg);
    if (writer_commit(w, &life->digest, BLOB_LAZY, NULL) != BLOB_OK) {
        writer_close(w);
        return false;
    }
    if (record_put(s, life->blob_key, LIFE_BLOB_VALUE, strlen(LIFE_BLOB_VALUE), BLOB_LAZY, NULL) != BLOB_OK ||
        record_put(s, life->file_key, life->file_key, strlen(life->file_key), 0, NULL) != BLOB_OK)
        return false;
    note(life, LIFE_DONE, arg);
    return true;
}

/* The content is nobody else's for numbers that are not multiples of 5. */
static inline bool life_delete(struct blob_store *s, const struct life *life, life_note *note, void *arg)
{
    note(life, LIFE_DELETING, arg);
    if (record_delete(s, life->file_key, 0, NULL) != BLOB_OK ||
        blob_remove(s, &life->digest, INT64_MAX, NULL) != BLOB_OK)
        return false;
    note(life, LIFE_DELETED, arg);
    return true;
}

/* As of a body that turned out not to be what it should. */
static inline bool life_roll_back(struct blob_store *s, const struct life *life, life_note *note, void *arg)
{
    const struct upload_mark mark = {.offset = life->part};
    struct blob_writer *w = NULL;
    note(life, LIFE_ROLLING_BACK, arg);
    if (staged_open(s, &life->id, &mark, 2, &w, NULL) != BLOB_OK)
        return false;
    note(life, LIFE_ROLLED_BACK, arg);
    writer_close(w);
    return true;
}

/* Whole lives, but that every seventh stays staged, or is rolled back, and some are deleted at the end. */
static inline bool life_live(struct blob_store *s, const struct life *life, life_note *note, void *arg)
{
    if (!life_append(s, life, note, arg))
        return false;
    if (life->number % 7 == 6)
        return life->number % 2 == 0 || life_roll_back(s, life, note, arg);
    return life_complete(s, life, note, arg) && (life->number % 5 != 3 || life_delete(s, life, note, arg));
}

/* ---- looking for it ---- */

static inline bool life_record(struct blob_store *s, const char *key, const char *value)
{
    struct bytebuf b;
    bytebuf_init(&b);
    bool there = record_get(s, key, &b, NULL) == BLOB_OK && strcmp(b.data, value) == 0;
    bytebuf_release(&b);
    return there;
}

static inline bool life_same(struct blob_store *s, const struct life *life, uint64_t bytes)
{
    size_t got = 0;
    char *have = malloc(bytes + 1), *want = malloc(bytes + 1);
    CHECK(have && want);
    content_fill(want, bytes, 0, life->seed);
    bool ok = staged_read(s, &life->id, 0, have, bytes, &got, NULL) == BLOB_OK && got == bytes &&
              memcmp(have, want, bytes) == 0;
    free(have);
    free(want);
    return ok;
}

/* What is wrong with what is staged: less than was acknowledged, more than was flushed, or other bytes. */
static inline const char *life_staged(struct blob_store *s, const struct life *life, const bool passed[LIFE_STEPS])
{
    struct staged_stat stat = {.mark = {.offset = 0}};
    uint64_t least = !passed[LIFE_FLUSHED_PART]                           ? 0
                     : !passed[LIFE_FLUSHED] || passed[LIFE_ROLLING_BACK] ? life->part
                                                                          : life->size;
    uint64_t most = !passed[LIFE_FLUSHING_PART]                          ? 0
                    : !passed[LIFE_FLUSHING] || passed[LIFE_ROLLED_BACK] ? life->part
                                                                         : life->size;
    enum blob_status st = staged_stat(s, &life->id, &stat, NULL);
    if (st != BLOB_OK && st != BLOB_E_NOT_FOUND)
        return "what is staged cannot be looked at";
    if (stat.mark.offset < least)
        return "flushed bytes are gone";
    if (stat.mark.offset > most)
        return passed[LIFE_ROLLED_BACK] ? "rolled back, and there again" : "more is told than was flushed";
    return stat.mark.offset == 0 || life_same(s, life, stat.mark.offset)
               ? NULL
               : "the staged bytes are not those that were sent";
}

/* What is missing of what was promised; NULL: nothing. passed: the steps that had been noted. */
static inline const char *life_missing(struct blob_store *s, const struct life *life, const bool passed[LIFE_STEPS])
{
    bool file = life_record(s, life->file_key, life->file_key);
    if (passed[LIFE_DELETED])
        return file ? "deleted, and back" : NULL;
    if (passed[LIFE_DELETING])
        return NULL;
    if (file) {
        /* The steps of a completion survive in their order. */
        if (!content_intact(s, life->size, life->seed))
            return "its record is there, its content is not";
        return life_record(s, life->blob_key, LIFE_BLOB_VALUE) ? NULL : "its record is there, the blob's is not";
    }
    if (passed[LIFE_DONE])
        return "completed, and its record is gone";
    const char *wrong = life_staged(s, life, passed);
    return wrong && passed[LIFE_COMMITTING] && content_intact(s, life->size, life->seed) ? NULL : wrong;
}

static inline bool life_blob_whole(const struct digest *digest, const struct blob_info *info, void *arg)
{
    struct blob_store *s = arg;
    struct blob_reader *r = NULL;
    struct blob_info again;
    struct hash h;
    struct digest got;
    char *buf = malloc(info->size + 1);
    CHECK(buf);
    bool ok = blob_open(s, digest, &r, &again, NULL) == BLOB_OK && reader_read(r, 0, buf, info->size, NULL) == BLOB_OK;
    hash_init(&h);
    hash_update(&h, buf, ok ? info->size : 0);
    hash_peek(&h, &got);
    reader_close(r);
    free(buf);
    return ok && digest_equal(&got, digest);
}

struct life_tally {
    struct blob_store *store;
    unsigned broken;
};

static inline bool life_see_blob(const struct digest *digest, const struct blob_info *info, void *arg)
{
    struct life_tally *t = arg;
    t->broken += !life_blob_whole(digest, info, t->store);
    return true;
}

static inline bool life_see_record(const char *key, const void *value, size_t len, void *arg)
{
    struct life_tally *t = arg;
    const char *want = strncmp(key, "blobs/", 6) == 0 ? LIFE_BLOB_VALUE : key;
    t->broken += len != strlen(want) || memcmp(value, want, len) != 0;
    return true;
}

/* How many blobs and records that can be seen are not what they must be. */
static inline unsigned life_broken(struct blob_store *s)
{
    struct life_tally t = {.store = s};
    t.broken += blob_list(s, NULL, life_see_blob, &t, NULL) != BLOB_OK;
    t.broken += record_list(s, "blobs/", NULL, 0, true, life_see_record, &t, NULL) != BLOB_OK;
    t.broken += record_list(s, "files/", NULL, 0, true, life_see_record, &t, NULL) != BLOB_OK;
    return t.broken;
}

#endif
