/* regular_file - O_NONBLOCK is for the open alone: reading a regular file never blocks by it. */
#include "core/regular_file.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum blob_status regular_file_open(const char *path, const char *what, FILE **out, struct blob_error *err)
{
    struct stat sb;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return blob_fail(err, blob_status_from_errno(errno), errno, "%s %s", what, path);
    enum blob_status st = BLOB_OK;
    if (fstat(fd, &sb) != 0)
        st = blob_fail(err, blob_status_from_errno(errno), errno, "%s %s", what, path);
    else if (!S_ISREG(sb.st_mode))
        st = blob_fail(err, BLOB_E_INVALID, 0, "%s %s is no regular file", what, path);
    else if ((*out = fdopen(fd, "r")) == NULL)
        st = blob_fail(err, BLOB_E_NO_MEMORY, 0, "%s %s", what, path);
    if (st != BLOB_OK)
        close(fd);
    return st;
}
