"""A cluster under load while its parts fail: nodes, Redis, one after the other. The clients of crashload judge: nothing
acknowledged is lost, no offset regresses, no 5xx but 503, exactly one file for each upload.
"""

import os
import random
import signal
import subprocess
import threading
import time

import harness
from api import refused
from cluster import Cluster
from crashload import LOST, Crashload
from harness import Skip, need, temp_dir
from prompts import list_all
from uploader import Content, Upload, download, sha256, store
from wire import Closed, wait_for

SECONDS = int(os.environ.get("BLOBD_TEST_CLUSTER_SECONDS", 20))
SLOW = float(os.environ.get("BLOBD_TEST_SLOW", 1))
SWEEP = {"retention.sweep_interval": "1s"}


class Witness:
    """An Api that counts the statuses that pass through it."""

    def __init__(self, api):
        self.api, self.seen, self.lock = api, {}, threading.Lock()

    def __getattr__(self, name):
        return getattr(self.api, name)

    def http(self, *args, **kw):
        answer = self.api.http(*args, **kw)
        with self.lock:
            self.seen[answer.status] = self.seen.get(answer.status, 0) + 1
        return answer

    def get(self, target, headers=None, who="alice", **kw):
        return self.http("GET", target, headers, who=who, **kw)

    def check(self):
        bad = {s: n for s, n in self.seen.items() if s >= 500 and s != 503}
        assert not bad, f"answers that should not be: {bad}"


def finish(load, witness):
    """Ends the load and checks its claims, the listing included once the index is healed."""
    load.stop()
    witness.check()
    assert load.uploads > 10, f"only {load.uploads} uploads"
    load.verify()

    def listed():
        try:
            load.verify_listing()
            return True
        except AssertionError:
            return False

    try:
        wait_for(listed, timeout=20, interval=0.3)
    except AssertionError:
        load.verify_listing()  # says what is wrong
    print(f"{load.uploads} uploads, {load.appends} appends, {load.retries} retries, answers {witness.seen}")


def under_load(c, disturb, clients=6):
    witness = Witness(c.api or c.nodes[0])
    load = Crashload(witness, clients=clients, biggest=300000).start()
    try:
        disturb(load)
    finally:
        load.quit.set()
    finish(load, witness)


def test_nodes_killed_in_turn_under_load_behind_haproxy():
    need("haproxy")
    with Cluster(SWEEP) as c:
        def disturb(load):
            rng, end, turn = random.Random(1), time.monotonic() + SECONDS, 0
            while time.monotonic() < end:
                time.sleep(rng.uniform(0.3, 1.0))
                load.check()
                c.nodes[turn % 2].kill()
                time.sleep(rng.uniform(0.1, 1.5))
                c.nodes[turn % 2].start()
                turn += 1
        under_load(c, disturb)


test_nodes_killed_in_turn_under_load_behind_haproxy.timeout = SECONDS + 120


def test_append_is_accepted_by_the_other_node_within_seconds_of_a_death():
    with Cluster({"sessions.lease": "15s"}, balancer=None) as c:
        data = Content(4000000, 1).read(0, 4000000)
        up = Upload(c.nodes[0], mode="offset")
        with up.begin(length=len(data)) as cut:
            cut.send(data[:2000000])
            wait_for(lambda: up.status().status == 204 and up.offset > 0, timeout=30, what="a checkpoint")
            c.nodes[0].kill()
            died = time.monotonic()
        up.srv = c.nodes[1]
        assert up.status().status == 204
        answer = up.append(data[up.offset:])
        took = time.monotonic() - died
        assert answer.status == 203 and up.offset == len(data), answer
        assert took < 5, f"{took:.1f} s"
        assert up.complete(sha256(data)).status == 201
        assert download(c.nodes[1], sha256(data)).body == data
        print(f"accepted {took * 1000:.0f} ms after the node's death")


LEASE = 1


