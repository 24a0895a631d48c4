/*
 * upload_load - where every request begins: the session as it is stored, or made anew.
 */
#include "core/upload/upload_internal.h"

enum api_code upload_load(struct upload_service *svc, const struct uuid *id, const struct identity *who,
                          struct session *s, struct api_error *err)
{
    struct bytebuf value;
    struct blob_error detail;
    uint64_t epoch = 0;

    bytebuf_init(&value);
    enum blob_status st = session_load(svc->sessions, id, &value, &epoch, &detail);
    if (st == BLOB_OK && session_decode(value.data, value.len, epoch, s) != BLOB_OK) {
        log_line(svc->log, LOG_ERROR, NULL, "upload %s: its session is damaged; rebuilding it", id->text);
        st = session_remove(svc->sessions, id, &detail);
        if (st == BLOB_OK)
            st = BLOB_E_NOT_FOUND;
    }
    bytebuf_release(&value);

    enum api_code code = API_OK;
    if (st == BLOB_E_NOT_FOUND) {
        code = upload_recover_rebuild(svc, id, s, err);
        if (code == API_OK)
            metric_add(svc->metrics.rebuilt, 1);
    } else if (st != BLOB_OK) {
        code = upload_session_fail(svc, id, "loading its session", st, &detail, err);
    }
    if (code == API_OK && (s->state == SESSION_DESTROYED || !upload_session_may_use(s, who)))
        code = upload_session_unknown(err);
    return code;
}
