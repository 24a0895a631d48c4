/*
 * dialect - how each of the servers wants a blob uploaded: blobd, Docker's registry, and WebDAV's PUT.
 *
 * An upload is CREATE, APPEND once or more, COMPLETE; WebDAV knows one APPEND only, which is the PUT. A dialect writes
 * the head of each request and keeps from each answer what the next request needs. Threads: plain values.
 * Source: PortSIP PBX REST API v22 "Blobs"; OCI distribution-spec 1.1; RFC 4918.
 */
#ifndef BLOBD_BENCH_DIALECT_H
#define BLOBD_BENCH_DIALECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum step { STEP_CREATE, STEP_APPEND, STEP_COMPLETE, STEP_COUNT };

/* An upload as its dialect sees it. */
struct upload {
    uint64_t number;    /* of the blob */
    uint64_t from, to;  /* the body of this request, as offsets in the blob */
    const char *hex;    /* SHA-256 of the blob */
    const char *bearer; /* NULL: none */
    int port;
    char where[2048]; /* what the create answered: id or URL */
    char token[512];
};

struct dialect {
    const char *name;
    enum step first;
    bool whole;             /* takes the blob in one request only */
    enum step last;         /* the step whose answer ends the upload */
    int status[STEP_COUNT]; /* what a good answer is */
    /* Writes the head up to where framing headers follow; as snprintf(). */
    int (*head)(const struct upload *up, enum step step, char *out, size_t size);
    /* Keeps what the next request needs out of the answer's head, a text. */
    void (*note)(struct upload *up, const char *head);
    /* Format of the download path; %s is the digest in hex. */
    int (*path)(const struct upload *up, char *out, size_t size);
};

/* NULL when there is none of that name. */
const struct dialect *dialect_find(const char *name);
/* Copies the first value of a header out of a head; false when it is absent. */
bool head_value(const char *head, const char *name, char *out, size_t size);

#endif
