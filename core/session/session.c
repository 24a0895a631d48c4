/*
 * session - the encoding of sessions. Numbers are little-endian; a text is its length in one byte and its bytes.
 *
 *     bytes  what
 *         1  version, 1
 *        36  the upload's id
 *         1  flags: 1 temporary, 2 tried
 *      text  owner
 *      text  filename
 *         8  created, in ms
 *        32  the key of its tokens
 *   138, 246  progress, below
 *         8  the offset
 *         4  length of the store's state, and the state itself, at most UPLOAD_STATE_MAX
 *      text  the node that writes
 *         8  until when it does, in ms
 *         8  epoch of the last writer
 *         1  state: 0 open, 1 completing, 2 completed, 3 destroyed
 *        48  unless open: digest (32), number of the file (8), completed in ms (8)
 *         8  expires, in ms
 *
 * Progress is a unit of its own, because stores that keep state hold it beside the staged bytes:
 *
 *         1  version, 1
 *         1  flags: 1 the count of appends is known, 2 rotating, 4 hash again, 8 the chunk's digest follows (earlier
 *            versions), 16 the hash before the chunk follows
 *       108  the state of the hash (digest.c)
 *         4  appends
 *         8  where the append in flight began, or all ones
 *        16  offset and length of the last chunk
 *       108  the state of the hash of all that is before it, where the flag says so
 *
 * The epoch is the session store's column and not in the bytes. Expiry is such a column as well, and is repeated here
 * so that a loaded session knows it.
 */
#include "core/session/session.h"

#include <string.h>

#define SESSION_VERSION  1
#define PROGRESS_VERSION 1

enum { FLAG_TEMPORARY = 1, FLAG_TRIED = 2 };
enum { PROGRESS_APPENDS_KNOWN = 1, PROGRESS_ROTATING = 2, PROGRESS_REHASH = 4 };
enum { PROGRESS_CHUNK_HASHED = 8, PROGRESS_CHUNK_BEFORE = 16 };

void session_init(struct session *s, int64_t now_ms)
{
    memset(s, 0, sizeof *s);
    uuid_new(&s->id);
    upload_token_new_key(s->token_key);
    s->created_ms = now_ms;
    hash_init(&s->hash);
    hash_init(&s->chunk.before);
    s->appends_known = true;
    s->append_from = NO_APPEND;
}

static void get_bytes(struct byteview *v, void *out, size_t len)
{
    const void *p = byteview_bytes(v, len);
    if (p)
        memcpy(out, p, len);
}

bool session_knows_chunk(const struct session *s, struct hash *from)
{
    const struct session_chunk *chunk = &s->chunk;
    if (chunk->length == 0 || chunk->offset + chunk->length != s->mark.offset ||
        hash_length(&s->hash) != s->mark.offset)
        return false;
    if (chunk->offset == 0)
        hash_init(from);
    else
        *from = chunk->before;
    return hash_length(from) == chunk->offset;
}

void session_encode_progress(const struct session *s, struct bytebuf *out)
{
    uint8_t state[HASH_STATE_BYTES];
    bool before = hash_length(&s->chunk.before) > 0;
    hash_save(&s->hash, state);
    bytebuf_u8(out, PROGRESS_VERSION);
    bytebuf_u8(out, (uint8_t)((s->appends_known ? PROGRESS_APPENDS_KNOWN : 0) | (s->rotating ? PROGRESS_ROTATING : 0) |
                              (s->rehash ? PROGRESS_REHASH : 0) | (before ? PROGRESS_CHUNK_BEFORE : 0)));
    bytebuf_add(out, state, sizeof state);
    bytebuf_u32(out, s->appends);
    bytebuf_u64(out, s->append_from);
    bytebuf_u64(out, s->chunk.offset);
    bytebuf_u64(out, s->chunk.length);
    if (!before)
        return;
    hash_save(&s->chunk.before, state);
    bytebuf_add(out, state, sizeof state);
}

static void get_hash(struct byteview *v, struct hash *hash)
{
    uint8_t state[HASH_STATE_BYTES] = {0};
    get_bytes(v, state, sizeof state);
    if (!v->failed && hash_restore(hash, state) != BLOB_OK)
        v->failed = true;
}

