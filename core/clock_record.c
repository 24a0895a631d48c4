/* clock_record - one small record, of whichever node swept last. */
#include "core/clock_record.h"

#include "core/clock.h"
#include "core/clock_watch.h"
#include "core/log.h"
#include "core/node_clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KEY         "clock/last"
#define VALUE_MAX   192
#define LEAD        ",\"lead_ms\":" /* not in records of before */
#define LEAD_MAX_MS (INT64_C(2) * 24 * 3600 * 1000)

enum blob_status clock_record_keep(struct blob_store *store, int64_t now_ms, int64_t lead_ms, struct blob_error *err)
{
    char boot_id[CLOCK_BOOT_ID_MAX], value[VALUE_MAX];
    clock_boot_id(boot_id);
    int len = snprintf(value, sizeof value,
                       "{\"v\":1,\"wall_ms\":%" PRId64 ",\"boot_ms\":%" PRId64 ",\"boot\":\"%s\"" LEAD "%" PRId64 "}",
                       now_ms, clock_boot_ms(), boot_id, lead_ms);
    return record_put(store, KEY, value, (size_t)len, BLOB_LAZY, err);
}

static bool parse(const void *value, size_t len, struct clock_known *out, int64_t *boot_ms,
                  char boot_id[CLOCK_BOOT_ID_MAX])
{
    char text[VALUE_MAX];
    int end = 0;
    if (len >= sizeof text)
        return false;
    memcpy(text, value, len);
    text[len] = '\0';
    boot_id[0] = '\0';
    if (sscanf(text, "{\"v\":1,\"wall_ms\":%" SCNd64 ",\"boot_ms\":%" SCNd64 ",\"boot\":\"%n%36[0-9a-f-]", &out->now_ms,
               boot_ms, &end, boot_id) < 2 ||
        end == 0 || out->now_ms <= 0)
        return false;
    const char *lead = strstr(text, LEAD);
    return !lead || (sscanf(lead + strlen(LEAD), "%" SCNd64, &out->lead_ms) == 1 && out->lead_ms >= 0 &&
                     out->lead_ms <= LEAD_MAX_MS);
}

enum blob_status clock_record_recall(struct blob_store *store, struct clock_known *out, struct blob_error *err)
{
    struct bytebuf value;
    struct clock_known known = {0};
    int64_t boot_ms = 0;
    char then[CLOCK_BOOT_ID_MAX], now[CLOCK_BOOT_ID_MAX];
    bytebuf_init(&value);
    enum blob_status st = record_get(store, KEY, &value, err);
    if (st == BLOB_OK && (value.failed || !parse(value.data, value.len, &known, &boot_ms, then)))
        st = blob_fail(err, BLOB_E_CORRUPT, 0, "the record " KEY " is damaged");
    bytebuf_release(&value);
    if (st != BLOB_OK)
        return st;
    clock_boot_id(now);
    int64_t passed_ms = clock_boot_ms() - boot_ms;
    known.exact = now[0] != '\0' && strcmp(then, now) == 0 && passed_ms >= 0;
    if (known.exact)
        known.now_ms += passed_ms;
    *out = known;
    return BLOB_OK;
}

void clock_record_start(struct blob_store *store, struct node_clock *clock, struct logger *log)
{
    struct blob_error err;
    struct clock_known known;
    enum blob_status st = clock_record_recall(store, &known, &err);
    if (st != BLOB_OK) {
        if (st != BLOB_E_NOT_FOUND)
            log_line(log, LOG_WARN, NULL, "the time of the last sweep is not known: %s", err.text);
        return;
    }
    int64_t ahead_ms = clock_wall_ms() - known.now_ms;
    node_clock_start_at(clock, known.now_ms, known.lead_ms);
    if (known.exact && (ahead_ms > CLOCK_STEP_MS || ahead_ms < -CLOCK_STEP_MS))
        log_line(
            log, LOG_WARN, NULL,
            "the wall clock has moved by %lld ms at once while blobd was stopped; nothing expires by it before it has "
            "been steady for retention.sweep_interval",
            (long long)ahead_ms);
    else if (ahead_ms < -CLOCK_STEP_MS)
        log_line(log, LOG_WARN, NULL, "the wall clock is %lld ms behind the last sweep: is it set right?",
                 (long long)-ahead_ms);
}
