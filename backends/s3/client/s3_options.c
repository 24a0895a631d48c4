/*
 * s3_options - the defaults, and what follows from the options.
 */
#include "backends/s3/client/s3_options.h"

struct s3_options s3_options_default(void)
{
    return (struct s3_options){.driver = "sigv4",
                               .endpoint = "",
                               .region = "",
                               .bucket = "",
                               .prefix = "",
                               .path_style = true,
                               .cred_id = "",
                               .cred_secret = "",
                               .session_token = "",
                               .cred_file = "",
                               .ca_file = "",
                               .connect_timeout_ms = 5000,
                               .stall_timeout_ms = 30000,
                               .complete_timeout_ms = 300000,
                               .retry_timeout_ms = 30000,
                               .max_connections = 64,
                               .part_size_bytes = 8u << 20,
                               .parallel_parts = 4,
                               .memory_bytes = 256u << 20,
                               .presign_expiry_ms = 3600000};
}

unsigned s3_streams_max(const struct s3_options *opts)
{
    return opts->max_connections / 2;
}
