/*
 * redis_listing - one walk through the sorted set of the first key, in its order or backwards.
 *
 * Without a search and with one key the walk is the page itself. With more keys it begins at the first member of the
 * group (equal first keys) that the page begins in, and sorts within groups. With a search it goes through all members
 * to count them, asking for the next piece before it looks at this one. Changes made meanwhile may move members across
 * the edge of a piece: such a row may be missed or come twice, as in any listing that is read page by page.
 *
 * Members: by time and size <id> NUL <folded name> NUL <created> NUL <size>; by name <folded name> NUL <id> NUL …
 */
#include "backends/redis_listing.h"

#include "core/casefold.h"
#include "core/check.h"
#include "core/index_order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE 4096

struct member {
    const char *id, *folded; /* borrowed, NUL-terminated */
    int64_t created_ms;
    uint64_t size;
};

/* The members of a group that may be in the page: their bytes, and where each begins. */
struct group {
    struct bytebuf bytes;
    struct member *members;
    size_t *starts;
    size_t count, cap;
};

struct walk {
    struct redis_conn *conn;
    const struct index_query *q;
    struct bytebuf key, needle;
    uint64_t total; /* members in the set */
    uint64_t start; /* the rank the walk begins at; so many match before it */
    uint64_t matched;
    struct group group;
    uint64_t group_first; /* matched, when the group began */
    struct bytebuf *ids;
    unsigned found;
};

static const char *const key_names[] = {
    [INDEX_BY_CREATED] = "created", [INDEX_BY_NAME] = "name", [INDEX_BY_SIZE] = "size"};

static bool by_name(const struct index_query *q)
{
    return q->order[0].key == INDEX_BY_NAME;
}

static bool has_search(const struct index_query *q)
{
    return q->search && *q->search;
}

/* ---- members ------------------------------------------------------------------------------------------------------
 */

/* bytes: NUL-terminated behind len, as hiredis gives them. */
static bool parse_member(const char *bytes, size_t len, bool name_first, struct member *out)
{
    const char *parts[4] = {bytes}, *end = bytes + len;
    for (int i = 1; i < 4; i++) {
        const char *nul = memchr(parts[i - 1], 0, (size_t)(end - parts[i - 1]));
        if (!nul)
            return false;
        parts[i] = nul + 1;
    }
    out->id = parts[name_first ? 1 : 0];
    out->folded = parts[name_first ? 0 : 1];
    out->created_ms = strtoll(parts[2], NULL, 10);
    out->size = strtoull(parts[3], NULL, 10);
    return true;
}

static bool same_group(const struct member *a, const struct member *b, enum index_key key)
{
    switch (key) {
    case INDEX_BY_NAME:
        return strcmp(a->folded, b->folded) == 0;
    case INDEX_BY_SIZE:
        return a->size == b->size;
    case INDEX_BY_CREATED:
        break;
    }
    return a->created_ms == b->created_ms;
}

/* ---- groups -------------------------------------------------------------------------------------------------------
 */

static enum blob_status group_add(struct group *g, const char *bytes, size_t len, struct blob_error *err)
{
    if (g->count == g->cap) {
        size_t cap = g->cap ? g->cap * 2 : 64;
        struct member *members = realloc(g->members, cap * sizeof *members);
        if (members)
            g->members = members;
        size_t *starts = realloc(g->starts, cap * sizeof *starts);
        if (starts)
            g->starts = starts;
        if (!members || !starts)
            return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
        g->cap = cap;
    }
    g->starts[g->count] = g->bytes.len;
    bytebuf_add(&g->bytes, bytes, len + 1);
    if (g->bytes.failed)
        return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
    g->count++;
    return BLOB_OK;
}

/* The i-th as it was added; borrowed until the next is added. */
static struct member group_member(const struct group *g, size_t i, bool name_first)
{
    struct member m;
    size_t end = i + 1 < g->count ? g->starts[i + 1] : g->bytes.len;
    CHECK(parse_member(g->bytes.data + g->starts[i], end - g->starts[i] - 1, name_first, &m));
    return m;
}

static int compare_members(const void *a, const void *b, void *arg)
{
    const struct member *ma = a, *mb = b;
    struct index_row row_a = {.size = ma->size, .created_ms = ma->created_ms};
    struct index_row row_b = {.size = mb->size, .created_ms = mb->created_ms};
    snprintf(row_a.id, sizeof row_a.id, "%s", ma->id);
    snprintf(row_b.id, sizeof row_b.id, "%s", mb->id);
    const struct index_sort_row sort_a = {&row_a, ma->folded}, sort_b = {&row_b, mb->folded};
    return index_order_compare(&sort_a, &sort_b, arg);
}

