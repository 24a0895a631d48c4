"""kill -9 at random moments of a running load: nothing acknowledged is lost, nothing half-written served."""

import os
import random
import re
import time

import harness
from crashload import LOST, Broken, Crashload
from harness import Blobd, Skip
from s3_bucket import Bucket, endpoint
from uploader import Content, Upload, download, sha256, store
from wire import wait_for

KILLS = int(os.environ.get("BLOBD_TEST_KILLS", 60))
S3_STRIDE = int(os.environ.get("BLOBD_TEST_S3_STRIDE", 8))  # 1: killed at every request, not at every eighth
SWEEP = {"retention.sweep_interval": "1s", "retention.sweep_grace": "1s"}
LARGE = {"storage.disk.keep_cached": "0"}  # what is large enough goes past the page cache from its first byte
BIGGEST = 900000  # the largest uploads; a third of it, the largest appends, is large enough


def leftovers(srv, load):
    """Files of the storage root that belong to no acknowledged blob and no record."""
    blobs = {os.path.basename(f) for f in srv.files("blobs")}
    strangers = {b for b in blobs if b not in load.stored}
    return list(srv.files("uploads")) + sorted(strangers)


def kill_under_load(kills, **options):
    rng = random.Random(2)
    with Blobd({**LARGE, **options.pop("options", SWEEP)}, **options) as srv:
        load = Crashload(srv, clients=4, biggest=BIGGEST).start()
        died_early = 0
        for i in range(kills):
            time.sleep(rng.uniform(0.02, 0.9))
            load.check()
            srv.kill()
            while rng.random() < 0.2:  # and again while it recovers
                srv.spawn()
                time.sleep(rng.uniform(0, 0.1))
                srv.kill()
                died_early += 1
            srv.start()
            load.verify(sample=10)
        load.stop()
        assert load.uploads > kills, f"only {load.uploads} uploads between {kills} kills"
        checked = load.verify()
        load.verify_listing()
        if harness.STORAGE == "disk":
            wait_for(lambda: not leftovers(srv, load), timeout=20, what=f"leftovers to vanish: {leftovers(srv, load)[:5]}")
            load.verify(sample=50)
        print(f"{kills + died_early} kills, {load.uploads} uploads, {load.appends} appends, {load.retries} retries, {checked} blobs read back")


def test_kill_9_under_load_loses_nothing_acknowledged():
    kill_under_load(KILLS)


