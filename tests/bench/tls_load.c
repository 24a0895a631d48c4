/*
 * tls_load - downloads over TLS 1.3 on many connections at once, from one thread; prints requests, bytes and seconds.
 *
 *     tls_load PORT PATH CONNECTIONS SECONDS [new]
 *
 * With `new`, every request has a connection of its own and a whole handshake. Sessions are never resumed, and of an
 * answer only the status and the length are looked at: that the bytes are right is the tests' business.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (256u * 1024)
#define HEAD_MAX   4096

struct client {
    SSL *ssl;
    int fd;
    bool asked, in_body;
    char head[HEAD_MAX];
    uint64_t left; /* of the body */
};

struct load {
    int port, epoll;
    const char *path;
    bool fresh; /* a connection for each request */
    SSL_CTX *ctx;
    double end;
    uint64_t requests, bytes;
    char buffer[READ_BYTES];
};

static _Noreturn void fail(const char *what)
{
    perror(what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void client_connect(struct load *load, struct client *client)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)load->port)};
    int one = 1;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(client, 0, sizeof *client);
    client->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&addr, sizeof addr) != 0)
        fail("connect");
    fcntl(client->fd, F_SETFL, O_NONBLOCK);
    setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    client->ssl = SSL_new(load->ctx);
    SSL_set_fd(client->ssl, client->fd);
    SSL_set_connect_state(client->ssl);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = client};
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, client->fd, &event) != 0)
        fail("epoll_ctl");
}

static void client_close(struct client *client)
{
    struct linger hard = {.l_onoff = 1}; /* or the ports run out */
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    SSL_free(client->ssl);
    close(client->fd);
}

static void client_ask(const struct load *load, struct client *client)
{
    char request[512];
    int n = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: bench\r\n\r\n", load->path);
    client->asked = SSL_write(client->ssl, request, n) == n; /* else the handshake is still under way */
    if (!client->asked && SSL_get_error(client->ssl, -1) == SSL_ERROR_SSL)
        fail("handshake");
}

/* Takes what was read; true when an answer is whole. */
static bool client_take(struct client *client, const char *bytes, size_t len)
{
    if (!client->in_body) {
        const char *end = memmem(bytes, len, "\r\n\r\n", 4);
        size_t head = end ? (size_t)(end + 4 - bytes) : 0;
        if (head == 0 || head >= HEAD_MAX)
            fail("the head is not in one piece");
        memcpy(client->head, bytes, head);
        client->head[head] = '\0';
        const char *length = strstr(client->head, "\r\nContent-Length:");
        if (strncmp(client->head, "HTTP/1.1 200", 12) != 0 || !length)
            fail(client->head);
        client->left = strtoull(length + 17, NULL, 10);
        client->in_body = true;
        bytes += head;
        len -= head;
    }
    if (len > client->left)
        fail("more than was announced");
    client->left -= len;
    return client->in_body && client->left == 0;
}

static void client_run(struct load *load, struct client *client)
{
    for (;;) {
        ERR_clear_error();
        if (!client->asked)
            client_ask(load, client);
        int n = SSL_read(client->ssl, load->buffer, sizeof load->buffer);
        if (n <= 0 && SSL_get_error(client->ssl, n) != SSL_ERROR_WANT_READ)
            fail("the connection ended");
        if (n <= 0) {
            if (!client->asked && SSL_is_init_finished(client->ssl))
                continue;
            return;
        }
        load->bytes += (uint64_t)n;
        if (!client_take(client, load->buffer, (size_t)n))
            continue;
        load->requests++;
        client->in_body = client->asked = false;
        if (load->fresh) {
            client_close(client);
            client_connect(load, client);
            return;
        }
        if (now() > load->end)
            return;
    }
}

static SSL_CTX *context_new(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(ctx, "TLS_AES_256_GCM_SHA384");
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_BYTES);
    return ctx;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: tls_load PORT PATH CONNECTIONS SECONDS [new]\n");
        return 2;
    }
    static struct load load;
    int count = (int)strtol(argv[3], NULL, 10);
    load.port = (int)strtol(argv[1], NULL, 10);
    load.path = argv[2];
    load.fresh = argc > 5;
    load.ctx = context_new();
    load.epoll = epoll_create1(EPOLL_CLOEXEC);
    double begin = now();
    load.end = begin + strtod(argv[4], NULL);
    struct client *clients = calloc((size_t)count, sizeof *clients);
    for (int i = 0; i < count; i++)
        client_connect(&load, &clients[i]);
    while (now() < load.end) {
        struct epoll_event events[64];
        int n = epoll_wait(load.epoll, events, 64, 100);
        for (int i = 0; i < n; i++)
            client_run(&load, events[i].data.ptr);
    }
    double seconds = now() - begin;
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double cpu = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                 (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    printf("{\"requests\": %llu, \"bytes\": %llu, \"seconds\": %.3f, \"cpu\": %.3f}\n",
           (unsigned long long)load.requests, (unsigned long long)load.bytes, seconds, cpu);
    return 0;
}
