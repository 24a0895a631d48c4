/* media_type - a media type by a file name's ending, for the kinds of files a PBX keeps. Threads: any. Source: the
 * IANA media type registry. */
#ifndef BLOBD_CORE_FILES_MEDIA_TYPE_H
#define BLOBD_CORE_FILES_MEDIA_TYPE_H

/* "application/octet-stream" where the name tells nothing. Static text. */
const char *media_type_of_name(const char *name);

#endif
