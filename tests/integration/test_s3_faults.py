"""A server whose S3 fails: never a 201 for a blob that is not intact, never wrong bytes in a clean 200; tried again to
success where it can be, else 503 with Retry-After, and the upload goes on afterwards."""

import json
import signal
import threading
import time
from contextlib import ExitStack, contextmanager

from api import accepted, created, refused, whole
from faulty_s3 import FaultyS3
from harness import Blobd, temp_dir
from s3_bucket import Bucket, rgw
from uploader import Closed, Content, Upload, download, sha256, store
from wire import wait_for

MIB = 1 << 20
SWEEPING = {"retention__sweep_interval": "1s", "retention__sweep_grace": "1s"}
PASSING = [("empty-503", "."), ("html-502", "."), ("internal", "."), ("slowdown", "."), ("early-503", "PUT .*/data/"),
           ("drop", "."), ("drop-after", "."), ("garbage", "."), ("late", "PUT .*/data/"), ("cut-body", "GET .*/data/"),
           ("error-in-200", "POST"), ("empty-200", "POST"), ("drop-after-post", "POST")]


@contextmanager
def faulty(**more):
    """A blobd on an endpoint that misbehaves when told."""
    with FaultyS3() as s3:
        options = Bucket(s3).options(**{"storage__s3__part_size": "5M", "downloads__cache": "0"} | more)
        with Blobd(options) as srv:
            yield s3, srv


@contextmanager
def on_rgw(**more):
    """A blobd on a real endpoint, to be stopped and killed."""
    with rgw() as s3, Blobd(Bucket(s3).options(downloads__cache="0", **more)) as srv:
        yield s3, srv


def upload(srv, content):
    """Two appends, the first of them more than a part, and complete with the rest."""
    up = Upload(srv)
    for length in (6 * MIB, 3 * MIB):
        at = up.offset
        accepted(up.append(content.read(at, length)), 203, at + length, up)
    return up, up.complete(content.digest(), content.read(up.offset, content.size))


def test_passing_faults_are_ridden_out():
    with faulty() as (s3, srv):
        for seed, (name, pattern) in enumerate(PASSING):
            content = Content(11 * MIB + seed, seed)
            with s3.fault(name, pattern, times=2) as rule:
                _, answer = upload(srv, content)
                created(answer, content.digest(), content.size)
                whole(download(srv, content.digest()), content.read(0, content.size))
            assert rule.met == 2, f"{name} met {rule.met} requests"
            whole(download(srv, content.digest()), content.read(0, content.size))


def test_lasting_failure_is_a_503_and_the_upload_goes_on_afterwards():
    content = Content(14 * MIB, 1)
    with faulty(storage__s3__retry_timeout="1s") as (s3, srv):
        for name in ("empty-503", "slowdown", "drop"):
            up = Upload(srv, mode="offset")
            accepted(up.append(content.read(0, 7 * MIB)), 203, 7 * MIB, up)
            with s3.fault(name):
                answer = up.append(content.read(7 * MIB, 6 * MIB))
                refused(answer, "UNAVAILABLE")
                assert int(answer["Retry-After"]) >= 1, answer
                refused(up.complete(content.digest()), "UNAVAILABLE")
                assert srv.admin("/readyz").status == 503
            assert up.status().status == 204
            assert 7 * MIB <= up.offset <= 13 * MIB, up.offset
            accepted(up.append(content.read(up.offset, content.size)), 203, content.size, up)
            created(up.complete(content.digest()), content.digest(), content.size)
            whole(download(srv, content.digest()), content.read(0, content.size))


def test_failed_completion_is_no_201_and_can_be_repeated():
    with faulty(storage__s3__retry_timeout="1s") as (s3, srv):
        for seed, name in enumerate(("error-in-200", "empty-503", "wrong-size")):
            content = Content(13 * MIB + seed, seed)
            up = Upload(srv)
            accepted(up.append(content.read(0, content.size)), 203, content.size, up)
            with s3.fault(name, r"POST .*uploadId=") as rule:
                assert up.complete(content.digest()).status >= 500
                assert rule.met
                refused(download(srv, content.digest()), "BLOB_UNKNOWN")
            if name == "wrong-size":
                continue  # its parts are lost: what was stored is not what was sent
            created(up.complete(content.digest()), content.digest(), content.size)
            whole(download(srv, content.digest()), content.read(0, content.size))


