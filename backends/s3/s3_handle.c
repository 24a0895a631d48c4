/*
 * s3_handle - what every file of the S3 store asks of the store itself: the way from the contract's struct to ours, and
 * whether its clocks can be trusted. It calls no other file of this room, so that all may call it.
 */
#include "backends/s3/s3_store_internal.h"
#include "core/check.h"

struct s3_store *s3_store_of(struct blob_store *base)
{
    struct s3_store *s = (struct s3_store *)base;
    MAGIC_OK(s, S3_STORE_MAGIC);
    return s;
}

enum blob_status s3_clocks_agree(struct s3_store *s, int64_t *offset_ms, struct blob_error *err)
{
    struct s3_clock_view clock;
    s3_client_clock(s->client, &clock);
    int64_t worst = s3_clock_worst_ms(&clock);
    if (worst > S3_CLOCK_LIMIT_MS || worst < -S3_CLOCK_LIMIT_MS)
        return blob_fail(
            err, BLOB_E_UNAVAILABLE, 0,
            "this machine's clock and an answer of the S3 endpoint's were %lld s apart within the last ten "
            "minutes: nothing is removed for its age; set the clocks right (NTP), all of the endpoint's too",
            (long long)(worst < 0 ? -worst : worst) / 1000);
    *offset_ms = clock.median_ms;
    return BLOB_OK;
}
