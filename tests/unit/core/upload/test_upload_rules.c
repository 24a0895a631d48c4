/* upload - the rules an append is decided by: tokens, repeats, offsets, lengths, cut bodies, roll-backs, completion. */
#include "core/fault.h"
#include "tests/rig/upload_rig.h"

static const char HELLO[] = "hello, world";

/* ---- the plain way ---- */

static void test_create_and_status(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(c.id.text[14], '4');
    struct bytebuf before, after;
    uint64_t epoch[2];
    bytebuf_init(&before);
    bytebuf_init(&after);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "hello"), API_OK);
    CU_ASSERT_EQUAL(session_load(u.base.sessions, &c.id, &before, &epoch[0], NULL), BLOB_OK);
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(client_status(&c), API_OK);
        CU_ASSERT_EQUAL(c.offset, 5);
    }
    CU_ASSERT_EQUAL(session_load(u.base.sessions, &c.id, &after, &epoch[1], NULL), BLOB_OK);
    CU_ASSERT_EQUAL(epoch[0], epoch[1]);
    CU_ASSERT_EQUAL_FATAL(before.len, after.len);
    CU_ASSERT_EQUAL(memcmp(before.data, after.data, before.len), 0);
    bytebuf_release(&before);
    bytebuf_release(&after);
    struct uuid unknown;
    struct upload_view view;
    uuid_new(&unknown);
    CU_ASSERT_EQUAL(upload_status(u.node[0].svc, &unknown, NULL, &view, &c.err), API_UPLOAD_UNKNOWN);
    upload_rig_close(&u);
}

static void test_chunks(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    char previous[UPLOAD_TOKEN_CHARS + 1];
    static const char *const chunks[] = {"hel", "lo, ", "world"};
    uint64_t expect = 0;
    for (int i = 0; i < 3; i++) {
        memcpy(previous, c.token, sizeof previous);
        CU_ASSERT_EQUAL(client_append(&c, NULL, chunks[i]), API_OK);
        expect += strlen(chunks[i]);
        CU_ASSERT_EQUAL(c.offset, expect);
        CU_ASSERT_STRING_NOT_EQUAL(c.token, previous);
    }
    struct digest d = text_digest(HELLO);
    CU_ASSERT_EQUAL_FATAL(client_complete(&c, NULL, &d, NULL), API_OK);
    CU_ASSERT_TRUE(c.result.completed);
    CU_ASSERT_TRUE(c.result.view.completed);
    CU_ASSERT_STRING_EQUAL(c.result.file.name, "greeting.wav");
    CU_ASSERT_STRING_EQUAL(c.result.file.media_type, "audio/wav");
    CU_ASSERT_EQUAL(c.result.file.size, strlen(HELLO));
    CU_ASSERT_EQUAL(c.result.file.expires_ms, 0);
    CU_ASSERT_TRUE(rig_serves(&u, HELLO, strlen(HELLO)));
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    upload_rig_close(&u);
}

static void test_first_token_only(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    struct digest d = text_digest("aaab");
    for (int i = 0; i < 3; i++)
        CU_ASSERT_EQUAL(client_append(&c, c.first, "a"), API_OK);
    CU_ASSERT_EQUAL(c.offset, 3);
    CU_ASSERT_EQUAL(client_complete(&c, c.first, &d, "b"), API_OK);
    CU_ASSERT_TRUE(rig_serves(&u, "aaab", 4));
    upload_rig_close(&u);
}

static void test_temporary(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_create(&u, "", true, NULL);
    struct digest d = text_digest("x");
    CU_ASSERT_EQUAL_FATAL(client_complete(&c, NULL, &d, "x"), API_OK);
    CU_ASSERT_TRUE(c.result.file.temporary);
    CU_ASSERT_EQUAL(c.result.file.expires_ms, c.result.file.created_ms + u.opt.temp_file_retention_ms);
    struct file_record file;
    CU_ASSERT_EQUAL(file_catalog_get(u.base.catalog, c.result.file.id, NULL, &file, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(file.expires_ms, c.result.file.expires_ms);
    upload_rig_close(&u);
}

/* ---- tokens ---- */

static void test_bad_tokens(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u), other = client_new(&u);
    CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.no_token = true, .data = "x", .len = 1}), API_VALIDATE_FAILED);
    CU_ASSERT_EQUAL(client_append(&c, "not a token", "x"), API_UPLOAD_TOKEN_INVALID);
    CU_ASSERT_EQUAL(client_append(&c, "", "x"), API_UPLOAD_TOKEN_INVALID);
    CU_ASSERT_EQUAL(client_append(&c, other.token, "x"), API_UPLOAD_TOKEN_INVALID);
    struct digest d = text_digest("");
    CU_ASSERT_EQUAL(client_complete(&c, other.token, &d, NULL), API_UPLOAD_TOKEN_INVALID);
    CU_ASSERT_EQUAL(client_peek(&c), 0);
    upload_rig_close(&u);
}

