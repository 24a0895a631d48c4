/* command_line - read by hand: the options are few, and a message can name what is wrong in our own words. */
#include "server/command_line.h"

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

static bool take_action(const char *arg, enum command_action *out)
{
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(arg, actions[i].name) == 0) {
            *out = actions[i].action;
            return true;
        }
    }
    return false;
}

enum blob_status command_line_parse(int argc, char *const *argv, struct command_line *out, struct blob_error *err)
{
    struct command_line cmd = {.action = COMMAND_SERVE};
    cmd.sets = calloc((size_t)argc + 1, sizeof *cmd.sets);
    if (cmd.sets == NULL)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "out of memory");
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value = NULL;
        if (take_action(arg, &cmd.action))
            continue;
        bool is_set = takes_value("--set", argc, argv, &i, &value);
        bool known =
            is_set || takes_value("-c", argc, argv, &i, &value) || takes_value("--config", argc, argv, &i, &value);
        if (!known || value == NULL) {
            free(cmd.sets);
            return blob_fail(err, BLOB_E_INVALID, 0, known ? "%s needs a value" : "unknown argument %s; see --help",
                             arg);
        }
        if (is_set)
            cmd.sets[cmd.set_count++] = value;
        else
            cmd.file = value;
    }
    *out = cmd;
    return BLOB_OK;
}

void command_line_release(struct command_line *cmd)
{
    free(cmd->sets);
    cmd->sets = NULL;
}
