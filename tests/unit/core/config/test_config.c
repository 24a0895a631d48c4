/* config - every source, their order, and above all what a mistake is answered with. */
#include "core/config/config.h"
#include "core/config/config_options.h"
#include "tests/rig/unit_main.h"

#include <string.h>
#include <unistd.h>

/* What the defaults need to be a whole configuration. */
static const char *const minimum[] = {"tls.enabled=false", "auth.mode=none", "storage.disk.root=/srv/blobd"};
#define MINIMUM 3

struct load {
    struct config *cfg;
    enum blob_status st;
    struct config_report report;
};

static struct load load_from(const struct config_sources *sources)
{
    struct load l = {0};
    config_report_init(&l.report);
    l.st = config_load(sources, &l.cfg, &l.report);
    CU_ASSERT_EQUAL(l.st == BLOB_OK, l.cfg != NULL);
    CU_ASSERT_EQUAL(l.st == BLOB_OK, l.report.errors.len == 0);
    return l;
}

static void load_release(struct load *l)
{
    config_free(l->cfg);
    config_report_release(&l->report);
}

/* A file with this text; then environment (may be NULL). */
static struct load load_text_and_environment(const char *text, size_t len, char *const *environment)
{
    char path[] = "/tmp/blobd-test-config-XXXXXX";
    int fd = mkstemp(path);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    CU_ASSERT_EQUAL(write(fd, text, len), (ssize_t)len);
    close(fd);
    struct config_sources sources = {.file = path, .environment = environment};
    struct load l = load_from(&sources);
    unlink(path);
    return l;
}

static struct load load_text(const char *text)
{
    return load_text_and_environment(text, strlen(text), NULL);
}

static struct load load_set(const char *set)
{
    const char *sets[MINIMUM + 1];
    memcpy(sets, minimum, sizeof minimum);
    sets[MINIMUM] = set;
    struct config_sources sources = {.sets = sets, .set_count = MINIMUM + 1};
    return load_from(&sources);
}

static void check_says(const struct load *l, const char *what)
{
    CU_ASSERT_PTR_NOT_NULL(strstr(l->report.errors.data, what));
    if (!strstr(l->report.errors.data, what))
        printf("\n  wanted: %s\n  got: %s", what, l->report.errors.data);
}

#define MINIMAL_FILE                                                                                                   \
    "[tls]\nenabled=false\n[auth]\nmode=none\n"                                                                        \
    "[storage.disk]\nroot = /srv/blobd\n"

static void test_defaults(void)
{
    struct config_sources sources = {.sets = minimum, .set_count = MINIMUM};
    struct load l = load_from(&sources);
    CU_ASSERT_EQUAL_FATAL(l.st, BLOB_OK);
    CU_ASSERT_STRING_EQUAL(l.cfg->server.listen, "0.0.0.0:8887");
    CU_ASSERT_EQUAL(l.cfg->server.event_threads, 0);
    CU_ASSERT_EQUAL(l.cfg->server.max_memory_bytes, 512u << 20);
    CU_ASSERT_EQUAL(l.cfg->server.head_timeout_ms, 15000);
    CU_ASSERT_PTR_NULL(l.cfg->tls.cert_file);
    CU_ASSERT_EQUAL(l.cfg->storage.backend, CONFIG_BACKEND_DISK);
    CU_ASSERT_EQUAL(l.cfg->uploads.max_size_bytes, 0);
    CU_ASSERT_EQUAL(l.cfg->uploads.sync, CONFIG_SYNC_APPEND);
    CU_ASSERT_EQUAL(l.cfg->retention.temp_file_retention_ms, INT64_C(30) * 24 * 3600 * 1000);
    CU_ASSERT_EQUAL(l.cfg->log.level, CONFIG_LOG_INFO);
    CU_ASSERT_TRUE(l.cfg->log.access);
    load_release(&l);
}

