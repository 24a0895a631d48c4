/*
 * http_fields - evhttp keeps header lines as they came: it takes spaces off before a value but no tabs, and of a field
 * on several lines it finds the first alone. Both are put right once, when the head is there, so that no reader of a
 * field has to know.
 *
 * Hardly any head has two lines of one name, so joined fields stand in a list of their own, and all others are read
 * where they are.
 */
#include "server/http/http_internal.h"

#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void http_fields_trim(struct evkeyvalq *headers)
{
    static const char blanks[] = " \t";
    struct evkeyval *header;
    TAILQ_FOREACH(header, headers, next)
    {
        char *value = header->value;
        size_t skip = strspn(value, blanks), len = strlen(value);
        while (len > skip && strchr(blanks, value[len - 1]))
            len--;
        memmove(value, value + skip, len - skip);
        value[len - skip] = '\0';
    }
}

static struct evkeyval *next_of_name(const struct evkeyval *header)
{
    struct evkeyval *other = TAILQ_NEXT(header, next);
    while (other && strcasecmp(other->key, header->key) != 0)
        other = TAILQ_NEXT(other, next);
    return other;
}

static struct http_joined *find_joined(struct http_joined *joined, const char *name)
{
    while (joined && strcasecmp(joined->name, name) != 0)
        joined = joined->next;
    return joined;
}

/* From the first line of that name on. */
static struct http_joined *join(const struct evkeyval *first)
{
    size_t size = 0, len = 0;
    for (const struct evkeyval *line = first; line; line = next_of_name(line))
        size += strlen(line->value) + sizeof ", ";
    struct http_joined *joined = malloc(sizeof *joined + size);
    if (!joined)
        return NULL;
    *joined = (struct http_joined){.name = first->key};
    for (const struct evkeyval *line = first; line; line = next_of_name(line)) {
        size_t n = strlen(line->value);
        memcpy(joined->value + len, line->value, n);
        memcpy(joined->value + len + n, ", ", 2);
        len += n + 2;
    }
    joined->value[len - 2] = '\0';
    return joined;
}

bool http_fields_join(const struct evkeyvalq *headers, struct http_joined **out)
{
    struct evkeyval *header;
    *out = NULL;
    TAILQ_FOREACH(header, headers, next)
    {
        if (!next_of_name(header) || find_joined(*out, header->key))
            continue;
        struct http_joined *joined = join(header);
        if (!joined) {
            http_fields_free(*out);
            *out = NULL;
            return false;
        }
        joined->next = *out;
        *out = joined;
    }
    return true;
}

const char *http_fields_joined(struct http_joined *joined, const char *name)
{
    struct http_joined *found = find_joined(joined, name);
    return found ? found->value : NULL;
}

void http_fields_free(struct http_joined *joined)
{
    while (joined) {
        struct http_joined *next = joined->next;
        free(joined);
        joined = next;
    }
}
