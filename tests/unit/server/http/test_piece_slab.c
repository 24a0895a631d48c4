/* piece_slab - pieces never overlap, slots are used sparingly, and what the limit takes leaves the process. */
#include "server/http/piece_slab.h"
#include "tests/rig/unit_main.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define SLOT_BYTES (PIECE_SLOT_UNITS * PIECE_UNIT_BYTES)
#define SLOTS      8u
#define HELD_MAX   (SLOTS * PIECE_SLOT_UNITS)

struct held {
    size_t unit;
    enum piece_rank rank;
    uint8_t mark;
};

static struct piece_slab *slab_of(size_t bytes)
{
    struct piece_slab *slab = NULL;
    CU_ASSERT_EQUAL_FATAL(piece_slab_new(bytes, &slab, NULL), BLOB_OK);
    return slab;
}

static struct held take(struct piece_slab *slab, enum piece_rank wanted)
{
    struct held h = {.rank = wanted};
    h.unit = piece_slab_take(slab, &h.rank);
    return h;
}

static void take_and_give(struct piece_slab *slab, struct held *held, size_t *count, uint8_t mark)
{
    if (rand() % 5 < 3 && *count < HELD_MAX) {
        struct held h = take(slab, (enum piece_rank)(rand() % 3));
        if (h.unit == PIECE_NONE)
            return;
        h.mark = mark;
        memset(piece_slab_memory(slab, h.unit), mark, piece_rank_bytes(h.rank));
        held[(*count)++] = h;
    } else if (*count > 0) {
        size_t i = (size_t)rand() % *count;
        const uint8_t *memory = piece_slab_memory(slab, held[i].unit);
        for (size_t at = 0; at < piece_rank_bytes(held[i].rank); at += 4096)
            CU_ASSERT_EQUAL_FATAL(memory[at], held[i].mark);
        piece_slab_give(slab, held[i].unit, held[i].rank);
        held[i] = held[--*count];
    }
}

static void test_no_overlap(void)
{
    struct piece_slab *slab = slab_of(SLOTS * SLOT_BYTES);
    struct held held[HELD_MAX];
    size_t count = 0;
    srand(1);
    for (int round = 0; round < 20000; round++) {
        if (round % 100 == 0)
            piece_slab_limit(slab, 1 + (size_t)rand() % SLOTS);
        take_and_give(slab, held, &count, (uint8_t)round);
    }
    while (count > 0) {
        count--;
        piece_slab_give(slab, held[count].unit, held[count].rank);
    }
    piece_slab_limit(slab, SLOTS);
    for (size_t i = 0; i < SLOTS; i++) {
        held[i] = take(slab, PIECE_LARGE);
        CU_ASSERT_EQUAL(held[i].rank, PIECE_LARGE);
        CU_ASSERT_NOT_EQUAL_FATAL(held[i].unit, PIECE_NONE);
    }
    CU_ASSERT_EQUAL(take(slab, PIECE_SMALL).unit, PIECE_NONE);
    for (size_t i = 0; i < SLOTS; i++)
        piece_slab_give(slab, held[i].unit, held[i].rank);
    piece_slab_free(slab);
}

static void test_fills_up(void)
{
    struct piece_slab *slab = slab_of(SLOTS * SLOT_BYTES);
    struct held small[PIECE_SLOT_UNITS + 1];
    for (unsigned i = 0; i <= PIECE_SLOT_UNITS; i++)
        small[i] = take(slab, PIECE_SMALL);
    for (unsigned i = 1; i < PIECE_SLOT_UNITS; i++)
        CU_ASSERT_EQUAL(small[i].unit / PIECE_SLOT_UNITS, small[0].unit / PIECE_SLOT_UNITS);
    CU_ASSERT_NOT_EQUAL(small[PIECE_SLOT_UNITS].unit / PIECE_SLOT_UNITS, small[0].unit / PIECE_SLOT_UNITS);
    for (unsigned i = 0; i <= PIECE_SLOT_UNITS; i++)
        piece_slab_give(slab, small[i].unit, small[i].rank);
    struct held large = take(slab, PIECE_LARGE);
    CU_ASSERT_EQUAL(large.unit / PIECE_SLOT_UNITS, small[PIECE_SLOT_UNITS].unit / PIECE_SLOT_UNITS); /* the warmest */
    piece_slab_give(slab, large.unit, large.rank);
    piece_slab_free(slab);
}

