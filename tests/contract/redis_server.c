/* redis_server - fork, exec, wait until it answers. Files go with the directory, which holds no others. */
#include "tests/contract/redis_server.h"

#include "core/check.h"

#include <dirent.h>
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS_MAX 64

static int free_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&at, len) == 0 && getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void sleep_ms(long ms)
{
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

long long redis_server_command(const struct redis_server *s, const char *command)
{
    long long value = 0;
    redisContext *c = redisConnectWithTimeout("127.0.0.1", s->port, (struct timeval){2, 0});
    CHECK(c);
    redisReply *r = c->err ? NULL : redisCommand(c, command);
    if (r) {
        value = r->type == REDIS_REPLY_INTEGER ? r->integer : r->type == REDIS_REPLY_STATUS;
        freeReplyObject(r);
    }
    redisFree(c);
    return value;
}

long long redis_server_info(const struct redis_server *s, const char *field)
{
    long long value = -1;
    char start[64];
    redisContext *c = redisConnectWithTimeout("127.0.0.1", s->port, (struct timeval){2, 0});
    CHECK(c && !c->err);
    redisReply *r = redisCommand(c, "INFO");
    CHECK(r && r->type == REDIS_REPLY_STRING);
    snprintf(start, sizeof start, "\n%s:", field);
    const char *at = strstr(r->str, start);
    if (at)
        value = strtoll(at + strlen(start), NULL, 10);
    freeReplyObject(r);
    redisFree(c);
    return value;
}

static void write_sentinel_file(const struct redis_server *s, const char *file, int master_port)
{
    FILE *f = fopen(file, "we");
    CHECK(f);
    fprintf(f,
            "port %d\ndir %s\nsentinel monitor blobd 127.0.0.1 %d 1\nsentinel down-after-milliseconds blobd 500\n"
            "sentinel failover-timeout blobd 2000\n",
            s->port, s->dir, master_port);
    CHECK(fclose(f) == 0);
}

static void exec_server(struct redis_server *s)
{
    char port[16], file[96];
    const char *argv[ARGS_MAX] = {"redis-server"};
    int n = 1, quiet = open("/dev/null", O_RDWR);
    snprintf(port, sizeof port, "%d", s->port);
    snprintf(file, sizeof file, "%s/sentinel.conf", s->dir);
    const char *plain[] = {"--port", port,        "--dir",  s->dir, "--unixsocket",           s->socket,
                           "--bind", "127.0.0.1", "--save", "",     "--enable-debug-command", "yes",
                           NULL};
    const char *sentinel[] = {file, "--sentinel", NULL};
    for (const char **a = s->sentinel ? sentinel : plain; *a; a++)
        argv[n++] = *a;
    for (const char **a = s->extra; *a && n < ARGS_MAX - 1; a++)
        argv[n++] = *a;
    argv[n] = NULL;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that crashes leaves nothing behind */
    dup2(quiet, STDIN_FILENO);
    dup2(quiet, STDOUT_FILENO);
    execvp("redis-server", (char *const *)argv);
    _exit(127);
}

void redis_server_restart(struct redis_server *s)
{
    CHECK(s->pid == 0);
    fflush(stdout);
    s->pid = fork();
    CHECK(s->pid >= 0);
    if (s->pid == 0)
        exec_server(s);
    for (int i = 0; i < 500; i++) {
        if (redis_server_command(s, "PING"))
            return;
        CHECK(waitpid(s->pid, NULL, WNOHANG) == 0);
        sleep_ms(10);
    }
    CHECK(!"redis-server answers");
}

static void set_up(struct redis_server *s)
{
    *s = (struct redis_server){.port = free_port()};
    snprintf(s->dir, sizeof s->dir, "/tmp/blobd-redis-XXXXXX");
    CHECK(mkdtemp(s->dir));
    snprintf(s->socket, sizeof s->socket, "%s/redis.sock", s->dir);
}

void redis_server_start(struct redis_server *s, const char *const *extra)
{
    set_up(s);
    for (int i = 0; extra && extra[i]; i++) {
        CHECK(i < REDIS_EXTRA_MAX - 1);
        s->extra[i] = extra[i];
    }
    redis_server_restart(s);
}

void redis_server_start_sentinel(struct redis_server *s, int master_port)
{
    char file[96];
    set_up(s);
    s->sentinel = true;
    snprintf(file, sizeof file, "%s/sentinel.conf", s->dir);
    write_sentinel_file(s, file, master_port);
    redis_server_restart(s);
}

void redis_server_signal(struct redis_server *s, int signal)
{
    CHECK(s->pid > 0 && kill(s->pid, signal) == 0);
    if (signal == SIGKILL) {
        CHECK(waitpid(s->pid, NULL, 0) == s->pid);
        s->pid = 0;
    }
}

static void remove_files(const char *path)
{
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        char name[512];
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (e->d_type == DT_DIR)
            remove_files(name);
        else
            unlink(name);
    }
    closedir(d);
    rmdir(path);
}

void redis_server_release(struct redis_server *s)
{
    if (s->pid > 0)
        redis_server_signal(s, SIGKILL);
    remove_files(s->dir);
}
