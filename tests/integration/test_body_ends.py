"""A body can end in many ways, and each has its own answer. Whatever the way, what arrived of it is kept unless the answer
says otherwise, the answer tells where the upload stands, and nothing is completed by a body that did not come whole."""

import signal
import time

from api import accepted, created, mismatch, refused
from harness import Blobd
from uploader import Upload, sha256
from wire import wait_for

SMALL, LARGE = 1000, 400000  # read before a worker is asked, and after
STALLS = {"server.idle_timeout": "1s", "server.head_timeout": "5s"}


def begun(srv, sent, length=None, operation="append", mode="offset", **query):
    """An upload whose append or complete has begun: a body of that length (None: chunked) of which `sent` bytes came."""
    up = Upload(srv, mode=mode)
    if operation == "complete":
        query.setdefault("digest", sha256(b"x" * (length or 2 * sent)))
    c = up.begin(operation, length=length, **query)
    if length is None and sent:
        c.send(b"%x\r\n" % (sent + 1) + b"x" * sent)
    elif sent:
        c.send(b"x" * sent)
    return up, c


def every_kind(srv):
    """[(upload, connection, bytes that came)]: small and large, of known length and chunked, of appends and completes, cut
    before the first byte and behind it."""
    kinds = []
    for operation in ("append", "complete"):
        for total in (SMALL, LARGE):
            for sent in (0, 1, total // 2, total - 1):
                kinds.append((*begun(srv, sent, total, operation), sent))
        for sent in (0, 1, LARGE):
            kinds.append((*begun(srv, sent, None, operation), sent))
    return kinds


def told(answer, code, up, offset):
    """Refused, the connection at its end; and where the answer tells the offset, it is the true one."""
    refused(answer, code)
    assert answer.closes, answer
    if offset or "Upload-Offset" in answer:
        assert answer["Upload-Offset"] == str(offset), (offset, answer)
        assert answer["PortSIP-Upload-Token"], answer
    accepted(up.status(), 204, offset, up)


def goes_on(up, sent):
    """The upload is as usable as if nothing had happened."""
    accepted(up.append(b"y" * 10), 203, sent + 10, up)
    data = b"x" * sent + b"y" * 10
    created(up.complete(sha256(data)), sha256(data), len(data))


# ---- the client ------------------------------------------------------------------------------------------------------

def test_stalled_body_is_408_and_keeps_its_bytes():
    with Blobd(STALLS) as srv:
        began = time.monotonic()
        kinds = every_kind(srv)
        for up, c, sent in kinds:
            told(c.read_response(), "REQUEST_TIMEOUT", up, sent)
            assert c.ended(10)
        assert 0.9 < time.monotonic() - began < 20
        assert srv.get("/api/files").json()["count"] == 0
        goes_on(kinds[5][0], kinds[5][2])
        lines = [line for line in srv.log().splitlines() if "status=408" in line]
        assert len(lines) == len(kinds), lines
        assert all("method=POST" in line and "identity=alice" in line for line in lines), lines
        assert any(f"bytes_in={LARGE - 1} " in line for line in lines), lines
        assert "status=400" not in srv.log()


def test_body_that_stalls_after_100_continue_is_408():
    with Blobd(STALLS) as srv:
        up = Upload(srv)
        c = up.begin(length=SMALL, headers={"Expect": "100-continue"})
        assert c.read_response(stop_at_interim=True).status == 100
        told(c.read_response(), "REQUEST_TIMEOUT", up, 0)


def test_stalled_and_cut_bodies_are_told_apart_over_tls():
    with Blobd(STALLS, tls=True) as srv:
        stalled = [begun(srv, n, LARGE) for n in (0, 1, LARGE // 2)]
        _, cut = begun(srv, 5000, LARGE)
        cut.close()
        for n, (up, c) in zip((0, 1, LARGE // 2), stalled):
            told(c.read_response(), "REQUEST_TIMEOUT", up, n)
        wait_for(lambda: "status=400" in srv.log(), what="the access line of the cut one")


def test_body_that_pauses_for_less_than_idle_timeout_is_taken():
    with Blobd({"server.idle_timeout": "2s"}) as srv:
        up, c = begun(srv, 0, 4)
        for byte in b"slow":
            time.sleep(0.7)
            c.send(bytes([byte]))
        accepted(c.read_response(), 203, 4, up)


def test_body_cut_by_its_client_is_400_where_that_can_still_be_told():
    with Blobd() as srv:
        kinds = every_kind(srv)
        for up, c, sent in kinds:
            c.half_close()
            told(c.read_response(), "BAD_REQUEST", up, sent)
            assert c.ended(10)
        assert srv.get("/api/files").json()["count"] == 0
        goes_on(kinds[5][0], kinds[5][2])
        assert "status=408" not in srv.log()


def test_body_whose_chunks_are_broken_is_400():
    with Blobd() as srv:
        for operation in ("append", "complete"):
            up, c = begun(srv, 0, None, operation, digest=sha256(b"abc"))
            c.send(b"3\r\nabc\r\nnonsense\r\n")
            answer = c.read_response()
            assert "chunk" in refused(answer, "BAD_REQUEST")["message"], answer
            told(answer, "BAD_REQUEST", up, 3)
            assert c.ended(10)


def test_chunked_body_that_grows_too_large_is_413():
    with Blobd({"uploads.max_size": "100K", **STALLS}) as srv:
        for operation in ("append", "complete"):
            up, c = begun(srv, 0, None, operation, digest=sha256(b""))
            for _ in range(3):
                c.send_chunk(b"x" * 50000)
            refused(c.read_response(), "SIZE_LIMIT_EXCEEDED")  # at once: it sends nothing more, and does not stall
            assert c.ended(10)
            assert up.status().status == 204 and up.offset <= 100 << 10
            up, c = begun(srv, 0, None, operation, digest=sha256(b""))
            c.send(b"%x\r\n" % 150000 + b"x" * 150000 + b"\r\nnonsense\r\n")
            refused(c.read_response(), "SIZE_LIMIT_EXCEEDED")  # which came before the framing broke


def test_body_unlike_its_range_or_digest_is_400_and_rolled_back():
    with Blobd() as srv:
        up = Upload(srv)
        c = up.begin(headers={"Content-Range": "bytes 0-9/*"})
        c.send(b"5\r\nhello\r\n0\r\n\r\n")
        refused(c.read_response(), "VALIDATE_FAILED", "Content-Range")
        accepted(up.status(), 204, 0, up)
        refused(up.complete(sha256(b"other"), b"hello"), "DIGEST_INVALID")
        accepted(up.status(), 204, 0, up)


def test_repeat_that_does_not_come_whole_adds_nothing():
    """An older token says that this is the last chunk again: cut or stalled, it is neither that nor a new one."""
    with Blobd(STALLS) as srv:
        for end, code in ((lambda c: None, "REQUEST_TIMEOUT"), (lambda c: c.half_close(), "BAD_REQUEST")):
            up = Upload(srv)
            accepted(up.append(b"one "), 203, 4, up)
            old = up.token
            accepted(up.append(b"two"), 203, 7, up)
            c = up.begin(length=3, headers={"PortSIP-Upload-Token": old})
            c.send(b"tw")
            end(c)
            told(c.read_response(), code, up, 7)
            mismatch(up.append(b"twx", {"PortSIP-Upload-Token": old}), 7)
            created(up.complete(sha256(b"one two")), sha256(b"one two"), 7)


# ---- other requests --------------------------------------------------------------------------------------------------

def test_stopped_body_is_409_or_404_by_what_stopped_it():
    with Blobd() as srv:
        def newer_append(up):
            accepted(up.append(b"y" * 5), 203, 505, up)

        def complete(up):
            created(up.complete(sha256(b"x" * 500)), sha256(b"x" * 500), 500)

        def destroy(up):
            assert up.destroy().status == 204

        stops = ((newer_append, "UPLOAD_SUPERSEDED"), (complete, "UPLOAD_SUPERSEDED"), (destroy, "UPLOAD_UNKNOWN"))
        cases = [(stop, code, *begun(srv, 500, total)) for stop, code in stops for total in (SMALL, LARGE, None)]
        for _, _, up, _ in cases:
            wait_for(lambda: up.status() and up.offset == 500, what="the checkpoint")
        for stop, code, up, c in cases:
            stop(up)
            answer = c.read_response()
            refused(answer, code)
            assert code == "UPLOAD_SUPERSEDED" or "Upload-Offset" not in answer, answer
            assert answer.closes and c.ended(10), answer


def test_body_that_never_came_stops_no_newer_append():
    """A client whose link died under the head begins again on another. When the first is found dead, it is over, not new."""
    with Blobd({"server.idle_timeout": "2s"}) as srv:
        retried = []
        for end in (lambda c: c.close(), lambda c: c.half_close(), lambda c: None):
            up, dead = begun(srv, 0, SMALL, mode="fixed")
            newer = up.begin(length=LARGE)
            newer.send(b"n" * 1000)
            retried.append((up, newer, dead, end))
        time.sleep(0.3)
        for _, _, dead, end in retried:
            end(dead)
        for _ in range(12):  # until the silent one has stalled; the newer ones do not
            time.sleep(0.2)
            for _, newer, _, _ in retried:
                newer.send(b"n" * 1000)
        for up, newer, _, _ in retried:
            newer.send(b"n" * (LARGE - 13000))
            accepted(newer.read_response(), 203, LARGE, up)
            created(up.complete(sha256(b"n" * LARGE)), sha256(b"n" * LARGE), LARGE)


# ---- the server ------------------------------------------------------------------------------------------------------

def test_bodies_under_way_when_the_drain_ends_are_503_and_kept():
    with Blobd({"server.drain_timeout": "2s"}) as srv:
        kinds = every_kind(srv)
        kinds = [k for k in kinds if k[2] > 0] + [k for k in kinds if k[2] == 0]
        for up, _, sent in kinds:
            wait_for(lambda: up.status() and up.offset == sent, what="the checkpoint")
        srv.signal(signal.SIGTERM)
        for up, c, sent in kinds:
            answer = c.read_response()
            refused(answer, "UNAVAILABLE")
            assert answer.closes and int(answer["Retry-After"]) >= 1, answer
            assert answer.header("Upload-Offset") in (str(sent), None if sent == 0 else ""), answer
        srv.wait(20)
        srv.start()
        for up, _, sent in kinds:
            accepted(up.status(), 204, sent, up)
        goes_on(kinds[0][0], kinds[0][2])
