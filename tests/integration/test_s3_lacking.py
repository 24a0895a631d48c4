"""An endpoint or a disk that lacks what blobd relies on is found out at start, before anything is acknowledged on it."""

import json
import os
import shutil
import tempfile
import threading
import time

from api import created, whole
from faulty_s3 import FaultyS3
from harness import Blobd, Skip, on_disk, start_up, temp_dir
from s3_bucket import Bucket, endpoint
from uploader import Content, Upload, download, store

MIB = 1 << 20


def check_requests(s3):
    return sum(n for key, n in s3.count.items() if "/staging/check/" in key)


def leftovers(s3):
    return sorted(key.partition("/")[2] for key in s3.objects)


def test_endpoint_on_which_no_upload_could_complete_is_refused():
    for lacking in ("multipart", "Complete", "ListParts"):
        with FaultyS3(lacks=[lacking]) as s3:
            options = Bucket(s3).options()
            status, log, _ = start_up(options)
            assert status == 1, f"{lacking}: started"
            assert "uploads could not complete here: a multipart upload (create, put, list parts, complete)" in log, log
            assert "405 MethodNotAllowed" in log and "listening" not in log, log
            assert leftovers(s3) == ["store.json"], f"{lacking}: {leftovers(s3)}"
            status, said, _ = start_up(options, "--check-storage")
            assert status == 1 and "FAIL  multipart" in said and "ok    write (PutObject)" in said, said


def same_content_at_once(srv, content, writers=6):
    """Many complete the same content at a time; all are told 201, and it is there."""
    answers = []

    def one():
        up = Upload(srv)
        up.append(content.read(0, 2000))
        answers.append(up.complete(content.digest(), content.read(2000, content.size)))

    threads = [threading.Thread(target=one) for _ in range(writers)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len(answers) == writers
    for answer in answers:
        created(answer, content.digest(), content.size)
    whole(download(srv, content.digest()), content.read(0, content.size))


def test_endpoint_without_conditional_writes_is_for_one_process_which_it_serves():
    for lacks in (["If-Match"], ["If-None-Match"], ["If-Match", "If-None-Match"]):
        with FaultyS3(lacks=lacks) as s3:
            options = Bucket(s3).options(storage__s3__part_size="5M")
            with Blobd(options) as srv:
                ready = srv.admin("/readyz")
                assert ready.status == 200 and "only one blobd" in json.loads(ready.body)["storage_limits"], ready.body
                assert "heeds no conditional writes: only one blobd may use the bucket" in srv.log(), srv.log()
                before = s3.count.get("If-Match", 0) + s3.count.get("If-None-Match", 0)
                same_content_at_once(srv, Content(9000, 1))
                same_content_at_once(srv, Content(9000, 1))
                big = Content(11 * MIB, 2)
                store(srv, big.read(0, big.size))
                whole(download(srv, big.digest()), big.read(0, big.size))
                assert s3.count.get("If-Match", 0) + s3.count.get("If-None-Match", 0) == before, "a condition is relied on"
            before = check_requests(s3)
            with Blobd(options):
                assert check_requests(s3) > before, "an update of the endpoint would go unnoticed"


def test_cluster_is_refused_where_conditional_writes_are_lacking():
    for more in ({"lacks": ["If-Match"]}, {}):
        with FaultyS3(**more) as s3:
            driver = "sigv4" if more else "libs3"
            status, log, _ = start_up(Bucket(s3).options(sessions__store="redis", storage__s3__driver=driver))
            assert status == 1 and "sessions.store=redis is for several nodes" in log and "set it to embedded" in log, log


def test_endpoint_that_lacks_nothing_is_asked_once_a_day():
    with FaultyS3() as s3:
        place = Bucket(s3)
        options = place.options()

        def asked():
            before = check_requests(s3)
            with Blobd(options) as srv:
                assert "storage_limits" not in srv.admin("/readyz").body.decode()
                assert "conditional writes" not in srv.log()
            return check_requests(s3) - before

        assert 5 < asked() < 30
        assert asked() == 0, "remembered in the store"
        key = f"{place.prefix}/checked.json"
        remembered = json.loads(s3.objects[key])
        s3.objects[key] = json.dumps(remembered | {"at_ms": remembered["at_ms"] - 25 * 3600 * 1000}).encode()
        assert asked() > 5, "a day ago"
        s3.objects[key] = json.dumps(json.loads(s3.objects[key]) | {"endpoint": "http://192.0.2.1"}).encode()
        assert asked() > 5, "of another endpoint"
        s3.objects[key] = b"{"
        assert asked() > 5, "damaged"
        assert start_up(options, "--check-storage")[0] == 0
        assert asked() > 5, "after a check by hand"


def test_ceph_lacks_nothing_and_the_start_stays_short():
    with endpoint() as s3:
        place = Bucket(s3)
        for _ in range(2):
            began = time.monotonic()
            with Blobd(place.options()) as srv:
                took = time.monotonic() - began
                assert json.loads(srv.admin("/readyz").body) == {"status": "ready", "storage": "ok", "sessions": "ok"}
            print(f"{took:.2f} s")
        assert sorted(place.objects()) == ["checked.json", "store.json"]


def test_directory_of_another_file_system_is_refused():
    """Uploads would be taken, and never become blobs."""
    on_disk()
    root = temp_dir()
    if not os.path.isdir("/dev/shm") or os.stat("/dev/shm").st_dev == os.stat(root).st_dev:
        raise Skip("there is no second file system")
    elsewhere = tempfile.mkdtemp(dir="/dev/shm")
    try:
        with Blobd(root=root) as srv:
            store(srv, b"on one disk")
        for name in ("uploads", "blobs", "records"):
            (root / name).rename(root / "kept")
            shutil.copytree(root / "kept", f"{elsewhere}/{name}")
            (root / name).symlink_to(f"{elsewhere}/{name}")
            status, log, _ = start_up({}, root=root)
            assert status == 1 and f"to {name}/, which must be on one file system" in log, f"{name}: {log}"
            status, said, _ = start_up({}, "--check-storage", root=root)
            assert status == 1 and "FAIL  rename between directories" in said, said
            (root / name).unlink()
            (root / "kept").rename(root / name)
        with Blobd(root=root) as srv:
            store(srv, b"on one disk again")
    finally:
        shutil.rmtree(elsewhere)
