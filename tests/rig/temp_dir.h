/* temp_dir - a directory of a test's own, and its removal with all that is in it. */
#ifndef BLOBD_TESTS_TEMP_DIR_H
#define BLOBD_TESTS_TEMP_DIR_H

#include "core/check.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEMP_DIR_CHARS 128

static inline void temp_dir_make(char out[TEMP_DIR_CHARS])
{
    const char *base = getenv("TMPDIR");
    CHECK(snprintf(out, TEMP_DIR_CHARS, "%s/blobd-test-XXXXXX", base ? base : "/tmp") < TEMP_DIR_CHARS);
    CHECK(mkdtemp(out) != NULL);
}

/* In memory where the system has a place for that: for tests that do not care for the disk. */
static inline void temp_dir_make_in_memory(char out[TEMP_DIR_CHARS])
{
    CHECK(snprintf(out, TEMP_DIR_CHARS, "/dev/shm/blobd-test-XXXXXX") < TEMP_DIR_CHARS);
    if (mkdtemp(out) == NULL)
        temp_dir_make(out);
}

static inline int temp_dir_entry(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
    (void)sb;
    (void)type;
    (void)ftw;
    return remove(path);
}

/* NULL or "" is fine. */
static inline void temp_dir_remove(const char *path)
{
    if (path && path[0] != '\0')
        nftw(path, temp_dir_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
