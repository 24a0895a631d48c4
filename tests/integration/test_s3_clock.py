"""Clocks that disagree: nothing that is new is taken for old."""

import time
import uuid
from contextlib import contextmanager

from faulty_s3 import FaultyS3
from harness import Blobd
from s3_bucket import Bucket
from uploader import sha256, store
from wire import wait_for

GRACE = 600


@contextmanager
def sweeping():
    """A blobd that sweeps each second, and an orphan of another node's in the bucket: (its endpoint, server, key)."""
    with FaultyS3() as s3:
        place = Bucket(s3)
        options = place.options(retention__sweep_interval="1s", retention__sweep_grace=f"{GRACE}s")
        key = f"{place.prefix}/data/{uuid.uuid4()}.{sha256(b'another node')}"
        with Blobd(options) as srv:
            yield s3, srv, key


def sweeps(srv):
    return srv.metric("blobd_janitor_sweeps_total")


def test_one_endpoint_that_is_ahead_makes_nothing_old():
    with sweeping() as (s3, srv, key):
        before = sweeps(srv)
        with s3.fault("ahead", "GET .*prefix=[^&]*blobs", times=1) as rule:
            s3.objects[key] = b"another node"
            wait_for(lambda: rule.met and sweeps(srv) >= before + 3, 15, what="three sweeps")
            assert key in s3.objects, "fresh data of another node were swept"
        wait_for(lambda: "nothing is removed for its age" in srv.log(), 10, what="the clocks to be told of")
        s3.modified[key] = time.time() - 2 * GRACE
        at = sweeps(srv)
        wait_for(lambda: sweeps(srv) >= at + 2, 10, what="two sweeps")
        assert key in s3.objects, "swept while the clocks disagree"
        assert srv.metric("blobd_janitor_errors_total") > 0


def test_endpoint_whose_answers_are_all_ahead_makes_nothing_old():
    with sweeping() as (s3, srv, key):
        before = sweeps(srv)
        with s3.fault("ahead"):
            s3.objects[key] = b"another node"
            wait_for(lambda: sweeps(srv) >= before + 3, 15, what="three sweeps")
            assert key in s3.objects, "fresh data of another node were swept"


def test_clocks_that_agree_sweep_what_is_old_and_no_more():
    with sweeping() as (s3, srv, key):
        fresh = f"{key.rpartition('.')[0]}.{sha256(b'fresh')}"
        s3.objects[fresh] = b"fresh"
        s3.modified[key] = time.time() - 2 * GRACE
        s3.objects[key] = b"another node"
        wait_for(lambda: key not in s3.objects, 15, what="the orphan to be swept")
        at = sweeps(srv)
        wait_for(lambda: sweeps(srv) >= at + 2, 10, what="two sweeps")
        assert fresh in s3.objects
        store(srv, b"and it works")
