/* siphash - words of eight bytes from whatever comes; what does not fill one waits for more. */
#include "backends/disk/journal/siphash.h"

#include <endian.h>
#include <string.h>

static uint64_t word_at(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return le64toh(word);
}

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
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

static void take_word(uint64_t v[4], uint64_t word)
{
    v[3] ^= word;
    sip_round(v);
    sip_round(v);
    v[0] ^= word;
}

void siphash_begin(struct siphash *s, const uint8_t key[SIPHASH_KEY_BYTES])
{
    uint64_t k0 = word_at(key), k1 = word_at(key + 8);
    *s = (struct siphash){
        .v = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u, k1 ^ 0x7465646279746573u}};
}

void siphash_update(struct siphash *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t v[4] = {s->v[0], s->v[1], s->v[2], s->v[3]};
    for (const uint8_t *end = p + len; p < end;) {
        if (s->len % 8 == 0 && end - p >= 8) {
            take_word(v, word_at(p));
            p += 8;
            s->len += 8;
            continue;
        }
        s->word |= (uint64_t)*p++ << 8 * (s->len % 8);
        if (++s->len % 8 == 0) {
            take_word(v, s->word);
            s->word = 0;
        }
    }
    memcpy(s->v, v, sizeof v);
}

uint64_t siphash_end(struct siphash *s)
{
    take_word(s->v, s->word | s->len << 56);
    s->v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        sip_round(s->v);
    return s->v[0] ^ s->v[1] ^ s->v[2] ^ s->v[3];
}
