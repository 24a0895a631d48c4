/*
 * crc32c - the CRC-32C of a piece of memory, to be continued over the next: crc32c(crc32c(0, a), b) is that of a and b.
 * Threads: any. Cannot fail. Source: RFC 3720, appendix B.4 (Castagnoli polynomial, reflected: 0x82f63b78).
 */
#ifndef BLOBD_BACKENDS_CRC32C_H
#define BLOBD_BACKENDS_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t len);

#endif