/* Once with staged bytes to compare with, once with the chunk's hash alone. */
static void repeats(bool readable)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    if (!readable)
        u.base.store->caps &= ~STORE_READ_STAGED;
    struct client c = client_new(&u);
    char t0[UPLOAD_TOKEN_CHARS + 1], t1[UPLOAD_TOKEN_CHARS + 1];
    CU_ASSERT_EQUAL(client_append(&c, c.first, "one "), API_OK);
    memcpy(t0, c.token, sizeof t0);
    CU_ASSERT_EQUAL(client_append(&c, t0, "two "), API_OK);
    memcpy(t1, c.token, sizeof t1);
    /* The answer was lost: the same again, as often as it takes. */
    for (int i = 0; i < 3; i++) {
        CU_ASSERT_EQUAL(client_append(&c, t0, "two "), API_OK);
        CU_ASSERT_EQUAL(c.offset, 8);
        CU_ASSERT_STRING_EQUAL(c.token, t1);
    }
    CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.token = t0, .data = "two ", .len = 4, .length_unknown = true}),
                    API_OK);
    CU_ASSERT_EQUAL(client_append(&c, t0, "tWo "), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(c.offset, 8);
    CU_ASSERT_EQUAL(client_append(&c, t0, "two"), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(client_append(&c, t0, "two two"), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(
        client_ask(&c, &(struct ask){.token = t0, .data = "two, longer", .len = 11, .length_unknown = true}),
        API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_TRUE(c.result.has_view);
    /* One that is older still, the very first included. */
    CU_ASSERT_EQUAL(client_append(&c, t1, "three"), API_OK);
    CU_ASSERT_EQUAL(client_append(&c, t0, "two "), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(client_append(&c, c.first, "one "), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(client_peek(&c), 13);
    /* A repeat that is cut is no repeat yet, and harms nothing. */
    CU_ASSERT_NOT_EQUAL(
        client_ask(&c, &(struct ask){.token = t1, .data = "three", .len = 5, .cut = true, .arrives = 2}), API_OK);
    CU_ASSERT_EQUAL(client_peek(&c), 13);
    struct digest d = text_digest("one two three");
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, NULL), API_OK);
    upload_rig_close(&u);
}

static void test_repeats(void)
{
    repeats(true);
}

static void test_repeats_without_staged_bytes(void)
{
    repeats(false);
}

/* How a client sent it does not matter: with an offset, with its first token, in pieces of which some were flushed
 * before it was cut off; nor what became of the session. */
static void repeats_however(bool readable, int lost, bool chunked)
{
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    opt.checkpoint_bytes = 4;
    upload_rig_open(&u, &opt, 1);
    if (!readable)
        u.base.store->caps &= ~STORE_READ_STAGED;
    struct client c = client_new(&u);
    char t[UPLOAD_TOKEN_CHARS + 1], latest[UPLOAD_TOKEN_CHARS + 1];
    static const char *const chunk[] = {"first, by its first token", ", by offset", ", and the last"};
    uint64_t at = 0;
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    for (int i = 0; i < 3; i++) {
        size_t len = strlen(chunk[i]);
        struct ask ask = {.data = chunk[i], .len = len, .length_unknown = chunked};
        memcpy(t, c.token, sizeof t);
        ask.token = i == 0 ? c.first : t;
        ask.has_offset = i == 1;
        ask.offset = at;
        CU_ASSERT_EQUAL_FATAL(client_ask(&c, &ask), API_OK);
        memcpy(latest, c.token, sizeof latest);
        at += len;
        if (lost)
            CU_ASSERT_EQUAL(session_remove(u.base.sessions, &c.id, NULL), BLOB_OK);
        ask.has_offset = false;
        ask.token = t;
        CU_ASSERT_EQUAL(client_ask(&c, &ask), API_OK);
        CU_ASSERT_EQUAL(c.offset, at);
        CU_ASSERT_EQUAL(client_append(&c, t, "something else"), API_UPLOAD_OFFSET_MISMATCH);
        char *other = strdup(chunk[i]);
        other[len / 2] ^= 1;
        ask.data = other;
        CU_ASSERT_EQUAL(client_ask(&c, &ask), API_UPLOAD_OFFSET_MISMATCH);
        free(other);
        CU_ASSERT_EQUAL(client_peek(&c), at);
        CU_ASSERT_STRING_EQUAL(c.token, latest);
    }
    /* A body that was cut: what was kept of it is the last chunk. */
    memcpy(t, c.token, sizeof t);
    struct ask cut = {
        .token = t, .has_offset = true, .offset = at, .data = "and on", .len = 6, .cut = true, .arrives = 3};
    CU_ASSERT_NOT_EQUAL(client_ask(&c, &cut), API_OK);
    if (lost)
        CU_ASSERT_EQUAL(session_remove(u.base.sessions, &c.id, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(client_append(&c, t, "and on"), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(client_append(&c, t, "and"), API_OK);
    CU_ASSERT_EQUAL(client_append(&c, NULL, " on"), API_OK);
    static const char all[] = "first, by its first token, by offset, and the lastand on";
    struct digest d = text_digest(all);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, NULL), API_OK);
    upload_rig_close(&u);
}

static void test_repeats_however_it_was_sent(void)
{
    for (int way = 0; way < 8; way++)
        repeats_however(way & 1, way & 2, way & 4);
}

/* The first append that shows a later token may be the repeat itself. */
static void test_repeat_of_a_first_tokens_chunk(void)
{
    for (int readable = 0; readable < 2; readable++) {
        struct upload_rig u;
        upload_rig_open(&u, NULL, 1);
        if (!readable)
            u.base.store->caps &= ~STORE_READ_STAGED;
        struct client c = client_new(&u);
        char t1[UPLOAD_TOKEN_CHARS + 1];
        CU_ASSERT_EQUAL(client_append(&c, c.first, "one"), API_OK);
        memcpy(t1, c.token, sizeof t1);
        CU_ASSERT_EQUAL(client_append(&c, c.first, "two"), API_OK);
        CU_ASSERT_EQUAL(client_append(&c, t1, "two"), API_OK);
        CU_ASSERT_EQUAL(client_peek(&c), 6);
        upload_rig_close(&u);
    }
}

/* Showing a status's token, before any answer of an append was seen, makes a client a rotating one, too. */
static void test_status_token_rotates(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    char t[UPLOAD_TOKEN_CHARS + 1];
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    memcpy(t, c.token, sizeof t);
    CU_ASSERT_EQUAL(client_append(&c, t, "one"), API_OK);
    CU_ASSERT_EQUAL(client_append(&c, t, "one"), API_OK);
    CU_ASSERT_EQUAL(c.offset, 3);
    CU_ASSERT_EQUAL(client_append(&c, c.first, "two"), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(client_append(&c, c.first, "one"), API_OK);
    CU_ASSERT_EQUAL(c.offset, 3);
    upload_rig_close(&u);
}

/* The first later token may come with a request that is refused, or with a repeat: it marks the client all the same. */
static void test_rotation_is_remembered(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    for (int by_repeat = 0; by_repeat < 2; by_repeat++) {
        struct client c = client_new(&u);
        char t1[UPLOAD_TOKEN_CHARS + 1];
        CU_ASSERT_EQUAL(client_append(&c, c.first, "one"), API_OK);
        memcpy(t1, c.token, sizeof t1);
        CU_ASSERT_EQUAL(client_append(&c, c.first, "two"), API_OK);
        if (by_repeat) {
            CU_ASSERT_EQUAL(client_append(&c, t1, "two"), API_OK);
        } else {
            CU_ASSERT_EQUAL(client_append(&c, t1, "other"), API_UPLOAD_OFFSET_MISMATCH);
        }
        CU_ASSERT_EQUAL(client_append(&c, c.first, "three"), API_UPLOAD_OFFSET_MISMATCH);
        CU_ASSERT_EQUAL(client_peek(&c), 6);
    }
    upload_rig_close(&u);
}

/* A status while an append was in flight told where it stood; its token continues there. */
static void test_token_of_a_status_in_mid_append(void)
{
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    struct upload_append *a;
    opt.checkpoint_bytes = 4;
    upload_rig_open(&u, &opt, 1);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&c, c.first, "one "), API_OK);
    CU_ASSERT_EQUAL_FATAL(client_begin(&c, &(struct ask){.data = "two three", .len = 9}, &a), API_OK);
    CU_ASSERT_EQUAL(upload_append_write_bytes(a, "two ", 4, &c.err), API_OK);
    for (int i = 0; i < 1000 && client_peek(&c) < 8; i++)
        usleep(1000);
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    CU_ASSERT_EQUAL_FATAL(c.offset, 8);
    CU_ASSERT_EQUAL(upload_append_write_bytes(a, "t", 1, &c.err), API_OK); /* told to nobody: it goes */
    /* The link died; the client goes on with what it was told. */
    struct client on = c;
    CU_ASSERT_EQUAL(client_append(&on, NULL, "three"), API_OK);
    CU_ASSERT_EQUAL(on.offset, 13);
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_CUT, &c.result, &c.err), API_UPLOAD_SUPERSEDED);
    struct digest d = text_digest("one two three");
    CU_ASSERT_EQUAL(client_complete(&on, NULL, &d, NULL), API_OK);
    upload_rig_close(&u);
}

/* ---- explicit offsets and lengths ---- */

static void test_offsets(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.has_offset = true, .offset = 0, .data = "hello", .len = 5}), API_OK);
    static const uint64_t wrong[] = {0, 4, 6, UINT64_MAX};
    for (int i = 0; i < 4; i++) {
        CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.has_offset = true, .offset = wrong[i], .data = "x", .len = 1}),
                        API_UPLOAD_OFFSET_MISMATCH);
        CU_ASSERT_TRUE(c.result.has_view);
        CU_ASSERT_EQUAL(c.result.view.offset, 5);
    }
    /* With an offset a token only authorises: the first one of a rotating client does. */
    CU_ASSERT_EQUAL(
        client_ask(&c, &(struct ask){.token = c.first, .has_offset = true, .offset = 5, .data = ", ", .len = 2}),
        API_OK);
    struct digest d = text_digest(HELLO);
    struct ask complete = {.completes = true, .digest = &d, .has_offset = true, .offset = 6, .data = "world", .len = 5};
    CU_ASSERT_EQUAL(client_ask(&c, &complete), API_UPLOAD_OFFSET_MISMATCH);
    complete.offset = 7;
    complete.token = c.first;
    CU_ASSERT_EQUAL(client_ask(&c, &complete), API_OK);
    upload_rig_close(&u);
}

