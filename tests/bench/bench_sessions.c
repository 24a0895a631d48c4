/*
 * bench_sessions - what a session store costs: microseconds an operation, and milliseconds a listing of many files.
 *
 *     bench_sessions embedded PATH [sessions] [files]
 *     bench_sessions redis URL [sessions] [files]
 *
 * Each session is inserted, loaded and replaced twice, and removed or kept like a completed one's, with values of a
 * usual size. CPU is the process' own. The store given must be one to spoil.
 */
#include "backends/embedded/embedded_sessions.h"
#include "backends/redis/redis_sessions.h"
#include "core/check.h"
#include "core/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t cpu_us(void)
{
    struct timespec t;
    CHECK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void must(enum blob_status st, const struct blob_error *err)
{
    if (st == BLOB_OK)
        return;
    fprintf(stderr, "%s: %s\n", blob_status_name(st), err->text);
    exit(1);
}

static void bench_sessions(struct session_store *s, int count)
{
    static char value[600];
    struct blob_error err;
    int64_t wall = clock_steady_us(), cpu = cpu_us(), later = clock_wall_ms() + 3600000;
    struct bytebuf b;
    bytebuf_init(&b);
    for (int i = 0; i < count; i++) {
        struct uuid id;
        uint64_t epoch = 0;
        uuid_new(&id);
        must(session_insert(s, &id, 1, value, sizeof value, later, &err), &err);
        for (uint64_t e = 1; e <= 2; e++) {
            bytebuf_clear(&b);
            must(session_load(s, &id, &b, &epoch, &err), &err);
            must(session_replace(s, &id, e, e + 1, value, sizeof value, later, &err), &err);
        }
        if (i % 2)
            must(session_remove(s, &id, &err), &err);
    }
    double ops = count * 5.5;
    printf("sessions: %d of 5.5 operations: %.1f us each, of it %.1f us CPU\n", count,
           (double)(clock_steady_us() - wall) / ops, (double)(cpu_us() - cpu) / ops);
    wall = clock_steady_us();
    must(session_sweep(s, clock_wall_ms(), &err), &err);
    printf("sweep that finds nothing: %.1f ms\n", (double)(clock_steady_us() - wall) / 1e3);
    bytebuf_release(&b);
}

static bool ignore_row(const struct index_row *row, void *arg)
{
    (void)row;
    (void)arg;
    return true;
}

static void bench_puts(struct session_store *s, int count)
{
    struct blob_error err;
    int64_t wall = clock_steady_us(), cpu = cpu_us(), slowest = 0;
    char value[250];
    memset(value, 'j', sizeof value);
    for (int i = 0; i < count; i++) {
        struct index_row row = {.created_ms = 1700000000000 + i, .value = value, .value_len = sizeof value};
        snprintf(row.id, sizeof row.id, "%016llx%038d", (unsigned long long)(i + 1) * 0x9e3779b97f4a7c15u, i);
        snprintf(row.name, sizeof row.name, "Recording-%08x-%d-call.wav", (unsigned)i * 2654435761u, i % 977);
        snprintf(row.owner, sizeof row.owner, "%s", i % 1000 ? "pbx" : "rare");
        row.size = i % 3 ? 16384 : (unsigned)i * 40503u;
        int64_t began = clock_steady_us();
        must(index_put(s, &row, &err), &err);
        int64_t took = clock_steady_us() - began;
        slowest = took > slowest ? took : slowest;
    }
    struct index_query q = {.order = {{INDEX_BY_CREATED, false}}, .orders = 1, .top = 1};
    uint64_t n = 0;
    must(index_list(s, &q, &n, ignore_row, NULL, &err), &err);
    printf("index: %d rows put: %.1f us each, of it %.1f us CPU, the slowest %.1f ms\n", count,
           (double)(clock_steady_us() - wall) / count, (double)(cpu_us() - cpu) / count, (double)slowest / 1e3);
}

static void bench_list(struct session_store *s, const struct index_query *q, const char *what)
{
    static const char *const keys[] = {"created", "name", "size"};
    struct blob_error err;
    uint64_t count = 0;
    int64_t wall = clock_steady_us();
    must(index_list(s, q, &count, ignore_row, NULL, &err), &err);
    printf("%-22s by", what);
    for (unsigned i = 0; i < q->orders; i++)
        printf(" %s%s", keys[q->order[i].key], q->order[i].descending ? "-" : "+");
    printf(", skip %llu: %llu match, %.1f ms\n", (unsigned long long)q->skip, (unsigned long long)count,
           (double)(clock_steady_us() - wall) / 1e3);
}

static void bench_listings(struct session_store *s, int files)
{
    static const struct {
        const char *what, *owner, *search;
    } filters[] = {{"all", NULL, NULL},
                   {"most, by owner", "pbx", NULL},
                   {"few, by owner", "rare", NULL},
                   {"search, all match", NULL, "CALL.wav"},
                   {"search, some match", NULL, "-12"},
                   {"search, none match", NULL, "no such name"},
                   {"owner and search", "pbx", "-12"}};
    for (size_t f = 0; f < sizeof filters / sizeof *filters; f++)
        for (int key = INDEX_BY_CREATED; key <= INDEX_BY_SIZE; key++)
            for (int variant = 0; variant < 4; variant++) {
                struct index_query q = {.owner = filters[f].owner, .search = filters[f].search, .top = 100};
                q.order[0] = (struct index_order){(enum index_key)key, variant % 2 == 1};
                q.order[1] = (struct index_order){(enum index_key)((key + 1) % 3), false};
                q.orders = variant < 2 ? 1 : 2;
                q.skip = variant == 1 ? (uint64_t)files / 2 : 0;
                bench_list(s, &q, filters[f].what);
            }
}

int main(int argc, char **argv)
{
    struct session_store *s = NULL;
    struct blob_error err;
    if (argc < 3) {
        fprintf(stderr, "usage: %s embedded PATH | redis URL [sessions] [files]\n", argv[0]);
        return 2;
    }
    if (strcmp(argv[1], "redis") == 0) {
        struct redis_sessions_options opt = {.url = argv[2],
                                             .prefix = "bench:",
                                             .connections = 4,
                                             .connect_timeout_ms = 2000,
                                             .command_timeout_ms = 2000,
                                             .node_ttl_ms = 15000};
        must(redis_sessions_open(&opt, &s, &err), &err);
    } else {
        struct embedded_sessions_options opt = {.path = argv[2]};
        must(embedded_sessions_open(&opt, &s, &err), &err);
    }
    must(session_store_join(s, "bench", "bench", clock_wall_ms(), &err), &err);
    int sessions = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 20000;
    int files = argc > 4 ? (int)strtol(argv[4], NULL, 10) : 100000;
    bench_sessions(s, sessions);
    bench_puts(s, files);
    bench_listings(s, files);
    session_store_close(s);
    return 0;
}
