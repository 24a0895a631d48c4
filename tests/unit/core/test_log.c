/* log - one event, one line, whatever is in it; in a file that can be moved away. */
#include "core/log.h"
#include "tests/rig/unit_main.h"

#include <jansson.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

struct log_dir {
    char dir[64], path[96], moved[96];
};

static void log_dir_init(struct log_dir *d)
{
    snprintf(d->dir, sizeof d->dir, "/tmp/blobd-test-log-XXXXXX");
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(d->dir));
    snprintf(d->path, sizeof d->path, "%s/log", d->dir);
    snprintf(d->moved, sizeof d->moved, "%s/log.1", d->dir);
}

static void log_dir_release(struct log_dir *d)
{
    unlink(d->path);
    unlink(d->moved);
    rmdir(d->dir);
}

/* The whole file; the caller frees it. */
static char *slurp(const char *path)
{
    char *text = calloc(1, 1 << 20);
    FILE *file = fopen(path, "r");
    CU_ASSERT_PTR_NOT_NULL_FATAL(file);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    size_t n = fread(text, 1, (1 << 20) - 1, file);
    text[n] = '\0';
    fclose(file);
    return text;
}

static struct logger *logger_for(const struct log_dir *d, enum log_format format, enum log_level level)
{
    struct logger *lg = NULL;
    struct blob_error err;
    CU_ASSERT_EQUAL_FATAL(logger_new(format, level, d->path, &lg, &err), BLOB_OK);
    return lg;
}

static void test_text(void)
{
    struct log_dir d;
    log_dir_init(&d);
    struct logger *lg = logger_for(&d, LOG_TEXT, LOG_INFO);
    log_line(lg, LOG_INFO, NULL, "started on %d", 8887);
    log_line(lg, LOG_WARN, "req-1", "name \"%s\"", "a\nfake line \x1b[31m \xff \xc3\xa4");
    log_line(lg, LOG_DEBUG, NULL, "not wanted");
    char *text = slurp(d.path);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "Z info  started on 8887\n"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text, "Z warn  [req-1] name \"a\\x0afake line \\x1b[31m \\xff \xc3\xa4\"\n"));
    CU_ASSERT_PTR_NULL(strstr(text, "not wanted"));
    free(text);
    logger_free(lg);
    log_dir_release(&d);
}

static void test_json(void)
{
    struct log_dir d;
    log_dir_init(&d);
    struct logger *lg = logger_for(&d, LOG_JSON, LOG_ERROR);
    log_line(lg, LOG_ERROR, "req-1", "quote \" and\nnewline");
    char *text = slurp(d.path);
    json_t *line = json_loads(text, 0, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(line);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(line, "level")), "error");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(line, "request_id")), "req-1");
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(line, "message")), "quote \" and\nnewline");
    CU_ASSERT_EQUAL(strlen(json_string_value(json_object_get(line, "time"))), 24);
    CU_ASSERT_PTR_EQUAL(strchr(text, '\n'), text + strlen(text) - 1);
    json_decref(line);
    free(text);
    logger_free(lg);
    log_dir_release(&d);
}

static const struct log_access entry = {.request_id = "r1",
                                        .remote = "192.0.2.7",
                                        .method = "POST",
                                        .path = "/api/blobs uploads\"\n",
                                        .status = 202,
                                        .bytes_in = 12,
                                        .bytes_out = 3,
                                        .duration_us = 1234056};

static void test_access(void)
{
    struct log_dir d;
    log_dir_init(&d);
    struct logger *lg = logger_for(&d, LOG_TEXT, LOG_ERROR);
    log_access(lg, &entry);
    char *text = slurp(d.path);
    CU_ASSERT_PTR_NOT_NULL(strstr(text, " access request_id=r1 remote=192.0.2.7 identity=- method=POST "
                                        "path=/api/blobs\\x20uploads\\x22\\x0a status=202 bytes_in=12 bytes_out=3 "
                                        "duration_ms=1234.056\n"));
    free(text);
    logger_free(lg);
    unlink(d.path);
    lg = logger_for(&d, LOG_JSON, LOG_ERROR);
    log_access(lg, &entry);
    text = slurp(d.path);
    json_t *line = json_loads(text, 0, NULL);
    CU_ASSERT_PTR_NOT_NULL_FATAL(line);
    CU_ASSERT_EQUAL(json_object_size(line), 10);
    CU_ASSERT_STRING_EQUAL(json_string_value(json_object_get(line, "path")), entry.path);
    CU_ASSERT_EQUAL(json_integer_value(json_object_get(line, "status")), 202);
    CU_ASSERT_DOUBLE_EQUAL(json_real_value(json_object_get(line, "duration_ms")), 1234.056, 1e-6);
    json_decref(line);
    free(text);
    logger_free(lg);
    log_dir_release(&d);
}

