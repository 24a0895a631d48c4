#!/usr/bin/env python3
"""Downloads over TLS 1.3 (AES-256-GCM): blobd beside nginx, and beside other builds of blobd.

    tests/bench/tls.py --load build/tests/bench/tls_load blobd=build/blobd [NAME=PATH/blobd …] [--rounds 3] [--seconds 3]

All servers are up at once, and take turns within each round; what is printed are medians and, since the machine may do
other things meanwhile, the medians of the ratios to nginx within a round. CPU is that of the server's processes.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "integration"))

from harness import Blobd, free_port, make_certificate
from uploader import store

SIZES = {"big": 1 << 30, "mib": 1 << 20, "small": 10 << 10}
ROWS = (("1 GiB, one connection, GB/s", "big", 1, False), ("1 MiB x 64 connections, GB/s", "mib", 64, False),
        ("10 KiB x 64 connections, requests/s", "small", 64, False), ("new connections/s", "small", 32, True))


def cpu_seconds(pid):
    """Of a process and its children, so far; threads that have ended are not in it."""
    total, todo = 0, [pid]
    while todo:
        for task in Path(f"/proc/{todo.pop()}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
            todo += [int(x) for x in (task / "children").read_text().split()]
    return total / 1e9


class Nginx:
    def __init__(self, work, cert, key, contents):
        self.port, self.work = free_port(), work
        (work / "www").mkdir()
        for name, path in contents.items():
            os.link(path, work / "www" / name)
        (work / "nginx.conf").write_text(f"""
worker_processes 2; daemon off; error_log stderr error; pid {work}/nginx.pid; {"user root;" if os.geteuid() == 0 else ""}
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000;
    open_file_cache max=100 inactive=60s;
    server {{
        listen 127.0.0.1:{self.port} ssl backlog=4096 reuseport; root {work}/www;
        ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
    }}
}}
""")
        self.paths = {name: f"/{name}" for name in contents}

    def __enter__(self):
        program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        self.proc = subprocess.Popen([program, "-p", str(self.work), "-c", str(self.work / "nginx.conf")])
        self.pid = self.proc.pid
        time.sleep(0.5)
        return self

    def __exit__(self, *exc):
        self.proc.terminate()
        self.proc.wait(10)


def blobd_with(stack, binary, cert, key, contents, digests):
    srv = Blobd({"log.access": "false", "tls.cert_file": str(cert), "tls.key_file": str(key)}, tls=True,
                binary=os.path.abspath(binary))
    srv.trust(cert)
    stack.enter_context(srv)
    for path in contents.values():
        store(srv, path.read_bytes())
    srv.pid, srv.paths = srv.proc.pid, {name: f"/api/blobs/{digests[name]}" for name in contents}
    return srv


def measure(load, srv, name, connections, fresh, seconds):
    before = cpu_seconds(srv.pid)
    out = subprocess.run([load, str(srv.port), srv.paths[name], str(connections), str(seconds)] + ["new"] * fresh,
                         capture_output=True, text=True, timeout=seconds + 60)
    assert out.returncode == 0, out.stderr
    got, cpu = json.loads(out.stdout), cpu_seconds(srv.pid) - before
    per_second = (got["requests"] if name == "small" else got["bytes"] / 1e9) / got["seconds"]
    return per_second, cpu / (got["requests"] / 1e3 if name == "small" else got["bytes"] / 1e9)


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("--load", required=True)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--seconds", type=float, default=3)
    ask.add_argument("--rows", default="0123")
    ask.add_argument("builds", nargs="+")
    given = ask.parse_args()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        cert, key = make_certificate(work)
        contents, digests = {}, {}
        for name, size in SIZES.items():
            contents[name] = work / name
            data = os.urandom(1 << 20) * (size >> 20) if size >= 1 << 20 else os.urandom(size)
            contents[name].write_bytes(data)
            digests[name] = hashlib.sha256(data).hexdigest()
        servers = {"nginx": stack.enter_context(Nginx(work, cert, key, contents))}
        for build in given.builds:
            label, _, binary = build.partition("=")
            servers[label] = blobd_with(stack, binary, cert, key, contents, digests)
        for i in map(int, given.rows):
            title, name, connections, fresh = ROWS[i]
            seen = {label: [] for label in servers}
            for _ in range(given.rounds):
                for label, srv in servers.items():
                    seen[label].append(measure(given.load, srv, name, connections, fresh, given.seconds))
            print(f"{title} (CPU s a {'1000 requests' if name == 'small' else 'GB'})")
            for label, runs in seen.items():
                rate, cpu = (statistics.median(x[j] for x in runs) for j in (0, 1))
                ratio, ratio_cpu = (statistics.median(x[j] / y[j] for x, y in zip(runs, seen["nginx"])) for j in (0, 1))
                print(f"    {label:10} {rate:10.2f} ({cpu:.3f})   to nginx: {ratio:.2f} ({ratio_cpu:.2f})", flush=True)


if __name__ == "__main__":
    main()