static unsigned resident_pages(const struct piece_slab *slab, size_t unit)
{
    unsigned char in_core[SLOT_BYTES / 4096];
    unsigned pages = 0;
    CU_ASSERT_EQUAL_FATAL(mincore(piece_slab_memory(slab, unit), SLOT_BYTES, in_core), 0);
    for (size_t i = 0; i < sizeof in_core; i++)
        pages += in_core[i] & 1;
    return pages;
}

static void test_limit(void)
{
    struct piece_slab *slab = slab_of(SLOTS * SLOT_BYTES);
    struct held a = take(slab, PIECE_LARGE), b = take(slab, PIECE_LARGE), c = take(slab, PIECE_LARGE);
    memset(piece_slab_memory(slab, a.unit), 1, SLOT_BYTES);
    memset(piece_slab_memory(slab, b.unit), 1, SLOT_BYTES);
    memset(piece_slab_memory(slab, c.unit), 1, SLOT_BYTES);
    piece_slab_give(slab, a.unit, a.rank);
    CU_ASSERT_EQUAL(resident_pages(slab, a.unit), SLOT_BYTES / 4096);
    piece_slab_limit(slab, 1);
    CU_ASSERT_EQUAL(resident_pages(slab, a.unit), 0);
    CU_ASSERT_EQUAL(take(slab, PIECE_SMALL).unit, PIECE_NONE);
    piece_slab_give(slab, b.unit, b.rank);
    CU_ASSERT_EQUAL(resident_pages(slab, b.unit), 0);
    CU_ASSERT_EQUAL(take(slab, PIECE_SMALL).unit, PIECE_NONE);
    piece_slab_give(slab, c.unit, c.rank);
    CU_ASSERT_EQUAL(resident_pages(slab, c.unit), SLOT_BYTES / 4096);
    struct held again = take(slab, PIECE_SMALL);
    CU_ASSERT_EQUAL(again.unit, c.unit);
    piece_slab_give(slab, again.unit, again.rank);
    piece_slab_free(slab);
}

/* Clients that send nothing hold a small piece of every slot: the others get small ones too, and do not wait for ever.
 */
static void test_fragments(void)
{
    struct piece_slab *slab = slab_of(SLOTS * SLOT_BYTES);
    struct held small[HELD_MAX];
    for (size_t i = 0; i < HELD_MAX; i++)
        small[i] = take(slab, PIECE_SMALL);
    for (size_t i = 0; i < HELD_MAX; i++) {
        if (i % PIECE_SLOT_UNITS != 3)
            piece_slab_give(slab, small[i].unit, small[i].rank);
    }
    struct held middle = take(slab, PIECE_LARGE);
    CU_ASSERT_EQUAL(middle.rank, PIECE_MIDDLE);
    CU_ASSERT_NOT_EQUAL_FATAL(middle.unit, PIECE_NONE);
    piece_slab_give(slab, middle.unit, middle.rank);
    for (size_t i = 3; i < HELD_MAX; i += PIECE_SLOT_UNITS)
        piece_slab_give(slab, small[i].unit, small[i].rank);
    piece_slab_free(slab);
}

static void test_tiny(void)
{
    struct blob_error err;
    struct piece_slab *slab = NULL;
    CU_ASSERT_EQUAL(piece_slab_new(PIECE_UNIT_BYTES - 1, &slab, &err), BLOB_E_INVALID);
    CU_ASSERT_PTR_NULL(slab);
    slab = slab_of(2 * PIECE_UNIT_BYTES);
    struct held a = take(slab, PIECE_LARGE), b = take(slab, PIECE_MIDDLE);
    CU_ASSERT_EQUAL(a.rank, PIECE_SMALL);
    CU_ASSERT_EQUAL(b.rank, PIECE_SMALL);
    CU_ASSERT_EQUAL(take(slab, PIECE_SMALL).unit, PIECE_NONE);
    piece_slab_give(slab, a.unit, a.rank);
    piece_slab_give(slab, b.unit, b.rank);
    piece_slab_free(slab);
}

int main(void)
{
    CU_TestInfo tests[] = {{"pieces lent at once never overlap, and a slot given back is whole again", test_no_overlap},
                           {"a slot is filled up before another is opened, and the warmest comes first", test_fills_up},
                           {"what the limit takes away leaves the process", test_limit},
                           {"where slots lie in fragments, smaller pieces are lent", test_fragments},
                           {"a slab of less than a slot lends what it has", test_tiny},
                           CU_TEST_INFO_NULL};
    return unit_main("piece_slab", tests);
}
