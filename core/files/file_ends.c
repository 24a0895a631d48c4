/*
 * file_ends - numbers fall as time goes on, so a step of a second is the least that is worth trying, and files made in
 * a burst long ago are found in some ten leaps and as many halvings.
 */
#include "core/files/file_ends.h"

#include "core/check.h"
#include "core/files/file_record.h"

#include <stdio.h>
#include <string.h>

#define FIRST_LEAP (UINT64_C(1000) << 22) /* a second of file_number() */
#define LEAP_SHIFT 2

struct number_list {
    uint64_t below;
    size_t most, count, met;
    bool passed; /* met one that is not below */
    uint64_t *numbers;
    char last[RECORD_KEY_MAX + 1];
};

static bool note_number(const char *key, const void *value, size_t len, void *arg)
{
    struct number_list *l = arg;
    struct digest digest;
    uint64_t number;
    (void)value;
    (void)len;
    l->met++;
    snprintf(l->last, sizeof l->last, "%s", key);
    if (file_key_parse(key, &digest, &number) != BLOB_OK)
        return true;
    l->passed = number >= l->below;
    if (!l->passed)
        l->numbers[l->count++] = number;
    return !l->passed && l->count < l->most;
}

enum blob_status file_numbers_from(struct blob_store *store, const struct digest *digest, uint64_t from, uint64_t below,
                                   size_t most, uint64_t *numbers, size_t *count, bool *more, struct blob_error *err)
{
    char prefix[FILE_PREFIX_CHARS + 1];
    struct number_list l = {.below = below, .most = most, .numbers = numbers};
    CHECK(most > 0);
    file_prefix_make(digest, prefix);
    if (from > 0)
        file_key_make(digest, from - 1, l.last);
    size_t asked;
    do { /* once, unless there are keys that are no files' */
        asked = most - l.count;
        l.met = 0;
        enum blob_status st = record_list(store, prefix, l.last[0] ? l.last : NULL, asked, false, note_number, &l, err);
        if (st != BLOB_OK)
            return st;
    } while (!l.passed && l.count < most && l.met == asked);
    *count = l.count;
    *more = !l.passed && l.count == most;
    return BLOB_OK;
}

/* Between known, where a file is, and end, from which on there is none: unless end is the limit, which nobody tried. */
struct last_search {
    uint64_t known, end, below, leap;
    bool near_tried;
};

static uint64_t next_probe(struct last_search *s, size_t *most)
{
    uint64_t room = s->end - s->known;
    *most = FILE_PROBE_KEYS;
    if (!s->near_tried) {
        s->near_tried = true;
        *most = FILE_TAIL_MAX;
        return s->known + 1;
    }
    if (s->end != s->below || room / 2 <= s->leap)
        return s->known + room / 2;
    uint64_t probe = s->known + s->leap;
    s->leap = s->leap >> (63 - LEAP_SHIFT) ? UINT64_MAX : s->leap << LEAP_SHIFT;
    return probe;
}

enum blob_status file_numbers_last(struct blob_store *store, const struct digest *digest, uint64_t low, uint64_t below,
                                   uint64_t hint, struct file_tail *tail, struct blob_error *err)
{
    struct last_search s = {.known = low, .end = below, .below = below, .leap = FIRST_LEAP};
    bool hinted = hint > low && hint < below, more;
    CHECK(low < below);
    while (s.end - s.known > 1) {
        size_t most = FILE_PROBE_KEYS;
        uint64_t probe = hinted ? hint : next_probe(&s, &most);
        hinted = false;
        enum blob_status st =
            file_numbers_from(store, digest, probe, below, most, tail->numbers, &tail->count, &more, err);
        if (st != BLOB_OK || (tail->count > 0 && !more))
            return st;
        if (tail->count > 0)
            s.known = tail->numbers[tail->count - 1];
        else
            s.end = probe;
    }
    tail->count = 1;
    tail->numbers[0] = s.known;
    return BLOB_OK;
}
