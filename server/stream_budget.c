/*
 * stream_budget - two lists: who rests, oldest first, and who waits, in order of coming. Whenever bytes come back, or
 * somebody begins to rest or to wait, the first who waits is served as far as that goes (serve()); so nobody has to
 * look again after a time.
 *
 * What somebody was asked to give back counts as good as free for this (coming): else one who waits would have
 * everybody trimmed before the first has answered.
 */
#include "server/stream_budget.h"

#include "core/check.h"

#include <pthread.h>
#include <stdlib.h>

#define SLOW_PIECE_MAX ((size_t)64 << 10)
#define GRAIN          ((size_t)4096)

struct stream_budget {
    pthread_mutex_t lock;
    /* Guarded by it. */
    size_t bytes;
    size_t held, coming;
    size_t quick, slow; /* shares that hold something */
    size_t waits;       /* shares that wait */
    bool shut;
    TAILQ_HEAD(, stream_share) resting, waiting;
};

struct stream_budget *stream_budget_new(size_t bytes)
{
    struct stream_budget *b = calloc(1, sizeof *b);
    if (b == NULL)
        return NULL;
    b->bytes = bytes;
    TAILQ_INIT(&b->resting);
    TAILQ_INIT(&b->waiting);
    CHECK(pthread_mutex_init(&b->lock, NULL) == 0);
    return b;
}