def complete_at_the_other_node(c, point, busy):
    """A complete whose node dies at that fault point, repeated at the other node until it is 201."""
    binary = os.environ.get("BLOBD_FAULTS_BIN") or os.path.join(os.path.dirname(harness.BINARY), "blobd-faults")
    if not os.path.exists(binary):
        raise Skip(f"{binary} is not built")
    dying = c.make_node(binary=binary, env={"BLOBD_FAULTS_ARM": point})
    c.nodes.append(dying)
    dying.start()
    data = Content(300000, sum(point.encode())).read(0, 300000)
    up = Upload(dying, mode="fixed", filename=point)
    assert up.append(data[:200000]).status == 203
    began = time.monotonic()
    try:
        raise AssertionError(up.complete(sha256(data), data[200000:]))
    except LOST:
        assert dying.wait(20) is not None
    up.srv, told = c.nodes[0], []
    while not told or told[-1].status != 201:
        told.append(up.complete(sha256(data), data[200000:]))
        if told[-1].status == 201:
            break
        refused(told[-1], "UPLOAD_BUSY")
        assert int(told[-1]["Retry-After"]) >= 1
        # Who is answered, and when, is what counts: the time of its answer may be the load's.
        assert time.monotonic() - began < LEASE + 3 * SLOW, told
        time.sleep(0.1)
    took = time.monotonic() - began
    assert (len(told) > 1) == busy, told
    assert not busy or took > LEASE * 0.8, f"taken over from a node that may be alive, after {took:.1f} s"
    assert up.complete(sha256(data)).body == told[-1].body
    assert download(c.nodes[0], sha256(data)).body == data
    assert [f["id"] for f in list_all(c.nodes[0], "alice")[0] if f["name"] == point] == [told[-1].json()["id"]]
    return took


def test_complete_cut_off_by_a_death_ends_within_the_lease():
    """As long as its blob is not made, the node may be alive, for all that another knows; where it is, its file tells."""
    with Cluster({"sessions.lease": f"{LEASE}s"}, nodes=1, balancer=None) as c:
        took = [complete_at_the_other_node(c, "store.record_put=kill:1", busy=True),
                complete_at_the_other_node(c, "store.commit=kill:0", busy=True),
                complete_at_the_other_node(c, "store.record_put=kill:2", busy=False)]
        print("201 after " + ", ".join(f"{t:.2f} s" for t in took))


def test_rolling_restart_under_load_loses_no_request():
    """TERM: the balancer looks elsewhere first. Every request of a client that never retries succeeds."""
    need("haproxy")
    with Cluster() as c:
        failures, done, quit_now = [], [0], threading.Event()

        def client(number):
            i = 0
            while not quit_now.is_set():
                data = Content(30000, number * 100000 + i).read(0, 30000)
                i += 1
                try:
                    up = Upload(c.api, mode="rotating")
                    for at in range(0, len(data), 10000):
                        answer = up.append(data[at:at + 10000])
                        assert answer.status == 203, answer
                    answer = up.complete(sha256(data))
                    assert answer.status == 201, answer
                    answer = download(c.api, sha256(data))
                    assert answer.status == 200 and answer.body == data, answer
                    done[0] += 1
                except Exception as e:
                    failures.append(f"{type(e).__name__}: {e}")

        threads = [threading.Thread(target=client, args=(n,)) for n in range(6)]
        [t.start() for t in threads]
        try:
            for _ in range(2):
                for node in c.nodes:
                    time.sleep(1)
                    node.restart()
                    time.sleep(2.5)  # HAProxy wants to see it well twice
        finally:
            quit_now.set()
            [t.join() for t in threads]
        assert not failures, f"{len(failures)} failed, {done[0]} did not: {failures[:3]}"
        assert done[0] > 20, done
        print(f"{done[0]} uploads and downloads over four restarts")


test_rolling_restart_under_load_loses_no_request.timeout = 120


# ---- Redis ---------------------------------------------------------------------------------------------------------


