/*
 * file_scan - of all rows met, only those that can still be in the page are kept: when twice as many have gathered as
 * the page needs, they are sorted and the farther half goes.
 */
#include "core/file_scan.h"

#include "core/casefold.h"
#include "core/file_record.h"
#include "core/index_order.h"

#include <stdlib.h>
#include <string.h>

struct found {
    struct index_row row;
    char text[]; /* the folded name, its NUL, the value */
};

struct scan {
    const struct index_query *q;
    struct bytebuf needle, folded;
    struct found **rows;
    size_t count, wanted; /* of rows; of it, how many can be in the page */
    uint64_t matches;
    bool failed; /* no memory */
};

static int compare_found(const void *a, const void *b, void *q)
{
    const struct found *fa = *(struct found *const *)a, *fb = *(struct found *const *)b;
    const struct index_sort_row sa = {&fa->row, fa->text}, sb = {&fb->row, fb->text};
    return index_order_compare(&sa, &sb, q);
}

static void keep_best(struct scan *s)
{
    qsort_r(s->rows, s->count, sizeof(struct found *), compare_found, (void *)s->q);
    while (s->count > s->wanted)
        free(s->rows[--s->count]);
}

static void fill_row(const struct file_record *file, struct index_row *row)
{
    memset(row, 0, sizeof *row);
    memcpy(row->id, file->id, sizeof row->id);
    memcpy(row->name, file->name, sizeof row->name);
    memcpy(row->owner, file->owner, sizeof row->owner);
    row->size = file->size;
    row->created_ms = file->created_ms;
    row->expires_ms = file->expires_ms;
}

static void keep(struct scan *s, const struct index_row *row, const void *value, size_t len)
{
    struct found *f = malloc(sizeof *f + s->folded.len + 1 + len);
    if (!f) {
        s->failed = true;
        return;
    }
    f->row = *row;
    memcpy(f->text, s->folded.data, s->folded.len + 1);
    f->row.value = memcpy(f->text + s->folded.len + 1, value, len);
    f->row.value_len = (uint32_t)len;
    s->rows[s->count++] = f;
    if (s->count == 2 * s->wanted)
        keep_best(s);
}

static bool look_at(const char *key, const void *value, size_t len, void *arg)
{
    struct scan *s = arg;
    struct digest digest;
    uint64_t number;
    struct file_record file;
    struct index_row row;
    if (file_key_parse(key, &digest, &number) != BLOB_OK ||
        file_record_decode(&digest, number, value, len, &file, NULL) != BLOB_OK)
        return true;
    fill_row(&file, &row);
    bytebuf_clear(&s->folded);
    casefold_add(row.name, &s->folded);
    s->failed |= s->folded.failed;
    const struct index_sort_row sorted = {&row, s->folded.data};
    if (!s->failed && index_order_matches(&sorted, s->q, s->needle.data)) {
        s->matches++;
        keep(s, &row, value, len);
    }
    return !s->failed;
}

static void give(const struct scan *s, index_row_fn *fn, void *arg)
{
    for (size_t i = (size_t)s->q->skip; i < s->count; i++)
        if (!fn(&s->rows[i]->row, arg))
            return;
}

enum blob_status file_scan_list(struct blob_store *store, const struct index_query *q, uint64_t *count,
                                index_row_fn *fn, void *arg, struct blob_error *err)
{
    struct scan s = {.q = q};
    if (q->skip > FILE_SCAN_ROWS - q->top)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "without the file index only the first %d files can be listed",
                         FILE_SCAN_ROWS);
    s.wanted = (size_t)q->skip + q->top;
    bytebuf_init(&s.needle);
    bytebuf_init(&s.folded);
    casefold_add(q->search ? q->search : "", &s.needle);
    s.rows = calloc(2 * s.wanted, sizeof(struct found *));
    s.failed = !s.rows || s.needle.failed;
    enum blob_status st = BLOB_OK;
    if (!s.failed)
        st = record_list(store, FILE_KEY_ROOT, NULL, 0, true, look_at, &s, err);
    if (st == BLOB_OK && s.failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
    if (st == BLOB_OK) {
        keep_best(&s);
        *count = s.matches;
        give(&s, fn, arg);
    }
    while (s.count > 0)
        free(s.rows[--s.count]);
    free(s.rows);
    bytebuf_release(&s.folded);
    bytebuf_release(&s.needle);
    return st;
}
