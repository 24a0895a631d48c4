/*
 * unnamed - marks of blobs whose last file was destroyed: records unnamed/<digest, 64 hex>.
 *
 * A blob that no file names is either garbage, its last file being destroyed, or the content of an upload that was cut
 * off (a crash, a store that failed) between committing its blob and recording its file; such an upload may still be
 * completed for as long as it lives. The mark tells the two apart: with it, a blob goes after the grace time, without
 * it only when no upload can come back to it any more. A mark that was lost, or never written because of a crash, only
 * delays the removal; one left from earlier is cleared by the sweeper while files name the blob.
 *
 * Threads: any. Errors: as the store's.
 */
#ifndef BLOBD_CORE_UNNAMED_H
#define BLOBD_CORE_UNNAMED_H

#include "core/blob_store.h"

enum blob_status unnamed_mark(struct blob_store *store, const struct digest *digest,
                              struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status unnamed_is_marked(struct blob_store *store, const struct digest *digest, bool *marked,
                                   struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status unnamed_clear(struct blob_store *store, const struct digest *digest,
                               struct blob_error *err) BLOB_MUST_CHECK;
typedef bool unnamed_list_fn(const struct digest *digest, void *arg);
/* Every mark; fn may clear marks. */
enum blob_status unnamed_list(struct blob_store *store, unnamed_list_fn *fn, void *arg,
                              struct blob_error *err) BLOB_MUST_CHECK;

#endif
