/*
 * s3_types - what was given is released.
 */
#include "backends/s3/client/s3_types.h"

#include <stdlib.h>

void s3_page_release(struct s3_page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free(page->entries[i].key);
    free(page->entries);
    *page = (struct s3_page){0};
}

void s3_parts_release(struct s3_parts *parts)
{
    free(parts->parts);
    *parts = (struct s3_parts){0};
}

void s3_uploads_release(struct s3_uploads *uploads)
{
    for (size_t i = 0; i < uploads->count; i++) {
        free(uploads->uploads[i].key);
        free(uploads->uploads[i].upload_id);
    }
    free(uploads->uploads);
    *uploads = (struct s3_uploads){0};
}
