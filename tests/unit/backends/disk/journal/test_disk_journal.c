/*
 * disk_journal - what is read is what was appended, up to the first entry that is not whole: whatever was cut, changed,
 * left by an earlier use of the segment, or put there by somebody who knows all but the key. Journals of version 1 are
 * read, and version 1 refuses those of today.
 */
#include "backends/crc32c.h"
#include "backends/disk/disk_layout.h"
#include "backends/disk/disk_store.h"
#include "backends/disk/file/disk_bytes.h"
#include "backends/disk/journal/disk_journal.h"
#include "backends/disk/journal/disk_journal_format.h"
#include "core/check.h"
#include "tests/contract/blob_contract_parts.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SEGMENT     (1u << 20)
#define ENTRIES_MAX 4000
#define IMAGE_MAX   (64u << 10) /* of a segment: more than what the tests that take it apart write */
#define SAMPLE      "tests/data/journal-1"
#define V1_KINDS    11

static char root[TEMP_DIR_CHARS];
static int root_fd = -1;

static void reset_root(void)
{
    if (root_fd >= 0)
        close(root_fd);
    temp_dir_remove(root);
    temp_dir_make_in_memory(root);
    root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(root_fd >= 0);
}

static int drop_root(void)
{
    close(root_fd);
    root_fd = -1;
    temp_dir_remove(root);
    return 0;
}

/* ---- a journal, and what it should say ---- */

static enum blob_status settle_nothing(void *arg, struct blob_error *err)
{
    (void)arg;
    (void)err;
    return BLOB_OK;
}

static struct disk_journal *journal_open(uint64_t first_segment)
{
    const struct journal_options opt = {.root_fd = root_fd,
                                        .segment_bytes = SEGMENT,
                                        .max_segments =
                                            20, /* half of them are not filled: nothing is freed meanwhile */
                                        .checkpoint_ms = 3600 * 1000,
                                        .first_segment = first_segment,
                                        .settle = settle_nothing};
    struct disk_journal *j = NULL;
    CU_ASSERT_EQUAL_FATAL(disk_journal_open(&opt, &j, NULL), BLOB_OK);
    return j;
}

static struct expected {
    uint64_t begin, end; /* in its segment: the zeros behind it are not its */
    enum journal_kind kind;
    uint32_t len;
    unsigned seed;
} expected[ENTRIES_MAX];
static size_t expected_count;

static void body_fill(uint8_t *out, uint32_t len, unsigned seed)
{
    for (uint32_t i = 0; i < len; i++)
        out[i] = (uint8_t)(i * 7 + seed * 13 + (seed >> 8));
}

/* One of `len` bytes, in three parts. */
static void append(struct disk_journal *j, uint32_t len, bool wait)
{
    static uint8_t body[200000];
    unsigned seed = (unsigned)expected_count;
    enum journal_kind kind = (enum journal_kind)(JOURNAL_DATA + seed % 9);
    body_fill(body, len, seed);
    uint32_t a = len / 3, b = len / 2;
    const struct iovec parts[] = {{body, a}, {body + a, b - a}, {body + b, len - b}};
    struct journal_ticket ticket;
    CU_ASSERT_EQUAL_FATAL(disk_journal_append(j, kind, parts, 3, false, &ticket, NULL), BLOB_OK);
    uint64_t at = ticket.begin & UINT32_MAX;
    CHECK(expected_count < ENTRIES_MAX);
    expected[expected_count++] = (struct expected){at, at + JOURNAL_ENTRY_BYTES + len, kind, len, seed};
    if (wait)
        CU_ASSERT_EQUAL_FATAL(disk_journal_wait(j, ticket.lsn, NULL), BLOB_OK);
}

/* How many entries are read; all must be the expected ones, in order. A failure to read fails the test. */
static size_t entries_read(int fd)
{
    static uint8_t want[200000];
    struct journal_log log;
    enum blob_status st = journal_log_read(fd, &log, NULL);
    CU_ASSERT_EQUAL(st, BLOB_OK);
    if (st != BLOB_OK)
        return SIZE_MAX;
    size_t n = log.count;
    bool same = n <= expected_count;
    for (size_t i = 0; same && i < n; i++) {
        const struct journal_entry *e = &log.entries[i];
        same = e->kind == expected[i].kind && e->len == expected[i].len;
        if (same) {
            body_fill(want, e->len, expected[i].seed);
            same = memcmp(e->body, want, e->len) == 0;
        }
    }
    CU_ASSERT_TRUE(same);
    journal_log_release(&log);
    return n;
}

