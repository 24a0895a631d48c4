/*
 * upload_lane - which lane of the workers an upload's work goes through: in one lane it is done in order.
 */
#include "core/upload/upload_internal.h"

unsigned upload_bucket(const struct uuid *id)
{
    unsigned h = 2166136261u; /* FNV-1a */
    for (const char *p = id->text; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    return h;
}

struct worker_lane *upload_lane(struct upload_service *svc, const struct uuid *id)
{
    return &svc->lanes[upload_bucket(id) % UPLOAD_LANES];
}
