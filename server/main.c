/*
 * main - reads what is asked for, opens the two stores, has the server put together, and then waits for signals: this
 * thread does nothing else, so a signal is an ordinary value here and interrupts nobody.
 *
 * Exit status: 0 fine, 1 it could not start or finish, 2 the arguments or settings are wrong; of --scrub also 3.
 */
#include "backends/registry.h"
#include "core/blob_store.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/clock_record.h"
#include "core/config/config.h"
#include "core/fault.h"
#include "core/log.h"
#include "core/metrics.h"
#include "core/node_clock.h"
#include "core/text/bytebuf.h"
#include "server/assembly.h"
#include "server/auth/auth.h"
#include "server/auth/auth_tokens.h"
#include "server/command_line.h"
#include "server/http/http_server.h"
#include "server/http/tls.h"
#include "server/scrub_command.h"
#include "server/service_notify.h"
#include "server/store_owner.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define EXIT_SETTINGS  2
#define SAME_SIGNAL_US 500000

#define CERTIFICATE_TEXT_BYTES 512

struct program {
    struct command_line cmd;
    struct config *cfg;
    struct logger *log;
    struct metrics *metrics;
    struct blob_store *store;
    struct session_store *sessions;
    struct node_clock *clock;
    struct assembly *assembly;
};

static int complain(const char *text)
{
    fprintf(stderr, "blobd: %s\n", text);
    return EXIT_FAILURE;
}

/* ---- settings ---- */

static enum blob_status load_config(const struct command_line *cmd, struct config **out, struct config_report *report)
{
    const struct config_sources sources = {
        .file = cmd->file, .environment = environ, .sets = cmd->sets, .set_count = cmd->set_count};
    return config_load(&sources, out, report);
}

static bool read_settings(struct program *p)
{
    struct config_report report;
    config_report_init(&report);
    bool ok = load_config(&p->cmd, &p->cfg, &report) == BLOB_OK;
    fputs(report.errors.data, stderr);
    fputs(report.warnings.data, stderr);
    config_report_release(&report);
    if (!ok && p->cmd.file == NULL && p->cmd.set_count == 0)
        complain(
            "no settings were given: blobd -c FILE reads some, blobd --help lists all; in the sources, ./scripts/run "
            "makes a key, a token and a FILE, and starts");
    return ok;
}

static void print_buffer(void (*write)(struct bytebuf *out))
{
    struct bytebuf text;
    bytebuf_init(&text);
    write(&text);
    fwrite(text.data, 1, text.len, stdout);
    bytebuf_release(&text);
}

static void print_config(const struct config *cfg)
{
    struct bytebuf text;
    bytebuf_init(&text);
    config_print(cfg, &text);
    fwrite(text.data, 1, text.len, stdout);
    bytebuf_release(&text);
}

/* ---- the process ---- */

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/*
 * One arena: with one for each thread or two, a thousand slow uploads leave holes everywhere, and what is freed stays
 * resident. Blocks the size of a body's piece are mapped on their own, and leave when they are freed.
 */
static void tame_allocator(void)
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_TRIM_THRESHOLD, 256 << 10);
    mallopt(M_MMAP_THRESHOLD, 48 << 10);
    http_server_prepare();
}

/* The signals this thread waits for; blocked before any other thread exists. */
static void block_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* ---- serving ---- */

static enum blob_status open_parts(struct program *p, struct blob_error *err)
{
    const struct config *cfg = p->cfg;
    enum blob_status st =
        logger_new((enum log_format)cfg->log.format, (enum log_level)cfg->log.level, cfg->log.file, &p->log, err);
    if (st == BLOB_OK && cfg->storage.backend == CONFIG_BACKEND_DISK)
        st = store_owner_must_be_us(cfg->disk.root, err);
    if (st == BLOB_OK)
        st = registry_open_store(cfg, false, p->log, &p->store, err);
    if (st == BLOB_OK)
        st = registry_open_sessions(cfg, p->log, &p->sessions, err);
    if (st != BLOB_OK)
        return st;
    p->metrics = metrics_new();
    blob_store_attach_metrics(p->store, p->metrics);
    session_store_attach_metrics(p->sessions, p->metrics);
    p->clock = node_clock_new(cfg->retention.sweep_interval_ms);
    clock_record_start(p->store, p->clock, p->log);
    p->sessions->clock = p->clock;
    return assembly_new(cfg, p->store, p->sessions, p->log, p->metrics, &p->assembly, err);
}

static void close_parts(struct program *p)
{
    assembly_free(p->assembly);
    session_store_close(p->sessions);
    node_clock_free(p->clock);
    blob_store_close(p->store);
    if (p->metrics != NULL)
        metrics_free(p->metrics);
    if (p->log != NULL)
        logger_free(p->log);
}

/* A line of the log for each line of text. */
static void log_lines(struct logger *log, enum log_level level, const char *text)
{
    for (size_t len; *text != '\0'; text += len + (text[len] != '\0')) {
        len = strcspn(text, "\n");
        log_line(log, level, NULL, "%.*s", (int)len, text);
    }
}

