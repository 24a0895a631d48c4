/*
 * upload - a newer append stops an older one, on the same node or another; whoever fights over an upload, its bytes are
 * those of the winners in order, and it ends in one file. Made to run under the thread sanitizer as well.
 */
#include "tests/rig/upload_rig.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- one after the other ---- */

static void count_call(void *arg)
{
    atomic_fetch_add((atomic_int *)arg, 1);
}

static enum api_code write_text(struct upload_append *a, const char *text, struct api_error *err)
{
    return upload_append_write_bytes(a, text, strlen(text), err);
}

static void test_newer_stops_older(void)
{
    struct upload_rig u;
    struct upload_append *older, *newer;
    atomic_int called = 0;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u), d = c;
    struct ask ask = {.token = c.first, .data = "older body", .len = 10, .superseded = count_call, .arg = &called};
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &ask, &older), API_OK);
    CU_ASSERT_EQUAL(write_text(older, "old", &c.err), API_OK);
    CU_ASSERT_EQUAL_FATAL(client_begin(&d, &(struct ask){.token = c.first, .data = "newer", .len = 5}, &newer), API_OK);
    CU_ASSERT_EQUAL(called, 1);
    CU_ASSERT_EQUAL(write_text(newer, "new", &d.err), API_OK);
    CU_ASSERT_EQUAL(write_text(older, "er body", &c.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_EQUAL(write_text(newer, "er", &d.err), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(older, UPLOAD_BODY_FAILED, &c.result, &c.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_EQUAL(upload_append_end(newer, UPLOAD_BODY_WHOLE, &d.result, &d.err), API_OK);
    CU_ASSERT_EQUAL(called, 1);
    CU_ASSERT_EQUAL(d.result.view.offset, 5);
    struct digest digest = text_digest("newer");
    CU_ASSERT_EQUAL(client_complete(&d, c.first, &digest, NULL), API_OK);
    upload_rig_close(&u);
}

static void test_complete_stops_append(void)
{
    struct upload_rig u;
    struct upload_append *older;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    struct digest d = text_digest("hello");
    CU_ASSERT_EQUAL(client_append(&c, c.first, "hel"), API_OK);
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &(struct ask){.token = c.first, .data = "zzzzzz", .len = 6}, &older),
                          API_OK);
    CU_ASSERT_EQUAL(write_text(older, "zzz", &c.err), API_OK);
    struct client e = c;
    CU_ASSERT_EQUAL(client_complete(&e, c.first, &d, "lo"), API_OK);
    CU_ASSERT_EQUAL(write_text(older, "zzz", &c.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_EQUAL(upload_append_end(older, UPLOAD_BODY_WHOLE, &c.result, &c.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_TRUE(rig_serves(&u, "hello", 5));
    upload_rig_close(&u);
}

/* Who may not append may not stop an append either. */
static void test_strangers_stop_nothing(void)
{
    struct upload_rig u;
    struct upload_append *a, *none = NULL;
    atomic_int called = 0;
    upload_rig_open(&u, NULL, 1);
    struct identity alice = {.name = "alice", .known = true}, bob = {.name = "bob", .known = true};
    struct client c = client_create(&u, "a", false, &alice), other = client_new(&u), d = c;
    struct ask ask = {.data = "hello", .len = 5, .who = &alice, .superseded = count_call, .arg = &called};
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &ask, &a), API_OK);
    CU_ASSERT_EQUAL(write_text(a, "hel", &c.err), API_OK);
    CU_ASSERT_EQUAL(client_begin(&d, &(struct ask){.who = &bob, .data = "x", .len = 1}, &none), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(client_begin(&d, &(struct ask){.token = other.token, .data = "x", .len = 1}, &none),
                    API_UPLOAD_TOKEN_INVALID);
    CU_ASSERT_EQUAL(upload_destroy(u.node[0].svc, &c.id, &bob, &d.err), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(client_peek(&d), 0); /* a status stops nothing */
    CU_ASSERT_EQUAL(write_text(a, "lo", &c.err), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_WHOLE, &c.result, &c.err), API_OK);
    CU_ASSERT_EQUAL(called, 0);
    CU_ASSERT_EQUAL(client_peek(&c), 5);
    upload_rig_close(&u);
}

static void test_repeat_stops_its_original(void)
{
    struct upload_rig u;
    struct upload_append *older;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u), again;
    CU_ASSERT_EQUAL(client_append(&c, NULL, "one "), API_OK);
    again = c;
    struct ask ask = {.data = "two ", .len = 4};
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &ask, &older), API_OK);
    CU_ASSERT_EQUAL(write_text(older, "tw", &c.err), API_OK);
    /* The client took the link for dead and sent the chunk again, with the token it has. */
    CU_ASSERT_EQUAL(client_ask(&again, &ask), API_OK);
    CU_ASSERT_EQUAL(again.offset, 8);
    CU_ASSERT_EQUAL(upload_append_end(older, UPLOAD_BODY_CUT, &c.result, &c.err), API_UPLOAD_SUPERSEDED);
    struct digest d = text_digest("one two ");
    CU_ASSERT_EQUAL(client_complete(&again, NULL, &d, NULL), API_OK);
    upload_rig_close(&u);
}

/* ---- two nodes ---- */

static void test_other_node_takes_over(void)
{
    struct upload_rig u;
    struct upload_append *older;
    atomic_int called = 0;
    upload_rig_open(&u, NULL, 2);
    struct client a = client_new(&u), b = a;
    b.node = 1;
    struct ask ask = {.token = a.first, .data = "older", .len = 5, .superseded = count_call, .arg = &called};
    CU_ASSERT_EQUAL_FATAL(client_begin(&a, &ask, &older), API_OK);
    CU_ASSERT_EQUAL(write_text(older, "old", &a.err), API_OK);
    CU_ASSERT_EQUAL(client_append(&b, b.first, "new"), API_OK);
    CU_ASSERT_EQUAL(b.offset, 3);
    for (int i = 0; i < 2000 && called == 0; i++)
        usleep(1000);
    CU_ASSERT_EQUAL(called, 1);
    CU_ASSERT_EQUAL(write_text(older, "er", &a.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_EQUAL(upload_append_end(older, UPLOAD_BODY_FAILED, &a.result, &a.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_EQUAL(client_append(&b, b.first, "er"), API_OK);
    struct digest d = text_digest("newer");
    CU_ASSERT_EQUAL(client_complete(&a, b.first, &d, NULL), API_OK);
    CU_ASSERT_EQUAL(client_complete(&b, b.first, &d, NULL), API_OK);
    CU_ASSERT_STRING_EQUAL(a.result.file.id, b.result.file.id);
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    upload_rig_close(&u);
}

/* The notice may be lost: the fence is in the session. */
static void test_late_writer_cannot_commit(void)
{
    struct upload_rig u;
    struct upload_append *older;
    upload_rig_open(&u, NULL, 2);
    struct client a = client_new(&u), b = a;
    struct digest d = text_digest("older"), right = text_digest("newer");
    b.node = 1;
    CU_ASSERT_EQUAL_FATAL(
        client_begin(&a, &(struct ask){.token = a.first, .data = "older", .len = 5, .completes = true, .digest = &d},
                     &older),
        API_OK);
    CU_ASSERT_EQUAL(write_text(older, "older", &a.err), API_OK);
    CU_ASSERT_EQUAL(client_append(&b, b.first, "new"), API_OK);
    CU_ASSERT_NOT_EQUAL(upload_append_end(older, UPLOAD_BODY_WHOLE, &a.result, &a.err), API_OK);
    CU_ASSERT_EQUAL(client_peek(&b), 3);
    CU_ASSERT_EQUAL(client_complete(&b, b.first, &right, "er"), API_OK);
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    upload_rig_close(&u);
}

/* A failover forgets the first claim; the second must not look like it. */
static void test_late_writer_after_a_failover(void)
{
    struct upload_rig u;
    struct upload_append *older, *newer;
    upload_rig_open(&u, NULL, 2);
    struct client a = client_new(&u), b = a;
    b.node = 1;
    CU_ASSERT_EQUAL_FATAL(client_begin(&a, &(struct ask){.token = a.first, .data = "older", .len = 5}, &older), API_OK);
    CU_ASSERT_EQUAL(write_text(older, "older", &a.err), API_OK);
    CU_ASSERT_TRUE(memory_hub_roll_back(u.hub, &a.id));
    CU_ASSERT_EQUAL_FATAL(client_begin(&b, &(struct ask){.token = b.first, .data = "newer", .len = 5}, &newer), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(older, UPLOAD_BODY_WHOLE, &a.result, &a.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_EQUAL(write_text(newer, "newer", &b.err), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(newer, UPLOAD_BODY_WHOLE, &b.result, &b.err), API_OK);
    struct digest d = text_digest("newer");
    CU_ASSERT_EQUAL(client_complete(&a, b.first, &d, NULL), API_OK);
    upload_rig_close(&u);
}

static void test_dead_node(void)
{
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    struct upload_append *dead;
    opt.lease_ms = 100;
    opt.checkpoint_bytes = 4;
    upload_rig_open(&u, &opt, 2);
    struct client a = client_new(&u), b = a;
    b.node = 1;
    CU_ASSERT_EQUAL_FATAL(client_begin(&a, &(struct ask){.data = "one two three", .len = 13}, &dead), API_OK);
    CU_ASSERT_EQUAL(write_text(dead, "one two ", &a.err), API_OK);
    for (int i = 0; i < 2000 && client_peek(&b) < 8; i++)
        usleep(1000);
    usleep(150000);
    /* Nobody says a word: the other node counts what is durable, and goes on. */
    CU_ASSERT_EQUAL(client_status(&b), API_OK);
    CU_ASSERT_EQUAL_FATAL(b.offset, 8);
    CU_ASSERT_EQUAL(client_append(&b, NULL, "three"), API_OK);
    struct digest d = text_digest("one two three");
    CU_ASSERT_EQUAL(client_complete(&b, NULL, &d, NULL), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(dead, UPLOAD_BODY_CUT, &a.result, &a.err), API_UPLOAD_SUPERSEDED);
    CU_ASSERT_TRUE(rig_serves(&u, "one two three", 13));
    upload_rig_close(&u);
}

static void test_destroyed_on_the_other_node(void)
{
    struct upload_rig u;
    struct upload_append *a;
    atomic_int called = 0;
    upload_rig_open(&u, NULL, 2);
    struct client c = client_new(&u);
    struct ask ask = {.data = "hello", .len = 5, .superseded = count_call, .arg = &called};
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &ask, &a), API_OK);
    CU_ASSERT_EQUAL(write_text(a, "hel", &c.err), API_OK);
    CU_ASSERT_EQUAL(upload_destroy(u.node[1].svc, &c.id, NULL, &c.err), API_OK);
    for (int i = 0; i < 2000 && called == 0; i++)
        usleep(1000);
    CU_ASSERT_EQUAL(called, 1);
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_FAILED, &c.result, &c.err), API_UPLOAD_UNKNOWN);
    CU_ASSERT_FALSE(c.result.has_view);
    CU_ASSERT_EQUAL(client_status(&c), API_UPLOAD_UNKNOWN);
    upload_rig_close(&u);
}

/* What a request owns: gone, for its owner, once its append has ended. */
struct owner {
    atomic_bool gone;
    atomic_int *late;
};

static void tell_owner(void *arg)
{
    struct owner *owner = arg;
    if (atomic_load(&owner->gone))
        atomic_fetch_add(owner->late, 1);
}

struct announcer {
    struct session_store *sessions;
    struct upload_service *told;
    struct uuid id;
    atomic_bool *stop;
};

static void *announce(void *arg)
{
    struct announcer *n = arg;
    while (!atomic_load(n->stop)) {
        session_announce(n->sessions, &n->id, UINT64_MAX);
        usleep(20);
    }
    return NULL;
}

/* Ticks take the lock that a notice and an end take: they make them wait in turn. */
static void *tick(void *arg)
{
    struct announcer *n = arg;
    while (!atomic_load(n->stop))
        upload_service_tick(n->told, clock_wall_ms());
    return NULL;
}

#define NOTICED_APPENDS 5000

/* A notice that comes while an append ends must not reach a request that is freed by then. */
static void test_no_notice_after_the_end(void)
{
    struct upload_rig u;
    struct owner *owners = calloc(NOTICED_APPENDS, sizeof *owners);
    atomic_int late = 0;
    atomic_bool stop = false;
    pthread_t threads[2];
    CU_ASSERT_PTR_NOT_NULL_FATAL(owners);
    upload_rig_open(&u, NULL, 2);
    struct client c = client_new(&u);
    struct announcer n = {.sessions = u.node[1].sessions, .told = u.node[0].svc, .id = c.id, .stop = &stop};
    CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[0], NULL, announce, &n), 0);
    CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[1], NULL, tick, &n), 0);
    for (int i = 0; i < NOTICED_APPENDS; i++) {
        struct upload_append *a = NULL;
        owners[i].late = &late;
        struct ask ask = {.token = c.first, .superseded = tell_owner, .arg = &owners[i]};
        if (client_begin(&c, &ask, &a) != API_OK)
            c.err.code = API_OK; /* it may be that a notice came first */
        else if (upload_append_end(a, UPLOAD_BODY_WHOLE, &c.result, &c.err) != API_OK)
            c.err.code = API_OK;
        atomic_store(&owners[i].gone, true);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    CU_ASSERT_EQUAL(late, 0);
    upload_rig_close(&u);
    free(owners);
}

