/*
 * redis_text - keeps copies of the segments of the search text, and knows when a copy is still right.
 *
 * The text is written at its end only. So a segment that was not the last one when it was fetched changes in one way:
 * its rows are marked dead, and each mark raises its count of dead bytes. One script tells all segments with their
 * counts, the last one's number, and the text's edition. A copy is right as long as its count is the same; the last
 * segment is fetched every time. All copies are dropped when the edition changes: the text was begun anew, or the
 * server was, which may have lost what it had written last and now writes other rows in their place.
 *
 * Segments are not changed once they are made, and counted: a listing keeps those it needs while it looks at them,
 * without the lock.
 *
 * A record of a segment: length of its body (2 bytes, little-endian), 1 or 0 for live or dead, and the body: owner NUL
 * folded name NUL id NUL created NUL size NUL.
 */
#include "backends/redis/redis_text.h"

#include "core/check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_HEAD   3
#define EDITION_CHARS 80

struct segment {
    unsigned refs; /* under the text's lock */
    unsigned long long number, dead;
    redisReply *bytes;
    struct index_sort_row *rows; /* the live ones; their texts are in bytes */
    size_t count, room;
};

struct redis_text {
    char base[96];
    size_t max_bytes;
    pthread_mutex_t lock; /* everything below */
    char edition[EDITION_CHARS];
    struct segment **kept;
    size_t count, room, bytes;
};

/* What a listing has to look at: the segments it holds; where one is NULL, it is to be fetched. */
struct redis_text_view {
    char edition[EDITION_CHARS];
    unsigned long long last;
    size_t count;
    struct view_part {
        unsigned long long number, dead;
        struct segment *segment;
    } * parts;
};

static enum blob_status no_sense(struct blob_error *err)
{
    return blob_fail(err, BLOB_E_IO, 0, "redis: the file index is not this program's");
}

static enum blob_status no_memory(struct blob_error *err)
{
    return blob_fail(err, BLOB_E_NO_MEMORY, 0, "no memory for a listing");
}

/* ---- segments ---- */

static void segment_free(struct segment *segment)
{
    freeReplyObject(segment->bytes);
    free(segment->rows);
    free(segment);
}

static size_t segment_bytes(const struct segment *segment)
{
    return segment->bytes->len + segment->room * sizeof *segment->rows;
}

/* Decimal digits and a NUL, at *at, which moves behind it. */
static bool read_number(const char **at, const char *end, uint64_t *out)
{
    uint64_t v = 0;
    const char *p = *at;
    for (; p < end && *p >= '0' && *p <= '9'; p++)
        v = v * 10 + (uint64_t)(*p - '0');
    if (p == *at || p == end || *p != '\0')
        return false;
    *at = p + 1;
    *out = v;
    return true;
}

static const char *read_text(const char **at, const char *end)
{
    const char *text = *at, *nul = memchr(text, 0, (size_t)(end - text));
    if (!nul)
        return NULL;
    *at = nul + 1;
    return text;
}

static bool parse_row(const char *at, size_t len, struct index_sort_row *row)
{
    const char *end = at + len;
    uint64_t created;
    row->owner = read_text(&at, end);
    row->folded = row->owner ? read_text(&at, end) : NULL;
    row->id = row->folded ? read_text(&at, end) : NULL;
    if (!row->id)
        return false;
    bool negative = at < end && *at == '-';
    at += negative;
    if (!read_number(&at, end, &created) || !read_number(&at, end, &row->size))
        return false;
    row->created_ms = negative ? -(int64_t)created : (int64_t)created;
    return at == end;
}

static bool add_row(struct segment *segment, const struct index_sort_row *row)
{
    if (segment->count == segment->room) {
        size_t room = segment->room ? segment->room + segment->room / 2 : 2048;
        struct index_sort_row *grown = realloc(segment->rows, room * sizeof *grown);
        if (!grown)
            return false;
        segment->rows = grown;
        segment->room = room;
    }
    segment->rows[segment->count++] = *row;
    return true;
}

static enum blob_status parse_segment(struct segment *segment, struct blob_error *err)
{
    if (segment->bytes->type == REDIS_REPLY_NIL) /* it was cleaned up meanwhile */
        return BLOB_OK;
    if (segment->bytes->type != REDIS_REPLY_STRING)
        return no_sense(err);
    const char *at = segment->bytes->str, *end = at + segment->bytes->len;
    while (end - at >= RECORD_HEAD) {
        size_t len = (size_t)(uint8_t)at[0] | (size_t)(uint8_t)at[1] << 8;
        bool live = at[2] == 1;
        struct index_sort_row row;
        at += RECORD_HEAD;
        if ((size_t)(end - at) < len || (live && !parse_row(at, len, &row)))
            return no_sense(err);
        if (live && !add_row(segment, &row))
            return no_memory(err);
        at += len;
    }
    return at == end ? BLOB_OK : no_sense(err);
}