/* NULL, and said in the log, where they are wrong. */
static struct config *read_settings_again(struct program *p)
{
    struct config *fresh = NULL;
    struct config_report report;
    config_report_init(&report);
    if (load_config(&p->cmd, &fresh, &report) != BLOB_OK) {
        log_line(p->log, LOG_ERROR, NULL, "the settings of before stay, for these are wrong:");
        log_lines(p->log, LOG_ERROR, report.errors.data);
    }
    config_report_release(&report);
    return fresh;
}

/* Names what fresh changes and does not take effect; false: something does so. */
static bool all_takes_effect(struct program *p, const struct config *fresh)
{
    struct bytebuf restart;
    bytebuf_init(&restart);
    config_needs_restart(p->cfg, fresh, &restart);
    bool all = restart.len == 0;
    log_lines(p->log, LOG_WARN, restart.data);
    bytebuf_release(&restart);
    return all;
}

/* Whoever took a token away must be able to rely on "reloaded": it stands alone only where everything was taken over.
 */
static void reload(struct program *p)
{
    service_notify("RELOADING=1");
    struct config *fresh = read_settings_again(p);
    bool whole = fresh != NULL && all_takes_effect(p, fresh);
    whole = assembly_reload(p->assembly, fresh) && whole;
    blob_store_reload(p->store);
    if (fresh != NULL)
        logger_set_level(p->log, (enum log_level)fresh->log.level);
    config_free(fresh);
    service_notify("READY=1");
    if (whole)
        log_line(p->log, LOG_INFO, NULL, "reloaded");
    else
        log_line(p->log, LOG_WARN, NULL, "reloaded, but for what the lines before this name");
}

static void reopen_log(struct program *p)
{
    struct blob_error err;
    if (logger_reopen(p->log, &err) != BLOB_OK)
        log_line(p->log, LOG_ERROR, NULL, "the old log stays open: %s", err.text);
}

/* Returns when it is time to stop. */
static void wait_for_signals(struct program *p, const sigset_t *set)
{
    for (;;) {
        int number;
        if (sigwait(set, &number) != 0)
            continue;
        switch (number) {
        case SIGHUP:
            reload(p);
            break;
        case SIGUSR1:
            reopen_log(p);
            break;
        default:
            log_line(p->log, LOG_INFO, NULL,
                     "stopping: signal %d; draining, at most %lld s; a second signal stops at once", number,
                     (long long)(p->cfg->server.drain_delay_ms + p->cfg->server.drain_timeout_ms) / 1000);
            return;
        }
    }
}

/*
 * A drain that can be cut short. What is acknowledged is durable, and nothing else is to be kept: the process ends
 * where it stands. A terminal signals all that runs in it, and a script that waits for blobd passes its own signal on:
 * what comes right behind the first signal is still that one.
 */
struct hurry {
    struct program *p;
    sigset_t set;
    int64_t since_us;
    pthread_t thread;
    bool waits;
    atomic_bool over;
};

static void *hurry_run(void *arg)
{
    struct hurry *h = arg;
    int number;
    for (;;) {
        int rc = sigwait(&h->set, &number);
        if (atomic_load(&h->over))
            return NULL;
        if (rc != 0 || (number != SIGTERM && number != SIGINT) || clock_steady_us() - h->since_us < SAME_SIGNAL_US)
            continue;
        log_line(h->p->log, LOG_WARN, NULL, "stopped at once: signal %d again", number);
        _exit(EXIT_SUCCESS);
    }
}

static void hurry_begin(struct hurry *h)
{
    h->since_us = clock_steady_us();
    h->waits = pthread_create(&h->thread, NULL, hurry_run, h) == 0;
}

static void hurry_end(struct hurry *h)
{
    if (h->waits) {
        atomic_store(&h->over, true);
        pthread_kill(h->thread, SIGTERM); /* it waits for that one, and nobody else gets it */
        pthread_join(h->thread, NULL);
    }
}

static bool drain(struct program *p, const sigset_t *signals)
{
    struct hurry hurry = {.p = p, .set = *signals};
    hurry_begin(&hurry);
    bool drained = assembly_drain(p->assembly, p->cfg->server.drain_delay_ms, p->cfg->server.drain_timeout_ms);
    hurry_end(&hurry);
    return drained;
}

static int serve(struct program *p)
{
    struct blob_error err;
    sigset_t signals;
    tame_allocator();
    raise_descriptor_limit();
    block_signals(&signals);
    enum blob_status st = open_parts(p, &err);
    if (st == BLOB_OK)
        st = assembly_start(p->assembly, &err);
    if (st != BLOB_OK) {
        complain(err.text);
        close_parts(p);
        return EXIT_FAILURE;
    }
    service_notify("READY=1");
    wait_for_signals(p, &signals);
    service_notify("STOPPING=1");
    if (!drain(p, &signals)) {
        /* What still runs works on what would be freed. Everything acknowledged is durable. */
        log_line(p->log, LOG_WARN, NULL, "stopped with work unfinished");
        _exit(EXIT_SUCCESS);
    }
    log_line(p->log, LOG_INFO, NULL, "stopped");
    close_parts(p);
    return EXIT_SUCCESS;
}

