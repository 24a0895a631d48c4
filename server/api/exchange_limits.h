/*
 * exchange_limits - what one address and one identity may have in flight, and how many uploads they may begin.
 *
 * Each function that answers false has answered the request, with 429 and Retry-After. What was entered is left once,
 * after the answer. Threads: on the request's loop.
 */
#ifndef BLOBD_SERVER_API_EXCHANGE_LIMITS_H
#define BLOBD_SERVER_API_EXCHANGE_LIMITS_H

#include "server/api/exchange.h"

/* As soon as the request has come. */
bool exchange_address_enter(struct exchange *x);
/* When it is known whose the request is. */
bool exchange_identity_enter(struct exchange *x);
void exchange_limits_leave(struct exchange *x);

/* May the client, and the identity, begin another upload now? False: answered 429. */
bool exchange_spend_upload(struct exchange *x);

#endif
