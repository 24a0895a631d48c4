/*
 * auth_verify - remembered answers are kept in a 4-way set-associative cache. A set is found by the first bytes of the
 * key. The key is a hash, so nobody can aim at a set, and what is pushed out early is asked again. Connections to the
 * PBX are kept: as many curl handles lie ready as questions may be under way.
 */
#include "server/auth/auth_verify.h"

#include "core/check.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/metrics.h"
#include "server/auth/auth_room.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define SET_COUNT 1024
#define SET_WAYS  4
#define TRIES_MAX 8 /* where answers are not remembered, and equal bearers follow each other */
#define KNOWN_US  (INT64_C(86400) * 1000000)

struct memory {
    struct digest key;
    int64_t until_us; /* 0: free. A yes is kept for KNOWN_US longer, to know its bearer by */
    int64_t renew_us; /* of a yes: from then on it may be asked about again, in time */
    bool granted;
    char name[OWNER_MAX + 1];
};

struct verifier {
    char *url, *ca_file;
    int64_t timeout_ms, cache_us, negative_cache_us;
    struct logger *log;
    struct metric *asked, *remembered, *unanswered;

    pthread_mutex_t lock; /* everything below */
    struct memory *memories;
    unsigned parallel;
    CURL **idle; /* parallel of them, idle_count in use */
    unsigned idle_count;

    struct auth_room *room;
};

static struct memory *memory_set(struct verifier *v, const struct digest *key)
{
    unsigned index = (key->bytes[0] | (unsigned)key->bytes[1] << 8) % SET_COUNT;
    return &v->memories[index * SET_WAYS];
}

/* With the lock held; NULL: nothing is known of it. */
static struct memory *find_memory(struct verifier *v, const struct digest *key)
{
    struct memory *set = memory_set(v, key);
    for (unsigned i = 0; i < SET_WAYS; i++)
        if (set[i].until_us != 0 && digest_equal(&set[i].key, key))
            return &set[i];
    return NULL;
}

static bool is_known(struct verifier *v, const struct digest *key)
{
    pthread_mutex_lock(&v->lock);
    const struct memory *m = find_memory(v, key);
    bool known = m != NULL && m->granted && m->until_us + KNOWN_US > clock_steady_us();
    pthread_mutex_unlock(&v->lock);
    return known;
}

/* A yes is renewed when a quarter of its time is left, or the time that an answer may take, at most half of it. */
static int64_t renewal_lead_us(const struct verifier *v)
{
    int64_t lead_us = v->cache_us / 4;
    if (lead_us < v->timeout_ms * 1000)
        lead_us = v->timeout_ms * 1000;
    return lead_us < v->cache_us / 2 ? lead_us : v->cache_us / 2;
}

enum verifier_answer verifier_recall(struct verifier *v, const struct digest *key, struct identity *who, bool *renew)
{
    enum verifier_answer answer = VERIFIER_UNKNOWN;
    int64_t now = clock_steady_us();
    pthread_mutex_lock(&v->lock);
    struct memory *m = find_memory(v, key);
    if (m != NULL && m->until_us > now) {
        answer = m->granted ? VERIFIER_YES : VERIFIER_NO;
        if (m->granted) {
            *who = (struct identity){.known = true};
            memcpy(who->name, m->name, sizeof who->name);
        }
        if (m->granted && renew != NULL && m->renew_us <= now) {
            *renew = true;
            m->renew_us = now + renewal_lead_us(v) / 2; /* once more, should that bring no answer */
        }
    }
    pthread_mutex_unlock(&v->lock);
    if (answer != VERIFIER_UNKNOWN)
        metric_add(v->remembered, 1);
    return answer;
}

/* What another memory is worth: a no makes room for all, a yes only for another yes, or when it is old. */
static int64_t worth(const struct memory *m, int64_t now_us)
{
    bool kept = m->granted && m->until_us != 0 && m->until_us + KNOWN_US > now_us;
    return kept ? INT64_MAX / 2 + m->until_us : m->until_us;
}

/* In the place of the same key, or of the memory that is worth least. */
static void remember(struct verifier *v, const struct digest *key, bool granted, const struct identity *who)
{
    int64_t lifetime_us = granted ? v->cache_us : v->negative_cache_us;
    if (lifetime_us <= 0)
        return;
    pthread_mutex_lock(&v->lock);
    int64_t now_us = clock_steady_us();
    struct memory *set = memory_set(v, key), *m = find_memory(v, key);
    bool same = m != NULL;
    for (unsigned i = 0; !same && i < SET_WAYS; i++)
        if (m == NULL || worth(&set[i], now_us) < worth(m, now_us))
            m = &set[i];
    if (same || granted || worth(m, now_us) < INT64_MAX / 2) {
        *m = (struct memory){.key = *key,
                             .until_us = now_us + lifetime_us,
                             .renew_us = now_us + lifetime_us - renewal_lead_us(v),
                             .granted = granted};
        if (granted)
            memcpy(m->name, who->name, sizeof m->name);
    }
    pthread_mutex_unlock(&v->lock);
}

