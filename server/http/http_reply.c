/*
 * http_reply - answers. The head is written here, whole and once, because evhttp's way of it (a header list, a printf a
 * line, the date formatted each time) costs more than the rest of a small answer; evhttp only learns that the answer is
 * out.
 *
 * One pump serves all kinds: put into the output what is left, as far as a bound; write at once what the socket takes
 * (that spares small answers a round through epoll); go on when it takes more. Memory is referred to. A file goes
 * through a buffer of the loop's, read and sent at once: pages by sendfile cost the kernel more, on both sides, than a
 * copy into buffers of its own. What the socket does not take is not kept, but sent with sendfile when it takes more;
 * so a slow reader costs no memory, and the next read asks for no more than went out. Under TLS, http_reply_tls takes
 * the place of all that.
 *
 * The pump may run again further up the stack, from a source that pushes inside its want(): filling guards it.
 */
#include "server/http/http_internal.h"

#include "core/check.h"
#include "core/text/bytebuf.h"
#include "server/http/http_tls.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SMALL_FILE      (32u * 1024) /* copied, to leave with the head in one write */
#define SEND_MIN_BYTES  (64u * 1024) /* of a file, read and sent at once; also what sendfile begins a wake with */
#define STREAM_OUTPUT   (256u * 1024)
#define ROUNDS_PER_WAKE 4
#define HEAD_BYTES      512  /* without the caller's headers */
#define HEADERS_BYTES   1024 /* of the caller's, at first: most answers' */

/* ---- the head -------------------------------------------------------------------------------------------------- */

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {203, "Non-Authoritative Information"},
        {204, "No Content"},
        {206, "Partial Content"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {507, "Insufficient Storage"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return "Unknown"; /* the phrase may be anything (RFC 9112, section 4) */
}

/* RFC 9110, section 5.6.7, made once a second a loop. */
static void loop_make_date(struct http_loop *loop)
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (loop->date_len > 0 && loop->date_at == now.tv_sec)
        return;
    gmtime_r(&now.tv_sec, &tm);
    int n = snprintf(loop->date, sizeof loop->date, "Date: %s, %02d %s %04d %02d:%02d:%02d GMT\r\n", days[tm.tm_wday],
                     tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    loop->date_len = (size_t)n;
    loop->date_at = now.tv_sec;
}

struct text {
    char *at;
};

static void text_add(struct text *text, const char *bytes, size_t len)
{
    memcpy(text->at, bytes, len);
    text->at += len;
}

static void text_add_string(struct text *text, const char *string)
{
    text_add(text, string, strlen(string));
}

static void text_add_number(struct text *text, uint64_t n)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + n % 10);
    } while ((n /= 10) > 0);
    text_add(text, digits + at, sizeof digits - at);
}

