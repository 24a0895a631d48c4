/* s3_endpoint - where a bucket is, and whose host a redirect leads to. */
#include "backends/s3/client/s3_client.h"
#include "backends/s3/client/s3_endpoint.h"
#include "tests/rig/unit_main.h"

#include <string.h>

/* Would a redirect from this endpoint (of bucket pbx in region) to that location be followed? */
static bool follows(const char *endpoint, bool path_style, const char *region, const char *location)
{
    struct s3_options o = s3_options_default();
    struct s3_endpoint own, to;
    char *path = NULL;
    o.endpoint = endpoint;
    o.bucket = "pbx";
    o.region = region;
    o.path_style = path_style;
    CU_ASSERT_EQUAL_FATAL(s3_endpoint_from_options(&o, &own, NULL), BLOB_OK);
    bool may = s3_endpoint_from_location(location, &own, &to, &path) && s3_endpoint_is_ours(&own, "pbx", region, &to);
    free(path);
    return may;
}

static void test_own_name(void)
{
    CU_ASSERT_TRUE(follows("http://10.0.0.1:7480", true, "us-east-1", "http://10.0.0.1:7480/pbx/k"));
    CU_ASSERT_TRUE(follows("https://store.example.com", true, "us-east-1", "https://store.example.com:443/pbx/k?a=b"));
    CU_ASSERT_TRUE(follows("https://store.example.com", true, "us-east-1", "https://PBX.store.example.com/k"));
    CU_ASSERT_TRUE(follows("https://store.example.com", false, "us-east-1", "https://store.example.com/pbx/k"));
    CU_ASSERT_TRUE(follows("http://store.example.com:7480", true, "us-east-1", "https://store.example.com/pbx/k"));
    CU_ASSERT_TRUE(follows("http://[::1]:7480", true, "us-east-1", "http://[::1]:7480/pbx/k"));
}

static void test_strangers(void)
{
    static const char *const strangers[] = {
        "https://evil.example",
        "https://store.example.com.evil.example/pbx/k",
        "https://evilstore.example.com/pbx/k",
        "https://other.store.example.com/k",
        "https://example.com/pbx/k",
        "https://pbx.evil.example/k",
        "https://store.example.com:8443/pbx/k",
        "http://store.example.com/pbx/k",
        "https://store.example.com@evil.example/pbx/k",
        "//evil.example/k",
        "/pbx/k",
        "",
    };
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        CU_ASSERT_FALSE(follows("https://store.example.com", true, "us-east-1", strangers[i]));
        CU_ASSERT_FALSE(follows("https://store.example.com", false, "us-east-1", strangers[i]));
    }
    CU_ASSERT_FALSE(follows("http://10.0.0.1:7480", true, "us-east-1", "http://10.0.0.2:7480/pbx/k"));
    CU_ASSERT_FALSE(follows("http://10.0.0.1:7480", true, "us-east-1", "http://10.0.0.1:7481/pbx/k"));
    CU_ASSERT_FALSE(follows("http://[::1]:7480", true, "us-east-1", "http://[::2]:7480/pbx/k"));
}

static void test_regions(void)
{
    static const char *const hosts[] = {"https://pbx.s3.eu-central-1.amazonaws.com/k",
                                        "https://pbx.s3-eu-central-1.amazonaws.com/k",
                                        "https://s3.eu-central-1.amazonaws.com/pbx/k", "https://pbx.s3.amazonaws.com/k",
                                        "https://pbx.s3.dualstack.eu-central-1.amazonaws.com/k"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        CU_ASSERT_TRUE(follows("", false, "us-east-1", hosts[i]));
        CU_ASSERT_TRUE(follows("https://s3.amazonaws.com", true, "us-east-1", hosts[i]));
        CU_ASSERT_FALSE(follows("https://s3.us-east-1.example.com", true, "us-east-1", hosts[i]));
    }
    CU_ASSERT_FALSE(follows("", false, "us-east-1", "https://evil.s3.eu-central-1.amazonaws.com/k"));
    CU_ASSERT_FALSE(follows("", false, "us-east-1", "https://ec2-1-2-3-4.compute-1.amazonaws.com/k"));
    CU_ASSERT_FALSE(follows("", false, "us-east-1", "https://s3.evil.example/k"));
    CU_ASSERT_FALSE(follows("", false, "us-east-1", "http://pbx.s3.eu-central-1.amazonaws.com/k"));
    CU_ASSERT_TRUE(follows("https://s3.us-1.example.com", true, "us-1", "https://s3.eu-2.example.com/pbx/k"));
    CU_ASSERT_TRUE(follows("https://s3.us-1.example.com", true, "us-1", "https://pbx.s3.eu-2.example.com/k"));
    CU_ASSERT_FALSE(follows("https://s3.us-1.example.com", true, "us-1", "https://other.s3.eu-2.example.com/k"));
    CU_ASSERT_FALSE(follows("https://s3.us-1.example.com", true, "eu-1", "https://s3.eu-2.example.com/pbx/k"));
    CU_ASSERT_FALSE(follows("https://s3.us-1.com", true, "us-1", "https://s3.evil.com/pbx/k"));
    CU_ASSERT_FALSE(follows("https://s3.example.co.uk", true, "us-1", "https://s3.evil.co.uk/pbx/k"));
}

int main(void)
{
    CU_TestInfo tests[] = {{"a redirect is followed to the endpoint's own name", test_own_name},
                           {"nothing is sent to a stranger, nor from https to http", test_strangers},
                           {"another region of the same service is no stranger", test_regions},
                           CU_TEST_INFO_NULL};
    return unit_main("s3_endpoint", tests);
}
