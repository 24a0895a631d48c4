/*
 * session_store_contract - the suite that every session store must pass: core/session_store.h, executed.
 *
 *     static const struct session_contract contract = {.name = "memory", .open = ..., .reset = ...};
 *     session_contract_use(&contract);
 *     CU_SuiteInfo suites[] = {{"memory", NULL, NULL, NULL, NULL, session_contract_tests()}, CU_SUITE_INFO_NULL};
 */
#ifndef BLOBD_TESTS_SESSION_STORE_CONTRACT_H
#define BLOBD_TESTS_SESSION_STORE_CONTRACT_H

#include "core/session_store.h"

#include <CUnit/CUnit.h>

struct session_contract {
    const char *name;
    /* Makes the store empty. Called before each test, with no store open. */
    void (*reset)(void);
    /* Opens it: once at a time, unless it is shared; then each is another node. Not joined yet. */
    enum blob_status (*open)(struct session_store **out, struct blob_error *err);
    /* What was written is there after closing and opening again. */
    bool persists;
};

/* Borrowed until the tests have run. */
void session_contract_use(const struct session_contract *contract);
CU_TestInfo *session_contract_tests(void);

#endif
