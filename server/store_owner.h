/*
 * store_owner - who a command is to be while it works on a store that another user's server writes to.
 *
 * An administrator runs --scrub and --check-storage as root, or the server by hand. Opening a store recovers it, and so
 * makes files: those have to belong to the user who is to go on with them.
 *
 * Threads: before any other is started. Durability: none.
 */
#ifndef BLOBD_SERVER_STORE_OWNER_H
#define BLOBD_SERVER_STORE_OWNER_H

#include "core/status.h"

/*
 * Run by root, makes the process the owner of the directory, for good: of what is nearest above it where it is not
 * there yet. Says so on standard error. Does nothing where that is root, or it is not root who runs it.
 */
enum blob_status store_owner_become(const char *directory, struct blob_error *err) BLOB_MUST_CHECK;

/*
 * For a server, which must read its key and bind its port as whoever it is: DENIED where root would serve the store of
 * another user, whose own server could not use the files made; says how to start it as that user. Else does nothing.
 */
enum blob_status store_owner_must_be_us(const char *directory, struct blob_error *err) BLOB_MUST_CHECK;

#endif
