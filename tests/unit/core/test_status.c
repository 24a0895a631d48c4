/* status - every code has a name; an error is filled whole, cut to its size, and left alone where nobody asks. */
#include "core/status.h"
#include "core/text/utf8.h"
#include "tests/rig/unit_main.h"

#include <errno.h>
#include <string.h>

static void test_names(void)
{
    for (int st = 0; st < BLOB_STATUS_COUNT; st++)
        CU_ASSERT_STRING_NOT_EQUAL(blob_status_name((enum blob_status)st), "?");
    CU_ASSERT_STRING_EQUAL(blob_status_name(BLOB_E_NO_SPACE), "NO_SPACE");
    CU_ASSERT_STRING_EQUAL(blob_status_name((enum blob_status)999), "?");
}

static void test_fail(void)
{
    struct blob_error err;
    CU_ASSERT_EQUAL(blob_fail(&err, BLOB_E_IO, ENOENT, "open %s", "a"), BLOB_E_IO);
    CU_ASSERT_STRING_EQUAL(err.text, "open a: No such file or directory");
    CU_ASSERT_EQUAL(err.sys_errno, ENOENT);
    CU_ASSERT_FALSE(err.retryable);
    CU_ASSERT_EQUAL(blob_fail(&err, BLOB_E_UNAVAILABLE, 0, "busy"), BLOB_E_UNAVAILABLE);
    CU_ASSERT_STRING_EQUAL(err.text, "busy");
    CU_ASSERT_TRUE(err.retryable);
    CU_ASSERT_EQUAL(blob_fail(NULL, BLOB_E_CORRUPT, 0, "unseen"), BLOB_E_CORRUPT);
}

static void test_fail_cuts(void)
{
    struct blob_error err;
    char text[600];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    CU_ASSERT_EQUAL(blob_fail(&err, BLOB_E_IO, EIO, "%s", text), BLOB_E_IO);
    CU_ASSERT_EQUAL(strlen(err.text), sizeof err.text - 1);
}

/* Of a path that is too long both ends are told, and why it failed, in whole characters. */
static void test_fail_tells_the_reason(void)
{
    struct blob_error err;
    char path[6000];
    for (size_t len = 0; len < sizeof path - 1; len += len < 400 ? 1 : 97) {
        for (size_t i = 0; i < len; i++)
            path[i] = i % 2 ? '\xa4' : '\xc3';
        path[len - len % 2] = '\0';
        CU_ASSERT_EQUAL(blob_fail(&err, BLOB_E_IO, ENOENT, "make %s", path), BLOB_E_IO);
        CU_ASSERT_TRUE(strncmp(err.text, "make ", 5) == 0 && strlen(err.text) < sizeof err.text);
        CU_ASSERT_STRING_EQUAL(err.text + strlen(err.text) - 27, ": No such file or directory");
        CU_ASSERT_TRUE(utf8_valid(err.text, strlen(err.text)));
        CU_ASSERT_EQUAL(strstr(err.text, "[...]") != NULL, strlen(path) + 5 + 27 >= sizeof err.text);
    }
    CU_ASSERT_EQUAL(blob_fail(&err, BLOB_E_IO, 0, "%s: the reason", path), BLOB_E_IO);
}

static void test_errno(void)
{
    CU_ASSERT_EQUAL(blob_status_from_errno(0), BLOB_OK);
    CU_ASSERT_EQUAL(blob_status_from_errno(ENOSPC), BLOB_E_NO_SPACE);
    CU_ASSERT_EQUAL(blob_status_from_errno(EDQUOT), BLOB_E_NO_SPACE);
    CU_ASSERT_EQUAL(blob_status_from_errno(ENOENT), BLOB_E_NOT_FOUND);
    CU_ASSERT_EQUAL(blob_status_from_errno(EROFS), BLOB_E_DENIED);
    CU_ASSERT_EQUAL(blob_status_from_errno(EMFILE), BLOB_E_UNAVAILABLE);
    CU_ASSERT_EQUAL(blob_status_from_errno(EIO), BLOB_E_IO);
}

int main(void)
{
    CU_TestInfo tests[] = {{"every status has a name of its own", test_names},
                           {"a failure fills the error and says the errno", test_fail},
                           {"a long text is cut, not overrun", test_fail_cuts},
                           {"an error of a long path tells its ends and the reason", test_fail_tells_the_reason},
                           {"errno values map to what callers act on", test_errno},
                           CU_TEST_INFO_NULL};
    return unit_main("status", tests);
}
