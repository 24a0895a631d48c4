/* stream_budget - who rests makes room for who wants, the longest at rest first; nobody holds more than there is, and
 * nobody waits for ever. */
#include "server/stream_budget.h"
#include "tests/rig/unit_main.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KIB ((size_t)1024)

struct owner {
    struct stream_share share; /* first */
    atomic_uint trims, grants;
};

static void note_trim(struct stream_share *share)
{
    atomic_fetch_add(&((struct owner *)share)->trims, 1);
}

static void note_grant(struct stream_share *share)
{
    atomic_fetch_add(&((struct owner *)share)->grants, 1);
}

static void owners_init(struct owner *owners, size_t count)
{
    memset(owners, 0, count * sizeof *owners);
    for (size_t i = 0; i < count; i++) {
        owners[i].share.trim = note_trim;
        owners[i].share.grant = note_grant;
    }
}

static size_t take(struct stream_budget *b, struct owner *o, enum stream_need need, size_t want, size_t least)
{
    size_t got = 0;
    return stream_budget_ask(b, &o->share, need, want, least, &got) == STREAM_TAKEN ? got : 0;
}

static void give_all(struct stream_budget *b, struct owner *o)
{
    stream_budget_give(b, &o->share, o->share.held);
}

/* What an owner does that was told to make room. */
static void obey(struct stream_budget *b, struct owner *o)
{
    give_all(b, o);
    stream_budget_set_slow(b, &o->share, true);
    stream_budget_trimmed(b, &o->share);
}

static void test_room(void)
{
    struct stream_budget *b = stream_budget_new(1024 * KIB);
    struct owner o[4];
    size_t got;
    owners_init(o, 4);
    for (size_t i = 0; i < 2; i++)
        CU_ASSERT_EQUAL(take(b, &o[i], STREAM_BEGINS, 512 * KIB, 16 * KIB), 512 * KIB);
    CU_ASSERT_EQUAL(take(b, &o[2], STREAM_IF_FREE, 16 * KIB, 16 * KIB), 0);
    /* Both are busy: whoever comes waits, and the first to rest is told. */
    CU_ASSERT_EQUAL(stream_budget_ask(b, &o[2].share, STREAM_BEGINS, 300 * KIB, 16 * KIB, &got), STREAM_WAITS);
    CU_ASSERT_EQUAL(o[0].trims + o[1].trims + o[2].grants, 0);
    stream_budget_rest(b, &o[1].share);
    CU_ASSERT_EQUAL(o[1].trims, 1);
    stream_budget_rest(b, &o[1].share); /* it was told already */
    CU_ASSERT_EQUAL(o[1].trims, 1);
    CU_ASSERT_EQUAL(o[2].grants, 0);
    obey(b, &o[1]);
    CU_ASSERT_EQUAL(o[2].grants, 1);
    CU_ASSERT_EQUAL(stream_budget_granted(b, &o[2].share), 300 * KIB);
    CU_ASSERT_EQUAL(o[0].trims, 0);
    /* What is free is had at once, and less than was wanted where the rest is in use. */
    CU_ASSERT_EQUAL(take(b, &o[3], STREAM_IF_FREE, 300 * KIB, 100 * KIB), 212 * KIB);
    CU_ASSERT_EQUAL(take(b, &o[1], STREAM_IF_FREE, 16 * KIB, 16 * KIB), 0);
    for (size_t i = 0; i < 4; i++) {
        give_all(b, &o[i]);
        CU_ASSERT_TRUE(stream_budget_leave(b, &o[i].share));
    }
    stream_budget_free(b);
}