def test_wrong_bytes_never_end_in_a_clean_200():
    with faulty() as (s3, srv):
        for size in (1000, 3 * MIB, 12 * MIB):
            content = Content(size, size)
            data = content.read(0, size)
            store(srv, data)
            with s3.fault("wrong-bytes", "GET .*/data/") as rule:
                try:
                    answer = download(srv, content.digest())
                    assert answer.status >= 500, f"{size} bytes: {answer.status} with wrong bytes"
                except Closed:
                    pass
                assert rule.met
            whole(download(srv, content.digest()), data)


def test_small_content_that_arrives_wrong_is_fetched_again_then_503():
    for cache in ("0", "64M"):  # streamed in one piece, and read into the cache
        with faulty(downloads__cache=cache) as (s3, srv):
            for size in (1000, 60000):
                for seed, name in enumerate(("wrong-bytes", "other-bytes")):
                    data = Content(size, seed).read(0, size)
                    store(srv, data)
                    with s3.fault(name, "GET .*/data/") as rule:
                        answer = download(srv, sha256(data))
                        refused(answer, "UNAVAILABLE")
                        assert int(answer["Retry-After"]) >= 1, answer
                        assert rule.met == 2, rule.met
                    with s3.fault(name, "GET .*/data/", times=1) as rule:
                        whole(download(srv, sha256(data)), data)
                        assert rule.met == 1, "what was wrong is in the cache"
            # What is known to have another size does not get better.
            data = Content(2000, 9).read(0, 2000)
            store(srv, data)
            for key in [k for k in s3.objects if "/data/" in k]:
                s3.objects[key] = s3.objects[key][:-1]
            refused(download(srv, sha256(data)), "UNKNOWN")


def test_staged_bytes_that_come_back_wrong_become_no_blob():
    with faulty() as (s3, srv):
        for seed, (first, second) in enumerate(((3 * MIB, 4 * MIB), (MIB, 2 * MIB))):  # of a part, and in one request
            content = Content(first + second, seed)
            up = Upload(srv, mode="offset")
            accepted(up.append(content.read(0, first)), 203, first, up)
            with s3.fault("wrong-bytes", "GET .*/staging/.*/s/") as rule:
                answers = [up.append(content.read(first, second)), up.complete(content.digest())]
                assert all(a.status != 201 for a in answers), answers
                assert all(a.status == 503 and a["Retry-After"] for a in answers if a.status >= 500), answers
                assert rule.met, "nothing was read back"
            refused(download(srv, content.digest()), "BLOB_UNKNOWN")
            with s3.fault("wrong-bytes", "GET .*/staging/.*/s/", times=1) as rule:
                finish(srv, up, content)
                assert rule.met


def test_libs3_joins_no_blob_of_pieces_that_come_back_wrong():
    with faulty(storage__s3__driver="libs3", storage__s3__retry_timeout="2s") as (s3, srv):
        content = Content(13 * MIB, 1)
        up = Upload(srv, mode="offset")
        accepted(up.append(content.read(0, content.size)), 203, content.size, up)
        for name in ("wrong-bytes", "other-bytes"):
            with s3.fault(name, "GET .*/staging/.*/p/") as rule:
                assert up.complete(content.digest()).status >= 500, name
                assert rule.met
                refused(download(srv, content.digest()), "BLOB_UNKNOWN")
        finish(srv, up, content)


def test_download_is_one_request_and_goes_on_by_ranges_when_that_breaks_off():
    content = Content(12 * MIB, 7)
    data = content.read(0, content.size)
    with faulty() as (s3, srv):
        store(srv, data)
        key = next(k for k in s3.objects if "/data/" in k)
        for name, at_most in ((None, 1), ("cut-body", 2 + 7), ("internal", 1 + 12), ("drop", 2 + 12)):
            before = s3.count[key]
            if name:
                with s3.fault(name, "GET .*/data/", times=1) as rule:
                    whole(download(srv, content.digest()), data)
                    assert rule.met == 1
            else:
                whole(download(srv, content.digest()), data)
            assert s3.count[key] - before <= at_most, f"{name}: {s3.count[key] - before} requests"


