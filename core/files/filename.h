/*
 * filename - names of uploaded files: what is accepted, and how one is sent back.
 *
 * Threads: any. Source: RFC 6266 (Content-Disposition), RFC 8187 (filename*).
 */
#ifndef BLOBD_CORE_FILES_FILENAME_H
#define BLOBD_CORE_FILES_FILENAME_H

#include "core/status.h"

struct bytebuf;

#define FILENAME_MAX_BYTES 255

/*
 * Drops what stands before the last '/' or '\'. INVALID: not UTF-8, a control character (C0, DEL, C1), or more than
 * 255 bytes left. Nothing left, "." and ".." become "", which is no name.
 */
enum blob_status filename_clean(const char *raw, char out[FILENAME_MAX_BYTES + 1]) BLOB_MUST_CHECK;

/* The name as a header shows it: without the controls that turn the direction of what follows (U+200E, U+200F, U+202A
 * to U+202E, U+2066 to U+2069, U+061C), by which an .exe reads as a .wav. Nothing may be left. */
void filename_shown(const char *name, char out[FILENAME_MAX_BYTES + 1]);

/*
 * Adds: attachment; filename="<ASCII fallback>"[; filename*=UTF-8''<percent-encoded>] for a cleaned name as it is
 * shown; the second only where the fallback differs. Whatever name holds, the result has no control character and no
 * stray quote.
 */
void filename_disposition(const char *name, struct bytebuf *out);

#endif
