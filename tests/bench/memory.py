#!/usr/bin/env python3
"""How much memory blobd takes under clients that mean to hold some: beside server.max_memory, which it must stay below.

    scripts/bench --memory [--record] [--only WORD …] [--bounds 64M,128M,512M] [--storage disk,S3]

Each row is a server of its own, and as many clients of one kind as it counts connections for, and a sixteenth more:
those are told 503, or closed where they do not ask in time. What is printed is the most that was resident (VmHWM). Exit status 1: some row
came to max_memory or beyond, or a client was neither served nor refused.
"""

import argparse
import os
import resource
import select
import ssl
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import product
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO / "tests" / "integration"))

from harness import Blobd
from s3_bucket import Bucket, rgw
from uploader import Content, sha256
from wire import Closed, Connection, target

MIB = 1 << 20
REPORT = REPO / "docs" / "performance.md"
MARKS = ("<!-- memory: begin (written by scripts/bench --memory --record) -->", "<!-- memory: end -->")
PER_CONNECTION = {False: 16 << 10, True: 64 << 10}  # server/memory_budget.c
MSS = 1460  # an ethernet's: on loopback, the kernel would hold for each reader what otherwise the server must
MOST = 3000  # clients of a row: descriptors, and the time to connect
BIG = Content(8 * MIB, 5)
FILES = 100   # on a page, which is some 60 KiB of names
STAYS = 6.0  # seconds that the clients hold what they have


class Clients:
    """Connections of one kind, each with at most one request under way."""

    def __init__(self, srv, count):
        self.srv, self.count = srv, count
        self.conns, self.refused, self.closed, self.served = [], 0, 0, 0

    def open(self, rcvbuf=16384):
        for _ in range(self.count):
            try:
                self.conns.append(self.srv.connect(rcvbuf=rcvbuf, timeout=20, mss=MSS))
            except (OSError, ssl.SSLError, Closed):
                self.closed += 1

    def each(self, do):
        """do(connection) for all; one that the server has closed is counted, and forgotten."""
        for c in list(self.conns):
            try:
                do(c)
            except (OSError, ssl.SSLError, Closed):
                self.drop(c, "closed")

    def drop(self, c, why):
        setattr(self, why, getattr(self, why) + 1)
        self.conns.remove(c)
        c.close()

    def heads(self):
        """The first bytes of every answer: refused ones are counted. A head that does not come is waited for later."""
        poll = select.poll()
        by_fd = {c.sock.fileno(): c for c in self.conns}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        end = time.monotonic() + 120
        while by_fd and time.monotonic() < end:
            for fd, _ in poll.poll(1000):
                c = by_fd.pop(fd)
                poll.unregister(fd)
                try:
                    status = int(c.sock.recv(512).split(b" ", 2)[1])
                except (OSError, IndexError, ValueError):
                    self.drop(c, "closed")
                    continue
                if status in (429, 503):
                    self.drop(c, "refused")
                else:
                    assert status in (200, 203, 206), status
                    self.served += 1
        for c in by_fd.values():
            self.drop(c, "closed")

    def sip(self, turns=3):
        """Takes a little, now and then."""
        for _ in range(turns):
            self.each(lambda c: c.sock.recv(4096))
            time.sleep(STAYS / turns)

    def close(self):
        for c in self.conns:
            c.close()


# ---- the kinds of clients ------------------------------------------------------------------------------------------------

def upload_whole(srv, content, **query):
    """A file, in one request, however slow the machine is."""
    with srv.connect(timeout=60) as c:
        begun = c.request("POST", target("/api/blobs/uploads", **query), srv.authorized({}, "alice"))
        assert begun.status == 202, begun
        path = f"/api/blobs/uploads/{begun['PortSIP-Upload-ID']}/complete"
        done = c.request("POST", target(path, digest=content.digest()),
                         srv.authorized({"PortSIP-Upload-Token": begun["PortSIP-Upload-Token"]}, "alice"),
                         content.read(0, content.size))
        assert done.status == 201, done


def readers_of_a_file(srv, count):
    upload_whole(srv, BIG)
    clients = Clients(srv, count)
    clients.open()
    clients.each(lambda c: c.send_head("GET", f"/api/blobs/{BIG.digest()}"))
    clients.heads()
    clients.sip()
    return clients


def readers_of_listings(srv, count):
    for i in range(FILES):
        upload_whole(srv, Content(1024, i), filename=f"{i:04}-" + "n" * 180)
    clients = Clients(srv, count)
    clients.open()
    clients.each(lambda c: c.send_head("GET", f"/api/files?top={FILES}", srv.authorized({}, "alice")))
    clients.heads()
    clients.sip()
    return clients


def idle(srv, count):
    clients = Clients(srv, count)
    clients.open()
    time.sleep(STAYS)
    clients.each(lambda c: c.send_head("GET", "/api/blobs/" + "0" * 64))
    clients.each(lambda c: clients.drop(c, "served" if c.read_response().status == 404 else "refused"))
    return clients


def kept(srv, count):
    """Connections that were used, and rest."""
    upload_whole(srv, Content(10240, 3))
    clients = Clients(srv, count)
    clients.open()
    path = "/api/blobs/" + Content(10240, 3).digest()

    def ask(c):
        if c.request("GET", path).status == 200:
            clients.served += 1
        else:
            clients.drop(c, "refused")
    clients.each(ask)
    time.sleep(STAYS)
    return clients


