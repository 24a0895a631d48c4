/* config_page - writes docs/configuration.md from the table of settings to the file it is given. */
#include "core/config/config.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    FILE *file = argc == 2 ? fopen(argv[1], "w") : NULL;
    if (!file) {
        perror("usage: config_page FILE");
        return EXIT_FAILURE;
    }
    struct bytebuf page;
    bytebuf_init(&page);
    config_markdown(&page);
    fputs(page.data, file);
    bytebuf_release(&page);
    return fclose(file) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