/* ---- threads: each call is a job in the upload's lane, as the server's are ---- */

struct call {
    struct worker_job job;
    void (*fn)(struct call *call);
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    /* in and out */
    struct upload_service *svc;
    struct upload_request req;
    struct upload_append *append;
    const char *data;
    size_t len;
    enum upload_body_end how;
    struct upload_view view;
    struct upload_result result;
    struct api_error err;
    enum api_code code;
};

static void run_call(struct worker_job *job)
{
    struct call *call = (struct call *)job;
    call->fn(call);
    pthread_mutex_lock(&call->lock);
    call->done = true;
    pthread_cond_signal(&call->cond);
    pthread_mutex_unlock(&call->lock);
}

static enum api_code in_lane(struct node *node, struct call *call, void (*fn)(struct call *call))
{
    call->job = (struct worker_job){.run = run_call};
    call->fn = fn;
    call->svc = node->svc;
    call->done = false;
    worker_pool_submit(node->pool, upload_lane(node->svc, &call->req.id), &call->job);
    pthread_mutex_lock(&call->lock);
    while (!call->done)
        pthread_cond_wait(&call->cond, &call->lock);
    pthread_mutex_unlock(&call->lock);
    return call->code;
}

static void call_status(struct call *c)
{
    c->code = upload_status(c->svc, &c->req.id, NULL, &c->view, &c->err);
}

