/*
 * redis_scripts - texts and names. Numbers wider than a double (epochs) stay strings of bytes in Lua and are only
 * compared; what they mean is C's business.
 */
#include "backends/redis/redis_scripts.h"

#include "core/check.h"
#include "core/session_store.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/*
 * KEYS[1] is the index' prefix: every key made from it is in its hash slot.
 *
 * A row in the hash is: <segment> SP <offset> NUL, where its record in the search text is; folded NUL owner NUL created
 * NUL size NUL, from which its places are made; and the bytes of index_row_encode(). redis_text.c describes the text's
 * records. A removed one is marked dead; when half of a segment is, what lives moves to the last one.
 * %Z is "not NUL" in Lua 5.1.
 */
#define SEGMENT_BYTES "262144"

#define INDEX_PLACES                                                                                                   \
    "local base = KEYS[1]\n"                                                                                           \
    "local function last()\n"                                                                                          \
    "  local segment = redis.call('GET', base .. 'text:last')\n"                                                       \
    "  if segment then return segment end\n"                                                                           \
    "  local t = redis.call('TIME')\n"                                                                                 \
    "  redis.call('SET', base .. 'text:born', t[1] .. '.' .. t[2])\n"                                                  \
    "  redis.call('SET', base .. 'text:last', '0')\n"                                                                  \
    "  return '0'\n"                                                                                                   \
    "end\n"                                                                                                            \
    "local function write_text(id, folded, owner, created, size)\n"                                                    \
    "  local body = owner .. '\\0' .. folded .. '\\0' .. id .. '\\0' .. created .. '\\0' .. size .. '\\0'\n"           \
    "  local record, segment = struct.pack('<HB', #body, 1) .. body, last()\n"                                         \
    "  local len = redis.call('APPEND', base .. 'text:' .. segment, record)\n"                                         \
    "  if len == #record then redis.call('HSET', base .. 'text:dead', segment, 0) end\n"                               \
    "  if len >= " SEGMENT_BYTES " then redis.call('INCR', base .. 'text:last') end\n"                                 \
    "  return segment .. ' ' .. string.format('%d', len - #record)\n"                                                  \
    "end\n"                                                                                                            \
    "local function clean(segment)\n"                                                                                  \
    "  local text, at = redis.call('GET', base .. 'text:' .. segment), 1\n"                                            \
    "  redis.call('DEL', base .. 'text:' .. segment)\n"                                                                \
    "  redis.call('HDEL', base .. 'text:dead', segment)\n"                                                             \
    "  while at < #text do\n"                                                                                          \
    "    local len, live = struct.unpack('<HB', text, at)\n"                                                           \
    "    if live == 1 then\n"                                                                                          \
    "      local owner, folded, id, created, size = string.match(string.sub(text, at + 3, at + 2 + len),\n"            \
    "        '^(%Z*)%z(%Z*)%z(%Z*)%z(%Z*)%z(%Z*)%z$')\n"                                                               \
    "      local row = redis.call('HGET', base .. 'rows', id)\n"                                                       \
    "      local place = write_text(id, folded, owner, created, size)\n"                                               \
    "      redis.call('HSET', base .. 'rows', id, place .. string.sub(row, string.find(row, '\\0', 1, true), -1))\n"   \
    "    end\n"                                                                                                        \
    "    at = at + 3 + len\n"                                                                                          \
    "  end\n"                                                                                                          \
    "end\n"                                                                                                            \
    "local function drop(id)\n"                                                                                        \
    "  local row = redis.call('HGET', base .. 'rows', id)\n"                                                           \
    "  if not row then return end\n"                                                                                   \
    "  local segment, offset, folded, owner, created, size =\n"                                                        \
    "    string.match(row, '^(%d+) (%d+)%z(%Z*)%z(%Z*)%z(%-?%d+)%z(%d+)%z')\n"                                         \
    "  redis.call('HDEL', base .. 'rows', id)\n"                                                                       \
    "  redis.call('ZREM', base .. 'expiry', id)\n"                                                                     \
    "  for _, scope in ipairs({'all:', 'owner:' .. owner .. ':'}) do\n"                                                \
    "    redis.call('ZREM', base .. scope .. 'created', id)\n"                                                         \
    "    redis.call('ZREM', base .. scope .. 'size', id)\n"                                                            \
    "    redis.call('ZREM', base .. scope .. 'name', folded .. '\\0' .. id)\n"                                         \
    "  end\n"                                                                                                          \
    "  redis.call('SETRANGE', base .. 'text:' .. segment, offset + 2, '\\0')\n"                                        \
    "  local size_of = 8 + #owner + #folded + #id + #created + #size\n"                                                \
    "  local dead = redis.call('HINCRBY', base .. 'text:dead', segment, size_of)\n"                                    \
    "  if dead > " SEGMENT_BYTES " / 2 and segment ~= last() then clean(segment) end\n"                                \
    "end\n"