static void emit(struct walk *w, const char *id)
{
    bytebuf_add(w->ids, id, strlen(id) + 1);
    w->found++;
}

/* Sorts the finished group and takes what of it is in the page. */
static void group_end(struct walk *w)
{
    struct group *g = &w->group;
    const struct index_query *q = w->q;
    uint64_t first = w->group_first, last = first + g->count;
    if (last > q->skip && w->found < q->top && g->count > 0) {
        for (size_t i = 0; i < g->count; i++)
            g->members[i] = group_member(g, i, by_name(q));
        qsort_r(g->members, g->count, sizeof *g->members, compare_members, (void *)q);
        for (uint64_t at = first > q->skip ? first : q->skip; at < last && w->found < q->top; at++)
            emit(w, g->members[at - first].id);
    }
    bytebuf_clear(&g->bytes);
    g->count = 0;
    w->group_first = w->matched;
}

/* ---- the walk -----------------------------------------------------------------------------------------------------
 */

static bool page_full(const struct walk *w)
{
    return w->found >= w->q->top;
}

static enum blob_status visit(struct walk *w, const char *bytes, size_t len, struct blob_error *err)
{
    const struct index_query *q = w->q;
    struct member m;
    if (!parse_member(bytes, len, by_name(q), &m))
        return blob_fail(err, BLOB_E_CORRUPT, 0, "redis: a member of %s is not this program's", w->key.data);
    if (w->needle.len > 0 && !strstr(m.folded, w->needle.data))
        return BLOB_OK;
    enum blob_status st = BLOB_OK;
    if (page_full(w)) {
        w->matched++;
        return BLOB_OK;
    }
    if (q->orders == 1) {
        if (w->matched >= q->skip)
            emit(w, m.id);
    } else {
        if (w->group.count > 0) {
            struct member first = group_member(&w->group, 0, by_name(q));
            if (!same_group(&first, &m, q->order[0].key))
                group_end(w);
        }
        st = group_add(&w->group, bytes, len, err);
    }
    w->matched++;
    return st;
}

static enum blob_status ask_piece(struct walk *w, uint64_t from, uint64_t len, struct blob_error *err)
{
    struct redis_call call;
    redis_call_begin(&call, w->q->order[0].descending ? "ZREVRANGE" : "ZRANGE");
    redis_call_text(&call, w->key.data);
    redis_call_number(&call, (int64_t)from);
    redis_call_number(&call, (int64_t)(from + len - 1));
    return redis_conn_send(w->conn, &call, err);
}

static enum blob_status visit_piece(struct walk *w, const redisReply *reply, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    if (reply->type != REDIS_REPLY_ARRAY)
        return blob_fail(err, BLOB_E_IO, 0, "redis: an answer that makes no sense");
    for (size_t i = 0; i < reply->elements && st == BLOB_OK; i++)
        st = visit(w, reply->element[i]->str, reply->element[i]->len, err);
    return st;
}

/* How many members the next piece needs: just the page where it can be known. */
static uint64_t piece_len(const struct walk *w)
{
    return w->q->orders == 1 && !has_search(w->q) ? w->q->top : PIECE;
}

static enum blob_status walk_all(struct walk *w, struct blob_error *err)
{
    const bool search = has_search(w->q);
    const uint64_t len = piece_len(w);
    uint64_t next = w->start;
    enum blob_status st = BLOB_OK;
    bool pending = next < w->total;
    if (pending)
        st = ask_piece(w, next, len, err);
    while (st == BLOB_OK && pending) {
        redisReply *reply = NULL;
        st = redis_conn_receive(w->conn, &reply, err);
        if (st != BLOB_OK)
            break;
        next += len;
        /* A search goes on to the end in any case, so the next piece comes while this one is looked at. */
        pending = search && next < w->total;
        if (pending)
            st = ask_piece(w, next, len, err);
        if (st == BLOB_OK)
            st = visit_piece(w, reply, err);
        freeReplyObject(reply);
        if (st == BLOB_OK && !search && next < w->total && !page_full(w)) {
            pending = true;
            st = ask_piece(w, next, len, err);
        }
    }
    if (st != BLOB_OK)
        w->conn->broken = true; /* an answer may still be under way */
    else if (w->q->orders > 1)
        group_end(w);
    return st;
}

/* ---- where it begins ------------------------------------------------------------------------------------------------
 */

