"""What blobd makes of a bucket, as s3cmd sees it: one native object a blob, nothing else, and nothing afterwards."""

import os
import random

from api import accepted, created, refused, whole
from harness import Blobd
from s3_bucket import Bucket, endpoint
from uploader import Content, Upload, download, sha256, store
from wire import wait_for

MIB = 1 << 20
SWEEP = {"retention__sweep_interval": "1s", "retention__sweep_grace": "1s"}
BIG_MIB = int(os.environ.get("BLOBD_TEST_S3_BIG_MIB", 100))  # the issue of the S3 storage says 1024; run by hand


def send(srv, content, chunk, body_with_complete=False, mode="rotating"):
    """Uploads in appends of chunk() bytes; the last piece may come with complete. Returns the id."""
    up = Upload(srv, mode)
    while up.offset < content.size:
        piece = content.read(up.offset, chunk())
        if body_with_complete and up.offset + len(piece) == content.size:
            break
        at = up.offset
        accepted(up.append(piece), 203, at + len(piece), up)
    digest = content.digest()
    rest = content.read(up.offset, content.size - up.offset)
    created(up.complete(digest, rest or None), digest, content.size)
    return digest


def check_native(place, sizes):
    """sizes: {digest: size}. Each is one object with the right bytes, and the bucket holds nothing but them and records."""
    digests = place.digests()
    assert sorted(digests.values()) == sorted(sizes), "not exactly one object a blob, or other bytes"
    listed = place.objects()
    for key, digest in digests.items():
        assert listed[key] == sizes[digest], (key, listed[key])
    assert not [k for k in listed if k.startswith("staging/")], listed
    assert place.unfinished() == []


def await_nothing(place, *below):
    """uploads/ is not among these: for an hour, the record of a completed upload answers a repeated complete."""
    try:
        wait_for(lambda: not place.below(*below) and not place.unfinished(), timeout=40, interval=0.5)
    except AssertionError:
        raise AssertionError(f"still there: {place.below(*below)} {place.unfinished()}") from None


def upload_all_sizes(srv):
    rng = random.Random(7)
    ways = [(0, lambda: 1), (1, lambda: 1), (99, lambda: 1), (5 * MIB - 1, lambda: 5 * MIB), (5 * MIB, lambda: 5 * MIB),
            (5 * MIB + 1, lambda: 5 * MIB), (8 * MIB, lambda: 8 * MIB), (8 * MIB + 1, lambda: 3 * MIB),
            (20 * MIB + 123, lambda: rng.randint(1, 2 * MIB)), (33 * MIB, lambda: 16 * MIB)]
    sizes = {}
    for seed, (size, chunk) in enumerate(ways):
        for with_complete in (False, True):
            content = Content(size, seed * 2 + with_complete)
            sizes[send(srv, content, chunk, with_complete)] = size
    return sizes


def test_every_size_and_manner_of_upload_ends_in_one_native_object():
    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options()) as srv:
            sizes = upload_all_sizes(srv)
            check_native(place, sizes)


def test_big_upload_in_odd_chunks_is_one_native_object():
    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options()) as srv:
            content, rng = Content(BIG_MIB * MIB, 5), random.Random(5)
            digest = send(srv, content, lambda: rng.choice((1, 4097, MIB - 1, 5 * MIB + 3, 8 * MIB, 16 * MIB)))
            check_native(place, {digest: content.size})


def test_equal_content_is_one_object():
    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options()) as srv:
            for content, chunk in ((Content(1000, 1), 1000), (Content(17 * MIB, 2), 4 * MIB)):
                for who in range(3):
                    send(srv, content, lambda: chunk)
            check_native(place, {Content(1000, 1).digest(): 1000, Content(17 * MIB, 2).digest(): 17 * MIB})


