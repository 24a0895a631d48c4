/*
 * s3_client - what the store above needs of an S3 endpoint, whichever driver speaks to it.
 *
 * Two drivers: "sigv4" (libcurl and our own Signature V4; the default) and "libs3" (Signature V2, opt-in, for
 * gateways that know nothing newer). s3_client_caps() says what a driver lacks.
 *
 * Threads: every function may be called from any thread, also at the same time; all of them block. They return soon
 * after s3_client_cancel(), with CANCELED.
 * Ownership: keys, bodies and buffers are borrowed until return. What is given is said so.
 * Retries: inside, with jittered exponential back-off, until retry_timeout_ms; a status that comes out is final for
 * the moment. Every call is safe to repeat.
 * Durability: OK from s3_put and s3_multipart_complete means that the server has acknowledged the whole object.
 * Errors, besides those named at each function:
 *   UNAVAILABLE  endpoint not reached, certificate not trusted, 5xx, SlowDown, no such bucket: the text says which
 *   DENIED       credentials, policy or clock refused
 *   UNSUPPORTED  the endpoint (501) or the driver cannot
 *   CANCELED, NO_MEMORY, NO_SPACE (quota), IO (an answer that makes no sense)
 * NOT_FOUND is only ever said on the endpoint's word NoSuchKey or NoSuchUpload, never guessed from a bare 404.
 * Keys: 1 to S3_KEY_MAX of A-Z a-z 0-9 . _ - and /, the first may be ~, as s3_key_ok() tells. Anything else is a bug of
 * the caller.
 *
 *     struct s3_client *c;
 *     if ((st = s3_client_open(&opts, &c, &err)) != BLOB_OK)
 *         return st;
 *     struct s3_body body = { .data = text, .length = len };
 *     st = s3_put(c, "files/1", &body, NULL, NULL, &err);
 *
 * Source: Amazon S3 API Reference, API version 2006-03-01.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_CLIENT_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_CLIENT_H

#include "backends/s3/client/s3_clock.h"
#include "backends/s3/client/s3_options.h"
#include "backends/s3/client/s3_types.h"
#include "core/digest.h"
#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

struct s3_client;

/* Opens nothing on the network. INVALID: an option is missing or malformed, or there are no credentials. */
enum blob_status s3_client_open(const struct s3_options *opts, struct s3_client **out,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* Calls in flight must have returned. NULL is fine. */
void s3_client_close(struct s3_client *c);
/* Ends calls in flight and all later ones with CANCELED. */
void s3_client_cancel(struct s3_client *c);
unsigned s3_client_caps(const struct s3_client *c);
const char *s3_client_driver(const struct s3_client *c);
/* The largest object one s3_put may make. */
uint64_t s3_client_max_put(const struct s3_client *c);
/* How far the server's clock is from ours, by its successful answers of the last minutes; no samples before the first,
 * nor with a driver that cannot tell. */
void s3_client_clock(const struct s3_client *c, struct s3_clock_view *out);

bool s3_key_ok(const char *key);

/* ---- objects ---- */

/*
 * cond and out may be NULL. EXISTS can, for a body from read() or of over 1 MiB, be the echo of an earlier attempt of
 * this very call whose answer was lost; smaller ones are compared, and their echo is OK. CONFLICT likewise: who must
 * know reads the object. TOO_LARGE: over s3_client_max_put().
 */
enum blob_status s3_put(struct s3_client *c, const char *key, const struct s3_body *body,
                        const struct s3_condition *cond, struct s3_object *out, struct blob_error *err) BLOB_MUST_CHECK;

/*
 * Reads length bytes from offset, fewer only where the object ends: *got says. out (may be NULL) is the object, whole
 * size included. INVALID: offset is at or past the end. After a failure buf holds anything.
 */
enum blob_status s3_get_range(struct s3_client *c, const char *key, uint64_t offset, size_t length, void *buf,
                              size_t *got, struct s3_object *out, struct blob_error *err) BLOB_MUST_CHECK;

/* The whole of a small object; TOO_LARGE when it does not fit. */
enum blob_status s3_get(struct s3_client *c, const char *key, void *buf, size_t size, size_t *got,
                        struct s3_object *out, struct blob_error *err) BLOB_MUST_CHECK;

enum blob_status s3_head(struct s3_client *c, const char *key, struct s3_object *out,
                         struct blob_error *err) BLOB_MUST_CHECK;

/* OK also when it was not there. */
enum blob_status s3_delete(struct s3_client *c, const char *key, struct blob_error *err) BLOB_MUST_CHECK;
/* The same by one request, signed as of as_of_ms, by our clock: endpoints refuse it (DENIED) when it comes a quarter of
 * an hour later. UNAVAILABLE: it may take effect yet, until then. With a driver that is one process's alone, as
 * s3_delete(). */
enum blob_status s3_delete_once(struct s3_client *c, const char *key, int64_t as_of_ms,
                                struct blob_error *err) BLOB_MUST_CHECK;

/* One page of at most max (1–1000) keys that begin with prefix ("" for all) and sort after `after` (NULL: from the
 * first). Each page goes on beyond the one before it, or is UNAVAILABLE. Gives *out: s3_page_release(). */
enum blob_status s3_list(struct s3_client *c, const char *prefix, const char *after, unsigned max, struct s3_page *out,
                         struct blob_error *err) BLOB_MUST_CHECK;

/* ---- streams ---- */

/*
 * A stream reads [offset, offset + length), all of which must be there, with one request whose answer is taken as it is
 * wanted: in between it holds a connection, but neither a thread nor memory. Opening makes one attempt, without
 * retries; whatever it fails with, s3_get_range() is to be asked, which tries harder and tells why. At most
 * s3_streams_max() of them, which the caller sees to. A stream may be handed from thread to thread. Gives *out:
 * s3_stream_close().
 */
struct s3_stream;
enum blob_status s3_stream_open(struct s3_client *c, const char *key, uint64_t offset, uint64_t length,
                                struct s3_stream **out, struct s3_object *object,
                                struct blob_error *err) BLOB_MUST_CHECK;
/* The next len bytes, not beyond its end. UNAVAILABLE: it broke off, stalled, or was let go by the server for having
 * rested too long; nothing is repeated here. After a failure it can only be closed. */
enum blob_status s3_stream_read(struct s3_stream *s, void *buf, size_t len, struct blob_error *err) BLOB_MUST_CHECK;
/* At any time. NULL is fine. */
void s3_stream_close(struct s3_stream *s);

/* ---- multipart uploads ---- */

enum blob_status s3_multipart_create(struct s3_client *c, const char *key, char upload_id[S3_UPLOAD_ID_MAX],
                                     struct blob_error *err) BLOB_MUST_CHECK;

/* NOT_FOUND: the upload was completed or aborted. Fills out->number, size, etag. */
enum blob_status s3_multipart_put(struct s3_client *c, const char *key, const char *upload_id, unsigned number,
                                  const struct s3_body *body, struct s3_part *out,
                                  struct blob_error *err) BLOB_MUST_CHECK;

/*
 * parts in ascending order; key must be this upload's alone. OK only after the finished object was looked at and has
 * the sum of their sizes; so it is OK as well when the upload had been completed before. NOT_FOUND: neither the upload
 * nor the object is there. CORRUPT: the object has another size. CONFLICT: the endpoint does not have these parts.
 */
enum blob_status s3_multipart_complete(struct s3_client *c, const char *key, const char *upload_id,
                                       const struct s3_part *parts, unsigned count, struct s3_object *out,
                                       struct blob_error *err) BLOB_MUST_CHECK;

/* OK also when there was no such upload. */
enum blob_status s3_multipart_abort(struct s3_client *c, const char *key, const char *upload_id,
                                    struct blob_error *err) BLOB_MUST_CHECK;

/* Parts with a number above `after`. Gives *out: s3_parts_release(). NOT_FOUND: no such upload. */
enum blob_status s3_multipart_parts(struct s3_client *c, const char *key, const char *upload_id, unsigned after,
                                    struct s3_parts *out, struct blob_error *err) BLOB_MUST_CHECK;

/* Unfinished multipart uploads of keys that begin with prefix, after (after_key, after_id) or from the first with
 * NULL. Gives *out: s3_uploads_release(). */
enum blob_status s3_multipart_list(struct s3_client *c, const char *prefix, const char *after_key, const char *after_id,
                                   struct s3_uploads *out, struct blob_error *err) BLOB_MUST_CHECK;

/* ---- presigned downloads ---- */

/* A URL for GET, valid for expiry_s (1 to 604800). The answer's Content-Disposition and Content-Type are set to what
 * is given here; either may be NULL. Gives *url: free(). */
enum blob_status s3_presign(struct s3_client *c, const char *key, int64_t expiry_s, const char *disposition,
                            const char *content_type, char **url, struct blob_error *err) BLOB_MUST_CHECK;

#endif