static void test_lengths(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "hello"), API_OK);
    struct ask ask = {.has_offset = true, .offset = 5, .has_length = true, .length = 4, .data = ", wo", .len = 3};
    enum api_code refused = client_ask(&c, &ask);
    CU_ASSERT_TRUE(refused == API_VALIDATE_FAILED || refused == API_BAD_REQUEST);
    CU_ASSERT_EQUAL(client_peek(&c), 5);
    ask.length_unknown = true;
    for (size_t len = 3; len <= 5; len += 2) { /* one too short, one too long */
        ask.data = ", wor";
        ask.len = len;
        refused = client_ask(&c, &ask);
        CU_ASSERT_TRUE(refused == API_VALIDATE_FAILED || refused == API_BAD_REQUEST);
        CU_ASSERT_EQUAL(client_peek(&c), 5);
    }
    /* A link that dies is no lie about the length: what came is kept. */
    ask.data = ", wo";
    ask.len = 4;
    ask.cut = true;
    ask.arrives = 2;
    CU_ASSERT_NOT_EQUAL(client_ask(&c, &ask), API_OK);
    CU_ASSERT_EQUAL(client_peek(&c), 7);
    struct digest d = text_digest(HELLO);
    struct ask complete = {.completes = true,
                           .digest = &d,
                           .has_offset = true,
                           .offset = 7,
                           .has_length = true,
                           .length = 6,
                           .data = "world",
                           .len = 5,
                           .length_unknown = true};
    refused = client_ask(&c, &complete);
    CU_ASSERT_TRUE(refused == API_VALIDATE_FAILED || refused == API_BAD_REQUEST);
    CU_ASSERT_EQUAL(client_peek(&c), 7);
    complete.length = 5;
    CU_ASSERT_EQUAL(client_ask(&c, &complete), API_OK);
    CU_ASSERT_TRUE(rig_serves(&u, HELLO, strlen(HELLO)));
    upload_rig_close(&u);
}

