/* clock - the two clocks: the wall's, for times that are stored or compared between nodes, and the steady one, for
 * how long something took. Threads: any. Cannot fail. */
#ifndef BLOBD_CORE_CLOCK_H
#define BLOBD_CORE_CLOCK_H

#include <stdint.h>

#define CLOCK_BOOT_ID_MAX 37

/* Milliseconds or microseconds since the epoch (UTC). May step. */
int64_t clock_wall_ms(void);
int64_t clock_wall_us(void);
/* clock_wall_ms(), but later than `last_ms` in any case: for times that must tell which of two changes came after the
 * other. */
int64_t clock_wall_ms_after(int64_t last_ms);
/* Microseconds since some moment. Never steps. */
int64_t clock_steady_us(void);
/* Milliseconds since this machine was started, also while it slept. Never steps. */
int64_t clock_boot_ms(void);
/* Which start of the machine this is; "" where the kernel does not tell: then no two are the same. */
void clock_boot_id(char id[CLOCK_BOOT_ID_MAX]);
/* Microseconds by which the wall clock is ahead of the steady one. */
int64_t clock_wall_offset_us(void);

#endif
