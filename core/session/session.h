/*
 * session - what is known of one upload on its way, and its encoding for the session store.
 *
 * A session is derived: its first part can be rebuilt from the record uploads/<id>, its progress from the staged bytes.
 * It is kept because it is quick: the SHA-256 mid-state in it makes the next append and the completion independent of
 * the upload's size.
 *
 * Invariants: hash_length(&hash) <= mark.offset (less only after a rebuild, until the staged bytes have been read
 * again); append_from is NO_APPEND or at most mark.offset.
 *
 * Threads: plain values. Units: bytes, milliseconds since the epoch.
 */
#ifndef BLOBD_CORE_SESSION_SESSION_H
#define BLOBD_CORE_SESSION_SESSION_H

#include "core/blob_store.h"
#include "core/session/upload_token.h"
#include "core/session_store.h"

#define NO_APPEND UINT64_MAX

/* DESTROYED: its removal has begun. Whoever had the session before can change it no more. */
enum session_state { SESSION_OPEN, SESSION_COMPLETING, SESSION_COMPLETED, SESSION_DESTROYED };

/*
 * The last append that moved the offset: what a repeat of it must look like. Staged bytes that can be read are compared
 * themselves. Else a repeat is hashed on from where the chunk began, and must end where the upload stands: so nothing
 * has to be hashed twice for a repeat that may never come.
 */
struct session_chunk {
    uint64_t offset;
    uint64_t length;    /* 0: none */
    struct hash before; /* of all that is before it; for use only where its length is offset, and that is not 0 */
};

struct session {
    /* who and what: never changes */
    struct uuid id;
    char owner[OWNER_MAX + 1]; /* "" where unknown: anybody's */
    char filename[FILE_NAME_MAX + 1];
    bool temporary;
    int64_t created_ms;
    uint8_t token_key[UPLOAD_TOKEN_KEY_BYTES];

    /* how far */
    struct upload_mark mark; /* mark.offset is the upload's offset */
    struct hash hash;
    uint32_t appends; /* finished or cut, that moved the offset */
    bool appends_known;
    bool rotating; /* the client has shown a token other than the first */
    bool rehash;   /* changed hands in mid-append on shared storage: hash again before completing */
    struct session_chunk chunk;

    /* the append in flight, if any */
    uint64_t append_from;         /* where it began, or NO_APPEND */
    char node[NODE_ID_CHARS + 1]; /* whose append; on sessions that are not shared, who has stored this */
    int64_t lease_until_ms;
    uint64_t writer_epoch; /* of the last writer: grows with each, also where the session itself was rolled back */

    /* the end */
    enum session_state state;
    struct digest digest;
    uint64_t file_number;
    int64_t completed_ms;
    bool file_gone; /* its file was made, and has been destroyed since: what its record may say, never a session */
    bool tried;     /* open, and an attempt to complete it failed half-way: its record may know more */

    int64_t expires_ms;
    uint64_t epoch;       /* as in the store; 0: not there yet */
    uint64_t tried_epoch; /* of a change that may have been made or not, else 0; not encoded */
    bool recalled;        /* from this node's memory: others may have changed it since; not encoded */
    bool asked;           /* the upload's record was, just now, and knew no more; not encoded */
};

/* A new session for a new upload: key and id made, everything else zero. */
void session_init(struct session *s, int64_t now_ms);

/* Can a repeat of its last chunk be told by hashing? If so, from is what to hash it on from. */
bool session_knows_chunk(const struct session *s, struct hash *from);

void session_encode(const struct session *s, struct bytebuf *out);
/* CORRUPT: not an encoding of ours. epoch is set from the argument. */
enum blob_status session_decode(const void *data, size_t len, uint64_t epoch, struct session *out) BLOB_MUST_CHECK;

/* The progress alone, at most UPLOAD_KEEP_MAX bytes: what a store that keeps state holds beside the staged bytes. */
void session_encode_progress(const struct session *s, struct bytebuf *out);
/* Sets progress from such bytes; CORRUPT, and s untouched, when they are not ours. */
enum blob_status session_decode_progress(const void *data, size_t len, struct session *s) BLOB_MUST_CHECK;

#endif