static void test_oldest_first(void)
{
    struct stream_budget *b = stream_budget_new(1024 * KIB);
    struct owner o[9];
    size_t got;
    owners_init(o, 9);
    for (size_t i = 0; i < 8; i++) {
        CU_ASSERT_EQUAL(take(b, &o[i], STREAM_BEGINS, 128 * KIB, 16 * KIB), 128 * KIB);
        stream_budget_rest(b, &o[i].share);
    }
    stream_budget_rest(b, &o[0].share); /* its client took something */
    stream_budget_set_slow(b, &o[8].share, true);
    CU_ASSERT_EQUAL(stream_budget_ask(b, &o[8].share, STREAM_MUST, 200 * KIB, 16 * KIB, &got), STREAM_WAITS);
    for (size_t i = 0; i < 8; i++)
        CU_ASSERT_EQUAL(o[i].trims, i == 1 || i == 2);
    /* One that goes on in the meantime may keep what it has; then the next is told. */
    obey(b, &o[1]);
    CU_ASSERT_EQUAL(o[8].grants, 0);
    stream_budget_trimmed(b, &o[2].share);
    CU_ASSERT_EQUAL(o[3].trims, 1);
    obey(b, &o[3]);
    CU_ASSERT_EQUAL(o[8].grants, 1);
    CU_ASSERT_EQUAL(stream_budget_granted(b, &o[8].share), 200 * KIB);
    for (size_t i = 0; i < 9; i++) {
        give_all(b, &o[i]);
        CU_ASSERT_TRUE(stream_budget_leave(b, &o[i].share));
    }
    stream_budget_free(b);
}

static void test_refusal(void)
{
    struct stream_budget *b = stream_budget_new(64 * KIB);
    struct owner o[8];
    size_t got;
    owners_init(o, 8);
    CU_ASSERT_EQUAL(take(b, &o[0], STREAM_BEGINS, 1024 * KIB, 16 * KIB), 64 * KIB);
    for (size_t i = 1; i < 5; i++)
        CU_ASSERT_EQUAL(stream_budget_ask(b, &o[i].share, STREAM_BEGINS, 16 * KIB, 16 * KIB, &got), STREAM_WAITS);
    CU_ASSERT_EQUAL(stream_budget_ask(b, &o[5].share, STREAM_BEGINS, 16 * KIB, 16 * KIB, &got), STREAM_REFUSED);
    /* One that has begun is never refused, until the end. */
    CU_ASSERT_EQUAL(stream_budget_ask(b, &o[5].share, STREAM_MUST, 16 * KIB, 16 * KIB, &got), STREAM_WAITS);
    CU_ASSERT_TRUE(stream_budget_forget(b, &o[1].share));
    CU_ASSERT_FALSE(stream_budget_forget(b, &o[1].share));
    stream_budget_shut(b);
    for (size_t i = 2; i < 6; i++) {
        CU_ASSERT_EQUAL(o[i].grants, 1);
        CU_ASSERT_FALSE(stream_budget_leave(b, &o[i].share));
        CU_ASSERT_EQUAL(stream_budget_granted(b, &o[i].share), 0);
        CU_ASSERT_TRUE(stream_budget_leave(b, &o[i].share));
    }
    CU_ASSERT_EQUAL(stream_budget_ask(b, &o[6].share, STREAM_MUST, 16 * KIB, 16 * KIB, &got), STREAM_REFUSED);
    stream_budget_rest(b, &o[0].share);
    CU_ASSERT_EQUAL(o[0].trims, 0);
    give_all(b, &o[0]);
    CU_ASSERT_TRUE(stream_budget_leave(b, &o[0].share));
    stream_budget_free(b);
}

/* A thousand that take nothing leave one that does nearly all of it. */
static void test_pieces(void)
{
    struct stream_budget *b = stream_budget_new(8192 * KIB);
    struct owner *o = calloc(1001, sizeof *o);
    owners_init(o, 1001);
    CU_ASSERT_EQUAL(stream_budget_piece(b, &o[0].share), STREAM_PIECE_MAX);
    for (size_t i = 0; i < 128; i++)
        CU_ASSERT_EQUAL(take(b, &o[i], STREAM_BEGINS, 64 * KIB, 16 * KIB), 64 * KIB);
    CU_ASSERT_EQUAL(stream_budget_piece(b, &o[0].share), 64 * KIB);
    for (size_t i = 0; i < 128; i++) {
        stream_budget_set_slow(b, &o[i].share, true);
        CU_ASSERT_TRUE(stream_budget_piece(b, &o[i].share) >= STREAM_PIECE_MIN);
        CU_ASSERT_TRUE(stream_budget_piece(b, &o[i].share) <= 64 * KIB);
    }
    CU_ASSERT_EQUAL(stream_budget_piece(b, &o[1000].share), STREAM_PIECE_MAX);
    for (size_t i = 0; i < 128; i++)
        give_all(b, &o[i]);
    stream_budget_free(b);
    free(o);
}

