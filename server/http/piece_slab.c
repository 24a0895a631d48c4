/*
 * piece_slab - slots with a bit a unit, on three lists.
 *
 * A slot is on the list `warm` (free, its pages may be there), `cold` (free, no pages), or `partial` (lent in part), or
 * on none (lent whole). opened counts the slots of which something is lent; touched those and the warm ones. touched is
 * at most the limit, but for slots that were lent when the limit fell.
 */
#include "server/http/piece_slab.h"

#include "core/check.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/queue.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes)   ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

#define SLOT_BYTES  (PIECE_SLOT_UNITS * PIECE_UNIT_BYTES)
#define SEVERAL     4  /* of a rank, or it is not lent at all */
#define SLOTS_TRIED 16 /* in search of a middle piece between small ones */

static const unsigned rank_units[] = {[PIECE_SMALL] = 1, [PIECE_MIDDLE] = 4, [PIECE_LARGE] = PIECE_SLOT_UNITS};

struct slot {
    TAILQ_ENTRY(slot) link;
    uint16_t lent, exists; /* a bit a unit; a slab of less than a slot has not all */
};
TAILQ_HEAD(slot_list, slot);

struct piece_slab {
    uint8_t *memory;
    size_t slot_count, limit, opened, touched, partials;
    enum piece_rank largest;
    struct slot_list warm, cold, partial;
    struct slot slots[];
};

size_t piece_rank_bytes(enum piece_rank rank)
{
    return rank_units[rank] * PIECE_UNIT_BYTES;
}

size_t piece_slab_slots(const struct piece_slab *slab)
{
    return slab->slot_count;
}

uint8_t *piece_slab_memory(const struct piece_slab *slab, size_t unit)
{
    return slab->memory + unit * PIECE_UNIT_BYTES;
}

