/* router - paths and methods find their route, or the right refusal. */
#include "server/api/router.h"
#include "tests/rig/unit_main.h"

#include <string.h>

static const struct route table[] = {
    {.name = "create", .methods = METHODS_POST, .pattern = "/api/blobs/uploads"},
    {.name = "append", .methods = METHODS_POST, .pattern = "/api/blobs/uploads/{}/append"},
    {.name = "status", .methods = METHODS_GET, .pattern = "/api/blobs/uploads/{}/status"},
    {.name = "download", .methods = METHODS_GET, .pattern = "/api/blobs/{}"},
    {.name = "remove", .methods = METHOD_BIT(HTTP_DELETE), .pattern = "/api/blobs/{}"},
};

static struct route_match match;

static enum route_outcome find(enum http_method method, const char *path)
{
    return router_match(table, sizeof table / sizeof *table, method, path, &match);
}

static void test_found(void)
{
    CU_ASSERT_EQUAL(find(HTTP_POST, "/api/blobs/uploads"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.route->name, "create");
    CU_ASSERT_EQUAL(find(HTTP_POST, "/api/blobs/uploads/a-b/append"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.route->name, "append");
    CU_ASSERT_STRING_EQUAL(match.param, "a-b");
    CU_ASSERT_EQUAL(find(HTTP_HEAD, "/api/blobs/sha256:00"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.route->name, "download");
    CU_ASSERT_STRING_EQUAL(match.param, "sha256:00");
    CU_ASSERT_EQUAL(find(HTTP_DELETE, "/api/blobs/x"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.route->name, "remove");
}

static void test_literal_first(void)
{
    char allow[ROUTER_ALLOW_MAX];
    CU_ASSERT_EQUAL(find(HTTP_GET, "/api/blobs/uploads"), ROUTE_NO_METHOD);
    router_allow(match.allowed, allow);
    CU_ASSERT_STRING_EQUAL(allow, "POST, OPTIONS");
}

static void test_allow(void)
{
    char allow[ROUTER_ALLOW_MAX];
    CU_ASSERT_EQUAL(find(HTTP_PUT, "/api/blobs/x"), ROUTE_NO_METHOD);
    router_allow(match.allowed, allow);
    CU_ASSERT_STRING_EQUAL(allow, "GET, HEAD, DELETE, OPTIONS");
    CU_ASSERT_EQUAL(find(HTTP_OTHER, "/api/blobs/uploads/a/append"), ROUTE_NO_METHOD);
}

static void test_unknown(void)
{
    static const char *const paths[] = {"/",
                                        "/api",
                                        "/api/blobs",
                                        "/api/blobs/",
                                        "/api/blobs/uploads/",
                                        "/api//blobs/x",
                                        "/api/blobs/x/",
                                        "/api/blobs/uploads/a/append/b",
                                        "/api/blobs/uploads/a/other",
                                        "/API/blobs/x",
                                        "*",
                                        "/api/blobs/uploads//append",
                                        "//api/blobs/x"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        CU_ASSERT_EQUAL(find(HTTP_GET, paths[i]), ROUTE_NO_PATH);
}

static void test_escapes(void)
{
    CU_ASSERT_EQUAL(find(HTTP_GET, "/api/blobs/sha256%3Aab"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.param, "sha256:ab");
    CU_ASSERT_EQUAL(find(HTTP_POST, "/%61pi/blobs/upload%73"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.route->name, "create");
    CU_ASSERT_EQUAL(find(HTTP_GET, "/api/blobs/a%2Fb"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.param, "a/b");
    CU_ASSERT_EQUAL(find(HTTP_POST, "/api/blobs/upload%73/x/append"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.route->name, "append");
    CU_ASSERT_STRING_EQUAL(match.param, "x");
    CU_ASSERT_EQUAL(find(HTTP_GET, "/api/blobs/{}"), ROUTE_FOUND);
    CU_ASSERT_STRING_EQUAL(match.param, "{}");
    CU_ASSERT_EQUAL(find(HTTP_GET, "/api%2Fblobs/a"), ROUTE_NO_PATH);
    CU_ASSERT_EQUAL(find(HTTP_GET, "/api/%x/a"), ROUTE_BAD_ESCAPE);
    CU_ASSERT_EQUAL(find(HTTP_GET, "/a%00pi/blobs/a"), ROUTE_BAD_ESCAPE);
}

static void test_hopeless_parameters(void)
{
    static const char *const paths[] = {"/api/blobs/a%", "/api/blobs/a%2", "/api/blobs/%zz", "/api/blobs/a%00"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        CU_ASSERT_EQUAL(find(HTTP_GET, paths[i]), ROUTE_FOUND);
        CU_ASSERT_STRING_EQUAL(match.param, "");
    }
    char longest[600] = "/api/blobs/";
    memset(longest + strlen(longest), 'a', 300);
    CU_ASSERT_EQUAL(find(HTTP_GET, longest), ROUTE_FOUND);
    CU_ASSERT_EQUAL(strlen(match.param), ROUTE_PARAM_MAX);
}

int main(void)
{
    CU_TestInfo tests[] = {{"a path finds its route and its parameter", test_found},
                           {"a literal part stands before a parameter: GET of the uploads is 405", test_literal_first},
                           {"Allow names every method of the path", test_allow},
                           {"no near miss of a path is taken for it", test_unknown},
                           {"parts are compared decoded; broken escapes are told apart", test_escapes},
                           {"a parameter that cannot be an id is left to the handler", test_hopeless_parameters},
                           CU_TEST_INFO_NULL};
    return unit_main("router", tests);
}
