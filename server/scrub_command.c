/*
 * scrub_command - the scrubber, run once round the store, and then a walk over the files.
 *
 * How far it is can be told without counting first: digests are spread evenly, and blobs come in their order. A blob
 * that cannot be read is passed over and told; a store that fails as a whole ends the run.
 */
#include "server/scrub_command.h"

#include "core/blob_store.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/files/file_record.h"
#include "core/upkeep/scrubber.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP_BYTES     (16u << 20)
#define PROGRESS_US    (2 * 1000 * 1000)
#define NAMES_SHOWN    5
#define FAILURES_MAX   100 /* blobs that cannot be read: then it is the store that fails */
#define PERCENT_DIGITS 65536u

struct scrub {
    struct blob_store *store;
    uint64_t blobs, bytes, damaged, left, unreadable, files, missing;
    struct digest *found; /* damaged, in the order of digests */
    size_t found_count, found_cap;
    struct digest last; /* of the blobs, then of the files */
    bool any;
    int64_t told_us;
};

/* ---- what is found ---- */

struct naming {
    unsigned shown;
};

static bool print_file(const char *key, const void *value, size_t len, void *arg)
{
    struct naming *n = arg;
    struct file_record file;
    struct digest digest;
    uint64_t number;
    if (file_key_parse(key, &digest, &number) != BLOB_OK ||
        file_record_decode(&digest, number, value, len, &file, NULL) != BLOB_OK)
        return true;
    if (n->shown++ < NAMES_SHOWN)
        printf("          file %s \"%s\"%s%s\n", file.id, file.name, file.owner[0] != '\0' ? " of " : "", file.owner);
    return true;
}

static void print_files_of(struct scrub *s, const struct digest *digest)
{
    char prefix[FILE_PREFIX_CHARS + 1];
    struct naming n = {0};
    struct blob_error err;
    file_prefix_make(digest, prefix);
    if (record_list(s->store, prefix, NULL, 0, true, print_file, &n, &err) != BLOB_OK)
        printf("          its files cannot be listed: %s\n", err.text);
    else if (n.shown > NAMES_SHOWN)
        printf("          and %u files more\n", n.shown - NAMES_SHOWN);
    else if (n.shown == 0)
        printf("          no file names it\n");
}

static void remember(struct scrub *s, const struct digest *digest)
{
    if (s->found_count == s->found_cap) {
        s->found_cap = s->found_cap > 0 ? 2 * s->found_cap : 64;
        struct digest *grown = reallocarray(s->found, s->found_cap, sizeof *grown);
        CHECK(grown != NULL);
        s->found = grown;
    }
    s->found[s->found_count++] = *digest;
}

static int digest_order(const void *a, const void *b)
{
    return memcmp(((const struct digest *)a)->bytes, ((const struct digest *)b)->bytes, DIGEST_BYTES);
}

static void see_blob(const struct digest *digest, uint64_t size, enum scrub_verdict verdict, const char *text,
                     void *arg)
{
    static const char *const words[] = {
        [SCRUB_DAMAGED] = "damaged", [SCRUB_LEFT] = "damaged", [SCRUB_UNREADABLE] = "unread"};
    struct scrub *s = arg;
    s->blobs++;
    s->bytes += size;
    s->last = *digest;
    s->any = true;
    if (verdict == SCRUB_SOUND)
        return;
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(digest, hex);
    s->damaged += verdict == SCRUB_DAMAGED;
    s->left += verdict == SCRUB_LEFT;
    s->unreadable += verdict == SCRUB_UNREADABLE;
    printf("%-9s %s, %" PRIu64 " bytes: %s%s\n", words[verdict], hex, size,
           verdict == SCRUB_LEFT ? "it stays where it is: " : "", text);
    if (verdict != SCRUB_UNREADABLE) {
        remember(s, digest);
        print_files_of(s, digest);
    }
    fflush(stdout);
}

static void tell_progress(struct scrub *s)
{
    int64_t now_us = clock_steady_us();
    if (now_us - s->told_us < PROGRESS_US)
        return;
    s->told_us = now_us;
    unsigned at = s->any ? (unsigned)s->last.bytes[0] << 8 | s->last.bytes[1] : 0;
    fprintf(stderr, "%3u %%  %" PRIu64 " blobs, %" PRIu64 " MiB read, %" PRIu64 " damaged\n", at * 100 / PERCENT_DIGITS,
            s->blobs, s->bytes >> 20, s->damaged + s->left);
}

