/*
 * limiter - one table of counters, keyed by what is limited and whose it is, in shards with a lock each, which is held
 * for a look into one chain. The hash has a secret: who can choose among addresses could fill one chain otherwise.
 *
 * A count's entry goes with its last one. What was spent of a rate is kept as the time at which all of it will have
 * been given back (GCRA), so that an entry is over by itself then; the oldest goes for a new one where there are too
 * many, which forgets what one who has many addresses would get by using the next.
 */
#include "server/limiter.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/digest.h"
#include "core/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

#define SHARDS    64u
#define MINUTE_US INT64_C(60000000)

struct entry {
    LIST_ENTRY(entry) chain;
    TAILQ_ENTRY(entry) age; /* of what is spent */
    struct limit_key key;
    enum limit limit;
    uint64_t count;
    int64_t full_us; /* when all that was spent is given back */
};

LIST_HEAD(chain, entry);

struct shard {
    pthread_mutex_t lock;
    struct chain *chains;
    TAILQ_HEAD(ages, entry) spent; /* the least recently used first */
    size_t spent_count, entries;
};

struct limiter {
    atomic_uint_fast64_t values[LIMIT_COUNT];
    struct metric *refused[LIMIT_COUNT];
    uint64_t secret[2];
    size_t chain_count; /* of a shard; a power of two */
    struct shard shards[SHARDS];
};

static const char *const names[LIMIT_COUNT] = {
    [LIMIT_CONNECTIONS_ADDRESS] = "connections_per_address", [LIMIT_REQUESTS_ADDRESS] = "requests_per_address",
    [LIMIT_REQUESTS_IDENTITY] = "requests_per_identity",     [LIMIT_UPLOADS_ADDRESS] = "uploads_per_address",
    [LIMIT_UPLOADS_IDENTITY] = "uploads_per_identity",
};

const char *limit_name(enum limit limit)
{
    return names[limit];
}

struct limit_key limit_key_of_address(const struct ip_address *address)
{
    struct limit_key key;
    struct ip_address client = ip_client(address);
    memcpy(key.bytes, client.bytes, sizeof key.bytes);
    return key;
}

struct limit_key limit_key_of_text(const char *text)
{
    struct limit_key key;
    struct hash hash;
    struct digest digest;
    hash_init(&hash);
    hash_update(&hash, text, strlen(text));
    hash_peek(&hash, &digest);
    memcpy(key.bytes, digest.bytes, sizeof key.bytes);
    return key;
}

/* ---- the table ---- */

static uint64_t rotate(uint64_t x, unsigned by)
{
    return x << by | x >> (64 - by);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32) + v[3];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* SipHash-2-4 of the limit and the key. */
