/* file_scan - the records, one pass, offered to a page; the page keeps a row's record and decodes it when it is given.
 */
#include "core/files/file_scan.h"

#include "core/files/file_record.h"
#include "core/index_order.h"
#include "core/text/casefold.h"

#include <string.h>

struct scan {
    struct index_page page;
    struct bytebuf folded;
};

static bool look_at(const char *key, const void *value, size_t len, void *arg)
{
    struct scan *s = arg;
    struct digest digest;
    uint64_t number;
    struct file_record file;
    if (file_key_parse(key, &digest, &number) != BLOB_OK ||
        file_record_decode(&digest, number, value, len, &file, NULL) != BLOB_OK)
        return true;
    bytebuf_clear(&s->folded);
    casefold_add(file.name, &s->folded);
    s->page.failed |= s->folded.failed;
    const struct index_sort_row row = {file.id, file.owner, s->folded.data, file.size, file.created_ms};
    index_page_offer(&s->page, &row, value, len);
    return !s->page.failed;
}

static void fill_row(const struct file_record *file, const void *value, size_t len, struct index_row *row)
{
    memset(row, 0, sizeof *row);
    memcpy(row->id, file->id, sizeof row->id);
    memcpy(row->name, file->name, sizeof row->name);
    memcpy(row->owner, file->owner, sizeof row->owner);
    row->size = file->size;
    row->created_ms = file->created_ms;
    row->expires_ms = file->expires_ms;
    row->value = value;
    row->value_len = (uint32_t)len;
}

static void give(const struct index_page *page, index_row_fn *fn, void *arg)
{
    for (size_t i = 0; i < index_page_rows(page); i++) {
        const void *value;
        size_t len;
        struct digest digest;
        uint64_t number;
        struct file_record file;
        struct index_row row;
        const struct index_sort_row *sorted = index_page_row(page, i, &value, &len);
        if (file_id_parse(sorted->id, &digest, &number) != BLOB_OK ||
            file_record_decode(&digest, number, value, len, &file, NULL) != BLOB_OK)
            continue;
        fill_row(&file, value, len, &row);
        if (!fn(&row, arg))
            return;
    }
}

enum blob_status file_scan_list(struct blob_store *store, const struct index_query *q, uint64_t *count,
                                index_row_fn *fn, void *arg, struct blob_error *err)
{
    struct scan s;
    if (q->skip > FILE_SCAN_ROWS - q->top)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0, "without the file index only the first %d files can be listed",
                         FILE_SCAN_ROWS);
    index_page_init(&s.page, q);
    bytebuf_init(&s.folded);
    enum blob_status st = record_list(store, FILE_KEY_ROOT, NULL, 0, true, look_at, &s, err);
    if (st == BLOB_OK && s.page.failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
    if (st == BLOB_OK) {
        index_page_sort(&s.page);
        *count = s.page.matches;
        give(&s.page, fn, arg);
    }
    bytebuf_release(&s.folded);
    index_page_release(&s.page);
    return st;
}