def redis_disturbed(disturb, times=3, pause=2.0):
    need("haproxy")
    with Cluster(SWEEP) as c:
        def every(load):
            for _ in range(times):
                time.sleep(pause)
                load.check()
                disturb(c.redis)
            time.sleep(pause)
        under_load(c, every, clients=4)


def test_redis_killed_and_restarted_empty_under_load():
    def disturb(redis):
        redis.proc.kill()
        redis.proc.wait(10)
        time.sleep(0.7)
        redis.start()
    redis_disturbed(disturb)


def test_redis_stopped_for_five_seconds_under_load():
    def disturb(redis):
        redis.proc.send_signal(signal.SIGSTOP)
        time.sleep(5)
        redis.proc.send_signal(signal.SIGCONT)
    redis_disturbed(disturb, times=1)


class Appending(threading.Thread):
    """One append, sent in steps that last `seconds`; answer is what became of it."""

    def __init__(self, up, data, seconds):
        super().__init__()
        self.up, self.data, self.seconds, self.answer = up, data, seconds, None

    def run(self):
        steps = 24
        piece = len(self.data) // steps + 1
        try:
            with self.up.begin(length=len(self.data)) as c:
                for at in range(0, len(self.data), piece):
                    c.send(self.data[at:at + piece])
                    time.sleep(self.seconds / steps)
                self.answer = c.read_response("POST")
        except (OSError, Closed):
            pass  # refused in the middle


