#!/usr/bin/env python3
"""A cluster on loopback: Redis, nodes that share their storage, and HAProxy or nginx with the configuration that
scripts/proxy ships, only its addresses replaced.

    with Cluster() as c:             # two nodes on one directory, behind HAProxy
        c.api                        # through the balancer
        c.nodes[0].kill()

scripts/cluster is this file's command line.
"""

import argparse
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
import wire
from api import Api

PROXY = harness.REPO / "scripts" / "proxy"
# The placeholders of those files: RFC 5737's TEST-NET-1, which is nobody's.
PLACEHOLDER = re.compile(r"\b192\.0\.2\.\d+:8887")
ADDRESS = re.compile(r"\b\d+\.\d+\.\d+\.\d+\b")


def fill_in(text, addresses):
    """The text with its server lines' placeholders replaced, one an address; a server line too many is left out. Refuses
    a text that still names any other address than 127.0.0.1: a proxy would send real requests there."""
    lines, left = [], list(addresses)
    for line in text.splitlines(keepends=True):
        if PLACEHOLDER.search(line):
            if not left:
                continue
            line = PLACEHOLDER.sub(left.pop(0), line)
        lines.append(line)
    text = "".join(lines)
    strange = sorted(set(ADDRESS.findall(text)) - {"127.0.0.1"})
    if left or strange:
        raise AssertionError(f"the proxy's file has no line for {left}, and names {strange}")
    return text


class Balancer(Api):
    """A proxy in the foreground, on a port of its own."""

    def __init__(self, directory, nodes, tokens, port=None):
        super().__init__("127.0.0.1", port or harness.free_port(), tokens)
        self.dir, self.nodes, self.proc = Path(directory), nodes, None
        self.dir.mkdir(exist_ok=True)
        self.log_path = self.dir / "log"

    def spawn(self, *command):
        with open(self.log_path, "ab") as log:
            self.proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir)

    def ready(self):
        if self.proc.poll() is not None:
            raise AssertionError(f"the balancer ended:\n{self.log_path.read_text()[-2000:]}")
        try:
            return self.get("/api/files?top=1", who=None).status != 503
        except (OSError, wire.Closed):
            return False

    def stop(self):
        if self.proc and self.proc.poll() is None:
            self.proc.terminate()
            try:
                self.proc.wait(5)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait(5)


