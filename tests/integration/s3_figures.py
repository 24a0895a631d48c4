#!/usr/bin/env python3
"""The figures of docs/s3.md: blobd, docker-registry's S3 driver and bare libcurl on one Ceph RGW, on a quiet machine.

    s3_figures.py throughput     8 clients, 8 uploads of 64 MiB each, then the same downloaded
    s3_figures.py turns [N]      the same in turns, N times (4), with the processors' time: what varies with the machine cancels
    s3_figures.py apart [N]      the same, with a processor for RGW and its OSD, and the other for all else
    s3_figures.py complete       a 1 GiB upload: how long its completion takes once every byte is acknowledged
    s3_figures.py memory         peak RSS at 32 parallel uploads of 32 MiB
    s3_figures.py amplification  bytes and requests that RGW gets for each byte uploaded

Needs docker-registry (turns do without), curl and build/tests/bench/loadgen (cmake --build build --target loadgen).
"""

import base64
import hmac
import http.client
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from contextlib import contextmanager, nullcontext
from pathlib import Path

from harness import REPO, Blobd, free_port
from rgw import Rgw
from s3_bucket import Bucket
from uploader import Content, Upload
from wire import wait_for

MIB = 1 << 20
LOADGEN = REPO / "build" / "tests" / "bench" / "loadgen"
CLIENTS, UPLOADS, SIZE = 8, 8, 64 * MIB


def presigned(s3, method, key):
    """By Signature V2, which takes no more than an HMAC."""
    expires = int(time.time()) + 3600
    text = f"{method}\n\n\n{expires}\n/{s3.bucket}/{key}"
    signature = base64.b64encode(hmac.digest(s3.secret.encode(), text.encode(), "sha1")).decode()
    query = urllib.parse.urlencode({"AWSAccessKeyId": s3.access, "Expires": expires, "Signature": signature})
    return f"{s3.endpoint}/{s3.bucket}/{key}?{query}"


def curl(lines):
    """All transfers of a configuration, CLIENTS at a time; seconds."""
    with tempfile.NamedTemporaryFile("w", suffix=".curl") as config:
        config.write("\n".join(lines) + "\n")
        config.flush()
        began = time.monotonic()
        p = subprocess.run(["curl", "-sS", "--fail", "--parallel", "--parallel-max", str(CLIENTS), "--parallel-immediate",
                            "-K", config.name], capture_output=True, text=True)
        seconds = time.monotonic() - began
    assert p.returncode == 0, p.stderr
    return seconds


def curl_get(urls):
    return curl([f'url = "{url}"\noutput = "/dev/null"\nlocation' for url in urls])


def load(dialect, port, seed, count, size, clients, *more):
    p = subprocess.run([str(LOADGEN), "--dialect", dialect, "--port", str(port), "--size", str(size), "--clients",
                        str(clients), "--count", str(count), "--seed", str(seed), "--samples", str(count), *more],
                       capture_output=True, text=True)
    assert p.returncode == 0, p.stdout[:500] + p.stderr
    return json.loads(p.stdout)


@contextmanager
def registry(s3, work):
    port, conf = free_port(), work / "registry.yml"
    conf.write_text(f"""\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  s3: {{accesskey: {s3.access}, secretkey: {s3.secret}, region: us-east-1, regionendpoint: '{s3.endpoint}', bucket: {s3.bucket},
        secure: false, v4auth: true, chunksize: 8388608, rootdirectory: /registry}}
  redirect: {{disable: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: '127.0.0.1:{port}', secret: bench}}
""")
    with open(work / "registry.log", "wb") as log:
        env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}  # it panics over AWS_CA_BUNDLE
        proc = subprocess.Popen(["docker-registry", "serve", str(conf)], env=env, stdin=subprocess.DEVNULL, stdout=log,
                                stderr=log)
    try:
        def answers():
            try:
                c = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                c.request("GET", "/v2/")
                return c.getresponse().status == 200
            except OSError:
                return False
        wait_for(answers, what="docker-registry to answer")
        yield port, proc.pid
    finally:
        proc.terminate()
        proc.wait(20)


@contextmanager
def rig():
    work = Path(tempfile.mkdtemp(prefix="s3fig-"))
    os.environ["BLOBD_TEST_TMP"] = str(work)
    try:
        with Rgw(work / "rgw") as s3:
            yield s3, work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def show(what, seconds, count=UPLOADS, size=SIZE):
    print(f"{what:34} {count * size / seconds / 1e6:7.1f} MB/s", flush=True)


QUIET = {"log__access": "false", "log__level": "warn"}


def blobd(s3, prefix=None, **more):
    return Blobd(Bucket(s3, prefix).options(**QUIET, **more), binary=os.environ.get("BLOBD_BIN"))


