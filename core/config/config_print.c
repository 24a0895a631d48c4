/* config_print - what the table of settings is shown as: a file, --help, a page of the documentation. */
#include "core/config/config.h"

#include "core/config/config_options.h"

#include <string.h>

/* Does a new section begin at i? */
static bool section_begins(const struct config_option *table, size_t i)
{
    return i == 0 || strcmp(table[i].section, table[i - 1].section) != 0;
}

void config_print(const struct config *cfg, struct bytebuf *out)
{
    size_t count;
    const struct config_option *table = config_option_table(&count);
    bytebuf_text(out,
                 "; Every setting of blobd as it is in force. Secrets are masked: put them in before using this.\n");
    for (size_t i = 0; i < count; i++) {
        if (section_begins(table, i))
            bytebuf_printf(out, "\n[%s]\n", table[i].section);
        bytebuf_printf(out, "%s=", table[i].key);
        config_value_print(cfg, &table[i], out);
        bytebuf_text(out, "\n");
    }
}

void config_help(struct bytebuf *out)
{
    size_t count;
    const struct config_option *table = config_option_table(&count);
    for (size_t i = 0; i < count; i++) {
        const struct config_option *option = &table[i];
        if (section_begins(table, i))
            bytebuf_text(out, i == 0 ? "" : "\n");
        bytebuf_printf(out, "  %s.%s=%s\n      %s\n      Takes ", option->section, option->key, option->initial,
                       option->text);
        config_value_describe(option, out);
        bytebuf_text(out, ".\n");
    }
}

/* A cell of a table: '|' would end it. */
static void add_cell(const char *text, struct bytebuf *out)
{
    for (; *text; text++) {
        if (*text == '|')
            bytebuf_text(out, "\\");
        bytebuf_add(out, text, 1);
    }
}

static void add_row(const struct config_option *option, struct bytebuf *out)
{
    bytebuf_printf(out, "| `%s` | ", option->key);
    if (*option->initial)
        bytebuf_printf(out, "`%s`", option->initial);
    bytebuf_text(out, " | ");
    config_value_describe(option, out);
    bytebuf_text(out, " | ");
    add_cell(option->text, out);
    bytebuf_printf(out, "%s |\n", option->secret == CONFIG_OPEN ? "" : " Secret.");
}

void config_markdown(struct bytebuf *out)
{
    size_t count;
    const struct config_option *table = config_option_table(&count);
    bytebuf_text(
        out,
        "# Configuration\n\n"
        "<!-- Made from config_options.c by `cmake --build build --target config_docs`; a test compares. -->\n\n"
        "Settings come from an INI file (`blobd -c FILE`), overridden by environment variables, overridden by\n"
        "`--set section.key=value`. The variable of `root` in `[storage.disk]` is `BLOBD_STORAGE_DISK_ROOT`, and so\n"
        "on. An unknown key or a bad value is an error that names file, line and key; an unknown `BLOBD_…` variable "
        "is\n"
        "a warning.\n\n"
        "- `blobd --check-config` checks every setting, and the certificate, key and tokens file that they name, and\n"
        "  exits; the storage is `--check-storage`'s. `blobd --print-config` prints a file with every setting as it "
        "is\n"
        "  in force, which can be read back. Secrets are masked in it, and the mask is refused when read.\n"
        "- Lines that begin with `;` or `#` are comments; a blank and `;` begin a comment behind a value.\n"
        "- Durations take `ms`, `s`, `m`, `h`, `d`; sizes take `K`, `M`, `G`, `T` (powers of 1024). Every interval "
        "may\n"
        "  be set as low as one second.\n"
        "- HUP reads the file again. What takes effect says so below; every other setting that was changed is named "
        "in the\n"
        "  log as needing a restart. Only where nothing was wrong and nothing needs one, the log says just "
        "`reloaded`.\n");
    for (size_t i = 0; i < count; i++) {
        if (section_begins(table, i))
            bytebuf_printf(out, "\n## [%s]\n\n| key | default | takes | |\n|---|---|---|---|\n", table[i].section);
        add_row(&table[i], out);
    }
}

void config_needs_restart(const struct config *running, const struct config *loaded, struct bytebuf *out)
{
    size_t count;
    const struct config_option *table = config_option_table(&count);
    for (size_t i = 0; i < count; i++)
        if (!table[i].reloadable && !config_value_equal(running, loaded, &table[i]))
            bytebuf_printf(out, "%s.%s: the change takes effect after a restart\n", table[i].section, table[i].key);
}
