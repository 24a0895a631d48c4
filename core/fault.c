/*
 * fault - the table of armed points. The one mutable global outside main.c: fault points are called from everywhere,
 * and exist in test builds only.
 *
 * What is armed is read under a mutex; a count of armed points keeps the common case to one atomic load.
 */
#include "core/fault.h"

#ifdef BLOBD_FAULTS

#include "core/check.h"
#include "core/text/parse.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_POINTS 32
#define NAME_CHARS 63
#define MAX_ERRNO  133

struct fault_point {
    char name[NAME_CHARS + 1];
    int error;
    unsigned after, times;
    bool forever;
};

static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault_point fault_points[MAX_POINTS];
static atomic_uint fault_count;

int fault_hit(const char *name)
{
    if (atomic_load_explicit(&fault_count, memory_order_acquire) == 0)
        return 0;
    int error = 0;
    pthread_mutex_lock(&fault_lock);
    for (unsigned i = 0; i < fault_count && error == 0; i++) {
        struct fault_point *point = &fault_points[i];
        if (strcmp(point->name, name) != 0)
            continue;
        if (point->after > 0) {
            point->after--;
        } else if (point->forever || point->times > 0) {
            error = point->error;
            point->times -= point->forever ? 0 : 1;
        }
    }
    pthread_mutex_unlock(&fault_lock);
    if (error == FAULT_KILL)
        kill(getpid(), SIGKILL);
    return error;
}

void fault_arm(const char *name, int error, unsigned after, unsigned times)
{
    CHECK(strlen(name) <= NAME_CHARS && error != 0);
    pthread_mutex_lock(&fault_lock);
    CHECK(fault_count < MAX_POINTS);
    struct fault_point *point = &fault_points[fault_count];
    *point = (struct fault_point){.error = error, .after = after, .times = times, .forever = times == 0};
    memcpy(point->name, name, strlen(name) + 1);
    atomic_fetch_add_explicit(&fault_count, 1, memory_order_release);
    pthread_mutex_unlock(&fault_lock);
}

void fault_disarm_all(void)
{
    pthread_mutex_lock(&fault_lock);
    fault_count = 0;
    pthread_mutex_unlock(&fault_lock);
}

static int errno_by_name(const char *name)
{
    uint64_t number;
    if (strcmp(name, "kill") == 0)
        return FAULT_KILL;
    if (parse_u64(name, 1, MAX_ERRNO, &number) == BLOB_OK)
        return (int)number;
    for (int error = 1; error <= MAX_ERRNO; error++) {
        const char *known = strerrorname_np(error);
        if (known && strcmp(known, name) == 0)
            return error;
    }
    return 0;
}

/* "name=errno[:after[:times]]"; a test with a misspelt fault must not pass as one without. */
static void fault_arm_text(char *text)
{
    uint64_t numbers[2] = {0, 0};
    char *error_text = strchr(text, '=');
    CHECK(error_text != NULL);
    *error_text++ = '\0';
    char *rest = strchr(error_text, ':');
    for (size_t i = 0; rest && i < 2; i++) {
        *rest++ = '\0';
        char *next = strchr(rest, ':');
        if (next)
            *next = '\0';
        CHECK(parse_u64(rest, 0, 1u << 30, &numbers[i]) == BLOB_OK);
        if (next)
            *next = ':';
        rest = next;
    }
    CHECK(rest == NULL);
    int error = errno_by_name(error_text);
    CHECK(error != 0);
    fault_arm(text, error, (unsigned)numbers[0], (unsigned)numbers[1]);
}

void fault_arm_from_environment(void)
{
    const char *armed = getenv("BLOBD_FAULTS_ARM");
    if (!armed)
        return;
    char *text = strdup(armed), *rest = text, *item;
    CHECK(text != NULL);
    while ((item = strsep(&rest, ",")) != NULL)
        if (*item != '\0')
            fault_arm_text(item);
    free(text);
}

#endif