static void test_cut(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    struct digest d = text_digest(HELLO);
    CU_ASSERT_NOT_EQUAL(client_ask(&c, &(struct ask){.data = "hello", .len = 5, .cut = true, .arrives = 3}), API_OK);
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    CU_ASSERT_EQUAL(c.offset, 3);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "lo, "), API_OK);
    struct ask complete = {.completes = true, .digest = &d, .data = "world", .len = 5, .cut = true, .arrives = 2};
    CU_ASSERT_NOT_EQUAL(client_ask(&c, &complete), API_OK);
    CU_ASSERT_FALSE(c.result.completed);
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    CU_ASSERT_EQUAL(c.offset, 9);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, "rld"), API_OK);
    CU_ASSERT_TRUE(rig_serves(&u, HELLO, strlen(HELLO)));
    upload_rig_close(&u);
}

static void test_max_size(void)
{
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    opt.max_size = 10;
    upload_rig_open(&u, &opt, 1);
    struct client c = client_new(&u);
    struct upload_append *a = NULL;
    CU_ASSERT_EQUAL(client_begin(&c, &(struct ask){.data = "hello, world", .len = 12}, &a), API_SIZE_LIMIT_EXCEEDED);
    CU_ASSERT_PTR_NULL(a);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "hello, "), API_OK);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "world"), API_SIZE_LIMIT_EXCEEDED);
    CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.data = "world", .len = 5, .length_unknown = true}),
                    API_SIZE_LIMIT_EXCEEDED);
    CU_ASSERT_EQUAL(client_peek(&c), 7);
    struct digest d = text_digest("hello, all");
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, "all"), API_OK);
    upload_rig_close(&u);
}

