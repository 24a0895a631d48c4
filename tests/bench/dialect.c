/* dialect - the only place that knows what differs between the servers. */
#include "dialect.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

bool head_value(const char *head, const char *name, char *out, size_t size)
{
    size_t len = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && line[2] != '\r'; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, len) != 0 || line[2 + len] != ':')
            continue;
        const char *value = line + 3 + len;
        value += strspn(value, " ");
        snprintf(out, size, "%.*s", (int)strcspn(value, "\r"), value);
        return true;
    }
    return false;
}

/* ---- blobd ---- */

static int blobd_head(const struct upload *up, enum step step, char *out, size_t size)
{
    const char *auth = up->bearer ? "Authorization: Bearer " : "", *bearer = up->bearer ? up->bearer : "";
    const char *eol = up->bearer ? "\r\n" : "";
    switch (step) {
    case STEP_CREATE:
        return snprintf(out, size, "POST /api/blobs/uploads?filename=bench-%" PRIu64 ".bin HTTP/1.1\r\n%s%s%s",
                        up->number, auth, bearer, eol);
    case STEP_APPEND:
        return snprintf(out, size,
                        "POST /api/blobs/uploads/%s/append HTTP/1.1\r\nPortSIP-Upload-Token: %s\r\n"
                        "Upload-Offset: %" PRIu64 "\r\nContent-Type: application/octet-stream\r\n%s%s%s",
                        up->where, up->token, up->from, auth, bearer, eol);
    default:
        return snprintf(out, size,
                        "POST /api/blobs/uploads/%s/complete?digest=sha256:%s HTTP/1.1\r\n"
                        "PortSIP-Upload-Token: %s\r\n%s%s%s",
                        up->where, up->hex, up->token, auth, bearer, eol);
    }
}

static void blobd_note(struct upload *up, const char *head)
{
    (void)head_value(head, "PortSIP-Upload-ID", up->where, sizeof up->where);
    (void)head_value(head, "PortSIP-Upload-Token", up->token, sizeof up->token);
}

static int blobd_path(const struct upload *up, char *out, size_t size)
{
    return snprintf(out, size, "/api/blobs/%s", up->hex);
}

/* ---- Docker's registry ---- */

static int registry_head(const struct upload *up, enum step step, char *out, size_t size)
{
    switch (step) {
    case STEP_CREATE:
        return snprintf(out, size, "POST /v2/bench/blobs/uploads/ HTTP/1.1\r\n");
    case STEP_APPEND:
        return snprintf(out, size,
                        "PATCH %s HTTP/1.1\r\nContent-Type: application/octet-stream\r\n"
                        "Content-Range: %" PRIu64 "-%" PRIu64 "\r\n",
                        up->where, up->from, up->to - 1);
    default:
        return snprintf(out, size, "PUT %s%cdigest=sha256:%s HTTP/1.1\r\n", up->where,
                        strchr(up->where, '?') ? '&' : '?', up->hex);
    }
}

static void registry_note(struct upload *up, const char *head)
{
    char value[sizeof up->where];
    if (!head_value(head, "Location", value, sizeof value))
        return;
    const char *host = strstr(value, "://"), *path = host ? strchr(host + 3, '/') : value;
    snprintf(up->where, sizeof up->where, "%s", path ? path : "/");
}

static int registry_path(const struct upload *up, char *out, size_t size)
{
    return snprintf(out, size, "/v2/bench/blobs/sha256:%s", up->hex);
}

/* ---- WebDAV ---- */

static int dav_head(const struct upload *up, enum step step, char *out, size_t size)
{
    (void)step;
    return snprintf(out, size, "PUT /blobs/%s HTTP/1.1\r\nContent-Type: application/octet-stream\r\n", up->hex);
}

static void dav_note(struct upload *up, const char *head)
{
    (void)up;
    (void)head;
}

static int dav_path(const struct upload *up, char *out, size_t size)
{
    return snprintf(out, size, "/blobs/%s", up->hex);
}

static const struct dialect dialects[] = {
    {.name = "blobd",
     .first = STEP_CREATE,
     .last = STEP_COMPLETE,
     .status = {202, 203, 201},
     .head = blobd_head,
     .note = blobd_note,
     .path = blobd_path},
    {.name = "registry",
     .first = STEP_CREATE,
     .last = STEP_COMPLETE,
     .status = {202, 202, 201},
     .head = registry_head,
     .note = registry_note,
     .path = registry_path},
    {.name = "dav",
     .first = STEP_APPEND,
     .last = STEP_APPEND,
     .whole = true,
     .status = {0, 201, 0},
     .head = dav_head,
     .note = dav_note,
     .path = dav_path},
};

const struct dialect *dialect_find(const char *name)
{
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
        if (strcmp(dialects[i].name, name) == 0)
            return &dialects[i];
    return NULL;
}
