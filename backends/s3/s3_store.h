/*
 * s3_store - the storage contract on an S3 bucket.
 *
 *     store.json                        format and id of the store
 *     data/<upload id>                  a blob's bytes: one native object, made by a multipart upload
 *     data/<upload id>.<digest>         the same for one that fits in a single request
 *     blobs/<aa>/<digest>.json          the pointer: which of them, its size, when it was last touched
 *     staging/<upload id>/…             what is on its way (s3_staged.h)
 *     anything else                     records, under their own keys, or below records/ where one of the above is in
 * the way
 *
 * Nothing is copied: parts go straight to the final object, and completing writes a pointer. Equal content is
 * stored once: a commit that finds the blob there drops its own bytes.
 *
 * Durability: BLOB_LAZY makes no difference, an acknowledged request is durable. Errors: as s3_client.h; at open also
 * those that an operator makes, each named with the setting to change. Threads, ownership: as core/blob_store.h. The
 * process must ignore SIGPIPE.
 */
#ifndef BLOBD_BACKENDS_S3_S3_STORE_H
#define BLOBD_BACKENDS_S3_S3_STORE_H

#include "backends/s3/client/s3_options.h"
#include "core/blob_store.h"

struct logger;

/* log may be NULL; borrowed until close. Makes store.json where there is none. UNAVAILABLE, DENIED, INVALID: the text
 * says which setting, permission or clock is wrong. */
enum blob_status s3_store_open(const struct s3_options *opts, struct logger *log, struct blob_store **out,
                               struct blob_error *err) BLOB_MUST_CHECK;

#endif