def uploads(srv, count, piece, rounds, pause):
    """Bodies of 4 MiB, of which `rounds` pieces are sent, one each `pause` seconds, and the rest never."""
    clients, begun, size = Clients(srv, count), {}, 4 * MIB
    clients.open(rcvbuf=None)

    def begin(c):
        answer = c.request("POST", "/api/blobs/uploads", srv.authorized({}, "alice"))
        if answer.status == 202:
            begun[c] = answer
        else:
            clients.drop(c, "refused")
    clients.each(begin)

    def append(c):
        a = begun[c]
        c.send_head("POST", f"/api/blobs/uploads/{a['PortSIP-Upload-ID']}/append",
                    srv.authorized({"PortSIP-Upload-Token": a["PortSIP-Upload-Token"], "Content-Length": str(size)}, "alice"))
        c.sock.settimeout(0.02)
    clients.each(append)
    data = BIG.read(0, piece)
    for _ in range(rounds):
        def push(c):
            try:
                c.sock.send(data)
            except (TimeoutError, ssl.SSLWantWriteError):
                pass  # the server does not take it now: what it should do
        clients.each(push)
        time.sleep(pause)
    clients.served = len(clients.conns)
    return clients


def slow_uploads(srv, count):
    return uploads(srv, count, 4096, 6, 1)


def fast_uploads(srv, count):
    return uploads(srv, min(count, 500), 128 << 10, 16, 0)


def hellos(srv, count):
    """Handshakes that stop a byte before the end of the largest ClientHello there may be."""
    clients, record, length = Clients(srv, count), b"\x16\x03\x01\x40\x00", 16380
    for _ in range(count):
        clients.conns.append(Connection("127.0.0.1", srv.port, timeout=20))
    clients.each(lambda c: c.send((record + b"\x01" + length.to_bytes(3, "big") + bytes(length))[:-1]))
    time.sleep(STAYS)
    return clients


BOTH, TLS = (True, False), (True,)
KINDS = (("slow readers of a file of 8 MiB", readers_of_a_file, BOTH), ("slow readers of listings", readers_of_listings, BOTH),
         ("slow uploads", slow_uploads, BOTH), ("fast uploads, cut off", fast_uploads, BOTH),
         ("idle, never asked", idle, BOTH), ("idle, answered before", kept, BOTH),
         ("hellos that do not end", hellos, TLS))


# ---- running -------------------------------------------------------------------------------------------------------------

def server(bound, tls, storage):
    options = {"server.max_memory": bound, "log.access": "false", "server.head_timeout": "2m",
               "limits.connections_per_address": "1000000", "limits.requests_per_address": "1000000"}
    return Blobd(options | storage, tls=tls)


def bytes_of(bound):
    return int(bound[:-1]) * MIB


def run(kind, bound, tls, storage):
    room = bytes_of(bound) // 4 // PER_CONNECTION[tls]
    count = min(MOST, room + room // 16)
    with server(bound, tls, storage) as srv:
        clients = kind(srv, count)
        peak = srv.peak_rss()
        clients.close()
    return clients.count, clients, peak


def table(rows):
    lines = ["| clients | | storage | max_memory | how many | served | 503 | closed | peak RSS, MiB |",
             "|---|---|---|---|---|---|---|---|---|"]
    for title, tls, storage, bound, count, clients, peak in rows:
        lines.append(f"| {title} | {'TLS' if tls else 'plain'} | {storage} | {bound} | {count} | {clients.served} | "
                     f"{clients.refused} | {clients.closed} | {peak / MIB:.0f} |")
    return "\n".join(lines)


def record(text):
    page = REPORT.read_text()
    begin, end = (page.index(mark) for mark in MARKS)
    REPORT.write_text(page[:begin] + MARKS[0] + "\n\n" + text + "\n\n" + page[end:])


@contextmanager
def disk():
    yield {}


@contextmanager
def s3():
    """A Ceph RGW of its own for each kind of clients, as what they leave behind would fill one."""
    with rgw() as gateway:
        yield Bucket(gateway).options()


def wanted(given):
    """(storage, title, kind, [over TLS or not]) of the rows that are asked for."""
    for name in given.storage.split(","):
        for title, kind, manners in KINDS:
            both = [(f"{title} {'TLS' if tls else 'plain'} {name}", tls) for tls in manners]
            chosen = [tls for text, tls in both if not given.only or any(word in text for word in given.only)]
            if chosen:
                yield name, title, kind, chosen


def main():
    ask = argparse.ArgumentParser(prog="scripts/bench --memory", description=__doc__.split("\n")[0])
    ask.add_argument("--record", action="store_true", help="write the table into docs/performance.md")
    ask.add_argument("--bounds", default="64M,128M,512M")
    ask.add_argument("--only", nargs="*", default=[], help="words of which a row's text must have one")
    ask.add_argument("--storage", default="disk,S3")
    given = ask.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    rows, bad = [], 0
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="m") as work:
        os.environ["BLOBD_TEST_TMP"] = work
        for name, title, kind, chosen in wanted(given):
            with {"disk": disk, "S3": s3}[name]() as options:
                for tls, bound in product(chosen, given.bounds.split(",")):
                    rows.append((title, tls, name, bound, *run(kind, bound, tls, options)))
                    over = rows[-1][-1] >= bytes_of(bound)
                    bad += over
                    print(table(rows[-1:]).splitlines()[-1] + (" TOO MUCH" if over else ""), flush=True)
    if given.record:
        record(table(rows))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
