/* The start's small parts: the command line, and how max_memory is shared out. */
#include "server/command_line.h"
#include "server/memory_budget.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static struct command_line cmd;
static struct blob_error err;

/* Arguments separated by one blank each. */
static enum blob_status parse(const char *arguments)
{
    static char text[256], *argv[16];
    int argc = 0;
    snprintf(text, sizeof text, "%s", arguments);
    for (char *p = text; p != NULL; argc++) {
        argv[argc] = p;
        p = strchr(p, ' ');
        if (p != NULL)
            *p++ = '\0';
    }
    return command_line_parse(argc, argv, &cmd, &err);
}

static void test_arguments(void)
{
    CU_ASSERT_EQUAL(parse("blobd"), BLOB_OK);
    CU_ASSERT_EQUAL(cmd.action, COMMAND_SERVE);
    CU_ASSERT_PTR_NULL(cmd.file);
    command_line_release(&cmd);
    CU_ASSERT_EQUAL(parse("blobd -c a.ini --set a.b=c --set=d.e=f=g --print-config"), BLOB_OK);
    CU_ASSERT_EQUAL(cmd.action, COMMAND_PRINT_CONFIG);
    CU_ASSERT_STRING_EQUAL(cmd.file, "a.ini");
    CU_ASSERT_EQUAL_FATAL(cmd.set_count, 2);
    CU_ASSERT_STRING_EQUAL(cmd.sets[0], "a.b=c");
    CU_ASSERT_STRING_EQUAL(cmd.sets[1], "d.e=f=g");
    command_line_release(&cmd);
}

static void test_bad_arguments(void)
{
    CU_ASSERT_EQUAL(parse("blobd --frob"), BLOB_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "--frob"));
    CU_ASSERT_EQUAL(parse("blobd -c"), BLOB_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "-c"));
    CU_ASSERT_EQUAL(parse("blobd --set"), BLOB_E_INVALID);
    CU_ASSERT_EQUAL(parse("blobd file.ini"), BLOB_E_INVALID);
}

static void test_budget(void)
{
    for (uint64_t max = 32u << 20; max <= UINT64_C(1) << 36; max *= 2) {
        for (int tls = 0; tls < 2; tls++) {
            struct memory_budget b = memory_budget_split(max, 1000000, UINT64_MAX, tls);
            uint64_t connections = (uint64_t)b.max_connections * (tls ? 64u << 10 : 16u << 10);
            CU_ASSERT_TRUE(b.bodies + b.streams + b.answers + b.cache + connections <= max / 8 * 7);
            CU_ASSERT_TRUE(b.body_window >= 256u << 10 && b.body_window <= 2u << 20);
            CU_ASSERT_TRUE(b.body_window * 2 <= b.bodies);
            CU_ASSERT_TRUE(b.max_connections >= 16);
            CU_ASSERT_TRUE(b.answers >= 2u << 20); /* some of the largest listings at once */
        }
    }
    struct memory_budget asked = memory_budget_split(UINT64_C(1) << 30, 50, 1000, false);
    CU_ASSERT_EQUAL(asked.max_connections, 50);
    CU_ASSERT_EQUAL(asked.cache, 1000);
}

int main(void)
{
    CU_TestInfo tests[] = {{"file, settings and action are taken in any order", test_arguments},
                           {"an argument that is not known or not complete is named", test_bad_arguments},
                           {"the shares never come to more than the whole", test_budget},
                           CU_TEST_INFO_NULL};
    return unit_main("startup", tests);
}
