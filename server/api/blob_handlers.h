/* blob_handlers - GET and HEAD of a blob. Handler of server/api/routes; on the request's loop. */
#ifndef BLOBD_SERVER_API_BLOB_HANDLERS_H
#define BLOBD_SERVER_API_BLOB_HANDLERS_H

struct exchange;

void handle_blob_get(struct exchange *x);

#endif
