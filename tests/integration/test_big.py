"""Blobs far larger than memory may be: through and back, plain and over TLS, with the server's memory watched."""

import hashlib
import os
import shutil
import time

from api import accepted, created
from harness import STORAGE, Blobd, Skip, temp_dir
from uploader import Content, Upload

MIB = 1 << 20
SIZE = int(os.environ.get("BLOBD_TEST_BIG_MIB", 3072)) * MIB
PART, PARTS = 8 * MIB, 5  # of S3: four on their way, one being filled
LIMIT = 40 * MIB + (0 if STORAGE == "disk" else PARTS * PART)


def room_for(size):
    free = shutil.disk_usage(temp_dir()).free
    if free < size + (size >> 3) + 512 * MIB:
        raise Skip(f"needs {size >> 20} MiB on the disk, {free >> 20} are free")


def send_stream(c, content):
    """The body of a begun append, made on the fly; returns its SHA-256."""
    h = hashlib.sha256()
    for piece in content.pieces():
        c.send(piece)
        h.update(piece)
    return h.hexdigest()


def through_and_back(tls):
    room_for(SIZE)
    content = Content(SIZE, 1)
    with Blobd(tls=tls) as srv:
        up = Upload(srv, mode="offset", filename="big.bin")
        c = up.begin(length=SIZE)
        digest = send_stream(c, content)
        c.sock.settimeout(60)
        accepted(c.read_response(), 203, SIZE, up)
        up.offset = SIZE
        created(up.complete(digest), digest, SIZE, "big.bin")
        received = hashlib.sha256()
        c.send_head("GET", f"/api/blobs/{digest}")
        head = c.read_head()
        assert head.status == 200 and head["Content-Length"] == str(SIZE), head
        c.stream_body(SIZE, received.update)
        assert received.hexdigest() == digest, "other bytes came back"
        c.close()
        peak = srv.peak_rss()
        print(f"{SIZE >> 20} MiB {'TLS' if tls else 'plain'}: peak {peak / MIB:.1f} MiB")
        assert peak < LIMIT, f"peak RSS {peak / MIB:.1f} MiB"


def test_3_gib_through_and_back_plain_in_little_memory():
    through_and_back(tls=False)


def test_3_gib_through_and_back_over_tls_in_little_memory():
    through_and_back(tls=True)


def test_one_huge_chunk_does_not_sit_in_memory():
    size = min(SIZE, 512 * MIB)
    room_for(size)
    content = Content(size, 2)
    with Blobd() as srv:
        up = Upload(srv, mode="offset")
        c = up.begin()
        c.send(b"%x\r\n" % size)
        digest = send_stream(c, content)
        c.send(b"\r\n0\r\n\r\n")
        accepted(c.read_response(), 203, size, up)
        up.offset = size
        created(up.complete(digest), digest, size)
        assert srv.peak_rss() < LIMIT, srv.peak_rss()


def test_completing_costs_the_same_for_small_and_large():
    size = min(SIZE, 512 * MIB)
    room_for(size)
    with Blobd() as srv:
        took = []
        for n in (10000, size):
            content = Content(n, 3)
            up = Upload(srv, mode="offset")
            c = up.begin(length=n)
            digest = send_stream(c, content)
            accepted(c.read_response(), 203, n, up)
            up.offset = n
            began = time.monotonic()
            created(up.complete(digest), digest, n)
            took.append(time.monotonic() - began)
        assert took[1] < took[0] + 0.5, took


for test in (test_3_gib_through_and_back_plain_in_little_memory, test_3_gib_through_and_back_over_tls_in_little_memory):
    test.timeout, test.alone = 300, True
test_completing_costs_the_same_for_small_and_large.alone = True  # it looks at a clock
del test
