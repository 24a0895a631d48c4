/*
 * ip_address - IP addresses and networks as plain values: what a list of trusted peers names, and what a limit counts
 * by.
 *
 * An IPv4 address is kept as the IPv6 address it is mapped to (::ffff:a.b.c.d), so that a peer of a socket that takes
 * both is one and the same in either form.
 *
 * Threads: plain values. Ownership: a list is given, and freed with free(). Errors: INVALID. Source: RFC 4291, RFC
 * 4632.
 */
#ifndef BLOBD_CORE_IP_ADDRESS_H
#define BLOBD_CORE_IP_ADDRESS_H

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IP_BYTES 16

struct ip_address {
    uint8_t bytes[IP_BYTES];
};

/* "192.0.2.1" or "2001:db8::1", of len bytes, without brackets, port or zone. out is untouched on failure. */
enum blob_status ip_parse(const char *text, size_t len, struct ip_address *out) BLOB_MUST_CHECK;
bool ip_is_v4(const struct ip_address *address);
/* The address as one client has it: an IPv4 address as it is; of an IPv6 address the first 64 bits, behind which a
 * client has as many addresses as it likes. */
struct ip_address ip_client(const struct ip_address *address);

struct ip_network {
    struct ip_address base;
    unsigned bits; /* of all 128 */
};

struct ip_networks {
    size_t count;
    struct ip_network list[];
};

#define IP_NETWORKS_MAX 256

/* Addresses and networks ("10.0.0.0/8"), separated by blanks or commas. Gives *out, NULL where there is none. INVALID:
 * one of them is none, or has bits behind its prefix, or they are more than IP_NETWORKS_MAX. */
enum blob_status ip_networks_parse(const char *text, struct ip_networks **out) BLOB_MUST_CHECK;
/* networks may be NULL: false. */
bool ip_networks_have(const struct ip_networks *networks, const struct ip_address *address);

#endif
