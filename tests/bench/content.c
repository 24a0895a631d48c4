/* content - the pattern is longer than any cache is wide, and made once: sending it is all a client's CPU is for. */
#include "content.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN_BYTES (16u << 20)

struct content {
    uint64_t size, seed;
    char *pattern;
    EVP_MD_CTX *prefix; /* the hash of everything before the stamp */
    EVP_MD_CTX *scratch;
};

static void *must(void *p)
{
    if (!p) {
        fputs("loadgen: out of memory\n", stderr);
        exit(2);
    }
    return p;
}

struct content *content_new(uint64_t size, uint64_t seed)
{
    struct content *c = must(calloc(1, sizeof *c));
    c->size = size;
    c->seed = seed;
    c->pattern = must(malloc(PATTERN_BYTES));
    c->prefix = must(EVP_MD_CTX_new());
    c->scratch = must(EVP_MD_CTX_new());

    uint64_t x = 0x9e3779b97f4a7c15ull; /* xorshift64 */
    for (size_t i = 0; i < PATTERN_BYTES; i += sizeof x) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        memcpy(c->pattern + i, &x, sizeof x);
    }
    EVP_DigestInit_ex(c->prefix, EVP_sha256(), NULL);
    for (uint64_t left = size - CONTENT_STAMP; left > 0;) {
        size_t n = left < PATTERN_BYTES ? (size_t)left : PATTERN_BYTES;
        EVP_DigestUpdate(c->prefix, c->pattern, n);
        left -= n;
    }
    return c;
}

void content_free(struct content *c)
{
    EVP_MD_CTX_free(c->scratch);
    EVP_MD_CTX_free(c->prefix);
    free(c->pattern);
    free(c);
}

void content_stamp(struct content *c, uint64_t number, struct blob_stamp *out)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char md[EVP_MAX_MD_SIZE];

    snprintf(out->text, sizeof out->text, "%016" PRIx64 "%016" PRIx64 "%032d", c->seed, number, 0);
    EVP_MD_CTX_copy_ex(c->scratch, c->prefix);
    EVP_DigestUpdate(c->scratch, out->text, CONTENT_STAMP);
    EVP_DigestFinal_ex(c->scratch, md, NULL);
    for (size_t i = 0; i < CONTENT_HEX / 2; i++) {
        out->hex[2 * i] = digits[md[i] >> 4];
        out->hex[2 * i + 1] = digits[md[i] & 15];
    }
    out->hex[CONTENT_HEX] = '\0';
}

size_t content_slice(const struct content *c, const struct blob_stamp *stamp, uint64_t from, uint64_t to,
                     struct iovec *iov, size_t max)
{
    uint64_t prefix = c->size - CONTENT_STAMP;
    size_t n = 0;
    while (from < to && n < max) {
        if (from >= prefix) {
            iov[n++] = (struct iovec){(void *)(stamp->text + (from - prefix)), (size_t)(to - from)};
            break;
        }
        uint64_t room = PATTERN_BYTES - from % PATTERN_BYTES;
        uint64_t len = (to < prefix ? to : prefix) - from;
        len = len < room ? len : room;
        iov[n++] = (struct iovec){c->pattern + from % PATTERN_BYTES, (size_t)len};
        from += len;
    }
    return n;
}
