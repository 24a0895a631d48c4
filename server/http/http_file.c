/*
 * http_file - reads the file that is being sent, without having the loop wait for a disk.
 *
 * Mostly the file is in the page cache, and a read is a copy. What is not there is fetched by a worker, while the loop
 * serves others: it asks for 4 MiB, more at once than the kernel would by itself (128 KiB, in pages of 4), which
 * doubles the rate of a large download, and waits until the first of it have come. Half-way through them the next are
 * asked for, and the answer goes on meanwhile. Several answers may read the same descriptor, so nothing is asked of the
 * descriptor as such. The loop reads itself, and waits, where the file system cannot tell what is in memory, where no
 * worker takes the fetch, and where what was fetched is gone again.
 *
 * A fetch outlives the answer it is for: it has a descriptor of its own, and the answer forgets it.
 */
#include "server/http/http_internal.h"

#include "core/check.h"
#include "core/fault.h"
#include "core/worker_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#define FETCH_MAGIC 0x68666574u
#define AHEAD_BYTES (4u << 20)
#define FIRST_BYTES (1u << 20)   /* are waited for */
#define ASK_BYTES   (128u << 10) /* at a time: the kernel cuts what is more than the device's own read-ahead */
#define TOUCH_STEP  (64u << 10)

struct http_fetch {
    unsigned magic;
    struct worker_job job;
    struct http_task task;
    struct http_loop *loop;
    struct http_request *req; /* the loop's; NULL: its answer has ended */
    int fd;
    uint64_t from, end;   /* to be asked for */
    uint64_t awaited_end; /* what comes before it is waited for, if anything */
};

/* On a worker. What fails here, the answer's own read finds out. */
static void fetch_run(struct worker_job *job)
{
    struct http_fetch *fetch = CONTAINER_OF(job, struct http_fetch, job);
    MAGIC_OK(fetch, FETCH_MAGIC);
    char byte;
    for (uint64_t at = fetch->from; at < fetch->end; at += ASK_BYTES) {
        uint64_t left = fetch->end - at;
        readahead(fetch->fd, (off64_t)at, left < ASK_BYTES ? (size_t)left : ASK_BYTES);
    }
    for (uint64_t at = fetch->from; at < fetch->awaited_end; at += TOUCH_STEP) {
        if (pread(fetch->fd, &byte, 1, (off_t)at) != 1)
            break;
    }
    close(fetch->fd);
    http_loop_post(fetch->loop, &fetch->task);
}

/* On the loop. */
static void fetch_done(struct http_task *task)
{
    struct http_fetch *fetch = CONTAINER_OF(task, struct http_fetch, task);
    MAGIC_OK(fetch, FETCH_MAGIC);
    struct http_request *req = fetch->req;
    bool awaited = fetch->awaited_end > fetch->from;
    uint64_t from = fetch->from;
    fetch->magic = 0;
    free(fetch);
    if (!req)
        return;
    MAGIC_OK(req, HTTP_REQUEST_MAGIC);
    req->reply.fetch = NULL;
    if (awaited)
        req->reply.fetched = from;
    if (req->reply.fetching) {
        req->reply.fetching = false;
        req->reply.fetched_fn(req);
    }
}

/* Has a worker ask for the file's bytes from `from` on, and wait for the first of them. False when none will. */
static bool fetch_start(struct http_request *req, uint64_t from, bool wait)
{
    struct http_reply *reply = &req->reply;
    uint64_t left = reply->offset + reply->left - from;
    struct http_fetch *fetch = malloc(sizeof *fetch);
    int fd = fetch ? fcntl(reply->fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (fd < 0) {
        free(fetch);
        return false;
    }
    *fetch = (struct http_fetch){.magic = FETCH_MAGIC,
                                 .job = {.run = fetch_run},
                                 .task = {.run = fetch_done},
                                 .loop = req->loop,
                                 .req = req,
                                 .fd = fd,
                                 .from = from,
                                 .end = from + (left < AHEAD_BYTES ? left : AHEAD_BYTES)};
    if (wait)
        fetch->awaited_end = from + (left < FIRST_BYTES ? left : FIRST_BYTES);
    if (worker_pool_try_submit(req->loop->srv->cfg.pool, NULL, &fetch->job) != BLOB_OK) {
        close(fd);
        free(fetch);
        return false;
    }
    reply->fetch = fetch;
    if (reply->ahead < fetch->end) /* the loop frees it, not the worker */
        reply->ahead = fetch->end;
    return true;
}

/* Has more brought beside what is being sent, when half of it is through. */
static void keep_ahead(struct http_request *req)
{
    struct http_reply *reply = &req->reply;
    if (reply->ahead < reply->offset)
        reply->ahead = reply->offset;
    if (!reply->fetch && reply->ahead < reply->offset + reply->left && reply->ahead < reply->offset + AHEAD_BYTES / 2)
        fetch_start(req, reply->ahead, false);
}

/* The answer waits for a worker. False: it cannot, or has. */
static bool wait_for_fetch(struct http_request *req)
{
    struct http_reply *reply = &req->reply;
    if (!req->loop->srv->cfg.pool || reply->fetched == reply->offset ||
        (!reply->fetch && !fetch_start(req, reply->offset, true)))
        return false;
    reply->fetching = true;
    return true;
}

/* pread() of what is in memory; EAGAIN: it is not, EOPNOTSUPP: that cannot be told. */
static ssize_t read_now(int fd, void *to, size_t len, uint64_t offset)
{
    struct iovec part = {.iov_base = to, .iov_len = len};
    return preadv2(fd, &part, 1, (off_t)offset, RWF_NOWAIT);
}

ssize_t http_file_read(struct http_request *req, void *to, size_t len)
{
    struct http_reply *reply = &req->reply;
    if (reply->ahead > 0)
        keep_ahead(req);
    int cold = FAULT_POINT("http.cold");
    ssize_t n = cold ? -1 : read_now(reply->fd, to, len, reply->offset);
    if (cold)
        errno = cold;
    if (n >= 0 || (errno != EAGAIN && errno != EOPNOTSUPP))
        return n;
    if (errno == EAGAIN && wait_for_fetch(req)) {
        errno = EAGAIN;
        return -1;
    }
    return pread(reply->fd, to, len, (off_t)reply->offset);
}

/* Is the byte at this offset in memory, as far as that can be told? */
static bool is_there(int fd, uint64_t offset)
{
    char byte;
    return read_now(fd, &byte, 1, offset) >= 0 || errno != EAGAIN;
}

bool http_file_ready(struct http_request *req, size_t len)
{
    const struct http_reply *reply = &req->reply;
    uint64_t last = reply->offset + (reply->left < len ? reply->left : len) - 1;
    if (is_there(reply->fd, reply->offset) && is_there(reply->fd, last))
        return true;
    return !wait_for_fetch(req);
}

void http_file_forget(struct http_reply *reply)
{
    if (reply->fetch)
        reply->fetch->req = NULL;
    reply->fetch = NULL;
    reply->fetching = false;
}