def test_slow_readers_get_their_bytes_and_none_that_were_read_ahead():
    """A download has two pieces of memory, which get smaller the more downloads there are. A small one is sent whole and
    done with long before the socket has taken its end: until then nothing may be read into it."""
    content = Content(8 * MIB, 5)
    with faulty(server__max_memory="32M") as (s3, srv), ExitStack() as stack:
        store(srv, content.read(0, content.size))
        readers = [stack.enter_context(srv.connect(rcvbuf=65536, timeout=60)) for _ in range(8)]
        for c in readers:
            c.send_head("GET", f"/api/blobs/{content.digest()}")
            assert c.read_head().status == 200
        for at in range(0, content.size, 65536):
            for n, c in enumerate(readers):
                parts = []
                c.stream_body(65536, parts.append)
                assert b"".join(parts) == content.read(at, 65536), f"reader {n} got other bytes at {at}"
            time.sleep(0.02)


# -- listings that do not show what is there


def lose_sessions(sessions):
    for file in sessions.iterdir():
        file.unlink()


STAGING = r"GET .*list-type=2.*staging"


def test_listings_that_lie_give_up_nothing():
    """While listings show nothing, or never end, an upload is answered 503; it is whole when they are well again."""
    for seed, (size, fault) in enumerate(((MIB, "empty-list"), (7 * MIB, "empty-list"), (MIB, "same-page"))):
        content = Content(size + 1000, seed)
        with faulty(**SWEEPING) as (s3, srv):
            up = Upload(srv, mode="offset")
            accepted(up.append(content.read(0, size)), 203, size, up)
            with s3.fault(fault, STAGING) as rule:
                for _ in range(2):
                    for answer in (up.append(content.read(size, 1000)), up.complete(content.digest())):
                        assert answer.status == 503 and int(answer["Retry-After"]) >= 1, answer
                time.sleep(2)  # sweeps that take what no upload knows
                assert rule.met
            assert up.status().status == 204 and up.offset == size, up.offset
            finish(srv, up, content)


def test_listings_that_lie_reset_no_upload_whose_session_is_lost():
    """Neither to nothing, nor to an earlier state."""
    for seed, lie in enumerate(("empty-list", "cut-list")):
        content = Content(MIB, seed)
        sessions = temp_dir()
        with faulty(sessions__path=str(sessions / "sessions.db")) as (s3, srv):
            up = Upload(srv, mode="offset")
            for at in (0, 1000, 2000, 3000):
                accepted(up.append(content.read(at, 1000)), 203, at + 1000, up)
            srv.stop()
            lose_sessions(sessions)
            with s3.fault(lie, STAGING):
                srv.start()
                if lie == "empty-list":
                    refused(up.status(), "UNAVAILABLE")
                    refused(up.append(content.read(4000, 10)), "UNAVAILABLE")
                else:  # asked again behind its end it goes on
                    assert up.status().status == 503 or up.offset == 4000, up.offset
            assert up.status().status == 204 and up.offset == 4000, up.offset
            finish(srv, up, content)


FILES = r"GET .*list-type=2.*files"


def test_listings_that_lie_let_no_named_blob_go():
    """Of two files of one content one is destroyed while listings show neither: the other keeps it, and no download of
    what has a file is 404."""
    data = [Content(1000, seed).read(0, 1000) for seed in range(2)]
    with faulty(sessions__timeout="1s", **SWEEPING) as (s3, srv):
        destroyed, *kept = store(srv, data[0]), store(srv, data[0]), store(srv, data[1])
        with s3.fault("empty-list", FILES) as rule:
            assert srv.post(f"/api/files/{destroyed['id']}/destroy").status == 204
            time.sleep(3.5)
            assert rule.met > 3, rule.met
            for content in data:
                answer = download(srv, sha256(content))
                assert answer.status in (200, 503), f"{answer.status} to what has a file"
        for made, content in zip(kept, data):
            whole(download(srv, sha256(content)), content)
            assert srv.get(f"/api/files/{made['id']}").status == 200
        assert srv.post(f"/api/files/{kept[0]['id']}/destroy").status == 204
        wait_for(lambda: not [k for k in s3.objects if "/data/" in k][1:], 20, what="what no file names to go")