/* ---- many at once, each on a thread of its own ---- */

struct crowd {
    struct stream_budget *budget;
    struct owner *owners;
    atomic_size_t held, most;
    atomic_uint rounds;
};

struct member {
    struct crowd *crowd;
    struct owner *owner;
    unsigned trimmed, granted;
    size_t mine;
    pthread_t thread;
};

static void member_has(struct member *m, size_t bytes)
{
    m->mine += bytes;
    size_t now = atomic_fetch_add(&m->crowd->held, bytes) + bytes, most = atomic_load(&m->crowd->most);
    while (now > most && !atomic_compare_exchange_weak(&m->crowd->most, &most, now))
        continue;
}

static void member_gives(struct member *m)
{
    atomic_fetch_sub(&m->crowd->held, m->mine);
    stream_budget_give(m->crowd->budget, &m->owner->share, m->mine);
    m->mine = 0;
}

static void member_hears(struct member *m)
{
    if (atomic_load(&m->owner->trims) > m->trimmed) {
        m->trimmed++;
        member_gives(m);
        stream_budget_trimmed(m->crowd->budget, &m->owner->share);
    }
}

static void *member_run(void *arg)
{
    struct member *m = arg;
    struct stream_budget *b = m->crowd->budget;
    for (unsigned round = 0; round < 3000; round++) {
        size_t got;
        enum stream_answer answer = stream_budget_ask(b, &m->owner->share, STREAM_MUST, 48 * KIB, 16 * KIB, &got);
        CU_ASSERT(answer != STREAM_REFUSED);
        if (answer == STREAM_WAITS) {
            while (atomic_load(&m->owner->grants) == m->granted)
                member_hears(m);
            m->granted++;
            got = stream_budget_granted(b, &m->owner->share);
        }
        member_has(m, got);
        stream_budget_rest(b, &m->owner->share); /* until it is told, or has enough */
        if (round % 2 == 0)
            continue;
        stream_budget_busy(b, &m->owner->share);
        member_gives(m);
        member_hears(m);
    }
    member_gives(m);
    while (!stream_budget_leave(b, &m->owner->share))
        member_hears(m);
    return NULL;
}

static void test_crowd(void)
{
    enum { MEMBERS = 6 };
    struct crowd crowd = {.budget = stream_budget_new(128 * KIB)};
    struct owner owners[MEMBERS];
    struct member members[MEMBERS];
    owners_init(owners, MEMBERS);
    for (size_t i = 0; i < MEMBERS; i++) {
        members[i] = (struct member){.crowd = &crowd, .owner = &owners[i]};
        pthread_create(&members[i].thread, NULL, member_run, &members[i]);
    }
    for (size_t i = 0; i < MEMBERS; i++)
        pthread_join(members[i].thread, NULL);
    CU_ASSERT_EQUAL(atomic_load(&crowd.held), 0);
    CU_ASSERT(atomic_load(&crowd.most) <= 128 * KIB && atomic_load(&crowd.most) > 64 * KIB);
    stream_budget_free(crowd.budget);
}

int main(void)
{
    CU_TestInfo tests[] = {{"who rests makes room, who is busy does not", test_room},
                           {"the longest at rest go first, and no more than needed", test_oldest_first},
                           {"who comes is refused where too many wait; who has begun is not", test_refusal},
                           {"slow ones leave the quick ones nearly all of it", test_pieces},
                           {"many at once stay within it, and all come to their end", test_crowd},
                           CU_TEST_INFO_NULL};
    return unit_main("stream_budget", tests);
}
