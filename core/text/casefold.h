/*
 * casefold - names folded for a search that ignores case. Simple folding: one code point for one, after Unicode's
 * CaseFolding (status C and S), from a table of our own, so that an index made by one node's C library fits another's.
 * Accents are kept. Input that is not UTF-8 is kept byte by byte. Threads: any.
 */
#ifndef BLOBD_CORE_TEXT_CASEFOLD_H
#define BLOBD_CORE_TEXT_CASEFOLD_H

#include <stdbool.h>

struct bytebuf;

/* Adds the folded text to out. */
void casefold_add(const char *text, struct bytebuf *out);

#endif
