/*
 * router - a walk over a dozen patterns, part by part. At this size a tree or a hash would only be harder to read.
 */
#include "server/api/router.h"

#include "core/text/parse_http.h"

#include <stdio.h>
#include <string.h>

/* The next part of *p, moving past it and its '/'. */
struct part {
    const char *text;
    size_t len;
};

static bool take_part(const char **p, struct part *part)
{
    if (**p != '/')
        return false;
    part->text = ++*p;
    part->len = strcspn(*p, "/");
    *p += part->len;
    return true;
}

static bool is_wildcard(const struct part *part)
{
    return part->len == 2 && memcmp(part->text, "{}", 2) == 0;
}

/* Is the decoded part the literal one? */
static enum route_outcome compare_part(const struct part *want, const struct part *got)
{
    char decoded[32];
    if (memchr(got->text, '%', got->len) == NULL)
        return want->len == got->len && memcmp(want->text, got->text, want->len) == 0 ? ROUTE_FOUND : ROUTE_NO_PATH;
    switch (percent_decode(got->text, got->len, false, decoded, sizeof decoded)) {
    case BLOB_OK:
        return strlen(decoded) == want->len && memcmp(want->text, decoded, want->len) == 0 ? ROUTE_FOUND
                                                                                           : ROUTE_NO_PATH;
    case BLOB_E_INVALID:
        return ROUTE_BAD_ESCAPE;
    default:
        return ROUTE_NO_PATH;
    }
}

/* Whether it is an id of anything is for the handler to say, in its own words: also where it is too long for one (it is
 * cut then, and still too long), and where its encoding is broken (it is empty then). */
static enum route_outcome take_param(const struct part *part, char *param)
{
    if (part->len == 0)
        return ROUTE_NO_PATH;
    switch (percent_decode(part->text, part->len, false, param, ROUTE_PARAM_MAX + 1)) {
    case BLOB_OK:
        break;
    case BLOB_E_TOO_LARGE:
        snprintf(param, ROUTE_PARAM_MAX + 1, "%.*s", (int)part->len, part->text);
        break;
    default:
        param[0] = '\0';
        break;
    }
    return ROUTE_FOUND;
}

/* Passes by the whole parts that both begin with, byte for byte. False: they differ, where what differs can be no "{}"
 * and, as nothing is encoded, nothing else either. */
static bool skip_common(const char **pattern, const char **path, bool encoded)
{
    const char *p = *pattern, *q = *path;
    for (; *p != '\0' && *p != '{' && *p == *q; p++, q++) {
        if (*p == '/') {
            *pattern = p;
            *path = q;
        }
    }
    if (*p == '\0' && *q == '\0') {
        *pattern = p;
        *path = q;
    }
    return encoded || *p == '{' || *p == *q;
}

static enum route_outcome match_pattern(const char *pattern, const char *path, bool encoded, char *param)
{
    struct part want, got;
    if (!skip_common(&pattern, &path, encoded))
        return ROUTE_NO_PATH;
    while (take_part(&pattern, &want)) {
        if (!take_part(&path, &got))
            return ROUTE_NO_PATH;
        enum route_outcome outcome = is_wildcard(&want) ? take_param(&got, param) : compare_part(&want, &got);
        if (outcome != ROUTE_FOUND)
            return outcome;
    }
    return *path == '\0' ? ROUTE_FOUND : ROUTE_NO_PATH;
}

enum route_outcome router_match(const struct route *table, size_t count, enum http_method method, const char *path,
                                struct route_match *out)
{
    const char *pattern = NULL;
    bool broken = false, encoded = strchr(path, '%') != NULL;
    out->route = NULL;
    out->allowed = 0;
    for (size_t i = 0; i < count; i++) {
        const struct route *route = &table[i];
        if (pattern == NULL) {
            out->param[0] = '\0';
            enum route_outcome outcome = match_pattern(route->pattern, path, encoded, out->param);
            broken = broken || outcome == ROUTE_BAD_ESCAPE;
            if (outcome != ROUTE_FOUND)
                continue;
            pattern = route->pattern;
        } else if (strcmp(pattern, route->pattern) != 0) {
            continue;
        }
        out->allowed |= route->methods;
        if (route->methods & METHOD_BIT(method))
            out->route = route;
    }
    if (out->route != NULL)
        return ROUTE_FOUND;
    if (pattern != NULL)
        return ROUTE_NO_METHOD;
    return broken ? ROUTE_BAD_ESCAPE : ROUTE_NO_PATH;
}

void router_allow(unsigned methods, char out[ROUTER_ALLOW_MAX])
{
    static const struct {
        enum http_method method;
        const char *name;
    } names[] = {{HTTP_GET, "GET"}, {HTTP_HEAD, "HEAD"},     {HTTP_POST, "POST"},
                 {HTTP_PUT, "PUT"}, {HTTP_DELETE, "DELETE"}, {HTTP_PATCH, "PATCH"}};
    size_t at = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (methods & METHOD_BIT(names[i].method))
            at += (size_t)snprintf(out + at, ROUTER_ALLOW_MAX - at, "%s, ", names[i].name);
    }
    snprintf(out + at, ROUTER_ALLOW_MAX - at, "OPTIONS");
}