/* ---- the two walks ---- */

static enum blob_status read_blobs(struct scrub *s, struct blob_error *err)
{
    struct scrubber *scrubber = scrubber_new(s->store, NULL, NULL, NULL);
    enum blob_status st = BLOB_OK;
    scrubber_watch(scrubber, see_blob, s);
    for (bool ended = false; !ended && st == BLOB_OK;) {
        uint64_t read, unreadable = s->unreadable;
        st = scrubber_step(scrubber, STEP_BYTES, &read, &ended, err);
        /* One blob, or the store? */
        if (st != BLOB_OK && st != BLOB_E_UNAVAILABLE && st != BLOB_E_DENIED && s->unreadable > unreadable &&
            s->unreadable < FAILURES_MAX)
            st = BLOB_OK;
        tell_progress(s);
    }
    scrubber_free(scrubber);
    return st;
}

struct file_walk {
    struct scrub *scrub;
    enum blob_status status;
    struct blob_error err;
};

static bool see_file(const char *key, const void *value, size_t len, void *arg)
{
    (void)value;
    (void)len;
    struct file_walk *w = arg;
    struct scrub *s = w->scrub;
    struct digest digest;
    struct blob_info info;
    uint64_t number;
    if (file_key_parse(key, &digest, &number) != BLOB_OK)
        return true;
    s->files++;
    if (s->any && digest_equal(&digest, &s->last))
        return true;
    s->last = digest;
    s->any = true;
    w->status = blob_stat(s->store, &digest, &info, &w->err);
    if (w->status != BLOB_E_NOT_FOUND)
        return w->status == BLOB_OK;
    w->status = BLOB_OK;
    if (s->found_count > 0 && bsearch(&digest, s->found, s->found_count, sizeof digest, digest_order) != NULL)
        return true;
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(&digest, hex);
    s->missing++;
    printf("%-9s %s: it was set aside before, or is lost\n", "missing", hex);
    print_files_of(s, &digest);
    return true;
}

static enum blob_status look_at_files(struct scrub *s, struct blob_error *err)
{
    struct file_walk w = {.scrub = s, .status = BLOB_OK};
    s->any = false;
    if (s->found_count > 0)
        qsort(s->found, s->found_count, sizeof *s->found, digest_order);
    enum blob_status st = record_list(s->store, FILE_KEY_ROOT, NULL, 0, false, see_file, &w, err);
    if (st == BLOB_OK && w.status != BLOB_OK) {
        *err = w.err;
        st = w.status;
    }
    return st;
}

/* ---- the whole ---- */

static void summarize(const struct scrub *s)
{
    printf("%" PRIu64 " blobs, %" PRIu64 " bytes read; %" PRIu64 " damaged, %" PRIu64 " of them set aside; %" PRIu64
           " could not be read\n"
           "%" PRIu64 " files; the blobs of %" PRIu64 " digests are missing\n",
           s->blobs, s->bytes, s->damaged + s->left, s->damaged, s->unreadable, s->files, s->missing);
    if (s->damaged > 0)
        printf("what is set aside is kept in damaged/; upload the same content again, and its files are whole\n");
    else if (s->missing > 0)
        printf("upload the missing content again, and its files are whole\n");
}

int scrub_command(struct blob_store *store)
{
    struct blob_error err = {0};
    struct scrub s = {.store = store, .told_us = clock_steady_us()};
    if (store->limits != NULL)
        fprintf(stderr, "blobd: %s: no server may run meanwhile\n", store->limits);
    enum blob_status st = read_blobs(&s, &err);
    if (st == BLOB_OK)
        st = look_at_files(&s, &err);
    summarize(&s);
    if (st != BLOB_OK)
        fprintf(stderr, "blobd: scrubbing has not come to its end: %s\n", err.text);
    free(s.found);
    if (s.damaged + s.left + s.missing > 0)
        return SCRUB_EXIT_FOUND;
    return st == BLOB_OK && s.unreadable == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
