/*
 * s3_probe - does this endpoint do what the store relies on? Asked at start, before anything is acknowledged, and step
 * by step by blobd --check-storage.
 *
 * Threads: any. Each step works on a key of its own choice, which the caller deletes. Errors: UNSUPPORTED where the
 * endpoint lacks it; what else kept us from knowing.
 */
#ifndef BLOBD_BACKENDS_S3_S3_PROBE_H
#define BLOBD_BACKENDS_S3_S3_PROBE_H

#include "backends/s3/client/s3_client.h"

/* Is a write with If-None-Match: * refused? key is there. */
enum blob_status s3_probe_create_only(struct s3_client *c, const char *key, struct blob_error *err) BLOB_MUST_CHECK;
/* Is a write with If-Match refused for another ETag, and done for the right one? key is there. */
enum blob_status s3_probe_swap(struct s3_client *c, const char *key, struct blob_error *err) BLOB_MUST_CHECK;
/* A multipart upload from beginning to end, its parts listed before: of this part and, unless it is under 5 MiB, one
 * byte more. */
enum blob_status s3_probe_multipart(struct s3_client *c, const char *key, const void *part, size_t len,
                                    struct blob_error *err) BLOB_MUST_CHECK;

/*
 * All of it, in a few small requests; once a day, which checked.json in the store remembers, when nothing was lacking.
 * *conditional: writes heed conditions. UNSUPPORTED, and what else a step failed with: uploads could not complete here.
 */
enum blob_status s3_probe(struct s3_client *c, const struct s3_options *opts, bool *conditional,
                          struct blob_error *err) BLOB_MUST_CHECK;
/* The next start is to look again. */
enum blob_status s3_probe_forget(struct s3_client *c, struct blob_error *err) BLOB_MUST_CHECK;

#endif