/* Takes bytes, also on failure. */
static enum blob_status segment_new(const struct view_part *part, redisReply *bytes, struct segment **out,
                                    struct blob_error *err)
{
    struct segment *segment = calloc(1, sizeof *segment);
    if (!segment) {
        freeReplyObject(bytes);
        return no_memory(err);
    }
    segment->refs = 1;
    segment->number = part->number;
    segment->dead = part->dead;
    segment->bytes = bytes;
    enum blob_status st = parse_segment(segment, err);
    if (st == BLOB_OK)
        *out = segment;
    else
        segment_free(segment);
    return st;
}

/* ---- what is kept ---- */

enum blob_status redis_text_new(const char *base, size_t max_bytes, struct redis_text **out, struct blob_error *err)
{
    struct redis_text *text = calloc(1, sizeof *text);
    if (!text)
        return no_memory(err);
    CHECK((size_t)snprintf(text->base, sizeof text->base, "%s", base) < sizeof text->base);
    text->max_bytes = max_bytes;
    pthread_mutex_init(&text->lock, NULL);
    *out = text;
    return BLOB_OK;
}

/* With the lock held, as the others here. */
static void unref(struct segment *segment)
{
    if (segment && --segment->refs == 0)
        segment_free(segment);
}

static void drop_at(struct redis_text *text, size_t i)
{
    text->bytes -= segment_bytes(text->kept[i]);
    unref(text->kept[i]);
    text->kept[i] = text->kept[--text->count];
}

static void drop_all(struct redis_text *text)
{
    while (text->count > 0)
        drop_at(text, text->count - 1);
}

void redis_text_free(struct redis_text *text)
{
    drop_all(text);
    free(text->kept);
    pthread_mutex_destroy(&text->lock);
    free(text);
}

static bool keep(struct redis_text *text, struct segment *segment)
{
    size_t bytes = segment_bytes(segment);
    if (text->bytes + bytes > text->max_bytes)
        return false;
    if (text->count == text->room) {
        size_t room = text->room ? text->room * 2 : 64;
        struct segment **grown = realloc(text->kept, room * sizeof(struct segment *));
        if (!grown)
            return false;
        text->kept = grown;
        text->room = room;
    }
    text->kept[text->count++] = segment;
    text->bytes += bytes;
    segment->refs++;
    return true;
}

static bool keep_if_closed(struct redis_text *text, const struct redis_text_view *view, struct segment *segment)
{
    pthread_mutex_lock(&text->lock);
    bool known = segment->number >= view->last || strcmp(text->edition, view->edition) != 0;
    for (size_t i = 0; !known && i < text->count; i++)
        known = text->kept[i]->number == segment->number; /* another listing was quicker */
    bool kept = !known && keep(text, segment);
    pthread_mutex_unlock(&text->lock);
    return kept;
}

static struct view_part *find_part(const struct redis_text_view *view, unsigned long long number)
{
    for (size_t i = 0; i < view->count; i++)
        if (view->parts[i].number == number)
            return &view->parts[i];
    return NULL;
}

/* Gives the view the copies that hold, and drops the others. */
static void take_kept(struct redis_text *text, struct redis_text_view *view)
{
    pthread_mutex_lock(&text->lock);
    if (strcmp(text->edition, view->edition) != 0) {
        drop_all(text);
        memcpy(text->edition, view->edition, sizeof text->edition);
    }
    for (size_t i = text->count; i > 0; i--) {
        struct segment *segment = text->kept[i - 1];
        struct view_part *part = find_part(view, segment->number);
        if (part && part->dead == segment->dead) {
            part->segment = segment;
            segment->refs++;
        } else {
            drop_at(text, i - 1);
        }
    }
    pthread_mutex_unlock(&text->lock);
}

void redis_text_close(struct redis_text *text, struct redis_text_view *view)
{
    if (!view)
        return;
    pthread_mutex_lock(&text->lock);
    for (size_t i = 0; i < view->count; i++)
        unref(view->parts[i].segment);
    pthread_mutex_unlock(&text->lock);
    free(view->parts);
    free(view);
}

size_t redis_text_bytes(struct redis_text *text)
{
    pthread_mutex_lock(&text->lock);
    size_t bytes = text->bytes;
    pthread_mutex_unlock(&text->lock);
    return bytes;
}

/* ---- asking Redis ---- */

/* [edition, last, [number, dead, …]] */
static enum blob_status read_view(const redisReply *reply, struct redis_text_view *view, struct blob_error *err)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 || reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_STRING || reply->element[2]->type != REDIS_REPLY_ARRAY ||
        (size_t)snprintf(view->edition, EDITION_CHARS, "%s", reply->element[0]->str) >= EDITION_CHARS)
        return no_sense(err);
    const redisReply *segments = reply->element[2];
    view->last = strtoull(reply->element[1]->str, NULL, 10);
    view->parts = calloc(segments->elements / 2 + 1, sizeof *view->parts);
    if (!view->parts)
        return no_memory(err);
    for (size_t i = 0; i + 1 < segments->elements; i += 2)
        view->parts[view->count++] = (struct view_part){.number = strtoull(segments->element[i]->str, NULL, 10),
                                                        .dead = strtoull(segments->element[i + 1]->str, NULL, 10)};
    return BLOB_OK;
}

