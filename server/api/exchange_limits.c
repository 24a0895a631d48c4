/*
 * exchange_limits - the limits of [limits], asked in the order in which a request tells who it is.
 */
#include "server/api/exchange_limits.h"

#include "server/api/response.h"

static void refuse_limited(struct exchange *x, enum limit limit, unsigned retry_after_s)
{
    static const char *const texts[LIMIT_COUNT] = {
        [LIMIT_REQUESTS_ADDRESS] = "too many requests of this address are in flight",
        [LIMIT_REQUESTS_IDENTITY] = "too many requests of this identity are in flight",
        [LIMIT_UPLOADS_ADDRESS] = "this address has begun too many uploads",
        [LIMIT_UPLOADS_IDENTITY] = "this identity has begun too many uploads",
    };
    api_fail(&x->err, API_TOO_MANY_REQUESTS, "%s", texts[limit]);
    x->err.retry_after_s = retry_after_s;
    response_error(x, &x->err);
}

bool exchange_address_enter(struct exchange *x)
{
    if (x->limiter == NULL)
        return true;
    struct limit_key key = limit_key_of_address(http_request_client(x->req));
    enum limit_grant grant = limiter_enter(x->limiter, LIMIT_REQUESTS_ADDRESS, &key);
    x->address_held = grant == LIMIT_HELD;
    if (grant == LIMIT_REFUSED)
        refuse_limited(x, LIMIT_REQUESTS_ADDRESS, 1);
    return grant != LIMIT_REFUSED;
}

/* Where nobody has a name, as with auth.mode=none or behind a PBX that tells none, one is who shows the same bearer. */
static bool has_identity(const struct exchange *x)
{
    return x->who.known || x->bearer_shown;
}

static struct limit_key identity_key(const struct exchange *x)
{
    return limit_key_of_text(x->who.name[0] != '\0' ? x->who.name : http_request_header(x->req, "Authorization"));
}

bool exchange_identity_enter(struct exchange *x)
{
    if (x->limiter == NULL || !has_identity(x) || !limiter_is_set(x->limiter, LIMIT_REQUESTS_IDENTITY))
        return true;
    x->identity_key = identity_key(x);
    enum limit_grant grant = limiter_enter(x->limiter, LIMIT_REQUESTS_IDENTITY, &x->identity_key);
    x->identity_held = grant == LIMIT_HELD;
    if (grant == LIMIT_REFUSED)
        refuse_limited(x, LIMIT_REQUESTS_IDENTITY, 1);
    return grant != LIMIT_REFUSED;
}

void exchange_limits_leave(struct exchange *x)
{
    if (x->address_held) {
        struct limit_key key = limit_key_of_address(http_request_client(x->req));
        limiter_leave(x->limiter, LIMIT_REQUESTS_ADDRESS, &key);
    }
    if (x->identity_held)
        limiter_leave(x->limiter, LIMIT_REQUESTS_IDENTITY, &x->identity_key);
}

bool exchange_spend_upload(struct exchange *x)
{
    if (x->limiter == NULL)
        return true;
    enum limit limit = LIMIT_UPLOADS_ADDRESS;
    struct limit_key key = limit_key_of_address(http_request_client(x->req));
    unsigned wait_s = limiter_spend(x->limiter, limit, &key);
    if (wait_s == 0 && has_identity(x) && limiter_is_set(x->limiter, LIMIT_UPLOADS_IDENTITY)) {
        limit = LIMIT_UPLOADS_IDENTITY;
        key = identity_key(x);
        wait_s = limiter_spend(x->limiter, limit, &key);
    }
    if (wait_s > 0)
        refuse_limited(x, limit, wait_s);
    return wait_s == 0;
}
