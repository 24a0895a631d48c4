/* session_contract_parts - what the two sources of the session store's contract suite share. */
#ifndef BLOBD_TESTS_SESSION_CONTRACT_PARTS_H
#define BLOBD_TESTS_SESSION_CONTRACT_PARTS_H

#include "core/session_store.h"

#define CONTRACT_STORE_ID "5f0e0a36-0000-4000-8000-000000000000"

/* Opens and joins; a failure ends the test. */
struct session_store *contract_open(const char *node_id);
/* The same on an emptied store, as node-a. */
struct session_store *contract_start(void);
bool contract_persists(void);
void contract_sleep_ms(long ms);

void contract_index_orders(void);
void contract_index_pages(void);
void contract_index_search(void);
void contract_index_owner(void);
void contract_index_replace(void);
void contract_index_with_session(void);
void contract_index_before_session(void);
void contract_index_fields(void);
void contract_index_callback(void);
void contract_index_expired(void);
void contract_index_recent(void);
void contract_index_whole(void);
void contract_index_rebuild(void);
void contract_index_reopen(void);
void contract_index_threads(void);

#endif
