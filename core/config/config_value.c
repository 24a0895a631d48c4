/*
 * config_value - one setting's value as text, both ways, by its type. What is printed is read back as the same value;
 * so a text that an INI file cannot hold is refused wherever it comes from.
 */
#include "core/config/config_options.h"

#include "core/check.h"
#include "core/ip_address.h"
#include "core/text/parse.h"
#include "core/text/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct unit {
    const char *name;
    uint64_t factor;
};

static const char *const form_names[] = {[CONFIG_ANY] = "text",
                                         [CONFIG_ADDRESS] = "host:port or [IPv6 address]:port",
                                         [CONFIG_HTTP_URL] = "https://... or http://...",
                                         [CONFIG_REDIS_URL] =
                                             "redis://[[user]:password@]host[:port][/db] or unix:///path[?db=N]",
                                         [CONFIG_FILE] = "a file",
                                         [CONFIG_PATH] = "an absolute path, without quotes",
                                         [CONFIG_LOG] = "a file",
                                         [CONFIG_NETWORKS] = "addresses and networks, as 10.0.0.0/8"};

static const struct unit size_units[] = {
    {"T", UINT64_C(1) << 40}, {"G", UINT64_C(1) << 30}, {"M", UINT64_C(1) << 20}, {"K", UINT64_C(1) << 10}, {"", 1}};
static const struct unit duration_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

/* In the largest unit that expresses it exactly. */
static void add_with_unit(uint64_t value, const struct unit *units, struct bytebuf *out)
{
    while (value % units->factor != 0)
        units++;
    bytebuf_printf(out, "%" PRIu64 "%s", value / units->factor, value == 0 ? "" : units->name);
}

static void add_amount(enum config_type type, uint64_t value, struct bytebuf *out)
{
    if (type == CONFIG_SIZE)
        add_with_unit(value, size_units, out);
    else if (type == CONFIG_DURATION)
        add_with_unit(value, duration_units, out);
    else
        bytebuf_printf(out, "%" PRIu64, value);
}

static void *field_of(struct config *cfg, const struct config_option *option)
{
    return (char *)cfg + option->offset;
}

static const void *field_of_const(const struct config *cfg, const struct config_option *option)
{
    return (const char *)cfg + option->offset;
}

static const char *text_of(const struct config *cfg, const struct config_option *option)
{
    const char *text;
    memcpy(&text, field_of_const(cfg, option), sizeof text);
    return text;
}

/* The number behind a field of any type but text. */
static uint64_t amount_of(const struct config *cfg, const struct config_option *option)
{
    const void *field = field_of_const(cfg, option);
    unsigned word;
    switch (option->type) {
    case CONFIG_BOOL:
        return *(const bool *)field;
    case CONFIG_CHOICE:
        memcpy(&word, field, sizeof word);
        return word;
    case CONFIG_DURATION:
        return (uint64_t) * (const int64_t *)field;
    case CONFIG_NUMBER:
    case CONFIG_SIZE:
        return *(const uint64_t *)field;
    case CONFIG_TEXT:
        break;
    }
    check_failed(__FILE__, __LINE__, "a text is no amount");
}

static void amount_set(struct config *cfg, const struct config_option *option, uint64_t value)
{
    void *field = field_of(cfg, option);
    unsigned word = (unsigned)value;
    switch (option->type) {
    case CONFIG_BOOL:
        *(bool *)field = value != 0;
        return;
    case CONFIG_CHOICE:
        memcpy(field, &word, sizeof word);
        return;
    case CONFIG_DURATION:
        *(int64_t *)field = (int64_t)value;
        return;
    case CONFIG_NUMBER:
    case CONFIG_SIZE:
        *(uint64_t *)field = value;
        return;
    case CONFIG_TEXT:
        break;
    }
    check_failed(__FILE__, __LINE__, "a text is no amount");
}

/* The word of choices ("a|b|c") with this number, as a length and a start. */
static const char *choice_word(const char *choices, unsigned number, size_t *len)
{
    for (; number > 0; number--)
        choices = strchr(choices, '|') + 1;
    *len = strcspn(choices, "|");
    return choices;
}

static unsigned choice_count(const char *choices)
{
    unsigned count = 1;
    while ((choices = strchr(choices, '|')) != NULL) {
        choices++;
        count++;
    }
    return count;
}

