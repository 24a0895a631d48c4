/*
 * log - a line is put together in memory and written with one write() to a descriptor opened for appending, so lines
 * of several threads, and of several processes on one file, never mix.
 *
 * Reopening puts the new file under the old descriptor number (dup3), which is atomic for writers: no lock is needed.
 * What comes from outside (paths, names) is escaped: a line is always one line.
 */
#include "core/log.h"

#include "core/text/bytebuf.h"
#include "core/text/rfc3339.h"
#include "core/text/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct logger {
    enum log_format format;
    atomic_int level;
    int fd;
    char *path; /* NULL: standard error */
    atomic_uint_fast64_t dropped;
};

static const char *const level_names[] = {
    [LOG_ERROR] = "error", [LOG_WARN] = "warn", [LOG_INFO] = "info", [LOG_DEBUG] = "debug"};

static enum blob_status log_open(const char *path, int *out, struct blob_error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0)
        return blob_fail(err, blob_status_from_errno(errno), errno, "log.file: open %s", path);
    *out = fd;
    return BLOB_OK;
}

enum blob_status logger_new(enum log_format format, enum log_level level, const char *path, struct logger **out,
                            struct blob_error *err)
{
    struct logger *lg = calloc(1, sizeof *lg);
    if (!lg || (path && !(lg->path = strdup(path)))) {
        free(lg);
        return blob_fail(err, BLOB_E_NO_MEMORY, ENOMEM, "logger");
    }
    lg->format = format;
    lg->fd = STDERR_FILENO;
    atomic_init(&lg->level, (int)level);
    atomic_init(&lg->dropped, 0);
    if (path) {
        enum blob_status st = log_open(path, &lg->fd, err);
        if (st != BLOB_OK) {
            free(lg->path);
            free(lg);
            return st;
        }
    }
    *out = lg;
    return BLOB_OK;
}

void logger_free(struct logger *lg)
{
    if (!lg)
        return;
    if (lg->path) {
        close(lg->fd);
        free(lg->path);
    }
    free(lg);
}

void logger_set_level(struct logger *lg, enum log_level level)
{
    atomic_store_explicit(&lg->level, (int)level, memory_order_relaxed);
}

enum blob_status logger_reopen(struct logger *lg, struct blob_error *err)
{
    if (!lg->path)
        return BLOB_OK;
    int fd = -1;
    enum blob_status st = log_open(lg->path, &fd, err);
    if (st != BLOB_OK)
        return st;
    if (dup3(fd, lg->fd, O_CLOEXEC) < 0)
        st = blob_fail(err, BLOB_E_IO, errno, "switch to log file %s", lg->path);
    close(fd);
    return st;
}

uint64_t log_dropped(const struct logger *lg)
{
    return atomic_load_explicit(&lg->dropped, memory_order_relaxed);
}

bool log_enabled(const struct logger *lg, enum log_level level)
{
    return lg && (int)level <= atomic_load_explicit(&lg->level, memory_order_relaxed);
}

static void log_write(struct logger *lg, struct bytebuf *line)
{
    bytebuf_text(line, "\n");
    ssize_t n = -1;
    if (!line->failed) {
        do
            n = write(lg->fd, line->data, line->len);
        while (n < 0 && errno == EINTR);
    }
    if (n != (ssize_t)line->len)
        atomic_fetch_add_explicit(&lg->dropped, 1, memory_order_relaxed);
}

static void log_time(struct bytebuf *line)
{
    struct timespec now;
    char text[RFC3339_CHARS + 1];
    clock_gettime(CLOCK_REALTIME, &now);
    rfc3339_format((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000, text);
    bytebuf_add(line, text, RFC3339_CHARS);
}

/* For text lines: control characters and bytes that are not UTF-8 as \xHH; in fields also blanks, quotes. */
static void log_escaped(struct bytebuf *line, const char *text, bool field)
{
    const char *end = text + strlen(text);
    while (text < end) {
        const char *at = text;
        uint32_t cp = utf8_next(&text, end);
        bool plain = cp != UTF8_INVALID && cp >= 0x20 && (cp < 0x7f || cp > 0x9f) && cp != '\\' &&
                     !(field && (cp == ' ' || cp == '"'));
        if (plain)
            bytebuf_add(line, at, (size_t)(text - at));
        else
            for (; at < text; at++)
                bytebuf_printf(line, "\\x%02x", (unsigned char)*at);
    }
}

static void log_message(struct logger *lg, struct bytebuf *line, enum log_level level, const char *request_id,
                        const char *message)
{
    if (lg->format == LOG_JSON) {
        bytebuf_text(line, "{\"time\":\"");
        log_time(line);
        bytebuf_printf(line, "\",\"level\":\"%s\",", level_names[level]);
        if (request_id) {
            bytebuf_text(line, "\"request_id\":");
            bytebuf_json_string(line, request_id);
            bytebuf_text(line, ",");
        }
        bytebuf_text(line, "\"message\":");
        bytebuf_json_string(line, message);
        bytebuf_text(line, "}");
        return;
    }
    log_time(line);
    bytebuf_printf(line, " %-5s ", level_names[level]);
    if (request_id) {
        bytebuf_text(line, "[");
        log_escaped(line, request_id, true);
        bytebuf_text(line, "] ");
    }
    log_escaped(line, message, false);
}

void log_line(struct logger *lg, enum log_level level, const char *request_id, const char *fmt, ...)
{
    if (!log_enabled(lg, level))
        return;
    struct bytebuf message, line;
    bytebuf_init(&message);
    bytebuf_init(&line);
    va_list ap;
    va_start(ap, fmt);
    bytebuf_vprintf(&message, fmt, ap);
    va_end(ap);
    log_message(lg, &line, level, request_id, message.data);
    log_write(lg, &line);
    bytebuf_release(&line);
    bytebuf_release(&message);
}

static void access_string(struct logger *lg, struct bytebuf *line, const char *name, const char *value)
{
    if (!value || !*value)
        value = "-";
    if (lg->format == LOG_JSON) {
        bytebuf_printf(line, ",\"%s\":", name);
        bytebuf_json_string(line, value);
    } else {
        bytebuf_printf(line, " %s=", name);
        log_escaped(line, value, true);
    }
}

void log_access(struct logger *lg, const struct log_access *entry)
{
    if (!lg)
        return;
    struct bytebuf line;
    bytebuf_init(&line);
    bytebuf_text(&line, lg->format == LOG_JSON ? "{\"time\":\"" : "");
    log_time(&line);
    bytebuf_text(&line, lg->format == LOG_JSON ? "\"" : " access");
    access_string(lg, &line, "request_id", entry->request_id);
    access_string(lg, &line, "remote", entry->remote);
    access_string(lg, &line, "identity", entry->identity);
    access_string(lg, &line, "method", entry->method);
    access_string(lg, &line, "path", entry->path);
    bytebuf_printf(
        &line,
        lg->format == LOG_JSON ? ",\"status\":%d,\"bytes_in\":%" PRIu64 ",\"bytes_out\":%" PRIu64
                                 ",\"duration_ms\":%" PRId64 ".%03d}"
                               : " status=%d bytes_in=%" PRIu64 " bytes_out=%" PRIu64 " duration_ms=%" PRId64 ".%03d",
        entry->status, entry->bytes_in, entry->bytes_out, entry->duration_us / 1000, (int)(entry->duration_us % 1000));
    log_write(lg, &line);
    bytebuf_release(&line);
}