static void test_reopen(void)
{
    struct log_dir d;
    log_dir_init(&d);
    struct logger *lg = logger_for(&d, LOG_TEXT, LOG_INFO);
    log_line(lg, LOG_INFO, NULL, "before");
    CU_ASSERT_EQUAL(rename(d.path, d.moved), 0);
    log_line(lg, LOG_INFO, NULL, "between");
    CU_ASSERT_EQUAL(logger_reopen(lg, NULL), BLOB_OK);
    log_line(lg, LOG_INFO, NULL, "after");
    char *old_text = slurp(d.moved), *new_text = slurp(d.path);
    CU_ASSERT_PTR_NOT_NULL(strstr(old_text, "between"));
    CU_ASSERT_PTR_NULL(strstr(old_text, "after"));
    CU_ASSERT_PTR_NOT_NULL(strstr(new_text, "after"));
    free(old_text);
    free(new_text);
    logger_free(lg);
    log_dir_release(&d);
}

static void test_failures(void)
{
    struct blob_error err;
    struct logger *lg = NULL;
    CU_ASSERT_EQUAL(logger_new(LOG_TEXT, LOG_INFO, "/nonexistent/dir/log", &lg, &err), BLOB_E_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "/nonexistent/dir/log"));
    CU_ASSERT_PTR_NULL(lg);
    CU_ASSERT_EQUAL_FATAL(logger_new(LOG_TEXT, LOG_INFO, "/dev/full", &lg, &err), BLOB_OK);
    log_line(lg, LOG_INFO, NULL, "lost");
    CU_ASSERT_EQUAL(log_dropped(lg), 1);
    logger_free(lg);
    log_line(NULL, LOG_ERROR, NULL, "nowhere");
    log_access(NULL, &entry);
    CU_ASSERT_FALSE(log_enabled(NULL, LOG_ERROR));
}

#define WRITERS 4
#define LINES   500

static void *write_lines(void *lg)
{
    for (int i = 0; i < LINES; i++)
        log_line(lg, LOG_INFO, "id", "a line that is always as long as this");
    return NULL;
}

/* While the file is reopened and the level changed: for the thread sanitizer, too. */
static void test_threads(void)
{
    struct log_dir d;
    log_dir_init(&d);
    struct logger *lg = logger_for(&d, LOG_TEXT, LOG_INFO);
    pthread_t threads[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, write_lines, lg), 0);
    for (int i = 0; i < 20; i++) {
        CU_ASSERT_EQUAL(logger_reopen(lg, NULL), BLOB_OK);
        logger_set_level(lg, i % 2 ? LOG_INFO : LOG_DEBUG);
    }
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    char *text = slurp(d.path);
    unsigned lines = 0;
    for (char *p = text, *end; (end = strchr(p, '\n')) != NULL; p = end + 1, lines++)
        CU_ASSERT_EQUAL(end - p, 24 + 7 + 5 + 37);
    CU_ASSERT_EQUAL(lines, WRITERS * LINES);
    free(text);
    logger_free(lg);
    log_dir_release(&d);
}

int main(void)
{
    CU_TestInfo tests[] = {{"a text event is one line, with its level and request", test_text},
                           {"a JSON event is one line of valid JSON", test_json},
                           {"access lines carry their fields in both formats", test_access},
                           {"reopening follows a moved file", test_reopen},
                           {"failures: no file, full disk, no logger", test_failures},
                           {"lines of several threads do not mix", test_threads},
                           CU_TEST_INFO_NULL};
    return unit_main("log", tests);
}
