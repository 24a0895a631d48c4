"""What a stranger can ask for, however often, beside somebody who uses the server: who does is answered within a second,
and refused nothing. The endpoint is far away: each of its answers takes 100 ms."""

import os
import selectors
import threading
import time
from contextlib import contextmanager

from api import accepted, created, refused, whole
from cluster import Cluster
from faulty_s3 import FaultyS3, apart
from harness import Blobd
from s3_bucket import Bucket
from uploader import Content, Upload, download, sha256, store
from wire import Connection

PATIENCE = 1.0 * float(os.environ.get("BLOBD_TEST_SLOW", "1"))
STRANGERS = [f"127.0.0.{n}" for n in range(2, 6)]


@contextmanager
def far(**more):
    """A blobd on an endpoint that is far away, from when the test says so."""
    with FaultyS3() as s3:
        with Blobd(Bucket(s3).options(**{"downloads__cache": "0", "log__access": "false"} | more)) as srv:
            yield s3, srv


class Asking(threading.Thread):
    """Many connections, from a few addresses, each of which asks for one unknown digest after the other."""

    def __init__(self, srv, connections):
        super().__init__(daemon=True)
        self.connections = [Connection(srv.host, srv.port, source=STRANGERS[n % len(STRANGERS)]) for n in range(connections)]
        self.answers, self.over = {}, threading.Event()

    def ask(self, c):
        c.send_head("GET", f"/api/blobs/{os.urandom(32).hex()}")

    def run(self):
        waiting, later = selectors.DefaultSelector(), []
        for c in self.connections:
            waiting.register(c.sock, selectors.EVENT_READ, c)
            self.ask(c)
        while not self.over.is_set():
            for key, _ in waiting.select(0.02):
                status = key.data.read_response().status
                self.answers[status] = self.answers.get(status, 0) + 1
                if status == 404:
                    self.ask(key.data)
                else:
                    later.append((time.monotonic() + 0.2, key.data))
            while later and later[0][0] < time.monotonic():
                self.ask(later.pop(0)[1])

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.join(30)
        for c in self.connections:
            c.abort()


class Timed:
    """The longest that an answer of each kind took."""

    def __init__(self):
        self.worst = {}

    def __call__(self, what, function, *args, **kw):
        began = time.monotonic()
        answer = function(*args, **kw)
        self.worst[what] = max(self.worst.get(what, 0), time.monotonic() - began)
        return answer

    def check(self, alone):
        """Under a second each; what takes so long by itself, half a second more."""
        print(", ".join(f"{what} {alone.worst[what] * 1000:.0f} ms alone, {s * 1000:.0f} at most" for what, s in self.worst.items()))
        late = {what: s for what, s in self.worst.items() if s > max(PATIENCE, alone.worst[what] + PATIENCE / 2)}
        assert not late, f"took too long: {late}"


def use(srv, timed, data, stored):
    """A round of what clients and balancers ask for."""
    for path in ("/readyz", "/healthz", "/metrics"):
        assert timed(path, srv.admin, path).status == 200
    whole(timed("download", download, srv, sha256(stored), who=None), stored)
    up = Upload(srv, connection=srv.connect())
    accepted(timed("append", up.append, data[:1000]), 203, 1000, up)
    created(timed("complete", up.complete, sha256(data), data[1000:]), sha256(data), len(data))


def test_unknown_digests_hold_up_nobody():
    contents = [Content(20000, n).read(0, 20000) for n in range(9)]
    with far() as (s3, srv):
        for data in contents[:4]:
            store(srv, data)
        with s3.fault("far", "."):
            alone, timed = Timed(), Timed()
            use(srv, alone, contents[8], contents[0])
            with Asking(srv, 400) as strangers:
                time.sleep(1)
                for n in range(4):
                    use(srv, timed, contents[4 + n], contents[n])
            print(f"strangers: {strangers.answers}")
            timed.check(alone)
            assert strangers.answers.get(404, 0) > 50, strangers.answers


MIB = 1 << 20
MAX_MEMORY = 48 * MIB  # an eighth of it is for downloads from S3
SLOW_BYTES, SLOW_TURN = 2048, 0.5  # what a slow reader takes in a turn, and how long that is


class SlowReaders(threading.Thread):
    """Many connections, from many addresses, that take 4 KB/s each of one download; what they take is right."""

    def __init__(self, srv, count, content):
        super().__init__(daemon=True)
        self.data, self.count, self.over, self.wrong = content, count, threading.Event(), []
        self.begun = threading.Event()  # all have some bytes
        self.answers, self.readers = {}, {}
        path = f"/api/blobs/{sha256(content)}"
        for n in range(count):
            c = Connection(srv.host, srv.port, context=srv.context, source=f"127.0.1.{n % 250 + 1}", rcvbuf=16384, timeout=60)
            c.send_head("GET", path)
            status = c.read_head().status
            self.answers[status] = self.answers.get(status, 0) + 1
            if status == 200:
                self.readers[c] = 0

    def take(self, c, most):
        """The next bytes of its answer, as they come; False: there are no more."""
        piece = c.buffer[:most] or c.sock.recv(most)
        c.buffer = c.buffer[most:]
        if piece != self.data[self.readers[c]:self.readers[c] + len(piece)]:
            self.wrong.append(self.readers[c])
        self.readers[c] += len(piece)
        return bool(piece) and self.readers[c] < len(self.data)

    def run(self):
        while not self.over.is_set():
            began = time.monotonic()
            for c in self.readers:
                self.take(c, SLOW_BYTES)
            self.begun.set()
            self.over.wait(max(0.01, SLOW_TURN - (time.monotonic() - began)))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.join(30)
        for c in self.readers:
            c.abort()


