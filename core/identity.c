/*
 * identity - what records can hold is what a name may be.
 */
#include "core/identity.h"

#include "core/text/utf8.h"

const char *identity_name_fault(const char *name, size_t len)
{
    if (len == 0)
        return "the name is empty";
    if (len > OWNER_MAX)
        return "the name is too long";
    if (!utf8_valid(name, len))
        return "the name is not UTF-8";
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return "the name holds a control character";
    }
    return NULL;
}
