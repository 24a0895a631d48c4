/*
 * upload_answer - what the upload operations answer: the contract's headers, beside successes and refusals alike, and
 * the JSON of 201.
 *
 * Threads: on the request's loop. Source: PortSIP PBX REST API v22 "Blobs"; OCI distribution-spec 1.1 (Range).
 */
#ifndef BLOBD_SERVER_API_UPLOAD_ANSWER_H
#define BLOBD_SERVER_API_UPLOAD_ANSWER_H

#include "core/upload/upload.h"

struct exchange;

/* 202, 203 or 204 with the upload's headers. */
void upload_answer_view(struct exchange *x, int status, const struct upload_view *view);
/* A refusal: x->err, with the upload's headers where view is not NULL. */
void upload_answer_error(struct exchange *x, const struct upload_view *view);
/* The 201 of a completed upload; view may be NULL. */
void upload_answer_completed(struct exchange *x, const struct file_record *file, const struct upload_view *view);

#endif
