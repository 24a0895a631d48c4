/* blob_contract_parts - what the sources of the blob store's contract suite share. */
#ifndef BLOBD_TESTS_BLOB_CONTRACT_PARTS_H
#define BLOBD_TESTS_BLOB_CONTRACT_PARTS_H

#include "tests/contract/blob_store_contract.h"

/* The contract in use. */
const struct blob_contract *blob_contract(void);
/* Opens; a failure ends the test. */
struct blob_store *blob_contract_open(void);
/* The same on an emptied store. */
struct blob_store *blob_contract_start(void);
void blob_contract_sleep_ms(long ms);

/* Content to upload: bytes that depend on seed and position only. */
void content_fill(char *buf, size_t len, uint64_t offset, unsigned seed);
void content_digest(uint64_t size, unsigned seed, struct digest *out);
/* Writes content [position, end) in pieces of at most `piece`. */
enum blob_status content_write(struct blob_writer *w, uint64_t end, size_t piece, unsigned seed) BLOB_MUST_CHECK;
/* One upload from start to blob; its digest. */
enum blob_status content_store(struct blob_store *s, uint64_t size, unsigned seed, unsigned flags,
                               struct digest *out) BLOB_MUST_CHECK;
/* The blob is there, and reads back as this content. */
bool content_intact(struct blob_store *s, uint64_t size, unsigned seed);
/* A writer from a mark; a failure ends the test. */
struct blob_writer *writer_at(struct blob_store *s, const struct uuid *id, const struct upload_mark *mark,
                              uint64_t epoch);
bool upload_gone(struct blob_store *s, const struct uuid *id);

void contract_upload_whole(void);
void contract_upload_sizes(void);
void contract_upload_empty(void);
void contract_upload_resume(void);
void contract_upload_rollback(void);
void contract_upload_part_flushed(void);
void contract_upload_beyond(void);
void contract_upload_unflushed(void);
void contract_upload_keep(void);
void contract_upload_stat(void);
void contract_upload_read(void);
void contract_upload_discard(void);
void contract_upload_discard_under_writer(void);
void contract_upload_list(void);
void contract_upload_commit_again(void);
void contract_upload_flush_beside_write(void);
void contract_upload_parallel(void);
void contract_upload_contended(void);
void contract_upload_late(void);
void contract_upload_reopen(void);

void contract_blob_missing(void);
void contract_blob_ranges(void);
void contract_blob_cursors(void);
void contract_blob_fd(void);
void contract_blob_dedupe(void);
void contract_blob_heals(void);
void contract_blob_heals_unnoticed(void);
void contract_blob_heals_noticed(void);
void contract_blob_set_aside(void);
void contract_blob_set_aside_open(void);
void contract_blob_set_aside_again(void);
void contract_blob_touch(void);
void contract_blob_touch_tells(void);
void contract_blob_remove(void);
void contract_blob_remove_open(void);
void contract_blob_list(void);
void contract_blob_list_removing(void);
void contract_blob_commit_beside_remove(void);
void contract_blob_nodes(void);
void contract_blob_lazy(void);

void contract_record_put(void);
void contract_record_bounds(void);
void contract_record_if_none(void);
void contract_record_delete(void);
void contract_record_order(void);
void contract_record_pages(void);
void contract_record_list_values(void);
void contract_record_list_removing(void);
void contract_record_lazy(void);
void contract_record_if_none_race(void);
void contract_record_whole(void);
void contract_record_many(void);

#endif
