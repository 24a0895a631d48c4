/*
 * log - one line an event, as text or JSON, to standard error or a file that can be reopened.
 *
 * A logger is made by main and borrowed by everything else. Lines carry the request id where there is one. An error
 * is logged once, where it is handled. Never logged: tokens, keys, bearer strings, bodies.
 *
 * Threads: any; a line is written with one write(). Ownership: arguments are borrowed until return.
 * Errors: none: a line that cannot be written is counted and dropped (log_dropped()).
 */
#ifndef BLOBD_CORE_LOG_H
#define BLOBD_CORE_LOG_H

#include "core/status.h"

#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

struct logger;

/* path NULL: standard error. */
enum blob_status logger_new(enum log_format format, enum log_level level, const char *path, struct logger **out,
                            struct blob_error *err) BLOB_MUST_CHECK;
void logger_free(struct logger *lg);
void logger_set_level(struct logger *lg, enum log_level level);
/* After logrotate (USR1). On failure the old file stays open. */
enum blob_status logger_reopen(struct logger *lg, struct blob_error *err) BLOB_MUST_CHECK;
uint64_t log_dropped(const struct logger *lg);

bool log_enabled(const struct logger *lg, enum log_level level);
/* request_id may be NULL. lg may be NULL (tests): nothing is written. */
void log_line(struct logger *lg, enum log_level level, const char *request_id, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

struct log_access {
    const char *request_id, *remote, *identity /* NULL: "-" */, *method, *path;
    int status;
    uint64_t bytes_in, bytes_out;
    int64_t duration_us; /* written as duration_ms with three decimals */
};
void log_access(struct logger *lg, const struct log_access *entry);

#endif
