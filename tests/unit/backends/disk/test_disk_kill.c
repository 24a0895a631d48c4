/*
 * disk_kill - kill -9 at random moments loses nothing that was acknowledged, and leaves nothing half, over and over on
 * the same store.
 *
 * A child opens the store, recovering it from the kill before, and uploads in threads; it reports each acknowledged
 * step through a pipe, and is killed after a while (sometimes while it recovers). The parent then opens the store as
 * well, and looks for all that was reported.
 */
#include "backends/disk/disk_store.h"
#include "core/clock.h"
#include "tests/rig/temp_dir.h"
#include "tests/rig/unit_main.h"
#include "tests/rig/upload_life.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS      3
#define ROUNDS       30
#define ROUND_MS     250
#define ROUND_LIVES  3000
#define THREAD_LIVES (ROUND_LIVES / THREADS)

struct report {
    uint32_t number, step;
};

struct child {
    struct blob_store *store;
    unsigned first;
    int pipe;
};

static char root[TEMP_DIR_CHARS];

static enum blob_status open_store(bool journal, struct blob_store **out, struct blob_error *err)
{
    const struct disk_options opt = {.root = root,
                                     .journal = journal,
                                     .direct_min_bytes = 8192, /* both ways */
                                     .journal_segment_bytes = 1u << 20,
                                     .journal_segments = 4,
                                     .checkpoint_ms = 50};
    return disk_store_open(&opt, out, err);
}

static void note_pipe(const struct life *life, enum life_step step, void *arg)
{
    const struct child *c = arg;
    const struct report report = {.number = life->number, .step = step};
    if (write(c->pipe, &report, sizeof report) != (ssize_t)sizeof report)
        _exit(3);
}

static void *live(void *arg)
{
    struct child *c = arg;
    for (unsigned i = 0; i < THREAD_LIVES; i++) {
        struct life life;
        life_plan(&life, c->first + i);
        if (!life_live(c->store, &life, note_pipe, c))
            _exit(2);
    }
    return NULL;
}

static _Noreturn void be_child(bool journal, unsigned round, int pipe_fd)
{
    struct child children[THREADS];
    pthread_t threads[THREADS];
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    if (open_store(journal, &s, &err) != BLOB_OK) {
        fprintf(stderr, "the store does not open: %s\n", err.text);
        _exit(1);
    }
    for (unsigned t = 0; t < THREADS; t++) {
        children[t] = (struct child){.store = s, .first = round * ROUND_LIVES + t * THREAD_LIVES, .pipe = pipe_fd};
        if (pthread_create(&threads[t], NULL, live, &children[t]) != 0)
            _exit(1);
    }
    for (unsigned t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    for (;;)
        pause();
}

/* Reads reports until the pipe ends; the child is killed when its time is over. */
static void read_reports(int fd, bool (*passed)[LIFE_STEPS])
{
    struct report report;
    ssize_t n;
    while ((n = read(fd, &report, sizeof report)) == (ssize_t)sizeof report) {
        CHECK(report.number < ROUNDS * ROUND_LIVES && report.step < LIFE_STEPS);
        passed[report.number][report.step] = true;
    }
    CHECK(n == 0);
}

static void *kill_later(void *arg)
{
    const pid_t *pid = arg;
    unsigned seed = (unsigned)*pid;
    usleep(1000u * ((unsigned)rand_r(&seed) % ROUND_MS));
    kill(*pid, SIGKILL);
    return NULL;
}

static void one_round(bool journal, unsigned round, bool (*passed)[LIFE_STEPS])
{
    int fds[2], status;
    pthread_t killer;
    CHECK(pipe(fds) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        be_child(journal, round, fds[1]);
    }
    close(fds[1]);
    CHECK(pthread_create(&killer, NULL, kill_later, &pid) == 0);
    read_reports(fds[0], passed);
    pthread_join(killer, NULL);
    close(fds[0]);
    CHECK(waitpid(pid, &status, 0) == pid);
    if (!WIFSIGNALED(status))
        fprintf(stderr, "the child ended by itself, with %d\n", WEXITSTATUS(status));
    CU_ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static unsigned look(bool (*passed)[LIFE_STEPS], bool journal, unsigned *acknowledged)
{
    struct blob_store *s = NULL;
    struct blob_error err = {0};
    unsigned losses = 0;
    if (open_store(journal, &s, &err) != BLOB_OK) {
        fprintf(stderr, "the store does not open: %s\n", err.text);
        return 1;
    }
    *acknowledged = 0;
    for (unsigned n = 0; n < ROUNDS * ROUND_LIVES; n++) {
        struct life life;
        if (!passed[n][LIFE_FLUSHED_PART])
            continue;
        ++*acknowledged;
        life_plan(&life, n);
        const char *missing = life_missing(s, &life, passed[n]);
        if (missing)
            fprintf(stderr, "upload %u: %s\n", n, missing);
        losses += missing != NULL;
    }
    losses += life_broken(s);
    blob_store_close(s);
    return losses;
}

static void kill_and_look(bool journal)
{
    bool(*passed)[LIFE_STEPS] = calloc(ROUNDS * ROUND_LIVES, sizeof *passed);
    unsigned acknowledged = 0, losses = 0;
    CU_ASSERT_PTR_NOT_NULL_FATAL(passed);
    temp_dir_make(root);
    for (unsigned round = 0; round < ROUNDS && losses == 0; round++) {
        one_round(journal, round, passed);
        /* Mostly it is the next child that recovers, and may be killed at it. */
        if (round % 6 == 5 || round == ROUNDS - 1)
            losses = look(passed, journal, &acknowledged);
    }
    printf("(%u uploads) ", acknowledged);
    CU_ASSERT_EQUAL(losses, 0);
    CU_ASSERT_TRUE(acknowledged > 0);
    temp_dir_remove(root);
    free(passed);
}

static void test_journal(void)
{
    kill_and_look(true);
}

static void test_plain(void)
{
    kill_and_look(false);
}

int main(void)
{
    CU_TestInfo tests[] = {{"nothing acknowledged is lost, with the journal", test_journal},
                           {"nothing acknowledged is lost, without it", test_plain},
                           CU_TEST_INFO_NULL};
    return unit_main("disk kill", tests);
}
