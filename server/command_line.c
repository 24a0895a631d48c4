/* command_line - read by hand: the options are few, and a message can name what is wrong in our own words. */
#include "server/command_line.h"

#include "core/text/nearest.h"

#include <stdlib.h>
#include <string.h>

const char command_line_usage[] =
    "usage: blobd [-c FILE] [--set section.key=value]... [ACTION]\n"
    "\n"
    "  -c, --config FILE          read settings from FILE\n"
    "      --set section.key=value  a setting, in place of what the environment and FILE say\n"
    "\n"
    "actions (default: serve):\n"
    "      --check-config         say whether the settings, and the files of [tls] and [auth], are right\n"
    "      --print-config         print every setting as a file that can be read back, secrets masked\n"
    "      --check-storage        try everything blobd needs of its storage, and say what works\n"
    "      --scrub                read all that is stored, and set aside what does not match its digest; exit status "
    "3:\n"
    "                             something is damaged or missing, 1: not everything could be looked at\n"
    "      --version              print the version\n"
    "      --help                 print this text and every setting\n";

static const struct {
    const char *name;
    enum command_action action;
} actions[] = {
    {"--check-config", COMMAND_CHECK_CONFIG},
    {"--print-config", COMMAND_PRINT_CONFIG},
    {"--check-storage", COMMAND_CHECK_STORAGE},
    {"--scrub", COMMAND_SCRUB},
    {"--version", COMMAND_VERSION},
    {"--help", COMMAND_HELP},
    {"-h", COMMAND_HELP},
};

/* Is arg this option? Its value is behind '=' or in the next argument: *value is set, and *i moved to it. */
static bool takes_value(const char *option, int argc, char *const *argv, int *i, const char **value)
{
    size_t len = strlen(option);
    if (strcmp(argv[*i], option) == 0) {
        *value = *i + 1 < argc ? argv[++*i] : NULL;
        return true;
    }
    if (strncmp(argv[*i], option, len) != 0 || argv[*i][len] != '=' || option[1] != '-')
        return false;
    *value = argv[*i] + len + 1;
    return true;
}

/* NULL: it is none. */
static const enum command_action *find_action(const char *arg)
{
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (strcmp(arg, actions[i].name) == 0)
            return &actions[i].action;
    return NULL;
}

static const char *action_name(enum command_action action)
{
    size_t i = 0;
    while (actions[i].action != action)
        i++;
    return actions[i].name;
}

static enum blob_status take_action(enum command_action action, struct command_line *cmd, struct blob_error *err)
{
    if (cmd->action != COMMAND_SERVE && cmd->action != action)
        return blob_fail(err, BLOB_E_INVALID, 0, "%s and %s cannot be done at once: ask for one of them",
                         action_name(cmd->action), action_name(action));
    cmd->action = action;
    return BLOB_OK;
}

static enum blob_status take_file(const char *file, struct command_line *cmd, struct blob_error *err)
{
    if (cmd->file != NULL)
        return blob_fail(err, BLOB_E_INVALID, 0,
                         "-c is given twice, %s and %s: settings are read from one file; --set overrides single ones",
                         cmd->file, file);
    cmd->file = file;
    return BLOB_OK;
}

static enum blob_status refuse(const char *arg, struct blob_error *err)
{
    struct nearest near;
    nearest_begin(&near, arg);
    nearest_look(&near, "--set");
    nearest_look(&near, "--config");
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        nearest_look(&near, actions[i].name);
    if (near.name)
        return blob_fail(err, BLOB_E_INVALID, 0, "unknown argument %s; did you mean %s? see --help", arg, near.name);
    return blob_fail(err, BLOB_E_INVALID, 0, "unknown argument %s; see --help", arg);
}

/* The argument at *i, and its value with it. */
static enum blob_status take(int argc, char *const *argv, int *i, struct command_line *cmd, struct blob_error *err)
{
    const char *arg = argv[*i], *value = NULL;
    const enum command_action *action = find_action(arg);
    if (action != NULL)
        return take_action(*action, cmd, err);
    bool is_set = takes_value("--set", argc, argv, i, &value);
    if (!is_set && !takes_value("-c", argc, argv, i, &value) && !takes_value("--config", argc, argv, i, &value))
        return refuse(arg, err);
    if (value == NULL)
        return blob_fail(err, BLOB_E_INVALID, 0, "%s needs a value", arg);
    if (!is_set)
        return take_file(value, cmd, err);
    cmd->sets[cmd->set_count++] = value;
    return BLOB_OK;
}

enum blob_status command_line_parse(int argc, char *const *argv, struct command_line *out, struct blob_error *err)
{
    struct command_line cmd = {.action = COMMAND_SERVE};
    cmd.sets = calloc((size_t)argc + 1, sizeof *cmd.sets);
    if (cmd.sets == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "out of memory");
    for (int i = 1; i < argc; i++) {
        enum blob_status st = take(argc, argv, &i, &cmd, err);
        if (st != BLOB_OK) {
            free(cmd.sets);
            return st;
        }
    }
    *out = cmd;
    return BLOB_OK;
}

void command_line_release(struct command_line *cmd)
{
    free(cmd->sets);
    cmd->sets = NULL;
}