class HAProxy(Balancer):
    def config(self):
        text = (PROXY / "haproxy.cfg").read_text()
        text = re.sub(r"bind :8887 .*", f"bind 127.0.0.1:{self.port}", text)
        text = text.replace("/etc/haproxy/away.http", str(PROXY / "away.http"))
        return fill_in(text, [f"127.0.0.1:{node.port} port {node.admin_port}" for node in self.nodes])

    def start(self):
        harness.need("haproxy")
        file = self.dir / "haproxy.cfg"
        file.write_text(self.config())
        self.spawn(shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin"), "-db", "-f", str(file))
        wire.wait_for(self.ready, what="HAProxy to answer")


class Nginx(Balancer):
    def config(self):
        text = (PROXY / "nginx.conf").read_text()
        text = text.replace("listen 8887 ssl;", f"listen 127.0.0.1:{self.port};")
        text = re.sub(r" *ssl_certificate.*\n", "", text)
        text = fill_in(text, [f"127.0.0.1:{node.port}" for node in self.nodes])
        where = "".join(f"{kind}_temp_path {self.dir}/{kind};" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return (f"daemon off; pid {self.dir}/pid; error_log stderr; events {{ worker_connections 4096; }}\n"
                f"http {{ access_log off; {where}\n{text}}}\n")

    def start(self):
        harness.need("nginx")
        file = self.dir / "nginx.conf"
        file.write_text(self.config())
        self.spawn(shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"), "-p", str(self.dir), "-c", str(file))
        wire.wait_for(self.ready, what="nginx to answer")


class Cluster:
    """options: for every node, over the cluster's defaults. shared: the directory of the blobs, if not a new one."""

    def __init__(self, options=None, nodes=2, balancer=HAProxy, redis=None, shared=None, tokens=None, directory=None,
                 port=None):
        self.dir = Path(directory) if directory else harness.temp_dir()
        self.dir.mkdir(exist_ok=True)
        self.redis, self.owns_redis = redis, redis is None
        self.shared = Path(shared) if shared else self.dir / "blobs"
        self.s3_prefix = f"c{secrets.token_hex(6)}/"
        self.options, self.count, self.tokens = dict(options or {}), nodes, tokens
        self.balancer, self.port = balancer, port
        self.nodes, self.api = [], None

    def node_options(self):
        o = {"sessions.store": "redis", "sessions.lease": "3s", "server.drain_delay": "3s",
             "sessions.redis.connect_timeout": "1s", "sessions.redis.command_timeout": "1s"}
        if harness.STORAGE == "disk":
            o["storage.disk.shared"] = "true"
        return o | self.options

    def make_node(self, **kw):
        kw.setdefault("root", self.shared)
        node = harness.Blobd({**self.node_options(), **kw.pop("options", {})}, redis=self.redis, tokens=self.tokens, **kw)
        node.s3_prefix = self.s3_prefix
        return node

    def start(self):
        if not self.redis:
            self.redis = harness.Redis(self.dir / "redis")
        self.shared.mkdir(exist_ok=True)
        for _ in range(self.count):
            self.nodes.append(self.make_node())
        for node in self.nodes:
            node.start()
        if self.balancer:
            self.api = self.balancer(self.dir / "balancer", self.nodes, self.nodes[0].tokens, self.port)
            self.api.start()
        return self

    def stop(self):
        if self.api:
            self.api.stop()
        for node in self.nodes:
            if node.running:
                node.signal(signal.SIGCONT)
                node.signal(signal.SIGTERM)
        for node in self.nodes:
            if node.running:
                node.wait(60)

    def clean_up(self):
        if self.api:
            self.api.stop()
        for node in self.nodes:
            node.clean_up()
        if self.redis and self.owns_redis:
            self.redis.stop()

    def check_logs(self):
        for node in self.nodes:
            node.check_log()

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.clean_up()
            raise

    def __exit__(self, kind, *exc):
        try:
            if kind is None:
                self.stop()
        finally:
            self.clean_up()
            self.check_logs()


TOUR = """
Redis 127.0.0.1:{redis}, nodes on {nodes}, {balancer} before them on
    http://127.0.0.1:{port}
Files: {dir}. Ctrl-C ends all of it.

# ---- tour: one upload over both nodes; paste it into another shell -------------------------------------
NODES=({nodes}) API=http://127.0.0.1:{port}/api TMP=$(mktemp -d)
blob() {{ curl -sS -D $TMP/answer -H 'Authorization: Bearer {token}' "$@"; }}
said() {{ tr -d '\\r' <$TMP/answer | sed -n "s/^$1: //Ip"; }}
head -c 4000000 /dev/urandom >$TMP/call.wav; SUM=$(sha256sum <$TMP/call.wav | cut -d' ' -f1)
blob -X POST "$API/blobs/uploads?filename=call.wav"; ID=$(said PortSIP-Upload-ID)
for i in 0 1 2 3; do                       # each million bytes goes to the other node
    tail -c +$((i * 1000000 + 1)) $TMP/call.wav | head -c 1000000 |
        blob -H "PortSIP-Upload-Token: $(said PortSIP-Upload-Token)" -H "Upload-Offset: $((i * 1000000))" \\
             --data-binary @- "http://${{NODES[i % 2]}}/api/blobs/uploads/$ID/append"
    echo "node $((i % 2 + 1)): $(said Upload-Offset) bytes"
done
blob -X POST -H "PortSIP-Upload-Token: $(said PortSIP-Upload-Token)" "$API/blobs/uploads/$ID/complete?digest=$SUM"; echo
blob -o $TMP/back.wav "$API/blobs/$SUM"; cmp $TMP/call.wav $TMP/back.wav && echo 'the download equals the recording'
# ---- end of the tour ---------------------------------------------------------------------------------
"""


def serve(args):
    directory = Path(args.dir).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["BLOBD_TEST_TMP"] = str(directory)
    token = secrets.token_hex(16)
    cluster = Cluster(balancer=Nginx if args.proxy == "nginx" else HAProxy, tokens={"demo": (token, True)},
                      directory=directory, port=args.port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with cluster as c:
        print(TOUR.format(redis=c.redis.port, nodes=" ".join(f"127.0.0.1:{n.port}" for n in c.nodes), port=c.api.port,
                          balancer=args.proxy, dir=directory, token=token), flush=True)
        try:
            while all(n.running for n in c.nodes) or not args.strict:
                time.sleep(0.5)
        except (KeyboardInterrupt, SystemExit):
            pass


def main():
    parser = argparse.ArgumentParser(prog="scripts/cluster", description="Two nodes of blobd behind a balancer, on loopback.")
    parser.add_argument("--storage", choices=("disk", "s3"), default="disk",
                        help="one shared directory, or a radosgw of its own")
    parser.add_argument("--proxy", choices=("haproxy", "nginx"), default="haproxy")
    parser.add_argument("--port", type=int, default=8887, help="the balancer's, 8887")
    parser.add_argument("--dir", default="var/cluster", help="for data and logs")
    parser.add_argument("--strict", action="store_true", help="end when a node ends")
    args = parser.parse_args()
    if args.storage == "disk":
        serve(args)
        return
    import rgw
    with rgw.Rgw(harness.temp_dir()) as s3:
        for name, value in s3.settings().items():
            os.environ[name] = value
        harness.STORAGE = "s3"
        serve(args)


if __name__ == "__main__":
    main()
