/* keyed_sum - pairs of words from whatever comes; what does not fill one waits for more. */
#include "backends/disk/journal/keyed_sum.h"

#include "backends/disk/file/disk_bytes.h"

#include <endian.h>
#include <string.h>

__extension__ typedef unsigned __int128 wide;

static uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return le64toh(word);
}

void sum_key_prepare(struct sum_key *key, const uint8_t bytes[SIPHASH_KEY_BYTES])
{
    memcpy(key->bytes, bytes, sizeof key->bytes);
    for (unsigned i = 0; i < 2 * KEYED_SUM_PAIRS; i++) {
        uint8_t index[8];
        struct siphash s;
        put_le(index, i, 8);
        siphash_begin(&s, bytes);
        siphash_update(&s, index, sizeof index);
        key->words[i] = siphash_end(&s);
    }
}

void keyed_sum_begin(struct keyed_sum *s, const struct sum_key *key)
{
    *s = (struct keyed_sum){.key = key};
    siphash_begin(&s->sums, key->bytes);
}

static void end_block(struct keyed_sum *s)
{
    uint8_t sum[16];
    put_le(sum, s->low, 8);
    put_le(sum + 8, s->high, 8);
    siphash_update(&s->sums, sum, sizeof sum);
    s->low = s->high = 0;
    s->pairs = 0;
}

static void take_pairs(struct keyed_sum *s, const uint8_t *p, size_t count)
{
    while (count > 0) {
        size_t n = KEYED_SUM_PAIRS - s->pairs;
        n = count < n ? count : n;
        const uint64_t *k = s->key->words + (size_t)2 * s->pairs;
        wide sum = (wide)s->high << 64 | s->low;
        for (size_t i = 0; i < n; i++, p += KEYED_SUM_PAIR, k += 2)
            sum += (wide)(word_at(p) + k[0]) * (word_at(p + 8) + k[1]);
        s->low = (uint64_t)sum;
        s->high = (uint64_t)(sum >> 64);
        s->pairs += (unsigned)n;
        count -= n;
        if (s->pairs == KEYED_SUM_PAIRS)
            end_block(s);
    }
}

void keyed_sum_update(struct keyed_sum *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    s->len += len;
    if (s->held > 0) {
        size_t n = sizeof s->pair - s->held;
        n = len < n ? len : n;
        memcpy(s->pair + s->held, p, n);
        s->held += (unsigned)n;
        p += n;
        len -= n;
        if (s->held < sizeof s->pair)
            return;
        take_pairs(s, s->pair, 1);
        s->held = 0;
    }
    take_pairs(s, p, len / KEYED_SUM_PAIR);
    s->held = (unsigned)(len % KEYED_SUM_PAIR);
    if (s->held > 0)
        memcpy(s->pair, p + len - s->held, s->held);
}

uint64_t keyed_sum_end(struct keyed_sum *s, const void *tail, size_t len)
{
    if (s->held > 0) {
        memset(s->pair + s->held, 0, sizeof s->pair - s->held);
        take_pairs(s, s->pair, 1);
    }
    if (s->pairs > 0)
        end_block(s);
    uint8_t length[8];
    put_le(length, s->len, 8);
    siphash_update(&s->sums, length, sizeof length);
    siphash_update(&s->sums, tail, len);
    return siphash_end(&s->sums);
}
