/*
 * redis_text - a node's copy of the search text of the Redis index: all that listings filter and sort by, in segments
 * of a quarter of a megabyte. A listing fetches the segments that changed since the last one, which in most cases is
 * the one being written, and then looks at memory only: Redis, which does one thing at a time, is spared.
 *
 * What is kept is bounded; what does not fit is fetched for every listing, and forgotten.
 *
 * Threads: any. Ownership: a view holds the segments that rows of the page are in. Errors: as redis_conn.h; IO: Redis
 * holds what redis_scripts does not write.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_TEXT_H
#define BLOBD_BACKENDS_REDIS_REDIS_TEXT_H

#include "backends/redis/redis_conn.h"
#include "core/index_order.h"

struct redis_text;
struct redis_text_view;

/* base: what the index' keys begin with; copied. max_bytes: of segments that are kept. */
enum blob_status redis_text_new(const char *base, size_t max_bytes, struct redis_text **out,
                                struct blob_error *err) BLOB_MUST_CHECK;
void redis_text_free(struct redis_text *text);

/* Offers every row there is to page, whose rows are good until the view is closed; the view is given, on failure none.
 * A row that moves meanwhile may be missed or come twice. */
enum blob_status redis_text_scan(struct redis_text *text, struct redis_conn *conn, struct index_page *page,
                                 struct redis_text_view **out, struct blob_error *err) BLOB_MUST_CHECK;
void redis_text_close(struct redis_text *text, struct redis_text_view *view); /* NULL is fine */
/* Fetches what changed since, so that the next scan need not. */
enum blob_status redis_text_refresh(struct redis_text *text, struct redis_conn *conn,
                                    struct blob_error *err) BLOB_MUST_CHECK;
/* Of the segments that are kept. */
size_t redis_text_bytes(struct redis_text *text);

#endif