static void get_progress(struct byteview *v, struct session *s)
{
    if (byteview_u8(v) != PROGRESS_VERSION) {
        v->failed = true;
        return;
    }
    unsigned flags = byteview_u8(v);
    get_hash(v, &s->hash);
    s->appends = byteview_u32(v);
    s->append_from = byteview_u64(v);
    s->chunk.offset = byteview_u64(v);
    s->chunk.length = byteview_u64(v);
    s->appends_known = flags & PROGRESS_APPENDS_KNOWN;
    s->rotating = flags & PROGRESS_ROTATING;
    s->rehash = flags & PROGRESS_REHASH;
    if (flags & PROGRESS_CHUNK_HASHED) /* the chunk's own digest, by versions that had it instead */
        (void)byteview_bytes(v, DIGEST_BYTES);
    hash_init(&s->chunk.before);
    if (flags & PROGRESS_CHUNK_BEFORE)
        get_hash(v, &s->chunk.before);
}

enum blob_status session_decode_progress(const void *data, size_t len, struct session *s)
{
    struct byteview v = {.data = data, .len = len};
    struct session copy = *s;
    get_progress(&v, &copy);
    if (v.failed)
        return BLOB_E_CORRUPT;
    *s = copy;
    return BLOB_OK;
}

void session_encode(const struct session *s, struct bytebuf *out)
{
    bytebuf_u8(out, SESSION_VERSION);
    bytebuf_add(out, s->id.text, UUID_CHARS);
    bytebuf_u8(out, (uint8_t)((s->temporary ? FLAG_TEMPORARY : 0) | (s->tried ? FLAG_TRIED : 0)));
    bytebuf_short_text(out, s->owner);
    bytebuf_short_text(out, s->filename);
    bytebuf_u64(out, (uint64_t)s->created_ms);
    bytebuf_add(out, s->token_key, sizeof s->token_key);
    session_encode_progress(s, out);
    bytebuf_u64(out, s->mark.offset);
    bytebuf_u32(out, s->mark.state_len);
    bytebuf_add(out, s->mark.state, s->mark.state_len);
    bytebuf_short_text(out, s->node);
    bytebuf_u64(out, (uint64_t)s->lease_until_ms);
    bytebuf_u64(out, s->writer_epoch);
    bytebuf_u8(out, (uint8_t)s->state);
    if (s->state != SESSION_OPEN) {
        bytebuf_add(out, s->digest.bytes, DIGEST_BYTES);
        bytebuf_u64(out, s->file_number);
        bytebuf_u64(out, (uint64_t)s->completed_ms);
    }
    bytebuf_u64(out, (uint64_t)s->expires_ms);
}

static void get_mark(struct byteview *v, struct upload_mark *mark)
{
    mark->offset = byteview_u64(v);
    mark->state_len = byteview_u32(v);
    if (mark->state_len > UPLOAD_STATE_MAX) {
        v->failed = true;
        return;
    }
    get_bytes(v, mark->state, mark->state_len);
}

static bool is_consistent(const struct session *s)
{
    return hash_length(&s->hash) <= s->mark.offset && (s->append_from == NO_APPEND || s->append_from <= s->mark.offset);
}

enum blob_status session_decode(const void *data, size_t len, uint64_t epoch, struct session *out)
{
    struct byteview v = {.data = data, .len = len};
    struct session s;
    memset(&s, 0, sizeof s);
    if (byteview_u8(&v) != SESSION_VERSION)
        return BLOB_E_CORRUPT;
    char id[UUID_CHARS + 1] = "";
    get_bytes(&v, id, UUID_CHARS);
    unsigned flags = byteview_u8(&v);
    s.temporary = flags & FLAG_TEMPORARY;
    s.tried = flags & FLAG_TRIED;
    byteview_short_text(&v, s.owner, sizeof s.owner);
    byteview_short_text(&v, s.filename, sizeof s.filename);
    s.created_ms = (int64_t)byteview_u64(&v);
    get_bytes(&v, s.token_key, sizeof s.token_key);
    get_progress(&v, &s);
    get_mark(&v, &s.mark);
    byteview_short_text(&v, s.node, sizeof s.node);
    s.lease_until_ms = (int64_t)byteview_u64(&v);
    s.writer_epoch = byteview_u64(&v);
    unsigned state = byteview_u8(&v);
    if (state > SESSION_DESTROYED)
        return BLOB_E_CORRUPT;
    s.state = (enum session_state)state;
    if (s.state != SESSION_OPEN) {
        get_bytes(&v, s.digest.bytes, DIGEST_BYTES);
        s.file_number = byteview_u64(&v);
        s.completed_ms = (int64_t)byteview_u64(&v);
    }
    s.expires_ms = (int64_t)byteview_u64(&v);
    if (v.failed || v.pos != v.len || uuid_parse(id, &s.id) != BLOB_OK || !is_consistent(&s))
        return BLOB_E_CORRUPT;
    s.epoch = epoch;
    *out = s;
    return BLOB_OK;
}