def test_kill_9_under_load_with_relaxed_sync_serves_nothing_half_written():
    kill_under_load(max(KILLS // 6, 1), options={**SWEEP, "uploads.sync": "complete"})


def fault_points():
    """Names of the fault points, out of the sources."""
    names = set()
    for room in ("core", "backends"):
        for path in (harness.REPO / room).glob("*.c"):
            text = path.read_text()
            names |= set(re.findall(r'FAULT_POINT\("([^"]+)"\)', text))
            for table in re.findall(r"\bfault_names\[[^=]*=\s*\{(.*?)\};", text, re.S):
                names |= set(re.findall(r'"([^"]+)"', table))
    other = "s3." if harness.STORAGE == "disk" else "disk."
    return sorted(name for name in names if not name.startswith(other))


def faults_binary():
    binary = os.environ.get("BLOBD_FAULTS_BIN") or os.path.join(os.path.dirname(harness.BINARY), "blobd-faults")
    if not os.path.exists(binary):
        raise Skip(f"{binary} is not built")
    return binary


def faulty():
    return Blobd(SWEEP, binary=faults_binary())


NOTHING_TOLD = {"up": None, "small": None, "data": b""}


def told_when_armed(srv, spec, work, seed):
    """What the server tells while work(srv, seed) is done with fault points armed. It may die of them before it is ready."""
    srv.stop()
    srv.env["BLOBD_FAULTS_ARM"] = spec
    srv.spawn()
    return work(srv, seed) if srv.await_ready(15) else NOTHING_TOLD


def work_through(srv, seed):
    """One upload in three appends and a small one, and what was acknowledged of them when the server died."""
    told = {"digest": None, "offset": 0, "up": None, "small": None, "data": Content(200000, seed).read(0, 200000)}
    data = told["data"]
    try:
        up = told["up"] = Upload(srv, mode="offset", filename="crash.bin")
        for end in (70000, 140000, 200000):
            answer = up.append(data[told["offset"]:end])
            if answer.status != 203:
                return told
            told["offset"] = up.offset
        told["small"] = store(srv, data[:999], "small.bin")["digest"]
        answer = up.complete(sha256(data))
        if answer.status == 201:
            told["digest"], told["id"] = sha256(data), answer.json()["id"]
    except (*LOST, AssertionError):
        pass
    return told


def hold_to_it(srv, told):
    """What was acknowledged holds, and the upload goes on to its end."""
    up, data = told["up"], told["data"]
    if told["small"]:
        answer = download(srv, told["small"])
        assert answer.status == 200 and answer.body == data[:999], answer
    if up is None:
        return
    half = download(srv, sha256(data))
    assert half.status == 404 or half.body == data, half
    answer = up.status()
    assert answer.status == 204, answer
    assert up.offset >= told["offset"], (up.offset, told["offset"])
    while up.offset < len(data):
        answer = up.append(data[up.offset:])
        if answer.status == 409:  # all of it has come, and it was being completed
            assert answer.json()["errors"][0]["code"] in ("UPLOAD_BUSY", "UPLOAD_COMPLETED"), answer
            break
        assert answer.status == 203, answer
    answer = up.complete(sha256(data))
    assert answer.status == 201, answer
    assert "id" not in told or answer.json()["id"] == told["id"], (answer, told["id"])
    answer = download(srv, sha256(data))
    assert answer.status == 200 and answer.body == data


def start_and_hold_to(srv, told, cause):
    """Ends the server unless it has died, starts it with nothing armed, and holds it to what it told. Had it died?"""
    died = not srv.running
    if not died:
        srv.kill()
    del srv.env["BLOBD_FAULTS_ARM"]
    srv.start()
    try:
        hold_to_it(srv, told)
    except AssertionError as e:
        raise Broken(f"{cause}: {e}") from None
    return died


def test_kill_at_every_fault_point_loses_nothing_acknowledged():
    points, died = fault_points(), 0
    if not points:
        raise Skip("no fault points in the sources")
    with faulty() as srv:
        for seed, (name, after) in enumerate((n, a) for n in points for a in (0, 4)):
            told = told_when_armed(srv, f"{name}=kill:{after}", work_through, seed)
            died += start_and_hold_to(srv, told, f"killed at {name}, hit {after + 1}")
    assert died, "no fault point was ever reached"
    print(f"{died} deaths at {len(points)} points")


def test_errors_at_every_fault_point_lose_nothing_acknowledged():
    points = fault_points()
    if not points:
        raise Skip("no fault points in the sources")
    with faulty() as srv:
        for seed, (name, error) in enumerate((n, e) for n in points for e in (28, 5)):  # ENOSPC, EIO
            told = told_when_armed(srv, f"{name}={error}:3:2", work_through, 1000 + seed)
            assert srv.running or told is NOTHING_TOLD, f"{name}={error}: the server died\n{srv.log()[-2000:]}"
            start_and_hold_to(srv, told, f"errno {error} at {name}")


def work_through_s3(srv, seed):
    """An upload of several parts, and what was acknowledged of it. Bodies that are rolled back leave more parts in S3 than
    it has in the end, which Ceph RGW insists on using."""
    told = {"offset": 0, "up": None, "small": None, "data": Content(17 << 20, seed).read(0, 17 << 20)}
    data = told["data"]
    try:
        up = told["up"] = Upload(srv, mode="offset", filename="crash.bin")
        for end in (6 << 20, 12 << 20):
            if up.append(data[up.offset:end]).status != 203:
                return told
            told["offset"] = up.offset
            answer = up.complete("0" * 64, data[up.offset:] + bytes(8 << 20))
            assert answer.status in (400, 503), answer
        answer = up.complete(sha256(data), data[up.offset:])
        if answer.status == 201:
            told["id"] = answer.json()["id"]
    except LOST:
        srv.wait(20)  # it is dying, or hangs
    return told


def test_kill_at_requests_to_s3_loses_nothing_acknowledged():
    died = 0
    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options(storage__s3__part_size="5M"), binary=faults_binary()) as srv:
            for point, seeds in (("s3.request", 1000), ("s3.answer", 2000)):
                after, dies = 0, True
                while dies:
                    told = told_when_armed(srv, f"{point}=kill:{after}", work_through_s3, seeds + after)
                    dies = start_and_hold_to(srv, told, f"killed at {point}, hit {after + 1}")
                    died += dies
                    place.s3cmd("del", "--recursive", "--force", place.url + "data/")  # the endpoint has it in memory
                    after += S3_STRIDE
    assert died > 10, died
    print(f"{died} deaths")


test_kill_at_requests_to_s3_loses_nothing_acknowledged.timeout = 120 + 600 // S3_STRIDE
test_kill_9_under_load_loses_nothing_acknowledged.timeout = 300
test_kill_9_under_load_with_relaxed_sync_serves_nothing_half_written.timeout = 120
test_kill_at_every_fault_point_loses_nothing_acknowledged.timeout = 300
test_errors_at_every_fault_point_lose_nothing_acknowledged.timeout = 300
