/*
 * scrub_command - `blobd --scrub`: reads every stored blob once against its digest, at full speed, sets aside what is
 * wrong, and looks whether each file has its blob.
 *
 * Progress goes to stderr, what was found and a summary to stdout. Threads: main's, before it serves.
 */
#ifndef BLOBD_SERVER_SCRUB_COMMAND_H
#define BLOBD_SERVER_SCRUB_COMMAND_H

struct blob_store;

#define SCRUB_EXIT_FOUND 3

/* Borrows the store. The exit status: 0 all is well, 1 it could not look at everything, SCRUB_EXIT_FOUND something is
 * damaged or missing. */
int scrub_command(struct blob_store *store);

#endif
