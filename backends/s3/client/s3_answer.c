/*
 * s3_answer - each document is read by a callback that gathers one item's fields and pushes the item at its end tag.
 *
 * An item that lacks a field we rely on makes the whole document INVALID: half a listing must not pass for a
 * listing. Elements that are not named here are passed over, as endpoints add their own.
 */
#include "backends/s3/client/s3_answer.h"

#include "backends/s3/client/s3_xml.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct builder {
    const char *root;
    /* An element within an item of a listing; at its own end tag, the item itself. */
    void (*see_field)(struct builder *b, const char *name, const char *text);
    bool wrong; /* not the document expected */
    bool no_memory;
    bool more;
    bool has_more;  /* IsTruncated was there */
    char *key, *id; /* of the item in the making */
    struct s3_part part;
    struct s3_object object;
    void *items;
    size_t count;
};

static bool parse_number(const char *text, uint64_t *out)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end)
        return false;
    *out = v;
    return true;
}

int64_t s3_answer_time(const char *text)
{
    struct tm tm = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest || (*rest != '.' && *rest != 'Z'))
        return 0;
    int64_t ms = 0, unit = 100;
    for (const char *p = rest + 1; *rest == '.' && *p >= '0' && *p <= '9'; p++, unit /= 10)
        ms += (*p - '0') * unit;
    return (int64_t)timegm(&tm) * 1000 + ms;
}

static bool copy_text(char *out, size_t size, const char *text)
{
    size_t len = strlen(text);
    if (len >= size)
        return false;
    memcpy(out, text, len + 1);
    return true;
}

static void keep_text(struct builder *b, char **slot, const char *text)
{
    free(*slot);
    *slot = strdup(text);
    if (!*slot)
        b->no_memory = true;
}

/* Room for one more item; NULL without memory. */
static void *push(struct builder *b, size_t item_size)
{
    void *items = b->items;
    if ((b->count & (b->count - 1)) == 0) /* full at each power of two */
        items = reallocarray(b->items, b->count ? 2 * b->count : 1, item_size);
    if (!items) {
        b->no_memory = true;
        return NULL;
    }
    b->items = items;
    return (char *)items + item_size * b->count++;
}

/* The path below the expected root, "" for the root itself; NULL for another document. */
static const char *below_root(struct builder *b, const char *path)
{
    size_t len = strlen(b->root);
    if (strncmp(path, b->root, len) != 0 || (path[len] != '/' && path[len] != '\0')) {
        b->wrong = true;
        return NULL;
    }
    return path[len] ? path + len + 1 : "";
}

static enum blob_status builder_end(struct builder *b, enum blob_status read)
{
    free(b->key);
    free(b->id);
    if (b->no_memory)
        return BLOB_E_NO_MEMORY;
    return read != BLOB_OK || b->wrong ? BLOB_E_INVALID : BLOB_OK;
}

/* ---- errors ---- */

static bool see_error(const char *path, const char *text, void *arg)
{
    struct s3_refusal *r = arg;
    if (strcmp(path, "Error/Code") == 0 && !copy_text(r->code, sizeof r->code, text))
        r->code[0] = '\0';
    if (strcmp(path, "Error/Region") == 0 && !copy_text(r->region, sizeof r->region, text))
        r->region[0] = '\0';
    return true;
}

bool s3_answer_refusal(const char *text, size_t len, struct s3_refusal *out)
{
    struct s3_refusal r = *out;
    r.code[0] = '\0';
    if (!memmem(text, len, "<Error", strlen("<Error"))) /* spares long listings a second reading */
        return false;
    if (s3_xml_read(text, len, see_error, &r) != BLOB_OK || !r.code[0])
        return false;
    *out = r;
    return true;
}

/* ---- multipart: create and complete ---- */

static bool see_completed(const char *path, const char *text, void *arg)
{
    (void)text;
    if (strcmp(path, "CompleteMultipartUploadResult") == 0)
        *(bool *)arg = true;
    return true;
}

bool s3_answer_is_completed(const char *text, size_t len)
{
    bool completed = false;
    return s3_xml_read(text, len, see_completed, &completed) == BLOB_OK && completed;
}

static bool see_created(const char *path, const char *text, void *arg)
{
    struct builder *b = arg;
    const char *name = below_root(b, path);
    if (name && strcmp(name, "UploadId") == 0)
        keep_text(b, &b->id, text);
    return !b->no_memory;
}

enum blob_status s3_answer_upload_id(const char *text, size_t len, char out[S3_UPLOAD_ID_MAX])
{
    struct builder b = {.root = "InitiateMultipartUploadResult"};
    enum blob_status read = s3_xml_read(text, len, see_created, &b);
    if (read == BLOB_OK && !b.wrong && !(b.id && b.id[0] && copy_text(out, S3_UPLOAD_ID_MAX, b.id)))
        b.wrong = true;
    return builder_end(&b, read);
}

void s3_answer_write_parts(struct bytebuf *out, const struct s3_part *parts, unsigned count)
{
    bytebuf_text(out, "<CompleteMultipartUpload>");
    for (unsigned i = 0; i < count; i++) {
        bytebuf_printf(out, "<Part><PartNumber>%u</PartNumber><ETag>", parts[i].number);
        for (const char *p = parts[i].etag; *p; p++) {
            if (*p == '"')
                bytebuf_text(out, "&quot;");
            else if (*p == '&')
                bytebuf_text(out, "&amp;");
            else if (*p == '<')
                bytebuf_text(out, "&lt;");
            else
                bytebuf_add(out, p, 1);
        }
        bytebuf_text(out, "</ETag></Part>");
    }
    bytebuf_text(out, "</CompleteMultipartUpload>");
}