def test_nothing_is_left_of_what_was_destroyed_or_expired_or_never_finished():
    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options(**SWEEP, sessions__timeout="3s", retention__temp_file_retention="1s")) as srv:
            files = [store(srv, Content(size, size).read(0, size)) for size in (10, 9 * MIB)]
            for size in (11, 9 * MIB + 1):
                store(srv, Content(size, size).read(0, size), temporary="true")
            for size in (12, 21 * MIB):
                up = Upload(srv)
                accepted(up.append(Content(size, size).read(0, size)), 203, size, up)
                assert up.destroy().status == 204
            wait_for(lambda: place.unfinished() == [], what="a destroyed upload's parts to go")
            forgotten = Upload(srv)
            forgotten.append(Content(21 * MIB, 3).read(0, 21 * MIB))
            cut = Upload(srv)
            cut.cut_append(Content(21 * MIB, 4).read(0, 21 * MIB), 20 * MIB)
            for made in files:
                assert srv.post(f"/api/files/{made['id']}/destroy").status == 204
                refused(download(srv, made["digest"]), "BLOB_UNKNOWN")
            await_nothing(place, "staging/", "data/", "blobs/", "files/", "unnamed/")


def test_what_a_killed_server_left_is_swept_by_the_next():
    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options(**SWEEP, sessions__timeout="2s")) as srv:
            kept = store(srv, b"kept")
            up = Upload(srv)
            with up.begin(length=40 * MIB) as c:
                c.send(Content(36 * MIB, 1).read(0, 36 * MIB))
                wait_for(place.unfinished, what="its multipart upload")
                srv.kill()
            srv.start()
            await_nothing(place, "staging/")
            whole(download(srv, kept["digest"]), b"kept")


def test_node_with_an_empty_disk_serves_everything_and_goes_on_with_uploads():
    small, large = Content(1000, 1), Content(19 * MIB, 2)
    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options()) as first:
            made = [store(first, c.read(0, c.size), f"f{c.size}.wav") for c in (small, large)]
            up = Upload(first, mode="offset", filename="half.wav")
            accepted(up.append(large.read(0, 11 * MIB)), 203, 11 * MIB, up)
            first.restart(hard=True)
            assert not first.files("blobs"), "blobs on the node's own disk"
        with Blobd(place.options()) as second:
            for c, m in zip((small, large), made):
                answer = whole(download(second, m["digest"]), c.read(0, c.size))
                assert f"f{c.size}.wav" in answer["Content-Disposition"], answer
                assert second.get(f"/api/files/{m['id']}").json()["name"] == f"f{c.size}.wav"
            assert second.get("/api/files").json()["count"] == 2
            other = Content(13 * MIB, 2)
            up.srv = second
            accepted(up.status(), 204, 11 * MIB, up)
            accepted(up.append(other.read(11 * MIB, 2 * MIB)), 203, 13 * MIB, up)
            created(up.complete(other.digest()), other.digest(), 13 * MIB, "half.wav")
            whole(download(second, other.digest()), other.read(0, other.size))


def test_libs3_driver_takes_uploads_in_chunks_over_a_restart_and_gives_them_back():
    content = Content(13 * MIB, 3)
    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options(storage__s3__driver="libs3", storage__s3__part_size="5M")) as srv:
            up = Upload(srv, mode="offset", filename="legacy.wav")
            for length in (6 * MIB, 1, 3 * MIB):
                at = up.offset
                accepted(up.append(content.read(at, length)), 203, at + length, up)
            srv.restart(hard=True)
            accepted(up.status(), 204, 9 * MIB + 1, up)
            answer = up.complete(content.digest(), content.read(up.offset, content.size))
            created(answer, content.digest(), content.size, "legacy.wav")
            whole(download(srv, content.digest()), content.read(0, content.size))
            assert list(place.objects("data/").values()) == [content.size], place.objects()
            assert srv.post(f"/api/files/{answer.json()['id']}/destroy").status == 204
            assert download(srv, content.digest()).status == 404
            dropped = Upload(srv)
            accepted(dropped.append(content.read(0, 7 * MIB)), 203, 7 * MIB, dropped)
            assert dropped.destroy().status == 204
            assert not place.below("staging/"), place.objects()


test_every_size_and_manner_of_upload_ends_in_one_native_object.timeout = 120
test_big_upload_in_odd_chunks_is_one_native_object.timeout = 60 + BIG_MIB
test_nothing_is_left_of_what_was_destroyed_or_expired_or_never_finished.timeout = 120