static uint64_t hash_of(const struct limiter *l, enum limit limit, const struct limit_key *key)
{
    uint64_t words[3] = {0, 0, UINT64_C(24) << 56 | (uint64_t)limit};
    uint64_t v[4] = {l->secret[0] ^ UINT64_C(0x736f6d6570736575), l->secret[1] ^ UINT64_C(0x646f72616e646f6d),
                     l->secret[0] ^ UINT64_C(0x6c7967656e657261), l->secret[1] ^ UINT64_C(0x7465646279746573)};
    memcpy(words, key->bytes, sizeof key->bytes);
    for (unsigned i = 0; i < 3; i++) {
        v[3] ^= words[i];
        sip_round(v);
        sip_round(v);
        v[0] ^= words[i];
    }
    v[2] ^= 0xff;
    for (unsigned i = 0; i < 4; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* The shard, locked, and the chain in it. */
static struct shard *shard_lock(struct limiter *l, enum limit limit, const struct limit_key *key, struct chain **chain)
{
    uint64_t hash = hash_of(l, limit, key);
    struct shard *shard = &l->shards[hash % SHARDS];
    *chain = &shard->chains[hash / SHARDS & (l->chain_count - 1)];
    pthread_mutex_lock(&shard->lock);
    return shard;
}

static struct entry *entry_find(const struct chain *chain, enum limit limit, const struct limit_key *key)
{
    struct entry *e;
    LIST_FOREACH(e, chain, chain)
    if (e->limit == limit && memcmp(&e->key, key, sizeof *key) == 0)
        break;
    return e;
}

static struct entry *entry_add(struct shard *shard, struct chain *chain, enum limit limit, const struct limit_key *key)
{
    struct entry *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->limit = limit;
    e->key = *key;
    LIST_INSERT_HEAD(chain, e, chain);
    shard->entries++;
    return e;
}

static void entry_drop(struct shard *shard, struct entry *e)
{
    LIST_REMOVE(e, chain);
    shard->entries--;
    free(e);
}

static enum limit_grant refuse(struct limiter *l, enum limit limit)
{
    if (l->refused[limit] != NULL)
        metric_add(l->refused[limit], 1);
    return LIMIT_REFUSED;
}

/* ---- what one may have at once ---- */

enum limit_grant limiter_enter(struct limiter *l, enum limit limit, const struct limit_key *key)
{
    uint64_t value = atomic_load_explicit(&l->values[limit], memory_order_relaxed);
    if (value == 0)
        return LIMIT_FREE;
    struct chain *chain;
    struct shard *shard = shard_lock(l, limit, key, &chain);
    struct entry *e = entry_find(chain, limit, key);
    if (e == NULL)
        e = entry_add(shard, chain, limit, key);
    /* Without memory it goes uncounted. */
    enum limit_grant grant = e == NULL ? LIMIT_FREE : e->count < value ? LIMIT_HELD : LIMIT_REFUSED;
    if (grant == LIMIT_HELD)
        e->count++;
    pthread_mutex_unlock(&shard->lock);
    return grant == LIMIT_REFUSED ? refuse(l, limit) : grant;
}

void limiter_leave(struct limiter *l, enum limit limit, const struct limit_key *key)
{
    struct chain *chain;
    struct shard *shard = shard_lock(l, limit, key, &chain);
    struct entry *e = entry_find(chain, limit, key);
    CHECK(e != NULL && e->count > 0);
    if (--e->count == 0)
        entry_drop(shard, e);
    pthread_mutex_unlock(&shard->lock);
}

/* ---- what one may begin in a minute ---- */

static void spent_drop(struct shard *shard, struct entry *e)
{
    TAILQ_REMOVE(&shard->spent, e, age);
    shard->spent_count--;
    entry_drop(shard, e);
}

/* Two of those that are over, and one where there is no room: each call brings at most one. */
static void spent_tidy(struct shard *shard, int64_t now_us)
{
    for (unsigned i = 0; i < 2; i++) {
        struct entry *oldest = TAILQ_FIRST(&shard->spent);
        if (oldest == NULL || (oldest->full_us > now_us && shard->spent_count < LIMITER_REMEMBERED / SHARDS))
            return;
        spent_drop(shard, oldest);
    }
}

static struct entry *spent_entry(struct shard *shard, struct chain *chain, enum limit limit,
                                 const struct limit_key *key)
{
    struct entry *e = entry_find(chain, limit, key);
    if (e != NULL)
        TAILQ_REMOVE(&shard->spent, e, age);
    else if ((e = entry_add(shard, chain, limit, key)) != NULL)
        shard->spent_count++;
    if (e != NULL)
        TAILQ_INSERT_TAIL(&shard->spent, e, age);
    return e;
}

unsigned limiter_spend(struct limiter *l, enum limit limit, const struct limit_key *key)
{
    uint64_t value = atomic_load_explicit(&l->values[limit], memory_order_relaxed);
    if (value == 0)
        return 0;
    int64_t now_us = clock_steady_us(), cost_us = MINUTE_US / (int64_t)value, wait_us = 0;
    struct chain *chain;
    struct shard *shard = shard_lock(l, limit, key, &chain);
    spent_tidy(shard, now_us);
    struct entry *e = spent_entry(shard, chain, limit, key);
    if (e != NULL) {
        int64_t full_us = (e->full_us > now_us ? e->full_us : now_us) + cost_us;
        wait_us = full_us - now_us - MINUTE_US;
        if (wait_us <= 0)
            e->full_us = full_us;
    }
    pthread_mutex_unlock(&shard->lock);
    if (wait_us <= 0)
        return 0;
    (void)refuse(l, limit);
    return (unsigned)((wait_us + 999999) / 1000000);
}

/* ---- life ---- */

void limiter_set(struct limiter *l, enum limit limit, uint64_t value)
{
    atomic_store_explicit(&l->values[limit], value, memory_order_relaxed);
}

bool limiter_is_set(const struct limiter *l, enum limit limit)
{
    return atomic_load_explicit(&l->values[limit], memory_order_relaxed) > 0;
}

static bool shards_init(struct limiter *l)
{
    bool whole = true;
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&l->shards[i].lock, NULL);
        TAILQ_INIT(&l->shards[i].spent);
        l->shards[i].chains = calloc(l->chain_count, sizeof *l->shards[i].chains);
        whole = whole && l->shards[i].chains != NULL;
    }
    return whole;
}

struct limiter *limiter_new(size_t expected, struct metrics *metrics)
{
    struct limiter *l = calloc(1, sizeof *l);
    if (l == NULL)
        return NULL;
    CHECK(getrandom(l->secret, sizeof l->secret, 0) == sizeof l->secret);
    l->chain_count = 16;
    while (l->chain_count * SHARDS < expected)
        l->chain_count *= 2;
    if (!shards_init(l)) {
        limiter_free(l);
        return NULL;
    }
    for (unsigned i = 0; i < LIMIT_COUNT && metrics != NULL; i++) {
        char label[64];
        snprintf(label, sizeof label, "limit=\"%s\"", names[i]);
        l->refused[i] = metrics_counter(metrics, "blobd_limited_total", "What was refused by a limit.", label);
    }
    return l;
}

void limiter_free(struct limiter *l)
{
    if (l == NULL)
        return;
    for (unsigned i = 0; i < SHARDS; i++) {
        struct shard *shard = &l->shards[i];
        for (size_t c = 0; c < l->chain_count && shard->chains != NULL; c++) {
            while (!LIST_EMPTY(&shard->chains[c]))
                entry_drop(shard, LIST_FIRST(&shard->chains[c]));
        }
        free(shard->chains);
        pthread_mutex_destroy(&shard->lock);
    }
    free(l);
}

size_t limiter_entries(struct limiter *l)
{
    size_t count = 0;
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&l->shards[i].lock);
        count += l->shards[i].entries;
        pthread_mutex_unlock(&l->shards[i].lock);
    }
    return count;
}