static void call_begin(struct call *c)
{
    c->code = upload_append_begin(c->svc, &c->req, &c->append, &c->result, &c->err);
}

static void call_write(struct call *c)
{
    c->code = upload_append_write_bytes(c->append, c->data, c->len, &c->err);
}

static void call_end(struct call *c)
{
    c->code = upload_append_end(c->append, c->how, &c->result, &c->err);
}

#define FIGHT_BYTES 60000
#define FIGHTERS    3

struct fight {
    struct upload_rig *u;
    struct uuid id;
    char token[UPLOAD_TOKEN_CHARS + 1];
    char content[FIGHT_BYTES];
    struct digest digest;
    atomic_int superseded;
};

struct fighter {
    struct fight *fight;
    int node;
    unsigned seed;
    bool finished;
    char file_id[FILE_ID_MAX];
    char why[100];
};

/* One append of a part from where the status says, in small pieces. */
static bool fight_append(struct fighter *f, struct call *call, uint64_t offset, size_t len, bool completes)
{
    struct fight *fight = f->fight;
    struct node *node = &fight->u->node[f->node];
    call->req.has_offset = true;
    call->req.offset = offset;
    call->req.body_known = true;
    call->req.body_length = len;
    call->req.completes = completes;
    call->req.has_digest = true;
    call->req.digest = fight->digest;
    call->req.superseded = count_call;
    call->req.arg = &fight->superseded;
    call->append = NULL;
    if (in_lane(node, call, call_begin) != API_OK || !call->append)
        return call->code == API_OK;
    call->how = UPLOAD_BODY_WHOLE;
    for (size_t at = 0; at < len; at += call->len) {
        call->data = &fight->content[offset + at];
        call->len = len - at < 1500 ? len - at : 1500;
        if (in_lane(node, call, call_write) != API_OK) {
            call->how = UPLOAD_BODY_FAILED;
            break;
        }
        if (rand_r(&f->seed) % 8 == 0)
            usleep(300);
    }
    return in_lane(node, call, call_end) == API_OK;
}

