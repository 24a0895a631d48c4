/*
 * auth_tokens - the file of hashed tokens: "NAME SHA256HEX [admin]" a line, '#' begins a comment line.
 *
 *     alice  5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8
 *
 * A name may stand on several lines (a token and its successor); a hash on one only.
 *
 * Threads: a list is read-only once loaded. Ownership: the list owns its memory. Errors: INVALID names file and line;
 * nothing of a line's hash is repeated.
 */
#ifndef BLOBD_SERVER_AUTH_AUTH_TOKENS_H
#define BLOBD_SERVER_AUTH_AUTH_TOKENS_H

#include "core/digest.h"
#include "core/identity.h"

#include <stddef.h>

/* What is logged of a file without a token, with its path. */
#define TOKENS_NONE "auth.tokens_file %s: 0 tokens: nobody can upload"

struct token_list;

enum blob_status token_list_load(const char *path, struct token_list **out, struct blob_error *err) BLOB_MUST_CHECK;
void token_list_free(struct token_list *list); /* NULL is fine */
size_t token_list_count(const struct token_list *list);
/* Who the token of this hash belongs to; false: nobody. */
bool token_list_find(const struct token_list *list, const struct digest *hash, struct identity *who);

#endif