static enum blob_status ask_view(struct redis_text *text, struct redis_conn *conn, struct redis_text_view *view,
                                 struct blob_error *err)
{
    struct redis_call call;
    redisReply *reply = NULL;
    redis_call_begin_script(&call, REDIS_SCRIPT_INDEX_TEXT, 1);
    redis_call_text(&call, text->base);
    enum blob_status st = redis_conn_run(conn, &call, &reply, err);
    if (st == BLOB_OK) {
        st = read_view(reply, view, err);
        freeReplyObject(reply);
    }
    return st;
}

static enum blob_status ask_segment(struct redis_text *text, struct redis_conn *conn, unsigned long long number,
                                    struct blob_error *err)
{
    struct redis_call call;
    char key[128];
    snprintf(key, sizeof key, "%stext:%llu", text->base, number);
    redis_call_begin(&call, "GET");
    redis_call_text(&call, key);
    return redis_conn_send(conn, &call, err);
}

/* Is this one to be fetched? For a page all that are not there; only to be kept, those that do not change any more. */
static bool is_wanted(const struct redis_text_view *view, const struct view_part *part, const struct index_page *page)
{
    return !part->segment && (page || part->number < view->last);
}

/* Asks for the next wanted segment from *next on. */
static enum blob_status ask_next(struct redis_text *text, struct redis_conn *conn, const struct redis_text_view *view,
                                 const struct index_page *page, size_t *next, struct blob_error *err)
{
    while (*next < view->count && !is_wanted(view, &view->parts[*next], page))
        ++*next;
    return *next < view->count ? ask_segment(text, conn, view->parts[(*next)++].number, err) : BLOB_OK;
}

static void offer_lasting(const struct segment *segment, struct index_page *page)
{
    for (size_t i = 0; i < segment->count; i++)
        index_page_offer_lasting(page, &segment->rows[i]);
}

/* A segment that is not kept goes at once: that bounds what a listing of very many files holds. false: it was not. */
static bool take_fetched(struct redis_text *text, struct redis_text_view *view, struct view_part *part,
                         struct segment *segment, struct index_page *page)
{
    bool kept = keep_if_closed(text, view, segment);
    if (kept)
        part->segment = segment;
    if (kept && page)
        offer_lasting(segment, page);
    for (size_t i = 0; !kept && page && i < segment->count; i++)
        index_page_offer(page, &segment->rows[i], NULL, 0);
    if (!kept)
        segment_free(segment);
    return kept;
}

/* Fetches what is missing and offers it to page, or (NULL) only keeps it, while there is room. One segment is on its
 * way while the one before it is looked at. */
static enum blob_status fetch_missing(struct redis_text *text, struct redis_conn *conn, struct redis_text_view *view,
                                      struct index_page *page, struct blob_error *err)
{
    size_t next = 0; /* behind the last one asked for */
    bool more = true;
    enum blob_status st = ask_next(text, conn, view, page, &next, err);
    for (size_t i = 0; st == BLOB_OK && i < next; i++) {
        redisReply *bytes = NULL;
        struct segment *segment = NULL;
        if (!is_wanted(view, &view->parts[i], page))
            continue;
        st = redis_conn_receive(conn, &bytes, err);
        if (st == BLOB_OK && more)
            st = ask_next(text, conn, view, page, &next, err);
        if (st == BLOB_OK)
            st = segment_new(&view->parts[i], bytes, &segment, err);
        else if (bytes)
            freeReplyObject(bytes);
        if (st == BLOB_OK && !take_fetched(text, view, &view->parts[i], segment, page))
            more = page != NULL;
    }
    if (st != BLOB_OK)
        conn->broken = true; /* an answer may still be under way */
    return st;
}

enum blob_status redis_text_scan(struct redis_text *text, struct redis_conn *conn, struct index_page *page,
                                 struct redis_text_view **out, struct blob_error *err)
{
    struct redis_text_view *view = calloc(1, sizeof *view);
    if (!view)
        return no_memory(err);
    enum blob_status st = ask_view(text, conn, view, err);
    if (st == BLOB_OK) {
        take_kept(text, view);
        for (size_t i = 0; i < view->count; i++)
            if (view->parts[i].segment)
                offer_lasting(view->parts[i].segment, page);
        st = fetch_missing(text, conn, view, page, err);
    }
    if (st == BLOB_OK && page->failed)
        st = no_memory(err);
    if (st == BLOB_OK)
        *out = view;
    else
        redis_text_close(text, view);
    return st;
}

enum blob_status redis_text_refresh(struct redis_text *text, struct redis_conn *conn, struct blob_error *err)
{
    struct redis_text_view *view = calloc(1, sizeof *view);
    if (!view)
        return no_memory(err);
    enum blob_status st = ask_view(text, conn, view, err);
    if (st == BLOB_OK) {
        take_kept(text, view);
        st = fetch_missing(text, conn, view, NULL, err);
    }
    redis_text_close(text, view);
    return st;
}