static void *fight(void *arg)
{
    struct fighter *f = arg;
    struct node *node = &f->fight->u->node[f->node];
    struct call call = {.req = {.id = f->fight->id, .token = f->fight->token}};
    pthread_mutex_init(&call.lock, NULL);
    pthread_cond_init(&call.cond, NULL);
    for (int rounds = 0; rounds < 5000 && !f->finished && !f->why[0]; rounds++) {
        if (in_lane(node, &call, call_status) != API_OK) {
            snprintf(f->why, sizeof f->why, "status: %s", api_code_name(call.code));
            break;
        }
        uint64_t offset = call.view.offset, left = FIGHT_BYTES - offset;
        size_t len = left < 9000 ? (size_t)left : 9000;
        bool ok = fight_append(f, &call, offset, len, left == len);
        if (call.code == API_DIGEST_INVALID)
            snprintf(f->why, sizeof f->why, "wrong bytes below %llu", (unsigned long long)offset);
        if (ok && call.result.completed) {
            f->finished = true;
            memcpy(f->file_id, call.result.file.id, sizeof f->file_id);
        }
        usleep(rand_r(&f->seed) % 500);
    }
    pthread_cond_destroy(&call.cond);
    pthread_mutex_destroy(&call.lock);
    return NULL;
}

static void fight_it_out(int nodes, unsigned seed)
{
    struct upload_rig u;
    struct fight *f = calloc(1, sizeof *f);
    struct fighter fighters[FIGHTERS] = {{0}};
    pthread_t threads[FIGHTERS];
    struct upload_options opt = rig_upload_options;
    opt.checkpoint_bytes = 2500;
    upload_rig_open(&u, &opt, nodes);
    struct client c = client_new(&u);
    CU_ASSERT_PTR_NOT_NULL_FATAL(f);
    f->u = &u;
    f->id = c.id;
    memcpy(f->token, c.first, sizeof f->token);
    for (size_t i = 0; i < FIGHT_BYTES; i++)
        f->content[i] = (char)(i * 7 + i / 251);
    f->digest = rig_digest(f->content, FIGHT_BYTES);
    for (int i = 0; i < FIGHTERS; i++) {
        fighters[i] = (struct fighter){.fight = f, .node = i % nodes, .seed = seed + (unsigned)i};
        CU_ASSERT_EQUAL_FATAL(pthread_create(&threads[i], NULL, fight, &fighters[i]), 0);
    }
    for (int i = 0; i < FIGHTERS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < FIGHTERS; i++) {
        CU_ASSERT_STRING_EQUAL(fighters[i].why, "");
        CU_ASSERT_TRUE(fighters[i].finished);
        CU_ASSERT_STRING_EQUAL(fighters[i].file_id, fighters[0].file_id);
    }
    CU_ASSERT_TRUE(rig_serves(&u, f->content, FIGHT_BYTES));
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    upload_rig_close(&u);
    free(f);
}

