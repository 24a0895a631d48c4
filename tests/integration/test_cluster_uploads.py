"""Two nodes on one storage, sharing their sessions in Redis: any node continues any upload."""

import os
import random
import re
import subprocess
import threading
import time

import harness
from api import refused
from cluster import Cluster, Nginx
from harness import Blobd, Redis, need, temp_dir
from prompts import list_all
from uploader import MODES, Content, Upload, download, sha256
from wire import wait_for

UPLOADS = int(os.environ.get("BLOBD_TEST_CLUSTER_UPLOADS", 1200))
CLIENTS = 24


class Alternating:
    """An Api that sends every request to the other node than the last one."""

    def __init__(self, nodes, first=0):
        self.nodes, self.next = nodes, first

    def authorized(self, *args):
        return self.nodes[0].authorized(*args)

    def connect(self, **kw):
        self.next += 1
        return self.nodes[self.next % len(self.nodes)].connect(**kw)

    def http(self, *args, **kw):
        self.next += 1
        return self.nodes[self.next % len(self.nodes)].http(*args, **kw)


def many_at_once(nodes, count):
    """count uploads of all three kinds of client, all begun before the first goes on; {digest: id}."""
    stored, failures, lock = {}, [], threading.Lock()

    def client(number):
        rng = random.Random(number)
        try:
            opened = []
            for i in range(number, count, CLIENTS):
                data = Content(rng.randint(1, 20000), i + 1).read(0, 20000)
                opened.append((Upload(Alternating(nodes, i), mode=MODES[i % 3], filename=f"{i}.bin"), data))
            for up, data in opened:
                while up.offset < len(data):
                    answer = up.append(data[up.offset:up.offset + rng.randint(1, 8000)])
                    assert answer.status == 203, answer
                answer = up.complete(sha256(data))
                assert answer.status == 201, answer
                again = up.complete(sha256(data))
                assert again.status == 201 and again.json()["id"] == answer.json()["id"], again
                with lock:
                    stored[sha256(data)] = (answer.json()["id"], data)
        except Exception as e:
            failures.append(f"client {number}: {type(e).__name__}: {e}")

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failures, "\n".join(failures[:3])
    return stored


def test_chunks_sent_alternately_to_two_nodes_complete_with_one_file_each():
    with Cluster(balancer=None) as c:
        stored = many_at_once(c.nodes, UPLOADS)
        assert len(stored) == UPLOADS
        for node in c.nodes:
            items, count = list_all(node, "alice")
            assert sorted(i["id"] for i in items) == sorted(file_id for file_id, _ in stored.values()) and count == UPLOADS
        for i, (digest, (_, data)) in enumerate(random.Random(1).sample(sorted(stored.items()), 60)):
            assert download(c.nodes[i % 2], digest).body == data


test_chunks_sent_alternately_to_two_nodes_complete_with_one_file_each.timeout = 300


def test_newer_append_on_another_node_stops_the_older_one():
    with Cluster(balancer=None) as c:
        a, b = c.nodes
        data = Content(300000, 3).read(0, 300000)
        up = Upload(a, mode="offset")
        with up.begin(length=len(data)) as old:
            old.send(data[:100000])
            time.sleep(1.5)  # longer than a checkpoint
            up.srv = b
            assert up.status().status == 204
            began = time.monotonic()
            answer = up.append(data[up.offset:])
            took = time.monotonic() - began
            assert answer.status == 203 and up.offset == len(data), answer
            assert took < 5, f"the newer append waited {took:.1f} s"
            first = old.read_response("POST")
            refused(first, "UPLOAD_SUPERSEDED")
        answer = up.complete(sha256(data))
        assert answer.status == 201, answer
        assert download(a, sha256(data)).body == data


