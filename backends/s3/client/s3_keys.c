/*
 * s3_keys - one pair behind a lock, replaced as a whole.
 *
 * Who renews does so without the lock, and alone: the others would only ask the same. Times are by the wall's clock
 * where a pair's end is compared, by the steady one for how often somebody is asked.
 */
#include "backends/s3/client/s3_keys.h"

#include "backends/s3/client/s3_cloud_keys.h"
#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RENEW_BEFORE_MS (5 * 60 * 1000)
#define ASK_AGAIN_MS    10000 /* after a renewal that failed, or gave what we had */
#define LOOK_MS         1000  /* between two looks at a file, or two questions because S3 refused */
#define TELL_MS         30000

enum source { SOURCE_FIXED, SOURCE_FILE, SOURCE_CLOUD };

struct s3_keys {
    enum source source;
    const char *name; /* for texts */
    char *path;       /* of a file */
    struct s3_cloud *cloud;
    struct s3_gate gate;
    struct logger *log;
    atomic_bool refused;  /* the last word of S3 */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t renewed;
    struct s3_credentials *cred;
    bool renewing;
    int64_t renew_at_ms; /* by the wall's clock; INT64_MAX: not for its age */
    int64_t asked_ms;    /* steady: the last renewal's begin */
    int64_t looked_ms;   /* steady: the last look at the file */
    int64_t told_ms;     /* steady: the last line about a refusal */
    struct timespec file_mtime;
    ino_t file_inode;
    off_t file_size;
};

static const char *or_empty(const char *s)
{
    return s ? s : "";
}

static int64_t steady_ms(void)
{
    return clock_steady_us() / 1000;
}

/* ---- the first pair ---- */

/* Is the file another than when it was read? Notes how it is. */
static bool file_has_changed(struct s3_keys *k)
{
    struct stat sb;
    if (stat(k->path, &sb) != 0)
        return false; /* being replaced: the next look tells */
    bool changed = sb.st_ino != k->file_inode || sb.st_size != k->file_size ||
                   sb.st_mtim.tv_sec != k->file_mtime.tv_sec || sb.st_mtim.tv_nsec != k->file_mtime.tv_nsec;
    k->file_inode = sb.st_ino;
    k->file_size = sb.st_size;
    k->file_mtime = sb.st_mtim;
    return changed;
}

static enum blob_status fetch(struct s3_keys *k, struct s3_credentials **out, struct blob_error *err)
{
    if (k->source == SOURCE_FILE)
        return s3_credentials_from_file(k->path, out, err);
    return s3_cloud_fetch(k->cloud, out, err);
}

static enum blob_status find(struct s3_keys *k, const struct s3_options *opts, struct blob_error *err)
{
    const char *id = or_empty(opts->cred_id), *secret = or_empty(opts->cred_secret);
    k->source = SOURCE_FIXED;
    k->name = "storage.s3.cred_id and cred_secret";
    if (id[0] || secret[0])
        return s3_credentials_new(id, secret, or_empty(opts->session_token), 0, k->name, &k->cred, err);
    id = or_empty(getenv("AWS_ACCESS_KEY_ID"));
    secret = or_empty(getenv("AWS_SECRET_ACCESS_KEY"));
    k->name = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    if (id[0] || secret[0])
        return s3_credentials_new(id, secret, or_empty(getenv("AWS_SESSION_TOKEN")), 0, k->name, &k->cred, err);
    if (or_empty(opts->cred_file)[0]) {
        k->source = SOURCE_FILE;
        k->name = "storage.s3.cred_file";
        k->path = strdup(opts->cred_file);
        if (!k->path)
            return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
        file_has_changed(k);
        return fetch(k, &k->cred, err);
    }
    enum blob_status st = s3_cloud_find(opts, &k->gate, &k->cloud, err);
    if (st == BLOB_E_NOT_FOUND)
        return blob_fail(err, BLOB_E_INVALID, 0,
                         "no S3 credentials: set storage.s3.cred_id and cred_secret, or cred_file, or what docs/s3.md "
                         "names of AWS's environment");
    if (st != BLOB_OK)
        return st;
    k->source = SOURCE_CLOUD;
    k->name = s3_cloud_name(k->cloud);
    return fetch(k, &k->cred, err);
}

/* Before its end: five minutes, or half of what is left of a short life. */
static int64_t renewal_time(const struct s3_credentials *c)
{
    if (!c->expires_ms)
        return INT64_MAX;
    int64_t left_ms = c->expires_ms - clock_wall_ms();
    return c->expires_ms - (left_ms / 2 < RENEW_BEFORE_MS ? left_ms / 2 : RENEW_BEFORE_MS);
}

enum blob_status s3_keys_open(const struct s3_options *opts, struct logger *log, struct s3_keys **out,
                              struct blob_error *err)
{
    struct s3_keys *k = calloc(1, sizeof *k);
    if (!k || s3_gate_init(&k->gate) != BLOB_OK) {
        free(k);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "S3 credentials");
    }
    CHECK(pthread_mutex_init(&k->lock, NULL) == 0 && pthread_cond_init(&k->renewed, NULL) == 0);
    k->log = log;
    enum blob_status st = find(k, opts, err);
    if (st != BLOB_OK) {
        s3_keys_free(k);
        return st;
    }
    k->renew_at_ms = renewal_time(k->cred);
    k->asked_ms = steady_ms();
    log_line(log, LOG_INFO, NULL, "S3 credentials are from %s", k->name);
    *out = k;
    return BLOB_OK;
}