static void test_file(void)
{
    struct load l = load_text("\xef\xbb\xbf; a comment\n# another\n\n" MINIMAL_FILE
                              "  journal = false   ; indented, with a comment behind\n"
                              "[storage]\nbackend=disk\n"
                              "[server]\nlisten: [::1]:9000\nadmin_listen=\nmax_memory=1G\nevent_threads=auto\r\n"
                              "[uploads]\nmax_size=10G\nsync=complete\ncheckpoint_interval=250ms\n"
                              "[log]\nlevel=debug");
    CU_ASSERT_EQUAL_FATAL(l.st, BLOB_OK);
    CU_ASSERT_STRING_EQUAL(l.cfg->disk.root, "/srv/blobd");
    CU_ASSERT_FALSE(l.cfg->disk.journal);
    CU_ASSERT_STRING_EQUAL(l.cfg->server.listen, "[::1]:9000");
    CU_ASSERT_PTR_NULL(l.cfg->server.admin_listen);
    CU_ASSERT_EQUAL(l.cfg->server.max_memory_bytes, 1u << 30);
    CU_ASSERT_EQUAL(l.cfg->uploads.max_size_bytes, UINT64_C(10) << 30);
    CU_ASSERT_EQUAL(l.cfg->uploads.sync, CONFIG_SYNC_COMPLETE);
    CU_ASSERT_EQUAL(l.cfg->uploads.checkpoint_interval_ms, 250);
    CU_ASSERT_EQUAL(l.cfg->log.level, CONFIG_LOG_DEBUG);
    load_release(&l);
}