def test_fenced_writer_that_was_not_told_cannot_spoil_the_blob():
    """A node is stopped in mid-append, another completes the upload, the first wakes up and writes on."""
    with Cluster({"sessions.lease": "1s"}, balancer=None) as c:
        a, b = c.nodes
        data = Content(2000000, 4).read(0, 2000000)
        up = Upload(a, mode="offset")
        with up.begin(length=len(data)) as old:
            old.send(data[:400000])
            time.sleep(1.5)
            a.signal(19)  # SIGSTOP: it cannot hear of the take-over
            old.send(b"x" * 200000)  # other bytes, already on their way to it
            up.srv = b
            wait_for(lambda: up.status().status == 204, timeout=10, what="the other node to answer")
            while up.offset < len(data):
                answer = up.append(data[up.offset:up.offset + 500000])
                assert answer.status == 203, answer
            half = up.offset
            a.signal(18)
            time.sleep(1)
            answer = up.complete(sha256(data))
            assert answer.status == 201 and half == len(data), answer
        for node in c.nodes:
            assert download(node, sha256(data)).body == data


def at_once(*calls):
    """What each of the calls returns, all of them made at the same moment."""
    answers, gate = [None] * len(calls), threading.Barrier(len(calls))

    def run(i):
        gate.wait()
        answers[i] = calls[i]()

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_upload_destroyed_and_completed_at_once_on_two_nodes_is_one_of_both():
    with Cluster(balancer=None) as c:
        one, two = c.nodes
        for i in range(24):
            up = Upload(one, filename="either")
            assert up.append(b"some" * i).status == 203
            shown = {"PortSIP-Upload-Token": up.token}
            # A pause, so that the destruction meets the completion at each of its steps.
            done, gone = at_once(lambda: one.post(up.path("complete"), shown, b"tail%d" % i),
                                 lambda: time.sleep(i % 8 / 1000) or two.post(up.path("destroy"), shown))
            assert done.status in (201, 404, 409) and gone.status in (204, 409), f"{done!r}\n{gone!r}"
            assert not (done.status == 201 and gone.status == 204), f"both:\n{done!r}\n{gone!r}"
            for node in c.nodes:
                if gone.status == 204:
                    refused(node.get(up.path("status")), "UPLOAD_UNKNOWN")
                    refused(node.post(up.path("complete"), shown), "UPLOAD_UNKNOWN")
                elif done.status == 201:
                    assert node.post(up.path("complete"), shown).json()["id"] == done.json()["id"]


def test_completes_at_once_on_two_nodes_make_one_file():
    with Cluster(balancer=None) as c:
        for i in range(24):
            up = Upload(c.nodes[i % 2], filename="one")
            assert up.append(b"base%d" % i).status == 203
            shown = {"PortSIP-Upload-Token": up.token}
            bodies = [b"" if i % 2 else b"a" * 50000, b"" if i % 3 else b"b" * 50000, b"c" * (i % 4)]
            answers = at_once(*[lambda body=body, node=c.nodes[n % 2]: node.post(up.path("complete"), shown, body)
                                for n, body in enumerate(bodies)])
            assert all(a.status in (201, 409, 416) for a in answers), answers
            shown["PortSIP-Upload-Token"] = up.status()["PortSIP-Upload-Token"]
            answers += [node.post(up.path("complete"), shown) for node in c.nodes]
            made = {(a.json()["id"], a.json()["digest"]) for a in answers if a.status == 201}
            assert len(made) == 1, answers
            assert [a.status for a in answers[-2:]] == [201, 201], answers
        assert c.nodes[0].get("/api/files").json()["count"] == 24


def test_uploads_go_through_nginx_as_shipped():
    need("nginx")
    with Cluster(balancer=Nginx) as c:
        data = Content(3000000, 5).read(0, 3000000)
        up = Upload(c.api, mode="offset", filename="nginx.bin")
        assert up.append(data[:1000000]).status == 203
        link = up.begin(length=2000000)
        link.send(data[1000000:1500000])
        # Nothing is buffered: what was sent arrives while the link is still open. After a break nginx may drop some.
        wait_for(lambda: up.status().status == 204 and up.offset > 1000000, what="the first bytes of an append")
        link.abort()
        while up.offset < len(data):
            answer = up.append(data[up.offset:])
            assert answer.status in (203, 409, 416), answer
        assert up.complete(sha256(data)).status == 201
        assert download(c.api, sha256(data)).body == data
        c.nodes[0].kill()
        for _ in range(10):
            assert download(c.api, sha256(data)).status == 200


