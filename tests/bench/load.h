/*
 * load - uploads over many keep-alive connections at once, from one thread, and what came of it.
 *
 * Every connection runs whole uploads one after another. A failed upload ends its connection, so that errors cannot
 * become a storm. Threads: one. Ownership: options are borrowed for the run; load_free() frees the results.
 * Units: bytes, seconds.
 */
#ifndef BLOBD_BENCH_LOAD_H
#define BLOBD_BENCH_LOAD_H

#include "dialect.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load_options {
    const struct dialect *dialect;
    const char *bearer; /* NULL: none */
    int port;           /* on 127.0.0.1 */
    unsigned clients;
    uint64_t size;       /* of a blob */
    uint64_t chunk;      /* bytes in an append; 0: all */
    uint64_t count;      /* uploads at most */
    uint64_t seed;       /* makes the blobs of two runs distinct */
    double seconds;      /* no new upload after that; 0: no limit */
    double max_seconds;  /* what is not finished then has failed */
    uint64_t slow_bytes; /* send so many each second … */
    double slow_seconds; /* … for so long, then the rest at once; slow_bytes 0: not slow */
    size_t samples;      /* how many of the uploads to name */
};

struct load_sample {
    char path[2048]; /* to download it */
    char hex[65];
};

struct load_result {
    uint64_t finished, failed;
    double began, ended; /* CLOCK_MONOTONIC: first connect, last answer */
    double cpu;          /* user and system seconds of this program meanwhile */
    double *latency;     /* seconds of each finished upload */
    struct load_sample *samples;
    size_t sample_count;
    char first_error[512];
};

double load_now(void);
/* False: it could not be set up, and errno says why. */
bool load_run(const struct load_options *opt, struct load_result *out);
void load_free(struct load_result *result);

#endif
