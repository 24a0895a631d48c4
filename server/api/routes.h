/* routes - the two tables of routes: every operation of the API, and of the admin port, stands there once. */
#ifndef BLOBD_SERVER_API_ROUTES_H
#define BLOBD_SERVER_API_ROUTES_H

#include "server/api/router.h"

extern const struct route api_routes[];
extern const size_t api_route_count;
extern const struct route admin_routes[];
extern const size_t admin_route_count;

#endif
