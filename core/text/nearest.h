/*
 * nearest - which of the known names somebody may have meant by one that is unknown.
 *
 *     nearest_begin(&near, "listne");
 *     nearest_look(&near, "listen");      … for each name that is known
 *     near.name is the nearest, or NULL when none is near
 *
 * Near is: at most two letters inserted, removed or exchanged for others, and less than half of the name.
 *
 * Threads: plain values. Ownership: refers to the names given.
 */
#ifndef BLOBD_CORE_TEXT_NEAREST_H
#define BLOBD_CORE_TEXT_NEAREST_H

struct nearest {
    const char *wanted;
    const char *name; /* NULL: none */
    unsigned edits;
};

void nearest_begin(struct nearest *near, const char *wanted);
void nearest_look(struct nearest *near, const char *name);

#endif