def test_listings_that_lie_hide_no_file():
    """The index is rebuilt while listings show nothing, or two: /api/files is 503 or whole, and whole afterwards."""
    for lie in ("empty-list", "cut-list"):
        sessions = temp_dir()
        with faulty(sessions__path=str(sessions / "sessions.db"), **SWEEPING) as (s3, srv):
            made = [store(srv, b"%d" % n) for n in range(4)]
            srv.stop()
            lose_sessions(sessions)
            with s3.fault(lie, FILES) as rule:
                srv.start()
                for _ in range(6):
                    answer = srv.get("/api/files")
                    if lie == "empty-list" or answer.status != 200:
                        refused(answer, "UNAVAILABLE")
                    else:  # asked again behind its end it goes on
                        assert answer.json()["count"] == len(made), answer
                    time.sleep(0.3)
                assert rule.met
            wait_for(lambda: srv.get("/api/files").status == 200, 10, what="the index to be whole")
            listed = {file["id"] for file in srv.get("/api/files").json()["items"]}
            assert listed == {file["id"] for file in made}, listed


# -- a body that is rolled back


def rolled_back(srv, data, first):
    """An upload of which `first` bytes are acknowledged, and a complete whose digest its body does not have."""
    up = Upload(srv, mode="offset")
    accepted(up.append(data[:first]), 203, first, up)
    return up, Beside(up.complete, sha256(b"other"), data[first:])


def test_roll_back_is_told_once_it_is_durable():
    """What was staged of the body goes before the answer; afterwards the node may die, and every session with it."""
    data = Content(800_000, 5).read(0, 800_000)
    sessions = temp_dir()
    with faulty(uploads__checkpoint_bytes="64K", sessions__path=str(sessions / "sessions.db")) as (s3, srv):
        for lost in (False, True):
            with s3.fault("held", "DELETE .*/staging/.*/s/", times=1) as rule:
                up, completing = rolled_back(srv, data, 100_000)
                assert rule.held.wait(20), "nothing staged was deleted"
                time.sleep(0.5)
                assert completing.is_alive(), f"told before it was durable: {completing.result()}"
                rule.released.set()
                refused(completing.result(), "DIGEST_INVALID")
            srv.kill()
            if lost:
                lose_sessions(sessions)
            srv.start()
            assert up.status().status == 204 and up.offset == 100_000, up.offset
            accepted(up.append(data[100_000:]), 203, len(data), up)
            created(up.complete(sha256(data)), sha256(data), len(data))
            whole(download(srv, sha256(data)), data)


def test_listings_that_lie_leave_nothing_of_a_body_that_was_rolled_back():
    data = Content(800_000, 7).read(0, 800_000)
    sessions = temp_dir()
    with faulty(uploads__checkpoint_bytes="64K", sessions__path=str(sessions / "sessions.db")) as (s3, srv):
        up = Upload(srv, mode="offset")
        accepted(up.append(data[:100_000]), 203, 100_000, up)
        with up.begin("complete", length=700_000, digest=sha256(b"other")) as c:
            c.send(data[100_000:-1])
            time.sleep(0.5)  # the writer is open, and its checkpoints are there
            with s3.fault("cut-list", STAGING) as rule:
                c.send(data[-1:])
                answer = c.read_response()
                assert rule.met and answer.status in (400, 503), answer
        srv.kill()
        if answer.status == 400:
            lose_sessions(sessions)
        srv.start()
        assert up.status().status == 204 and up.offset == 100_000, up.offset
        accepted(up.append(data[100_000:]), 203, len(data), up)
        created(up.complete(sha256(data)), sha256(data), len(data))


