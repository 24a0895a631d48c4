/* What one client may have at once and in a minute, that each has it for itself, and that the memory for it is bounded.
 */
#include "server/limiter.h"

#include "tests/rig/unit_main.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static struct limit_key key_of(unsigned number)
{
    struct ip_address address = {.bytes = {[10] = 0xff, [11] = 0xff}};
    memcpy(address.bytes + 12, &number, sizeof number);
    return limit_key_of_address(&address);
}

static void test_count(void)
{
    struct limiter *l = limiter_new(1, NULL);
    struct limit_key a = key_of(1), b = key_of(2);
    CU_ASSERT_EQUAL(limiter_enter(l, LIMIT_REQUESTS_ADDRESS, &a), LIMIT_FREE);
    limiter_set(l, LIMIT_REQUESTS_ADDRESS, 3);
    for (int i = 0; i < 3; i++)
        CU_ASSERT_EQUAL(limiter_enter(l, LIMIT_REQUESTS_ADDRESS, &a), LIMIT_HELD);
    CU_ASSERT_EQUAL(limiter_enter(l, LIMIT_REQUESTS_ADDRESS, &a), LIMIT_REFUSED);
    CU_ASSERT_EQUAL(limiter_enter(l, LIMIT_CONNECTIONS_ADDRESS, &a), LIMIT_FREE);
    CU_ASSERT_EQUAL(limiter_enter(l, LIMIT_REQUESTS_ADDRESS, &b), LIMIT_HELD);
    limiter_leave(l, LIMIT_REQUESTS_ADDRESS, &a);
    CU_ASSERT_EQUAL(limiter_enter(l, LIMIT_REQUESTS_ADDRESS, &a), LIMIT_HELD);
    limiter_set(l, LIMIT_REQUESTS_ADDRESS, 0); /* what is held is left all the same */
    for (int i = 0; i < 3; i++)
        limiter_leave(l, LIMIT_REQUESTS_ADDRESS, &a);
    limiter_leave(l, LIMIT_REQUESTS_ADDRESS, &b);
    CU_ASSERT_EQUAL(limiter_entries(l), 0);
    limiter_free(l);
}

static void test_rate(void)
{
    struct limiter *l = limiter_new(1, NULL);
    struct limit_key a = key_of(1), b = key_of(2);
    limiter_set(l, LIMIT_UPLOADS_ADDRESS, 30);
    for (int i = 0; i < 30; i++)
        CU_ASSERT_EQUAL(limiter_spend(l, LIMIT_UPLOADS_ADDRESS, &a), 0);
    unsigned wait = limiter_spend(l, LIMIT_UPLOADS_ADDRESS, &a);
    CU_ASSERT(wait >= 1 && wait <= 2);
    CU_ASSERT_EQUAL(limiter_spend(l, LIMIT_UPLOADS_ADDRESS, &b), 0);
    limiter_set(l, LIMIT_UPLOADS_ADDRESS, 1);
    CU_ASSERT_EQUAL(limiter_spend(l, LIMIT_UPLOADS_ADDRESS, &b), 2); /* the two seconds that the first had cost */
    limiter_free(l);
}

static void test_memory(void)
{
    struct limiter *l = limiter_new(1000, NULL);
    limiter_set(l, LIMIT_UPLOADS_ADDRESS, 2);
    for (unsigned i = 0; i < 200000; i++) {
        struct limit_key key = key_of(i);
        CU_ASSERT_EQUAL(limiter_spend(l, LIMIT_UPLOADS_ADDRESS, &key), 0);
    }
    CU_ASSERT(limiter_entries(l) <= LIMITER_REMEMBERED);
    struct limit_key last = key_of(199999);
    CU_ASSERT_EQUAL(limiter_spend(l, LIMIT_UPLOADS_ADDRESS, &last), 0);
    CU_ASSERT(limiter_spend(l, LIMIT_UPLOADS_ADDRESS, &last) > 0); /* the latest are remembered */
    limiter_free(l);
}

struct racer {
    struct limiter *l;
    atomic_uint *held, *most;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    struct limit_key key = key_of(7);
    for (int i = 0; i < 20000; i++) {
        if (limiter_enter(r->l, LIMIT_REQUESTS_IDENTITY, &key) != LIMIT_HELD)
            continue;
        unsigned held = atomic_fetch_add(r->held, 1) + 1;
        if (held > atomic_load(r->most))
            atomic_store(r->most, held);
        atomic_fetch_sub(r->held, 1);
        limiter_leave(r->l, LIMIT_REQUESTS_IDENTITY, &key);
    }
    return NULL;
}

static void test_threads(void)
{
    atomic_uint held = 0, most = 0;
    struct racer r = {.l = limiter_new(1, NULL), .held = &held, .most = &most};
    pthread_t threads[4];
    limiter_set(r.l, LIMIT_REQUESTS_IDENTITY, 2);
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, race, &r);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT(atomic_load(&most) >= 1 && atomic_load(&most) <= 2);
    CU_ASSERT_EQUAL(limiter_entries(r.l), 0);
    limiter_free(r.l);
}

static void test_keys(void)
{
    struct ip_address a, b, c, mapped;
    CU_ASSERT_EQUAL(ip_parse("2001:db8:1:2::1", 15, &a), BLOB_OK);
    CU_ASSERT_EQUAL(ip_parse("2001:db8:1:2:ffff::9", 20, &b), BLOB_OK);
    CU_ASSERT_EQUAL(ip_parse("2001:db8:1:3::1", 15, &c), BLOB_OK);
    struct limit_key ka = limit_key_of_address(&a), kb = limit_key_of_address(&b), kc = limit_key_of_address(&c);
    CU_ASSERT(memcmp(&ka, &kb, sizeof ka) == 0 && memcmp(&ka, &kc, sizeof ka) != 0);
    CU_ASSERT_EQUAL(ip_parse("192.0.2.1", 9, &a), BLOB_OK);
    CU_ASSERT_EQUAL(ip_parse("192.0.2.2", 9, &b), BLOB_OK);
    CU_ASSERT_EQUAL(ip_parse("::ffff:192.0.2.1", 16, &mapped), BLOB_OK);
    struct limit_key km = limit_key_of_address(&mapped);
    ka = limit_key_of_address(&a);
    kb = limit_key_of_address(&b);
    CU_ASSERT(memcmp(&ka, &kb, sizeof ka) != 0 && memcmp(&ka, &km, sizeof ka) == 0);
    ka = limit_key_of_text("alice");
    kb = limit_key_of_text("alicf");
    CU_ASSERT(memcmp(&ka, &kb, sizeof ka) != 0);
}

int main(void)
{
    CU_TestInfo tests[] = {{"so many at once, and no more, each for itself", test_count},
                           {"so many a minute, and then in time", test_rate},
                           {"any number of addresses takes bounded memory", test_memory},
                           {"several threads are counted as one", test_threads},
                           {"an IPv6 client is its first 64 bits, an IPv4 one is all of it", test_keys},
                           CU_TEST_INFO_NULL};
    return unit_main("limiter", tests);
}
