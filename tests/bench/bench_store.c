/*
 * bench_store - how many whole uploads (create, append, complete with its two records) a second a disk store takes.
 *
 *     bench_store ROOT [threads] [seconds] [bytes] [journal: 1|0]
 *
 * Not part of the test run. Every acknowledged step is durable, as the server has it: the append is flushed, the blob
 * and the first record go lazily, the last record makes all durable.
 */
#include "backends/disk/disk_store.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/text/parse.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS_MAX 128

struct bench {
    struct blob_store *store;
    size_t bytes;
    int64_t until_us;
    atomic_uint_fast64_t cycles, failures;
};

static bool cycle(struct bench *b, char *data, struct blob_error *err)
{
    struct uuid id;
    struct blob_writer *w = NULL;
    struct upload_mark start = {0}, mark;
    uuid_new(&id);
    memcpy(data, id.text, b->bytes < UUID_CHARS ? b->bytes : UUID_CHARS);
    if (staged_open(b->store, &id, &start, 1, &w, err) != BLOB_OK)
        return false;
    bool ok = writer_write_bytes(w, data, b->bytes, err) == BLOB_OK &&
              writer_flush(w, b->bytes, NULL, 0, 0, &mark, err) == BLOB_OK;
    writer_close(w);
    if (!ok || staged_open(b->store, &id, &mark, 2, &w, err) != BLOB_OK)
        return false;
    struct hash hash;
    struct digest digest;
    hash_init(&hash);
    hash_update(&hash, data, b->bytes);
    hash_peek(&hash, &digest);
    if (writer_commit(w, &digest, BLOB_LAZY, err) != BLOB_OK) {
        writer_close(w);
        return false;
    }
    char hex[DIGEST_HEX_CHARS + 1], key[RECORD_KEY_MAX + 1], value[300];
    digest_hex(&digest, hex);
    memset(value, 'v', sizeof value);
    snprintf(key, sizeof key, "blobs/%s", hex);
    if (record_put(b->store, key, value, sizeof value, BLOB_LAZY, err) != BLOB_OK)
        return false;
    snprintf(key, sizeof key, "files/%s/%.8s", hex, id.text);
    return record_put(b->store, key, value, sizeof value, 0, err) == BLOB_OK;
}

static void *client(void *arg)
{
    struct bench *b = arg;
    char *data = malloc(b->bytes + 1);
    CHECK(data);
    memset(data, 'x', b->bytes);
    while (clock_steady_us() < b->until_us) {
        struct blob_error err = {0};
        if (cycle(b, data, &err)) {
            atomic_fetch_add(&b->cycles, 1);
        } else {
            fprintf(stderr, "bench_store: %s\n", err.text);
            atomic_fetch_add(&b->failures, 1);
            break;
        }
    }
    free(data);
    return NULL;
}

static uint64_t number(int argc, char **argv, int i, uint64_t otherwise)
{
    uint64_t n = otherwise;
    if (i < argc && parse_u64(argv[i], 0, UINT32_MAX, &n) != BLOB_OK)
        n = otherwise;
    return n;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: bench_store ROOT [threads] [seconds] [bytes] [journal]\n");
        return EXIT_FAILURE;
    }
    struct blob_error err = {0};
    struct disk_options opt = {.root = argv[1], .journal = number(argc, argv, 5, 1) != 0};
    struct bench b = {.bytes = (size_t)number(argc, argv, 4, 16384)};
    uint64_t threads = number(argc, argv, 2, 16), seconds = number(argc, argv, 3, 5);
    threads = threads < THREADS_MAX ? threads : THREADS_MAX;
    if (disk_store_open(&opt, &b.store, &err) != BLOB_OK) {
        fprintf(stderr, "bench_store: %s\n", err.text);
        return EXIT_FAILURE;
    }
    pthread_t ids[THREADS_MAX];
    int64_t began_us = clock_steady_us();
    b.until_us = began_us + (int64_t)seconds * 1000000;
    for (uint64_t i = 0; i < threads; i++)
        CHECK(pthread_create(&ids[i], NULL, client, &b) == 0);
    for (uint64_t i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    double took = (double)(clock_steady_us() - began_us) / 1e6;
    printf("%llu uploads of %zu bytes by %llu clients in %.1f s: %.0f a second\n", (unsigned long long)b.cycles,
           b.bytes, (unsigned long long)threads, took, (double)b.cycles / took);
    int64_t close_us = clock_steady_us();
    blob_store_close(b.store);
    printf("closing took %.2f s\n", (double)(clock_steady_us() - close_us) / 1e6);
    return b.failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