static enum blob_status run_integer(struct walk *w, const struct redis_call *call, uint64_t *out,
                                    struct blob_error *err)
{
    redisReply *reply = NULL;
    enum blob_status st = redis_conn_run(w->conn, call, &reply, err);
    if (st != BLOB_OK)
        return st;
    if (reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0)
        *out = (uint64_t)reply->integer;
    else
        st = blob_fail(err, BLOB_E_IO, 0, "redis: an answer that makes no sense");
    freeReplyObject(reply);
    return st;
}

/* How many members stand before the group of m, in the direction of the walk. */
static enum blob_status rank_of_group(struct walk *w, const struct member *m, uint64_t *rank, struct blob_error *err)
{
    struct redis_call call;
    struct bytebuf bound;
    bool down = w->q->order[0].descending;
    bytebuf_init(&bound);
    if (by_name(w->q)) {
        bytebuf_printf(&bound, "(%s", m->folded);
        bytebuf_u8(&bound, down ? 1 : 0); /* members of the group go on with NUL */
        redis_call_begin(&call, "ZLEXCOUNT");
    } else {
        bytebuf_printf(&bound, "(%lld",
                       w->q->order[0].key == INDEX_BY_SIZE ? (long long)m->size : (long long)m->created_ms);
        redis_call_begin(&call, "ZCOUNT");
    }
    const char *least = by_name(w->q) ? "-" : "-inf", *most = by_name(w->q) ? "+" : "+inf";
    redis_call_text(&call, w->key.data);
    if (!down)
        redis_call_text(&call, least);
    redis_call_bytes(&call, bound.data, bound.len);
    if (down)
        redis_call_text(&call, most);
    enum blob_status st = bound.failed ? blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing")
                                       : run_integer(w, &call, rank, err);
    bytebuf_release(&bound);
    return st;
}

static enum blob_status find_start(struct walk *w, struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    if (has_search(w->q))
        return BLOB_OK;
    w->start = w->q->skip < w->total ? w->q->skip : w->total;
    if (w->q->orders == 1 || w->start == w->total)
        return BLOB_OK;
    redis_call_begin(&call, w->q->order[0].descending ? "ZREVRANGE" : "ZRANGE");
    redis_call_text(&call, w->key.data);
    redis_call_number(&call, (int64_t)w->start);
    redis_call_number(&call, (int64_t)w->start);
    enum blob_status st = redis_conn_run(w->conn, &call, &reply, err);
    if (st != BLOB_OK)
        return st;
    struct member m;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1) {
        if (parse_member(reply->element[0]->str, reply->element[0]->len, by_name(w->q), &m))
            st = rank_of_group(w, &m, &w->start, err);
        else
            st = blob_fail(err, BLOB_E_CORRUPT, 0, "redis: a member of %s is not this program's", w->key.data);
    }
    freeReplyObject(reply);
    return st;
}

enum blob_status redis_listing_find(struct redis_conn *conn, const char *base, const struct index_query *q,
                                    struct bytebuf *ids, unsigned *found, uint64_t *count, struct blob_error *err)
{
    struct walk w = {.conn = conn, .q = q, .ids = ids};
    struct redis_call call;
    bytebuf_init(&w.key);
    bytebuf_init(&w.needle);
    bytebuf_init(&w.group.bytes);
    bytebuf_text(&w.key, base);
    if (q->owner)
        bytebuf_printf(&w.key, "owner:%s:", q->owner);
    else
        bytebuf_text(&w.key, "all:");
    bytebuf_text(&w.key, key_names[q->order[0].key]);
    if (has_search(q))
        casefold_add(q->search, &w.needle);
    enum blob_status st = BLOB_OK;
    if (w.key.failed || w.needle.failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
    if (st == BLOB_OK) {
        redis_call_begin(&call, "ZCARD");
        redis_call_text(&call, w.key.data);
        st = run_integer(&w, &call, &w.total, err);
    }
    if (st == BLOB_OK)
        st = find_start(&w, err);
    w.matched = w.group_first = w.start;
    if (st == BLOB_OK)
        st = walk_all(&w, err);
    if (st == BLOB_OK && ids->failed)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
    if (st == BLOB_OK) {
        *found = w.found;
        *count = has_search(q) ? w.matched : w.total;
    }
    free(w.group.members);
    free(w.group.starts);
    bytebuf_release(&w.group.bytes);
    bytebuf_release(&w.needle);
    bytebuf_release(&w.key);
    return st;
}
