/*
 * command_line - what blobd is asked to do.
 *
 *     blobd [-c FILE] [--set section.key=value]… [--check-config | --print-config | --check-storage | --scrub |
 * --version | --help]
 *
 * Threads: plain values. Ownership: texts are argv's; command_line_release() frees the list of --set.
 */
#ifndef BLOBD_SERVER_COMMAND_LINE_H
#define BLOBD_SERVER_COMMAND_LINE_H

#include "core/status.h"

#include <stddef.h>

enum command_action {
    COMMAND_SERVE,
    COMMAND_CHECK_CONFIG,
    COMMAND_PRINT_CONFIG,
    COMMAND_CHECK_STORAGE,
    COMMAND_SCRUB,
    COMMAND_VERSION,
    COMMAND_HELP,
};

struct command_line {
    enum command_action action;
    const char *file; /* NULL: none */
    const char **sets;
    size_t set_count;
};

extern const char command_line_usage[];

/* INVALID names the argument. */
enum blob_status command_line_parse(int argc, char *const *argv, struct command_line *out,
                                    struct blob_error *err) BLOB_MUST_CHECK;
void command_line_release(struct command_line *cmd);

#endif