def throughput():
    with rig() as (s3, work):
        files = []
        for i in range(UPLOADS):
            files.append(work / f"f{i}")
            files[-1].write_bytes(os.urandom(SIZE))
        keys = [f"bare/{i}" for i in range(UPLOADS)]
        show("curl, upload", curl([f'url = "{presigned(s3, "PUT", k)}"\nupload-file = "{f}"' for k, f in zip(keys, files)]))
        with blobd(s3) as srv:
            token = srv.tokens["alice"][0]
            run = load("blobd", srv.port, 1, UPLOADS, SIZE, CLIENTS, "--token", token)
            show("blobd, upload", run["seconds"])
            ours = [f"http://127.0.0.1:{srv.port}{s['path']}" for s in run["samples"]]
            with registry(s3, work) as (port, _):
                run = load("registry", port, 2, UPLOADS, SIZE, CLIENTS)
                show("docker-registry, upload", run["seconds"])
                theirs = [f"http://127.0.0.1:{port}{s['path']}" for s in run["samples"]]
                bare = [presigned(s3, "GET", k) for k in keys]
                for turn in (1, 2):
                    show("curl from RGW, download", curl_get(bare))
                    show("curl from blobd, download", curl_get(ours))
                    show("curl from docker-registry, download", curl_get(theirs))
            print(f"blobd's peak RSS {srv.peak_rss() / MIB:.0f} MiB")


# -- in turns

TURN_SIZE, TURNS_PER_RGW = 64 * MIB, 1  # the RGW keeps all of it in memory, of which it has 4 GiB
ROUNDS = 3                              # of the same downloads in a turn


def cpu_of(pid):
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Turns:
    """Measures actions, and what they take of the processors: their clients, the server between, and RGW with its OSD."""

    def __init__(self):
        self.found = {}

    def measure(self, what, s3, server_pid, action, rounds=1):
        def clocks():
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            return (time.monotonic(), used.ru_utime + used.ru_stime, cpu_of(server_pid) if server_pid else 0.0,
                    cpu_of(s3.procs["rgw"].pid) + cpu_of(s3.procs["osd"].pid))
        before = clocks()
        for _ in range(rounds):
            action()
        self.found.setdefault(what, []).append([(b - a) / rounds for a, b in zip(before, clocks())])

    def show(self):
        size = UPLOADS * TURN_SIZE
        print(f"{'':34} {'MB/s, median and range':>26}   CPU seconds a GiB: client server  RGW")
        for what, rows in self.found.items():
            rates = [size / row[0] / 1e6 for row in rows]
            used = [statistics.median(row[i] for row in rows) * 2**30 / size for i in (1, 2, 3)]
            print(f"{what:34} {statistics.median(rates):10.1f} ({min(rates):5.1f} to {max(rates):5.1f})"
                  f"{'':21} {used[0]:6.2f} {used[1]:6.2f} {used[2]:6.2f}")
        for ours, theirs in (("blobd, upload", "curl, upload"), ("curl from blobd, download", "curl from RGW, download"),
                             ("blobd, upload", "docker-registry, upload"),
                             ("curl from blobd, download", "curl from docker-registry, download"),
                             ("curl by blobd's redirect, download", "curl from RGW, download")):
            if theirs not in self.found:
                continue
            ratios = sorted(b[0] / a[0] for a, b in zip(self.found[ours], self.found[theirs]))
            print(f"{ours} / {theirs}: median {statistics.median(ratios):.2f}, all {' '.join(f'{r:.2f}' for r in ratios)}")


def one_turn(turns, s3, srv, pointing, registry_pid, registry_port, files, seed):
    keys = [f"bare/{i}" for i in range(UPLOADS)]
    samples = {}

    def bare():
        curl([f'url = "{presigned(s3, "PUT", k)}"\nupload-file = "{f}"' for k, f in zip(keys, files)])

    def into(dialect, port, *more):
        run = load(dialect, port, seed, UPLOADS, TURN_SIZE, CLIENTS, *more)
        samples[dialect] = [f"http://127.0.0.1:{port}{s['path']}" for s in run["samples"]]

    up = [("curl, upload", None, bare),
          ("blobd, upload", srv.proc.pid, lambda: into("blobd", srv.port, "--token", srv.tokens["alice"][0])),
          ("docker-registry, upload", registry_pid, lambda: into("registry", registry_port))]
    down = [("curl from RGW, download", None, lambda: curl_get([presigned(s3, "GET", k) for k in keys])),
            ("curl from blobd, download", srv.proc.pid, lambda: curl_get(samples["blobd"])),
            ("curl by blobd's redirect, download", pointing.proc.pid,
             lambda: curl_get([url.replace(f":{srv.port}/", f":{pointing.port}/") for url in samples["blobd"]])),
            ("curl from docker-registry, download", registry_pid, lambda: curl_get(samples["registry"]))]
    if not registry_pid:
        up, down = up[:2], down[:3]
    for actions, rounds in ((up, 1), (down, ROUNDS)):
        for what, pid, action in actions if seed % 2 else actions[::-1]:
            turns.measure(what, s3, pid, action, rounds)


