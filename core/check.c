/* check - the failing end of CHECK(): say where, then stop. */
#include "core/check.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *file, int line, const char *cond)
{
    fprintf(stderr, "blobd: bug: %s:%d: %s does not hold\n", file, line, cond);
    abort();
}
