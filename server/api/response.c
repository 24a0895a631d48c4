/* response - one place writes the headers and the error bodies, so that no answer goes without them. */
#include "server/api/response.h"

#include "core/check.h"
#include "core/text/bytebuf.h"
#include "core/text/parse_http.h"
#include "core/uuid.h"
#include "server/api/cors.h"
#include "server/api/exchange.h"
#include "server/api/router.h"
#include "server/api/service.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define REQUEST_ID_MAX 128

static bool request_id_sane(const char *id)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strspn(id, allowed);
    return len >= 1 && len <= REQUEST_ID_MAX && id[len] == '\0';
}

void response_set_request_id(struct http_request *req)
{
    const char *given = http_request_header(req, "X-Request-ID");
    if (given != NULL && request_id_sane(given)) {
        http_request_set_id(req, given);
        return;
    }
    struct uuid id;
    uuid_new(&id);
    http_request_set_id(req, id.text);
}

static void common_headers(struct exchange *x, const char *cache_control, bool preflight)
{
    http_reply_header(x->req, "X-Request-ID", http_request_id(x->req));
    http_reply_header(x->req, "Cache-Control", cache_control);
    http_reply_header(x->req, "X-Content-Type-Options", "nosniff");
    cors_reply(x->svc->cors, x->req, preflight);
}

void response_common_headers(struct exchange *x, const char *cache_control)
{
    common_headers(x, cache_control, false);
}

void response_allow(struct exchange *x, unsigned methods)
{
    char allow[ROUTER_ALLOW_MAX];
    router_allow(methods, allow);
    http_reply_header(x->req, "Allow", allow);
}

/* "q=0", "q=0.000": not acceptable (RFC 9110, section 12.4.2). */
static bool is_no_weight(const struct field_part *parameter)
{
    if (parameter->len < 3 || strncasecmp(parameter->text, "q=0", 3) != 0)
        return false;
    size_t at = 3;
    while (at < parameter->len && (parameter->text[at] == '.' || parameter->text[at] == '0'))
        at++;
    return at == parameter->len;
}

/* Does Accept name application/problem+json, and not with q=0? A wildcard does not ask for it. */
static bool wants_problem(const struct http_request *req)
{
    struct field_part list = field_whole(http_request_header(req, "Accept")), range, part;
    while (field_next(&list, ',', &range)) {
        bool wanted = field_next(&range, ';', &part) && field_is(&part, "application/problem+json");
        while (wanted && field_next(&range, ';', &part))
            wanted = !is_no_weight(&part);
        if (wanted)
            return true;
    }
    return false;
}

static void add_detail(struct bytebuf *b, const struct api_error *err)
{
    const struct {
        const char *name, *value;
    } members[] = {{"field", err->field}, {"expected", err->expected}, {"actual", err->actual}};
    bool any = false;
    for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
        if (members[i].value[0] == '\0')
            continue;
        bytebuf_printf(b, "%s\"%s\":", any ? "," : ",\"detail\":{", members[i].name);
        bytebuf_json_string(b, members[i].value);
        any = true;
    }
    if (any)
        bytebuf_text(b, "}");
}

static void add_errors(struct bytebuf *b, const struct api_error *err)
{
    bytebuf_printf(b, "\"errors\":[{\"code\":\"%s\",\"message\":", api_code_name(err->code));
    bytebuf_json_string(b, err->text);
    add_detail(b, err);
    bytebuf_text(b, "}]}");
}

static void add_problem(struct bytebuf *b, const struct api_error *err)
{
    bytebuf_printf(b, "\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d,\"detail\":", api_code_name(err->code),
                   api_code_http(err->code));
    bytebuf_json_string(b, err->text);
    bytebuf_text(b, ",");
}

static void error_headers(struct exchange *x, const struct api_error *err)
{
    response_common_headers(x, CACHE_NEVER);
    if (err->code == API_UNAUTHORIZED)
        http_reply_header(x->req, "WWW-Authenticate",
                          x->bearer_shown ? "Bearer realm=\"blobd\", error=\"invalid_token\""
                                          : "Bearer realm=\"blobd\"");
    if (err->retry_after_s > 0) {
        char seconds[16];
        snprintf(seconds, sizeof seconds, "%u", err->retry_after_s);
        http_reply_header(x->req, "Retry-After", seconds);
    }
}

void response_error(struct exchange *x, const struct api_error *err)
{
    CHECK(err->code != API_OK);
    bool problem = wants_problem(x->req);
    struct bytebuf body;
    bytebuf_init(&body);
    bytebuf_text(&body, "{");
    if (problem)
        add_problem(&body, err);
    add_errors(&body, err);
    error_headers(x, err);
    http_reply_header(x->req, "Content-Type", problem ? "application/problem+json" : "application/json");
    http_reply(x->req, api_code_http(err->code), body.data, body.failed ? 0 : body.len);
    bytebuf_release(&body);
}

void response_busy(struct exchange *x)
{
    api_fail(&x->err, API_UNAVAILABLE, "the server is busy; try again");
    x->err.retry_after_s = 1;
    response_error(x, &x->err);
}

void response_empty(struct exchange *x, int status)
{
    response_common_headers(x, CACHE_NEVER);
    http_reply(x->req, status, NULL, 0);
}

void response_json(struct exchange *x, int status, const struct bytebuf *body)
{
    if (body->failed || !http_reply_reserve(x->req, body->len)) {
        response_busy(x);
        return;
    }
    response_common_headers(x, CACHE_NEVER);
    http_reply_header(x->req, "Content-Type", "application/json");
    http_reply(x->req, status, body->data, body->len);
}

void response_options(struct exchange *x, unsigned methods)
{
    response_allow(x, methods);
    common_headers(x, CACHE_NEVER, true);
    http_reply(x->req, 204, NULL, 0);
}
