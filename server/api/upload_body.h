/*
 * upload_body - one append or complete, from its checked head to its answer: carries the body from the loop to the
 * upload's lane, piece by piece.
 *
 *     loop     head ── (large, or Expect) ─────▸ ask first ───────▸ read ─▸ pieces ─▸ end ─────────▸ answer
 *                 └─── (small) ▸ read ▸ pieces ▸ end ┐                        │         │               ▴
 *     lane                                           └─▸ begin, write, end    └─▸ write ┴─▸ write, end ─┘
 *
 * A small body that has come whole costs one hop to a worker and back. A larger one is asked for first, so that what
 * is refused is refused before 100 Continue and before the body. Pieces that came while a worker was busy are
 * written by the next job together; each is given back as soon as it is written, which lets the loop read on.
 *
 * Threads: upload_body_start() on the request's loop; the rest as said. Ownership: req is copied; its pointers are the
 * request's and the exchange's.
 */
#ifndef BLOBD_SERVER_API_UPLOAD_BODY_H
#define BLOBD_SERVER_API_UPLOAD_BODY_H

#include "core/upload/upload.h"

struct exchange;
struct upload_calls;

/* Answers the exchange, sooner or later. req->superseded and arg are set here. */
void upload_body_start(struct exchange *x, const struct upload_request *req);

/* The appends under way, so that shutdown can end those that do not end by themselves. NULL: out of memory. */
struct upload_calls *upload_calls_new(void);
/* None is under way. NULL is fine. */
void upload_calls_free(struct upload_calls *calls);
/* Any thread. Ends each as if its link were cut: what arrived is kept, and the answer is 503. */
void upload_calls_stop(struct upload_calls *calls);

#endif