static void test_fight_on_one_node(void)
{
    for (unsigned seed = 1; seed <= 4; seed++)
        fight_it_out(1, seed * 100);
}

static void test_fight_on_two_nodes(void)
{
    for (unsigned seed = 1; seed <= 4; seed++)
        fight_it_out(2, seed * 100);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a newer append stops an older one in flight, at its last checkpoint", test_newer_stops_older},
        {"a complete stops an append in flight", test_complete_stops_append},
        {"a refused request and a status stop nothing", test_strangers_stop_nothing},
        {"a chunk sent again stops its original", test_repeat_stops_its_original},
        {"an append on another node takes over, and tells", test_other_node_takes_over},
        {"a late writer cannot complete what it lost", test_late_writer_cannot_commit},
        {"nor what it lost while the sessions went back in time", test_late_writer_after_a_failover},
        {"an upload goes on elsewhere when its node died", test_dead_node},
        {"a destroy on another node ends an append", test_destroyed_on_the_other_node},
        {"a notice does not come after the end", test_no_notice_after_the_end},
        {"many connections fight over one upload", test_fight_on_one_node},
        {"many connections fight over one upload, on two nodes", test_fight_on_two_nodes},
        CU_TEST_INFO_NULL};
    return unit_main("upload_takeover", tests);
}