static bool choice_parse(const char *choices, const char *text, uint64_t *out)
{
    for (unsigned i = 0; i < choice_count(choices); i++) {
        size_t len;
        const char *word = choice_word(choices, i, &len);
        if (strlen(text) == len && memcmp(word, text, len) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

static bool amount_parse(const struct config_option *option, const char *text, uint64_t *out)
{
    enum blob_status st = BLOB_E_INVALID;
    uint64_t value = 0;
    int64_t duration_ms;
    bool truth;
    if (option->zero && (strcmp(text, option->zero) == 0 || strcmp(text, "0") == 0)) {
        *out = 0;
        return true;
    }
    switch (option->type) {
    case CONFIG_BOOL:
        st = parse_bool(text, &truth);
        *out = st == BLOB_OK && truth;
        return st == BLOB_OK;
    case CONFIG_CHOICE:
        return choice_parse(option->choices, text, out);
    case CONFIG_NUMBER:
        st = parse_u64(text, 0, UINT64_MAX, &value);
        break;
    case CONFIG_SIZE:
        st = parse_size_bytes(text, &value);
        break;
    case CONFIG_DURATION:
        st = parse_duration_ms(text, &duration_ms);
        value = st == BLOB_OK ? (uint64_t)duration_ms : 0;
        break;
    case CONFIG_TEXT:
        break;
    }
    if (st != BLOB_OK || value < option->min || value > option->max)
        return false;
    *out = value;
    return true;
}

/* Can a line of an INI file hold it? Blanks at the ends are lost there, and " ;" begins a comment. */
static bool text_fits_file(const char *text)
{
    size_t len = strlen(text);
    if (!utf8_valid(text, len) || len > 8000)
        return false;
    if (len > 0 && (text[0] == ' ' || text[0] == ';' || text[len - 1] == ' '))
        return false;
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return strstr(text, " ;") == NULL;
}

static bool are_networks(const char *text)
{
    struct ip_networks *networks = NULL;
    bool fine = ip_networks_parse(text, &networks) == BLOB_OK;
    free(networks);
    return fine;
}

/* host:port with a port of 0 to 65535. */
static bool is_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;
    if (!colon || colon == text || parse_u64(colon + 1, 0, 65535, &port) != BLOB_OK)
        return false;
    bool bracketed = text[0] == '[' && colon[-1] == ']';
    return bracketed || memchr(text, ':', (size_t)(colon - text)) == NULL;
}

static bool has_scheme(const char *text, const char *scheme)
{
    return strncmp(text, scheme, strlen(scheme)) == 0 && text[strlen(scheme)] != '\0';
}

static bool text_has_form(const char *text, enum config_form form)
{
    switch (form) {
    case CONFIG_ADDRESS:
        return is_address(text);
    case CONFIG_HTTP_URL:
        return has_scheme(text, "https://") || has_scheme(text, "http://");
    case CONFIG_REDIS_URL:
        return has_scheme(text, "redis://") || has_scheme(text, "unix://");
    case CONFIG_NETWORKS:
        return are_networks(text);
    case CONFIG_PATH:
        return text[0] == '/';
    case CONFIG_FILE:
    case CONFIG_LOG:
    case CONFIG_ANY:
        break;
    }
    return true;
}

/* Of a file that no start reads, but perhaps a request hours later. */
static bool file_is_there(const char *path, struct bytebuf *expected)
{
    struct stat sb;
    int error = stat(path, &sb) != 0 || access(path, R_OK) != 0 ? errno : S_ISDIR(sb.st_mode) ? EISDIR : 0;
    if (error != 0)
        bytebuf_printf(expected, "expected a file that can be read; %s: %s", path, strerror(error));
    return error == 0;
}

/* It is made where it is not there yet: in a directory that is. */
static bool log_can_be_made(const char *path, struct bytebuf *expected)
{
    struct stat sb;
    const char *slash = strrchr(path, '/');
    char *directory = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int error = !directory ? ENOMEM : stat(directory, &sb) != 0 ? errno : S_ISDIR(sb.st_mode) ? 0 : ENOTDIR;
    if (error != 0)
        bytebuf_printf(expected, "expected a file in a directory that is there; %s: %s", directory ? directory : path,
                       strerror(error));
    free(directory);
    return error == 0;
}

static enum blob_status text_set(struct config *cfg, const struct config_option *option, const char *text,
                                 struct bytebuf *expected)
{
    if (!text_fits_file(text)) {
        bytebuf_text(expected, "expected a line of UTF-8 without control characters, blanks at its ends, and \" ;\"");
        return BLOB_E_INVALID;
    }
    if (option->secret != CONFIG_OPEN && strstr(text, CONFIG_MASK)) {
        bytebuf_text(expected, "this is the mask that --print-config puts in place of a secret; expected the secret");
        return BLOB_E_INVALID;
    }
    if (*text && option->form == CONFIG_FILE && !file_is_there(text, expected))
        return BLOB_E_INVALID;
    if (*text && option->form == CONFIG_LOG && !log_can_be_made(text, expected))
        return BLOB_E_INVALID;
    if (*text && !text_has_form(text, option->form)) {
        bytebuf_printf(expected, "expected %s", form_names[option->form]);
        return BLOB_E_INVALID;
    }
    char *copy = *text ? strdup(text) : NULL;
    if (*text && !copy)
        return BLOB_E_NO_MEMORY;
    config_value_release(cfg, option);
    memcpy(field_of(cfg, option), &copy, sizeof copy);
    return BLOB_OK;
}

enum blob_status config_value_set(struct config *cfg, const struct config_option *option, const char *text,
                                  struct bytebuf *expected)
{
    static const char *const examples[] = {
        [CONFIG_SIZE] = " (16K, 8M, 1G)", [CONFIG_DURATION] = " (250ms, 15s, 10m, 24h, 30d)", [CONFIG_CHOICE] = NULL};
    uint64_t value;
    if (option->type == CONFIG_TEXT)
        return text_set(cfg, option, text, expected);
    if (!amount_parse(option, text, &value)) {
        bytebuf_text(expected, "expected ");
        config_value_describe(option, expected);
        bytebuf_text(expected, examples[option->type] ? examples[option->type] : "");
        return BLOB_E_INVALID;
    }
    amount_set(cfg, option, value);
    return BLOB_OK;
}

void config_value_release(struct config *cfg, const struct config_option *option)
{
    if (option->type != CONFIG_TEXT)
        return;
    char *text = NULL;
    memcpy(&text, field_of(cfg, option), sizeof text);
    free(text);
    memset(field_of(cfg, option), 0, sizeof text);
}

/* scheme://user:password@host: only the password is hidden. The last '@' before the path ends it. */
static void add_masked_url(const char *url, struct bytebuf *out)
{
    const char *authority = strstr(url, "://");
    authority = authority ? authority + 3 : url;
    size_t authority_len = strcspn(authority, "/?#");
    const char *at = memrchr(authority, '@', authority_len);
    const char *colon = at ? memchr(authority, ':', (size_t)(at - authority)) : NULL;
    if (!colon) {
        bytebuf_text(out, url);
        return;
    }
    bytebuf_add(out, url, (size_t)(colon + 1 - url));
    bytebuf_text(out, CONFIG_MASK);
    bytebuf_text(out, at);
}

void config_value_print(const struct config *cfg, const struct config_option *option, struct bytebuf *out)
{
    if (option->type == CONFIG_TEXT) {
        const char *text = text_of(cfg, option);
        if (text && option->secret == CONFIG_SECRET_URL)
            add_masked_url(text, out);
        else if (text)
            bytebuf_text(out, option->secret == CONFIG_SECRET ? CONFIG_MASK : text);
        return;
    }
    uint64_t value = amount_of(cfg, option);
    if (option->type == CONFIG_BOOL) {
        bytebuf_text(out, value ? "true" : "false");
    } else if (option->type == CONFIG_CHOICE) {
        size_t len;
        const char *word = choice_word(option->choices, (unsigned)value, &len);
        bytebuf_add(out, word, len);
    } else if (value == 0 && option->zero) {
        bytebuf_text(out, option->zero);
    } else {
        add_amount(option->type, value, out);
    }
}

bool config_value_equal(const struct config *a, const struct config *b, const struct config_option *option)
{
    if (option->type != CONFIG_TEXT)
        return amount_of(a, option) == amount_of(b, option);
    const char *x = text_of(a, option), *y = text_of(b, option);
    return x && y ? strcmp(x, y) == 0 : x == y;
}

void config_value_describe(const struct config_option *option, struct bytebuf *out)
{
    static const char *const names[] = {
        [CONFIG_NUMBER] = "a number", [CONFIG_SIZE] = "a size", [CONFIG_DURATION] = "a duration"};
    if (option->type == CONFIG_TEXT || option->type == CONFIG_BOOL) {
        bytebuf_text(out, option->type == CONFIG_TEXT ? form_names[option->form] : "true or false");
        return;
    }
    if (option->type == CONFIG_CHOICE) {
        unsigned count = choice_count(option->choices);
        for (unsigned i = 0; i < count; i++) {
            size_t len;
            const char *word = choice_word(option->choices, i, &len);
            bytebuf_text(out, i == 0 ? "" : i + 1 == count ? " or " : ", ");
            bytebuf_add(out, word, len);
        }
        return;
    }
    bytebuf_printf(out, "%s from ", names[option->type]);
    add_amount(option->type, option->min, out);
    bytebuf_text(out, " to ");
    add_amount(option->type, option->max, out);
    if (option->zero)
        bytebuf_printf(out, ", or %s", *option->zero ? option->zero : "nothing");
}
