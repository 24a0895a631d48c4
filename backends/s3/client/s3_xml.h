/*
 * s3_xml - a reader for the few XML answers of S3: elements and text, nothing else.
 *
 * Strict and bounded: elements must nest, one root, depth at most S3_XML_DEPTH; DOCTYPE and processing instructions
 * (but the declaration) are refused, so no entity but the five of XML and character references exists. Attributes
 * are checked and dropped, names lose their prefix ("x:Key" is "Key").
 *
 * Threads: any. Ownership: text is borrowed. Source: XML 1.0, as far as S3 uses it.
 */
#ifndef BLOBD_BACKENDS_S3_CLIENT_S3_XML_H
#define BLOBD_BACKENDS_S3_CLIENT_S3_XML_H

#include "core/status.h"

#include <stddef.h>

#define S3_XML_DEPTH    8
#define S3_XML_PATH_MAX 192
#define S3_XML_TEXT_MAX 4096

/* At the end of each element: its path from the root ("ListBucketResult/Contents/Key") and its own text, decoded.
 * Both are borrowed for the call. Returning false ends the reading with NO_MEMORY. */
typedef bool s3_xml_fn(const char *path, const char *text, void *arg);

/* INVALID: not well-formed, out of bounds, or cut short. fn may have been called for what came before. */
enum blob_status s3_xml_read(const char *text, size_t len, s3_xml_fn *fn, void *arg) BLOB_MUST_CHECK;

#endif
