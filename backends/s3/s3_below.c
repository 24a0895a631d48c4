/* s3_below - pages begin small, as most prefixes have a few keys, and grow. */
#include "backends/s3/s3_below.h"

#include <stdio.h>
#include <string.h>

#define PAGE_MAX  1000
#define PAGE_GROW 8
#define LOOKS_MAX 2

static const char end_text[] = "blobd: the last key of every listing, which so shows that it was not cut off\n";

void s3_below_begin(struct s3_below *b, struct s3_store *s, const char *prefix, const char *after, size_t expected)
{
    *b = (struct s3_below){.store = s, .more = true};
    b->page_keys = expected > PAGE_MAX ? PAGE_MAX : (unsigned)expected;
    snprintf(b->prefix.text, sizeof b->prefix.text, "%s", prefix);
    snprintf(b->last.text, sizeof b->last.text, "%s", after && strcmp(after, prefix) > 0 ? after : prefix);
}

void s3_below_end(struct s3_below *b)
{
    s3_page_release(&b->page);
}

/* The listing ended without a key beyond the prefix. OK: look at it once more. */
static enum blob_status doubt_end(struct s3_below *b, struct blob_error *err)
{
    struct s3_object object;
    const struct s3_body body = {.data = end_text, .length = sizeof end_text - 1};
    enum blob_status st = s3_head(b->store->client, S3_END_KEY, &object, err);
    if (st == BLOB_OK && b->looks++ < LOOKS_MAX)
        return BLOB_OK; /* another node may have made it since the page was */
    if (st == BLOB_OK)
        return blob_fail(err, BLOB_E_UNAVAILABLE, 0,
                         "S3 lists nothing after %s, although " S3_END_KEY
                         " is there: its listings do not show all that there is, and are not believed",
                         b->last.text);
    return st == BLOB_E_NOT_FOUND ? s3_put(b->store->client, S3_END_KEY, &body, NULL, NULL, err) : st;
}

static enum blob_status next_page(struct s3_below *b, struct blob_error *err)
{
    s3_page_release(&b->page);
    b->at = 0;
    enum blob_status st = s3_list(b->store->client, "", b->last.text, b->page_keys, &b->page, err);
    if (st != BLOB_OK)
        return st;
    b->more = b->page.more;
    b->page_keys = b->page_keys > PAGE_MAX / PAGE_GROW ? PAGE_MAX : b->page_keys * PAGE_GROW;
    return BLOB_OK;
}

enum blob_status s3_below_next(struct s3_below *b, const struct s3_entry **out, struct blob_error *err)
{
    while (b->at == b->page.count) {
        enum blob_status st = b->more ? BLOB_OK : doubt_end(b, err);
        if (st == BLOB_OK)
            st = next_page(b, err);
        if (st != BLOB_OK)
            return st;
    }
    const struct s3_entry *e = &b->page.entries[b->at];
    *out = NULL;
    if (strncmp(e->key, b->prefix.text, strlen(b->prefix.text)) != 0)
        return BLOB_OK;
    b->at++;
    snprintf(b->last.text, sizeof b->last.text, "%s", e->key);
    *out = e;
    return BLOB_OK;
}
