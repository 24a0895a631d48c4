/*
 * service_notify - tells systemd how far the service is (Type=notify), where NOTIFY_SOCKET names its socket.
 *
 * Errors: none: without the socket, or when it cannot be reached, nothing happens. Threads: any.
 * Source: sd_notify(3), "Standalone Implementations".
 */
#ifndef BLOBD_SERVER_SERVICE_NOTIFY_H
#define BLOBD_SERVER_SERVICE_NOTIFY_H

/* state: "READY=1", "RELOADING=1", "STOPPING=1". */
void service_notify(const char *state);

#endif
