/*
 * embedded_guard - the note in the lock file is one line: "clean", or "open <boot id>". Anything else, a torn line
 * included, is not trusted. It is written before the first change to the guarded files, and set to clean only after
 * they were synced.
 */
#include "backends/embedded/embedded_guard.h"

#include "core/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define NOTE_MAX 64

/* The note of files that are open under this boot; "" when the kernel does not tell. */
static void open_note(char note[NOTE_MAX])
{
    char boot[CLOCK_BOOT_ID_MAX];
    clock_boot_id(boot);
    snprintf(note, NOTE_MAX, "open %s\n", *boot ? boot : "?");
}

static enum blob_status write_note(int fd, const char *note, struct blob_error *err)
{
    size_t len = strlen(note);
    /* Written over what is there, so that a full disk cannot be in the way. */
    if (pwrite(fd, note, len, 0) != (ssize_t)len || ftruncate(fd, (off_t)len) != 0 || fdatasync(fd) != 0)
        return blob_fail(err, blob_status_from_errno(errno), errno, "write the session store's lock file");
    return BLOB_OK;
}

enum blob_status embedded_guard_take(const char *path, struct embedded_guard *g, bool *trusted, struct blob_error *err)
{
    char name[4096];
    if (snprintf(name, sizeof name, "%s.lock", path) >= (int)sizeof name)
        return blob_fail(err, BLOB_E_INVALID, 0, "sessions.path is too long");
    int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return blob_fail(err, blob_status_from_errno(errno), errno, "sessions.path: open %s", name);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        enum blob_status st =
            errno == EWOULDBLOCK
                ? blob_fail(
                      err, BLOB_E_CONFLICT, 0,
                      "%s: another blobd uses this session store. Nodes on one blob store need sessions.store=redis; "
                      "only one with a blob store of its own may have a sessions.path of its own",
                      path)
                : blob_fail(err, blob_status_from_errno(errno), errno, "lock %s", name);
        close(fd);
        return st;
    }
    char found[NOTE_MAX] = "", now[NOTE_MAX];
    ssize_t n = pread(fd, found, sizeof found - 1, 0);
    open_note(now);
    g->fd = fd;
    *trusted = n > 0 && (strcmp(found, "clean\n") == 0 || (strcmp(found, now) == 0 && !strchr(now, '?')));
    return BLOB_OK;
}

enum blob_status embedded_guard_mark_open(struct embedded_guard *g, struct blob_error *err)
{
    char note[NOTE_MAX];
    open_note(note);
    return write_note(g->fd, note, err);
}

void embedded_guard_doubt(struct embedded_guard *g)
{
    /* Also where it cannot be made durable: it is for the next process, the next boot trusts no open files anyway. */
    (void)write_note(g->fd, "doubtful\n", NULL);
}

void embedded_guard_release(struct embedded_guard *g, bool clean)
{
    /* A note that cannot be written only costs a rebuild. */
    if (clean)
        (void)write_note(g->fd, "clean\n", NULL);
    close(g->fd);
    g->fd = -1;
}
