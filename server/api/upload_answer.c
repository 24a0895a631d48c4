/*
 * upload_answer - Range cannot tell an empty upload from one of one byte (0-0 both, as in Docker's registry), so
 * Upload-Offset stands beside it everywhere.
 */
#include "server/api/upload_answer.h"

#include "server/api/exchange.h"
#include "server/api/response.h"

#include <inttypes.h>
#include <stdio.h>

static void view_headers(struct exchange *x, const struct upload_view *view)
{
    char text[48];
    http_reply_header(x->req, "PortSIP-Upload-ID", view->id.text);
    http_reply_header(x->req, "PortSIP-Upload-Token", view->token);
    snprintf(text, sizeof text, "0-%" PRIu64, view->offset > 0 ? view->offset - 1 : 0);
    http_reply_header(x->req, "Range", text);
    snprintf(text, sizeof text, "%" PRIu64, view->offset);
    http_reply_header(x->req, "Upload-Offset", text);
    if (view->completed)
        http_reply_header(x->req, "Upload-Complete", "?1");
}

void upload_answer_view(struct exchange *x, int status, const struct upload_view *view)
{
    char location[sizeof "/api/blobs/uploads/" + UUID_CHARS];
    view_headers(x, view);
    snprintf(location, sizeof location, "/api/blobs/uploads/%s", view->id.text);
    http_reply_header(x->req, "Location", location);
    response_empty(x, status);
}

void upload_answer_error(struct exchange *x, const struct upload_view *view)
{
    if (view != NULL)
        view_headers(x, view);
    response_error(x, &x->err);
}

void upload_answer_completed(struct exchange *x, const struct file_record *file, const struct upload_view *view)
{
    char hex[DIGEST_HEX_CHARS + 1], location[sizeof "/api/blobs/" + DIGEST_HEX_CHARS];
    struct bytebuf body;
    digest_hex(&file->digest, hex);
    snprintf(location, sizeof location, "/api/blobs/%s", hex);
    if (view != NULL)
        view_headers(x, view);
    http_reply_header(x->req, "Location", location);
    bytebuf_init(&body);
    bytebuf_text(&body, "{\"id\":");
    bytebuf_json_string(&body, file->id);
    bytebuf_printf(&body, ",\"digest\":\"%s\",\"size\":%" PRIu64 ",\"name\":", hex, file->size);
    bytebuf_json_string(&body, file->name);
    bytebuf_text(&body, "}");
    response_json(x, 201, &body);
    bytebuf_release(&body);
}