/* ---- completing ---- */

static void test_wrong_digest(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    struct digest right = text_digest(HELLO), wrong = text_digest("hello, there");
    char hex[DIGEST_HEX_CHARS + 1];
    CU_ASSERT_EQUAL(client_append(&c, NULL, "hello, "), API_OK);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &wrong, "world"), API_DIGEST_INVALID);
    digest_hex(&wrong, hex);
    CU_ASSERT_STRING_EQUAL(c.err.expected, hex);
    digest_hex(&right, hex);
    CU_ASSERT_STRING_EQUAL(c.err.actual, hex);
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    CU_ASSERT_EQUAL(c.offset, 7);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &wrong, NULL), API_DIGEST_INVALID);
    CU_ASSERT_EQUAL(client_peek(&c), 7);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "wo"), API_OK);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &right, "rld"), API_OK);
    CU_ASSERT_TRUE(rig_serves(&u, HELLO, strlen(HELLO)));
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    upload_rig_close(&u);
}

static void test_empty_upload(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u), e = client_new(&u);
    struct digest d = text_digest("");
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, NULL), API_OK);
    CU_ASSERT_EQUAL(c.result.file.size, 0);
    CU_ASSERT_TRUE(rig_serves(&u, "", 0));
    /* An append without bytes changes nothing. */
    CU_ASSERT_EQUAL(client_append(&e, NULL, ""), API_OK);
    CU_ASSERT_EQUAL(e.offset, 0);
    CU_ASSERT_EQUAL(client_complete(&e, NULL, &d, NULL), API_OK);
    CU_ASSERT_STRING_NOT_EQUAL(c.result.file.id, e.result.file.id);
    upload_rig_close(&u);
}

/* With a body it is 416; without one, which adds nothing, any token of the upload will do. */
static void rotating_complete(int nodes, bool by_first, bool chunks)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, nodes);
    struct client c = client_new(&u);
    char t1[UPLOAD_TOKEN_CHARS + 1];
    struct digest d = text_digest("onetwo"), twice = text_digest("onetwotwo");
    CU_ASSERT_EQUAL(client_append(&c, NULL, "one"), API_OK);
    memcpy(t1, c.token, sizeof t1);
    CU_ASSERT_EQUAL(client_append(&c, t1, "two"), API_OK);
    CU_ASSERT_EQUAL(client_complete(&c, t1, &twice, "two"), API_UPLOAD_OFFSET_MISMATCH);
    CU_ASSERT_EQUAL(client_complete(&c, c.first, &twice, "two"), API_UPLOAD_OFFSET_MISMATCH);
    struct ask chunked = {
        .completes = true, .digest = &twice, .token = t1, .length_unknown = true, .data = "two", .len = 3};
    CU_ASSERT_EQUAL(client_ask(&c, &chunked), API_UPLOAD_OFFSET_MISMATCH);
    /* Where nothing comes, it is its digest that is wrong. */
    chunked.len = 0;
    CU_ASSERT_EQUAL(client_ask(&c, &chunked), API_DIGEST_INVALID);
    /* An offset decides, also where nothing is brought; and another upload's token never will do. */
    struct ask at = {.completes = true, .digest = &d, .token = t1, .has_offset = true, .offset = 3};
    CU_ASSERT_EQUAL(client_ask(&c, &at), API_UPLOAD_OFFSET_MISMATCH);
    struct client other = client_new(&u);
    CU_ASSERT_EQUAL(client_complete(&c, other.first, &d, NULL), API_UPLOAD_TOKEN_INVALID);
    CU_ASSERT_EQUAL(client_peek(&c), 6);
    c.node = nodes - 1;
    struct ask bare = {.completes = true, .token = by_first ? c.first : t1, .length_unknown = chunks};
    CU_ASSERT_EQUAL(client_ask(&c, &bare), API_OK);
    CU_ASSERT_TRUE(rig_serves(&u, "onetwo", 6));
    at.offset = 6;
    CU_ASSERT_EQUAL(client_ask(&c, &at), API_OK);
    upload_rig_close(&u);
}