static void test_precedence(void)
{
    char path[] = "/tmp/blobd-test-config-XXXXXX";
    int fd = mkstemp(path);
    CU_ASSERT_TRUE_FATAL(fd >= 0);
    static const char text[] = MINIMAL_FILE "[server]\nworker_threads=1\nworker_queue=1\nmax_connections=1\n";
    CU_ASSERT_EQUAL(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    char workers[] = "BLOBD_SERVER_WORKER_THREADS=2", queue[] = "BLOBD_SERVER_WORKER_QUEUE=2";
    char root[] = "BLOBD_STORAGE_DISK_ROOT=/var/lib/blobd", other[] = "PATH=/bin";
    char *environment[] = {workers, queue, root, other, NULL};
    const char *sets[] = {"server.worker_threads=3", "server.worker_threads=4"};
    struct config_sources sources = {.file = path, .environment = environment, .sets = sets, .set_count = 2};
    struct load l = load_from(&sources);
    unlink(path);
    CU_ASSERT_EQUAL_FATAL(l.st, BLOB_OK);
    CU_ASSERT_EQUAL(l.cfg->server.worker_threads, 4);
    CU_ASSERT_EQUAL(l.cfg->server.worker_queue, 2);
    CU_ASSERT_EQUAL(l.cfg->server.max_connections, 1);
    CU_ASSERT_STRING_EQUAL(l.cfg->disk.root, "/var/lib/blobd");
    CU_ASSERT_EQUAL(l.report.warnings.len, 0);
    load_release(&l);
}

static void check_set_refused(const char *set, const char *says)
{
    struct load l = load_set(set);
    CU_ASSERT_EQUAL(l.st, BLOB_E_INVALID);
    check_says(&l, says);
    load_release(&l);
}

static void test_bad_values(void)
{
    check_set_refused("server.worker_threads=0",
                      "--set: server.worker_threads: \"0\" is no good: expected a number from 1 to 1024");
    check_set_refused("server.worker_threads=-4", "a number from 1 to 1024");
    check_set_refused("server.worker_threads=4 ", "a number from 1 to 1024");
    check_set_refused("server.worker_threads=four", "a number from 1 to 1024");
    check_set_refused("server.worker_threads=", "a number from 1 to 1024");
    check_set_refused("server.worker_threads=auto", "a number from 1 to 1024");
    check_set_refused("server.event_threads=257", "a number from 1 to 256, or auto");
    check_set_refused("server.max_memory=512m", "expected a size from 32M to 1T (16K, 8M, 1G)\n");
    check_set_refused("server.max_memory=1K", "from 32M to 1T");
    check_set_refused("server.max_memory=99999999999999999999G", "from 32M to 1T");
    check_set_refused("uploads.max_size=1.5G", "or nothing");
    check_set_refused("server.head_timeout=15", "expected a duration from 1s to 1h (250ms, ");
    check_set_refused("server.head_timeout=999ms", "from 1s to 1h");
    check_set_refused("server.head_timeout=0", "from 1s to 1h");
    check_set_refused("tls.enabled=yes", "expected true or false");
    check_set_refused("storage.backend=Disk", "expected disk or s3");
    check_set_refused("uploads.sync=appen", "expected append, complete or never");
    check_set_refused("uploads.sync=", "expected append, complete or never");
    check_set_refused("uploads.sync=append|complete", "expected append, complete or never");
    check_set_refused("storage.disk.root=/a\nb", "expected a line of UTF-8");
    check_set_refused("storage.disk.root=/a\xff", "expected a line of UTF-8");
    check_set_refused("storage.disk.root=/a ;b", "expected a line of UTF-8");
    check_set_refused("storage.disk.root= /a", "expected a line of UTF-8");
}

static void test_bad_sets(void)
{
    check_set_refused("server.nothing=1", "--set server.nothing: no such setting\n");
    check_set_refused("sever.listen=a:1", "--set sever.listen: no such setting; did you mean server.listen?\n");
    check_set_refused("server=1", "--set server: expected section.key=value");
    check_set_refused("server.listen", "--set server.listen: expected section.key=value");
    check_set_refused("", "expected section.key=value");
    check_set_refused("=", "expected section.key=value");
    check_set_refused(".=", "no such setting");
    check_set_refused("listen=a.b:1", "--set listen: expected section.key=value");
}

static void test_bad_file(void)
{
    struct load l = load_text("stray=1\n[server]\nlisten=:8887\nnothing=1\nworker_threads=x\nworker_threads=2\n"
                              "no equals sign\n[sever]\nlisten=a:1\n");
    CU_ASSERT_EQUAL(l.st, BLOB_E_INVALID);
    check_says(&l, ":1: stray stands before any [section]\n");
    check_says(&l, ":4: unknown key nothing in [server]\n");
    check_says(&l, ":5: server.worker_threads: \"x\" is no good: expected a number from 1 to 1024\n");
    check_says(&l, ":6: server.worker_threads: given twice, first on line 5\n");
    check_says(&l, ":7: expected [section], key = value, or a comment\n");
    check_says(&l, ":9: unknown section [sever]; did you mean [server]?\n");
    CU_ASSERT_TRUE(strstr(l.report.errors.data, ":6: ") < strstr(l.report.errors.data, ":7: "));
    CU_ASSERT_TRUE(strstr(l.report.errors.data, ":7: ") < strstr(l.report.errors.data, ":9: "));
    load_release(&l);
    struct config_sources sources = {.file = "/nonexistent/blobd.conf"};
    l = load_from(&sources);
    check_says(&l, "/nonexistent/blobd.conf: cannot be read: No such file");
    load_release(&l);
    sources.file = "/tmp";
    l = load_from(&sources);
    check_says(&l, "/tmp: cannot be read: Is a directory");
    load_release(&l);
}

static void test_long_lines(void)
{
    char text[24000] = MINIMAL_FILE "[storage.s3]\ncred_file=/";
    size_t start = strlen(text);
    memset(text + start, 'x', 1500);
    struct load l = load_text(text);
    CU_ASSERT_EQUAL_FATAL(l.st, BLOB_OK);
    CU_ASSERT_EQUAL(strlen(l.cfg->s3.cred_file), 1501);
    load_release(&l);
    memset(text + start, 'x', 20000);
    l = load_text(text);
    check_says(&l, ":8: the line is too long\n");
    load_release(&l);
    static const char nul[] = MINIMAL_FILE "[storage.s3]\nprefix=a\0b\n";
    l = load_text_and_environment(nul, sizeof nul - 1, NULL);
    check_says(&l, ":8: the line holds a NUL byte\n");
    load_release(&l);
}

static void test_environment(void)
{
    char unknown[] = "BLOBD_SERVER_LISTNE=x", ours[] = "BLOBD_TEST_SLOW=2", bad[] = "BLOBD_SERVER_LISTEN=nowhere";
    char *environment[] = {unknown, ours, NULL, NULL};
    struct load l = load_text_and_environment(MINIMAL_FILE, strlen(MINIMAL_FILE), environment);
    CU_ASSERT_EQUAL(l.st, BLOB_OK);
    CU_ASSERT_STRING_EQUAL(l.report.warnings.data,
                           "BLOBD_SERVER_LISTNE: no such setting; ignored; did you mean BLOBD_SERVER_LISTEN?\n");
    load_release(&l);
    char workers[] = "BLOBD_SERVER_WORKER_THREADS=0";
    environment[2] = workers;
    l = load_text_and_environment(MINIMAL_FILE, strlen(MINIMAL_FILE), environment);
    check_says(
        &l, "BLOBD_SERVER_WORKER_THREADS: server.worker_threads: \"0\" is no good: expected a number from 1 to 1024\n");
    load_release(&l);
    environment[2] = bad;
    l = load_text_and_environment(MINIMAL_FILE, strlen(MINIMAL_FILE), environment);
    check_says(&l, "BLOBD_SERVER_LISTEN: server.listen: expected host:port");
    load_release(&l);
}

static void test_needs(void)
{
    struct config_sources none = {0};
    struct load l = load_from(&none);
    check_says(&l, "tls.cert_file: must be set while tls.enabled is true\n");
    check_says(&l, "tls.key_file: must be set while tls.enabled is true\n");
    check_says(&l, "auth.tokens_file: must be set when auth.mode is tokens\n");
    check_says(&l, "storage.disk.root: must be set when storage.backend is disk\n");
    CU_ASSERT_PTR_NULL(strstr(l.report.errors.data, "sessions.path"));
    load_release(&l);
    check_set_refused("auth.mode=verify", "auth.verify_url: must be set when auth.mode is verify");
    check_set_refused("storage.backend=s3", "storage.s3.bucket: must be set when storage.backend is s3");
    check_set_refused("sessions.store=redis", "sessions.redis.url: must be set");
    check_set_refused("server.listen=", "server.listen: must be set");
    struct load bare =
        load_text("[tls]\nenabled=false\n[auth]\nmode=none\n[storage]\nbackend=s3\n[storage.s3]\nbucket=b\n");
    check_says(&bare, "sessions.path: must be set when there is no storage.disk.root");
    load_release(&bare);
    struct load s3 = load_text(MINIMAL_FILE "[storage]\nbackend=s3\n[storage.s3]\nbucket=b\ncred_id=AK\n");
    check_says(&s3, "storage.s3.cred_secret: must be set beside storage.s3.cred_id");
    load_release(&s3);
    struct load redis = load_text(MINIMAL_FILE "[sessions]\nstore=redis\n[sessions.redis]\nsentinels=a:26379\n");
    check_says(&redis, "sessions.redis.master_name: must be set beside sessions.redis.sentinels");
    load_release(&redis);
}

/* Nodes that share a directory, but not their sessions, lose each other's uploads. */
static void test_shared_needs_redis(void)
{
    check_set_refused("storage.disk.shared=true", "--set: storage.disk.shared: true needs sessions.store=redis");
    struct load l = load_text(MINIMAL_FILE "shared=true\n[sessions]\npath=/srv/mine.db\n");
    check_says(&l, ":7: storage.disk.shared: true needs sessions.store=redis");
    load_release(&l);
    l = load_text(MINIMAL_FILE "shared=true\n[sessions]\nstore=redis\n[sessions.redis]\nurl=redis://127.0.0.1\n");
    CU_ASSERT_EQUAL(l.st, BLOB_OK);
    load_release(&l);
    l = load_text(MINIMAL_FILE "shared=false\n");
    CU_ASSERT_EQUAL(l.st, BLOB_OK);
    load_release(&l);
    l = load_text(MINIMAL_FILE "shared=true\n[storage]\nbackend=s3\n[storage.s3]\nbucket=b\n");
    CU_ASSERT_EQUAL(l.st, BLOB_OK);
    load_release(&l);
}

static void test_forms(void)
{
    check_set_refused("sessions.redis.url=localhost",
                      "expected redis://[[user]:password@]host[:port][/db] or unix:///path[?db=N]\n");
    struct load socket = load_set("sessions.redis.url=unix:///run/redis/redis.sock?db=1");
    CU_ASSERT_EQUAL(socket.st, BLOB_OK);
    load_release(&socket);
    check_set_refused("storage.s3.endpoint=minio:9000", "expected https://... or http://...\n");
    check_set_refused("storage.s3.endpoint=https://", "expected https://... or http://...\n");
    check_set_refused("auth.verify_url=ftp://pbx", "expected https://... or http://...\n");
    check_set_refused("server.listen=8887", "server.listen: expected host:port");
    check_set_refused("server.listen=a:65536", "server.listen: expected host:port");
    check_set_refused("server.listen=::1:80", "server.listen: expected host:port");
    check_set_refused("server.admin_listen=a:", "server.admin_listen: expected host:port");
    struct load l = load_text("[server]\nlisten=nonsense\n");
    check_says(&l, ":2: server.listen: expected host:port or [IPv6 address]:port\n");
    load_release(&l);
}

/* A directory of the store that the working directory decides about is another one with each start. */
static void test_paths(void)
{
    check_set_refused("storage.disk.root=data",
                      "--set: storage.disk.root: expected an absolute path, without quotes\n");
    check_set_refused("storage.disk.root=\"/srv/blobd\"", "storage.disk.root: expected an absolute path");
    check_set_refused("log.file=/nonexistent/blobd.log",
                      "--set: log.file: expected a file in a directory that is there; "
                      "/nonexistent: No such file");
    check_set_refused("log.file=/dev/null/blobd.log", "/dev/null: Not a directory");
    static const char *const fine[] = {"storage.disk.root=/", "sessions.path=/x.db", "log.file=/x",
                                       "log.file=blobd.log", "log.file="};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        struct load l = load_set(fine[i]);
        CU_ASSERT_EQUAL(l.st, BLOB_OK);
        load_release(&l);
    }
}

