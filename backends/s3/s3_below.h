/*
 * s3_below - what lies below a prefix, by listings that must show their end.
 *
 * A listing that shows too little looks like one that is whole. So each is asked for over all of the store's keys, from
 * where it begins: it has ended when it shows a key beyond the prefix, of which there is always one: END_KEY, an object
 * that sorts after all others. Where a listing ends without one, that object is asked for by its name: while it is
 * there the listing was cut off, and is UNAVAILABLE, so that nothing is taken for missing; where it is not, it is made,
 * as in a store of an earlier version. What a listing leaves out in its middle does not show here.
 *
 * Threads: one at a time in a walk. Ownership: borrows the store; s3_below_end().
 */
#ifndef BLOBD_BACKENDS_S3_S3_BELOW_H
#define BLOBD_BACKENDS_S3_S3_BELOW_H

#include "backends/s3/s3_store_internal.h"

#define S3_END_KEY "~end"

struct s3_below {
    struct s3_store *store;
    struct s3_key prefix, last; /* last: the key that was given last, or where to begin */
    unsigned page_keys;         /* how many the next page asks for */
    unsigned looks;             /* again, at where the listing seemed to end */
    bool more;
    struct s3_page page;
    size_t at; /* of the page */
};

/* Begins with the key after `after` (NULL: the first). expected: how many keys are wanted; more may be taken. */
void s3_below_begin(struct s3_below *b, struct s3_store *s, const char *prefix, const char *after, size_t expected);
/* *out is the next entry, valid until the next call, or NULL at the end. */
enum blob_status s3_below_next(struct s3_below *b, const struct s3_entry **out, struct blob_error *err) BLOB_MUST_CHECK;
void s3_below_end(struct s3_below *b);

#endif
