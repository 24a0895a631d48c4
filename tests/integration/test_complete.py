"""A complete that names no digest: the same answers as with it, over every body, store, restart and lost session."""

import harness
from api import accepted, created, refused, whole
from cluster import Cluster
from crashload import LOST
from harness import Blobd
from s3_bucket import Bucket, endpoint
from test_crash import faults_binary
from uploader import MODES, Content, Upload, download, sha256

BIG = 3 << 20  # more than is read before anything is asked of a worker


def pieces(data, size=70000):
    return [data[at:at + size] for at in range(0, len(data), size)]


def ways():
    """(what is appended before, what the complete brings, how it is sent)"""
    small, big = b"hello, world", Content(BIG, 7).read(0, BIG)
    for data in (small, big):
        for split in (0, 5, len(data)):
            yield data[:split], data[split:], {}
            yield data[:split], data[split:], {"chunked": True}
            if split < len(data):
                yield data[:split], data[split:], {"expect": True}
    yield b"", b"", {}


def complete_by(srv, digest, up, body, how):
    if how.get("chunked"):
        return up.complete(digest, pieces(body), chunked=True)
    return up.complete(digest, body or None, **how)


def repeats(up, data, body, how, ident):
    for digest in (None, sha256(data)):
        for answer in (complete_by(up.srv, digest, up, body, how), up.complete(digest)):
            assert created(answer, sha256(data), len(data), "a.wav")["id"] == ident, answer
    refused(up.complete("0" * 64), "DIGEST_INVALID")
    refused(up.complete(""), "DIGEST_INVALID")


def complete_all_ways(srv, step=1):
    done = []
    for number, (before, body, how) in list(enumerate(ways()))[::step]:
        before = before and before[:-1] + bytes([number])  # else it is all one content
        data = before + body
        up = Upload(srv, filename="a.wav", mode=MODES[number % 3])
        if before:
            accepted(up.append(before), 203, len(before), up)
        answer = created(complete_by(srv, None, up, body, how), sha256(data), len(data), "a.wav")
        whole(download(srv, sha256(data)), data)
        done.append((up, data, body, how, answer["id"]))
    return done


def test_complete_needs_no_digest():
    with Blobd() as srv:
        for up in complete_all_ways(srv):
            repeats(*up)


def lose_sessions(srv):
    srv.kill()
    for file in srv.root.glob("sessions.db*"):
        file.unlink()
    srv.start()


def recoveries(options, step):
    with Blobd(options) as srv:
        done = complete_all_ways(srv, step)
        srv.restart(hard=True)
        for up in done:
            repeats(*up)
        lose_sessions(srv)
        for up in done:
            repeats(*up)


def test_complete_without_digest_is_repeated_after_kills_and_lost_sessions():
    harness.with_embedded_sessions()
    recoveries({}, 3)


def test_complete_without_digest_on_s3():
    harness.with_embedded_sessions()
    with endpoint() as s3:
        place = Bucket(s3)
        recoveries(place.options(storage__s3__part_size="5M"), 4)


def test_complete_without_digest_in_a_cluster():
    with Cluster() as c:
        srv = c.nodes[0]
        done = complete_all_ways(srv, 3)
        for number in (1, 0):
            for up, *rest in done:
                up.srv = c.nodes[number]
                repeats(up, *rest)
            c.redis.command("FLUSHALL")


# ---- killed half-way -----------------------------------------------------------------------------------------------

# Before the upload's record, before the blob, between blob and file record, between that and the session.
POINTS = ["store.record_put=kill:1", "store.commit=kill:0", "store.record_put=kill:2", "sessions.index_put=kill:0"]


def killed_in_complete(srv, point, split, number):
    """An upload whose complete, without a digest, met a kill there."""
    srv.stop()
    srv.env["BLOBD_FAULTS_ARM"] = point
    srv.start()
    data = Content(40000, number).read(0, 40000)
    up = Upload(srv, mode="offset", filename="a.wav")
    if split:
        accepted(up.append(data[:split]), 203, split, up)
    try:
        up.complete(None, data[split:] or None)
    except LOST:
        pass
    assert srv.wait(20) is not None, point
    del srv.env["BLOBD_FAULTS_ARM"]
    return up, data


def kills(options, step=1):
    cases = [(p, s) for p in POINTS for s in (0, 10000, 40000)][::step]
    with Blobd(options, binary=faults_binary()) as srv:
        for number, (point, split) in enumerate(cases):
            up, data = killed_in_complete(srv, point, split, number)
            if number % 2:
                for file in srv.root.glob("sessions.db*"):
                    file.unlink()
            srv.start()
            where = f"{point}, {split} bytes before"
            assert up.status().status == 204, where
            assert up.offset >= split, (where, up.offset)
            rest = data[up.offset:]
            answer = created(up.complete(None, rest or None), sha256(data), len(data))
            whole(download(srv, sha256(data)), data)
            again = created(up.complete(sha256(data), rest or None), sha256(data), len(data))
            assert again["id"] == answer["id"], where
            assert srv.get("/api/files").json()["count"] == number + 1, where


def test_complete_without_digest_killed_at_each_step():
    harness.with_embedded_sessions()
    kills({})


def test_complete_without_digest_killed_at_each_step_without_journal():
    harness.with_embedded_sessions()
    harness.on_disk()
    kills({"storage.disk.journal": "false"}, 2)


def test_complete_without_digest_killed_at_each_step_on_s3():
    harness.with_embedded_sessions()
    with endpoint() as s3:
        kills(Bucket(s3).options(), 2)