static uint16_t rank_mask(enum piece_rank rank)
{
    return (uint16_t)((1u << rank_units[rank]) - 1);
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static enum piece_rank largest_of(size_t units)
{
    if (units >= (size_t)SEVERAL * rank_units[PIECE_LARGE])
        return PIECE_LARGE;
    return units >= (size_t)SEVERAL * rank_units[PIECE_MIDDLE] ? PIECE_MIDDLE : PIECE_SMALL;
}

enum blob_status piece_slab_new(size_t max_bytes, struct piece_slab **out, struct blob_error *err)
{
    size_t units = max_bytes / PIECE_UNIT_BYTES, count = units / PIECE_SLOT_UNITS;
    if (units == 0)
        return blob_fail(err, BLOB_E_INVALID, 0, "body memory must be at least %zu bytes", PIECE_UNIT_BYTES);
    uint16_t exists = count > 0 ? UINT16_MAX : (uint16_t)((1u << units) - 1);
    count += count == 0;
    struct piece_slab *slab = calloc(1, sizeof *slab + count * sizeof slab->slots[0]);
    void *memory =
        mmap(NULL, count * SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!slab || memory == MAP_FAILED) {
        free(slab);
        if (memory != MAP_FAILED)
            munmap(memory, count * SLOT_BYTES);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for the body pool");
    }
    slab->memory = memory;
    slab->slot_count = slab->limit = count;
    slab->largest = largest_of(units);
    TAILQ_INIT(&slab->warm);
    TAILQ_INIT(&slab->cold);
    TAILQ_INIT(&slab->partial);
    for (size_t i = 0; i < count; i++) {
        slab->slots[i].exists = exists;
        TAILQ_INSERT_TAIL(&slab->cold, &slab->slots[i], link);
    }
    ASAN_POISON_MEMORY_REGION(memory, count * SLOT_BYTES);
    *out = slab;
    return BLOB_OK;
}

void piece_slab_free(struct piece_slab *slab)
{
    if (!slab)
        return;
    CHECK(slab->opened == 0);
    ASAN_UNPOISON_MEMORY_REGION(slab->memory, slab->slot_count * SLOT_BYTES);
    munmap(slab->memory, slab->slot_count * SLOT_BYTES);
    free(slab);
}

/* ---- free slots ------------------------------------------------------------------------------------------------- */

static uint8_t *slot_memory(const struct piece_slab *slab, const struct slot *slot)
{
    return slab->memory + (size_t)(slot - slab->slots) * SLOT_BYTES;
}

/* Lets the pages of free slots go, those unused longest first. */
static void cool_down(struct piece_slab *slab)
{
    struct slot *slot;
    while (slab->touched > slab->limit && (slot = TAILQ_LAST(&slab->warm, slot_list)) != NULL) {
        TAILQ_REMOVE(&slab->warm, slot, link);
        TAILQ_INSERT_HEAD(&slab->cold, slot, link);
        madvise(slot_memory(slab, slot), SLOT_BYTES, MADV_DONTNEED);
        slab->touched--;
    }
}

void piece_slab_limit(struct piece_slab *slab, size_t slots)
{
    CHECK(slots > 0);
    slab->limit = slots < slab->slot_count ? slots : slab->slot_count;
    cool_down(slab);
}

/* Takes a free slot off its list. NULL: there is none, or no more may be opened. */
static struct slot *slot_open(struct piece_slab *slab)
{
    if (slab->opened >= slab->limit)
        return NULL;
    struct slot_list *from = TAILQ_EMPTY(&slab->warm) ? &slab->cold : &slab->warm;
    struct slot *slot = TAILQ_FIRST(from);
    TAILQ_REMOVE(from, slot, link);
    slab->opened++;
    slab->touched += from == &slab->cold;
    return slot;
}

/* ---- pieces ----------------------------------------------------------------------------------------------------- */

/* Where in the slot a piece fits, as the number of its first unit; PIECE_SLOT_UNITS: nowhere. */
static unsigned slot_place(const struct slot *slot, enum piece_rank rank)
{
    unsigned at = 0, free_units = slot->exists & (unsigned)~slot->lent, mask = rank_mask(rank);
    while (at < PIECE_SLOT_UNITS && ((free_units >> at) & mask) != mask)
        at += rank_units[rank];
    return at;
}

static size_t slot_lend(struct piece_slab *slab, struct slot *slot, unsigned at, enum piece_rank rank)
{
    slot->lent |= (uint16_t)(rank_mask(rank) << at);
    if (slot->lent != slot->exists) {
        TAILQ_INSERT_HEAD(&slab->partial, slot, link);
        slab->partials++;
    }
    size_t unit = (size_t)(slot - slab->slots) * PIECE_SLOT_UNITS + at;
    ASAN_UNPOISON_MEMORY_REGION(piece_slab_memory(slab, unit), piece_rank_bytes(rank));
    return unit;
}

static size_t take_part(struct piece_slab *slab, enum piece_rank rank)
{
    struct slot *slot;
    int tries = SLOTS_TRIED;
    TAILQ_FOREACH(slot, &slab->partial, link)
    {
        unsigned at = slot_place(slot, rank);
        if (at < PIECE_SLOT_UNITS) {
            TAILQ_REMOVE(&slab->partial, slot, link);
            slab->partials--;
            return slot_lend(slab, slot, at, rank);
        }
        if (--tries == 0)
            break;
    }
    return PIECE_NONE;
}

static size_t take_exactly(struct piece_slab *slab, enum piece_rank rank)
{
    size_t unit = rank == PIECE_LARGE ? PIECE_NONE : take_part(slab, rank);
    if (unit != PIECE_NONE)
        return unit;
    struct slot *slot = slot_open(slab);
    return slot ? slot_lend(slab, slot, 0, rank) : PIECE_NONE;
}

size_t piece_slab_take(struct piece_slab *slab, enum piece_rank *rank)
{
    enum piece_rank smaller = *rank < slab->largest ? *rank : slab->largest;
    size_t unit = take_exactly(slab, smaller);
    /* Where half of the slots lie in parts, those may be held by clients that send nothing. */
    while (unit == PIECE_NONE && smaller > PIECE_SMALL && slab->partials * 2 >= slab->limit)
        unit = take_exactly(slab, --smaller);
    if (unit != PIECE_NONE)
        *rank = smaller;
    return unit;
}

void piece_slab_give(struct piece_slab *slab, size_t unit, enum piece_rank rank)
{
    struct slot *slot = &slab->slots[unit / PIECE_SLOT_UNITS];
    uint16_t mask = (uint16_t)(rank_mask(rank) << unit % PIECE_SLOT_UNITS);
    CHECK((slot->lent & mask) == mask);
    ASAN_POISON_MEMORY_REGION(piece_slab_memory(slab, unit), piece_rank_bytes(rank));
    bool was_partial = slot->lent != slot->exists;
    slot->lent &= (uint16_t)~mask;
    if (was_partial && slot->lent != 0)
        return;
    if (was_partial) {
        TAILQ_REMOVE(&slab->partial, slot, link);
        slab->partials--;
    }
    if (slot->lent != 0) {
        TAILQ_INSERT_HEAD(&slab->partial, slot, link);
        slab->partials++;
        return;
    }
    TAILQ_INSERT_HEAD(&slab->warm, slot, link);
    slab->opened--;
    cool_down(slab);
}