def test_nodes_agree_on_offsets_after_redis_stalled_in_appends():
    """Whatever became of the calls that timed out: all nodes tell one offset, none below what was acknowledged, and
    whichever goes on there is right."""
    with Cluster({"sessions.lease": "15s"}, balancer=None) as c:
        data = Content(6 << 20, 21).read(0, 6 << 20)
        first = 300000
        ups = [Upload(c.nodes[i % 2], mode="offset") for i in range(6)]
        for up in ups:
            assert up.append(data[:first]).status == 203
        appends = [Appending(up, data[first:], seconds) for up, seconds in zip(ups, (1.2, 1.6, 2.0, 2.5, 3.5, 5.0))]
        [a.start() for a in appends]
        time.sleep(1.0)
        c.redis.proc.send_signal(signal.SIGSTOP)
        time.sleep(4)
        c.redis.proc.send_signal(signal.SIGCONT)
        [a.join() for a in appends]
        for node in c.nodes:
            wait_for(lambda: node.post("/api/blobs/uploads").status == 202, timeout=10, what="the node to find Redis again")
        told = []
        for i, (up, append) in enumerate(zip(ups, appends)):
            acknowledged = first
            if append.answer is not None and append.answer.status == 203:
                acknowledged = int(append.answer["Upload-Offset"])
            offsets = []
            for turn in range(4):
                up.srv = c.nodes[(i + turn) % 2]
                assert up.status().status == 204
                offsets.append(up.offset)
            assert len(set(offsets)) == 1, f"upload {i}: one node says {offsets[0]}, the other {offsets[1]}"
            assert acknowledged <= up.offset <= len(data), f"upload {i}: {up.offset} after {acknowledged}"
            told.append((append.answer.status if append.answer is not None else None, up.offset))
            up.srv = c.nodes[(i // 2) % 2]
            answer = up.complete(sha256(data), data[up.offset:])
            assert answer.status == 201, f"upload {i}: {answer}"
        assert download(c.nodes[0], sha256(data)).body == data
        assert any(status != 203 for status, _ in told), "nothing was disturbed"
        print(f"answers and offsets: {told}")


def test_redis_emptied_under_load():
    redis_disturbed(lambda redis: redis.command("FLUSHALL"), times=5, pause=1.0)


def test_without_redis_uploads_are_503_and_downloads_do_not_notice():
    with Cluster(SWEEP, balancer=None) as c:
        srv = c.nodes[0]
        data = Content(100000, 7).read(0, 100000)
        stored = store(srv, data, name="kept.bin")
        up = Upload(srv, mode="offset")
        assert up.append(data[:50000]).status == 203
        c.redis.proc.kill()
        c.redis.proc.wait(10)
        for _ in range(20):
            began = time.monotonic()
            answer = srv.post("/api/blobs/uploads")
            refused(answer, "UNAVAILABLE")
            assert answer["Retry-After"], answer
            assert time.monotonic() - began < 3
            assert download(srv, sha256(data)).body == data
        answer = up.append(data[50000:])
        refused(answer, "UNAVAILABLE")
        ready = srv.admin("/readyz")
        assert ready.status == 200 and b"degraded" in ready.body, ready
        items, count = list_all(srv, "alice")
        assert count == 1 and items[0]["id"] == stored["id"], items
        assert list_all(srv, "alice", search="KEPT")[1] == 1 and list_all(srv, "bob")[1] == 0
        assert srv.get(f"/api/files/{stored['id']}").status == 200
        c.redis.start()  # and it comes back empty
        wait_for(lambda: up.status().status == 204, timeout=10, what="uploads to go on")
        assert up.offset == 50000
        assert up.append(data[50000:]).status == 203
        assert up.complete(sha256(data)).status == 201
        items, count = wait_for(lambda: (r := list_all(srv, "alice"))[1] == 2 and r, what="both files to be listed")
        assert sorted(i["name"] for i in items) == ["", "kept.bin"] or count == 2


def test_node_starts_without_redis_and_serves_downloads():
    with Cluster(nodes=1, balancer=None) as c:
        data = Content(10000, 8).read(0, 10000)
        store(c.nodes[0], data)
        c.nodes[0].stop()
        c.redis.proc.kill()
        c.redis.proc.wait(10)
        c.nodes[0].start()
        assert download(c.nodes[0], sha256(data)).body == data
        refused(c.nodes[0].post("/api/blobs/uploads"), "UNAVAILABLE")
        c.redis.start()
        wait_for(lambda: c.nodes[0].post("/api/blobs/uploads").status == 202, timeout=10, what="uploads to be taken")


class Sentinels:
    """A master, a replica, and one sentinel that fails over within two seconds."""

    def __init__(self):
        self.dir = temp_dir()
        self.master = harness.Redis(self.dir / "master")
        self.replica = harness.Redis(self.dir / "replica")
        self.replica.command("REPLICAOF", "127.0.0.1", self.master.port)
        self.port = harness.free_port()
        file = self.dir / "sentinel.conf"
        file.write_text(f"port {self.port}\nbind 127.0.0.1\ndir {self.dir}\n"
                        f"sentinel monitor blobd 127.0.0.1 {self.master.port} 1\n"
                        "sentinel down-after-milliseconds blobd 700\nsentinel failover-timeout blobd 3000\n")
        self.proc = subprocess.Popen(["redis-sentinel", str(file)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_for(lambda: "slave0" in self.replication(), what="the replica to be known")
        time.sleep(1)

    def replication(self):
        return self.master.command("INFO", "replication")

    def stop(self):
        self.proc.kill()
        self.proc.wait(10)
        for redis in (self.master, self.replica):
            redis.stop()


def test_sentinel_failover_under_load():
    need("redis-sentinel")
    need("haproxy")
    s = Sentinels()
    try:
        options = {**SWEEP, "sessions.redis.url": None, "sessions.redis.sentinels": f"127.0.0.1:{s.port}",
                   "sessions.redis.master_name": "blobd"}
        with Cluster(options, redis=s.master) as c:
            def disturb(load):
                time.sleep(2)
                s.master.proc.kill()
                s.master.proc.wait(10)
                time.sleep(8)
            under_load(c, disturb, clients=4)
            assert "role:master" in s.replica.command("INFO", "replication")
    finally:
        s.stop()


def test_redis_restarted_with_old_data_regresses_nothing():
    with Cluster(SWEEP, balancer=None) as c:
        a, b = c.nodes
        data = Content(90000, 11).read(0, 90000)
        other = Content(50000, 12).read(0, 50000)
        open_up, done_up, late_up = Upload(a, mode="offset"), Upload(a, mode="offset"), Upload(b, mode="offset")
        for up in (open_up, done_up, late_up):
            assert up.append((other if up is done_up else data)[:10000]).status == 203
        c.redis.command("SAVE")
        assert open_up.append(data[10000:70000]).status == 203
        made = done_up.complete(sha256(other), other[10000:])
        assert made.status == 201, made
        assert late_up.append(data[10000:20000]).status == 203
        assert late_up.append(data[20000:30000]).status == 203
        c.redis.proc.kill()
        c.redis.proc.wait(10)
        c.redis.start()  # as it was at SAVE
        for node in c.nodes:
            wait_for(lambda: node.get(open_up.path("status")).status == 204, what="the node to find Redis again")
        open_up.srv, late_up.srv = b, a
        for up, offset in ((open_up, 70000), (late_up, 30000)):
            assert up.status().status == 204
            assert up.offset == offset, f"{up.offset} after {offset} had been acknowledged"
            assert up.append(data[offset:]).status == 203
            assert up.complete(sha256(data)).status == 201
        done_up.srv, done_up.offset = b, len(other)
        again = done_up.complete(sha256(other))
        assert again.status == 201 and again.json()["id"] == made.json()["id"], again
        assert download(b, sha256(other)).body == other and download(a, sha256(data)).body == data
        wait_for(lambda: list_all(a, "alice")[1] == 3, what="the index to be healed")


def keep_a_copy(redis):
    redis.command("EVAL", "for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', k, k, 'DB', 9) end", 0)


def go_back(redis):
    """To the copy, in one step and within the same run."""
    redis.command("EVAL", "redis.call('FLUSHDB') redis.call('SELECT', 9) "
                          "for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', k, k, 'DB', 0) end "
                          "redis.call('FLUSHDB')", 0)


def test_redis_a_moment_back_in_the_same_run_takes_nothing_back():
    """Less than a heartbeat ago, which no sign tells: what was acknowledged meanwhile holds on every node all the same."""
    with Cluster(balancer=None) as c:
        a, b = c.nodes
        data = Content(90000, 21).read(0, 90000)
        other = Content(50000, 22).read(0, 50000)
        open_up, late_up, done_up, gone = (Upload(n, mode="offset") for n in (a, b, a, b))
        for up in (open_up, late_up, done_up, gone):
            assert up.append((other if up is done_up else data)[:10000]).status == 203
        keep_a_copy(c.redis)
        assert open_up.append(data[10000:40000]).status == 203
        assert open_up.append(data[40000:70000]).status == 203
        assert late_up.append(data[10000:20000]).status == 203
        made = done_up.complete(sha256(other), other[10000:])
        assert made.status == 201, made
        assert gone.destroy().status == 204
        fresh = Upload(a, mode="offset")
        assert fresh.append(data[:5000]).status == 203
        go_back(c.redis)
        # The one that wrote, and the one that never saw it.
        assert late_up.append(data[20000:30000]).status == 203
        for up, offset in ((open_up, 70000), (late_up, 30000), (fresh, 5000)):
            for node in (b, a, b):
                up.srv = node
                assert up.status().status == 204
                assert up.offset == offset, f"{up.offset} after {offset} had been acknowledged"
            assert up.append(data[offset:]).status == 203
            assert up.complete(sha256(data)).status == 201
        for node in (b, a):
            done_up.srv, done_up.offset = node, len(other)
            again = done_up.complete(sha256(other))
            assert again.status == 201 and again.json()["id"] == made.json()["id"], again
            gone.srv = node
            refused(gone.status(), "UPLOAD_UNKNOWN")
            refused(gone.append(data[10000:]), "UPLOAD_UNKNOWN")
            assert node.get(f"/api/files/{made.json()['id']}").status == 200
        assert download(b, sha256(other)).body == other and download(a, sha256(data)).body == data
        said = "".join(node.log_path.read_text() for node in c.nodes)
        assert "taking the store's" in said, "Redis had nothing that was older"


def test_redis_a_moment_back_in_the_same_run_lists_right_within_seconds():
    """Found by the next change of a row, or, without one, by the next heartbeat; by the nodes that lost changes."""
    for more in (False, True):
        with Cluster(balancer=None) as c:
            a, b = c.nodes
            old = [store(a, b"old %d" % i, name=f"old {i}") for i in range(5)]
            wait_for(lambda: list_all(b, "alice")[1] == 5, what="the files to be listed")
            keep_a_copy(c.redis)
            assert b.post(f"/api/files/{old[0]['id']}/destroy").status == 204
            new = [store(a, b"new", name="new")]
            go_back(c.redis)
            back = time.monotonic()
            if more:
                new.append(store(a, b"more", name="more"))
            expected = {made["id"] for made in old[1:] + new}
            right = {}
            while len(right) < 2 and time.monotonic() < back + 30:
                for node in c.nodes:
                    page = node.get("/api/files?top=100")
                    assert page.status in (200, 503), page
                    if page.status == 200 and {i["id"] for i in page.json()["items"]} == expected:
                        right.setdefault(node, time.monotonic() - back)
                time.sleep(0.05)
            assert len(right) == 2 and max(right.values()) < 10, right
            time.sleep(3)  # and stays so: the counts are in order again
            for node in c.nodes:
                page = node.get("/api/files?top=100")
                assert page.status == 200 and {i["id"] for i in page.json()["items"]} == expected, page
            print(f"right again after {', '.join(f'{s:.1f}' for s in right.values())} s")


def test_redis_restarted_with_old_data_lists_nothing_wrong_and_revives_nothing():
    """The sweep is ten minutes away, as by default: a listing is right or 503, and right within seconds; on all nodes."""
    with Cluster(balancer=None) as c:
        a, b = c.nodes
        old = [store(a, b"old %d" % i, name=f"old {i}") for i in range(20)]
        gone, fresh = Upload(a, mode="offset"), Upload(b, mode="offset")
        assert gone.append(b"gone").status == 203
        wait_for(lambda: list_all(b, "alice")[1] == 20, what="the files to be listed")
        c.redis.command("SAVE")
        assert gone.destroy().status == 204 and fresh.destroy().status == 204
        for made in old[:5]:
            assert b.post(f"/api/files/{made['id']}/destroy").status == 204
        new = [store(b, b"new %d" % i, name=f"new {i}") for i in range(3)]
        expected = {made["id"] for made in old[5:] + new}
        c.redis.proc.kill()
        c.redis.proc.wait(10)
        c.redis.start()  # as it was at SAVE
        back, right, wrong, end = time.monotonic(), {}, [], time.monotonic() + 20
        while len(right) < 2 and time.monotonic() < end:
            for node in c.nodes:
                page = node.get("/api/files?top=100")
                if page.status == 503:
                    assert page["Retry-After"], page
                elif {i["id"] for i in page.json()["items"]} == expected and page.json()["count"] == len(expected):
                    right.setdefault(node, time.monotonic() - back)
                else:
                    wrong.append(f"{page.json()['count']} files after {time.monotonic() - back:.2f} s")
        assert not wrong, f"{len(wrong)} listings were wrong: {wrong[0]}, {wrong[-1]}"
        assert len(right) == 2 and max(right.values()) < 10, right
        for up in (gone, fresh):
            for node in c.nodes:
                up.srv = node
                refused(up.status(), "UPLOAD_UNKNOWN")
                refused(up.destroy(), "UPLOAD_UNKNOWN")
        print(f"right again after {', '.join(f'{s:.1f}' for s in right.values())} s")
