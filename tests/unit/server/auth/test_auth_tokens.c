/* auth_tokens - the tokens file is read as written, and every mistake in it is named by its line. */
#include "server/auth/auth_tokens.h"
#include "tests/rig/unit_main.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_A "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8" /* of "password" */
#define HASH_B "B5BB9D8014A0F9B1D61E21E796D78DCCDF1352F23CD32812F4850B878AE4944C" /* of "foo\n" */

static struct token_list *list;
static struct blob_error err;

static enum blob_status load(const char *text)
{
    char path[] = "/tmp/blobd-tokens-XXXXXX";
    int fd = mkstemp(path);
    CU_ASSERT_FATAL(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    token_list_free(list);
    list = NULL;
    enum blob_status st = token_list_load(path, &list, &err);
    unlink(path);
    return st;
}

static bool find(const char *hex, struct identity *who)
{
    struct digest hash;
    CU_ASSERT_EQUAL_FATAL(digest_parse(hex, &hash), BLOB_OK);
    return token_list_find(list, &hash, who);
}

static void test_read(void)
{
    struct identity who = {0};
    CU_ASSERT_EQUAL(load("# comment\n\n  alice\t" HASH_A "  \r\nroot " HASH_B " admin"), BLOB_OK);
    CU_ASSERT_EQUAL(token_list_count(list), 2);
    CU_ASSERT_TRUE(find(HASH_A, &who));
    CU_ASSERT_STRING_EQUAL(who.name, "alice");
    CU_ASSERT_TRUE(who.known);
    CU_ASSERT_FALSE(who.admin);
    CU_ASSERT_TRUE(find(HASH_B, &who));
    CU_ASSERT_STRING_EQUAL(who.name, "root");
    CU_ASSERT_TRUE(who.admin);
}

static void test_unknown(void)
{
    struct identity who = {.name = "before"};
    CU_ASSERT_EQUAL(load("alice " HASH_A "\n"), BLOB_OK);
    CU_ASSERT_FALSE(find(HASH_B, &who));
    CU_ASSERT_STRING_EQUAL(who.name, "before");
    CU_ASSERT_EQUAL(load("# nobody\n"), BLOB_OK);
    CU_ASSERT_FALSE(find(HASH_A, &who));
}

static void test_two_tokens_of_one_name(void)
{
    struct identity who;
    CU_ASSERT_EQUAL(load("alice " HASH_A "\nalice " HASH_B "\n"), BLOB_OK);
    CU_ASSERT_TRUE(find(HASH_A, &who));
    CU_ASSERT_TRUE(find(HASH_B, &who));
    CU_ASSERT_STRING_EQUAL(who.name, "alice");
}

static void expect_bad_line(const char *text, const char *line)
{
    CU_ASSERT_EQUAL(load(text), BLOB_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, line));
    CU_ASSERT_PTR_NULL(strstr(err.text, "5e88"));
    CU_ASSERT_PTR_NULL(list);
}

static void test_mistakes(void)
{
    char long_name[200 + sizeof HASH_A];
    expect_bad_line("alice\n", ":1: ");
    expect_bad_line("\n# x\nalice 5e88\n", ":3: ");
    expect_bad_line("alice sha256:" HASH_A "\n", ":1: ");
    expect_bad_line("alice " HASH_A " Admin\n", ":1: ");
    expect_bad_line("alice " HASH_A " admin more\n", ":1: ");
    expect_bad_line("alice " HASH_A "\nbob " HASH_B "\ncarol " HASH_A "\n", ":3: ");
    /* A name that no record can hold would be let upload, and never complete. */
    expect_bad_line("alice " HASH_A "\ncaf\xe9 " HASH_B "\n", ":2: the name is not UTF-8");
    expect_bad_line("a\001b " HASH_A "\n", ":1: the name holds a control character");
    memset(long_name, 'n', 150);
    snprintf(long_name + 150, sizeof long_name - 150, " %s", HASH_A);
    expect_bad_line(long_name, ":1: ");
}

static void test_missing_file(void)
{
    token_list_free(list);
    list = NULL;
    CU_ASSERT_EQUAL(token_list_load("/nonexistent/tokens", &list, &err), BLOB_E_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "/nonexistent/tokens"));
}

/* At a reload a FIFO would hold the main thread for good, and a file of zeros would lock everybody out. */
static void test_no_file_of_tokens(void)
{
    char dir[] = "/tmp/blobd-tokens-XXXXXX", path[64];
    static const char zeros[64];
    CU_ASSERT_PTR_NOT_NULL_FATAL(mkdtemp(dir));
    token_list_free(list);
    list = NULL;
    CU_ASSERT_EQUAL(token_list_load(dir, &list, &err), BLOB_E_INVALID);
    snprintf(path, sizeof path, "%s/tokens", dir);
    CU_ASSERT_EQUAL_FATAL(mkfifo(path, 0600), 0);
    CU_ASSERT_EQUAL(token_list_load(path, &list, &err), BLOB_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, path));
    unlink(path);
    FILE *f = fopen(path, "w");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    fprintf(f, "alice " HASH_A "\n");
    fwrite(zeros, 1, sizeof zeros, f);
    fclose(f);
    CU_ASSERT_EQUAL(token_list_load(path, &list, &err), BLOB_E_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, ":2: the line holds a NUL byte"));
    unlink(path);
    rmdir(dir);
}

static void test_many(void)
{
    struct identity who;
    char *text = calloc(500, 100), name[16];
    size_t at = 0;
    for (unsigned i = 0; i < 500; i++)
        at += (size_t)snprintf(text + at, 50000 - at, "n%u %08x%056x\n", i, i * 2654435761u, i);
    CU_ASSERT_EQUAL(load(text), BLOB_OK);
    for (unsigned i = 0; i < 500; i++) {
        char hex[65];
        snprintf(hex, sizeof hex, "%08x%056x", i * 2654435761u, i);
        snprintf(name, sizeof name, "n%u", i);
        CU_ASSERT_TRUE(find(hex, &who));
        CU_ASSERT_STRING_EQUAL(who.name, name);
    }
    free(text);
    token_list_free(list);
    list = NULL;
}

int main(void)
{
    CU_TestInfo tests[] = {{"names, hashes of any case, comments and admins are read", test_read},
                           {"a hash that is not there belongs to nobody", test_unknown},
                           {"one name may have two tokens", test_two_tokens_of_one_name},
                           {"a mistake names file and line, never the hash", test_mistakes},
                           {"a missing file is named", test_missing_file},
                           {"a FIFO, a directory and NUL bytes are no tokens", test_no_file_of_tokens},
                           {"each of many tokens is found", test_many},
                           CU_TEST_INFO_NULL};
    return unit_main("auth_tokens", tests);
}
