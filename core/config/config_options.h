/*
 * config_options - the one table of settings, and one setting's value as text, both ways. What is built on it is in
 * core/config/config.h; only core/config/ and the tests include this.
 *
 * Threads: any; the table is constant. Units: numbers as they are, sizes in bytes, durations in milliseconds.
 */
#ifndef BLOBD_CORE_CONFIG_CONFIG_OPTIONS_H
#define BLOBD_CORE_CONFIG_CONFIG_OPTIONS_H

#include "core/config/config.h"

enum config_type {
    CONFIG_TEXT,     /* const char *; empty is NULL */
    CONFIG_BOOL,     /* bool */
    CONFIG_NUMBER,   /* uint64_t */
    CONFIG_SIZE,     /* uint64_t, bytes */
    CONFIG_DURATION, /* int64_t, milliseconds */
    CONFIG_CHOICE,   /* an enum in the order of the words in choices */
};

enum config_secret {
    CONFIG_OPEN,
    CONFIG_SECRET,     /* masked as a whole */
    CONFIG_SECRET_URL, /* the password in a URL is masked */
};

/* What a text must look like; empty is always fine. */
/* FILE: it must be there, also where other settings leave it unused for now. LOG: its directory must be. */
enum config_form {
    CONFIG_ANY,
    CONFIG_ADDRESS,
    CONFIG_HTTP_URL,
    CONFIG_REDIS_URL,
    CONFIG_NETWORKS,
    CONFIG_FILE,
    CONFIG_PATH,
    CONFIG_LOG
};

struct config_option {
    const char *section, *key;
    size_t offset; /* in struct config */
    enum config_type type;
    uint64_t min, max;
    const char *zero;      /* the word for 0, which min does not bound ("" is an empty value); NULL: none */
    const char *choices;   /* "disk|s3" */
    const char *initial;   /* the default, as text */
    enum config_form form; /* of a text */
    const char *text;      /* one or two sentences */
    enum config_secret secret;
    bool reloadable; /* takes effect on HUP */
};

/* What a secret is printed as. */
#define CONFIG_MASK "********"

const struct config_option *config_option_table(size_t *count);
/* NULL: no such setting. */
const struct config_option *config_option_find(const char *section, const char *key);
bool config_section_known(const char *section);

/* Reads text into cfg's field. INVALID: expected says what would have been right; cfg is untouched then. */
enum blob_status config_value_set(struct config *cfg, const struct config_option *option, const char *text,
                                  struct bytebuf *expected) BLOB_MUST_CHECK;
/* Adds the value as config_value_set() reads it, secrets masked. */
void config_value_print(const struct config *cfg, const struct config_option *option, struct bytebuf *out);
bool config_value_equal(const struct config *a, const struct config *b, const struct config_option *option);
/* Frees what the value holds. */
void config_value_release(struct config *cfg, const struct config_option *option);
/* Adds what values the option takes: "a size from 1K to 1M", "disk or s3". */
void config_value_describe(const struct config_option *option, struct bytebuf *out);
/* Adds BLOBD_SECTION_KEY. */
void config_option_variable(const struct config_option *option, struct bytebuf *out);

#endif
