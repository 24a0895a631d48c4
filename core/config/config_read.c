/*
 * config_read - loading: the sources one after the other into one struct, then what must hold between settings.
 *
 * Every problem is reported and loading goes on, so that an operator sees all of them at once. A value that was
 * refused is not repeated when it may be a secret.
 */
#include "core/config/config.h"

#include "core/check.h"
#include "core/config/config_options.h"
#include "core/text/nearest.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LINE 16384

enum origin_kind { BY_DEFAULT, BY_FILE, BY_VARIABLE, BY_SET };

/* Who set an option. */
struct origin {
    enum origin_kind kind;
    int line; /* of the file */
};

struct loader {
    struct config *cfg;
    struct config_report *report;
    const char *file;
    int line;               /* of the file, while it is read */
    struct origin *origins; /* for each option: what set it last */
    FILE *stream;
    char *buffer;
    size_t buffer_size;
};

void config_report_init(struct config_report *report)
{
    bytebuf_init(&report->errors);
    bytebuf_init(&report->warnings);
}

void config_report_release(struct config_report *report)
{
    bytebuf_release(&report->errors);
    bytebuf_release(&report->warnings);
}

static struct origin *origin_of(const struct loader *ld, const struct config_option *option)
{
    size_t count;
    return &ld->origins[option - config_option_table(&count)];
}

/* "FILE:7: section.key: ", or the variable's name or --set in place of file and line. */
static void add_origin(const struct loader *ld, const struct config_option *option, struct bytebuf *out)
{
    const struct origin *origin = origin_of(ld, option);
    if (origin->kind == BY_FILE)
        bytebuf_printf(out, "%s:%d: ", ld->file, origin->line);
    else if (origin->kind == BY_VARIABLE) {
        config_option_variable(option, out);
        bytebuf_text(out, ": ");
    } else if (origin->kind == BY_SET)
        bytebuf_text(out, "--set: ");
    bytebuf_printf(out, "%s.%s: ", option->section, option->key);
}

/* One value, of an option that exists. */
static void load_value(struct loader *ld, enum origin_kind kind, const struct config_option *option, const char *value)
{
    struct bytebuf expected;
    bytebuf_init(&expected);
    *origin_of(ld, option) = (struct origin){.kind = kind, .line = kind == BY_FILE ? ld->line : 0};
    if (config_value_set(ld->cfg, option, value, &expected) != BLOB_OK) {
        bool shown = option->secret == CONFIG_OPEN && option->type != CONFIG_TEXT;
        add_origin(ld, option, &ld->report->errors);
        if (shown)
            bytebuf_printf(&ld->report->errors, "\"%.100s\" is no good: ", value);
        bytebuf_printf(&ld->report->errors, "%s\n", expected.data);
    }
    bytebuf_release(&expected);
}

/* ---- names that are unknown, and near to one that is known ---- */

enum name_kind { NAME_SECTION, NAME_KEY, NAME_FULL, NAME_VARIABLE };

static void add_name(const struct config_option *option, enum name_kind kind, struct bytebuf *out)
{
    if (kind == NAME_VARIABLE)
        config_option_variable(option, out);
    else if (kind == NAME_FULL)
        bytebuf_printf(out, "%s.%s", option->section, option->key);
    else
        bytebuf_text(out, kind == NAME_KEY ? option->key : option->section);
}