static int segment_fd(unsigned number)
{
    char path[64];
    snprintf(path, sizeof path, JOURNAL_DIR "/%02u", number);
    int fd = openat(root_fd, path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    CHECK(fd >= 0);
    return fd;
}

static void put_at(int fd, const void *data, size_t len, uint64_t at)
{
    CHECK(pwrite(fd, data, len, (off_t)at) == (ssize_t)len);
}

/* ---- a segment to take apart: as a process that was killed left it ---- */

static uint8_t image[IMAGE_MAX];

/* In a directory of its own, with nothing beside it. Leaves the root with the image as its only segment. */
static void make_image(void)
{
    static const uint32_t sizes[] = {0, 1, 7, 8, 52, 100, 13, 0, 3000, 44, 45, 900};
    reset_root();
    expected_count = 0;
    struct disk_journal *j = journal_open(5);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        append(j, sizes[i], i % 4 == 2);
    int fd = segment_fd(0);
    CHECK(pread(fd, image, sizeof image, 0) == sizeof image);
    close(fd);
    disk_journal_close(j);
    reset_root();
    CHECK(mkdirat(root_fd, JOURNAL_DIR, 0750) == 0);
    fd = segment_fd(0);
    put_at(fd, image, sizeof image, 0);
    close(fd);
    CU_ASSERT_EQUAL_FATAL(entries_read(root_fd), expected_count);
}

static uint64_t image_end(void)
{
    return expected[expected_count - 1].end;
}

static size_t entries_before(uint64_t at)
{
    size_t n = 0;
    while (n < expected_count && expected[n].end <= at)
        n++;
    return n;
}

/* ---- the tests ---- */

static void test_round_trip(void)
{
    reset_root();
    expected_count = 0;
    struct disk_journal *j = journal_open(1);
    for (unsigned i = 0; i < 1500; i++)
        append(j, i % 40 == 0 ? 130000 : i * 37 % 600, i % 7 == 0);
    CU_ASSERT_EQUAL(entries_read(root_fd), expected_count);
    CU_ASSERT_TRUE(disk_journal_end(j) >> 32 >= 5); /* it went through several segments */
    disk_journal_close(j);
    CU_ASSERT_EQUAL(entries_read(root_fd), 0);
}

/* The file of a number of segment; flips a bit in the middle of what it holds. */
static void flip_in_segment(uint64_t number)
{
    for (unsigned i = 0; i < 20; i++) {
        uint8_t header[JOURNAL_BLOCK], byte;
        struct segment_header h;
        int fd = segment_fd(i);
        if (pread(fd, header, sizeof header, 0) == sizeof header && disk_segment_header_decode(header, &h) &&
            h.number == number) {
            CHECK(pread(fd, &byte, 1, SEGMENT / 4) == 1);
            byte ^= 4;
            put_at(fd, &byte, 1, SEGMENT / 4);
        }
        close(fd);
    }
}

static void expect_torn(uint64_t torn, uint64_t behind, bool all)
{
    struct journal_log log;
    CU_ASSERT_EQUAL_FATAL(journal_log_read(root_fd, &log, NULL), BLOB_OK);
    CU_ASSERT_TRUE(log.torn == torn && log.behind == behind);
    CU_ASSERT_EQUAL(log.count == expected_count, all);
    journal_log_release(&log);
}

/* What ends too soon, with entries behind it in a later segment, is told, and can be kept. */
static void test_torn_amid(void)
{
    struct journal_log log;
    struct stat sb;
    reset_root();
    expected_count = 0;
    struct disk_journal *j = journal_open(1);
    for (unsigned i = 0; i < 1500; i++)
        append(j, i % 40 == 0 ? 130000 : i * 37 % 600, i % 7 == 0);
    uint64_t last = disk_journal_end(j) >> 32;
    CU_ASSERT_TRUE_FATAL(last >= 5);
    expect_torn(0, 0, true);
    flip_in_segment(last); /* the end of what there is: as a cut leaves it */
    expect_torn(0, 0, false);
    flip_in_segment(last);
    expect_torn(0, 0, true);
    flip_in_segment(3);
    expect_torn(3, 4, false);
    CU_ASSERT_EQUAL_FATAL(journal_log_read(root_fd, &log, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(journal_log_set_aside(root_fd, &log, "damaged", NULL), BLOB_OK);
    CU_ASSERT_EQUAL(fstatat(root_fd, "damaged/journal-3", &sb, 0), 0);
    CU_ASSERT_EQUAL(fstatat(root_fd, "damaged/journal-4", &sb, 0), 0);
    CU_ASSERT_NOT_EQUAL(fstatat(root_fd, "damaged/journal-2", &sb, 0), 0);
    journal_log_release(&log);
    disk_journal_close(j);
}

static void test_every_truncation(void)
{
    make_image();
    int fd = segment_fd(0);
    for (uint64_t size = image_end() + 64; size >= JOURNAL_BLOCK; size--) {
        CHECK(ftruncate(fd, (off_t)size) == 0);
        size_t n = entries_read(root_fd);
        CU_ASSERT_EQUAL(n, entries_before(size));
    }
    /* The same, where the rest is zeros: blocks that were not written. */
    make_image();
    close(fd);
    fd = segment_fd(0);
    static const uint8_t zeros[IMAGE_MAX];
    for (uint64_t size = image_end(); size > 0; size--) {
        put_at(fd, zeros, 1, size - 1);
        uint64_t kept = size - 1;
        /* What was zero anyway is not missing. */
        while (kept < image_end() && image[kept] == 0)
            kept++;
        size_t n = entries_read(root_fd);
        CU_ASSERT_EQUAL(n, entries_before(kept));
    }
    close(fd);
}

/* Where the first entry is that no longer checks when this byte is changed. */
static size_t entries_unharmed(uint64_t at)
{
    if (at < JOURNAL_HEADER_BYTES || (at >= JOURNAL_BLOCK && at < JOURNAL_BLOCK + JOURNAL_KEY_BYTES))
        return 0;
    for (size_t i = 0; i < expected_count; i++)
        if (at >= expected[i].begin && at < expected[i].end)
            return i;
    return expected_count;
}

static void test_every_flip(void)
{
    make_image();
    int fd = segment_fd(0);
    for (uint64_t at = 0; at < image_end() + 64; at++) {
        uint8_t flipped = image[at] ^ (uint8_t)(1u << at % 8);
        put_at(fd, &flipped, 1, at);
        size_t n = entries_read(root_fd);
        CU_ASSERT_EQUAL(n, entries_unharmed(at));
        put_at(fd, &image[at], 1, at);
    }
    close(fd);
}

/* An entry of version 1. Returns the chain's next. */
static uint32_t v1_entry(uint8_t *out, uint32_t kind, const void *body, uint32_t len, uint32_t chain)
{
    put_le(out, len, 4);
    put_le(out + 4, kind, 4);
    put_le(out + 8, crc32c(0, body, len), 4);
    uint32_t next = crc32c(chain, out, 12);
    put_le(out + 12, next, 4);
    memcpy(out + JOURNAL_ENTRY_BYTES, body, len);
    return next;
}

static uint32_t header_crc(const uint8_t *segment)
{
    return (uint32_t)get_le(segment + 36, 4);
}

/* Puts it where the next entry would be, at once and after a sync. */
static void expect_no_entry(const uint8_t *forged, size_t len)
{
    int fd = segment_fd(0);
    const uint64_t places[] = {journal_align(image_end(), 8), journal_align(image_end(), JOURNAL_BLOCK)};
    for (size_t i = 0; i < 2; i++) {
        put_at(fd, image, sizeof image, 0);
        put_at(fd, forged, len, places[i]);
        CU_ASSERT_EQUAL(entries_read(root_fd), expected_count);
    }
    put_at(fd, image, sizeof image, 0);
    close(fd);
}

/* By one who knows each byte but the key. */
static void test_forged(void)
{
    static const char body[] = "00000000-0000-4000-8000-00000000000000000000evil";
    uint8_t forged[256] = {0};
    make_image();
    const struct expected *last = &expected[expected_count - 1];
    uint64_t chain = get_le(image + last->begin + 8, 8);
    /* With the sums of version 1, continued from whatever stands there. */
    const uint32_t chains[] = {header_crc(image), (uint32_t)chain, (uint32_t)(chain >> 32), 0};
    for (size_t i = 0; i < 4; i++) {
        v1_entry(forged, JOURNAL_DATA, body, sizeof body, chains[i]);
        expect_no_entry(forged, JOURNAL_ENTRY_BYTES + sizeof body);
    }
    /* With a key of zeros, with one that is nearly right, and with nothing but the chain. */
    for (int guess = 0; guess < 3; guess++) {
        uint8_t key[SIPHASH_KEY_BYTES] = {0};
        if (guess > 0)
            memcpy(key, image + JOURNAL_BLOCK + JOURNAL_KEY_BYTES - sizeof key, sizeof key);
        key[15] ^= guess > 0;
        const struct entry_header h = {.len = sizeof body, .kind = JOURNAL_DATA};
        struct sum_key prepared;
        struct keyed_sum s;
        sum_key_prepare(&prepared, key);
        keyed_sum_begin(&s, &prepared);
        keyed_sum_update(&s, body, sizeof body);
        disk_entry_header_encode(&h, &s, guess == 2 ? 0 : chain, forged);
        memcpy(forged + JOURNAL_ENTRY_BYTES, body, sizeof body);
        expect_no_entry(forged, JOURNAL_ENTRY_BYTES + sizeof body);
    }
    /* Each entry that is there, once more. */
    for (size_t i = 0; i < expected_count; i++)
        expect_no_entry(image + expected[i].begin, (size_t)(expected[i].end - expected[i].begin));
    /* The right key would do: so it is the key that keeps the others out. */
    struct sum_key key;
    struct keyed_sum s;
    sum_key_prepare(&key, image + JOURNAL_BLOCK + JOURNAL_KEY_BYTES - SIPHASH_KEY_BYTES);
    keyed_sum_begin(&s, &key);
    keyed_sum_update(&s, body, sizeof body);
    const struct entry_header h = {.len = sizeof body, .kind = JOURNAL_DATA};
    disk_entry_header_encode(&h, &s, chain, forged);
    int fd = segment_fd(0);
    put_at(fd, forged, JOURNAL_ENTRY_BYTES + sizeof body, journal_align(image_end(), 8));
    struct journal_log log;
    CU_ASSERT_EQUAL_FATAL(journal_log_read(root_fd, &log, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(log.count, expected_count + 1);
    journal_log_release(&log);
    close(fd);
}

/* The same segments, used again: what a longer use left lies behind, and in front of, what is new. */
static void test_earlier_use(void)
{
    reset_root();
    uint64_t first = 1;
    for (unsigned uses = 0; uses < 12; uses++) {
        expected_count = 0;
        struct disk_journal *j = journal_open(first);
        CU_ASSERT_EQUAL(entries_read(root_fd), 0);
        for (unsigned i = 0; i < 1 + (12 - uses) * 3; i++) {
            append(j, 64, i % 5 == 0);
            CU_ASSERT_EQUAL(entries_read(root_fd), i + 1);
        }
        first = (disk_journal_end(j) >> 32) + 10;
        disk_journal_close(j);
    }
}

/* A key that was left by an earlier use is none, even where its sum fits the new header by chance. */
static void test_left_key(void)
{
    make_image();
    struct segment_header h;
    CU_ASSERT_TRUE_FATAL(disk_segment_header_decode(image, &h));
    const uint8_t *key = image + JOURNAL_BLOCK + JOURNAL_KEY_BYTES - SIPHASH_KEY_BYTES;
    uint8_t entry[JOURNAL_KEY_BYTES];
    journal_key_encode(&h, key, entry);
    CU_ASSERT_EQUAL(memcmp(entry, image + JOURNAL_BLOCK, sizeof entry), 0);
    put_le(entry + JOURNAL_ENTRY_BYTES + 4, h.number - 1, 8);
    uint8_t whole[JOURNAL_KEY_BYTES];
    v1_entry(whole, JOURNAL_KEY, entry + JOURNAL_ENTRY_BYTES, JOURNAL_KEY_BODY, header_crc(image));
    int fd = segment_fd(0);
    put_at(fd, whole, sizeof whole, JOURNAL_BLOCK);
    CU_ASSERT_EQUAL(entries_read(root_fd), 0);
    /* Nor are entries of version 1, below a header of today. */
    v1_entry(whole, JOURNAL_DELETE, "files/a/1", 9, header_crc(image));
    put_at(fd, whole, sizeof whole, JOURNAL_BLOCK);
    CU_ASSERT_EQUAL(entries_read(root_fd), 0);
    close(fd);
}

static void test_later_version(void)
{
    make_image();
    uint8_t body[JOURNAL_KEY_BODY + 8] = {0}, whole[JOURNAL_ENTRY_BYTES + sizeof body];
    memcpy(body, image + JOURNAL_BLOCK + JOURNAL_ENTRY_BYTES, JOURNAL_KEY_BODY);
    put_le(body, 3, 4);
    v1_entry(whole, JOURNAL_KEY, body, sizeof body, header_crc(image));
    int fd = segment_fd(0);
    put_at(fd, whole, sizeof whole, JOURNAL_BLOCK);
    close(fd);
    struct journal_log log;
    struct blob_error err = {0};
    CU_ASSERT_EQUAL(journal_log_read(root_fd, &log, &err), BLOB_E_CORRUPT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "later version"));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "journal/00"));
}

/* ---- version 1 ---- */

/* The kind of the first entry that version 1 finds in a segment; 0: none. */
static uint32_t v1_first_kind(const uint8_t *segment)
{
    CU_ASSERT_EQUAL(memcmp(segment, "blobd-jrnl-1", 12), 0);
    CU_ASSERT_EQUAL(crc32c(0, segment, 36), header_crc(segment));
    const uint8_t *in = segment + JOURNAL_BLOCK;
    bool checks = get_le(in + 4, 4) != 0 && crc32c(header_crc(segment), in, 12) == (uint32_t)get_le(in + 12, 4) &&
                  get_le(in, 4) < IMAGE_MAX - JOURNAL_BLOCK - JOURNAL_ENTRY_BYTES &&
                  crc32c(0, in + JOURNAL_ENTRY_BYTES, (size_t)get_le(in, 4)) == (uint32_t)get_le(in + 8, 4);
    return checks ? (uint32_t)get_le(in + 4, 4) : 0;
}

/* It refuses kinds that it does not know, and passes over segments that it does not know. */
static void test_version_1_refuses(void)
{
    make_image();
    CU_ASSERT_TRUE(v1_first_kind(image) > V1_KINDS);
}

/* What was closed with nothing to be replayed may be opened by version 1. */
static void test_version_1_after_closing(void)
{
    reset_root();
    expected_count = 0;
    struct disk_journal *j = journal_open(1);
    for (unsigned i = 0; i < 1200; i++)
        append(j, 1000, false);
    disk_journal_close(j);
    uint64_t highest = 0, oldest = 0;
    uint8_t segment[IMAGE_MAX];
    for (int pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < 20; i++) {
            int fd = segment_fd(i);
            ssize_t n = pread(fd, segment, sizeof segment, 0);
            close(fd);
            struct segment_header h;
            if (n != (ssize_t)sizeof segment || !disk_segment_header_decode(segment, &h))
                continue;
            if (h.number > highest) {
                highest = h.number;
                oldest = h.oldest;
            }
            if (pass == 1 && h.number >= oldest)
                CU_ASSERT_EQUAL(v1_first_kind(segment), 0);
        }
    }
    CU_ASSERT_TRUE(highest > 1);
}

/* Two segments, the first sealed, the second one torn. */
static void test_version_1_is_read(void)
{
    static const char *const bodies[] = {"one", "", "two and more", "three"};
    reset_root();
    CHECK(mkdirat(root_fd, JOURNAL_DIR, 0750) == 0);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t segment[3 * JOURNAL_BLOCK] = "blobd-jrnl-1";
        put_le(segment + 12, 7 + i, 8);
        put_le(segment + 20, 7, 8);
        memcpy(segment + 28, i ? "0a1b2c3d" : "ffeeddcc", 8);
        put_le(segment + 36, crc32c(0, segment, 36), 4);
        uint32_t chain = header_crc(segment);
        uint64_t at = JOURNAL_BLOCK;
        for (unsigned k = 0; k < 2; k++) {
            const char *body = bodies[2 * i + k];
            chain = v1_entry(segment + at, JOURNAL_DELETE, body, (uint32_t)strlen(body), chain);
            at = k == 0 ? 2 * JOURNAL_BLOCK : at + journal_align(JOURNAL_ENTRY_BYTES + strlen(body), 8);
        }
        chain = v1_entry(segment + at, JOURNAL_SEAL, "", 0, i ? chain + 1 : chain);
        int fd = segment_fd(i);
        put_at(fd, segment, sizeof segment, 0);
        close(fd);
    }
    struct journal_log log;
    CU_ASSERT_EQUAL_FATAL(journal_log_read(root_fd, &log, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(log.count, 4);
    CU_ASSERT_EQUAL(log.next_segment, 9);
    for (size_t i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL(log.entries[i].len, strlen(bodies[i]));
        CU_ASSERT_EQUAL(memcmp(log.entries[i].body, bodies[i], log.entries[i].len), 0);
    }
    journal_log_release(&log);
}

/* NULL: it is there, with any value. */
static bool record_is(struct blob_store *s, const char *key, const char *value)
{
    struct bytebuf got;
    bytebuf_init(&got);
    bool there = record_get(s, key, &got, NULL) == BLOB_OK;
    bool same = there && (!value || (got.len == strlen(value) && memcmp(got.data, value, got.len) == 0));
    bytebuf_release(&got);
    return same;
}

/* A journal that version 1 wrote and a power cut left alone; what it holds is in the store, and stays there. */
static void test_sample(void)
{
    static uint8_t sample[IMAGE_MAX];
    int fd = open(SAMPLE, O_RDONLY | O_CLOEXEC);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    ssize_t len = read(fd, sample, sizeof sample);
    close(fd);
    CU_ASSERT_TRUE_FATAL(len > (ssize_t)JOURNAL_BLOCK && len < (ssize_t)sizeof sample);
    CU_ASSERT_TRUE(v1_first_kind(sample) == JOURNAL_DATA);
    reset_root();
    CHECK(mkdirat(root_fd, JOURNAL_DIR, 0750) == 0);
    fd = segment_fd(0);
    put_at(fd, sample, (size_t)len, 0);
    close(fd);
    const struct disk_options opt = {.root = root, .journal = true, .journal_segment_bytes = SEGMENT};
    for (int starts = 0; starts < 2; starts++) {
        struct blob_store *s = NULL;
        struct uuid id;
        struct staged_stat stat = {.mark = {.offset = 0}};
        char want[700], got[700];
        size_t n = 0;
        CU_ASSERT_EQUAL_FATAL(disk_store_open(&opt, &s, NULL), BLOB_OK);
        CU_ASSERT_TRUE(content_intact(s, 5000, 1));
        CU_ASSERT_TRUE(record_is(s, "files/a/1", "one"));
        CU_ASSERT_TRUE(record_is(s, "files/a/2", "two again"));
        CU_ASSERT_FALSE(record_is(s, "files/a/3", NULL));
        CHECK(uuid_parse("5f0e0a36-3333-4000-8000-000000000000", &id) == BLOB_OK);
        CU_ASSERT_EQUAL(staged_stat(s, &id, &stat, NULL), BLOB_E_NOT_FOUND);
        CHECK(uuid_parse("5f0e0a36-1111-4000-8000-000000000000", &id) == BLOB_OK);
        CU_ASSERT_EQUAL(staged_stat(s, &id, &stat, NULL), BLOB_OK);
        CU_ASSERT_EQUAL(stat.mark.offset, sizeof want);
        content_fill(want, sizeof want, 0, 2);
        CU_ASSERT_EQUAL(staged_read(s, &id, 0, got, sizeof got, &n, NULL), BLOB_OK);
        CU_ASSERT_TRUE(n == sizeof got && memcmp(got, want, n) == 0);
        blob_store_close(s);
    }
}

int main(void)
{
    CU_TestInfo format[] = {{"what was appended is read, through several segments", test_round_trip},
                            {"damaged in the middle, it is told and kept", test_torn_amid},
                            {"cut anywhere, what is in front is read", test_every_truncation},
                            {"changed anywhere, what is in front is read", test_every_flip},
                            {"nobody makes an entry who does not know the key", test_forged},
                            {"nothing of an earlier use is read", test_earlier_use},
                            {"a key of an earlier use is none", test_left_key},
                            {"a later version's is refused", test_later_version},
                            CU_TEST_INFO_NULL};
    CU_TestInfo before[] = {{"what it wrote is read", test_version_1_is_read},
                            {"what it left behind is carried out", test_sample},
                            {"it refuses what is written now", test_version_1_refuses},
                            {"it may open what was closed", test_version_1_after_closing},
                            CU_TEST_INFO_NULL};
    CU_SuiteInfo suites[] = {{"disk journal", NULL, drop_root, NULL, NULL, format},
                             {"disk journal, version 1", NULL, drop_root, NULL, NULL, before},
                             CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