static void report_step(bool ok, const char *what, const char *meaning, void *arg)
{
    (void)arg;
    printf("%-5s %s%s%s\n", ok ? "ok" : "FAIL", what, meaning[0] != '\0' ? ": " : "", meaning);
}

/* Opens it for a command: what that makes is the server's to go on with. */
static enum blob_status open_store(struct program *p, bool checking, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    if (p->cfg->storage.backend == CONFIG_BACKEND_DISK)
        st = store_owner_become(p->cfg->disk.root, err);
    return st == BLOB_OK ? registry_open_store(p->cfg, checking, NULL, &p->store, err) : st;
}

/* Why a command did not come to its work, and what to do where a server is in its way. */
static int complain_of_store(const struct program *p, enum blob_status st, const struct blob_error *err,
                             const char *advice)
{
    complain(err->text);
    if (st == BLOB_E_CONFLICT && p->cfg->storage.backend == CONFIG_BACKEND_DISK)
        complain(advice);
    return EXIT_FAILURE;
}

static int check_storage(struct program *p)
{
    struct blob_error err = {0};
    enum blob_status st = open_store(p, true, &err);
    if (st != BLOB_OK)
        return complain_of_store(p, st, &err,
                                 "stop that server and check again (systemctl stop blobd; uploads go on after its "
                                 "start); what it finds wrong while it serves is in /readyz and its log");
    st = blob_store_self_check(p->store, report_step, NULL, &err);
    blob_store_close(p->store);
    return st == BLOB_OK ? EXIT_SUCCESS : complain(err.text);
}

/* The files that a start and a HUP read: settings that name a wrong one are not right. Each is told of. */
static int check_files(const struct config *cfg)
{
    struct blob_error err;
    int status = EXIT_SUCCESS;
    if (cfg->tls.enabled) {
        const struct http_tls_files files = {.cert_file = cfg->tls.cert_file, .key_file = cfg->tls.key_file};
        struct tls_server *tls = NULL;
        char soon[CERTIFICATE_TEXT_BYTES];
        if (tls_server_new(&files, &tls, &err) != BLOB_OK)
            status = complain(err.text);
        else if (tls_server_ends_soon(tls, soon, sizeof soon))
            fprintf(stderr, "blobd: warning: %s\n", soon);
        tls_server_free(tls);
    }
    if ((enum auth_mode)cfg->auth.mode == AUTH_TOKENS) {
        struct token_list *tokens = NULL;
        if (token_list_load(cfg->auth.tokens_file, &tokens, &err) != BLOB_OK)
            status = complain(err.text);
        else if (token_list_count(tokens) == 0)
            fprintf(stderr, "blobd: " TOKENS_NONE "\n", cfg->auth.tokens_file);
        token_list_free(tokens);
    }
    if (status == EXIT_SUCCESS)
        puts("the settings are right");
    return status == EXIT_SUCCESS ? status : EXIT_SETTINGS;
}

static int scrub(struct program *p)
{
    struct blob_error err = {0};
    signal(SIGPIPE, SIG_IGN);
    enum blob_status st = open_store(p, false, &err);
    if (st != BLOB_OK)
        return complain_of_store(p, st, &err,
                                 "stop that server and scrub again (systemctl stop blobd; uploads go on after its "
                                 "start), or have it scrub while it serves: retention.scrub_rate, and a restart");
    int status = scrub_command(p->store);
    blob_store_close(p->store);
    return status;
}

static int run(struct program *p)
{
    if (p->cmd.action == COMMAND_VERSION) {
        puts("blobd " BLOBD_VERSION);
        return EXIT_SUCCESS;
    }
    if (p->cmd.action == COMMAND_HELP) {
        fputs(command_line_usage, stdout);
        fputs("\nsettings:\n", stdout);
        print_buffer(config_help);
        return EXIT_SUCCESS;
    }
    if (!read_settings(p))
        return EXIT_SETTINGS;
    switch (p->cmd.action) {
    case COMMAND_CHECK_CONFIG:
        return check_files(p->cfg);
    case COMMAND_PRINT_CONFIG:
        print_config(p->cfg);
        return EXIT_SUCCESS;
    case COMMAND_CHECK_STORAGE:
        return check_storage(p);
    case COMMAND_SCRUB:
        return scrub(p);
    default:
        return serve(p);
    }
}

/* libcurl, and libs3 by it, would send what they ask by way of a proxy that the environment names for other programs:
 * bearers and credentials with it, in clear where the address is http. */
static void forget_proxies(void)
{
    static const char *const names[] = {"http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        CHECK(unsetenv(names[i]) == 0);
}

int main(int argc, char **argv)
{
    struct program program = {0};
    struct blob_error err;
    forget_proxies();
    fault_arm_from_environment();
    if (command_line_parse(argc, argv, &program.cmd, &err) != BLOB_OK) {
        complain(err.text);
        return EXIT_SETTINGS;
    }
    int status = run(&program);
    config_free(program.cfg);
    command_line_release(&program.cmd);
    return status;
}
