/*
 * fault - named fault points, compiled into test builds only (BLOBD_FAULTS).
 *
 * FAULT_POINT("disk.fsync") gives 0, or the errno that a test armed there. In other builds it is the constant 0.
 * A test arms one with fault_arm(); a test binary of the server reads BLOBD_FAULTS_ARM="name=errno[:after[:times]],…"
 * from its environment. errno "kill" ends the process on the spot (SIGKILL), for crash tests.
 *
 * Threads: any.
 */
#ifndef BLOBD_CORE_FAULT_H
#define BLOBD_CORE_FAULT_H

#define FAULT_KILL (-1)

#ifdef BLOBD_FAULTS
int fault_hit(const char *name);
/* Fails hits number after+1 … after+times of name (times 0: for ever). */
void fault_arm(const char *name, int error, unsigned after, unsigned times);
void fault_disarm_all(void);
void fault_arm_from_environment(void);
#define FAULT_POINT(name) fault_hit(name)
#else
static inline void fault_arm_from_environment(void)
{
}
#define FAULT_POINT(name) 0
#endif

#endif
