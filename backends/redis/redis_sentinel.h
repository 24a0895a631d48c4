/*
 * redis_sentinel - asks the sentinels where the master is.
 *
 * Threads: any. Errors: UNAVAILABLE: none of them answered within the time-outs, or none knows the master.
 * Source: https://redis.io/docs/reference/sentinel-clients/
 */
#ifndef BLOBD_BACKENDS_REDIS_REDIS_SENTINEL_H
#define BLOBD_BACKENDS_REDIS_REDIS_SENTINEL_H

#include "backends/redis/redis_config.h"

/* *first: the sentinel to begin with; set to the one that answered. */
enum blob_status redis_sentinel_master(const struct redis_config *config, unsigned *first, struct redis_endpoint *out,
                                       struct blob_error *err) BLOB_MUST_CHECK;

#endif
