/* blob_handlers - GET and HEAD of a blob. Handler of server/routes; on the request's loop. */
#ifndef BLOBD_SERVER_BLOB_HANDLERS_H
#define BLOBD_SERVER_BLOB_HANDLERS_H

struct exchange;

void handle_blob_get(struct exchange *x);

#endif
