/*
 * redis_server - a redis-server, or sentinel, of the test's own: on a free port of 127.0.0.1, in a directory of its
 * own, ended by its process id.
 *
 * Threads: one. Ownership: release stops it and removes its files. Errors: none are returned: a test without its
 * server cannot go on (CHECK).
 */
#ifndef BLOBD_TESTS_REDIS_SERVER_H
#define BLOBD_TESTS_REDIS_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

#define REDIS_EXTRA_MAX 24

struct redis_server {
    pid_t pid; /* 0: not running */
    int port;
    bool sentinel;
    char dir[64];
    char socket[96];
    const char *extra[REDIS_EXTRA_MAX]; /* more arguments, NULL-terminated */
};

/* extra: arguments of redis-server ("--appendonly", "yes", …, NULL); borrowed until release. May be NULL. */
void redis_server_start(struct redis_server *s, const char *const *extra);
/* A sentinel that watches the master at port under the name "blobd", failing over within a second or two. */
void redis_server_start_sentinel(struct redis_server *s, int master_port);
/* Again on the same port and directory. */
void redis_server_restart(struct redis_server *s);
/* SIGKILL, SIGSTOP, SIGCONT; after SIGKILL it has ended. */
void redis_server_signal(struct redis_server *s, int signal);
/* Runs one command of words, printf's % doubled; the answer as an integer, 1 for OK, else 0. */
long long redis_server_command(const struct redis_server *s, const char *command);
/* A number of INFO, by its field's name; -1: there is none. */
long long redis_server_info(const struct redis_server *s, const char *field);
void redis_server_release(struct redis_server *s);

#endif
