/*
 * upload_handlers - the five operations of an upload, as handlers of routes: what their heads say is parsed and
 * checked here; append and complete go on in server/api/upload_body.
 *
 * Threads: on the request's loop.
 */
#ifndef BLOBD_SERVER_API_UPLOAD_HANDLERS_H
#define BLOBD_SERVER_API_UPLOAD_HANDLERS_H

struct exchange;

void handle_upload_create(struct exchange *x);
void handle_upload_append(struct exchange *x);
void handle_upload_complete(struct exchange *x);
void handle_upload_status(struct exchange *x);
void handle_upload_destroy(struct exchange *x);

#endif