static void test_rotating_complete_with_an_old_token(void)
{
    for (int nodes = 1; nodes <= 2; nodes++) {
        for (int chunks = 0; chunks < 2; chunks++) {
            rotating_complete(nodes, true, chunks);
            rotating_complete(nodes, false, chunks);
        }
    }
}

/* What is not to be decided yet changes nothing, whoever comes in between; what can be, is. */
static void test_complete_that_waits(void)
{
    struct upload_rig u;
    struct upload_append *a = NULL;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    char t1[UPLOAD_TOKEN_CHARS + 1];
    CU_ASSERT_EQUAL(client_append(&c, NULL, "one"), API_OK);
    memcpy(t1, c.token, sizeof t1);
    CU_ASSERT_EQUAL(client_append(&c, t1, "two"), API_OK);
    struct ask ask = {.completes = true, .token = t1, .length_unknown = true};
    CU_ASSERT_EQUAL(client_begin(&c, &ask, &a), API_OK);
    CU_ASSERT_TRUE(c.result.waits && a == NULL && !c.result.has_view);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "three"), API_OK);
    struct client other = client_new(&u);
    struct ask wrong = ask;
    wrong.token = other.token;
    CU_ASSERT_EQUAL(client_begin(&c, &wrong, &a), API_UPLOAD_TOKEN_INVALID);
    wrong = ask;
    wrong.has_offset = true;
    wrong.offset = 6;
    CU_ASSERT_EQUAL(client_begin(&c, &wrong, &a), API_UPLOAD_OFFSET_MISMATCH);
    ask.empty = true;
    CU_ASSERT_EQUAL(client_ask(&c, &ask), API_OK);
    CU_ASSERT_TRUE(rig_serves(&u, "onetwothree", 11));
    upload_rig_close(&u);
}

/* What a completed upload answers, whatever is left of its session. */
static void check_completed(struct upload_rig *u, struct client *c, const char *id, const struct digest *d)
{
    struct digest other = text_digest("other");
    char stale[UPLOAD_TOKEN_CHARS + 1];
    (void)u;
    memcpy(stale, c->first, sizeof stale);
    CU_ASSERT_EQUAL(client_status(c), API_OK);
    CU_ASSERT_EQUAL(c->offset, strlen(HELLO));
    CU_ASSERT_EQUAL(client_complete(c, stale, d, NULL), API_OK);
    CU_ASSERT_TRUE(c->result.completed);
    CU_ASSERT_STRING_EQUAL(c->result.file.id, id);
    CU_ASSERT_EQUAL(c->result.file.size, strlen(HELLO));
    CU_ASSERT_STRING_EQUAL(c->result.file.name, "greeting.wav");
    CU_ASSERT_EQUAL(client_complete(c, NULL, d, "world"), API_OK); /* with its body, as the lost one was */
    CU_ASSERT_STRING_EQUAL(c->result.file.id, id);
    CU_ASSERT_EQUAL(client_complete(c, NULL, &other, NULL), API_DIGEST_INVALID);
    CU_ASSERT_EQUAL(client_append(c, NULL, "more"), API_UPLOAD_COMPLETED);
    CU_ASSERT_EQUAL(upload_destroy(c->u->node[c->node].svc, &c->id, NULL, &c->err), API_UPLOAD_COMPLETED);
    struct upload_view view;
    CU_ASSERT_EQUAL(upload_status(c->u->node[c->node].svc, &c->id, NULL, &view, &c->err), API_OK);
    CU_ASSERT_TRUE(view.completed);
}

static void test_completed(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    struct digest d = text_digest(HELLO);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "hello, "), API_OK);
    CU_ASSERT_EQUAL_FATAL(client_complete(&c, NULL, &d, "world"), API_OK);
    char id[FILE_ID_MAX];
    memcpy(id, c.result.file.id, sizeof id);
    check_completed(&u, &c, id, &d);
    CU_ASSERT_EQUAL(session_remove(u.base.sessions, &c.id, NULL), BLOB_OK);
    check_completed(&u, &c, id, &d);
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 1);
    upload_rig_close(&u);
}