static void test_ports(void)
{
    static const char says[] = "server.admin_listen: server.listen has this port already";
    check_set_refused("server.admin_listen=0.0.0.0:8887", says);
    check_set_refused("server.admin_listen=127.0.0.1:8887", says);
    check_set_refused("server.listen=127.0.0.1:8886", says);
    struct load l = load_text(MINIMAL_FILE "[server]\nlisten=[::1]:80\nadmin_listen=[::1]:80\n");
    check_says(&l, ":9: server.admin_listen: ");
    load_release(&l);
    static const char *const fine[] = {"listen=127.0.0.1:80\nadmin_listen=127.0.0.2:80\n", "admin_listen=\n",
                                       "listen=127.0.0.1:0\nadmin_listen=127.0.0.1:0\n"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        char text[256];
        snprintf(text, sizeof text, MINIMAL_FILE "[server]\n%s", fine[i]);
        l = load_text(text);
        CU_ASSERT_EQUAL(l.st, BLOB_OK);
        load_release(&l);
    }
}

static const char *const secrets[] = {"tls.enabled=false",
                                      "auth.mode=none",
                                      "storage.disk.root=/srv/blobd",
                                      "storage.s3.cred_id=AKID",
                                      "storage.s3.cred_secret=hunter2",
                                      "sessions.redis.url=redis://pbx:hunter2@192.0.2.1:6379/1",
                                      "auth.verify_url=https://user:hun@ter2@pbx/check",
                                      "uploads.max_size=3000000",
                                      "server.event_threads=4",
                                      "retention.sweep_interval=90s",
                                      "sessions.timeout=36h"};