def keep_to(processor, pid):
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {processor})


def apart(count=4):
    in_turns(count, lambda s3: [keep_to(0, proc.pid) for proc in s3.procs.values()] + [keep_to(1, os.getpid())])


def in_turns(count=4, place=lambda s3: None):
    turns = Turns()
    for first in range(0, count, TURNS_PER_RGW):
        with rig() as (s3, work):
            files = [work / f"f{i}" for i in range(UPLOADS)]
            for file in files:
                file.write_bytes(os.urandom(TURN_SIZE))
            place(s3)
            beside = registry(s3, work) if shutil.which("docker-registry") else nullcontext((0, 0))
            with (blobd(s3, "turns") as srv, blobd(s3, "turns", storage__s3__download="redirect") as pointing,
                  beside as (port, pid)):
                for seed in range(first, min(first + TURNS_PER_RGW, count)):
                    one_turn(turns, s3, srv, pointing, pid, port, files, seed + 1)
    turns.show()


def complete():
    content = Content(1024 * MIB, 1)
    digest = content.digest()
    with rig() as (s3, work):
        with blobd(s3) as srv:
            up = Upload(srv)
            began = time.monotonic()
            for at in range(0, content.size, 128 * MIB):
                assert up.append(content.read(at, 128 * MIB)).status == 203
            sent = time.monotonic()
            assert up.complete(digest).status == 201
            print(f"blobd: 1 GiB in {sent - began:.1f} s, then complete in {(time.monotonic() - sent) * 1e3:.0f} ms", flush=True)
        with registry(s3, work) as (port, _):
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=170)
            c.request("POST", "/v2/bench/blobs/uploads/")
            r = c.getresponse()
            r.read()
            began = time.monotonic()
            where = r.headers["Location"]
            for at in range(0, content.size, 128 * MIB):
                c.request("PATCH", where, content.read(at, 128 * MIB), {"Content-Type": "application/octet-stream"})
                r = c.getresponse()
                assert r.status == 202, r.read()
                r.read()
                where = r.headers["Location"]
            sent = time.monotonic()
            c.request("PUT", where + ("&" if "?" in where else "?") + "digest=sha256:" + digest)
            r = c.getresponse()
            assert r.status == 201, r.read()
            print(f"docker-registry: 1 GiB in {sent - began:.1f} s, then complete in {(time.monotonic() - sent) * 1e3:.0f} ms")


def memory():
    with rig() as (s3, work):
        with blobd(s3) as srv:
            idle = srv.rss()
            run = load("blobd", srv.port, 3, 32, 32 * MIB, 32, "--token", srv.tokens["alice"][0])
            print(f"32 parallel uploads of 32 MiB: peak {srv.peak_rss() / MIB:.0f} MiB, idle {idle / MIB:.0f} MiB, "
                  f"{run['bytes'] / run['seconds'] / 1e6:.0f} MB/s")


def counters(s3):
    socket = next((s3.dir / "run").glob("client.rgw.a.*.asok"))
    dump = json.loads(s3.run("ceph", "--admin-daemon", str(socket), "perf", "dump"))["rgw"]
    return {k: dump[k] for k in ("req", "put", "put_b", "get", "get_b")}


def amplification():
    ways = [("one append of 256 MiB", 256 * MIB, 256 * MIB), ("appends of 8 MiB", 64 * MIB, 8 * MIB),
            ("appends of 3 MiB", 63 * MIB, 3 * MIB), ("appends of 1 MiB", 64 * MIB, MIB), ("appends of 100 KB", 10**7, 10**5),
            ("one request of 1 MiB", MIB, 0), ("one request of 64 MiB", 64 * MIB, 0)]
    with rig() as (s3, work):
        with blobd(s3) as srv:
            for seed, (name, size, chunk) in enumerate(ways):
                content = Content(size, seed)
                before = counters(s3)
                up = Upload(srv)
                while chunk and up.offset < size:
                    assert up.append(content.read(up.offset, chunk)).status == 203
                assert up.complete(content.digest(), None if chunk else content.read(0, size)).status == 201
                spent = {k: v - before[k] for k, v in counters(s3).items()}
                print(f"{name:24} {spent['put_b'] / size:5.2f} bytes written, {spent['get_b'] / size:5.2f} read for each "
                      f"byte; {spent['req']} requests", flush=True)


def main():
    actions = {"throughput": throughput, "turns": in_turns, "apart": apart, "complete": complete, "memory": memory,
               "amplification": amplification}
    if len(sys.argv) < 2 or sys.argv[1] not in actions or len(sys.argv) > 2 + (sys.argv[1] in ("turns", "apart")):
        sys.exit(__doc__)
    actions[sys.argv[1]](*map(int, sys.argv[2:]))


if __name__ == "__main__":
    main()
