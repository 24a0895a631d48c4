/*
 * upload_record - the record uploads/<id>: what the blob store itself knows of an upload, whatever becomes of its
 * session.
 *
 * Written when an upload is created, again before its content becomes a blob, and again when the file that it made is
 * destroyed, so that no repeat of its completion makes that file once more. From then on the record names what is
 * neither staged nor, before the file record is written, named by anything else; and it leads a repeated completion to
 * its file after a restart or with an emptied session store. Removed by destroy and expiry.
 *
 * Threads: any; plain values. Format: JSON, one object, version 1.
 */
#ifndef BLOBD_CORE_SESSION_UPLOAD_RECORD_H
#define BLOBD_CORE_SESSION_UPLOAD_RECORD_H

#include "core/session/session.h"

#define UPLOAD_RECORD_PREFIX "uploads/"

/* Writes the key of id into key. */
void upload_record_key(const struct uuid *id, char key[RECORD_KEY_MAX]);
/* From a key of that prefix; INVALID. */
enum blob_status upload_record_id(const char *key, struct uuid *id) BLOB_MUST_CHECK;

/* What never changes, and the completion where state is not SESSION_OPEN (then also the offset, which is the size). */
void upload_record_encode(const struct session *s, struct bytebuf *out);
/* Fills a zeroed session: state SESSION_OPEN with nothing received, or SESSION_COMPLETING: whether it then did
 * complete, its file record tells. CORRUPT. */
enum blob_status upload_record_decode(const void *data, size_t len, struct session *out) BLOB_MUST_CHECK;

/* Before the file that this upload made is removed: notes in the upload's record, where there still is one, that it was
 * made. Lazy: what removes the file carries it. */
enum blob_status upload_record_note_gone(struct blob_store *store, const struct uuid *id,
                                         struct blob_error *err) BLOB_MUST_CHECK;

#endif
