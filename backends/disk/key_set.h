/*
 * key_set - a set of texts, kept as 64-bit hashes: what was seen, in eight bytes each.
 *
 * Two texts share a hash once in 2^64 pairs: not a thing to build a guarantee against, far below a disk's own error
 * rate.
 *
 * Threads: any; a mutex inside. Errors: none; without memory an add is forgotten, and says so.
 */
#ifndef BLOBD_BACKENDS_DISK_KEY_SET_H
#define BLOBD_BACKENDS_DISK_KEY_SET_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct key_set {
    pthread_mutex_t lock;
    uint64_t *slots; /* 0: free */
    size_t count, cap;
};

/* FNV-1a; never 0. */
uint64_t key_hash(const char *text, size_t len);

void key_set_init(struct key_set *set);
void key_set_release(struct key_set *set);
/* False: no memory. */
bool key_set_add(struct key_set *set, uint64_t hash);
bool key_set_has(struct key_set *set, uint64_t hash);
void key_set_remove(struct key_set *set, uint64_t hash);

#endif
