/*
 * loadgen - the load generator of scripts/bench: takes options, runs one load, prints one JSON object.
 *
 * Exit status: 0 when every upload was answered as expected, 1 when some were not, 2 for a wrong use.
 */
#include "content.h"
#include "load.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage_text[] = "usage: loadgen --dialect blobd|registry|dav --port N --size BYTES\n"
                                 "  --clients N        connections (1)\n"
                                 "  --count N          uploads in all (1)\n"
                                 "  --seconds S        start no new upload after S seconds\n"
                                 "  --chunk BYTES      bytes in an append (0: the whole blob)\n"
                                 "  --slow BYTES       send only BYTES each second ...\n"
                                 "  --slow-seconds S   ... for S seconds, then the rest at once\n"
                                 "  --max-seconds S    give up after S seconds (120)\n"
                                 "  --seed N           makes the blobs of two runs distinct (0)\n"
                                 "  --samples N        finished uploads to name in the output (4)\n"
                                 "  --token T          bearer token\n"
                                 "BYTES take the suffixes k, m, g.\n";

static _Noreturn void usage(void)
{
    fputs(usage_text, stderr);
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    unsigned shift = *end == 'k' ? 10 : *end == 'm' ? 20 : *end == 'g' ? 30 : 0;
    if (errno || end == text || end[shift != 0])
        usage();
    return value << shift;
}

static void options_read(int argc, char **argv, struct load_options *opt)
{
    static const struct option names[] = {
        {"dialect", 1, 0, 'p'}, {"port", 1, 0, 'P'},    {"size", 1, 0, 's'},         {"clients", 1, 0, 'c'},
        {"count", 1, 0, 'n'},   {"seconds", 1, 0, 'd'}, {"chunk", 1, 0, 'k'},        {"slow", 1, 0, 'w'},
        {"seed", 1, 0, 'S'},    {"samples", 1, 0, 'v'}, {"slow-seconds", 1, 0, 'W'}, {"max-seconds", 1, 0, 'm'},
        {"token", 1, 0, 't'},   {NULL, 0, NULL, 0}};
    int ch;
    while ((ch = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (ch) {
        case 'p':
            opt->dialect = dialect_find(optarg);
            break;
        case 'P':
            opt->port = (int)number(optarg);
            break;
        case 's':
            opt->size = number(optarg);
            break;
        case 'c':
            opt->clients = (unsigned)number(optarg);
            break;
        case 'n':
            opt->count = number(optarg);
            break;
        case 'd':
            opt->seconds = strtod(optarg, NULL);
            break;
        case 'k':
            opt->chunk = number(optarg);
            break;
        case 'w':
            opt->slow_bytes = number(optarg);
            break;
        case 'W':
            opt->slow_seconds = strtod(optarg, NULL);
            break;
        case 'm':
            opt->max_seconds = strtod(optarg, NULL);
            break;
        case 'S':
            opt->seed = number(optarg);
            break;
        case 'v':
            opt->samples = number(optarg);
            break;
        case 't':
            opt->bearer = optarg;
            break;
        default:
            usage();
        }
    }
    if (!opt->dialect || !opt->port || opt->size < CONTENT_STAMP || !opt->clients || !opt->count || optind != argc)
        usage();
}

static int by_value(const void *a, const void *b)
{
    double d = *(const double *)a - *(const double *)b;
    return (d > 0) - (d < 0);
}

static double percentile_ms(const struct load_result *r, double share)
{
    uint64_t i = (uint64_t)(share * (double)r->finished);
    return r->finished ? r->latency[i < r->finished ? i : r->finished - 1] * 1e3 : 0;
}

static void report(const struct load_options *opt, struct load_result *r)
{
    qsort(r->latency, r->finished, sizeof *r->latency, by_value);
    for (char *p = r->first_error; *p; p++)
        if (!isprint((unsigned char)*p) || *p == '"' || *p == '\\')
            *p = ' ';
    printf("{\"uploads\": %" PRIu64 ", \"failed\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"seconds\": %.6f, "
           "\"p50_ms\": %.3f, \"p99_ms\": %.3f, \"client_cpu_s\": %.3f, \"began\": %.6f, \"first_error\": \"%s\", "
           "\"samples\": [",
           r->finished, r->failed, r->finished * opt->size, r->ended - r->began, percentile_ms(r, .50),
           percentile_ms(r, .99), r->cpu, r->began, r->first_error);
    for (size_t i = 0; i < r->sample_count; i++)
        printf("%s{\"path\": \"%s\", \"sha256\": \"%s\"}", i ? ", " : "", r->samples[i].path, r->samples[i].hex);
    puts("]}");
}

int main(int argc, char **argv)
{
    struct load_options opt = {.clients = 1, .count = 1, .max_seconds = 120, .samples = 4};
    struct load_result result;

    options_read(argc, argv, &opt);
    if (!load_run(&opt, &result)) {
        fprintf(stderr, "loadgen: %s\n", strerror(errno));
        return 2;
    }
    report(&opt, &result);
    int status = result.failed ? 1 : 0;
    load_free(&result);
    return status;
}
