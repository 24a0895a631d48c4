/*
 * s3_staged - what is known of an upload on its way into S3, and how it is spelt in keys, marks and state objects.
 *
 * The bytes of an upload lie in this order:
 *   parts      of equal size: parts of one multipart upload of data/<id> or, where the driver has no multipart, objects
 *              staging/<id>/p/<number>.<epoch>
 *   segments   the remainder, less than a part: the tails of state objects
 * A state object, staging/<id>/s/<epoch>.<sequence>.<offset>, is written by each flush: a header of fixed size that
 * holds the state and core's keep bytes, then the bytes that are new. The one whose key is greatest is the upload's
 * state, so that a later writer's word stands over an earlier one's.
 *
 * Threads: plain values. Units: bytes. Errors: INVALID: not such an encoding.
 */
#ifndef BLOBD_BACKENDS_S3_S3_STAGED_H
#define BLOBD_BACKENDS_S3_S3_STAGED_H

#include "backends/s3/client/s3_client.h"
#include "core/blob_store.h"

#define S3_STAGED_HEADER_BYTES  2048
#define S3_STAGED_RUNS_MAX      8
#define S3_STAGED_SEGMENTS_MAX  12
#define S3_STAGED_UPLOAD_ID_MAX 512 /* of the ids in use the longest has about 300 */
#define S3_STAGED_CHAIN_BYTES   16

/* Consecutive part numbers. A writer that takes an upload over while the old one may still be writing leaves a gap. */
struct s3_staged_run {
    uint32_t first, count;
    uint64_t epoch;
};

struct s3_staged_segment {
    uint64_t epoch;
    uint32_t sequence;
    uint32_t length;
    uint32_t crc32c; /* nothing else tells bytes that were damaged in S3, or on their way back */
};

struct s3_staged {
    uint32_t part_size;
    unsigned run_count;
    struct s3_staged_run runs[S3_STAGED_RUNS_MAX];
    uint8_t chain[S3_STAGED_CHAIN_BYTES];        /* a hash over numbers and ETags of the parts, in order */
    char upload_id[S3_STAGED_UPLOAD_ID_MAX + 1]; /* "" before the first part */
    unsigned segment_count;
    struct s3_staged_segment segments[S3_STAGED_SEGMENTS_MAX];
    /* the state object itself; sequence 0: there is none */
    uint64_t epoch;
    uint32_t sequence;
    uint64_t offset;
    bool committing; /* it is being turned into this blob */
    struct digest digest;
};

uint64_t s3_staged_part_count(const struct s3_staged *s);
uint64_t s3_staged_parts_end(const struct s3_staged *s);
/* Adds the part that follows. */
void s3_staged_add_part(struct s3_staged *s, uint32_t number, uint64_t epoch, const char *etag);
/* Adds a part to such a chain. */
void s3_staged_chain_add(uint8_t chain[S3_STAGED_CHAIN_BYTES], uint32_t number, const char *etag);
/* Begins a new run at the next number but `gap`; only so often, then the last run goes on. */
void s3_staged_skip(struct s3_staged *s, uint32_t gap, uint64_t epoch);
/* The number of the part that follows. */
uint32_t s3_staged_next_number(const struct s3_staged *s);
/* The number and epoch of the part with this index, from 0. */
void s3_staged_part_at(const struct s3_staged *s, uint64_t index, uint32_t *number, uint64_t *epoch);

/* Everything but the offset goes into the mark's state. */
void s3_staged_to_mark(const struct s3_staged *s, struct upload_mark *mark);
/* A mark without state is an upload without bytes: part_size is for that. */
enum blob_status s3_staged_from_mark(const struct upload_mark *mark, uint32_t part_size,
                                     struct s3_staged *out) BLOB_MUST_CHECK;

void s3_staged_write_header(const struct s3_staged *s, const void *keep, size_t keep_len,
                            uint8_t out[S3_STAGED_HEADER_BYTES]);
enum blob_status s3_staged_read_header(const uint8_t in[S3_STAGED_HEADER_BYTES], struct s3_staged *out, uint8_t *keep,
                                       uint32_t *keep_len) BLOB_MUST_CHECK;

/* ---- keys ---- */

#define S3_STAGED_ROOT "staging/"

struct s3_key {
    char text[S3_KEY_MAX + 1];
};

struct s3_key s3_staged_prefix(const struct uuid *id);
struct s3_key s3_staged_state_prefix(const struct uuid *id);
struct s3_key s3_staged_state_key(const struct uuid *id, uint64_t epoch, uint32_t sequence, uint64_t offset);
struct s3_key s3_staged_piece_key(const struct uuid *id, uint32_t number, uint64_t epoch);
/* Says that the upload has a state object: made after the first of them, deleted before the last. So where a listing
 * shows none, it tells whether that is true. */
struct s3_key s3_staged_anchor_key(const struct uuid *id);
/* The list of all parts, kept while an object is copied without some of them. */
struct s3_key s3_staged_list_key(const struct uuid *id);
struct s3_key s3_staged_data_key(const struct uuid *id);
/* Of a data object that is not put together in place: it tells the digest itself. */
struct s3_key s3_staged_whole_key(const struct uuid *id, const struct digest *digest);
/* The segment with this index; *offset is where its bytes begin in the upload. */
struct s3_key s3_staged_segment_key(const struct uuid *id, const struct s3_staged *s, unsigned index, uint64_t *offset);
/* The upload of any key below S3_STAGED_ROOT. */
bool s3_staged_parse_upload(const char *key, struct uuid *id);
/* Of a state object's key. */
bool s3_staged_parse_key(const char *key, struct uuid *id, uint64_t *epoch, uint32_t *sequence, uint64_t *offset);

#endif
