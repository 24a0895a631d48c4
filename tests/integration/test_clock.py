"""The wall clock is set while the server runs, or while it does not: nothing that lives ends by it.

The server's wall clock alone is set (tests/preload/set_clock.c); its steady ones, Redis' and this test's stay.
"""

import os
import signal
import struct
import time

import harness
from api import accepted, created, refused, whole
from cluster import Cluster
from harness import Blobd, Skip, on_disk
from uploader import Content, Upload, download, sha256, store
from wire import wait_for

HOUR, DAY = 3600 * 1000, 24 * 3600 * 1000
DATA = Content(100000, 3).read(0, 100000)
LIVES = {"sessions.timeout": "1h", "retention.temp_file_retention": "2h"}
SWEEP = {"retention.sweep_interval": "1s", "retention.sweep_grace": "1s"}


class Clock:
    """Of those who are started with its environment."""

    def __init__(self):
        on_disk()  # S3 refuses whose clock is a day away
        library = os.path.join(os.path.dirname(harness.BINARY), "set_clock.so")
        if not os.path.exists(library):
            raise Skip(f"{library} is not built")
        self.file = harness.temp_dir() / "clock"
        self.set(0)
        # A sanitizer's runtime wants to be the first library.
        self.env = {"LD_PRELOAD": library, "SET_CLOCK": str(self.file),
                    "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}

    def set(self, ahead_ms):
        if not self.file.exists():
            self.file.write_bytes(bytes(8))
        with open(self.file, "r+b", buffering=0) as f:
            f.write(struct.pack("=q", ahead_ms))


def swept(srv, times=1):
    since = srv.metric("blobd_janitor_sweeps_total") or 0
    wait_for(lambda: (srv.metric("blobd_janitor_sweeps_total") or 0) >= since + times, timeout=20, what="a sweep")


def lives_on(srv, up, temp):
    """One byte more is accepted, and the temporary file is there."""
    before = up.offset
    accepted(up.status(), 204, before, up)
    accepted(up.append(b"x"), 203, before + 1, up)
    assert srv.get(f"/api/files/{temp['id']}").status == 200
    whole(download(srv, temp["digest"]), DATA)


def jump(sessions):
    clock = Clock()
    with Blobd({**LIVES, "retention.sweep_interval": "1h", "sessions.store": sessions}, env=clock.env) as srv:
        up, idle, temp = Upload(srv), Upload(srv), store(srv, DATA, "temp", temporary="true")
        up.append(b"x")
        idle.append(b"idle")
        for ahead in (DAY, 0, -DAY, 0):
            clock.set(ahead)
            lives_on(srv, up, temp)
        clock.set(DAY)
        if srv.redis:
            srv.redis.command("FLUSHALL")
        lives_on(srv, up, temp)
        created(up.complete(sha256(b"x" * up.offset)), sha256(b"x" * up.offset), up.offset)
        clock.set(0)
        assert idle.status().status == 204
        created(idle.complete(sha256(b"idle")), sha256(b"idle"), 4)


def test_a_jump_of_the_clock_ends_nothing_that_lives():
    jump("embedded")


def test_a_jump_of_the_clock_ends_nothing_that_lives_with_redis():
    jump("redis")


def test_start_while_the_clock_is_ahead_ends_nothing_that_lives():
    clock = Clock()
    with Blobd({**LIVES, **SWEEP, "sessions.store": "embedded"}, env=clock.env) as srv:
        up, temp = Upload(srv), store(srv, DATA, "temp", temporary="true")
        up.append(b"x")
        swept(srv, 2)
        for lost in (False, True):
            srv.kill()
            if lost:
                for file in srv.root.glob("sessions.db*"):
                    file.unlink()
            clock.set(DAY)
            srv.given["retention.sweep_interval"] = "1h"
            srv.start()
            assert "while blobd was stopped" in srv.log()
            lives_on(srv, up, temp)
            clock.set(0)
            lives_on(srv, up, temp)


def test_things_end_at_their_time_after_a_jump():
    clock = Clock()
    with Blobd({**SWEEP, "sessions.timeout": "4s", "retention.temp_file_retention": "4s"}, env=clock.env) as srv:
        up, temp = Upload(srv), store(srv, DATA, "temp", temporary="true")
        up.append(b"x")
        clock.set(DAY)
        assert up.status().status == 204
        clock.set(0)
        wait_for(lambda: up.status().status == 404, timeout=20, what="the upload to expire")
        wait_for(lambda: srv.get(f"/api/files/{temp['id']}").status == 404, timeout=20, what="the file to expire")
        refused(download(srv, temp["digest"]), "BLOB_UNKNOWN")


def test_a_node_whose_clock_others_contradict_destroys_nothing():
    """Ahead or behind, for as long as it stays so: many times the sweep interval."""
    clock = Clock()
    with Cluster({**LIVES, **SWEEP}, nodes=1, balancer=None) as c:
        wrong = c.make_node(env=clock.env)
        c.nodes.append(wrong)
        wrong.start()
        right = c.nodes[0]
        up, temp = Upload(right), store(right, DATA, "temp", temporary="true")
        up.append(b"x")
        for ahead in (DAY, -DAY):
            right.signal(signal.SIGSTOP)  # so that who sweeps is the other, if it does
            clock.set(ahead)
            time.sleep(3.5 if ahead > 0 else 2)
            right.signal(signal.SIGCONT)
            c.redis.command("FLUSHALL")  # by the record and what is staged
            lives_on(right, up, temp)
            made = store(wrong, DATA + b"wrong", "wrong", temporary="true")
            here = Upload(wrong)
            here.append(b"x")
            whole(download(right, made["digest"]), DATA + b"wrong")
            c.redis.command("FLUSHALL")
            for node in (right, wrong):
                there = Upload.__new__(Upload)
                there.__dict__.update(here.__dict__, srv=node)
                assert there.status().status == 204
            lives_on(right, up, temp)
            clock.set(0)
