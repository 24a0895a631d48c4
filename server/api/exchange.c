/*
 * exchange - its beginning and its end.
 */
#include "server/api/exchange.h"

#include <stdlib.h>

struct exchange *exchange_new(struct http_request *req, const struct endpoint *ep, const struct route *route)
{
    struct exchange *x = malloc(sizeof *x);
    if (x == NULL) {
        http_reply(req, api_code_http(API_UNAVAILABLE), NULL, 0);
        return NULL;
    }
    /* Neither calloc() nor memset(), which the compiler makes calloc() of: it takes the allocator's lock each time. */
    *x = (struct exchange){.magic = EXCHANGE_MAGIC,
                           .req = req,
                           .svc = ep->svc,
                           .telemetry = ep->telemetry,
                           .limiter = ep->limiter,
                           .route = route};
    http_request_set_context(req, x);
    return x;
}

void exchange_free(struct exchange *x)
{
    x->magic = 0;
    free(x->state);
    free(x);
}
