/*
 * redis_conn - one connection to Redis: logged in, on its database, every wait bounded; commands and scripts as calls
 * that are built argument by argument.
 *
 *     struct redis_call call;
 *     redis_call_begin(&call, "GET");
 *     redis_call_text(&call, key);
 *     st = redis_conn_run(conn, &call, &reply, err);
 *
 * Threads: one at a time. Ownership: a call borrows its arguments until it was run; replies are given
 * (freeReplyObject). Errors: UNAVAILABLE: no answer in time, no connection, or one that says later (LOADING, READONLY,
 * …); after it the command may have run or not. NO_SPACE: Redis is full. DENIED: login or ACL. IO: any other error
 * reply.
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_CONN_H
#define BLOBD_BACKENDS_REDIS_REDIS_CONN_H

#include "backends/redis/redis_config.h"
#include "backends/redis/redis_scripts.h"

#include <hiredis/hiredis.h>

#define REDIS_ARGS_MAX 128

struct redis_conn {
    redisContext *context;
    bool broken;           /* never to be used again */
    bool dead;             /* broken, and no answer will come any more */
    bool demoted;          /* broken: it answered as a replica does: the master is elsewhere */
    struct blob_error why; /* it is dead */
    int64_t timeout_us;
    int64_t posted_us; /* when it was last written to */
    char shas[REDIS_SCRIPT_COUNT][REDIS_SHA_CHARS + 1];
    unsigned long generation; /* the pool's */
    struct redis_conn *next;  /* the pool's */
};

struct redis_call {
    enum redis_script script; /* REDIS_SCRIPT_NONE for a command */
    int argc;
    const char *argv[REDIS_ARGS_MAX];
    size_t lens[REDIS_ARGS_MAX];
    unsigned numbers_used;
    char numbers[12][24];
};

/* A call, borrowed, and what became of it. */
struct redis_asked {
    const struct redis_call *call;
    enum blob_status st;
    redisReply *reply;     /* with BLOB_OK: given */
    struct blob_error err; /* else */
};

void redis_call_begin(struct redis_call *call, const char *command);
/* keys: how many of the arguments that follow are keys. */
void redis_call_begin_script(struct redis_call *call, enum redis_script script, int keys);
void redis_call_text(struct redis_call *call, const char *text);
void redis_call_bytes(struct redis_call *call, const void *bytes, size_t len);
void redis_call_number(struct redis_call *call, int64_t value);

/* Connects, logs in, selects the database. as_master: refuses a replica with UNAVAILABLE. */
enum blob_status redis_conn_open(const struct redis_config *config, const struct redis_endpoint *at, bool as_master,
                                 struct redis_conn **out, struct blob_error *err) BLOB_MUST_CHECK;
void redis_conn_close(struct redis_conn *conn); /* NULL is fine */
/* Did the other side hang up while the connection was idle? */
bool redis_conn_stale(const struct redis_conn *conn);

enum blob_status redis_conn_run(struct redis_conn *conn, const struct redis_call *call, redisReply **reply,
                                struct blob_error *err) BLOB_MUST_CHECK;
/*
 * Several calls in one exchange: post writes them all, collect reads all answers. Both are to be called, and nothing
 * in between. Each call has its own result: an error reply to one is no failure of another, and one that Redis did not
 * know the script of is asked again with its text, after the others. Where the connection failed, those that were not
 * answered are UNAVAILABLE. Waits no longer than twice the time-out.
 */
void redis_conn_post(struct redis_conn *conn, struct redis_asked *const *asked, size_t count);
void redis_conn_collect(struct redis_conn *conn, struct redis_asked *const *asked, size_t count);
/* The two halves of a command (not a script), to have several under way: answers come in order. */
enum blob_status redis_conn_send(struct redis_conn *conn, const struct redis_call *call,
                                 struct blob_error *err) BLOB_MUST_CHECK;
enum blob_status redis_conn_receive(struct redis_conn *conn, redisReply **reply,
                                    struct blob_error *err) BLOB_MUST_CHECK;

#endif
