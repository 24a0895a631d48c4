/*
 * upload_live - the appends in flight in this process, by upload.
 *
 * At most one per upload: a newer one ends the older before it is added. Notices of other nodes and the timer come on
 * threads of their own, while an append may be ending in its lane: the reference count and `notifying` keep its memory
 * and its request alive until they are through. Callbacks are made without the lock.
 */
#include "core/upload/upload_internal.h"

#include <stdlib.h>
#include <string.h>

void upload_live_init(struct upload_service *svc)
{
    pthread_mutex_init(&svc->live, NULL);
    pthread_cond_init(&svc->notified, NULL);
}

void upload_live_release(struct upload_service *svc)
{
    for (unsigned i = 0; i < LIVE_BUCKETS; i++)
        CHECK(svc->table[i] == NULL);
    pthread_cond_destroy(&svc->notified);
    pthread_mutex_destroy(&svc->live);
}

static struct upload_append **find_slot(struct upload_service *svc, const struct uuid *id)
{
    struct upload_append **slot = &svc->table[upload_bucket(id) % LIVE_BUCKETS];
    while (*slot && strcmp((*slot)->id.text, id->text) != 0)
        slot = &(*slot)->next;
    return slot;
}

void upload_live_add(struct upload_append *a)
{
    struct upload_service *svc = a->svc;
    pthread_mutex_lock(&svc->live);
    struct upload_append **slot = find_slot(svc, &a->id);
    CHECK(*slot == NULL);
    *slot = a;
    atomic_fetch_add(&svc->in_flight, 1);
    pthread_mutex_unlock(&svc->live);
}

void upload_live_remove(struct upload_append *a)
{
    struct upload_service *svc = a->svc;
    pthread_mutex_lock(&svc->live);
    struct upload_append **slot = find_slot(svc, &a->id);
    if (*slot == a) {
        *slot = a->next;
        a->next = NULL;
        atomic_fetch_sub(&svc->in_flight, 1);
    }
    a->ended = true;
    while (a->notifying)
        pthread_cond_wait(&svc->notified, &svc->live);
    pthread_mutex_unlock(&svc->live);
}

struct upload_append *upload_live_find(struct upload_service *svc, const struct uuid *id)
{
    pthread_mutex_lock(&svc->live);
    struct upload_append *a = *find_slot(svc, id);
    pthread_mutex_unlock(&svc->live);
    return a;
}

void upload_append_ref(struct upload_append *a)
{
    pthread_mutex_lock(&a->svc->live);
    a->refs++;
    pthread_mutex_unlock(&a->svc->live);
}

void upload_append_unref(struct upload_append *a)
{
    struct upload_service *svc = a->svc;
    pthread_mutex_lock(&svc->live);
    bool last = --a->refs == 0;
    pthread_mutex_unlock(&svc->live);
    if (!last)
        return;
    side_hash_release(&a->side);
    pthread_cond_destroy(&a->flushed);
    pthread_mutex_destroy(&a->lock);
    a->magic = 0;
    free(a->before);
    free(a);
}

void upload_live_notify(struct upload_append *a)
{
    struct upload_service *svc = a->svc;
    pthread_mutex_lock(&svc->live);
    /* One look under one lock: once it has ended, its request may be gone. */
    void (*fn)(void *) = a->ended ? NULL : a->superseded;
    a->superseded = NULL;
    a->notifying = fn != NULL;
    pthread_mutex_unlock(&svc->live);
    if (!fn)
        return;
    fn(a->arg);
    pthread_mutex_lock(&svc->live);
    a->notifying = false;
    pthread_cond_broadcast(&svc->notified);
    pthread_mutex_unlock(&svc->live);
}

void upload_live_notice(const struct uuid *id, uint64_t epoch, void *arg)
{
    struct upload_service *svc = arg;
    pthread_mutex_lock(&svc->live);
    struct upload_append *a = *find_slot(svc, id);
    if (a)
        a->refs++;
    pthread_mutex_unlock(&svc->live);
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    bool older = a->s.writer_epoch < epoch;
    if (older)
        a->fenced = true;
    if (epoch == EPOCH_DESTROYED)
        a->destroyed = true;
    pthread_mutex_unlock(&a->lock);
    if (older)
        upload_live_notify(a);
    upload_append_unref(a);
}
