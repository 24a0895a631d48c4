/*
 * regular_file - opens a file that a setting names, to read it whole.
 *
 * Only a regular file: a FIFO would hold up whoever reads it for good, at a start as at a reload, and a device may
 * never end.
 *
 * Threads: any.
 */
#ifndef BLOBD_CORE_REGULAR_FILE_H
#define BLOBD_CORE_REGULAR_FILE_H

#include "core/status.h"

#include <stdio.h>

/* Gives *out: fclose(). The text of a failure begins with what, and names the path. */
enum blob_status regular_file_open(const char *path, const char *what, FILE **out,
                                   struct blob_error *err) BLOB_MUST_CHECK;

#endif