def test_node_that_dies_amid_a_roll_back_leaves_an_upload_to_go_on_with():
    """With its session, and without any: from the offset that is told then, with the bytes that were sent."""
    data = Content(800_000, 6).read(0, 800_000)
    sessions = temp_dir()
    with faulty(uploads__checkpoint_bytes="64K", sessions__path=str(sessions / "sessions.db")) as (s3, srv):
        for lost in (False, True):
            with s3.fault("held", "DELETE .*/staging/.*/s/", times=1) as rule:
                up, completing = rolled_back(srv, data, 100_000)
                assert rule.held.wait(20), "nothing staged was deleted"
                srv.kill()
                completing.join()
            time.sleep(0.3)  # the request is done, the others were never sent
            if lost:
                lose_sessions(sessions)
            srv.start()
            assert up.status().status == 204 and up.offset >= 100_000 and (lost or up.offset == 100_000), up.offset
            told = up.offset
            if lost:  # once more
                srv.kill()
                lose_sessions(sessions)
                srv.start()
                assert up.status().status == 204 and up.offset == told, f"{up.offset} after {told}"
            if told < len(data):
                accepted(up.append(data[told:]), 203, len(data), up)
            created(up.complete(sha256(data)), sha256(data), len(data))
            whole(download(srv, sha256(data)), data)


def test_state_that_arrives_wrong_resets_no_upload_whose_session_is_lost():
    content = Content(MIB, 8)
    sessions = temp_dir()
    with faulty(sessions__path=str(sessions / "sessions.db")) as (s3, srv):
        up = Upload(srv, mode="offset")
        accepted(up.append(content.read(0, 1000)), 203, 1000, up)
        srv.stop()
        for file in sessions.iterdir():
            file.unlink()
        with s3.fault("wrong-bytes", "GET .*/staging/.*/s/") as rule:
            srv.start()
            refused(up.status(), "UNAVAILABLE")
            refused(up.append(content.read(1000, 10)), "UNAVAILABLE")
            assert rule.met >= 2, rule.met
        with s3.fault("wrong-bytes", "GET .*/staging/.*/s/", times=1) as rule:
            accepted(up.status(), 204, 1000, up)
            assert rule.met == 1, rule.met
        finish(srv, up, content)


# -- a removal whose requests come late


def pointer_of(s3, digest):
    return next((k for k in s3.objects if k.endswith(f"/{digest}.json") and "/blobs/" in k), None)


def age_tombstone(s3, digest, ms):
    """As if whoever removes the blob had been silent for so long."""
    key = pointer_of(s3, digest)
    pointer = json.loads(s3.objects[key])
    assert pointer["removing"], pointer
    pointer["touched_ms"] -= ms
    s3.objects[key] = json.dumps(pointer).encode()
    s3.modified[key] -= ms / 1000


def removed_with_held_deletes(s3, srv, data, pattern):
    """Stores and destroys; returns the rule that holds the first DELETE which the pattern finds, once there is one."""
    made = store(srv, data)
    holding = s3.fault("held", pattern, times=1)
    rule = holding.__enter__()
    assert srv.post(f"/api/files/{made['id']}/destroy").status == 204
    assert rule.held.wait(20), "nothing was deleted"
    return holding, rule


def test_late_steps_of_a_removal_do_not_reach_content_that_was_stored_again():
    """Whichever DELETE of a sweep takes effect late: the content that is stored meanwhile stays, and can be read."""
    for seed, pattern in enumerate(("DELETE .*/(blobs|data)/", "DELETE .*/data/")):
        data = Content(1000, seed).read(0, 1000)
        with faulty(**SWEEPING) as (s3, srv):
            holding, rule = removed_with_held_deletes(s3, srv, data, pattern)
            if seed == 0:
                age_tombstone(s3, sha256(data), 60_000)
            again = store(srv, data)
            rule.released.set()
            time.sleep(2)  # the late step, and some more sweeps
            holding.__exit__(None, None, None)
            whole(download(srv, sha256(data)), data)
            assert srv.get(f"/api/files/{again['id']}").status == 200
            assert len([k for k in s3.objects if "/data/" in k]) == 1, s3.objects.keys()


