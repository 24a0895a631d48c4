/*
 * http_listen - the listening sockets: one a loop, sharing a port through SO_REUSEPORT, so that the kernel spreads the
 * connections.
 *
 * SO_REUSEPORT would also let a second server of the same user join in unnoticed. So the port is first taken by a
 * probe without it, which listens before anything else happens: of two servers only one can get there. The probe stays
 * until the real sockets listen. SO_REUSEADDR, set on all, only passes over connections that linger from an earlier
 * run.
 */
#include "server/http/http_internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 4096

/* "host:port" or "[v6]:port"; an empty host is every address. */
static enum blob_status listen_split(const char *listen_on, char host[static 256], char port[static 8],
                                     struct blob_error *err)
{
    const char *colon = strrchr(listen_on, ':');
    const char *begin = listen_on, *end = colon;
    if (colon && begin[0] == '[' && end > begin && end[-1] == ']') {
        begin++;
        end--;
    } else if (colon && memchr(begin, ':', (size_t)(colon - begin))) {
        return blob_fail(err, BLOB_E_INVALID, 0, "listen address %s: write IPv6 as [address]:port", listen_on);
    }
    size_t digits = colon ? strlen(colon + 1) : 0;
    if (digits == 0 || digits > 5 || strspn(colon + 1, "0123456789") != digits || end - begin > 255)
        return blob_fail(err, BLOB_E_INVALID, 0, "listen address %s is not host:port", listen_on);
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    memcpy(port, colon + 1, digits + 1);
    return BLOB_OK;
}

static enum blob_status listen_resolve(const char *listen_on, struct sockaddr_storage *addr, socklen_t *addr_len,
                                       struct blob_error *err)
{
    char host[256], port[8];
    enum blob_status st = listen_split(listen_on, host, port, err);
    if (st != BLOB_OK)
        return st;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host[0] ? host : NULL, port, &hints, &found);
    if (rc != 0)
        return blob_fail(err, BLOB_E_INVALID, 0, "listen address %s: %s", listen_on, gai_strerror(rc));
    memcpy(addr, found->ai_addr, found->ai_addrlen);
    *addr_len = found->ai_addrlen;
    freeaddrinfo(found);
    return BLOB_OK;
}

static enum blob_status listen_open(const char *listen_on, const struct sockaddr_storage *addr, socklen_t addr_len,
                                    bool share, int *out, struct blob_error *err)
{
    int one = 1;
    int fd = socket(addr->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return blob_fail(err, BLOB_E_UNAVAILABLE, errno, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* Inherited by what is accepted; without it small answers wait for the peer's delayed acknowledgement. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    const char *failed = NULL;
    if (share && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0)
        failed = "SO_REUSEPORT";
    else if (bind(fd, (const struct sockaddr *)addr, addr_len) != 0)
        failed = "bind";
    else if (listen(fd, BACKLOG) != 0)
        failed = "listen";
    if (failed) {
        int saved = errno;
        close(fd);
        enum blob_status st = saved == EADDRINUSE ? BLOB_E_UNAVAILABLE : BLOB_E_INVALID;
        return blob_fail(err, st, saved, "listen address %s: %s", listen_on, failed);
    }
    *out = fd;
    return BLOB_OK;
}

static uint16_t addr_port(const struct sockaddr_storage *addr)
{
    return ntohs(addr->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)addr)->sin6_port
                                             : ((const struct sockaddr_in *)addr)->sin_port);
}

enum blob_status http_listen(const char *listen_on, unsigned count, int *fds, uint16_t *port, struct blob_error *err)
{
    struct sockaddr_storage addr = {0};
    socklen_t addr_len = sizeof addr;
    int probe = -1, one = 1;
    unsigned opened = 0;
    enum blob_status st = listen_resolve(listen_on, &addr, &addr_len, err);
    if (st == BLOB_OK)
        st = listen_open(listen_on, &addr, addr_len, false, &probe, err);
    if (st != BLOB_OK)
        return st;
    /* The kernel's choice, where the port is 0; and from here on the probe lets the real ones in. */
    addr_len = sizeof addr;
    if (getsockname(probe, (struct sockaddr *)&addr, &addr_len) != 0 ||
        setsockopt(probe, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) != 0)
        st = blob_fail(err, BLOB_E_UNAVAILABLE, errno, "share the listen address");
    while (st == BLOB_OK && opened < count) {
        st = listen_open(listen_on, &addr, addr_len, true, &fds[opened], err);
        opened += st == BLOB_OK;
    }
    close(probe);
    if (st == BLOB_OK) {
        *port = addr_port(&addr);
        return BLOB_OK;
    }
    while (opened > 0)
        close(fds[--opened]);
    return st;
}
