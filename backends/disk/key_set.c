/* key_set - open addressing with linear probing; removal shifts back what follows, so there are no tombstones. */
#include "backends/disk/key_set.h"

#include <stdlib.h>

uint64_t key_hash(const char *text, size_t len)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    h ^= h >> 32;
    return h ? h : 1;
}

void key_set_init(struct key_set *set)
{
    *set = (struct key_set){.slots = NULL};
    pthread_mutex_init(&set->lock, NULL);
}

void key_set_release(struct key_set *set)
{
    free(set->slots);
    pthread_mutex_destroy(&set->lock);
}

/* The slot that holds hash, or the free one where it would go. There is always a free one. */
static size_t slot_of(const struct key_set *set, uint64_t hash)
{
    size_t at = (size_t)hash & (set->cap - 1);
    while (set->slots[at] != 0 && set->slots[at] != hash)
        at = (at + 1) & (set->cap - 1);
    return at;
}

static bool set_grow(struct key_set *set)
{
    struct key_set bigger = {.cap = set->cap ? 2 * set->cap : 64};
    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < set->cap; i++)
        if (set->slots[i] != 0)
            bigger.slots[slot_of(&bigger, set->slots[i])] = set->slots[i];
    free(set->slots);
    set->slots = bigger.slots;
    set->cap = bigger.cap;
    return true;
}

bool key_set_add(struct key_set *set, uint64_t hash)
{
    pthread_mutex_lock(&set->lock);
    bool ok = 2 * (set->count + 1) <= set->cap || set_grow(set);
    if (ok) {
        size_t at = slot_of(set, hash);
        set->count += set->slots[at] == 0;
        set->slots[at] = hash;
    }
    pthread_mutex_unlock(&set->lock);
    return ok;
}

bool key_set_has(struct key_set *set, uint64_t hash)
{
    pthread_mutex_lock(&set->lock);
    bool has = set->count > 0 && set->slots[slot_of(set, hash)] == hash;
    pthread_mutex_unlock(&set->lock);
    return has;
}

void key_set_remove(struct key_set *set, uint64_t hash)
{
    pthread_mutex_lock(&set->lock);
    size_t at = set->count > 0 ? slot_of(set, hash) : 0;
    if (set->count > 0 && set->slots[at] == hash) {
        set->slots[at] = 0;
        set->count--;
        /* What was probed past the hole must stay reachable. */
        for (size_t i = (at + 1) & (set->cap - 1); set->slots[i] != 0; i = (i + 1) & (set->cap - 1)) {
            uint64_t moved = set->slots[i];
            set->slots[i] = 0;
            set->slots[slot_of(set, moved)] = moved;
        }
    }
    pthread_mutex_unlock(&set->lock);
}
