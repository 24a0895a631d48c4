/*
 * unit_main - the main() of a CUnit program: registers one suite or several, prints a line per test and CUnit's run
 * summary (scripts/test counts from it), and returns non-zero when a test failed or none ran.
 *
 *     static CU_TestInfo tests[] = {{"an empty buffer is an empty string", test_empty}, CU_TEST_INFO_NULL};
 *     int main(void)
 *     {
 *         return unit_main("bytebuf", tests);
 *     }
 */
#ifndef BLOBD_TESTS_UNIT_MAIN_H
#define BLOBD_TESTS_UNIT_MAIN_H

#include <CUnit/Basic.h>
#include <stdio.h>
#include <stdlib.h>

/* suites ends with CU_SUITE_INFO_NULL. */
static inline int unit_main_suites(CU_SuiteInfo *suites)
{
    /* So that what was printed before a crash is seen. */
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (CU_initialize_registry() != CUE_SUCCESS || CU_register_suites(suites) != CUE_SUCCESS) {
        fprintf(stderr, "CUnit: %s\n", CU_get_error_msg());
        return EXIT_FAILURE;
    }
    CU_basic_set_mode(CU_BRM_VERBOSE);
    CU_ErrorCode code = CU_basic_run_tests();
    unsigned ran = CU_get_number_of_tests_run();
    unsigned failed = CU_get_number_of_tests_failed() + CU_get_number_of_suites_failed();
    CU_cleanup_registry();
    return code == CUE_SUCCESS && ran > 0 && failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static inline int unit_main(const char *suite, CU_TestInfo *tests)
{
    CU_SuiteInfo suites[] = {{suite, NULL, NULL, NULL, NULL, tests}, CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}

#endif
