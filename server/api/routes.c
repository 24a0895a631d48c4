/* routes - literal paths stand before those with "{}" in the same place: "uploads" is no digest. */
#include "server/api/routes.h"

#include "server/api/admin_handlers.h"
#include "server/api/blob_handlers.h"
#include "server/api/file_handlers.h"
#include "server/api/upload_handlers.h"

const struct route api_routes[] = {
    {"upload_create", METHODS_POST, "/api/blobs/uploads", ROUTE_BEARER, handle_upload_create},
    {"upload_append", METHODS_POST, "/api/blobs/uploads/{}/append", ROUTE_BEARER, handle_upload_append},
    {"upload_complete", METHODS_POST, "/api/blobs/uploads/{}/complete", ROUTE_BEARER, handle_upload_complete},
    {"upload_status", METHODS_GET, "/api/blobs/uploads/{}/status", ROUTE_BEARER, handle_upload_status},
    /* What Location names. */
    {"upload_look", METHODS_GET, "/api/blobs/uploads/{}", ROUTE_BEARER, handle_upload_status},
    {"upload_destroy", METHODS_POST, "/api/blobs/uploads/{}/destroy", ROUTE_BEARER, handle_upload_destroy},
    {"blob_get", METHODS_GET, "/api/blobs/{}", ROUTE_DOWNLOAD, handle_blob_get},
    {"file_list", METHODS_GET, "/api/files", ROUTE_BEARER, handle_file_list},
    {"file_get", METHODS_GET, "/api/files/{}", ROUTE_BEARER, handle_file_get},
    {"file_destroy", METHODS_POST, "/api/files/{}/destroy", ROUTE_BEARER, handle_file_destroy},
};
const size_t api_route_count = sizeof api_routes / sizeof *api_routes;

const struct route admin_routes[] = {
    {"healthz", METHODS_GET, "/healthz", ROUTE_OPEN, handle_healthz},
    {"readyz", METHODS_GET, "/readyz", ROUTE_OPEN, handle_readyz},
    {"metrics", METHODS_GET, "/metrics", ROUTE_OPEN, handle_metrics},
};
const size_t admin_route_count = sizeof admin_routes / sizeof *admin_routes;
