/*
 * embedded_guard - <path>.lock: keeps a second process out of an embedded session store, and tells whether its files
 * can be trusted.
 *
 * Files that were written without syncs are whole as long as the kernel that took the writes lives. The guard notes the
 * kernel's boot id while they are open and "clean" after they were synced; files found neither clean nor of this boot
 * may have been cut by a power loss and must not be read.
 *
 * The lock is flock(2): it dies with the process, and holds on NFS between machines (Linux 2.6.12 and later).
 *
 *     embedded_guard_take(path, &guard, &trusted, err);
 *     if (!trusted) remove the files;
 *     embedded_guard_mark_open(&guard, err);
 *     … use the files; sync them …
 *     embedded_guard_release(&guard, true);
 *
 * Threads: one. Ownership: the guard owns its descriptor. Durability: the note is synced when mark_open returns.
 */
#ifndef BLOBD_BACKENDS_EMBEDDED_EMBEDDED_GUARD_H
#define BLOBD_BACKENDS_EMBEDDED_EMBEDDED_GUARD_H

#include "core/status.h"

struct embedded_guard {
    int fd;
};

/* *trusted: the files guarded were synced, or written under this boot. CONFLICT: another process holds it. */
enum blob_status embedded_guard_take(const char *path, struct embedded_guard *g, bool *trusted,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* From now on the files may be changed. */
enum blob_status embedded_guard_mark_open(struct embedded_guard *g, struct blob_error *err) BLOB_MUST_CHECK;
/* clean: the files guarded have been synced. */
/* The files may not be what was written to them, as after a sync that failed: the next opening does not trust them. */
void embedded_guard_doubt(struct embedded_guard *g);
void embedded_guard_release(struct embedded_guard *g, bool clean);

#endif