static void test_completed_is_forgotten(void)
{
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    opt.completed_retention_ms = 150;
    upload_rig_open(&u, &opt, 1);
    struct client c = client_new(&u);
    struct digest d = text_digest(HELLO);
    CU_ASSERT_EQUAL_FATAL(client_complete(&c, NULL, &d, HELLO), API_OK);
    CU_ASSERT_EQUAL(client_status(&c), API_OK);
    usleep(200000);
    CU_ASSERT_EQUAL(client_status(&c), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(client_complete(&c, NULL, &d, NULL), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(upload_service_expire(u.node[0].svc, clock_wall_ms(), NULL, NULL), BLOB_OK);
    CU_ASSERT_TRUE(rig_serves(&u, HELLO, strlen(HELLO)));
    upload_rig_close(&u);
}

static void test_same_content_twice(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client a = client_new(&u), b = client_create(&u, "other name.mp3", false, NULL);
    struct digest d = text_digest(HELLO);
    struct file_record newest;
    CU_ASSERT_EQUAL(client_complete(&a, NULL, &d, HELLO), API_OK);
    usleep(2000);
    CU_ASSERT_EQUAL(client_complete(&b, NULL, &d, HELLO), API_OK);
    CU_ASSERT_STRING_NOT_EQUAL(a.result.file.id, b.result.file.id);
    CU_ASSERT_EQUAL(rig_listed(&u.base, NULL), 2);
    CU_ASSERT_EQUAL(file_catalog_newest(u.base.catalog, &d, &newest, NULL), BLOB_OK);
    CU_ASSERT_TRUE(rig_serves(&u, HELLO, strlen(HELLO)));
    upload_rig_close(&u);
}

/* ---- owners, destroying, expiry ---- */

static void test_owners(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct identity alice = {.name = "alice", .known = true}, bob = {.name = "bob", .known = true};
    struct client c = client_create(&u, "a", false, &alice);
    struct upload_view view;
    struct digest d = text_digest("x");
    CU_ASSERT_EQUAL(upload_status(u.node[0].svc, &c.id, &bob, &view, &c.err), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.data = "x", .len = 1, .who = &bob}), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.completes = true, .digest = &d, .data = "x", .len = 1, .who = &bob}),
                    API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(upload_destroy(u.node[0].svc, &c.id, &bob, &c.err), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(upload_status(u.node[0].svc, &c.id, &alice, &view, &c.err), API_OK);
    /* The owner is kept where the session is not. */
    CU_ASSERT_EQUAL(session_remove(u.base.sessions, &c.id, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(client_ask(&c, &(struct ask){.data = "x", .len = 1, .who = &bob}), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(
        client_ask(&c, &(struct ask){.completes = true, .digest = &d, .data = "x", .len = 1, .who = &alice}), API_OK);
    CU_ASSERT_STRING_EQUAL(c.result.file.owner, "alice");
    CU_ASSERT_EQUAL(rig_listed(&u.base, &alice), 1);
    CU_ASSERT_EQUAL(rig_listed(&u.base, &bob), 0);
    upload_rig_close(&u);
}

static bool note_record(const char *key, const void *value, size_t len, void *arg)
{
    (void)key;
    (void)value;
    (void)len;
    ++*(unsigned *)arg;
    return true;
}

static unsigned upload_records(struct upload_rig *u)
{
    unsigned n = 0;
    CU_ASSERT_EQUAL(record_list(u->base.store, "uploads/", NULL, 0, false, note_record, &n, NULL), BLOB_OK);
    return n;
}

static bool nothing_left(struct upload_rig *u, const struct uuid *id)
{
    struct staged_stat stat;
    struct bytebuf value;
    uint64_t epoch;
    bytebuf_init(&value);
    bool left = staged_stat(u->base.store, id, &stat, NULL) != BLOB_E_NOT_FOUND ||
                session_load(u->base.sessions, id, &value, &epoch, NULL) != BLOB_E_NOT_FOUND;
    bytebuf_release(&value);
    return !left && upload_records(u) == 0;
}

static int superseded_calls;

static void count_superseded(void *arg)
{
    CU_ASSERT_PTR_EQUAL(arg, &superseded_calls);
    superseded_calls++;
}

static void test_destroy(void)
{
    struct upload_rig u;
    upload_rig_open(&u, NULL, 1);
    struct client c = client_new(&u);
    struct upload_append *a;
    CU_ASSERT_EQUAL(client_append(&c, NULL, "hello"), API_OK);
    superseded_calls = 0;
    CU_ASSERT_EQUAL_FATAL(
        client_begin(
            &c, &(struct ask){.data = "more", .len = 4, .superseded = count_superseded, .arg = &superseded_calls}, &a),
        API_OK);
    CU_ASSERT_EQUAL(upload_append_write_bytes(a, "more", 4, &c.err), API_OK);
    CU_ASSERT_EQUAL(upload_destroy(u.node[0].svc, &c.id, NULL, &c.err), API_OK);
    CU_ASSERT_EQUAL(superseded_calls, 1);
    CU_ASSERT_TRUE(nothing_left(&u, &c.id));
    CU_ASSERT_NOT_EQUAL(upload_append_write_bytes(a, "x", 1, &c.err), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_FAILED, &c.result, &c.err), API_UPLOAD_UNKNOWN);
    CU_ASSERT_FALSE(c.result.has_view);
    CU_ASSERT_TRUE(nothing_left(&u, &c.id));
    CU_ASSERT_EQUAL(client_status(&c), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "x"), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(upload_destroy(u.node[0].svc, &c.id, NULL, &c.err), API_UPLOAD_UNKNOWN);
    upload_rig_close(&u);
}

static void test_expiry(void)
{
    struct upload_rig u;
    struct upload_options opt = rig_upload_options;
    struct upload_append *a;
    opt.timeout_ms = 300;
    upload_rig_open(&u, &opt, 1);
    struct client c = client_new(&u), active = client_new(&u), in_flight = client_new(&u);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "hello"), API_OK);
    CU_ASSERT_EQUAL_FATAL(client_begin(&in_flight, &(struct ask){.data = "xyz", .len = 3}, &a), API_OK);
    for (int i = 0; i < 5; i++) {
        usleep(100000);
        CU_ASSERT_EQUAL(client_append(&active, NULL, "x"), API_OK);
    }
    CU_ASSERT_EQUAL(upload_service_expire(u.node[0].svc, clock_wall_ms(), NULL, NULL), BLOB_OK);
    CU_ASSERT_EQUAL(client_status(&c), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(client_append(&c, NULL, "x"), API_UPLOAD_UNKNOWN);
    CU_ASSERT_EQUAL(upload_records(&u), 2);
    CU_ASSERT_EQUAL(client_peek(&active), 5);
    CU_ASSERT_EQUAL(upload_append_write_bytes(a, "xyz", 3, &c.err), API_OK);
    CU_ASSERT_EQUAL(upload_append_end(a, UPLOAD_BODY_WHOLE, &c.result, &c.err), API_OK);
    usleep(350000);
    CU_ASSERT_EQUAL(upload_service_expire(u.node[0].svc, clock_wall_ms(), NULL, NULL), BLOB_OK);
    CU_ASSERT_TRUE(nothing_left(&u, &c.id));
    CU_ASSERT_TRUE(nothing_left(&u, &active.id));
    CU_ASSERT_TRUE(nothing_left(&u, &in_flight.id));
    upload_rig_close(&u);
}

int main(void)
{
    CU_TestInfo tests[] = {
        {"a new upload is empty, and status changes nothing", test_create_and_status},
        {"chunks with rotating tokens become the file", test_chunks},
        {"a client that only ever shows its first token gets plain appends", test_first_token_only},
        {"a temporary file knows its end", test_temporary},
        {"a missing, malformed or foreign token is refused", test_bad_tokens},
        {"the last chunk again is answered again, anything else is 416", test_repeats},
        {"the same where staged bytes cannot be read back", test_repeats_without_staged_bytes},
        {"however the chunk was sent, and whatever became of its session", test_repeats_however_it_was_sent},
        {"also where its chunk was sent with the first token", test_repeat_of_a_first_tokens_chunk},
        {"the token of a status rotates, too", test_status_token_rotates},
        {"a refused request and a repeat mark a client as rotating", test_rotation_is_remembered},
        {"the token of a status in mid-append continues there", test_token_of_a_status_in_mid_append},
        {"an explicit offset decides alone", test_offsets},
        {"a length that is not the body's rolls it back", test_lengths},
        {"a cut body keeps what arrived, and completes nothing", test_cut},
        {"max_size bounds the whole upload", test_max_size},
        {"a wrong digest rolls its body back and keeps the upload", test_wrong_digest},
        {"an upload without bytes becomes the empty blob", test_empty_upload},
        {"a rotating client's complete with an older token is 416", test_rotating_complete_with_an_old_token},
        {"a complete whose body may have no byte is decided by its first byte or its end", test_complete_that_waits},
        {"a completed upload answers repeats, also from its record alone", test_completed},
        {"a completed upload is forgotten after its time, its file is not", test_completed_is_forgotten},
        {"equal content twice is two files of one blob", test_same_content_twice},
        {"an upload is its owner's", test_owners},
        {"destroy leaves nothing, also with an append in flight", test_destroy},
        {"an idle upload expires, an active one does not", test_expiry},
        CU_TEST_INFO_NULL};
    return unit_main("upload_rules", tests);
}