def test_late_end_of_a_tombstone_holds_up_nothing_and_takes_nothing_with_it():
    """The answer to the DELETE of a tombstone is lost: it may take effect at any time. The content is stored at the next
    request, and is there before and after."""
    data = Content(1000, 3).read(0, 1000)
    with faulty(**SWEEPING) as (s3, srv):
        holding, rule = removed_with_held_deletes(s3, srv, data, "DELETE .*/blobs/")
        made = store(srv, data)
        whole(download(srv, sha256(data)), data)
        assert pointer_of(s3, sha256(data))
        rule.released.set()
        wait_for(lambda: not pointer_of(s3, sha256(data)), what="the late DELETE")
        holding.__exit__(None, None, None)
        whole(download(srv, sha256(data)), data)
        wait_for(lambda: pointer_of(s3, sha256(data)), what="the pointer to be put back")
        time.sleep(2)
        whole(download(srv, sha256(data)), data)
        srv.stop()
        srv.start()
        whole(download(srv, sha256(data)), data)
        assert srv.get(f"/api/files/{made['id']}").status == 200
        # When it can happen no more the copy goes.
        for key in [k for k in s3.objects if f"/{sha256(data)}." in k]:
            pointer = json.loads(s3.objects[key])
            s3.objects[key] = json.dumps(pointer | {"doubted_ms": pointer["doubted_ms"] - 3_600_000}).encode()
            s3.modified[key] -= 3600
        wait_for(lambda: not [k for k in s3.objects if k.endswith(".again.json")], 10, what="the copy to go")
        wait_for(lambda: b"doubted" not in s3.objects[pointer_of(s3, sha256(data))], 10, what="the doubt to end")
        whole(download(srv, sha256(data)), data)


def test_tombstones_are_cleared_away():
    data = Content(1000, 4).read(0, 1000)
    with faulty(**SWEEPING) as (s3, srv):
        with s3.fault("internal", "DELETE .*/blobs/", times=1) as rule:
            made = store(srv, data)
            assert srv.post(f"/api/files/{made['id']}/destroy").status == 204
            wait_for(lambda: rule.met, timeout=20, what="an attempt to clear the tombstone")
        time.sleep(1)
        age_tombstone(s3, sha256(data), 3_600_000)  # what became of that attempt is certain only then
        wait_for(lambda: not pointer_of(s3, sha256(data)), timeout=20, what="the tombstone to go")


def test_what_a_killed_node_left_of_a_completed_upload_goes_within_a_sweep():
    content = Content(2 * MIB, 8)
    with faulty(**SWEEPING) as (s3, srv):

        def staged():
            return [k for k in s3.objects if "/staging/" in k]

        up = Upload(srv, mode="offset")
        for at in (0, MIB):
            accepted(up.append(content.read(at, MIB)), 203, at + MIB, up)
        with s3.fault("held", r"DELETE .*/staging/.*\.0000000000100000$") as rule:  # the newest has gone before
            completing = Beside(up.complete, content.digest())
            assert rule.held.wait(20)
            left = {key: s3.objects[key] for key in staged()}
            srv.kill()
            completing.join()
        assert left
        s3.objects.update(left)  # should the held one have come through
        srv.start()
        created(up.complete(content.digest()), content.digest(), content.size)
        wait_for(lambda: not staged(), timeout=10, what="what was left to go")
        for name in ("s/ffffffffffffffff.00000001.0000000000000000", "a", "l"):  # of a node that wrote late
            s3.objects[f"{srv.options()['storage.s3.prefix']}/staging/{up.id}/{name}"] = b"x" * 2048
        wait_for(lambda: not staged(), timeout=10, what="what came late to go")
        whole(download(srv, content.digest()), content.read(0, content.size))


# -- a real endpoint that stalls and dies


def download_slowly(srv, digest, size, began):
    """Takes a megabyte, says so, and takes the rest; returns the bytes."""
    parts = []
    with srv.connect(timeout=60) as c:
        c.send_head("GET", f"/api/blobs/{digest}")
        head = c.read_head()
        assert head.status == 200, head
        c.stream_body(MIB, parts.append)
        began.set()
        time.sleep(1)
        c.stream_body(size - sum(map(len, parts)), parts.append)
    return b"".join(parts)


