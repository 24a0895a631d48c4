/*
 * piece_slab - one mapping, cut into pieces of three sizes.
 *
 * It consists of slots of 256 KiB. A slot is lent whole (PIECE_LARGE), or in parts of 64 (PIECE_MIDDLE) and 16 KiB
 * (PIECE_SMALL). Slots in use are filled up before another is opened, and of the free ones the last used is opened
 * first: as few pages as can be are touched, and those stay. Mapping and unmapping instead costs a page fault for
 * every 4 KiB received, which on a virtual machine is as much work as hashing them.
 *
 * Threads: none of its own; the caller holds a lock. Units: a unit is 16 KiB; pieces are named by their first unit.
 * Under AddressSanitizer what is not lent is poisoned.
 */
#ifndef BLOBD_SERVER_HTTP_PIECE_SLAB_H
#define BLOBD_SERVER_HTTP_PIECE_SLAB_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

#define PIECE_UNIT_BYTES ((size_t)16 << 10)
#define PIECE_SLOT_UNITS 16u
#define PIECE_NONE       SIZE_MAX

enum piece_rank { PIECE_SMALL, PIECE_MIDDLE, PIECE_LARGE };

struct piece_slab;

/* max_bytes: at least a unit; beyond a slot, rounded down to whole ones. Address space only: pages come with use. */
enum blob_status piece_slab_new(size_t max_bytes, struct piece_slab **out, struct blob_error *err) BLOB_MUST_CHECK;
/* Nothing is lent any more. */
void piece_slab_free(struct piece_slab *slab);

size_t piece_slab_slots(const struct piece_slab *slab);

/* At most so many slots (at least one) are opened from now on. What is free beyond them leaves the process at once,
 * what is lent when it comes back. */
void piece_slab_limit(struct piece_slab *slab, size_t slots);

/* A piece of *rank; of a smaller one, and *rank says so, where the slab is too small for several of that rank, or lies
 * in fragments that may stay so. PIECE_NONE: wait until something is given back. */
size_t piece_slab_take(struct piece_slab *slab, enum piece_rank *rank);
void piece_slab_give(struct piece_slab *slab, size_t unit, enum piece_rank rank);

uint8_t *piece_slab_memory(const struct piece_slab *slab, size_t unit);
size_t piece_rank_bytes(enum piece_rank rank);

#endif