void verifier_forget(struct verifier *v)
{
    pthread_mutex_lock(&v->lock);
    memset(v->memories, 0, SET_COUNT * SET_WAYS * sizeof *v->memories);
    pthread_mutex_unlock(&v->lock);
}

static size_t drop_body(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    (void)arg;
    return size * count;
}

/* What the PBX says of whose the bearer is. */
struct naming {
    unsigned lines; /* X-Auth-Identity's, in the last answer (there may be interim ones before it) */
    const char *wrong;
    struct identity who;
};

/* NULL, or why it cannot be used. */
static const char *take_name(const char *name, size_t len, struct identity *who)
{
    const char *wrong = identity_name_fault(name, len);
    if (wrong != NULL)
        return wrong;
    memcpy(who->name, name, len);
    who->name[len] = '\0';
    who->known = true;
    return NULL;
}

static bool begins_with(const char *line, size_t len, const char *text)
{
    size_t n = strlen(text);
    return len >= n && strncasecmp(line, text, n) == 0;
}

static size_t take_header(char *data, size_t size, size_t count, void *arg)
{
    static const char name[] = "X-Auth-Identity:";
    struct naming *naming = arg;
    size_t len = size * count;
    if (begins_with(data, len, "HTTP/"))
        *naming = (struct naming){0};
    if (!begins_with(data, len, name))
        return len;
    const char *value = data + sizeof name - 1, *end = data + len;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && strchr("\r\n \t", end[-1]) != NULL)
        end--;
    const char *wrong =
        ++naming->lines > 1 ? "the header is repeated" : take_name(value, (size_t)(end - value), &naming->who);
    if (naming->wrong == NULL)
        naming->wrong = wrong;
    return len;
}

/* 128 bits of the hash: enough that no two bearers meet, too little to be one of a tokens file. */
static void name_by_hash(const struct digest *key, struct identity *who)
{
    char hex[DIGEST_HEX_CHARS + 1];
    digest_hex(key, hex);
    snprintf(who->name, sizeof who->name, "bearer-%.32s", hex);
    who->known = true;
}

static CURL *borrow_handle(struct verifier *v)
{
    pthread_mutex_lock(&v->lock);
    CURL *curl = v->idle_count > 0 ? v->idle[--v->idle_count] : NULL;
    pthread_mutex_unlock(&v->lock);
    return curl != NULL ? curl : curl_easy_init();
}

static void give_handle_back(struct verifier *v, CURL *curl)
{
    curl_easy_reset(curl);
    pthread_mutex_lock(&v->lock);
    CHECK(v->idle_count < v->parallel);
    v->idle[v->idle_count++] = curl;
    pthread_mutex_unlock(&v->lock);
}

/* The PBX's status, or 0 with why it has none. */
static long ask_pbx(struct verifier *v, CURL *curl, const char *authorization, struct naming *naming, char *why)
{
    static const char name[] = "Authorization: ";
    long status = 0;
    size_t len = strlen(authorization);
    char *line = malloc(sizeof name + len);
    struct curl_slist *headers = NULL;
    if (line != NULL) {
        memcpy(line, name, sizeof name - 1);
        memcpy(line + sizeof name - 1, authorization, len + 1);
        headers = curl_slist_append(NULL, line);
    }
    if (headers == NULL)
        goto out;
    curl_easy_setopt(curl, CURLOPT_URL, v->url);
    curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(curl, CURLOPT_PROXY, ""); /* whatever the environment says */
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)v->timeout_ms);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop_body);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, naming);
    curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
    curl_easy_setopt(curl, CURLOPT_USERAGENT, "blobd");
    if (v->ca_file != NULL)
        curl_easy_setopt(curl, CURLOPT_CAINFO, v->ca_file);
    if (curl_easy_perform(curl) == CURLE_OK)
        curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
out:
    curl_slist_free_all(headers);
    free(line);
    return status;
}

/* A name that cannot be used must not be taken for none: the bearer would be somebody else from one answer to the next,
 * and would not find what it had made. */
static enum verifier_answer take_yes(struct verifier *v, const struct digest *key, struct naming *naming,
                                     struct identity *who)
{
    if (naming->wrong != NULL) {
        metric_add(v->unanswered, 1);
        log_line(
            v->log, LOG_ERROR, NULL,
            "auth: the PBX's X-Auth-Identity cannot be used: %s; it is given once, as 1 to %d bytes of UTF-8 without "
            "control characters",
            naming->wrong, OWNER_MAX);
        return VERIFIER_UNUSABLE;
    }
    if (!naming->who.known)
        name_by_hash(key, &naming->who);
    remember(v, key, true, &naming->who);
    *who = naming->who;
    return VERIFIER_YES;
}

