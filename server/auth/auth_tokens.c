/*
 * auth_tokens - sorted by hash and searched by halves. What a search's time tells is about hashes, not about tokens,
 * and the last step compares in constant time all the same.
 */
#include "server/auth/auth_tokens.h"

#include "core/regular_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct token {
    struct digest hash;
    unsigned line;
    bool admin;
    char name[OWNER_MAX + 1];
};

struct token_list {
    struct token *tokens;
    size_t count, cap;
};

static int compare_tokens(const void *a, const void *b)
{
    return memcmp(((const struct token *)a)->hash.bytes, ((const struct token *)b)->hash.bytes, DIGEST_BYTES);
}

/* The next blank-separated word of *p, ended with a NUL; NULL at the end of the line. */
static char *next_word(char **p)
{
    char *word = *p + strspn(*p, " \t");
    if (*word == '\0')
        return NULL;
    char *end = word + strcspn(word, " \t");
    *p = *end == '\0' ? end : end + 1;
    *end = '\0';
    return word;
}

/* NULL, or what is wrong with the line. */
static const char *parse_line(char *line, struct token *out)
{
    char *p = line;
    const char *name = next_word(&p), *hash = next_word(&p), *admin = next_word(&p);
    if (hash == NULL)
        return "a line is: NAME SHA256HEX [admin]";
    const char *wrong = identity_name_fault(name, strlen(name));
    if (wrong != NULL)
        return wrong;
    if (strlen(hash) != DIGEST_HEX_CHARS || digest_parse(hash, &out->hash) != BLOB_OK)
        return "the hash is not 64 hex digits";
    if (admin != NULL && (strcmp(admin, "admin") != 0 || next_word(&p) != NULL))
        return "only the word admin may follow the hash";
    snprintf(out->name, sizeof out->name, "%s", name);
    out->admin = admin != NULL;
    return NULL;
}

static enum blob_status add_token(struct token_list *list, const struct token *token)
{
    if (list->count == list->cap) {
        size_t cap = list->cap == 0 ? 16 : list->cap * 2;
        struct token *grown = realloc(list->tokens, cap * sizeof *grown);
        if (grown == NULL)
            return BLOB_E_NO_MEMORY;
        list->tokens = grown;
        list->cap = cap;
    }
    list->tokens[list->count++] = *token;
    return BLOB_OK;
}

static enum blob_status read_lines(FILE *file, const char *path, struct token_list *list, struct blob_error *err)
{
    enum blob_status st = BLOB_OK;
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    for (unsigned number = 1; st == BLOB_OK && (len = getline(&line, &cap, file)) >= 0; number++) {
        /* As a crash leaves a file that was not synced: no empty list, which would lock everybody out. */
        bool nul = memchr(line, '\0', (size_t)len) != NULL;
        line[strcspn(line, "\r\n")] = '\0';
        const char *text = line + strspn(line, " \t");
        if (!nul && (*text == '\0' || *text == '#'))
            continue;
        struct token token = {.line = number};
        const char *wrong = nul ? "the line holds a NUL byte" : parse_line(line, &token);
        if (wrong != NULL)
            st = blob_fail(err, BLOB_E_INVALID, 0, "auth.tokens_file %s:%u: %s", path, number, wrong);
        else if ((st = add_token(list, &token)) != BLOB_OK)
            blob_fail(err, st, 0, "auth.tokens_file %s:%u: out of memory", path, number);
    }
    if (st == BLOB_OK && ferror(file))
        st = blob_fail(err, BLOB_E_IO, errno, "auth.tokens_file %s", path);
    free(line);
    return st;
}

static enum blob_status check_unique(const struct token_list *list, const char *path, struct blob_error *err)
{
    for (size_t i = 1; i < list->count; i++) {
        const struct token *a = &list->tokens[i - 1], *b = &list->tokens[i];
        if (compare_tokens(a, b) == 0)
            return blob_fail(err, BLOB_E_INVALID, 0, "auth.tokens_file %s:%u: the hash of line %u again", path,
                             a->line > b->line ? a->line : b->line, a->line > b->line ? b->line : a->line);
    }
    return BLOB_OK;
}

enum blob_status token_list_load(const char *path, struct token_list **out, struct blob_error *err)
{
    FILE *file;
    enum blob_status st = regular_file_open(path, "auth.tokens_file", &file, err);
    if (st != BLOB_OK)
        return st;
    struct token_list *list = calloc(1, sizeof *list);
    st = list != NULL ? read_lines(file, path, list, err)
                      : blob_fail(err, BLOB_E_NO_MEMORY, 0, "auth.tokens_file %s", path);
    fclose(file);
    if (st == BLOB_OK && list->count > 0) {
        qsort(list->tokens, list->count, sizeof *list->tokens, compare_tokens);
        st = check_unique(list, path, err);
    }
    if (st != BLOB_OK) {
        token_list_free(list);
        return st;
    }
    *out = list;
    return BLOB_OK;
}

void token_list_free(struct token_list *list)
{
    if (list == NULL)
        return;
    free(list->tokens);
    free(list);
}

size_t token_list_count(const struct token_list *list)
{
    return list->count;
}

bool token_list_find(const struct token_list *list, const struct digest *hash, struct identity *who)
{
    const struct token key = {.hash = *hash};
    const struct token *found =
        list->count > 0 ? bsearch(&key, list->tokens, list->count, sizeof key, compare_tokens) : NULL;
    if (found == NULL || !digest_equal(&found->hash, hash))
        return false;
    *who = (struct identity){.known = true, .admin = found->admin};
    memcpy(who->name, found->name, sizeof who->name);
    return true;
}
