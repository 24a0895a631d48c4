/*
 * unnamed - marks of blobs whose last file was destroyed: records unnamed/<digest, 64 hex>.
 *
 * A blob that no file names is either garbage, its last file being destroyed, or the content of an upload that was cut
 * off (a crash, a store that failed) between committing its blob and recording its file; such an upload may still be
 * completed for as long as it lives. The mark tells the two apart: with it, a blob goes after the grace time, without
 * it only when no upload can come back to it any more.
 *
 * A mark tells the touched_ms that its blob had by then, and holds while the blob still has it: a commit that meets the
 * content again, or makes it anew, touches it and thereby ends the mark, at no cost and in no moment of its own that a
 * crash could fall into. A mark that was lost, or never written because of a crash, only delays the removal; one that
 * has ended is cleared by the sweeper.
 *
 * Threads: any. Errors: as the store's.
 */
#ifndef BLOBD_CORE_FILES_UNNAMED_H
#define BLOBD_CORE_FILES_UNNAMED_H

#include "core/blob_store.h"

/* touched_ms: of the blob_touch() that went before. */
enum blob_status unnamed_mark(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                              struct blob_error *err) BLOB_MUST_CHECK;
/* touched_ms: the blob's. */
enum blob_status unnamed_is_marked(struct blob_store *store, const struct digest *digest, int64_t touched_ms,
                                   bool *marked, struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status unnamed_clear(struct blob_store *store, const struct digest *digest,
                               struct blob_error *err) BLOB_MUST_CHECK;
/* touched_ms: what the mark tells; UNNAMED_UNKNOWN where it tells nothing, as those of earlier versions. */
#define UNNAMED_UNKNOWN INT64_MIN
typedef bool unnamed_list_fn(const struct digest *digest, int64_t touched_ms, void *arg);
/* Every mark; fn may clear marks. */
enum blob_status unnamed_list(struct blob_store *store, unnamed_list_fn *fn, void *arg,
                              struct blob_error *err) BLOB_MUST_CHECK;

#endif