/* "; did you mean …?" or "". section: of which keys are looked at; NULL: all. */
static const char *meant(const char *name, enum name_kind kind, const char *section, struct bytebuf *hint)
{
    size_t count;
    const struct config_option *table = config_option_table(&count), *best = NULL;
    struct nearest near;
    struct bytebuf known;
    bytebuf_init(&known);
    nearest_begin(&near, name);
    for (size_t i = 0; i < count; i++) {
        unsigned before = near.edits;
        bytebuf_clear(&known);
        add_name(&table[i], kind, &known);
        if (!section || strcmp(section, table[i].section) == 0)
            nearest_look(&near, known.data);
        best = near.edits < before ? &table[i] : best;
    }
    bytebuf_release(&known);
    if (best) {
        bytebuf_text(hint, kind == NAME_SECTION ? "; did you mean [" : "; did you mean ");
        add_name(best, kind, hint);
        bytebuf_text(hint, kind == NAME_SECTION ? "]?" : "?");
    }
    return best && !hint->failed ? hint->data : "";
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

/* For libinih: one whole line, without its indentation (which libinih would take for a continuation). */
static char *file_line(char *out, int size, void *arg)
{
    struct loader *ld = arg;
    ssize_t len = getline(&ld->buffer, &ld->buffer_size, ld->stream);
    if (len < 0)
        return NULL;
    ld->line++;
    const char *text = ld->buffer + strspn(ld->buffer, " \t");
    size_t text_len = strlen(text);
    bool has_nul = (ssize_t)strlen(ld->buffer) != len;
    if (has_nul || text_len + 1 > (size_t)size) {
        bytebuf_printf(&ld->report->errors, "%s:%d: %s\n", ld->file, ld->line,
                       has_nul ? "the line holds a NUL byte" : "the line is too long");
        out[0] = '\0';
        return out;
    }
    memcpy(out, text, text_len + 1);
    return out;
}

static int file_value(void *arg, const char *section, const char *key, const char *value)
{
    struct loader *ld = arg;
    struct bytebuf *errors = &ld->report->errors;
    const struct config_option *option = config_option_find(section, key);
    if (!option) {
        struct bytebuf hint;
        bytebuf_init(&hint);
        if (*section == '\0')
            bytebuf_printf(errors, "%s:%d: %s stands before any [section]\n", ld->file, ld->line, key);
        else if (!config_section_known(section))
            bytebuf_printf(errors, "%s:%d: unknown section [%s]%s\n", ld->file, ld->line, section,
                           meant(section, NAME_SECTION, NULL, &hint));
        else
            bytebuf_printf(errors, "%s:%d: unknown key %s in [%s]%s\n", ld->file, ld->line, key, section,
                           meant(key, NAME_KEY, section, &hint));
        bytebuf_release(&hint);
        return 1;
    }
    if (origin_of(ld, option)->kind == BY_FILE) {
        bytebuf_printf(errors, "%s:%d: %s.%s: given twice, first on line %d\n", ld->file, ld->line, section, key,
                       origin_of(ld, option)->line);
        return 1;
    }
    load_value(ld, BY_FILE, option, value);
    return 1;
}

/* libinih tells of the first one, when all is read. Errors stand in the order of their lines, from start on. */
static void insert_syntax_error(struct loader *ld, size_t start, int line)
{
    struct bytebuf all, *errors = &ld->report->errors;
    const char *at = errors->data + start;
    size_t name_len = strlen(ld->file) + 1;
    while (*at != '\0' && strlen(at) > name_len && strtol(at + name_len, NULL, 10) < line)
        at = strchr(at, '\n') + 1;
    bytebuf_init(&all);
    bytebuf_add(&all, errors->data, (size_t)(at - errors->data));
    bytebuf_printf(&all, "%s:%d: expected [section], key = value, or a comment\n", ld->file, line);
    bytebuf_text(&all, at);
    bytebuf_release(errors);
    *errors = all;
}

static void load_file(struct loader *ld)
{
    size_t start = ld->report->errors.len;
    ld->stream = fopen(ld->file, "re");
    if (!ld->stream) {
        bytebuf_printf(&ld->report->errors, "%s: cannot be read: %s\n", ld->file, strerror(errno));
        goto out;
    }
    /* Debian's libinih is tuned by variables; its own limit is 200 bytes a line, and silence beyond. */
    ini_use_stack = false;
    ini_initial_alloc = ini_max_line = MAX_LINE;
    int rc = ini_parse_stream(file_line, ld, file_value, ld);
    if (ferror(ld->stream))
        bytebuf_printf(&ld->report->errors, "%s: cannot be read: %s\n", ld->file, strerror(errno));
    else if (rc > 0)
        insert_syntax_error(ld, start, rc);
    else if (rc < 0)
        bytebuf_printf(&ld->report->errors, "%s: out of memory\n", ld->file);
out:
    free(ld->buffer);
    if (ld->stream)
        fclose(ld->stream);
}

/* ---- environment and command line ------------------------------------------------------------------------------ */

/* Variables of the project's scripts and tests, which settings do not look at. */
static bool variable_is_ours(const char *name)
{
    static const char *const prefixes[] = {"BLOBD_RUN_", "BLOBD_TEST_", "BLOBD_FAULTS_"};
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static void load_variable(struct loader *ld, const char *variable)
{
    const char *equals = strchr(variable, '=');
    if (strncmp(variable, "BLOBD_", 6) != 0 || !equals || variable_is_ours(variable))
        return;
    size_t count;
    const struct config_option *table = config_option_table(&count), *option = NULL;
    struct bytebuf name, known;
    bytebuf_init(&name);
    bytebuf_init(&known);
    bytebuf_add(&name, variable, (size_t)(equals - variable));
    for (size_t i = 0; i < count && !option; i++) {
        bytebuf_clear(&known);
        config_option_variable(&table[i], &known);
        if (strcmp(known.data, name.data) == 0)
            option = &table[i];
    }
    if (option)
        load_value(ld, BY_VARIABLE, option, equals + 1);
    else {
        bytebuf_clear(&known);
        bytebuf_printf(&ld->report->warnings, "%s: no such setting; ignored%s\n", name.data,
                       meant(name.data, NAME_VARIABLE, NULL, &known));
    }
    bytebuf_release(&known);
    bytebuf_release(&name);
}

/* "section.key=value"; the section may have dots, the key has none. */
static void load_set(struct loader *ld, const char *set)
{
    const char *equals = strchr(set, '=');
    const char *dot = equals ? memrchr(set, '.', (size_t)(equals - set)) : NULL;
    if (!dot) {
        bytebuf_printf(&ld->report->errors, "--set %.*s: expected section.key=value\n", (int)strcspn(set, "="), set);
        return;
    }
    struct bytebuf section, key;
    bytebuf_init(&section);
    bytebuf_init(&key);
    bytebuf_add(&section, set, (size_t)(dot - set));
    bytebuf_add(&key, dot + 1, (size_t)(equals - dot - 1));
    const struct config_option *option = config_option_find(section.data, key.data);
    if (option)
        load_value(ld, BY_SET, option, equals + 1);
    else {
        struct bytebuf full, hint;
        bytebuf_init(&full);
        bytebuf_init(&hint);
        bytebuf_printf(&full, "%s.%s", section.data, key.data);
        bytebuf_printf(&ld->report->errors, "--set %s: no such setting%s\n", full.data,
                       meant(full.data, NAME_FULL, NULL, &hint));
        bytebuf_release(&hint);
        bytebuf_release(&full);
    }
    bytebuf_release(&key);
    bytebuf_release(&section);
}

/* ---- what must hold between settings --------------------------------------------------------------------------- */

static void need(struct config_report *report, bool given, const char *name, const char *why)
{
    if (!given)
        bytebuf_printf(&report->errors, "%s: must be set %s\n", name, why);
}

static void check_server(const struct config *cfg, struct config_report *report)
{
    need(report, cfg->server.listen != NULL, "server.listen", "to host:port");
    if (cfg->tls.enabled) {
        need(report, cfg->tls.cert_file != NULL, "tls.cert_file", "while tls.enabled is true");
        need(report, cfg->tls.key_file != NULL, "tls.key_file", "while tls.enabled is true");
    }
    if (cfg->auth.mode == CONFIG_AUTH_TOKENS)
        need(report, cfg->auth.tokens_file != NULL, "auth.tokens_file", "when auth.mode is tokens");
    if (cfg->auth.mode == CONFIG_AUTH_VERIFY)
        need(report, cfg->auth.verify_url != NULL, "auth.verify_url", "when auth.mode is verify");
}

/* A setting that cannot stand beside the others. */
static void refuse(const struct loader *ld, const char *section, const char *key, const char *why)
{
    const struct config_option *option = config_option_find(section, key);
    CHECK(option != NULL);
    add_origin(ld, option, &ld->report->errors);
    bytebuf_printf(&ld->report->errors, "%s\n", why);
}

/* Two nodes whose sessions are apart cut off what the other has acknowledged of the same upload. */
static void check_shared(const struct loader *ld)
{
    const struct config *cfg = ld->cfg;
    if (cfg->storage.backend == CONFIG_BACKEND_DISK && cfg->disk.shared &&
        cfg->sessions.store == CONFIG_SESSIONS_EMBEDDED)
        refuse(ld, "storage.disk", "shared",
               "true needs sessions.store=redis: nodes that share a directory have to share their sessions, or they "
               "lose each other's uploads; leave it false where one node alone uses the directory");
}

/* Any address of one is the other's too where it is all of this machine's. */
static bool same_hosts(const char *a, size_t a_len, const char *b, size_t b_len)
{
    static const char any[] = "0.0.0.0";
    return (a_len == b_len && memcmp(a, b, a_len) == 0) || (a_len == strlen(any) && memcmp(a, any, a_len) == 0) ||
           (b_len == strlen(any) && memcmp(b, any, b_len) == 0);
}

/* Port 0 is a free one, and so is never the other's. */
static void check_ports(const struct loader *ld)
{
    const char *api = ld->cfg->server.listen, *admin = ld->cfg->server.admin_listen;
    const char *api_port = api ? strrchr(api, ':') : NULL, *admin_port = admin ? strrchr(admin, ':') : NULL;
    if (!api_port || !admin_port || strcmp(api_port, admin_port) != 0 || strtol(api_port + 1, NULL, 10) == 0)
        return;
    if ((*api == '[') == (*admin == '[') &&
        same_hosts(api, (size_t)(api_port - api), admin, (size_t)(admin_port - admin)))
        refuse(ld, "server", "admin_listen", "server.listen has this port already; give it another, or none");
}

static void check_storage(const struct config *cfg, struct config_report *report)
{
    if (cfg->storage.backend == CONFIG_BACKEND_DISK)
        need(report, cfg->disk.root != NULL, "storage.disk.root", "when storage.backend is disk");
    if (cfg->storage.backend == CONFIG_BACKEND_S3) {
        need(report, cfg->s3.bucket != NULL, "storage.s3.bucket", "when storage.backend is s3");
        need(report, cfg->s3.cred_id || !cfg->s3.cred_secret, "storage.s3.cred_id", "beside storage.s3.cred_secret");
        need(report, cfg->s3.cred_secret || !cfg->s3.cred_id, "storage.s3.cred_secret", "beside storage.s3.cred_id");
    }
}

static void check_sessions(const struct config *cfg, struct config_report *report)
{
    if (cfg->sessions.store == CONFIG_SESSIONS_EMBEDDED)
        need(report, cfg->sessions.path || cfg->disk.root || cfg->storage.backend == CONFIG_BACKEND_DISK,
             "sessions.path", "when there is no storage.disk.root");
    if (cfg->sessions.store == CONFIG_SESSIONS_REDIS) {
        need(report, cfg->redis.url || cfg->redis.sentinels, "sessions.redis.url",
             "(or sessions.redis.sentinels) when sessions.store is redis");
        need(report, cfg->redis.master_name || !cfg->redis.sentinels, "sessions.redis.master_name",
             "beside sessions.redis.sentinels");
    }
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

static void load_defaults(struct config *cfg)
{
    size_t count;
    const struct config_option *table = config_option_table(&count);
    struct bytebuf expected;
    bytebuf_init(&expected);
    for (size_t i = 0; i < count; i++)
        CHECK(config_value_set(cfg, &table[i], table[i].initial, &expected) == BLOB_OK);
    bytebuf_release(&expected);
}

enum blob_status config_load(const struct config_sources *sources, struct config **out, struct config_report *report)
{
    struct config *cfg = calloc(1, sizeof *cfg);
    if (!cfg) {
        bytebuf_text(&report->errors, "out of memory\n");
        return BLOB_E_NO_MEMORY;
    }
    struct loader ld = {.cfg = cfg, .report = report, .file = sources->file};
    size_t count;
    config_option_table(&count);
    ld.origins = calloc(count, sizeof *ld.origins);
    if (!ld.origins) {
        free(cfg);
        bytebuf_text(&report->errors, "out of memory\n");
        return BLOB_E_NO_MEMORY;
    }
    load_defaults(cfg);
    if (sources->file)
        load_file(&ld);
    for (char *const *variable = sources->environment; variable && *variable; variable++)
        load_variable(&ld, *variable);
    for (size_t i = 0; i < sources->set_count; i++)
        load_set(&ld, sources->sets[i]);
    if (report->errors.len == 0) {
        check_shared(&ld);
        check_ports(&ld);
        check_server(cfg, report);
        check_storage(cfg, report);
        check_sessions(cfg, report);
    }
    free(ld.origins);
    if (report->errors.len > 0 || report->errors.failed) {
        config_free(cfg);
        return report->errors.failed ? BLOB_E_NO_MEMORY : BLOB_E_INVALID;
    }
    *out = cfg;
    return BLOB_OK;
}

void config_free(struct config *cfg)
{
    if (!cfg)
        return;
    size_t count;
    const struct config_option *table = config_option_table(&count);
    for (size_t i = 0; i < count; i++)
        config_value_release(cfg, &table[i]);
    free(cfg);
}
