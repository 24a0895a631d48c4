/* auth_room - a small table, looked through under one lock: there are no more places than half of the workers. */
#include "server/auth/auth_room.h"

#include "core/check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ADDRESS_MAX 64

struct question {
    struct digest key;
    char address[ADDRESS_MAX];
    bool known;
};

struct auth_room {
    int64_t wait_ms;
    pthread_mutex_t lock; /* everything below */
    pthread_cond_t left;
    unsigned places, count, waiting;
    struct question *questions; /* count of them */
};

struct auth_room *auth_room_new(unsigned places, int64_t wait_ms)
{
    struct auth_room *r = calloc(1, sizeof *r);
    struct question *questions = calloc(places, sizeof *questions);
    if (r == NULL || questions == NULL) {
        free(questions);
        free(r);
        return NULL;
    }
    r->places = places;
    r->wait_ms = wait_ms;
    r->questions = questions;
    pthread_condattr_t steady;
    CHECK(pthread_mutex_init(&r->lock, NULL) == 0 && pthread_condattr_init(&steady) == 0);
    CHECK(pthread_condattr_setclock(&steady, CLOCK_MONOTONIC) == 0 && pthread_cond_init(&r->left, &steady) == 0);
    pthread_condattr_destroy(&steady);
    return r;
}

void auth_room_free(struct auth_room *r)
{
    if (r == NULL)
        return;
    CHECK(r->count == 0 && r->waiting == 0);
    pthread_cond_destroy(&r->left);
    pthread_mutex_destroy(&r->lock);
    free(r->questions);
    free(r);
}

static struct question *find(struct auth_room *r, const struct digest *key)
{
    for (unsigned i = 0; i < r->count; i++)
        if (digest_equal(&r->questions[i].key, key))
            return &r->questions[i];
    return NULL;
}

static bool has_place(const struct auth_room *r, const struct question *q)
{
    unsigned strangers = 0, same = 0, kept = r->places / 4;
    for (unsigned i = 0; i < r->count; i++) {
        strangers += !r->questions[i].known;
        same += !r->questions[i].known && strcmp(r->questions[i].address, q->address) == 0;
    }
    if (q->known)
        return r->count < r->places;
    return r->count < r->places && strangers < r->places - kept && same < (r->places - kept + 1) / 2;
}

/* With the lock held: until the question about key is answered, or the time is over. */
static enum auth_room_answer wait_answered(struct auth_room *r, const struct digest *key)
{
    struct timespec until;
    int rc = 0;
    if (r->waiting >= r->places)
        return AUTH_ROOM_FULL;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(r->wait_ms / 1000);
    until.tv_nsec += (long)(r->wait_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    r->waiting++;
    while (find(r, key) != NULL && rc == 0)
        rc = pthread_cond_timedwait(&r->left, &r->lock, &until);
    r->waiting--;
    return AUTH_ROOM_ASKED;
}

enum auth_room_answer auth_room_enter(struct auth_room *r, const struct digest *key, const char *client, bool known)
{
    struct question q = {.key = *key, .known = known};
    enum auth_room_answer answer = AUTH_ROOM_FULL;
    snprintf(q.address, sizeof q.address, "%s", client);
    pthread_mutex_lock(&r->lock);
    if (find(r, key) != NULL) {
        answer = wait_answered(r, key);
    } else if (has_place(r, &q)) {
        r->questions[r->count++] = q;
        answer = AUTH_ROOM_ENTERED;
    }
    pthread_mutex_unlock(&r->lock);
    return answer;
}

void auth_room_leave(struct auth_room *r, const struct digest *key)
{
    pthread_mutex_lock(&r->lock);
    struct question *q = find(r, key);
    CHECK(q != NULL);
    *q = r->questions[--r->count];
    pthread_cond_broadcast(&r->left);
    pthread_mutex_unlock(&r->lock);
}