#define SECRETS (sizeof secrets / sizeof secrets[0])

static void test_print(void)
{
    struct config_sources sources = {.sets = secrets, .set_count = SECRETS};
    struct load l = load_from(&sources);
    CU_ASSERT_EQUAL_FATAL(l.st, BLOB_OK);
    struct bytebuf out;
    bytebuf_init(&out);
    config_print(l.cfg, &out);
    CU_ASSERT_PTR_NULL(strstr(out.data, "hun"));
    CU_ASSERT_PTR_NULL(strstr(out.data, "ter2"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\ncred_secret=********\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nurl=redis://pbx:********@192.0.2.1:6379/1\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nverify_url=https://user:********@pbx/check\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nmax_size=3000000\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nsweep_interval=90s\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nmax_memory=512M\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\nevent_threads=4\n"));
    struct load masked = load_text(out.data);
    CU_ASSERT_EQUAL(masked.st, BLOB_E_INVALID);
    check_says(&masked, "storage.s3.cred_secret: this is the mask that --print-config puts in place of a secret");
    check_says(&masked, "sessions.redis.url: this is the mask");
    CU_ASSERT_PTR_NULL(strstr(masked.report.errors.data, "192.0.2.1"));
    load_release(&masked);
    bytebuf_release(&out);
    load_release(&l);
}

static void test_print_reads_back(void)
{
    const char *open_ones[SECRETS - 4];
    memcpy(open_ones, secrets, 3 * sizeof *secrets);
    memcpy(open_ones + 3, secrets + 7, (SECRETS - 7) * sizeof *secrets);
    struct config_sources sources = {.sets = open_ones, .set_count = SECRETS - 4};
    struct load l = load_from(&sources);
    CU_ASSERT_EQUAL_FATAL(l.st, BLOB_OK);
    struct bytebuf first, second, differ;
    bytebuf_init(&first);
    bytebuf_init(&second);
    bytebuf_init(&differ);
    config_print(l.cfg, &first);
    struct load again = load_text(first.data);
    CU_ASSERT_EQUAL_FATAL(again.st, BLOB_OK);
    config_print(again.cfg, &second);
    CU_ASSERT_STRING_EQUAL(first.data, second.data);
    config_needs_restart(l.cfg, again.cfg, &differ);
    CU_ASSERT_STRING_EQUAL(differ.data, "");
    load_release(&again);
    load_release(&l);
    bytebuf_release(&differ);
    bytebuf_release(&second);
    bytebuf_release(&first);
}

static void test_reload(void)
{
    struct load a = load_set("log.level=debug"), b = load_set("server.listen=0.0.0.0:1");
    struct bytebuf out;
    bytebuf_init(&out);
    config_needs_restart(a.cfg, b.cfg, &out);
    CU_ASSERT_STRING_EQUAL(out.data, "server.listen: the change takes effect after a restart\n");
    bytebuf_release(&out);
    load_release(&a);
    load_release(&b);
}

static void test_secret_not_echoed(void)
{
    struct load l = load_set("storage.s3.cred_secret=hunter2\x01");
    CU_ASSERT_EQUAL(l.st, BLOB_E_INVALID);
    CU_ASSERT_PTR_NULL(strstr(l.report.errors.data, "hunter2"));
    load_release(&l);
}

static void test_table(void)
{
    size_t count;
    const struct config_option *table = config_option_table(&count);
    struct bytebuf a, b;
    bytebuf_init(&a);
    bytebuf_init(&b);
    for (size_t i = 0; i < count; i++) {
        CU_ASSERT_PTR_EQUAL(config_option_find(table[i].section, table[i].key), &table[i]);
        CU_ASSERT_TRUE(*table[i].text != '\0' && strchr(table[i].text, '\n') == NULL);
        bytebuf_clear(&a);
        config_option_variable(&table[i], &a);
        for (size_t k = 0; k < i; k++) {
            bytebuf_clear(&b);
            config_option_variable(&table[k], &b);
            CU_ASSERT_STRING_NOT_EQUAL(a.data, b.data);
            CU_ASSERT_NOT_EQUAL(table[i].offset, table[k].offset);
        }
    }
    bytebuf_release(&a);
    bytebuf_release(&b);
}

static void test_help(void)
{
    struct bytebuf out;
    bytebuf_init(&out);
    config_help(&out);
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "  server.listen=0.0.0.0:8887\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "\n  uploads.sync=append\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(out.data, "Takes append, complete or never.\n"));
    bytebuf_release(&out);
}

/* Tests run in the top directory. */
static void test_page(void)
{
    struct bytebuf made, committed;
    bytebuf_init(&made);
    bytebuf_init(&committed);
    config_markdown(&made);
    FILE *file = fopen("docs/configuration.md", "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, file)) > 0;)
        bytebuf_add(&committed, block, n);
    fclose(file);
    CU_ASSERT_STRING_EQUAL(committed.data, made.data);
    bytebuf_release(&committed);
    bytebuf_release(&made);
}

int main(void)
{
    CU_TestInfo tests[] = {{"defaults", test_defaults},
                           {"a file sets values of every type", test_file},
                           {"the environment wins over the file, --set over both", test_precedence},
                           {"bad values say what was expected", test_bad_values},
                           {"bad --set arguments are refused", test_bad_sets},
                           {"mistakes in a file name file, line and key, all at once", test_bad_file},
                           {"long lines are read; longer ones and NUL bytes are refused", test_long_lines},
                           {"unknown variables warn, bad values of known ones are errors", test_environment},
                           {"what settings need of each other is checked", test_needs},
                           {"a shared directory needs shared sessions", test_shared_needs_redis},
                           {"addresses and URLs have their form", test_forms},
                           {"paths are absolute, and the log can be made", test_paths},
                           {"the two ports are two", test_ports},
                           {"printing masks secrets, and masks are refused", test_print},
                           {"what is printed reads back as the same", test_print_reads_back},
                           {"a reload tells what needs a restart", test_reload},
                           {"a refused secret is not repeated", test_secret_not_echoed},
                           {"settings, fields and variables are one to one", test_table},
                           {"help shows default, text and bounds", test_help},
                           {"docs/configuration.md is current (else: --target config_docs)", test_page},
                           CU_TEST_INFO_NULL};
    return unit_main("config", tests);
}
