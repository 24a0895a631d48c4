/*
 * auth_room - the questions to the PBX that are under way: how many there may be, and whose.
 *
 * Each holds a worker for as long as the PBX takes. A quarter of the places is kept for bearers that the PBX has said
 * yes to before; of the others one address has at most half, so that who shows made-up bearers keeps nobody else out.
 * Equal bearers are asked about once: the others wait for that answer, no more of them than there are places.
 *
 * Threads: any; auth_room_enter() may wait, at most wait_ms.
 */
#ifndef BLOBD_SERVER_AUTH_AUTH_ROOM_H
#define BLOBD_SERVER_AUTH_AUTH_ROOM_H

#include "core/digest.h"

#include <stdbool.h>
#include <stdint.h>

struct auth_room;

/* NULL: no memory. */
struct auth_room *auth_room_new(unsigned places, int64_t wait_ms);
void auth_room_free(struct auth_room *r); /* NULL is fine */

enum auth_room_answer {
    AUTH_ROOM_ENTERED, /* ask, and leave */
    AUTH_ROOM_ASKED,   /* another has asked about this bearer meanwhile: what was answered is remembered, if anything */
    AUTH_ROOM_FULL,
};

/* client: the address that is asked for, as text. known: the PBX has said yes to this bearer before. */
enum auth_room_answer auth_room_enter(struct auth_room *r, const struct digest *key, const char *client, bool known);
/* After what was answered is remembered. */
void auth_room_leave(struct auth_room *r, const struct digest *key);

#endif
