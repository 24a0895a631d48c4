/* file_handlers - listing, describing and destroying files. Handlers of server/api/routes; on the request's loop. */
#ifndef BLOBD_SERVER_API_FILE_HANDLERS_H
#define BLOBD_SERVER_API_FILE_HANDLERS_H

struct exchange;

void handle_file_list(struct exchange *x);
void handle_file_get(struct exchange *x);
void handle_file_destroy(struct exchange *x);

#endif