def test_open_upload_takes_less_than_a_kibibyte_of_redis():
    """What the storage keeps in the session included: on a disk nothing, on S3 the multipart upload and its parts."""
    on_s3 = harness.STORAGE == "s3"
    uploads = 200 if on_s3 else 500
    with Cluster({"storage.s3.part_size": "5M"} if on_s3 else {}, nodes=1, balancer=None) as c:
        data = Content(5000, 9).read(0, 5000)

        def used():
            return int(re.search(r"used_memory:(\d+)", c.redis.command("INFO", "memory"))[1])

        def begin(count, body):
            for i in range(count):
                up = Upload(c.nodes[0], mode="rotating", filename=f"Recording of call number {i}.wav")
                assert up.append(body).status == 203
                assert up.append(data).status == 203
            return int(c.redis.command("MEMORY", "USAGE", f"blobd:s:{{{up.id}}}"))

        begin(50, data)  # what connections and scripts take
        before = used()
        key = begin(uploads, data)
        each = (used() - before) / uploads
        assert int(c.redis.command("DBSIZE")) >= uploads
        assert 0 < each <= 1024, f"{each:.0f} bytes"
        said = f"{each:.0f} bytes of Redis an open upload, {key} of them its key"
        if on_s3:
            with_parts = begin(5, Content(11 << 20, 9).read(0, 11 << 20))
            assert with_parts <= 1024, f"{with_parts} bytes"
            said += f", {with_parts} with two parts"
        print(said)


test_open_upload_takes_less_than_a_kibibyte_of_redis.timeout = 90


def test_nodes_share_a_redis_behind_a_unix_socket():
    redis = Redis(temp_dir())
    try:
        with Cluster({"sessions.redis.url": f"unix://{redis.socket}?db=3"}, redis=redis, balancer=None) as c:
            stored = many_at_once(c.nodes, 48)
            assert len(stored) == 48 and list_all(c.nodes[0], "alice")[1] == 48
            assert "db3:" in redis.command("INFO", "keyspace") and "db0:" not in redis.command("INFO", "keyspace")
    finally:
        redis.stop()
    help_text = subprocess.run([harness.BINARY, "--help"], capture_output=True, text=True, timeout=20).stdout
    assert "unix:///path" in help_text, "the help does not name the form"


# ---- what is refused ----------------------------------------------------------------------------------------------


def start_fails(node, *words):
    node.spawn()
    try:
        status = node.wait(20)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it runs:\n{node.log()[-2000:]}") from None
    finally:
        node.clean_up()
    assert status != 0
    missing = [w for w in words if w not in node.log()]
    assert not missing, f"not said: {missing}\n{node.log()[-2000:]}"


def test_node_on_another_directory_refuses_to_start_and_says_why():
    harness.on_disk()
    with Cluster(nodes=1, balancer=None) as c:
        other = c.make_node(root=temp_dir())
        start_fails(other, "blob store", "give both the same storage")
        assert c.nodes[0].admin("/readyz").status == 200


def test_nodes_with_embedded_sessions_do_not_get_at_one_directory():
    harness.on_disk()
    shared = {"sessions.store": "embedded", "storage.disk.shared": "true"}
    start_fails(Blobd(shared), "storage.disk.shared", "sessions.store=redis")
    alone = {"sessions.store": "embedded", "sessions.path": None}
    with Blobd(alone) as srv:
        apart = {"sessions.path": str(temp_dir() / "sessions.db")}
        start_fails(Blobd({**alone, **apart}, root=srv.root), str(srv.root), "in use by process")
        start_fails(Blobd({**shared, **apart}, root=srv.root), "sessions.store=redis")
        assert srv.admin("/readyz").status == 200


def test_evicting_redis_is_refused_and_the_setting_named():
    redis = Redis(temp_dir())
    try:
        redis.command("CONFIG", "SET", "maxmemory", "100mb")
        redis.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        start_fails(Cluster(redis=redis, nodes=0).make_node(), "maxmemory-policy noeviction")
    finally:
        redis.stop()
