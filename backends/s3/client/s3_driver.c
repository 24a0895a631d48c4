/* s3_driver - the beginning and the end of a driver. */
#include "backends/s3/client/s3_driver.h"

#include <stdio.h>

enum blob_status s3_driver_base_init(struct s3_driver_base *base, const struct s3_options *opts, struct blob_error *err)
{
    *base = (struct s3_driver_base){.retry_timeout_ms = opts->retry_timeout_ms, .retries = opts->retries};
    snprintf(base->bucket, sizeof base->bucket, "%s", opts->bucket ? opts->bucket : "");
    enum blob_status st = s3_endpoint_from_options(opts, &base->endpoint, err);
    if (st != BLOB_OK)
        return st;
    if (!opts->keys)
        st = s3_keys_open(opts, NULL, &base->own_keys, err);
    if (st != BLOB_OK)
        return st;
    base->keys = opts->keys ? opts->keys : base->own_keys;
    st = s3_gate_init(&base->gate);
    if (st != BLOB_OK) {
        s3_keys_free(base->own_keys);
        return blob_fail(err, st, 0, "S3 client");
    }
    return BLOB_OK;
}

void s3_driver_base_release(struct s3_driver_base *base)
{
    s3_gate_release(&base->gate);
    s3_keys_free(base->own_keys);
}

void s3_driver_base_cancel(struct s3_driver_base *base)
{
    s3_gate_shut(&base->gate);
    if (base->own_keys)
        s3_keys_cancel(base->own_keys);
}
