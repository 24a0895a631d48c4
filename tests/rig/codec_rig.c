/*
 * codec_rig - copies of exactly the length that is decoded.
 */
#include "tests/rig/codec_rig.h"

#include <CUnit/CUnit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum blob_status decode_copy(const void *data, size_t len, codec_decode_fn *decode, void *arg)
{
    char *copy = malloc(len > 0 ? len : 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(copy);
    if (len > 0)
        memcpy(copy, data, len);
    enum blob_status st = decode(copy, len, arg);
    free(copy);
    return st;
}

void codec_refuses_truncations(const void *data, size_t len, codec_decode_fn *decode, void *arg)
{
    CU_ASSERT_EQUAL(decode_copy(data, len, decode, arg), BLOB_OK);
    for (size_t n = 0; n < len; n++)
        CU_ASSERT_EQUAL(decode_copy(data, n, decode, arg), BLOB_E_CORRUPT);
}

size_t codec_bears_flips(const void *data, size_t len, codec_decode_fn *decode, void *arg)
{
    size_t corrupt = 0;
    unsigned char *bytes = malloc(len);
    CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
    memcpy(bytes, data, len);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        enum blob_status st = decode_copy(bytes, len, decode, arg);
        CU_ASSERT_TRUE(st == BLOB_OK || st == BLOB_E_CORRUPT);
        corrupt += st == BLOB_E_CORRUPT;
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
    }
    free(bytes);
    return corrupt;
}

void codec_refuses_more(const void *data, size_t len, codec_decode_fn *decode, void *arg)
{
    char *bytes = malloc(len + 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
    memcpy(bytes, data, len);
    bytes[len] = 0;
    CU_ASSERT_EQUAL(decode_copy(bytes, len + 1, decode, arg), BLOB_E_CORRUPT);
    free(bytes);
}

void codec_sample(const char *name, struct bytebuf *out)
{
    char path[256], block[4096];
    size_t got;
    bytebuf_clear(out);
    snprintf(path, sizeof path, "tests/data/%s", name);
    FILE *f = fopen(path, "rb");
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    while ((got = fread(block, 1, sizeof block, f)) > 0)
        bytebuf_add(out, block, got);
    fclose(f);
    CU_ASSERT_TRUE(out->len > 0 && !out->failed);
}