/* ---- listings ---- */

static bool see_listed(const char *path, const char *text, void *arg)
{
    struct builder *b = arg;
    const char *name = below_root(b, path);
    if (name && strcmp(name, "IsTruncated") == 0) {
        b->has_more = true;
        b->more = strcmp(text, "true") == 0;
    } else if (name) {
        b->see_field(b, name, text);
    }
    return !b->no_memory;
}

/* Reads a whole listing; it must say whether there is more, and then hold something to go on after. */
static enum blob_status read_list(struct builder *b, const char *text, size_t len)
{
    enum blob_status read = s3_xml_read(text, len, see_listed, b);
    b->wrong |= !b->has_more || (b->more && b->count == 0);
    return builder_end(b, read);
}

static void push_entry(struct builder *b)
{
    struct s3_entry *e;
    if (!b->key || b->object.size == UINT64_MAX) {
        b->wrong = true;
    } else if ((e = push(b, sizeof *e)) != NULL) {
        *e = (struct s3_entry){.key = b->key, .object = b->object};
        b->key = NULL;
    }
    b->object = (struct s3_object){.size = UINT64_MAX};
}

static void see_entry(struct builder *b, const char *name, const char *text)
{
    if (strcmp(name, "Contents/Key") == 0)
        keep_text(b, &b->key, text);
    else if (strcmp(name, "Contents/Size") == 0)
        b->wrong |= !parse_number(text, &b->object.size);
    else if (strcmp(name, "Contents/LastModified") == 0)
        b->object.modified_ms = s3_answer_time(text);
    else if (strcmp(name, "Contents/ETag") == 0)
        b->wrong |= !copy_text(b->object.etag, sizeof b->object.etag, text);
    else if (strcmp(name, "Contents") == 0)
        push_entry(b);
}

enum blob_status s3_answer_page(const char *text, size_t len, struct s3_page *out)
{
    struct builder b = {.root = "ListBucketResult", .see_field = see_entry, .object = {.size = UINT64_MAX}};
    enum blob_status st = read_list(&b, text, len);
    struct s3_page page = {b.items, b.count, b.more};
    if (st == BLOB_OK)
        *out = page;
    else
        s3_page_release(&page);
    return st;
}

static void push_part(struct builder *b)
{
    struct s3_part *p;
    if (b->part.number == 0 || b->part.size == UINT64_MAX || !b->part.etag[0])
        b->wrong = true;
    else if ((p = push(b, sizeof *p)) != NULL)
        *p = b->part;
    b->part = (struct s3_part){.size = UINT64_MAX};
}

static void see_part(struct builder *b, const char *name, const char *text)
{
    uint64_t number = 0;
    if (strcmp(name, "Part/PartNumber") == 0) {
        b->wrong |= !parse_number(text, &number) || number == 0 || number > S3_PART_MAX;
        b->part.number = (unsigned)number;
    } else if (strcmp(name, "Part/Size") == 0) {
        b->wrong |= !parse_number(text, &b->part.size);
    } else if (strcmp(name, "Part/ETag") == 0) {
        b->wrong |= !copy_text(b->part.etag, sizeof b->part.etag, text);
    } else if (strcmp(name, "Part") == 0) {
        push_part(b);
    }
}

enum blob_status s3_answer_parts(const char *text, size_t len, struct s3_parts *out)
{
    struct builder b = {.root = "ListPartsResult", .see_field = see_part, .part = {.size = UINT64_MAX}};
    enum blob_status st = read_list(&b, text, len);
    struct s3_parts parts = {b.items, b.count, b.more};
    if (st == BLOB_OK)
        *out = parts;
    else
        s3_parts_release(&parts);
    return st;
}

static void push_upload(struct builder *b)
{
    struct s3_upload *u;
    if (!b->key || !b->id) {
        b->wrong = true;
    } else if ((u = push(b, sizeof *u)) != NULL) {
        *u = (struct s3_upload){.key = b->key, .upload_id = b->id, .initiated_ms = b->object.modified_ms};
        b->key = NULL;
        b->id = NULL;
    }
    b->object.modified_ms = 0;
}

static void see_upload(struct builder *b, const char *name, const char *text)
{
    if (strcmp(name, "Upload/Key") == 0)
        keep_text(b, &b->key, text);
    else if (strcmp(name, "Upload/UploadId") == 0)
        keep_text(b, &b->id, text);
    else if (strcmp(name, "Upload/Initiated") == 0)
        b->object.modified_ms = s3_answer_time(text);
    else if (strcmp(name, "Upload") == 0)
        push_upload(b);
}

enum blob_status s3_answer_uploads(const char *text, size_t len, struct s3_uploads *out)
{
    struct builder b = {.root = "ListMultipartUploadsResult", .see_field = see_upload};
    enum blob_status st = read_list(&b, text, len);
    struct s3_uploads uploads = {b.items, b.count, b.more};
    if (st == BLOB_OK)
        *out = uploads;
    else
        s3_uploads_release(&uploads);
    return st;
}
