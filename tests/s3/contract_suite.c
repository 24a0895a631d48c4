/*
 * contract_suite - the storage contract on the S3 store, on the endpoint and with the driver of the environment.
 */
#include "backends/s3/s3_store.h"
#include "core/clock.h"
#include "tests/contract/blob_store_contract.h"
#include "tests/rig/unit_main.h"
#include "tests/s3/s3_environment.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

/* Each test has a prefix of its own: an empty store. */
static char prefix[64];

static struct s3_options options(void)
{
    struct s3_options o = s3_environment();
    o.part_size_bytes = 5u << 20;
    o.prefix = prefix;
    o.redirect = true;
    return o;
}

static void reset(void)
{
    static unsigned serial;
    snprintf(prefix, sizeof prefix, "contract-%d-%lld-%u", (int)getpid(), (long long)clock_wall_ms(), serial++);
}

static enum blob_status open_store(struct blob_store **out, struct blob_error *err)
{
    struct s3_options o = options();
    return s3_store_open(&o, NULL, out, err);
}

/* Replaces the blob's object by its first half, or by all of it, one byte changed. */
static void spoil(const struct digest *digest, bool cut)
{
    struct s3_options o = options();
    struct s3_client *c = NULL;
    char hex[DIGEST_HEX_CHARS + 1], key[128], pointer[1024], data_key[S3_KEY_MAX + 1] = "";
    size_t len = 0;
    digest_hex(digest, hex);
    snprintf(key, sizeof key, "blobs/%.2s/%s.json", hex, hex);
    CU_ASSERT_EQUAL_FATAL(s3_client_open(&o, &c, NULL), BLOB_OK);
    CU_ASSERT_EQUAL_FATAL(s3_get(c, key, pointer, sizeof pointer - 1, &len, NULL, NULL), BLOB_OK);
    pointer[len] = '\0';
    const char *at = strstr(pointer, "\"data\":\"");
    CU_ASSERT_PTR_NOT_NULL_FATAL(at);
    CU_ASSERT_EQUAL_FATAL(sscanf(at, "\"data\":\"%512[^\"]", data_key), 1);
    struct s3_object object = {0};
    CU_ASSERT_EQUAL_FATAL(s3_head(c, data_key, &object, NULL), BLOB_OK);
    size_t size = cut ? (size_t)object.size / 2 : (size_t)object.size, got = 0;
    char *bytes = malloc(size + 1);
    if (size > 0)
        CU_ASSERT_EQUAL(s3_get_range(c, data_key, 0, size, bytes, &got, NULL, NULL), BLOB_OK);
    if (!cut)
        bytes[size / 2] ^= 0x10;
    const struct s3_body body = {.data = bytes, .length = size};
    CU_ASSERT_EQUAL(s3_put(c, data_key, &body, NULL, NULL, NULL), BLOB_OK);
    free(bytes);
    s3_client_close(c);
}

static void damage(const struct digest *digest)
{
    spoil(digest, true);
}

static void corrupt(const struct digest *digest)
{
    spoil(digest, false);
}

static int use_s3(void)
{
    static const struct blob_contract contract = {.name = "s3",
                                                  .reset = reset,
                                                  .open = open_store,
                                                  .persists = true,
                                                  .slow = true,
                                                  .damage = damage,
                                                  .corrupt = corrupt};
    blob_contract_use(&contract);
    return 0;
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    CU_SuiteInfo suites[] = {{"s3 store", use_s3, NULL, NULL, NULL, blob_contract_tests()}, CU_SUITE_INFO_NULL};
    return unit_main_suites(suites);
}