def beside_slow_readers(tls):
    """Downloads from S3 that take nothing hold no memory that another needs, however many they are."""
    slow, small, large = (Content(size, size).read(0, size) for size in (6 * MIB, 20000, MIB))
    with apart() as s3:
        options = {"downloads__cache": "0", "log__access": "false", "server__max_memory": str(MAX_MEMORY)}
        with Blobd(Bucket(s3).options(**options), tls=tls) as srv:
            for data in (slow, small, large):
                store(srv, data)
            with SlowReaders(srv, 100, slow) as readers:
                assert readers.begun.wait(60)
                worst, end = 0, time.monotonic() + 5
                while time.monotonic() < end:
                    for data in (small, large):
                        began = time.monotonic()
                        whole(download(srv, sha256(data), who=None), data)
                        worst = max(worst, time.monotonic() - began)
                    time.sleep(0.2)
            print(f"{readers.answers}; others waited {worst * 1000:.0f} ms at most; peak {srv.peak_rss() / MIB:.1f} MiB")
            assert readers.answers == {200: readers.count}, readers.answers
            assert worst < PATIENCE, f"a download took {worst:.1f} s beside slow readers"
            assert min(readers.readers.values()) > 2 * SLOW_BYTES and not readers.wrong, readers.wrong
            assert srv.peak_rss() < MAX_MEMORY, f"peak RSS {srv.peak_rss() / MIB:.1f} MiB"


def test_slow_readers_of_s3_hold_up_nobody():
    beside_slow_readers(tls=False)


def test_slow_readers_of_s3_over_tls_hold_up_nobody():
    beside_slow_readers(tls=True)


test_slow_readers_of_s3_hold_up_nobody.timeout = test_slow_readers_of_s3_over_tls_hold_up_nobody.timeout = 120
test_slow_readers_of_s3_hold_up_nobody.alone = test_slow_readers_of_s3_over_tls_hold_up_nobody.alone = True


def test_slow_readers_of_s3_that_made_room_for_others_get_their_bytes_to_the_end():
    """On memory for two or three pieces, all of which are somebody's at any time."""
    content = Content(4 * MIB, 5).read(0, 4 * MIB)
    with far(server__max_memory="32M") as (s3, srv):
        store(srv, content)
        with SlowReaders(srv, 60, content) as readers:
            assert readers.begun.wait(60)
            time.sleep(1)
            readers.over.set()
            readers.join(30)
            left = list(readers.readers)
            while left:
                left = [c for c in left if readers.take(c, 1 << 17)]
            assert readers.answers == {200: 60} and not readers.wrong, (readers.answers, readers.wrong)
            assert set(readers.readers.values()) == {len(content)}


test_slow_readers_of_s3_that_made_room_for_others_get_their_bytes_to_the_end.timeout = 120


def test_an_unknown_digest_is_asked_for_once_and_seen_as_soon_as_it_is_there():
    data, other = b"known at last", b"never known"
    with far() as (s3, srv):
        for content in (data, other):
            refused(download(srv, sha256(content), who=None), "BLOB_UNKNOWN")
        asked = sum(s3.count.values())
        for _ in range(20):
            refused(download(srv, sha256(other), who=None), "BLOB_UNKNOWN")
        assert sum(s3.count.values()) - asked <= 2, "an unknown digest is asked for again and again"
        store(srv, data)
        whole(download(srv, sha256(data), who=None), data)


def test_a_file_of_another_node_ends_that_its_digest_is_unknown():
    with Cluster(balancer=None) as c:
        here, there = c.nodes
        for n in range(20):
            data = b"content %d" % n
            refused(download(there, sha256(data), who=None), "BLOB_UNKNOWN")
            store(here, data)
            whole(download(there, sha256(data), who=None), data)
        assert there.metric("blobd_cache_misses_total") >= 40


def test_who_takes_an_answer_too_slowly_is_cut_and_nobody_else():
    """With downloads.min_rate: over ten seconds in which something was to be taken. One who pauses, but takes enough in
    all, is not too slow."""
    content = Content(24 << 20, 3)
    with Blobd({"downloads.min_rate": "100K"}) as srv:
        store(srv, content.read(0, content.size))
        slow, steady = (srv.connect(rcvbuf=65536, timeout=60, source=STRANGERS[0]) for _ in range(2))
        for c in (slow, steady):
            c.send_head("GET", f"/api/blobs/{content.digest()}")
            assert c.read_head().status == 200
        began, taken, crawled, cut = time.monotonic(), 0, 0, False
        while time.monotonic() - began < 13:
            time.sleep(0.5)
            steady.stream_body(250000, lambda data: None)
            taken += 250000
            try:
                crawled += 0 if cut else len(slow.sock.recv(10000))
            except ConnectionResetError:
                cut = True
                assert time.monotonic() - began > 9, "cut before its ten seconds were over"
        try:
            while not cut and (piece := slow.sock.recv(1 << 20)):
                crawled += len(piece)
        except ConnectionResetError:
            cut = True
        assert cut and crawled < content.size // 2, f"{crawled} bytes, and not cut"
        parts = []
        steady.stream_body(content.size - taken, parts.append)
        assert b"".join(parts) == content.read(taken, content.size - taken)
        steady.close()
        slow.abort()