/* How long a rebuild may stand still before others forget it. */
#define REBUILD_TTL_MS "3600000"

/* How long a node's heartbeats are remembered. */
#define BEAT_TTL_MS "3600000"

/* session_store.h's, as text. */
#define STEM_CHARS "42"
#define RECENT_MS  "3000"
_Static_assert(INDEX_STEM_CHARS == 42 && INDEX_RECENT_MS == 3000, "the script's own are the same");

static const char *const texts[REDIS_SCRIPT_COUNT] = {
    /* KEYS: session. ARGV: expected epoch (8 bytes), the new value with its epoch before it, SET's expiry option, its
       value. */
    [REDIS_SCRIPT_REPLACE] = "local epoch = redis.call('GETRANGE', KEYS[1], 0, 7)\n"
                             "if epoch == '' then return 0 end\n"
                             "if epoch ~= ARGV[1] then return 1 end\n"
                             "redis.call('SET', KEYS[1], ARGV[2], ARGV[3], ARGV[4])\n"
                             "return 2\n",

    /* KEYS: lease. ARGV: node, TTL in ms. Gives who holds it otherwise. */
    [REDIS_SCRIPT_LEASE] = "local holder = redis.call('GET', KEYS[1])\n"
                           "if holder and holder ~= ARGV[1] then return holder end\n"
                           "redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n"
                           "return ''\n",

    /*
     * KEYS: the hash of nodes. ARGV: node, store id, TTL in ms ("0": the node leaves). Gives Redis' time in ms, and a
     * node that sees another store with that store's id, if there is one; the node is then not entered.
     */
    [REDIS_SCRIPT_JOIN] = "local t = redis.call('TIME')\n"
                          "local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
                          "local nodes = redis.call('HGETALL', KEYS[1])\n"
                          "for i = 1, #nodes, 2 do\n"
                          "  local till, store = string.match(nodes[i + 1], '^(%d+) (.*)$')\n"
                          "  if not till or tonumber(till) <= now then\n"
                          "    redis.call('HDEL', KEYS[1], nodes[i])\n"
                          "  elseif nodes[i] ~= ARGV[1] and store ~= ARGV[2] and ARGV[3] ~= '0' then\n"
                          "    return {string.format('%.0f', now), nodes[i], store}\n"
                          "  end\n"
                          "end\n"
                          "if ARGV[3] == '0' then\n"
                          "  redis.call('HDEL', KEYS[1], ARGV[1])\n"
                          "else\n"
                          "  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now + ARGV[3]) .. ARGV[2])\n"
                          "  redis.call('PEXPIRE', KEYS[1], ARGV[3] * 2)\n"
                          "end\n"
                          "return {string.format('%.0f', now)}\n",

    /* KEYS: base. ARGV: id, row, expires, node. Gives how many changes the node has made. */
    [REDIS_SCRIPT_INDEX_PUT] = INDEX_PLACES
    "local id, row, expires = ARGV[1], ARGV[2], ARGV[3]\n"
    "local changes = redis.call('INCR', base .. 'changes:' .. ARGV[4])\n"
    "redis.call('SET', base .. 'recent:' .. string.sub(id, 1, " STEM_CHARS "), '1', 'PX', " RECENT_MS ")\n"
    "if redis.call('EXISTS', base .. 'rebuild') == 1 then\n"
    "  redis.call('SADD', base .. 'fresh', id)\n"
    "  redis.call('PEXPIRE', base .. 'fresh', " REBUILD_TTL_MS ")\n"
    "  redis.call('PEXPIRE', base .. 'rebuild', " REBUILD_TTL_MS ")\n"
    "end\n"
    "local old = redis.call('HGET', base .. 'rows', id)\n"
    "if old and string.sub(old, string.find(old, '\\0', 1, true) + 1) == row then return changes end\n"
    "if old then drop(id) end\n"
    "local folded, owner, created, size = string.match(row, '^(%Z*)%z(%Z*)%z(%-?%d+)%z(%d+)%z')\n"
    "local place = write_text(id, folded, owner, created, size)\n"
    "redis.call('HSET', base .. 'rows', id, place .. '\\0' .. row)\n"
    "for _, scope in ipairs({'all:', 'owner:' .. owner .. ':'}) do\n"
    "  redis.call('ZADD', base .. scope .. 'created', created, id)\n"
    "  redis.call('ZADD', base .. scope .. 'size', size, id)\n"
    "  redis.call('ZADD', base .. scope .. 'name', 0, folded .. '\\0' .. id)\n"
    "end\n"
    "if expires ~= '0' then redis.call('ZADD', base .. 'expiry', expires, id) end\n"
    "return changes\n",

    /* KEYS: base. ARGV: id, node. Gives how many changes the node has made. */
    [REDIS_SCRIPT_INDEX_REMOVE] = INDEX_PLACES "drop(ARGV[1])\n"
                                               "redis.call('SREM', base .. 'fresh', ARGV[1])\n"
                                               "return redis.call('INCR', base .. 'changes:' .. ARGV[2])\n",

    /* KEYS: base. Gives the edition of the text: the server's run and when the text was begun; its last segment; and of
       each segment number and dead bytes. */
    [REDIS_SCRIPT_INDEX_TEXT] = "local base = KEYS[1]\n"
                                "local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')\n"
                                "return {run .. ' ' .. (redis.call('GET', base .. 'text:born') or ''),\n"
                                "  redis.call('GET', base .. 'text:last') or '0',\n"
                                "  redis.call('HGETALL', base .. 'text:dead')}\n",

    /* KEYS: base. The index is whole for the run of the server that it was ended on: a later run may have lost writes.
       And no node may have rows to make up for. */
    [REDIS_SCRIPT_INDEX_WHOLE] = "local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')\n"
                                 "local built = string.match(redis.call('GET', KEYS[1] .. 'whole') or '', '^%x+')\n"
                                 "return built == run and redis.call('EXISTS', KEYS[1] .. 'owing') == 0 and 1 or 0\n",

    /*
     * KEYS: base. ARGV: node; the count of its last heartbeat that was answered, and the server's time then; the count
     * of this one. A lower count here means that these are data of an earlier time, and so is an index that was built
     * before that heartbeat. (Heartbeats that come late count nothing back.) Then how many changes the node knows to be
     * made, and whether it has seen the server count fewer: the same is true of these, and a heartbeat ago or less
     * tells no time, so that the index counts as old whenever it was built. Gives the server's time in ms.
     */
    [REDIS_SCRIPT_INDEX_BEAT] = "local key, t = KEYS[1] .. 'beat:' .. ARGV[1], redis.call('TIME')\n"
                                "local found = tonumber(redis.call('GET', key) or '0')\n"
                                "if found < tonumber(ARGV[2]) then\n"
                                "  local built = string.match(redis.call('GET', KEYS[1] .. 'whole') or '', ' (%d+)$')\n"
                                "  if not built or tonumber(built) <= tonumber(ARGV[3]) then\n"
                                "    redis.call('DEL', KEYS[1] .. 'whole')\n"
                                "  end\n"
                                "end\n"
                                "local changes = KEYS[1] .. 'changes:' .. ARGV[1]\n"
                                "local made = tonumber(redis.call('GET', changes) or '0')\n"
                                "if made < tonumber(ARGV[5]) or ARGV[6] == '1' then\n"
                                "  redis.call('DEL', KEYS[1] .. 'whole')\n"
                                "end\n"
                                "if made < tonumber(ARGV[5]) then redis.call('SET', changes, ARGV[5]) end\n"
                                "redis.call('PEXPIRE', changes, " BEAT_TTL_MS ")\n"
                                "if found < tonumber(ARGV[4]) then\n"
                                "  redis.call('SET', key, ARGV[4], 'PX', " BEAT_TTL_MS ")\n"
                                "end\n"
                                "return string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))\n",

    /* KEYS: base. ARGV: rebuild, cursor. Drops stale rows of one step; gives the next cursor, or "-" when it is not the
     * present rebuild. */
    [REDIS_SCRIPT_INDEX_SWEEP] =
        INDEX_PLACES "if redis.call('GET', base .. 'rebuild') ~= ARGV[1] then return '-' end\n"
                     "local step = redis.call('HSCAN', base .. 'rows', ARGV[2], 'COUNT', 500)\n"
                     "for i = 1, #step[2], 2 do\n"
                     "  if redis.call('SISMEMBER', base .. 'fresh', step[2][i]) == 0 then drop(step[2][i]) end\n"
                     "end\n"
                     "return step[1]\n",

    /* KEYS: base. ARGV: rebuild. */
    [REDIS_SCRIPT_INDEX_END] = "local base = KEYS[1]\n"
                               "if redis.call('GET', base .. 'rebuild') ~= ARGV[1] then return 0 end\n"
                               "local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')\n"
                               "local t = redis.call('TIME')\n"
                               "local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))\n"
                               "redis.call('SET', base .. 'whole', run .. ' ' .. now)\n"
                               "redis.call('UNLINK', base .. 'rebuild', base .. 'fresh')\n"
                               "return 1\n",
};

const char *redis_script_text(enum redis_script script)
{
    CHECK(script < REDIS_SCRIPT_COUNT);
    return texts[script];
}

void redis_script_sha(enum redis_script script, char out[REDIS_SHA_CHARS + 1])
{
    unsigned char sha[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    const char *text = redis_script_text(script);
    CHECK(EVP_Digest(text, strlen(text), sha, &len, EVP_sha1(), NULL) == 1 && len * 2 == REDIS_SHA_CHARS);
    for (unsigned i = 0; i < len; i++)
        snprintf(out + 2 * i, 3, "%02x", sha[i]);
}
