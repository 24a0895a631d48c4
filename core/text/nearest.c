/* nearest - the distance of Levenshtein, a row at a time. */
#include "core/text/nearest.h"

#include <stddef.h>
#include <string.h>

#define EDITS_MOST 2
#define NAME_MOST  64

void nearest_begin(struct nearest *near, const char *wanted)
{
    *near = (struct nearest){.wanted = wanted, .edits = EDITS_MOST + 1};
}

static unsigned least(unsigned a, unsigned b, unsigned c)
{
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Both have at most NAME_MOST letters. */
static unsigned edits_between(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned row[NAME_MOST + 1];
    for (unsigned k = 0; k <= b_len; k++)
        row[k] = k;
    for (unsigned i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (size_t k = 1; k <= b_len; k++) {
            unsigned above = row[k];
            row[k] = least(above + 1, row[k - 1] + 1, diagonal + (a[i - 1] != b[k - 1]));
            diagonal = above;
        }
    }
    return row[b_len];
}

void nearest_look(struct nearest *near, const char *name)
{
    size_t wanted_len = strlen(near->wanted), len = strlen(name);
    if (wanted_len > NAME_MOST || len > NAME_MOST)
        return;
    unsigned edits = edits_between(near->wanted, wanted_len, name, len);
    if (edits < near->edits && 2 * (size_t)edits < len) {
        near->edits = edits;
        near->name = name;
    }
}
