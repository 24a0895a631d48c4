/* proxy_header - what follows the addresses (TLVs) is passed over: it may be long, and is not kept. */
#include "server/http/parse/proxy_header.h"

#include "core/check.h"

#include <string.h>

#define SIGNATURE_BYTES 12
#define FAMILY_IPV4     1
#define FAMILY_IPV6     2
#define FAMILY_LAST     3 /* of what there is: unspecified, IPv4, IPv6, Unix */
#define TRANSPORT_LAST  2 /* unspecified, stream, datagram */

static const uint8_t signature[SIGNATURE_BYTES] = "\r\n\r\n\0\r\nQUIT\n";

static enum proxy_state broken(struct proxy_header *header, const char *fault)
{
    header->fault = fault;
    return PROXY_BROKEN;
}

static const char *judge_signature(const struct proxy_header *header)
{
    size_t len = header->have < SIGNATURE_BYTES ? header->have : SIGNATURE_BYTES;
    size_t version_1 = len < 6 ? len : 6;
    if (memcmp(header->bytes, signature, len) == 0)
        return NULL;
    if (memcmp(header->bytes, "PROXY ", version_1) == 0)
        return "it speaks version 1 of the PROXY protocol; version 2 is needed (HAProxy: send-proxy-v2)";
    return "it does not begin its connections with a PROXY protocol header of version 2";
}

static size_t address_bytes(unsigned family)
{
    return family == FAMILY_IPV4 ? 12 : family == FAMILY_IPV6 ? 36 : 0;
}

static const char *judge_fixed(struct proxy_header *header)
{
    const uint8_t *fixed = header->bytes + SIGNATURE_BYTES;
    unsigned version = fixed[0] >> 4, command = fixed[0] & 15, family = fixed[1] >> 4, transport = fixed[1] & 15;
    size_t length = (size_t)fixed[2] << 8 | fixed[3];
    if (version != 2 || command > 1)
        return "its PROXY header has an unknown version or command";
    if (family > FAMILY_LAST || transport > TRANSPORT_LAST)
        return "its PROXY header has an unknown family or transport";
    if (command == 1 && length < address_bytes(family))
        return "its PROXY header is too short for its addresses";
    header->length = PROXY_FIXED_BYTES + length;
    return NULL;
}

/* Source address, destination address, source port, destination port. */
static void read_addresses(struct proxy_header *header)
{
    const uint8_t *fixed = header->bytes + SIGNATURE_BYTES, *at = header->bytes + PROXY_FIXED_BYTES;
    unsigned family = fixed[1] >> 4;
    if ((fixed[0] & 15) == 0 || address_bytes(family) == 0)
        return;
    size_t len = family == FAMILY_IPV4 ? 4 : IP_BYTES;
    header->source = (struct ip_address){.bytes = {[10] = 0xff, [11] = 0xff}};
    memcpy(header->source.bytes + IP_BYTES - len, at, len);
    header->port = (uint16_t)(at[2 * len] << 8 | at[2 * len + 1]);
    header->relayed = true;
}

size_t proxy_header_wants(const struct proxy_header *header)
{
    return (header->length ? header->length : PROXY_FIXED_BYTES) - header->have;
}

enum proxy_state proxy_header_feed(struct proxy_header *header, const uint8_t *data, size_t len)
{
    CHECK(len <= proxy_header_wants(header));
    size_t room = header->have < sizeof header->bytes ? sizeof header->bytes - header->have : 0;
    memcpy(header->bytes + header->have, data, len < room ? len : room);
    header->have += len;
    const char *fault = judge_signature(header);
    if (!fault && header->length == 0 && header->have == PROXY_FIXED_BYTES)
        fault = judge_fixed(header);
    if (fault)
        return broken(header, fault);
    if (header->length == 0 || header->have < header->length)
        return PROXY_MORE;
    read_addresses(header);
    return PROXY_DONE;
}
