/*
 * http_head_check - a state machine over the bytes of a head, and the rules that join its fields.
 *
 * Everything that the machine lets through, evhttp's parser reads the same way: lines end in CRLF, exactly two blanks
 * part the request line, names are tokens up to their colon, no control byte but HTAB stands in a value, no line is
 * folded. A blank line before the request line is refused: evhttp cannot skip it.
 */
#include "server/http/parse/http_head_check.h"

#include "core/text/parse_http.h"

#include <string.h>
#include <strings.h>

#define LENGTH_DIGITS 20

static struct head_fault fault_of(enum http_fault fault, const char *detail)
{
    return (struct head_fault){.detail = detail, .fault = fault};
}

static struct head_fault bad(const char *detail)
{
    return fault_of(HTTP_FAULT_BAD_REQUEST, detail);
}

/* RFC 9110, section 5.6.2. */
static bool is_token_byte(unsigned char c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
        return true;
    return c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* ---- the bytes ------------------------------------------------------------------------------------------------- */

static void scan_fail(struct head_scan *scan, struct head_fault fault)
{
    scan->place = HEAD_FAULTY;
    scan->fault = fault;
}

static void scan_method(struct head_scan *scan, unsigned char c)
{
    if (c == ' ' && scan->field_bytes > 0) {
        scan->place = HEAD_TARGET;
    } else if (!is_token_byte(c)) {
        scan_fail(scan, bad("the request line does not begin with a method"));
    } else {
        if (scan->field_bytes < HEAD_METHOD_MAX)
            scan->method[scan->field_bytes] = (char)c;
        scan->field_bytes++;
    }
}

static void scan_target(struct head_scan *scan, const struct head_limits *limits, unsigned char c)
{
    if (c == ' ' && scan->uri_bytes > 0) {
        scan->place = HEAD_VERSION;
        scan->field_bytes = 0;
    } else if (c <= ' ' || c >= 0x7f || c == '#') {
        scan_fail(scan, bad("a byte that may not stand in a request target"));
    } else if (++scan->uri_bytes > limits->max_uri_bytes) {
        scan_fail(scan, fault_of(HTTP_FAULT_URI_TOO_LONG, "the request target is too long"));
    }
}

/* "HTTP/1." and a digit. 1.2 to 1.9 are to be read as 1.1 (RFC 9110, section 2.5). */
static void scan_version(struct head_scan *scan, unsigned char c)
{
    static const char name[] = "HTTP/1.";
    size_t at = scan->field_bytes++;
    bool fits = at < sizeof name - 1    ? c == (unsigned char)name[at]
                : at == sizeof name - 1 ? c >= '0' && c <= '9'
                                        : c == '\r';
    if (!fits)
        scan_fail(scan, bad("the request line does not end in HTTP/1.1"));
    else if (at == sizeof name - 1)
        scan->version_1_0 = c == '0';
    else if (at == sizeof name)
        scan->place = HEAD_REQUEST_LF;
}

static void scan_line(struct head_scan *scan, unsigned char c)
{
    scan->field_bytes = 1;
    if (c == '\r')
        scan->place = HEAD_LAST_LF;
    else if (is_blank((char)c))
        scan_fail(scan, bad("a folded header line"));
    else if (!is_token_byte(c))
        scan_fail(scan, bad("a header name that is not a token"));
    else if (++scan->lines > HEAD_MAX_LINES)
        scan_fail(scan, fault_of(HTTP_FAULT_HEAD_TOO_LARGE, "too many header lines"));
    else
        scan->place = HEAD_NAME;
}

static void scan_name(struct head_scan *scan, unsigned char c)
{
    if (c == ':')
        scan->place = HEAD_VALUE;
    else if (!is_token_byte(c))
        scan_fail(scan, bad("a header name that is not a token"));
}

static void scan_value(struct head_scan *scan, unsigned char c)
{
    if (c == '\r')
        scan->place = HEAD_VALUE_LF;
    else if ((c < ' ' && c != '\t') || c == 0x7f)
        scan_fail(scan, bad("a control byte in a header value"));
}

static void scan_lf(struct head_scan *scan, unsigned char c)
{
    if (c != '\n')
        scan_fail(scan, bad("a CR without LF"));
    else
        scan->place = scan->place == HEAD_LAST_LF ? HEAD_DONE : HEAD_LINE;
}

static void scan_byte(struct head_scan *scan, const struct head_limits *limits, unsigned char c)
{
    switch (scan->place) {
    case HEAD_METHOD:
        scan_method(scan, c);
        break;
    case HEAD_TARGET:
        scan_target(scan, limits, c);
        break;
    case HEAD_VERSION:
        scan_version(scan, c);
        break;
    case HEAD_LINE:
        scan_line(scan, c);
        break;
    case HEAD_NAME:
        scan_name(scan, c);
        break;
    case HEAD_VALUE:
        scan_value(scan, c);
        break;
    case HEAD_REQUEST_LF:
    case HEAD_VALUE_LF:
    case HEAD_LAST_LF:
        scan_lf(scan, c);
        break;
    case HEAD_DONE:
    case HEAD_FAULTY:
        break;
    }
}

static bool is_name_byte(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-';
}

/* How many of these bytes change nothing but a length: they are most of a head, and need not go through the machine one
 * by one. Where in doubt, fewer. */
static size_t scan_run(const struct head_scan *scan, const struct head_limits *limits, const unsigned char *at,
                       size_t n)
{
    size_t run = 0;
    if (scan->place == HEAD_TARGET) {
        size_t most = limits->max_uri_bytes - scan->uri_bytes;
        n = n < most ? n : most;
        while (run < n && at[run] > ' ' && at[run] < 0x7f && at[run] != '#')
            run++;
    } else if (scan->place == HEAD_NAME) {
        while (run < n && is_name_byte(at[run]))
            run++;
    } else if (scan->place == HEAD_VALUE) {
        while (run < n && at[run] >= ' ' && at[run] != 0x7f)
            run++;
    }
    return run;
}

size_t head_scan_feed(struct head_scan *scan, const struct head_limits *limits, const void *bytes, size_t n)
{
    const unsigned char *at = bytes;
    size_t used = 0;
    while (used < n && scan->place < HEAD_DONE) {
        size_t room = limits->max_head_bytes > scan->bytes ? limits->max_head_bytes - scan->bytes : 0;
        size_t run = scan_run(scan, limits, at + used, n - used < room ? n - used : room);
        scan->bytes += run;
        if (scan->place == HEAD_TARGET)
            scan->uri_bytes += run;
        used += run;
        if (used == n)
            break;
        scan_byte(scan, limits, at[used++]);
        if (++scan->bytes > limits->max_head_bytes && scan->place != HEAD_FAULTY)
            scan_fail(scan, fault_of(HTTP_FAULT_HEAD_TOO_LARGE, "the head is too large"));
    }
    return used;
}

/* ---- the fields ------------------------------------------------------------------------------------------------ */

static void fields_add_connection(struct head_fields *fields, const char *value)
{
    struct field_part list = field_whole(value), option;
    while (field_next(&list, ',', &option)) {
        if (field_is(&option, "close"))
            fields->asks_close = true;
        else if (field_is(&option, "keep-alive"))
            fields->asks_keep_alive = true;
    }
}

static void fields_add_coding(struct head_fields *fields, const char *value)
{
    struct field_part list = field_whole(value), coding;
    while (field_next(&list, ',', &coding)) {
        fields->coding.count++;
        fields->coding.empty = fields->coding.empty || coding.len == 0;
        fields->coding.chunked_amid = fields->coding.chunked_amid || fields->coding.chunked;
        fields->coding.chunked = field_is(&coding, "chunked");
    }
}

static void fields_add_expect(struct head_fields *fields, const char *value)
{
    struct field_part list = field_whole(value), expectation;
    while (field_next(&list, ',', &expectation)) {
        if (field_is(&expectation, "100-continue"))
            fields->expects_continue = true;
        else if (expectation.len > 0)
            fields->expects_other = true;
    }
}

void head_fields_add(struct head_fields *fields, const char *name, const char *value)
{
    if (strcasecmp(name, "Host") == 0) {
        fields->hosts++;
        fields->host = value;
    } else if (strcasecmp(name, "Content-Length") == 0) {
        fields->lengths++;
        fields->length = value;
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        fields->codings++;
        fields_add_coding(fields, value);
    } else if (strcasecmp(name, "Expect") == 0) {
        fields->expects++;
        fields_add_expect(fields, value);
    } else if (strcasecmp(name, "Connection") == 0) {
        fields_add_connection(fields, value);
    }
}

/* uri-host [ ":" port ], as far as bytes go: whatever else it says, blobd does not route by it. */
static bool host_is_sane(const char *host)
{
    for (const unsigned char *at = (const unsigned char *)host; *at; at++) {
        bool alnum = (*at >= '0' && *at <= '9') || (*at >= 'A' && *at <= 'Z') || (*at >= 'a' && *at <= 'z');
        if (!alnum && !strchr("-._~%!$&'()*+,;=:[]", *at))
            return false;
    }
    return true;
}

/* 1*DIGIT below 2^63. Zeros in front are of the grammar, but only somebody who tries parsers out sends more digits than
 * any 64-bit number has: some cut them, some overflow. */
static bool length_parse(const char *text, uint64_t *out)
{
    uint64_t n = 0;
    if (*text == '\0' || strlen(text) > LENGTH_DIGITS)
        return false;
    for (; *text; text++) {
        uint64_t digit = (uint64_t)(unsigned char)*text - '0';
        if (digit > 9 || n > (INT64_MAX - digit) / 10)
            return false;
        n = n * 10 + digit;
    }
    *out = n;
    return true;
}

/* Exactly "chunked", once: what else a list may hold, an empty element too, others may read in another way. Where an
 * unknown coding stands before it the framing is sound, but not ours to undo: 501. */
static struct head_fault coding_judge(const struct head_fields *fields)
{
    if (fields->coding.empty)
        return bad("Transfer-Encoding has an empty element");
    if (fields->coding.chunked_amid)
        return bad("chunked is not the last transfer coding");
    if (!fields->coding.chunked)
        return bad("the last transfer coding is not chunked");
    if (fields->coding.count > 1)
        return fault_of(HTTP_FAULT_NOT_IMPLEMENTED, "a transfer coding other than chunked");
    return bad(NULL);
}

static struct head_fault framing_judge(const struct head_fields *fields, bool version_1_0, struct head_framing *framing)
{
    if (fields->lengths > 1)
        return bad("more than one Content-Length");
    if (fields->codings > 0) {
        if (fields->lengths > 0)
            return bad("both Content-Length and Transfer-Encoding");
        if (version_1_0)
            return bad("Transfer-Encoding in HTTP/1.0");
        framing->kind = HTTP_BODY_CHUNKED;
        return coding_judge(fields);
    }
    if (fields->lengths > 0) {
        if (!length_parse(fields->length, &framing->length))
            return bad("Content-Length is not a number of bytes");
        framing->kind = framing->length > 0 ? HTTP_BODY_LENGTH : HTTP_BODY_NONE;
    }
    return bad(NULL);
}

struct head_fault head_fields_judge(const struct head_fields *fields, bool version_1_0, struct head_framing *framing)
{
    struct head_framing result = {.kind = HTTP_BODY_NONE};
    if (fields->hosts > 1)
        return bad("more than one Host");
    if (fields->hosts == 0 && !version_1_0)
        return bad("no Host");
    if (fields->hosts > 0 && !host_is_sane(fields->host))
        return bad("Host is malformed");
    struct head_fault fault = framing_judge(fields, version_1_0, &result);
    if (fault.detail)
        return fault;
    /* An expectation in HTTP/1.0 is to be ignored (RFC 9110, section 10.1.1). */
    if (fields->expects_other && !version_1_0)
        return fault_of(HTTP_FAULT_EXPECTATION, "an expectation other than 100-continue");
    result.expects_continue = fields->expects_continue && !version_1_0 && result.kind != HTTP_BODY_NONE;
    result.keep_alive = !fields->asks_close && (!version_1_0 || fields->asks_keep_alive);
    *framing = result;
    return bad(NULL);
}

struct head_fault head_target_judge(const char *target, enum http_method method)
{
    if (target[0] == '/' || strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0)
        return bad(NULL);
    if (strcmp(target, "*") == 0 && method == HTTP_OPTIONS)
        return bad(NULL);
    return bad("the request target is not a path");
}
