/*
 * http_acked - what the peer has acknowledged. Only that is progress of an answer: the kernel takes megabytes at once,
 * and takes more when a third of them has gone, so that what is written says little of a slow reader and nothing for
 * minutes. A file of its own, because the kernel's header and the C library's both define struct tcp_info, and only the
 * kernel's has the counter.
 */
#include "server/http/http_internal.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

bool http_acked(int fd, uint64_t *bytes)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0 ||
        len < offsetof(struct tcp_info, tcpi_notsent_bytes) + sizeof info.tcpi_notsent_bytes)
        return false; /* it is no connection any more, and whoever writes to it will learn that */
    *bytes = info.tcpi_bytes_acked;
    return info.tcpi_unacked > 0 || info.tcpi_notsent_bytes > 0;
}
