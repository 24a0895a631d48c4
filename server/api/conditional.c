/* conditional - the decision only; the grammars are parse_http's. What does not parse as a range is ignored, as
 * RFC 9110 section 14.2 lets a server do, and several ranges are answered with the whole. */
#include "server/api/conditional.h"

#include "core/text/parse_http.h"

#include <stddef.h>

struct selection conditional_select(const struct conditions *c, bool is_get, const char *opaque, uint64_t size)
{
    struct selection s = {.status = 200, .length = size};
    if (c->if_match != NULL && !etag_list_has(c->if_match, opaque, false))
        return (struct selection){.status = 412};
    if (c->if_none_match != NULL && etag_list_has(c->if_none_match, opaque, true))
        return (struct selection){.status = 304};
    if (!is_get || c->range == NULL || (c->if_range != NULL && !etag_is(c->if_range, opaque)))
        return s;
    uint64_t last;
    switch (range_parse(c->range, size, &s.first, &last)) {
    case RANGE_ONE:
        s.status = 206;
        s.length = last - s.first + 1;
        break;
    case RANGE_UNSATISFIABLE:
        return (struct selection){.status = 416};
    case RANGE_WHOLE:
    case RANGE_SEVERAL:
    case RANGE_MALFORMED:
        break;
    }
    return s;
}
