/* http_file - what is not in memory is brought by a worker: it arrives byte for byte, the loop serves others meanwhile,
 * and an answer that ends before it is forgotten. The fault point http.cold stands for pages that are not there. */
#include "core/fault.h"
#include "tests/rig/http_fixture.h"
#include "tests/rig/unit_main.h"

#include <fcntl.h>
#include <semaphore.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static void expect_file(int fd, const struct fixture *fx, const char *path, size_t len)
{
    char request[64];
    snprintf(request, sizeof request, GET("%s"), path);
    client_send(fd, request);
    struct answer answer = client_read(fd, false);
    CU_ASSERT(answer.whole && answer.body_len == len && memcmp(answer.body, fx->bytes + 100, len) == 0);
    free(answer.body);
}

/* One thread, so that what holds it holds all fetches. */
struct plug {
    struct worker_job job;
    sem_t in, out;
};

static void plug_run(struct worker_job *job)
{
    struct plug *plug = (struct plug *)job;
    sem_post(&plug->in);
    sem_wait(&plug->out);
}

static void plug_queue(struct plug *plug, struct fixture *fx)
{
    plug->job = (struct worker_job){.run = plug_run};
    sem_init(&plug->in, 0, 0);
    sem_init(&plug->out, 0, 0);
    worker_pool_submit(fx->pool, NULL, &plug->job);
}

static void plug_put(struct plug *plug, struct fixture *fx)
{
    plug_queue(plug, fx);
    sem_wait(&plug->in);
}

static void test_whole(void)
{
    struct fixture fx;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    for (unsigned warm = 0; warm < 4; warm++) { /* so many reads find theirs, the next does not */
        for (unsigned cold = 1; cold < 4; cold++) {
            fault_arm("http.cold", EAGAIN, warm, cold);
            expect_file(fd, &fx, "/file", FIXTURE_BYTES - 100);
            expect_file(fd, &fx, "/smallfile", 1000);
        }
    }
    fault_arm("http.cold", EAGAIN, 0, 0); /* however often it is fetched: it is read all the same */
    expect_file(fd, &fx, "/file", FIXTURE_BYTES - 100);
    fault_arm("http.cold", EOPNOTSUPP, 0, 0); /* a file system that cannot tell */
    expect_file(fd, &fx, "/file", FIXTURE_BYTES - 100);
    fault_disarm_all();
    close(fd);
    fixture_end(&fx);
}

static void test_from_the_disk(void)
{
    struct fixture fx;
    fixture_init(&fx);
    for (int pooled = 1; pooled >= 0; pooled--) {
        fx.cfg.pool = pooled ? fx.pool : NULL;
        fixture_start(&fx);
        int fd = client_open(&fx);
        for (int i = 0; i < 3; i++) {
            CU_ASSERT_EQUAL(fsync(fx.file), 0);
            CU_ASSERT_EQUAL(posix_fadvise(fx.file, 0, 0, POSIX_FADV_DONTNEED), 0);
            expect_file(fd, &fx, "/file", FIXTURE_BYTES - 100);
        }
        close(fd);
        if (pooled) {
            WAIT_UNTIL(http_server_in_flight(fx.srv) == 0);
            CU_ASSERT(worker_pool_drain(fx.pool, 5000));
            http_server_free(fx.srv);
        }
    }
    fixture_end(&fx);
}

/* TERM has come, and the workers take nothing any more: a fetch could outlive the loops. */
static void test_no_worker(void)
{
    struct fixture fx;
    struct plug plug;
    fixture_begin(&fx);
    int fd = client_open(&fx);
    CU_ASSERT(worker_pool_drain(fx.pool, 5000));
    plug_put(&plug, &fx);
    fault_arm("http.cold", EAGAIN, 0, 0);
    expect_file(fd, &fx, "/file", FIXTURE_BYTES - 100);
    expect_file(fd, &fx, "/smallfile", 1000);
    CU_ASSERT_EQUAL(worker_pool_queued(fx.pool), 0);
    fault_disarm_all();
    sem_post(&plug.out);
    close(fd);
    fixture_end(&fx);
}

static void test_loop_goes_on(void)
{
    struct fixture fx;
    struct plug plug;
    fixture_init(&fx);
    fx.cfg.loops = 1;
    fixture_start(&fx);
    plug_put(&plug, &fx);
    int cold = client_open(&fx), warm = client_open(&fx);
    fault_arm("http.cold", EAGAIN, 0, 1);
    client_send(cold, GET("/file"));
    WAIT_UNTIL(atomic_load(&fx.requests) == 1);
    expect_file(warm, &fx, "/file", FIXTURE_BYTES - 100);
    CU_ASSERT_EQUAL(atomic_load(&fx.done), 1);
    sem_post(&plug.out);
    struct answer answer = client_read(cold, false);
    CU_ASSERT(answer.whole && answer.body_len == FIXTURE_BYTES - 100);
    CU_ASSERT_EQUAL(memcmp(answer.body, fx.bytes + 100, answer.body_len), 0);
    free(answer.body);
    fault_disarm_all();
    close(cold);
    close(warm);
    fixture_end(&fx);
}

static void read_bytes(int fd, size_t len)
{
    static char buf[65536];
    while (len > 0) {
        ssize_t n = recv(fd, buf, len < sizeof buf ? len : sizeof buf, 0);
        CU_ASSERT_FATAL(n > 0);
        len -= (size_t)n;
    }
}

/* The client goes away while more is being asked for: the answer is let go, and its descriptor may be closed, before
 * the worker comes to it. */
static void test_forgotten(void)
{
    struct fixture fx;
    struct plug first, second;
    fixture_init(&fx);
    fx.file_bytes = 64u << 20;
    CU_ASSERT_EQUAL(ftruncate(fx.file, (off_t)fx.file_bytes), 0);
    fixture_start(&fx);
    plug_put(&first, &fx);
    int fd = client_open(&fx);
    fault_arm("http.cold", EAGAIN, 0, 1);
    client_send(fd, GET("/file"));
    WAIT_UNTIL(worker_pool_queued(fx.pool) == 1);
    plug_queue(&second, &fx);
    sem_post(&first.out);
    sem_wait(&second.in); /* the first bytes are there; the next are waited for */
    read_bytes(fd, 3u << 20);
    WAIT_UNTIL(worker_pool_queued(fx.pool) == 1);
    CU_ASSERT_EQUAL(atomic_load(&fx.released), 0);
    struct linger now = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
    WAIT_UNTIL(atomic_load(&fx.released) == 1);
    WAIT_UNTIL(atomic_load(&fx.done) == 1);
    sem_post(&second.out);
    CU_ASSERT(worker_pool_drain(fx.pool, 5000));
    fault_disarm_all();
    fixture_end(&fx);
}

int main(void)
{
    CU_TestInfo tests[] = {{"what is not in memory arrives whole", test_whole},
                           {"what is on the disk only arrives whole, with and without workers", test_from_the_disk},
                           {"where no worker takes it, the loop reads it", test_no_worker},
                           {"while it is brought, the loop serves others", test_loop_goes_on},
                           {"an answer may end before it is brought", test_forgotten},
                           CU_TEST_INFO_NULL};
    return unit_main("http_file", tests);
}