static enum verifier_answer unanswered(struct verifier *v)
{
    metric_add(v->unanswered, 1);
    return VERIFIER_UNKNOWN;
}

/* With a place in the room. */
static enum verifier_answer ask_now(struct verifier *v, const char *authorization, const struct digest *key,
                                    struct identity *who)
{
    char why[CURL_ERROR_SIZE] = "";
    struct naming naming = {0};
    CURL *curl = borrow_handle(v);
    if (curl == NULL)
        return unanswered(v);
    long status = ask_pbx(v, curl, authorization, &naming, why);
    give_handle_back(v, curl);
    metric_add(v->asked, 1);
    if (status >= 200 && status < 300)
        return take_yes(v, key, &naming, who);
    if (status == 401 || status == 403) {
        remember(v, key, false, &naming.who);
        return VERIFIER_NO;
    }
    log_line(v->log, LOG_ERROR, NULL, "auth: the PBX does not tell: status %ld %s", status, why);
    return unanswered(v);
}

enum verifier_answer verifier_ask(struct verifier *v, const char *authorization, const struct digest *key,
                                  const char *client, bool again, struct identity *who)
{
    bool keeps_all = v->cache_us > 0 && v->negative_cache_us > 0;
    for (int tries = 0; tries < TRIES_MAX; tries++) {
        /* Many requests with one new bearer arrive together; another may have brought the answer meanwhile. */
        enum verifier_answer answer = again ? VERIFIER_UNKNOWN : verifier_recall(v, key, who, NULL);
        if (answer != VERIFIER_UNKNOWN)
            return answer;
        enum auth_room_answer room =
            tries > 0 && keeps_all ? AUTH_ROOM_FULL : auth_room_enter(v->room, key, client, is_known(v, key));
        if (room == AUTH_ROOM_ENTERED) {
            answer = ask_now(v, authorization, key, who);
            auth_room_leave(v->room, key);
            return answer;
        }
        if (again || room == AUTH_ROOM_FULL)
            break;
    }
    if (!again)
        log_line(v->log, LOG_WARN, NULL, "auth: too many questions to the PBX are under way, or it does not answer");
    return unanswered(v);
}

enum blob_status verifier_new(const struct auth_options *opt, struct logger *log, struct metrics *metrics,
                              struct verifier **out, struct blob_error *err)
{
    CHECK(opt->verify_url != NULL && opt->verify_parallel > 0);
    struct verifier *v = calloc(1, sizeof *v);
    if (v == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        free(v);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "auth");
    }
    pthread_mutex_init(&v->lock, NULL);
    v->url = strdup(opt->verify_url);
    v->ca_file = opt->verify_ca_file != NULL ? strdup(opt->verify_ca_file) : NULL;
    v->memories = calloc((size_t)SET_COUNT * SET_WAYS, sizeof *v->memories);
    v->idle = calloc(opt->verify_parallel, sizeof *v->idle);
    v->room = auth_room_new(opt->verify_parallel, opt->verify_timeout_ms);
    if (v->room == NULL || v->url == NULL || (opt->verify_ca_file != NULL && v->ca_file == NULL) ||
        v->memories == NULL || v->idle == NULL) {
        verifier_free(v);
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "auth");
    }
    v->timeout_ms = opt->verify_timeout_ms;
    v->cache_us = opt->verify_cache_ms * 1000;
    v->negative_cache_us = opt->verify_negative_cache_ms * 1000;
    v->parallel = opt->verify_parallel;
    v->log = log;
    if (metrics != NULL) {
        v->asked = metrics_counter(metrics, "blobd_auth_asked_total", "Questions put to verify_url.", NULL);
        v->remembered = metrics_counter(metrics, "blobd_auth_remembered_total", "Bearers decided from memory.", NULL);
        v->unanswered =
            metrics_counter(metrics, "blobd_auth_unanswered_total", "Questions that brought no yes or no.", NULL);
    }
    *out = v;
    return BLOB_OK;
}

void verifier_free(struct verifier *v)
{
    if (v == NULL)
        return;
    auth_room_free(v->room);
    for (unsigned i = 0; i < v->idle_count; i++)
        curl_easy_cleanup(v->idle[i]);
    free(v->idle);
    free(v->memories);
    free(v->ca_file);
    free(v->url);
    pthread_mutex_destroy(&v->lock);
    curl_global_cleanup();
    free(v);
}
