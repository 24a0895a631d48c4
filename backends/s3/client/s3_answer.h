/*
 * s3_answer - the XML documents of S3 as values, and the one document that is sent.
 *
 * Threads: any. Ownership: what is given is released as s3_client.h says. Errors: INVALID (not the document that was
 * expected, or cut short), NO_MEMORY. Source: Amazon S3 API Reference, the "Response Syntax" of each operation.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_ANSWER_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_ANSWER_H

#include "backends/s3/client/s3_error.h"
#include "backends/s3/client/s3_types.h"
#include "core/text/bytebuf.h"

/* Fills code and region of an <Error>; false, and nothing changed, when the text is not one. */
bool s3_answer_refusal(const char *text, size_t len, struct s3_refusal *out);
/* "2009-10-12T17:50:30.000Z" in milliseconds since the epoch; 0 when it is not a time. */
int64_t s3_answer_time(const char *text);
/* Is it a CompleteMultipartUploadResult? */
bool s3_answer_is_completed(const char *text, size_t len);

enum blob_status s3_answer_upload_id(const char *text, size_t len, char out[S3_UPLOAD_ID_MAX]) BLOB_MUST_CHECK;
enum blob_status s3_answer_page(const char *text, size_t len, struct s3_page *out) BLOB_MUST_CHECK;
enum blob_status s3_answer_parts(const char *text, size_t len, struct s3_parts *out) BLOB_MUST_CHECK;
enum blob_status s3_answer_uploads(const char *text, size_t len, struct s3_uploads *out) BLOB_MUST_CHECK;

/* Appends a CompleteMultipartUpload document; out->failed tells of memory. */
void s3_answer_write_parts(struct bytebuf *out, const struct s3_part *parts, unsigned count);

#endif