static bool status_has_content(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

static bool reply_sends_content(const struct http_request *req)
{
    return req->method != HTTP_HEAD && status_has_content(req->status);
}

/* Writes the head; returns its length. */
static size_t reply_write_head(struct http_request *req, uint64_t length, char *to)
{
    struct text text = {.at = to};
    loop_make_date(req->loop);
    text_add_string(&text, "HTTP/1.1 ");
    text_add_number(&text, (uint64_t)req->status);
    text_add(&text, " ", 1);
    text_add_string(&text, reason_of(req->status));
    text_add(&text, "\r\n", 2);
    text_add(&text, req->loop->date, req->loop->date_len);
    if (req->headers_len > 0)
        text_add(&text, req->headers, req->headers_len);
    if (status_has_content(req->status)) {
        text_add_string(&text, "Content-Length: ");
        text_add_number(&text, length);
        text_add(&text, "\r\n", 2);
    }
    if (req->close)
        text_add_string(&text, "Connection: close\r\n");
    else if (req->version_1_0)
        text_add_string(&text, "Connection: keep-alive\r\n");
    text_add(&text, "\r\n", 2);
    return (size_t)(text.at - to);
}

/* Puts the head into the output, and with it content that is at hand (NULL: none). False without memory. */
static bool reply_put_head(struct http_request *req, uint64_t length, const void *content, size_t content_len)
{
    struct evbuffer *output = http_conn_output(req->conn);
    struct evbuffer_iovec room = {0};
    size_t most = HEAD_BYTES + req->headers_len + content_len, before = evbuffer_get_length(output);
    bool stage = req->is_tls && before == 0 && most <= HTTP_TLS_STAGE;
    if (!stage && evbuffer_reserve_space(output, (ev_ssize_t)most, &room, 1) != 1)
        return false;
    char *to = stage ? (char *)req->loop->stage : room.iov_base;
    size_t head = reply_write_head(req, length, to);
    req->drained = 0;
    req->head_bytes = before + head;
    if (content_len > 0)
        memcpy(to + head, content, content_len);
    room.iov_len = head + content_len;
    if (!stage)
        return evbuffer_commit_space(output, &room, 1) == 0;
    req->loop->staged = head + content_len;
    req->loop->staged_for = req->conn;
    return true;
}

/* Room for so much more of them. */
static char *headers_extend(struct http_request *req, size_t len)
{
    if (req->headers_len + len > req->headers_size) {
        size_t size = req->headers_size ? req->headers_size * 2 : HEADERS_BYTES;
        while (size < req->headers_len + len)
            size *= 2;
        char *grown = realloc(req->headers, size);
        CHECK(grown != NULL); /* a kilobyte: the process is past helping */
        req->headers = grown;
        req->headers_size = size;
    }
    req->headers_len += len;
    return req->headers + req->headers_len - len;
}

/* Lets nothing through that would end the line, or be another's beginning. */
static void header_check(const char *name, const char *value, size_t value_len)
{
    CHECK(name[0] != '\0' && !strpbrk(name, "\r\n: ") && !memchr(value, '\r', value_len) &&
          !memchr(value, '\n', value_len));
}

void http_reply_header(struct http_request *req, const char *name, const char *value)
{
    CHECK(req->reply.kind == REPLY_NONE);
    size_t name_len = strlen(name), value_len = strlen(value);
    header_check(name, value, value_len);
    struct text text = {.at = headers_extend(req, name_len + value_len + 4)};
    text_add(&text, name, name_len);
    text_add(&text, ": ", 2);
    text_add(&text, value, value_len);
    text_add(&text, "\r\n", 2);
}

void http_header_line(struct bytebuf *lines, const char *name, const char *value)
{
    header_check(name, value, strlen(value));
    bytebuf_printf(lines, "%s: %s\r\n", name, value);
}

void http_reply_lines(struct http_request *req, const char *lines, size_t len)
{
    CHECK(req->reply.kind == REPLY_NONE);
    memcpy(headers_extend(req, len), lines, len);
}

void http_reply_close(struct http_request *req)
{
    req->close = true;
}

bool http_reply_is_closing(const struct http_request *req)
{
    return req->close || !req->keep_alive || req->loop->draining || http_body_is_unread(&req->body);
}

/* ---- the pump -------------------------------------------------------------------------------------------------- */

static bool reply_is_whole(const struct http_reply *reply)
{
    return reply->left == 0 && !reply->wanted;
}

/* Puts a little of the file into the output, at most: bufferevent calls back when the socket has taken it. */
static void queue_file(struct http_request *req, size_t most)
{
    struct http_reply *reply = &req->reply;
    size_t n = reply->left < most ? (size_t)reply->left : most;
    struct evbuffer *output = http_conn_output(req->conn);
    if (evbuffer_add_file_segment(output, reply->segment, (ev_off_t)reply->offset, (ev_off_t)n) != 0) {
        reply->segment = NULL; /* it was released on failure */
        http_conn_reset(req->conn);
        return;
    }
    reply->offset += n;
    reply->left -= n;
}

/* One read and one send. What was taken in full doubles the next, what was not is the measure of it. */
static void send_file(struct http_request *req)
{
    struct http_reply *reply = &req->reply;
    size_t max = reply->left < reply->burst ? (size_t)reply->left : reply->burst;
    ssize_t n = http_file_read(req, req->loop->send_buffer, max);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return; /* the next round's, or when it is there */
    if (n <= 0) {
        http_conn_reset(req->conn);
        return;
    }
    ssize_t sent = send(http_conn_fd(req->conn), req->loop->send_buffer, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        http_conn_break(req->conn);
        return;
    }
    size_t taken = sent > 0 ? (size_t)sent : 0;
    http_conn_progress(req->conn, taken);
    reply->offset += taken;
    reply->left -= taken;
    if (taken < (size_t)n) {
        reply->burst = taken > SEND_MIN_BYTES ? taken : SEND_MIN_BYTES;
        size_t read = (size_t)n - taken; /* so much of it is in memory */
        queue_file(req, read < SEND_MIN_BYTES ? read : SEND_MIN_BYTES);
    } else if (reply->burst < HTTP_SEND_BYTES) {
        reply->burst = 2 * reply->burst < HTTP_SEND_BYTES ? 2 * reply->burst : HTTP_SEND_BYTES;
    }
}

static void fill_file(struct http_request *req)
{
    if (evbuffer_get_length(http_conn_output(req->conn)) > 0)
        return; /* the head, or what the socket did not take: first */
    if (!req->loop->send_buffer)
        req->loop->send_buffer = malloc(HTTP_SEND_BYTES);
    if (req->loop->send_buffer)
        send_file(req);
    else
        queue_file(req, SEND_MIN_BYTES);
}

/* Reads the next len bytes of the file into the output, or as many as can be had now; false when it ended before, or on
 * an error. */
static bool copy_file(struct http_request *req, size_t len)
{
    struct http_reply *reply = &req->reply;
    struct evbuffer *output = http_conn_output(req->conn);
    struct evbuffer_iovec room;
    if (evbuffer_reserve_space(output, (ev_ssize_t)len, &room, 1) != 1)
        return false;
    size_t got = 0;
    while (got < len) {
        ssize_t n = http_file_read(req, (char *)room.iov_base + got, len - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        got += (size_t)n;
        reply->offset += (size_t)n;
        reply->left -= (size_t)n;
    }
    room.iov_len = got;
    return (got == len || reply->fetching) && evbuffer_commit_space(output, &room, 1) == 0;
}

/* A small file that was not in memory at first. */
static void fill_copied_file(struct http_request *req)
{
    if (!copy_file(req, (size_t)req->reply.left))
        http_conn_reset(req->conn);
}

static void fill_stream(struct http_request *req)
{
    struct http_reply *reply = &req->reply;
    while (req->conn && reply->left > 0 && !reply->wanted) {
        size_t held = evbuffer_get_length(http_conn_output(req->conn));
        if (held >= STREAM_OUTPUT)
            return;
        size_t max = STREAM_OUTPUT;
        reply->wanted = true;
        reply->source.want(req, reply->left < max ? (size_t)reply->left : max, reply->source.arg);
    }
}

static void reply_fill(struct http_request *req)
{
    if (req->reply.left == 0 || req->reply.fetching)
        return;
    if (req->reply.kind == REPLY_STREAM)
        fill_stream(req);
    else if (req->reply.segment)
        fill_file(req);
    else
        fill_copied_file(req);
}

/* One round: true when another may move it on. */
static bool reply_round(struct http_request *req, bool first)
{
    if (req->is_tls) {
        if (req->reply.kind == REPLY_STREAM)
            fill_stream(req);
        return req->conn && http_reply_tls_round(req, first);
    }
    reply_fill(req);
    if (!req->conn || !http_conn_flush(req->conn))
        return false;
    if (evbuffer_get_length(http_conn_output(req->conn)) > 0)
        return false; /* the loop goes on with it */
    if (!reply_is_whole(&req->reply))
        return !req->reply.wanted && !req->reply.fetching;
    http_conn_answered(req->conn);
    return false;
}

/* The other connections' turn; the loop comes back to what is in the output, or has been fetched. */
static void reply_pause(struct http_request *req)
{
    if (req->is_tls)
        http_conn_arm(req->conn);
    else if (!req->reply.segment)
        reply_fill(req);
    else if (http_file_ready(req, SEND_MIN_BYTES))
        queue_file(req, SEND_MIN_BYTES);
    if (req->conn)
        http_conn_arm(req->conn);
}

void http_reply_pump(struct http_request *req)
{
    if (req->reply.filling)
        return;
    req->reply.filling = true;
    http_request_pin(req);
    int rounds = 0;
    while (reply_round(req, rounds == 0)) {
        if (++rounds < ROUNDS_PER_WAKE)
            continue;
        reply_pause(req);
        break;
    }
    req->reply.filling = false;
    http_request_unpin(req);
}

/* ---- beginning and ending -------------------------------------------------------------------------------------- */

static void reply_begin(struct http_request *req, int status, enum reply_kind kind)
{
    MAGIC_OK(req, HTTP_REQUEST_MAGIC);
    CHECK(req->reply.kind == REPLY_NONE && status >= 200 && status <= 599);
    http_body_stop(req);
    req->close = http_reply_is_closing(req);
    req->status = status;
    req->reply.kind = kind;
    if (req->conn)
        http_conn_begin_rate(req->conn);
}

/* How much of the answer's content is refilled when the socket has taken the rest. */
static void reply_set_refill(struct http_request *req, size_t at)
{
    if (req->reply.left > 0 && !req->is_tls)
        bufferevent_setwatermark(req->conn->bev, EV_WRITE, at, 0);
}

struct reply_release {
    void (*fn)(void *arg);
    void *arg;
};

static struct reply_release *release_new(void (*fn)(void *arg), void *arg)
{
    struct reply_release *release = malloc(sizeof *release);
    CHECK(release != NULL); /* sixteen bytes */
    *release = (struct reply_release){.fn = fn, .arg = arg};
    return release;
}

static void release_run(struct reply_release *release)
{
    if (release->fn)
        release->fn(release->arg);
    free(release);
}

static void released_memory(const void *data, size_t len, void *arg)
{
    (void)data;
    (void)len;
    release_run(arg);
}

static void released_segment(const struct evbuffer_file_segment *segment, int flags, void *arg)
{
    (void)segment;
    (void)flags;
    release_run(arg);
}

void http_reply_release(struct http_request *req)
{
    struct http_reply *reply = &req->reply;
    http_file_forget(reply);
    http_answers_give(req->loop->srv, reply->reserved);
    reply->reserved = 0;
    if (reply->segment)
        evbuffer_file_segment_free(reply->segment); /* its own callback releases, when the output is done with it */
    reply->segment = NULL;
    if (reply->release)
        reply->release(reply->release_arg);
    reply->release = NULL;
    if (reply->kind == REPLY_STREAM)
        reply->source.closed(reply->source.arg);
}

bool http_reply_reserve(struct http_request *req, size_t len)
{
    MAGIC_OK(req, HTTP_REQUEST_MAGIC);
    CHECK(req->reply.kind == REPLY_NONE && req->reply.reserved == 0);
    if (len <= HTTP_ANSWER_FREE)
        return true;
    if (!http_answers_take(req->loop->srv, len))
        return false;
    req->reply.reserved = len;
    return true;
}

/* ---- the kinds of answers -------------------------------------------------------------------------------------- */

void http_reply(struct http_request *req, int status, const void *data, size_t len)
{
    reply_begin(req, status, REPLY_MEMORY);
    if (!req->conn) {
        http_request_finish(req);
        return;
    }
    bool sends = reply_sends_content(req);
    if (reply_put_head(req, len, data, sends ? len : 0))
        http_reply_pump(req);
    else
        http_conn_reset(req->conn);
}

void http_reply_shared(struct http_request *req, int status, const void *data, size_t len, void (*release)(void *arg),
                       void *arg)
{
    if (req->is_tls && len <= HTTP_TLS_RECORD) { /* what is encrypted at once need not be referred to first */
        http_reply(req, status, data, len);
        if (release)
            release(arg);
        return;
    }
    reply_begin(req, status, REPLY_MEMORY);
    struct reply_release *holder = release_new(release, arg);
    if (!req->conn || !reply_sends_content(req) || len == 0) {
        release_run(holder);
        holder = NULL;
    }
    if (!req->conn) {
        http_request_finish(req);
        return;
    }
    bool put = reply_put_head(req, len, NULL, 0);
    if (put && holder) {
        put = evbuffer_add_reference(http_conn_output(req->conn), data, len, released_memory, holder) == 0;
        if (put)
            holder = NULL;
    }
    if (holder)
        release_run(holder);
    if (put)
        http_reply_pump(req);
    else
        http_conn_reset(req->conn);
}

/* The content of a file, by the way that suits its size and the connection. False when there is no memory for it. */
static bool reply_put_file(struct http_request *req, int fd, uint64_t offset, uint64_t length)
{
    struct http_reply *reply = &req->reply;
    reply->fd = fd;
    reply->offset = offset;
    reply->left = length;
    reply->fetched = UINT64_MAX;
    if (req->is_tls)
        return true;
    if (length <= SMALL_FILE)
        return copy_file(req, (size_t)length);
    /* From the file's beginning, so that offsets in it are the file's. */
    reply->segment =
        evbuffer_file_segment_new(fd, 0, (ev_off_t)(offset + length), EVBUF_FS_DISABLE_MMAP | EVBUF_FS_DISABLE_LOCKING);
    if (!reply->segment)
        return false;
    evbuffer_file_segment_add_cleanup_cb(reply->segment, released_segment,
                                         release_new(reply->release, reply->release_arg));
    reply->release = NULL;
    reply->burst = 4 * SEND_MIN_BYTES;
    reply_set_refill(req, 0);
    return true;
}

void http_reply_file(struct http_request *req, int status, int fd, uint64_t offset, uint64_t length,
                     void (*release)(void *arg), void *arg)
{
    reply_begin(req, status, REPLY_FILE);
    req->reply.fetched_fn = http_reply_pump;
    req->reply.release = release;
    req->reply.release_arg = arg;
    if (!req->conn) {
        http_request_finish(req);
        return;
    }
    bool put = reply_put_head(req, length, NULL, 0);
    if (put && reply_sends_content(req) && length > 0)
        put = reply_put_file(req, fd, offset, length);
    if (put)
        http_reply_pump(req);
    else
        http_conn_reset(req->conn);
}

void http_reply_stream(struct http_request *req, int status, uint64_t length, const struct http_source *source)
{
    reply_begin(req, status, REPLY_STREAM);
    req->reply.source = *source;
    if (!req->conn) {
        http_request_finish(req);
        return;
    }
    if (!reply_put_head(req, length, NULL, 0)) {
        http_conn_reset(req->conn);
        return;
    }
    if (reply_sends_content(req))
        req->reply.left = length;
    reply_set_refill(req, STREAM_OUTPUT / 2);
    http_reply_pump(req);
}

/* The answer to a want; false when it was the last thing the request waited for. */
static bool stream_answered(struct http_request *req)
{
    MAGIC_OK(req, HTTP_REQUEST_MAGIC);
    CHECK(req->reply.kind == REPLY_STREAM && req->reply.wanted);
    req->reply.wanted = false;
    if (req->conn)
        return true;
    http_request_finish(req);
    return false;
}

void http_stream_push(struct http_request *req, const void *data, size_t len, void (*release)(void *arg), void *arg)
{
    struct reply_release *holder = release_new(release, arg);
    if (!stream_answered(req)) {
        release_run(holder);
        return;
    }
    CHECK(len > 0 && len <= req->reply.left);
    if (evbuffer_add_reference(http_conn_output(req->conn), data, len, released_memory, holder) != 0) {
        release_run(holder);
        http_conn_reset(req->conn);
        return;
    }
    req->reply.left -= len;
    http_reply_pump(req);
}

/* Empties the output but for what is left of the head. False without memory: the output is as it was. */
static bool output_keep(struct http_conn *conn, size_t head)
{
    struct evbuffer *output = http_conn_output(conn);
    char *kept = head > 0 ? malloc(head) : NULL;
    if (head > 0 && (!kept || evbuffer_copyout(output, kept, head) != (ev_ssize_t)head)) {
        free(kept);
        return false;
    }
    if (!conn->tls)
        evbuffer_unfreeze(output, 1);
    evbuffer_drain(output, evbuffer_get_length(output));
    if (!conn->tls)
        evbuffer_freeze(output, 1);
    bool fine = head == 0 || evbuffer_add(output, kept, head) == 0;
    free(kept);
    CHECK(fine); /* a few hundred bytes, less than was just freed */
    return true;
}

bool http_stream_take_back(struct http_request *req, uint64_t *bytes)
{
    MAGIC_OK(req, HTTP_REQUEST_MAGIC);
    CHECK(req->reply.kind == REPLY_STREAM && !req->reply.filling);
    if (!req->conn)
        return false;
    struct http_conn *conn = req->conn;
    size_t held = evbuffer_get_length(http_conn_output(conn));
    uint64_t drained = req->drained;
    size_t head = drained < req->head_bytes ? (size_t)(req->head_bytes - drained) : 0;
    CHECK(head <= held);
    if (held > head && !output_keep(conn, head))
        return false;
    *bytes = held - head;
    req->drained = drained; /* what was taken back was not sent */
    req->reply.left += *bytes;
    req->reply.wanted = false;
    http_conn_arm(conn);
    return true;
}

void http_stream_abort(struct http_request *req)
{
    if (stream_answered(req))
        http_conn_reset(req->conn);
}