class Beside(threading.Thread):
    """Calls a function in a thread; result() waits, and raises what it raised."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args, self.value, self.error = function, args, None, None
        self.start()

    def run(self):
        try:
            self.value = self.function(*self.args)
        except BaseException as e:
            self.error = e

    def result(self, timeout=60):
        self.join(timeout)
        assert not self.is_alive(), "not finished"
        if self.error:
            raise self.error
        return self.value


def append_slowly(up, data, began):
    with up.begin(length=len(data)) as c:
        c.timeout = 90
        c.send(data[:len(data) // 2])
        began.set()
        time.sleep(1)
        c.send(data[len(data) // 2:])
        return up.note(c.read_response())


def both_ways(srv, stored, content, interrupt):
    """An append and a download, and while both are under way: interrupt(). Returns the upload, and both to wait for."""
    up = Upload(srv, mode="offset")
    accepted(up.append(content.read(0, 9 * MIB)), 203, 9 * MIB, up)
    appending, downloading = threading.Event(), threading.Event()
    a = Beside(append_slowly, up, content.read(9 * MIB, content.size), appending)
    d = Beside(download_slowly, srv, stored.digest(), stored.size, downloading)
    assert appending.wait(20) and downloading.wait(20)
    interrupt()
    return up, a, d


def finish(srv, up, content):
    """Goes on from where the server says the upload is."""
    assert up.status().status == 204
    if up.offset < content.size:
        accepted(up.append(content.read(up.offset, content.size)), 203, content.size, up)
    created(up.complete(content.digest()), content.digest(), content.size)
    whole(download(srv, content.digest()), content.read(0, content.size))


def test_rgw_stopped_for_5_s_amid_an_append_and_a_download():
    stored, content = Content(40 * MIB, 1), Content(41 * MIB, 2)
    with on_rgw() as (s3, srv):
        store(srv, stored.read(0, stored.size))

        def stop():
            s3.signal("rgw", signal.SIGSTOP)
            threading.Timer(5, s3.signal, ("rgw", signal.SIGCONT)).start()

        up, appending, downloading = both_ways(srv, stored, content, stop)
        accepted(appending.result(), 203, content.size, up)
        assert downloading.result() == stored.read(0, stored.size)
        finish(srv, up, content)


def test_rgw_killed_amid_an_append_and_a_download_and_restarted():
    stored, content = Content(40 * MIB, 3), Content(41 * MIB, 4)
    with on_rgw(storage__s3__retry_timeout="20s") as (s3, srv):
        store(srv, stored.read(0, stored.size))
        up, appending, downloading = both_ways(srv, stored, content, s3.kill_gateway)
        time.sleep(2)
        s3.start_gateway()
        answer = appending.result()
        assert answer.status in (203, 503), answer
        try:
            assert downloading.result() == stored.read(0, stored.size)
        except Closed:
            pass
        finish(srv, up, content)


def test_rgw_that_stays_away_is_a_503_and_all_goes_on_when_it_is_back():
    stored, content = Content(40 * MIB, 5), Content(41 * MIB, 6)
    with on_rgw(storage__s3__retry_timeout="2s") as (s3, srv):
        store(srv, stored.read(0, stored.size))
        up, appending, downloading = both_ways(srv, stored, content, s3.kill_gateway)
        refused(appending.result(), "UNAVAILABLE")
        try:
            got = downloading.result()
            raise AssertionError(f"a clean end with {len(got)} bytes")
        except Closed:
            pass
        for answer in (download(srv, stored.digest()), up.complete(content.digest()), srv.post("/api/blobs/uploads")):
            refused(answer, "UNAVAILABLE")
            assert int(answer["Retry-After"]) >= 1, answer
        assert srv.admin("/readyz").status == 503
        assert srv.admin("/healthz").status == 200
        s3.start_gateway()
        finish(srv, up, content)
        whole(download(srv, stored.digest()), stored.read(0, stored.size))


test_passing_faults_are_ridden_out.timeout = 180
test_rgw_stopped_for_5_s_amid_an_append_and_a_download.timeout = 120
test_rgw_killed_amid_an_append_and_a_download_and_restarted.timeout = 120
test_rgw_that_stays_away_is_a_503_and_all_goes_on_when_it_is_back.timeout = 120
