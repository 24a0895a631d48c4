/* s3_sign - Signature V4 agrees with the worked examples of the Amazon S3 API Reference (sig-v4-header-based-auth and
 * sigv4-query-string-auth), and encodes and sorts as S3 does. */
#include "backends/s3/client/s3_sign.h"
#include "tests/rig/unit_main.h"

#include <string.h>

#define EXAMPLE_TIME 1369353600 /* 20130524T000000Z */
#define HOST         "examplebucket.s3.amazonaws.com"

static const struct s3_sign_key example_key = {
    .id = "AKIAIOSFODNN7EXAMPLE", .secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", .region = "us-east-1"};

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void check_signature(const struct s3_signable *req, const char *target, const char *names, const char *signature)
{
    struct s3_signed out;
    char want[512];
    CU_ASSERT_EQUAL_FATAL(s3_sign(&example_key, req, EXAMPLE_TIME, &out), BLOB_OK);
    snprintf(want, sizeof want,
             "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=%s,"
             "Signature=%s",
             names, signature);
    CU_ASSERT_STRING_EQUAL(out.authorization, want);
    CU_ASSERT_STRING_EQUAL(out.target, target);
    CU_ASSERT_STRING_EQUAL(out.date, "20130524T000000Z");
    s3_signed_release(&out);
}

static void test_get_object(void)
{
    const struct s3_pair headers[] = {{"Range", "bytes=0-9"}};
    const struct s3_signable req = {.method = "GET",
                                    .host = HOST,
                                    .path = "/test.txt",
                                    .headers = headers,
                                    .header_count = 1,
                                    .payload = S3_EMPTY_SHA256};
    check_signature(&req, "/test.txt", "host;range;x-amz-content-sha256;x-amz-date",
                    "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void test_put_object(void)
{
    const struct s3_pair headers[] = {{"x-amz-storage-class", "REDUCED_REDUNDANCY"},
                                      {"Date", "Fri, 24 May 2013 00:00:00 GMT"}};
    const struct s3_signable req = {.method = "PUT",
                                    .host = HOST,
                                    .path = "/test$file.text",
                                    .headers = headers,
                                    .header_count = 2,
                                    .payload = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"};
    check_signature(&req, "/test%24file.text", "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void test_get_lifecycle(void)
{
    const struct s3_pair query[] = {{"lifecycle", ""}};
    const struct s3_signable req = {
        .method = "GET", .host = HOST, .path = "/", .query = query, .query_count = 1, .payload = S3_EMPTY_SHA256};
    check_signature(&req, "/?lifecycle=", "host;x-amz-content-sha256;x-amz-date",
                    "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

static void test_list_objects(void)
{
    const struct s3_pair query[] = {{"prefix", "J"}, {"max-keys", "2"}};
    const struct s3_signable req = {
        .method = "GET", .host = HOST, .path = "/", .query = query, .query_count = 2, .payload = S3_EMPTY_SHA256};
    check_signature(&req, "/?max-keys=2&prefix=J", "host;x-amz-content-sha256;x-amz-date",
                    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void test_presigned(void)
{
    const struct s3_signable req = {.method = "GET", .host = HOST, .path = "/test.txt"};
    char *target;
    CU_ASSERT_EQUAL_FATAL(s3_sign_url(&example_key, &req, EXAMPLE_TIME, 86400, &target), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(target, "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE"
                                   "%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z"
                                   "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature="
                                   "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404");
    free(target);
}

static void test_presigned_with_headers(void)
{
    const struct s3_pair query[] = {{"response-content-disposition", "attachment; filename=\"a b.wav\""}};
    const struct s3_signable req = {.method = "GET", .host = HOST, .path = "/k", .query = query, .query_count = 1};
    struct s3_sign_key key = example_key;
    key.token = "to/ken+=";
    char *target;
    CU_ASSERT_EQUAL_FATAL(s3_sign_url(&key, &req, EXAMPLE_TIME, 60, &target), BLOB_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(target, "&X-Amz-Security-Token=to%2Fken%2B%3D&X-Amz-SignedHeaders=host&"));
    CU_ASSERT_PTR_NOT_NULL(
        strstr(target, "&response-content-disposition=attachment%3B%20filename%3D%22a%20b.wav%22&X-Amz-Signature="));
    free(target);
}

/* "a" and "a-b" sort by name alone: '-' comes before '=' and ':'. */
static void test_names_sort_before_values(void)
{
    const struct s3_pair query[] = {{"a-b", "1"}, {"a", "2"}, {"a", "1"}, {"A", "3"}, {"\xc3\xa4", "\xe2\x82\xac"}};
    const struct s3_pair headers[] = {{"x-amz-meta-a-b", "1"}, {"X-Amz-Meta-A", "2"}};
    const struct s3_signable req = {.method = "GET",
                                    .host = HOST,
                                    .path = "/a/ \xc3\xa4+~",
                                    .query = query,
                                    .query_count = 5,
                                    .headers = headers,
                                    .header_count = 2,
                                    .payload = S3_UNSIGNED_PAYLOAD};
    struct s3_signed out;
    CU_ASSERT_EQUAL_FATAL(s3_sign(&example_key, &req, EXAMPLE_TIME, &out), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(out.target, "/a/%20%C3%A4%2B~?%C3%A4=%E2%82%AC&A=3&a=1&a=2&a-b=1");
    CU_ASSERT_PTR_NOT_NULL(
        strstr(out.authorization, "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-meta-a-b,"));
    s3_signed_release(&out);
}

static void test_spaces_collapse(void)
{
    const struct s3_pair wide[] = {{"x-amz-meta-a", "  one \t two  "}}, narrow[] = {{"x-amz-meta-a", "one two"}};
    struct s3_signable req = {
        .method = "GET", .host = HOST, .path = "/", .headers = wide, .header_count = 1, .payload = S3_EMPTY_SHA256};
    struct s3_signed a, b;
    CU_ASSERT_EQUAL_FATAL(s3_sign(&example_key, &req, EXAMPLE_TIME, &a), BLOB_OK);
    req.headers = narrow;
    CU_ASSERT_EQUAL_FATAL(s3_sign(&example_key, &req, EXAMPLE_TIME, &b), BLOB_OK);
    CU_ASSERT_STRING_EQUAL(a.authorization, b.authorization);
    s3_signed_release(&a);
    s3_signed_release(&b);
}

static void test_token_is_signed(void)
{
    struct s3_sign_key key = example_key;
    key.token = "session";
    const struct s3_signable req = {.method = "GET", .host = HOST, .path = "/", .payload = S3_EMPTY_SHA256};
    struct s3_signed out;
    CU_ASSERT_EQUAL_FATAL(s3_sign(&key, &req, EXAMPLE_TIME, &out), BLOB_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(out.authorization, "x-amz-date;x-amz-security-token,"));
    CU_ASSERT_FALSE(ends_with(out.authorization, "Signature="));
    CU_ASSERT_PTR_NULL(strstr(out.authorization, "wJalr"));
    s3_signed_release(&out);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"S3's example: GET object with a range", test_get_object},
        {"S3's example: PUT object", test_put_object},
        {"S3's example: GET bucket lifecycle", test_get_lifecycle},
        {"S3's example: list objects", test_list_objects},
        {"S3's example: a presigned URL", test_presigned},
        {"a presigned URL carries headers for the answer and the session token", test_presigned_with_headers},
        {"names sort before values, after encoding", test_names_sort_before_values},
        {"spaces inside a header value count as one", test_spaces_collapse},
        {"a session token is signed, a secret never shows", test_token_is_signed},
        CU_TEST_INFO_NULL};
    return unit_main("s3_sign", tests);
}
