/*
 * disk_crowds - the names in crowded directories of file records, in order, so that a listing reads what it gives and
 * not all that is there.
 *
 * A directory is read as it is until a reading meets more than CROWD_NAMES names: then these are kept, in a SQLite file
 * in tmp/, and every change after that is told here. So no listing reads more names than that, but for one, after a
 * start, that meets a crowd before the first sweep has looked for it; and what grows under the process is met small.
 *
 * It is never the truth. Each process begins with nothing kept, and after any failure nothing is kept: directories are
 * read then. Only "files/" has it: other records are listed by nobody whom a client waits for. Not where nodes share
 * the store: the others would not tell.
 *
 * Threads: any. A note may wait for a crowd that is being taken in. Lock order: the locks of the memtable or a stripe,
 * then its own. Included by backends/disk/ only.
 */
#ifndef BLOBD_BACKENDS_DISK_DISK_CROWDS_H
#define BLOBD_BACKENDS_DISK_DISK_CROWDS_H

#include "backends/disk/disk_impl.h"

#define CROWD_NAMES 1024

struct disk_crowds;

/* root: as the store was opened. NULL: no memory. */
struct disk_crowds *disk_crowds_new(struct disk_store *s, const char *root);
void disk_crowds_free(struct disk_crowds *c); /* NULL is fine */
/* As disk_names_read_range() of a directory of records, in the order of disk_record_name_compare(). c may be NULL. */
enum blob_status disk_crowds_names(struct disk_store *s, struct disk_crowds *c, const char *dir,
                                   const struct disk_names_range *range, struct disk_names *out,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* The record's file is there now, or is not any more. Whoever changed it holds the lock that keeps others from it. c
 * may be NULL. */
void disk_crowds_note(struct disk_crowds *c, const char *key, bool there);
/* After a change that failed: as the file is. */
void disk_crowds_look_at(struct disk_store *s, struct disk_crowds *c, const char *key);
/* Looks for crowds that nobody has met yet. c may be NULL. */
void disk_crowds_look_for(struct disk_store *s, struct disk_crowds *c);

#endif
