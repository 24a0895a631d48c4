/*
 * cors - the API is authorised by a header that scripts set themselves, never by cookies, so credentials are not
 * allowed and "*" gives nothing away. What a browser cannot see it cannot resume by: the upload's headers are exposed.
 */
#include "server/api/cors.h"

#include "server/http/http_server.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct cors {
    bool any;
    char origins[]; /* blank-separated */
};

struct cors *cors_new(const char *origins)
{
    size_t len = origins != NULL ? strlen(origins) : 0;
    struct cors *cors = malloc(sizeof *cors + len + 1);
    if (cors == NULL)
        return NULL;
    if (len > 0)
        memcpy(cors->origins, origins, len);
    cors->origins[len] = '\0';
    cors->any = strcmp(cors->origins, "*") == 0;
    return cors;
}

void cors_free(struct cors *cors)
{
    free(cors);
}

static bool origin_listed(const struct cors *cors, const char *origin)
{
    size_t len = strlen(origin);
    for (const char *p = cors->origins; *p != '\0';) {
        size_t word = strcspn(p, " \t");
        if (word == len && strncasecmp(p, origin, len) == 0)
            return true;
        p += word;
        p += strspn(p, " \t");
    }
    return false;
}

void cors_reply(const struct cors *cors, struct http_request *req, bool preflight)
{
    if (cors->origins[0] == '\0')
        return;
    if (!cors->any)
        http_reply_header(req, "Vary", "Origin");
    const char *origin = http_request_header(req, "Origin");
    if (origin == NULL || !(cors->any || origin_listed(cors, origin)))
        return;
    http_reply_header(req, "Access-Control-Allow-Origin", cors->any ? "*" : origin);
    if (!preflight) {
        http_reply_header(
            req, "Access-Control-Expose-Headers",
            "PortSIP-Upload-ID, PortSIP-Upload-Token, Range, Upload-Offset, Upload-Complete, Retry-After, "
            "Location, ETag, Repr-Digest, Accept-Ranges, Content-Range, Content-Disposition, "
            "WWW-Authenticate, X-Request-ID");
        return;
    }
    http_reply_header(req, "Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS");
    http_reply_header(
        req, "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Content-Range, PortSIP-Upload-Token, Upload-Offset, Range, If-Match, "
        "If-None-Match, If-Range, X-Request-ID");
    http_reply_header(req, "Access-Control-Max-Age", "86400");
}
