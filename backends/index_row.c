/*
 * index_row - one encoding for the queue of the embedded index, the hash of the Redis one and pages of both, so that
 * there is one place where a row's fields are listed. Numbers are little-endian; a text is its length in one byte and
 * its bytes.
 *
 *     bytes  what
 *         1  version, 1
 *      text  the file's id
 *      text  its name
 *      text  its owner
 *         8  size
 *         8  created, in ms
 *         8  expires, in ms; 0: never
 *         4  length of the value, and the value itself: the record's JSON
 */
#include "backends/index_row.h"

#include "core/check.h"

#define ROW_VERSION 1

void index_row_encode(const struct index_row *row, struct bytebuf *out)
{
    bytebuf_u8(out, ROW_VERSION);
    bytebuf_short_text(out, row->id);
    bytebuf_short_text(out, row->name);
    bytebuf_short_text(out, row->owner);
    bytebuf_u64(out, row->size);
    bytebuf_u64(out, (uint64_t)row->created_ms);
    bytebuf_u64(out, (uint64_t)row->expires_ms);
    bytebuf_u32(out, row->value_len);
    bytebuf_add(out, row->value, row->value_len);
}

enum blob_status index_row_decode(struct byteview *in, struct index_row *row)
{
    struct index_row got;
    if (byteview_u8(in) != ROW_VERSION)
        return BLOB_E_CORRUPT;
    byteview_short_text(in, got.id, sizeof got.id);
    byteview_short_text(in, got.name, sizeof got.name);
    byteview_short_text(in, got.owner, sizeof got.owner);
    got.size = byteview_u64(in);
    got.created_ms = (int64_t)byteview_u64(in);
    got.expires_ms = (int64_t)byteview_u64(in);
    got.value_len = byteview_u32(in);
    got.value = byteview_bytes(in, got.value_len);
    if (in->failed)
        return BLOB_E_CORRUPT;
    *row = got;
    return BLOB_OK;
}

void row_page_init(struct row_page *page)
{
    bytebuf_init(&page->bytes);
    page->count = 0;
}

void row_page_release(struct row_page *page)
{
    bytebuf_release(&page->bytes);
}

void row_page_add(struct row_page *page, const struct index_row *row)
{
    index_row_encode(row, &page->bytes);
    page->count++;
}

enum blob_status row_page_give(const struct row_page *page, index_row_fn *fn, void *arg, struct blob_error *err)
{
    if (page->bytes.failed)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a page of the file index");
    struct byteview in = {.data = (const uint8_t *)page->bytes.data, .len = page->bytes.len};
    for (size_t i = 0; i < page->count; i++) {
        struct index_row row;
        CHECK(index_row_decode(&in, &row) == BLOB_OK);
        if (!fn(&row, arg))
            break;
    }
    return BLOB_OK;
}
