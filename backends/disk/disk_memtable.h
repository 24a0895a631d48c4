/*
 * disk_memtable - records that are in the journal and not yet in their files.
 *
 * With the journal a record's file need not be written at once: its value is kept here, read from here, and written
 * after a while. An upload's record, which is written when the upload begins and again when it completes a moment
 * later, thus becomes one file and not two, and no file system has to forget the first (ext4 makes each new inode
 * pay for those deleted lately).
 *
 * A value that was put lazily may be seen before it is durable; a reader of any other waits for the journal with
 * whoever put it, and gets its error where it fails: of what is read here it may be answered that it is stored. Files
 * are written in place: nobody reads one but through here, under the lock of its shard, and after a crash the journal,
 * whose segment stays pinned until then, writes it again.
 *
 * Threads: any. Ownership: copies keys and values. Locks: a shard's two, then the journal's.
 */
#ifndef BLOBD_BACKENDS_DISK_DISK_MEMTABLE_H
#define BLOBD_BACKENDS_DISK_DISK_MEMTABLE_H

#include "backends/disk/journal/disk_journal.h"
#include "core/text/bytebuf.h"

struct disk_memtable;
struct disk_names;
struct disk_store;

/* Makes the memtable of a store with a journal. NULL: there is no memory. */
struct disk_memtable *disk_memtable_new(struct disk_store *store);
/* Frees it. The journal keeps what is still in it. NULL is fine. */
void disk_memtable_free(struct disk_memtable *m);

/* Puts a record, or deletes it if value is NULL, and gives the ticket to wait for. With BLOB_IF_NONE it returns EXISTS
 * if the key is there. */
enum blob_status disk_memtable_put(struct disk_memtable *m, const char *key, const void *value, size_t len,
                                   unsigned flags, struct journal_ticket *ticket,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Appends the value to out, from memory or from the file. A value in memory that was not put lazily is waited for until
 * it is durable. NOT_FOUND, or the journal's error. */
enum blob_status disk_memtable_get(struct disk_memtable *m, const char *key, struct bytebuf *out,
                                   struct blob_error *err) BLOB_MUST_CHECK;
/* Tells a listing which names it must add to those in dir, which holds records of class, and which it must leave out.
 * The listing asks before it reads the directory. */
enum blob_status disk_memtable_names(struct disk_memtable *m, const char *class, const char *dir,
                                     struct disk_names *added, struct disk_names *gone,
                                     struct blob_error *err) BLOB_MUST_CHECK;
/* Writes what is durable to its files, without waiting for anything, for a checkpoint. Returns the first failure; an
 * entry that failed stays. */
enum blob_status disk_memtable_settle(struct disk_memtable *m, struct blob_error *err);

#endif
