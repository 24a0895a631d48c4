/*
 * admin_handlers - the admin port: is the process alive, may the balancer send requests, what is counted.
 *
 * Handlers of server/api/routes; on the admin listener's loop.
 */
#ifndef BLOBD_SERVER_API_ADMIN_HANDLERS_H
#define BLOBD_SERVER_API_ADMIN_HANDLERS_H

struct exchange;

void handle_healthz(struct exchange *x);
void handle_readyz(struct exchange *x);
void handle_metrics(struct exchange *x);

#endif
