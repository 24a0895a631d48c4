"""A thousand phones on bad links at once, and readers that take little of what they asked for: on little memory."""

import resource
import selectors
import time
from contextlib import ExitStack

from api import created, whole
from harness import STORAGE, Blobd, Skip
from uploader import Content, Upload, download, sha256, store
from wire import Connection, wait_for

MIB = 1 << 20
SHARE = 65536  # bytes a second each
TURNS = 20     # in a second
# The disk takes what arrives. What S3 has not taken yet is held in S3's half of server.max_memory, which is 512M by default;
# and each of up to 64 connections to it has two buffers of 256 KiB.
LIMIT = (40 if STORAGE == "disk" else 40 + 256 + 32) * MIB


def slow_uploads(count, seconds, tls=False):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 200:
        raise Skip(f"only {hard} file descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    size = SHARE * seconds
    with Blobd({"log.access": "false"}, tls=tls) as srv:
        with srv.connect(timeout=60) as control:
            ups = [Upload(srv, mode="offset", connection=control, filename=f"{i}") for i in range(count)]
            contents = [Content(size, i).read(0, size) for i in range(count)]
            conns = []
            for up in ups:
                conns.append(up.begin(length=size))
            worst, began = 0, time.monotonic()
            for turn in range(seconds * TURNS):  # each sends once a second, at a moment of its own
                second = turn // TURNS
                for c, data in zip(conns[turn % TURNS::TURNS], contents[turn % TURNS::TURNS]):
                    c.send(data[second * SHARE:(second + 1) * SHARE])
                worst = max(worst, srv.rss())
                time.sleep(max(0, began + (turn + 1) / TURNS - time.monotonic()))
            waiting = selectors.DefaultSelector()
            for c, up in zip(conns, ups):
                waiting.register(c.sock, selectors.EVENT_READ, (c, up))
            answered, end = 0, time.monotonic() + 60
            while answered < count and time.monotonic() < end:
                for key, _ in waiting.select(1):
                    c, up = key.data
                    answer = up.note(c.read_response())
                    assert answer.status == 203 and up.offset == size, answer
                    waiting.unregister(c.sock)
                    c.close()
                    answered += 1
            assert answered == count, f"{answered} of {count} answered"
            for up, data in zip(ups, contents):
                created(up.complete(sha256(data)), sha256(data), size)
        print(f"{count} slow uploads: {worst / MIB:.1f} MiB while slow, peak {srv.peak_rss() / MIB:.1f} MiB")
        assert srv.peak_rss() < LIMIT, f"peak RSS {srv.peak_rss() / MIB:.1f} MiB"


def test_1000_slow_uploads_all_succeed_in_little_memory():
    slow_uploads(1000, 8)


def test_100_slow_uploads_over_tls_all_succeed_in_little_memory():
    slow_uploads(100, 4, tls=True)


MAX_MEMORY = 64 * MIB  # which is reckoned to carry 256 connections over TLS


def test_220_slow_readers_over_tls_stay_within_max_memory():
    data = Content(8 * MIB, 5).read(0, 8 * MIB)
    options = {"log.access": "false", "server.max_memory": str(MAX_MEMORY)}
    with Blobd(options, tls=True) as srv, ExitStack() as stack:
        store(srv, data)
        readers = []
        for _ in range(220):
            readers.append(stack.enter_context(srv.connect(rcvbuf=16384, timeout=60)))
            readers[-1].send_head("GET", f"/api/blobs/{sha256(data)}")
        for _ in range(2):  # what the first ones leave to the kernel, it takes
            for c in readers:
                assert c.sock.recv(4096)
            time.sleep(0.5)
        print(f"{len(readers)} slow readers: peak {srv.peak_rss() / MIB:.1f} of {MAX_MEMORY / MIB:.0f} MiB")
        assert srv.peak_rss() < MAX_MEMORY, f"peak RSS {srv.peak_rss() / MIB:.1f} MiB"
        whole(download(srv, sha256(data)), data)


test_220_slow_readers_over_tls_stay_within_max_memory.timeout = 120
test_220_slow_readers_over_tls_stay_within_max_memory.alone = True
test_1000_slow_uploads_all_succeed_in_little_memory.timeout = 180
test_1000_slow_uploads_all_succeed_in_little_memory.alone = True
test_100_slow_uploads_over_tls_all_succeed_in_little_memory.timeout = 90


LISTINGS_MEMORY = 32 * MIB
HELD = LISTINGS_MEMORY // 16  # of answers, for those who take them slowly


def slow_readers_of_listings(srv, count):
    """They ask for the largest page there is, and take nothing of it, but its head once all have asked: (how large it is,
    answers of 200, others)."""
    page, served, refused = len(srv.get("/api/files?top=100").body), [], []
    assert page > 60000, page
    with ExitStack() as stack:
        # Of loopback's segments of 64 KiB, the kernel would take some twenty, and nothing would be left to the server.
        readers = [stack.enter_context(srv.connect(rcvbuf=2048, mss=536, timeout=60)) for _ in range(count)]
        for c in readers:
            c.send_head("GET", "/api/files?top=100", srv.authorized({}, "alice"))
        for c in readers:
            answer = c.read_head()
            (served if answer.status == 200 else refused).append(answer)
        small = srv.get("/api/files?top=1")
        assert small.status == 200 and len(small.json()["items"]) == 1, small
        assert srv.peak_rss() < LISTINGS_MEMORY, f"peak RSS {srv.peak_rss() / MIB:.1f} MiB"
    return page, served, refused


def test_listings_that_slow_readers_leave_are_counted_and_more_are_503():
    options = {"log.access": "false", "server.max_memory": str(LISTINGS_MEMORY)}
    with Blobd(options) as srv:
        for i in range(100):
            store(srv, b"%d" % i, f"{i:03}" + '"' * 250)
        root = srv.root
        readers_get_503(srv)
    with Blobd(options, tls=True, root=root) as srv:
        readers_get_503(srv)


def readers_get_503(srv):
    page, served, refused = slow_readers_of_listings(srv, 90)
    print(f"{len(served)} of {page} bytes, {len(refused)} refused, peak {srv.peak_rss() / MIB:.1f} MiB")
    assert len(served) >= HELD // page, "refused before what is promised was held"
    if not refused and not srv.tls:
        # As much as it likes, by what it remembers of the path: then nothing is left to the server, and nothing refused.
        raise Skip("the kernel takes whole answers here, and the server holds none")
    assert refused, "more was held than is promised"
    assert all(a.status == 503 and int(a["Retry-After"]) >= 1 for a in refused), refused
    wait_for(lambda: srv.get("/api/files?top=100").status == 200, what="a listing once the slow readers have gone")


def test_hellos_over_tls_that_do_not_end_stay_within_max_memory():
    """Whoever says how long its ClientHello will be has OpenSSL make room for all of it."""
    record = b"\x16\x03\x01\x40\x00"
    for length, more in ((131396, 6), (16380, 0)):  # what OpenSSL would take at most; what fits into a record
        first = record + b"\x01" + length.to_bytes(3, "big") + bytes(16380)
        with Blobd({"server.max_memory": "32M", "server.head_timeout": "60s"}, tls=True) as srv, ExitStack() as stack:
            for _ in range(120):  # as many connections as it is reckoned to carry for one address
                c = stack.enter_context(Connection("127.0.0.1", srv.port, timeout=60))
                try:
                    c.send((first + (record + bytes(16384)) * more)[:-1])
                except OSError:
                    pass  # refused
            wait_for(lambda: srv.get("/api/files").status == 200, what="an answer beside them")
            peak = srv.peak_rss()
        print(f"announced {length}: peak {peak / MIB:.1f} MiB")
        assert peak < 32 * MIB, f"announced {length}: peak RSS {peak / MIB:.1f} MiB"