void stream_budget_free(struct stream_budget *b)
{
    if (b == NULL)
        return;
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* ---- with the lock held ---- */

static size_t *count_of(struct stream_budget *b, const struct stream_share *share)
{
    return share->slow ? &b->slow : &b->quick;
}

static void set_held(struct stream_budget *b, struct stream_share *share, size_t held)
{
    b->held = b->held - share->held + held;
    *count_of(b, share) += (size_t)(held > 0) - (size_t)(share->held > 0);
    share->held = held;
}

static void unrest(struct stream_budget *b, struct stream_share *share)
{
    if (!share->resting)
        return;
    TAILQ_REMOVE(&b->resting, share, rest_link);
    share->resting = false;
}

static void unwait(struct stream_budget *b, struct stream_share *share)
{
    if (!share->waiting)
        return;
    TAILQ_REMOVE(&b->waiting, share, wait_link);
    share->waiting = false;
    b->waits--;
}

static void no_longer_coming(struct stream_budget *b, struct stream_share *share, size_t bytes)
{
    share->coming -= bytes;
    b->coming -= bytes;
}

static void grant(struct stream_budget *b, struct stream_share *share, size_t bytes)
{
    unwait(b, share);
    set_held(b, share, share->held + bytes);
    share->granted = bytes;
    share->told++;
    share->grant(share);
}

static void trim(struct stream_budget *b, struct stream_share *share)
{
    unrest(b, share);
    share->trimming = true;
    share->coming = share->held;
    b->coming += share->coming;
    share->told++;
    share->trim(share);
}

/* Has those who have rested longest give theirs back, until so much will be free. Not the one who asks. */
static void press(struct stream_budget *b, const struct stream_share *asks, size_t wanted)
{
    struct stream_share *share = TAILQ_FIRST(&b->resting);
    while (share != NULL && b->bytes - b->held + b->coming < wanted) {
        struct stream_share *next = TAILQ_NEXT(share, rest_link);
        if (share != asks)
            trim(b, share);
        share = next;
    }
}

/* What there is of what is wanted; 0: too little. */
static size_t what_fits(const struct stream_budget *b, size_t want, size_t least)
{
    size_t spare = b->bytes - b->held;
    if (spare >= want)
        return want;
    return spare >= least ? (spare / GRAIN * GRAIN > least ? spare / GRAIN * GRAIN : least) : 0;
}

static void serve(struct stream_budget *b)
{
    struct stream_share *share;
    while (!b->shut && (share = TAILQ_FIRST(&b->waiting)) != NULL) {
        if (b->bytes - b->held < share->want)
            press(b, share, share->slow ? share->want : 2 * share->want); /* a quick one will want as much again */
        bool more_comes = b->bytes - b->held < share->want && b->coming > 0;
        size_t bytes = more_comes ? 0 : what_fits(b, share->want, share->least);
        if (bytes == 0)
            return;
        grant(b, share, bytes);
    }
}

/* ---- what the owners call ---- */

void stream_budget_shut(struct stream_budget *b)
{
    struct stream_share *share;
    pthread_mutex_lock(&b->lock);
    b->shut = true;
    while ((share = TAILQ_FIRST(&b->waiting)) != NULL)
        grant(b, share, 0);
    pthread_mutex_unlock(&b->lock);
}

static size_t within(size_t value, size_t least, size_t most)
{
    if (value > most)
        return most;
    return value < least ? least : value;
}

size_t stream_budget_piece(struct stream_budget *b, const struct stream_share *share)
{
    pthread_mutex_lock(&b->lock);
    size_t quick = b->quick + (!share->slow && share->held == 0);
    size_t all = b->quick + b->slow + (share->held == 0);
    size_t half = b->bytes / 2, bytes = b->bytes;
    pthread_mutex_unlock(&b->lock);
    if (share->slow)
        return within(half / all, STREAM_PIECE_MIN, SLOW_PIECE_MAX);
    return within(half / quick, bytes < 2 * SLOW_PIECE_MAX ? STREAM_PIECE_MIN : SLOW_PIECE_MAX, STREAM_PIECE_MAX);
}

void stream_budget_set_slow(struct stream_budget *b, struct stream_share *share, bool slow)
{
    pthread_mutex_lock(&b->lock);
    size_t holds = share->held > 0;
    *count_of(b, share) -= holds;
    share->slow = slow;
    *count_of(b, share) += holds;
    pthread_mutex_unlock(&b->lock);
}

static enum stream_answer ask(struct stream_budget *b, struct stream_share *share, enum stream_need need, size_t *got)
{
    *got = 0;
    if (b->shut)
        return STREAM_REFUSED;
    if (TAILQ_EMPTY(&b->waiting))
        *got = what_fits(b, share->want, need == STREAM_IF_FREE ? share->least : share->want);
    if (*got > 0) {
        set_held(b, share, share->held + *got);
        return STREAM_TAKEN;
    }
    if (need == STREAM_IF_FREE || (need == STREAM_BEGINS && (b->waits + 1) * STREAM_PIECE_MIN > b->bytes))
        return STREAM_REFUSED;
    share->waiting = true;
    b->waits++;
    TAILQ_INSERT_TAIL(&b->waiting, share, wait_link);
    serve(b);
    return STREAM_WAITS;
}

enum stream_answer stream_budget_ask(struct stream_budget *b, struct stream_share *share, enum stream_need need,
                                     size_t want, size_t least, size_t *got)
{
    CHECK(!share->waiting && want > 0);
    pthread_mutex_lock(&b->lock);
    share->want = want < b->bytes ? want : b->bytes;
    share->least = least < share->want ? least : share->want;
    enum stream_answer answer = ask(b, share, need, got);
    pthread_mutex_unlock(&b->lock);
    return answer;
}

size_t stream_budget_granted(struct stream_budget *b, struct stream_share *share)
{
    pthread_mutex_lock(&b->lock);
    share->told--;
    size_t bytes = share->granted;
    share->granted = 0;
    pthread_mutex_unlock(&b->lock);
    return bytes;
}

bool stream_budget_forget(struct stream_budget *b, struct stream_share *share)
{
    pthread_mutex_lock(&b->lock);
    bool waited = share->waiting;
    unwait(b, share);
    if (waited)
        serve(b);
    pthread_mutex_unlock(&b->lock);
    return waited;
}

void stream_budget_give(struct stream_budget *b, struct stream_share *share, size_t bytes)
{
    pthread_mutex_lock(&b->lock);
    CHECK(share->held >= bytes);
    no_longer_coming(b, share, bytes < share->coming ? bytes : share->coming);
    set_held(b, share, share->held - bytes);
    if (share->held == 0)
        unrest(b, share);
    serve(b);
    pthread_mutex_unlock(&b->lock);
}

void stream_budget_rest(struct stream_budget *b, struct stream_share *share)
{
    pthread_mutex_lock(&b->lock);
    unrest(b, share);
    if (share->held > 0 && !share->trimming) {
        TAILQ_INSERT_TAIL(&b->resting, share, rest_link);
        share->resting = true;
        serve(b);
    }
    pthread_mutex_unlock(&b->lock);
}

void stream_budget_busy(struct stream_budget *b, struct stream_share *share)
{
    pthread_mutex_lock(&b->lock);
    unrest(b, share);
    pthread_mutex_unlock(&b->lock);
}

void stream_budget_trimmed(struct stream_budget *b, struct stream_share *share)
{
    pthread_mutex_lock(&b->lock);
    share->told--;
    share->trimming = false;
    no_longer_coming(b, share, share->coming);
    serve(b);
    pthread_mutex_unlock(&b->lock);
}

bool stream_budget_leave(struct stream_budget *b, struct stream_share *share)
{
    pthread_mutex_lock(&b->lock);
    unrest(b, share);
    bool waited = share->waiting;
    unwait(b, share);
    bool left = share->told == 0;
    CHECK(!left || share->held == 0);
    if (waited)
        serve(b);
    pthread_mutex_unlock(&b->lock);
    return left;
}
