/* store_owner - user, group, and the groups that the user has besides. */
#include "server/store_owner.h"

#include <errno.h>
#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES_BYTES 16384 /* for a user's entry */

/* Of the directory, or of the nearest above it that is there. */
static enum blob_status find_owner(const char *directory, struct stat *out, struct blob_error *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s", directory) >= (int)sizeof path)
        return blob_fail(err, BLOB_E_IO, ENAMETOOLONG, "look at %s", directory);
    while (stat(path, out) != 0) {
        if (errno != ENOENT)
            return blob_fail(err, blob_status_from_errno(errno), errno, "look at %s", path);
        char *slash = strrchr(path, '/');
        if (slash == path)
            slash++;
        if (!slash || *slash == '\0')
            snprintf(path, sizeof path, ".");
        else
            *slash = '\0';
    }
    return BLOB_OK;
}

enum blob_status store_owner_must_be_us(const char *directory, struct blob_error *err)
{
    struct stat sb;
    if (geteuid() != 0)
        return BLOB_OK;
    enum blob_status st = find_owner(directory, &sb, err);
    if (st != BLOB_OK || sb.st_uid == 0)
        return st;
    char names[NAMES_BYTES], user[64];
    struct passwd entry, *known = NULL;
    if (getpwuid_r(sb.st_uid, &entry, names, sizeof names, &known) != 0 || !known)
        snprintf(user, sizeof user, "#%u", (unsigned)sb.st_uid);
    else
        snprintf(user, sizeof user, "%s", known->pw_name);
    return blob_fail(err, BLOB_E_DENIED, 0,
                     "storage.disk.root %s is user %s's, who could not use files that root makes there: runuser -u %s "
                     "-- blobd ..., or systemctl start blobd; or chown -R root that directory",
                     directory, user, user);
}

enum blob_status store_owner_become(const char *directory, struct blob_error *err)
{
    struct stat sb;
    if (geteuid() != 0)
        return BLOB_OK;
    enum blob_status st = find_owner(directory, &sb, err);
    if (st != BLOB_OK || sb.st_uid == 0)
        return st;
    char names[NAMES_BYTES];
    struct passwd user, *known = NULL;
    if (getpwuid_r(sb.st_uid, &user, names, sizeof names, &known) != 0)
        known = NULL;
    gid_t group = known ? known->pw_gid : sb.st_gid;
    int failed = known ? initgroups(known->pw_name, group) : setgroups(1, &group);
    if (failed != 0 || setresgid(group, group, group) != 0 || setresuid(sb.st_uid, sb.st_uid, sb.st_uid) != 0)
        return blob_fail(err, blob_status_from_errno(errno), errno,
                         "become the owner of %s (user %u), whose server could not use files of root's: run this as "
                         "that user",
                         directory, (unsigned)sb.st_uid);
    fprintf(stderr, "blobd: goes on as the owner of %s, user %s%s(%u)\n", directory, known ? known->pw_name : "",
            known ? " " : "", (unsigned)sb.st_uid);
    return BLOB_OK;
}
