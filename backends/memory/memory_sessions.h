/*
 * memory_sessions - the session contract in memory: the reference implementation, for tests. Keeps nothing.
 *
 * Stores opened on one hub share it as nodes of a cluster share Redis, so that one test process can play several
 * nodes; the hub can fail as Redis does. A store opened without a hub is on its own, like the embedded one.
 *
 *     struct memory_hub *hub = memory_hub_new();
 *     struct session_store *a = memory_sessions_open(hub), *b = memory_sessions_open(hub);
 *
 * Threads: any. Ownership: a hub outlives its stores. Errors: no memory is fatal (CHECK).
 */
#ifndef BLOBD_BACKENDS_MEMORY_MEMORY_SESSIONS_H
#define BLOBD_BACKENDS_MEMORY_MEMORY_SESSIONS_H

#include "core/session_store.h"

struct memory_hub;

struct memory_hub *memory_hub_new(void);
/* Every store on it is closed. */
void memory_hub_free(struct memory_hub *hub);
/* While down, everything answers UNAVAILABLE and announcements are lost. */
void memory_hub_set_down(struct memory_hub *hub, bool down);
/* As FLUSHALL: sessions, leases, the index and what nodes said of themselves are gone. */
void memory_hub_empty(struct memory_hub *hub);
/* Forgets the last replace of this session, as a failover that lost a second does. False: there is none to forget. */
bool memory_hub_roll_back(struct memory_hub *hub, const struct uuid *id);

/* hub NULL: a store of its own, without SESSIONS_SHARED. Closed with session_store_close(). */
struct session_store *memory_sessions_open(struct memory_hub *hub);

#endif