void s3_keys_free(struct s3_keys *k)
{
    if (!k)
        return;
    s3_credentials_release(k->cred);
    s3_cloud_free(k->cloud);
    free(k->path);
    s3_gate_release(&k->gate);
    pthread_cond_destroy(&k->renewed);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

void s3_keys_cancel(struct s3_keys *k)
{
    s3_gate_shut(&k->gate);
}

/* ---- another pair ---- */

static bool has_ended(const struct s3_credentials *c)
{
    return c->expires_ms && clock_wall_ms() >= c->expires_ms;
}

static int64_t later_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* With the lock, which is let go meanwhile. Afterwards k->cred is what was to be had. */
static enum blob_status renew(struct s3_keys *k, struct blob_error *err)
{
    struct s3_credentials *fresh = NULL;
    k->renewing = true;
    k->asked_ms = steady_ms();
    pthread_mutex_unlock(&k->lock);
    enum blob_status st = fetch(k, &fresh, err);
    pthread_mutex_lock(&k->lock);
    k->renewing = false;
    pthread_cond_broadcast(&k->renewed);
    int64_t now_ms = clock_wall_ms();
    if (st != BLOB_OK) {
        k->renew_at_ms = k->cred->expires_ms ? now_ms + (has_ended(k->cred) ? LOOK_MS : ASK_AGAIN_MS) : INT64_MAX;
        return st;
    }
    bool other = !s3_credentials_equal(fresh, k->cred);
    if (other || fresh->expires_ms != k->cred->expires_ms) {
        struct s3_credentials *old = k->cred;
        k->cred = fresh;
        k->renew_at_ms = renewal_time(fresh);
        s3_credentials_release(old);
    } else { /* those who hand them out make a new one when they think it time */
        s3_credentials_release(fresh);
        k->renew_at_ms = k->cred->expires_ms ? later_of(now_ms + LOOK_MS, renewal_time(k->cred)) : INT64_MAX;
    }
    if (other)
        log_line(k->log, LOG_INFO, NULL, "S3 credentials were renewed from %s", k->name);
    return BLOB_OK;
}

/* Is it time to ask again? */
static bool is_due(struct s3_keys *k)
{
    if (k->source == SOURCE_CLOUD)
        return clock_wall_ms() >= k->renew_at_ms;
    if (k->source != SOURCE_FILE || steady_ms() - k->looked_ms < LOOK_MS)
        return false;
    k->looked_ms = steady_ms();
    return file_has_changed(k);
}

static void tell(struct s3_keys *k, const char *what, const char *why)
{
    int64_t now_ms = steady_ms();
    if (k->told_ms && now_ms - k->told_ms < TELL_MS)
        return;
    k->told_ms = now_ms;
    log_line(k->log, LOG_ERROR, NULL, "S3 credentials from %s %s: %s", k->name, what, why);
}

enum blob_status s3_keys_hold(struct s3_keys *k, struct s3_credentials **out, struct blob_error *err)
{
    struct blob_error why = {.text = ""};
    enum blob_status st = BLOB_OK;
    pthread_mutex_lock(&k->lock);
    while (k->renewing && has_ended(k->cred) && !s3_gate_is_shut(&k->gate))
        pthread_cond_wait(&k->renewed, &k->lock);
    if (!k->renewing && !s3_gate_is_shut(&k->gate) && is_due(k)) {
        st = renew(k, &why);
        if (st != BLOB_OK && st != BLOB_E_CANCELED)
            tell(k, "cannot be renewed", why.text);
    }
    if (has_ended(k->cred)) {
        st = blob_fail(err, BLOB_E_UNAVAILABLE, 0, "S3 credentials from %s have ended, and cannot be renewed: %.120s",
                       k->name, why.text[0] ? why.text : "the log tells why");
    } else {
        s3_credentials_hold(k->cred);
        *out = k->cred;
        st = BLOB_OK;
    }
    pthread_mutex_unlock(&k->lock);
    return st;
}

bool s3_keys_refused(struct s3_keys *k, const struct s3_credentials *used, const char *why)
{
    struct blob_error ignored;
    pthread_mutex_lock(&k->lock);
    while (k->renewing && !s3_gate_is_shut(&k->gate))
        pthread_cond_wait(&k->renewed, &k->lock);
    bool other = !s3_credentials_equal(used, k->cred);
    if (!other && k->source != SOURCE_FIXED && steady_ms() - k->asked_ms >= LOOK_MS && !s3_gate_is_shut(&k->gate)) {
        if (k->source == SOURCE_FILE)
            file_has_changed(k);
        other = renew(k, &ignored) == BLOB_OK && !s3_credentials_equal(used, k->cred);
    }
    if (!other) {
        atomic_store(&k->refused, true);
        tell(k, "are refused", why);
    }
    pthread_mutex_unlock(&k->lock);
    return other;
}

void s3_keys_accepted(struct s3_keys *k)
{
    if (!atomic_load_explicit(&k->refused, memory_order_relaxed) || !atomic_exchange(&k->refused, false))
        return;
    pthread_mutex_lock(&k->lock);
    k->told_ms = 0;
    pthread_mutex_unlock(&k->lock);
    log_line(k->log, LOG_INFO, NULL, "S3 takes the credentials from %s again", k->name);
}

void s3_keys_reload(struct s3_keys *k)
{
    struct blob_error why = {.text = ""};
    pthread_mutex_lock(&k->lock);
    if (k->source != SOURCE_FIXED && !k->renewing && !s3_gate_is_shut(&k->gate)) {
        if (k->source == SOURCE_FILE)
            file_has_changed(k);
        if (renew(k, &why) != BLOB_OK)
            log_line(k->log, LOG_ERROR, NULL, "the old S3 credentials stay: %s", why.text);
    }
    pthread_mutex_unlock(&k->lock);
}
