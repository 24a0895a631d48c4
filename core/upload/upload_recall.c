/*
 * upload_recall - the sessions this node stored last, so that its next request for them need not ask first.
 *
 * Nothing is decided by them alone. The request that takes one goes on to claim the upload, a compare-and-swap on the
 * epoch: where that goes through, nobody has changed the session since, and the one in memory was the present one.
 * Where it does not, and wherever the request would be refused or answered otherwise, the session is loaded and all is
 * decided anew. Only sessions at rest are kept: open, with no append in flight.
 *
 * One slot for many uploads, as a direct-mapped cache: the newest has it. lock guards the slots, and is held across no
 * call.
 */
#include "core/upload/upload_internal.h"

#include <stdlib.h>
#include <string.h>

#define RECALL_SLOTS       1024
#define RECALL_VALUE_BYTES 960 /* many part numbers make a longer one; its appends are long too */

struct recalled {
    struct uuid id; /* empty: none */
    uint64_t epoch;
    size_t len;
    uint8_t value[RECALL_VALUE_BYTES];
};

struct upload_recall {
    pthread_mutex_t lock;
    struct recalled slots[RECALL_SLOTS]; /* pages that are not used cost nothing */
};

struct upload_recall *upload_recall_new(void)
{
    struct upload_recall *r = calloc(1, sizeof *r);
    if (r)
        pthread_mutex_init(&r->lock, NULL);
    return r;
}

void upload_recall_free(struct upload_recall *r)
{
    if (!r)
        return;
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static struct recalled *slot_of(struct upload_service *svc, const struct uuid *id)
{
    return &svc->recall->slots[(size_t)(upload_lane(svc, id) - svc->lanes) % RECALL_SLOTS];
}

void upload_recall_keep(struct upload_service *svc, const struct session *s, const struct bytebuf *value)
{
    if (!svc->recall || s->state != SESSION_OPEN || s->append_from != NO_APPEND || value->len > RECALL_VALUE_BYTES)
        return;
    struct recalled *slot = slot_of(svc, &s->id);
    pthread_mutex_lock(&svc->recall->lock);
    slot->id = s->id;
    slot->epoch = s->epoch;
    slot->len = value->len;
    memcpy(slot->value, value->data, value->len);
    pthread_mutex_unlock(&svc->recall->lock);
}

bool upload_recall_take(struct upload_service *svc, const struct uuid *id, struct session *s)
{
    if (!svc->recall)
        return false;
    struct recalled *slot = slot_of(svc, id);
    pthread_mutex_lock(&svc->recall->lock);
    bool kept = strcmp(slot->id.text, id->text) == 0;
    if (kept) {
        CHECK(session_decode(slot->value, slot->len, slot->epoch, s) == BLOB_OK);
        slot->id.text[0] = '\0';
        s->recalled = true;
    }
    pthread_mutex_unlock(&svc->recall->lock);
    return kept;
}
