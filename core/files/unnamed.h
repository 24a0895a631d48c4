/*
 * unnamed - marks of blobs whose last file was destroyed: records unnamed/<digest, 64 hex>.
 *
 * A blob that no file names is either garbage, its last file being destroyed, or the content of an upload that was cut
 * off (a crash, a store that failed) between committing its blob and recording its file; such an upload may still be
 * completed for as long as it lives. The mark tells the two apart: with it, a blob goes after the grace time, without
 * it only when no upload can come back to it any more.
 *
 * A mark tells the touched_ms that its blob had when it was written, and holds as long as the blob has the same. A
 * commit that meets the content again, or makes it anew, touches the blob, and that ends the mark: it costs nothing,
 * and there is no moment in between for a crash to fall into. A mark that was lost, or was never written because of a
 * crash, only delays the removal. The sweeper clears marks that have ended.
 *
 * Threads: any. Errors: as the store's.
 */
#ifndef BLOBD_CORE_FILES_UNNAMED_H
#define BLOBD_CORE_FILES_UNNAMED_H

#include "core/blob_store.h"

/* touched_ms is what the blob_touch() before has given. */
enum blob_status unnamed_mark(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                              struct blob_error *err) BLOB_MUST_CHECK;
/* touched_ms is the blob's own. */
enum blob_status unnamed_is_marked(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                                   bool *marked, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status unnamed_clear(struct blob_store *store, const struct digest *digest,
                               struct blob_error *err) BLOB_MUST_CHECK;
/* touched_ms: what the mark tells; UNNAMED_UNKNOWN where it tells nothing, as those of earlier versions. */
#define UNNAMED_UNKNOWN INT64_MIN
typedef bool unnamed_list_fn(const struct digest *digest, int64_t touched_ms, void *arg);
/* Calls fn for every mark; fn may clear marks. */
enum blob_status unnamed_list(struct blob_store *store, unnamed_list_fn *fn, void *arg,
                              struct blob_error *err) BLOB_MUST_CHECK;

#endif
