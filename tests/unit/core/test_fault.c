/* fault - armed points fail the hits they should, and no others. */
#include "core/fault.h"
#include "tests/rig/unit_main.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_unarmed(void)
{
    fault_disarm_all();
    CU_ASSERT_EQUAL(FAULT_POINT("a"), 0);
}

static void test_after_and_times(void)
{
    fault_arm("a", ENOSPC, 2, 2);
    CU_ASSERT_EQUAL(FAULT_POINT("b"), 0);
    CU_ASSERT_EQUAL(FAULT_POINT("a"), 0);
    CU_ASSERT_EQUAL(FAULT_POINT("a"), 0);
    CU_ASSERT_EQUAL(FAULT_POINT("a"), ENOSPC);
    CU_ASSERT_EQUAL(FAULT_POINT("a"), ENOSPC);
    CU_ASSERT_EQUAL(FAULT_POINT("a"), 0);
    fault_disarm_all();
}

static void test_forever(void)
{
    fault_arm("a", EIO, 0, 0);
    for (int i = 0; i < 5; i++)
        CU_ASSERT_EQUAL(FAULT_POINT("a"), EIO);
    fault_disarm_all();
    CU_ASSERT_EQUAL(FAULT_POINT("a"), 0);
}

static void test_environment(void)
{
    CU_ASSERT_EQUAL(setenv("BLOBD_FAULTS_ARM", "disk.write=ENOSPC:1:1,disk.fsync=5", 1), 0);
    fault_arm_from_environment();
    CU_ASSERT_EQUAL(FAULT_POINT("disk.write"), 0);
    CU_ASSERT_EQUAL(FAULT_POINT("disk.write"), ENOSPC);
    CU_ASSERT_EQUAL(FAULT_POINT("disk.write"), 0);
    CU_ASSERT_EQUAL(FAULT_POINT("disk.fsync"), EIO);
    CU_ASSERT_EQUAL(FAULT_POINT("disk.fsync"), EIO);
    fault_disarm_all();
    unsetenv("BLOBD_FAULTS_ARM");
}

static int status_of_child(void (*run)(void))
{
    int status = 0;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        fclose(stderr);
        run();
        _exit(0);
    }
    CU_ASSERT_EQUAL_FATAL(waitpid(pid, &status, 0), pid);
    return status;
}

static void hit_kill(void)
{
    fault_arm("crash", FAULT_KILL, 0, 1);
    fault_hit("crash");
}

static void arm_misspelt(void)
{
    setenv("BLOBD_FAULTS_ARM", "disk.write=ENOSPACE", 1);
    fault_arm_from_environment();
}

static void test_kill(void)
{
    int status = status_of_child(hit_kill);
    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void test_misspelt(void)
{
    int status = status_of_child(arm_misspelt);
    CU_ASSERT(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

int main(void)
{
    CU_TestInfo tests[] = {{"an unarmed point is silent", test_unarmed},
                           {"after and times choose the hits", test_after_and_times},
                           {"times 0 fails for ever", test_forever},
                           {"the environment arms several by name or number", test_environment},
                           {"kill ends the process on the spot", test_kill},
                           {"a misspelt errno stops the test instead of passing it", test_misspelt},
                           CU_TEST_INFO_NULL};
    return unit_main("fault", tests);
}
