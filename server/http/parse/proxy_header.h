/*
 * proxy_header - the head that a proxy puts before a connection's first byte, to say for whom it speaks: version 2 of
 * the PROXY protocol, read byte by byte, never past its end.
 *
 * Threads: plain values. Source: The PROXY protocol, versions 1 & 2 (haproxy.org, proxy-protocol.txt), section 2.2.
 */
#ifndef BLOBD_SERVER_HTTP_PARSE_PROXY_HEADER_H
#define BLOBD_SERVER_HTTP_PARSE_PROXY_HEADER_H

#include "core/ip_address.h"

#include <stddef.h>
#include <stdint.h>

#define PROXY_FIXED_BYTES   16 /* signature, version, family, length */
#define PROXY_ADDRESS_BYTES 36 /* of the longest addresses that are looked at */

enum proxy_state { PROXY_MORE, PROXY_DONE, PROXY_BROKEN };

/* Zeroed before the first byte. */
struct proxy_header {
    uint8_t bytes[PROXY_FIXED_BYTES + PROXY_ADDRESS_BYTES];
    size_t have;       /* bytes of it that came */
    size_t length;     /* of it as a whole; 0: not known yet */
    const char *fault; /* PROXY_BROKEN: what is wrong */
    bool relayed;      /* PROXY_DONE: source and port are set; else the proxy speaks for itself, or of no IP address */
    struct ip_address source;
    uint16_t port;
};

/* How many bytes proxy_header_feed() may be given at most: so many are surely its own. */
size_t proxy_header_wants(const struct proxy_header *header);
enum proxy_state proxy_header_feed(struct proxy_header *header, const uint8_t *data, size_t len);

#endif
