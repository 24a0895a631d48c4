"""What has its time: uploads, temporary files, completed uploads' memory, and blobs that no file names."""

import time

from api import accepted, created, refused, whole
from harness import STORAGE, Blobd
from s3_bucket import stored
from uploader import Content, Upload, download, sha256, store
from wire import wait_for

SWEEP = {"retention.sweep_interval": "1s", "retention.sweep_grace": "1s"}
DATA = Content(100000, 1).read(0, 100000)


def blob_is_stored(srv, digest):
    """On S3 the data of blobs as small as these have the digest in their names too."""
    return any(digest in name for name in stored(srv, "blobs" if STORAGE == "disk" else "data/"))


def test_upload_expires_after_its_timeout_and_leaves_nothing():
    with Blobd({**SWEEP, "sessions.timeout": "1s"}) as srv:
        up = Upload(srv)
        up.append(DATA)
        wait_for(lambda: up.status().status == 404, timeout=8, what="the upload to expire")
        refused(up.append(b"x"), "UPLOAD_UNKNOWN")
        refused(up.complete(sha256(DATA)), "UPLOAD_UNKNOWN")
        wait_for(lambda: not [name for name in stored(srv) if up.id in name], timeout=8, what="what it stored to go")


def test_activity_keeps_an_upload_alive():
    with Blobd({**SWEEP, "sessions.timeout": "3s"}) as srv:
        up = Upload(srv)
        for i in range(8):
            time.sleep(0.8)
            accepted(up.append(b"x"), 203, i + 1, up)
        created(up.complete(sha256(b"x" * 8)), sha256(b"x" * 8), 8)


def test_trickling_append_is_activity():
    with Blobd({**SWEEP, "sessions.timeout": "2s"}) as srv:
        up = Upload(srv)
        c = up.begin(length=60)
        for _ in range(60):
            c.send(b"x")
            time.sleep(0.1)
        accepted(c.read_response(), 203, 60, up)
        created(up.complete(sha256(b"x" * 60)), sha256(b"x" * 60), 60)


def test_status_is_no_activity():
    with Blobd({**SWEEP, "sessions.timeout": "2s"}) as srv:
        up = Upload(srv)
        end = time.monotonic() + 8
        while up.status().status == 204:
            assert time.monotonic() < end, "asking for status keeps the upload alive"
            time.sleep(0.3)


def test_upload_that_expired_while_the_server_was_down_is_gone_at_start():
    with Blobd({**SWEEP, "sessions.timeout": "1s"}) as srv:
        up = Upload(srv)
        up.append(DATA)
        srv.stop()
        time.sleep(1.5)
        srv.start()
        wait_for(lambda: up.status().status == 404, timeout=5, what="the upload to be gone")
        wait_for(lambda: not [name for name in stored(srv) if up.id in name], timeout=8, what="what it stored to go")


def test_temporary_file_expires_with_its_blob():
    with Blobd({**SWEEP, "retention.temp_file_retention": "2s"}) as srv:
        made = store(srv, DATA, "temp", temporary="true")
        whole(download(srv, made["digest"]), DATA)
        wait_for(lambda: srv.get(f"/api/files/{made['id']}").status == 404, timeout=10, what="the file to expire")
        refused(download(srv, made["digest"]), "BLOB_UNKNOWN")
        wait_for(lambda: srv.get("/api/files").json()["count"] == 0, what="the listing to forget it")
        wait_for(lambda: not blob_is_stored(srv, made["digest"]), timeout=10, what="the bytes to go")


def test_ordinary_file_of_the_same_content_outlives_the_temporary_one():
    with Blobd({**SWEEP, "retention.temp_file_retention": "1s"}) as srv:
        temp, kept = store(srv, DATA, "temp", temporary="true"), store(srv, DATA, "kept", temporary="false")
        wait_for(lambda: srv.get(f"/api/files/{temp['id']}").status == 404, timeout=10, what="the temporary file to expire")
        time.sleep(3)
        whole(download(srv, kept["digest"]), DATA)
        assert [i["name"] for i in srv.get("/api/files").json()["items"]] == ["kept"]


def test_destroyed_files_bytes_go_after_the_grace_time_and_not_before():
    with Blobd({**SWEEP, "retention.sweep_grace": "4s"}) as srv:
        made = store(srv, DATA, "x")
        assert srv.post(f"/api/files/{made['id']}/destroy").status == 204
        refused(download(srv, made["digest"]), "BLOB_UNKNOWN")
        time.sleep(2)
        srv.stop()  # brings a journal's content to its place
        assert blob_is_stored(srv, made["digest"]), "the bytes went before the grace time was over"
        srv.start()
        wait_for(lambda: not blob_is_stored(srv, made["digest"]), timeout=15, what="the bytes to go")


def test_named_blobs_survive_every_sweep():
    with Blobd(SWEEP) as srv:
        made = [store(srv, Content(50000, i).read(0, 50000), f"{i}") for i in range(20)]
        time.sleep(4)
        for i, m in enumerate(made):
            whole(download(srv, m["digest"]), Content(50000, i).read(0, 50000))


def test_content_uploaded_again_within_the_grace_time_stays():
    with Blobd({**SWEEP, "retention.sweep_grace": "2s"}) as srv:
        first = store(srv, DATA, "first")
        srv.post(f"/api/files/{first['id']}/destroy")
        time.sleep(1.5)
        again = store(srv, DATA, "again")
        time.sleep(4)
        whole(download(srv, again["digest"]), DATA)


def test_upload_and_destroy_of_one_content_race_the_sweeper_safely():
    with Blobd(SWEEP) as srv:
        end = time.monotonic() + 8
        while time.monotonic() < end:
            made = store(srv, DATA, "raced")
            whole(download(srv, made["digest"]), DATA)
            assert srv.post(f"/api/files/{made['id']}/destroy").status == 204
            time.sleep(0.3)
        made = store(srv, DATA, "last")
        time.sleep(3)
        whole(download(srv, made["digest"]), DATA)


def test_download_under_way_finishes_though_its_file_is_destroyed_and_swept():
    with Blobd(SWEEP) as srv:
        data = Content(24 << 20, 2).read(0, 24 << 20)
        made = store(srv, data, "going")
        with srv.connect(rcvbuf=65536) as c:
            c.send_head("GET", f"/api/blobs/{made['digest']}")
            head = c.read_head()
            assert srv.post(f"/api/files/{made['id']}/destroy").status == 204
            time.sleep(4)
            parts = []
            c.stream_body(int(head["Content-Length"]), parts.append)
        assert b"".join(parts) == data


def test_completed_upload_is_forgotten_after_its_time_and_its_file_stays():
    with Blobd({**SWEEP, "uploads.completed_retention": "1s"}) as srv:
        up = Upload(srv, filename="done")
        up.append(DATA)
        created(up.complete(sha256(DATA)), sha256(DATA), len(DATA))
        wait_for(lambda: up.status().status == 404, timeout=10, what="the completed upload to be forgotten")
        whole(download(srv, sha256(DATA)), DATA)
        assert srv.get("/api/files").json()["count"] == 1
        staged = "uploads" if STORAGE == "disk" else "staging/"
        assert not [name for name in stored(srv, staged) if up.id in name]
