"""A complete that names no digest: the same answers as with it, over every body, store, restart and lost session. One that
brings no byte: it adds nothing, however its body is framed."""

import time

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


# ---- a body without a byte -----------------------------------------------------------------------------------------

# What a complete without a byte may look like: fields, and what follows the head, each part for itself.
EMPTY = {"no length": ({}, []),
         "length 0": ({"Content-Length": "0"}, []),
         "length 0, expect": ({"Content-Length": "0", "Expect": "100-continue"}, []),
         "chunked": ({"Transfer-Encoding": "chunked"}, [b"0\r\n\r\n"]),
         "chunked, adorned": ({"Transfer-Encoding": "chunked"}, [b"000;a=b\r\nX-Sum: 1\r\n\r\n"]),
         "chunked, late": ({"Transfer-Encoding": "chunked"}, [b"", b"0\r", b"\n\r\n"]),
         "chunked, expect": ({"Transfer-Encoding": "chunked", "Expect": "100-continue"}, [b"0\r\n\r\n"])}


def complete_as(up, how, token, offset=None, digest=None, first=b""):
    """A complete framed so; first: what its (chunked) body begins with."""
    fields, parts = EMPTY[how]
    fields = {"PortSIP-Upload-Token": token, **fields} | ({} if offset is None else {"Upload-Offset": str(offset)})
    with up.srv.connect() as c:
        c.send_head("POST", up.path("complete", digest=digest), up.srv.authorized(fields, up.who))
        if "Expect" in fields and parts:
            answer = c.read_response("POST", stop_at_interim=True)
            if answer.status != 100:
                return answer
        for part in parts:
            c.send(first + part)
            first = b""
            if len(parts) > 1:
                time.sleep(0.05)
        return up.note(c.read_response("POST"))


def two_chunks(srv, number):
    """A rotating client's upload of two chunks, and its tokens: the first, the one before the last, the last."""
    up = Upload(srv)
    tokens = [up.token]
    for data in (b"chunk one %d, " % number, b"chunk two"):
        assert up.append(data).status == 203
        tokens.append(up.token)
    return up, tokens, b"chunk one %d, chunk two" % number


def empty_completes(srv):
    number = 0
    for how in EMPTY:
        for at in range(3):
            for with_offset in (False, True):
                number += 1
                up, tokens, data = two_chunks(srv, number)
                case = f"{how}, token {at}, offset {with_offset}"
                offset = len(data) if with_offset else None
                refused(complete_as(up, how, tokens[at], len(data) - 1), "UPLOAD_OFFSET_MISMATCH")
                refused(complete_as(up, how, tokens[at], offset, digest="0" * 64), "DIGEST_INVALID")
                assert up.status().status == 204 and up.offset == len(data), case
                answer = complete_as(up, how, tokens[at], offset, digest=sha256(data) if number % 2 else None)
                assert answer.status == 201, f"{case}: {answer!r}"
                created(answer, sha256(data), len(data))
                created(complete_as(up, how, tokens[at], offset), sha256(data), len(data))


def bringing_completes(srv):
    """One byte makes the difference: then an older token is a repeat that cannot be told."""
    for number, how in enumerate(h for h in EMPTY if h.startswith("chunked")):
        up, tokens, data = two_chunks(srv, 1000 + number)
        for token in tokens[:2]:
            refused(complete_as(up, how, token, first=b"1\r\n!\r\n"), "UPLOAD_OFFSET_MISMATCH")
            assert up.status().status == 204 and up.offset == len(data), how
        data += b"!"
        created(complete_as(up, how, tokens[2], first=b"1\r\n!\r\n"), sha256(data), len(data))


def cut_before_the_first_byte(srv):
    """Also of bodies that are not told from empty ones yet."""
    up, tokens, data = two_chunks(srv, 2000)
    c = up.begin("complete", headers={"PortSIP-Upload-Token": tokens[1]})
    time.sleep(0.1)
    c.close()
    c = up.begin("complete", headers={"PortSIP-Upload-Token": tokens[1]})
    c.send(b"no chunk\r\n")
    refused(c.read_response("POST"), "BAD_REQUEST")
    c.close()
    assert up.status().status == 204 and up.offset == len(data)
    # One that is not told from an empty one stops nobody, and can be stopped by nobody.
    c = up.begin("complete", headers={"PortSIP-Upload-Token": tokens[1]})
    time.sleep(0.1)
    assert up.append(b", and three").status == 203
    c.send(b"0\r\n\r\n")
    data += b", and three"
    created(c.read_response("POST"), sha256(data), len(data))
    c.close()


def test_complete_without_a_byte_adds_nothing_however_it_is_framed():
    with Blobd() as srv:
        empty_completes(srv)
        bringing_completes(srv)
        cut_before_the_first_byte(srv)


def repeats_by_token_alone(srv):
    """A chunk whose answer was lost, repeated by its token: the same 203, however it was sent the first time."""
    for number, mode in enumerate(("rotating", "offset")):
        for chunked in (False, True):
            up = Upload(srv, mode=mode)
            data = b""
            for size in (5, 70000, 300000):
                token = up.token if size > 5 else up.status()["PortSIP-Upload-Token"]
                chunk = Content(size, number).read(0, size)
                data += chunk
                assert up.append(chunk).status == 203
                for body in (chunk, [chunk[:-1], chunk[-1:]]):
                    again = up.http("POST", up.path("append"), {"PortSIP-Upload-Token": token}, body,
                                    chunked=chunked or body is not chunk)
                    accepted(again, 203, len(data), up)
                other = up.http("POST", up.path("append"), {"PortSIP-Upload-Token": token}, chunk[:-1] + b"?")
                refused(other, "UPLOAD_OFFSET_MISMATCH")
                up.note(other)
            created(up.complete(sha256(data)), sha256(data), len(data))


def test_repeat_by_token_alone_of_a_chunk_sent_in_any_manner():
    with Blobd() as srv:
        repeats_by_token_alone(srv)


def test_empty_completes_and_repeats_by_token_on_s3():
    harness.with_embedded_sessions()
    with endpoint() as s3, Blobd(Bucket(s3).options(storage__s3__part_size="5M")) as srv:
        empty_completes(srv)
        bringing_completes(srv)
        cut_before_the_first_byte(srv)
        repeats_by_token_alone(srv)
