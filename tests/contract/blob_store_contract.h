/*
 * blob_store_contract - the suite that every blob store must pass: core/blob_store.h, executed.
 *
 *     static int use_disk(void)
 *     {
 *         static const struct blob_contract contract = {.name = "disk", .open = ..., .reset = ...};
 *         blob_contract_use(&contract);
 *         return 0;
 *     }
 *     CU_SuiteInfo suites[] = {{"disk", use_disk, NULL, NULL, NULL, blob_contract_tests()}, CU_SUITE_INFO_NULL};
 */
#ifndef BLOBD_TESTS_BLOB_STORE_CONTRACT_H
#define BLOBD_TESTS_BLOB_STORE_CONTRACT_H

#include "core/blob_store.h"

#include <CUnit/CUnit.h>

struct blob_contract {
    const char *name;
    /* Makes the store empty. Called before each test, with no store open. */
    void (*reset)(void);
    /* Opens it: once at a time, unless the store has STORE_SHARED; then each is another node. */
    enum blob_status (*open)(struct blob_store **out, struct blob_error *err);
    /* What was written is there after closing and opening again. */
    bool persists;
    /* Opening and each operation is slow (a store behind a network): fewer rounds, smaller sizes. */
    bool slow;
    /* Shortens the stored bytes of a blob behind the store's back. NULL: cannot be done. */
    void (*damage)(const struct digest *digest);
    /* Changes some of them, and leaves the size. NULL: cannot be done. */
    void (*corrupt)(const struct digest *digest);
};

/* Borrowed until the tests have run. */
void blob_contract_use(const struct blob_contract *contract);
CU_TestInfo *blob_contract_tests(void);

#endif
