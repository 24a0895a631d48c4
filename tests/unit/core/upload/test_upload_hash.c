/* upload - hashing beside the writing: the hash is that of what was written, whoever came first and whatever failed. */
#include "tests/rig/upload_rig.h"

#include <pthread.h>
#include <stdatomic.h>

#define PART  (192u << 10)
#define PARTS 6
#define BODY  (PARTS * PART)

static char body[BODY];

static struct {
    struct rig *rig;
    atomic_int delay_us;
    atomic_bool fails;
    atomic_int at_once; /* parts of the largest write */
} seen;

static enum blob_status slow_write(struct blob_writer *w, const struct iovec *parts, int count, struct blob_error *err)
{
    if (count > atomic_load(&seen.at_once))
        atomic_store(&seen.at_once, count);
    usleep((useconds_t)atomic_load(&seen.delay_us));
    if (atomic_load(&seen.fails))
        return blob_fail(err, BLOB_E_NO_SPACE, 0, "played");
    return seen.rig->real->writer_write(w, parts, count, err);
}

static void open_rig(struct upload_rig *u)
{
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (char)(i * 7 + (i >> 9));
    memset(&seen, 0, sizeof seen);
    upload_rig_open(u, NULL, 1);
    seen.rig = &u->base;
    u->base.ops.writer_write = slow_write;
}

/* `count` parts of the body from the at'th on, in one call. */
static enum api_code write_parts(struct upload_append *a, int at, int count, struct api_error *err)
{
    struct iovec parts[PARTS];
    for (int i = 0; i < count; i++)
        parts[i] = (struct iovec){.iov_base = body + (size_t)(at + i) * PART, .iov_len = PART};
    return upload_append_write(a, parts, count, err);
}

/* A write that takes no time finds the bytes not hashed yet, a slow one finds them hashed. */
static void test_digest(void)
{
    struct upload_rig u;
    open_rig(&u);
    struct digest digest = rig_digest(body, sizeof body);
    for (int delay_us = 0; delay_us <= 20000; delay_us += 10000) {
        struct upload_append *a;
        struct client c = client_new(&u);
        atomic_store(&seen.delay_us, delay_us);
        CU_ASSERT_EQUAL_FATAL(client_begin(&c, &(struct ask){.data = body, .len = sizeof body}, &a), API_OK);
        CU_ASSERT_EQUAL(write_parts(a, 0, 1, &c.err), API_OK);
        CU_ASSERT_EQUAL(write_parts(a, 1, 3, &c.err), API_OK);
        CU_ASSERT_EQUAL(write_parts(a, 4, 2, &c.err), API_OK);
        CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_WHOLE, &c.result, &c.err), API_OK);
        client_learn(&c, &c.result.view);
        CU_ASSERT_EQUAL(client_complete(&c, NULL, &digest, NULL), API_OK);
        CU_ASSERT(rig_serves(&u, body, sizeof body));
    }
    CU_ASSERT_EQUAL(seen.at_once, 3);
    upload_rig_close(&u);
}

static void test_failed_write(void)
{
    struct upload_rig u;
    struct upload_append *a;
    open_rig(&u);
    struct digest digest = rig_digest(body, sizeof body);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &(struct ask){.data = body, .len = sizeof body}, &a), API_OK);
    CU_ASSERT_EQUAL(write_parts(a, 0, 2, &c.err), API_OK);
    atomic_store(&seen.delay_us, 10000); /* time enough to have it hashed */
    atomic_store(&seen.fails, true);
    CU_ASSERT_EQUAL(write_parts(a, 2, 2, &c.err), API_INSUFFICIENT_STORAGE);
    atomic_store(&seen.fails, false);
    atomic_store(&seen.delay_us, 0);
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_FAILED, &c.result, &c.err), API_INSUFFICIENT_STORAGE);
    client_learn(&c, &c.result.view);
    CU_ASSERT_EQUAL(c.offset, 2 * PART);
    CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.data = body + 2 * PART, .len = BODY - 2 * PART}), API_OK);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &digest, NULL), API_OK);
    CU_ASSERT(rig_serves(&u, body, sizeof body));
    upload_rig_close(&u);
}

/* Uploads in every lane at once, more than there are workers: whoever waits for a hash does it. */
struct lone_upload {
    struct worker_job job;
    struct upload_append *append;
    struct client client;
    enum api_code code;
    atomic_bool done;
};

static void write_all(struct worker_job *job)
{
    struct lone_upload *l = (struct lone_upload *)job;
    l->code = write_parts(l->append, 0, PARTS, &l->client.err);
    atomic_store(&l->done, true);
}

static void test_every_worker_busy(void)
{
    static struct lone_upload all[8];
    struct upload_rig u;
    open_rig(&u);
    struct digest digest = rig_digest(body, sizeof body);
    for (int i = 0; i < 8; i++) {
        struct lone_upload *l = &all[i];
        *l = (struct lone_upload){.job.run = write_all, .client = client_new(&u)};
        CU_ASSERT_EQUAL_FATAL(client_begin(&l->client, &(struct ask){.data = body, .len = sizeof body}, &l->append),
                              API_OK);
        worker_pool_submit(u.node[0].pool, upload_lane(u.node[0].svc, &l->client.id), &l->job);
    }
    for (int i = 0; i < 8; i++) {
        struct lone_upload *l = &all[i];
        while (!atomic_load(&l->done))
            usleep(500);
        CU_ASSERT_EQUAL(l->code, API_OK);
        CU_ASSERT_EQUAL(upload_append_end(l->append, UPLOAD_BODY_WHOLE, &l->client.result, &l->client.err), API_OK);
        client_learn(&l->client, &l->client.result.view);
        CU_ASSERT_EQUAL(client_complete(&l->client, NULL, &digest, NULL), API_OK);
    }
    upload_rig_close(&u);
}

int main(void)
{
    CU_TestInfo tests[] = {{"parts of any number, the write first or the hash", test_digest},
                           {"what was not written is not hashed", test_failed_write},
                           {"uploads that keep every worker busy", test_every_worker_busy},
                           CU_TEST_INFO_NULL};
    return unit_main("upload hash", tests);
}
