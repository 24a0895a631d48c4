/* rfc3339 - gmtime_r and fixed columns. */
#include "core/text/rfc3339.h"

#include "core/check.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define FIRST_MS INT64_C(-62167219200000) /* 0000-01-01T00:00:00.000Z */
#define LAST_MS  INT64_C(253402300799999) /* 9999-12-31T23:59:59.999Z */

void rfc3339_format(int64_t unix_ms, char out[RFC3339_CHARS + 1])
{
    unix_ms = unix_ms < FIRST_MS ? FIRST_MS : unix_ms > LAST_MS ? LAST_MS : unix_ms;
    int64_t ms = unix_ms % 1000;
    if (ms < 0)
        ms += 1000;
    time_t seconds = (time_t)((unix_ms - ms) / 1000);
    struct tm tm;
    CHECK(gmtime_r(&seconds, &tm) != NULL);
    char text[80];
    int n = snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
                     tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)ms);
    CHECK(n == RFC3339_CHARS);
    memcpy(out, text, RFC3339_CHARS + 1);
}

enum blob_status rfc3339_parse(const char *text, int64_t *unix_ms)
{
    if (strlen(text) != RFC3339_CHARS)
        return BLOB_E_INVALID;
    /* Each field as its column says; what is not a digit, or no date, fails the comparison at the end. */
    static const struct {
        int at, chars;
    } fields[] = {{0, 4}, {5, 2}, {8, 2}, {11, 2}, {14, 2}, {17, 2}, {20, 3}};
    int value[7] = {0};
    for (size_t i = 0; i < 7; i++) {
        for (int k = 0; k < fields[i].chars; k++)
            value[i] = value[i] * 10 + ((text[fields[i].at + k] - '0') & 15);
    }
    struct tm tm = {.tm_year = value[0] - 1900,
                    .tm_mon = value[1] - 1,
                    .tm_mday = value[2],
                    .tm_hour = value[3],
                    .tm_min = value[4],
                    .tm_sec = value[5]};
    int64_t ms = (int64_t)timegm(&tm) * 1000 + value[6];
    char again[RFC3339_CHARS + 1];
    rfc3339_format(ms, again);
    if (memcmp(text, again, RFC3339_CHARS) != 0)
        return BLOB_E_INVALID;
    *unix_ms = ms;
    return BLOB_OK;
}
