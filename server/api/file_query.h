/*
 * file_query - reads the query of GET /api/files: search, orderby, skip, top.
 *
 * Pure. Unknown parameters are ignored; the vendor's "filter" is refused, so that nobody takes an unfiltered list for a
 * filtered one. Threads: plain values.
 */
#ifndef BLOBD_SERVER_API_FILE_QUERY_H
#define BLOBD_SERVER_API_FILE_QUERY_H

#include "core/api_error.h"
#include "core/session_store.h"

struct file_query {
    struct index_query index; /* search points into this struct; owner is left NULL */
    char search[FILE_NAME_MAX + 1];
};

enum api_code file_query_parse(const char *query, struct file_query *out, struct api_error *err) BLOB_MUST_CHECK;

#endif
