/*
 * disk_bytes - numbers as the disk store keeps them: little-endian, in as many bytes as they are given.
 *
 * Threads: any. Nothing can fail.
 */
#ifndef BLOBD_BACKENDS_DISK_FILE_DISK_BYTES_H
#define BLOBD_BACKENDS_DISK_FILE_DISK_BYTES_H

#include <stdint.h>

static inline void put_le(uint8_t *p, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

static inline uint64_t get_le(const uint8_t *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes; i-- > 0;)
        v = v << 8 | p[i];
    return v;
}

#endif
