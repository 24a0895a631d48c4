/*
 * stream_budget - the memory that downloads from a remote store have between them. It is bytes that are bounded, not
 * downloads: a client that takes nothing holds nothing as soon as somebody else needs it.
 *
 * Whoever wants bytes and finds none free waits, first come first served; meanwhile those who have rested longest are
 * asked to give theirs back (trim). One rests who holds bytes and has nothing under way: all that could be done was
 * done, and it is its client's turn. So one waits only while all that is held is in use; and nobody new is let in where
 * so many wait that the least that each could do with comes to all there is.
 *
 * How much one should ask for: those who are quick share all of it, two pieces each; those who were asked to give
 * theirs back are not taken for quick any more, and get by on little until they prove to be.
 *
 * Threads: any. Ownership: a share is its owner's, and borrowed until stream_budget_leave() has returned true. Its
 * calls come from one thread at a time.
 */
#ifndef BLOBD_SERVER_STREAM_BUDGET_H
#define BLOBD_SERVER_STREAM_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#define STREAM_PIECE_MAX ((size_t)1 << 20)
#define STREAM_PIECE_MIN ((size_t)16 << 10)

struct stream_budget;

struct stream_share {
    /* Called with the budget's lock held, on any thread: they tell the owner, and do nothing else. */
    void (*trim)(struct stream_share *share);  /* give back what can be; then stream_budget_trimmed() */
    void (*grant)(struct stream_share *share); /* what was waited for is there: stream_budget_granted() */

    /* The budget's. */
    bool slow, waiting, resting, trimming;
    size_t held, coming; /* of held, what it was asked to give back */
    size_t want, least;  /* while waiting */
    size_t granted;
    unsigned told; /* calls of trim and grant that the owner has not answered yet */
    TAILQ_ENTRY(stream_share) rest_link, wait_link;
};

enum stream_answer { STREAM_TAKEN, STREAM_WAITS, STREAM_REFUSED };

enum stream_need {
    STREAM_IF_FREE, /* now or not at all */
    STREAM_BEGINS,  /* may be refused */
    STREAM_MUST,    /* waits; refused only once the budget is shut */
};

struct stream_budget *stream_budget_new(size_t bytes); /* NULL: out of memory */
void stream_budget_free(struct stream_budget *budget); /* NULL is fine */
/* The server ends: whoever waits is granted nothing, and nobody is told anything any more. */
void stream_budget_shut(struct stream_budget *budget);

/* The largest piece that it should ask for now. */
size_t stream_budget_piece(struct stream_budget *budget, const struct stream_share *share);
/* Not slow at first. */
void stream_budget_set_slow(struct stream_budget *budget, struct stream_share *share, bool slow);

/* Takes want bytes, or fewer, but at least least: *got where TAKEN. Not while it waits. */
enum stream_answer stream_budget_ask(struct stream_budget *budget, struct stream_share *share, enum stream_need need,
                                     size_t want, size_t least, size_t *got);
/* After grant: how many bytes are its own now; 0: the budget was shut. */
size_t stream_budget_granted(struct stream_budget *budget, struct stream_share *share);
/* Waits no more. False: it did not wait, or was granted it already. */
bool stream_budget_forget(struct stream_budget *budget, struct stream_share *share);
void stream_budget_give(struct stream_budget *budget, struct stream_share *share, size_t bytes);

/* It is its client's turn; again, when its client has taken something. */
void stream_budget_rest(struct stream_budget *budget, struct stream_share *share);
/* What it holds is in use. */
void stream_budget_busy(struct stream_budget *budget, struct stream_share *share);
/* After trim: it has given back what it can. */
void stream_budget_trimmed(struct stream_budget *budget, struct stream_share *share);

/* It ends, and has given everything back. False: trim or grant was called and not answered yet. */
bool stream_budget_leave(struct stream_budget *budget, struct stream_share *share);

#endif
