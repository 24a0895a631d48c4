"""Starts and stops real servers for the integration tests.

Each server has a directory of its own under the test's temporary directory, free ports on 127.0.0.1, plain HTTP or TLS
with a certificate made on the spot, and a file of tokens. Which storage and which session store it runs on comes from
the environment, so that the whole suite can run over each:

    BLOBD_BIN                  the binary under test (build/blobd)
    BLOBD_TEST_STORAGE         disk (default) or s3
    BLOBD_TEST_S3_ENDPOINT, _BUCKET, _KEY, _SECRET, _REGION, _DRIVER
                               for s3; each server gets a prefix of its own
    BLOBD_TEST_SESSIONS        embedded (default) or redis: a private redis-server is started for each test
"""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import wire
from api import Api

REPO = Path(__file__).resolve().parent.parent.parent
BINARY = os.environ.get("BLOBD_BIN") or str(REPO / "build" / "blobd")
STORAGE = os.environ.get("BLOBD_TEST_STORAGE", "disk")
SESSIONS = os.environ.get("BLOBD_TEST_SESSIONS", "embedded")

# name: (secret, admin)
TOKENS = {"alice": ("alice-secret-token", False), "bob": ("bob-secret-token", False), "root": ("root-secret-token", True)}

SANITIZED = re.compile(r"ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error:|CHECK failed")


class Skip(Exception):
    """The test cannot run here; its message says why."""


def temp_dir():
    """A fresh directory under the test's own."""
    return Path(tempfile.mkdtemp(dir=os.environ.get("BLOBD_TEST_TMP"), prefix="d"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def make_certificate(directory, name="127.0.0.1", days=30):
    """A self-signed certificate: (cert, key) paths."""
    cert, key = Path(directory) / f"cert-{uuid.uuid4().hex[:8]}.pem", Path(directory) / f"key-{uuid.uuid4().hex[:8]}.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", str(key), "-out", str(cert), "-days", str(days), "-subj", f"/CN={name}",
                    "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"], check=True, capture_output=True)
    return cert, key


EXPIRED_CA = """
[ca]
default_ca = d
[d]
database = {dir}/index
new_certs_dir = {dir}
serial = {dir}/serial
default_md = sha256
policy = p
x509_extensions = e
[p]
commonName = supplied
[e]
basicConstraints = CA:TRUE
subjectAltName = IP:127.0.0.1
"""


def make_expired_certificate():
    """A self-signed certificate of January 2020: (cert, key) paths."""
    work = temp_dir()
    cert, key, request, config = work / "cert.pem", work / "key.pem", work / "request", work / "config"
    config.write_text(EXPIRED_CA.format(dir=work))
    (work / "index").touch()
    (work / "serial").write_text("01\n")
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                    str(key), "-out", str(request), "-subj", "/CN=127.0.0.1"], check=True, capture_output=True)
    subprocess.run(["openssl", "ca", "-batch", "-config", str(config), "-selfsign", "-keyfile", str(key), "-in", str(request),
                    "-out", str(cert), "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-notext"],
                   check=True, capture_output=True)
    return cert, key


def write_tokens(path, tokens):
    lines = [f"{name} {hashlib.sha256(secret.encode()).hexdigest()}{' admin' if admin else ''}"
             for name, (secret, admin) in tokens.items()]
    Path(path).write_text("# name, SHA-256 of the token, admin\n" + "\n".join(lines) + "\n")


class Redis:
    """A private redis-server."""

    def __init__(self, directory):
        self.dir, self.port = Path(directory), free_port()
        self.dir.mkdir(exist_ok=True)
        self.socket = str(self.dir / "socket")
        self.start()

    def start(self):
        self.proc = subprocess.Popen(["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
                                      str(self.dir), "--save", "", "--appendonly", "no", "--unixsocket", self.socket],
                                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wire.wait_for(self.answers, what="redis-server to answer")

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                s.sendall(b"PING\r\n")
                return s.recv(7) == b"+PONG\r\n"
        except OSError:
            return False

    def command(self, *args):
        p = subprocess.run(["redis-cli", "-p", str(self.port), *map(str, args)], capture_output=True, text=True, timeout=20)
        assert p.returncode == 0, p.stderr
        return p.stdout.strip()

    def stop(self):
        if self.proc.poll() is None:
            self.proc.kill()
        self.proc.wait(10)


class Blobd(Api):
    """A blobd. Use it in a with block: it starts on entering, and on leaving is stopped by TERM and must exit with 0.

    options: {"section.key": value} over the test's defaults; None removes a default. root: data directory of an
    earlier server, to start again on.
    """

    def __init__(self, options=None, tls=False, tokens=None, env=None, root=None, args=(), binary=None, redis=None):
        super().__init__("127.0.0.1", 0, TOKENS if tokens is None else tokens)
        self.work = temp_dir()
        self.root = Path(root) if root else self.work / "data"
        self.root.mkdir(exist_ok=True)
        self.binary, self.env, self.args, self.tls = binary or BINARY, env or {}, list(args), tls
        self.tokens_file = self.work / "tokens"
        self.config_file = self.work / "blobd.ini"
        self.log_path = self.work / "server.log"
        self.log_path.touch()
        write_tokens(self.tokens_file, self.tokens)
        self.redis, self.owns_redis = redis, False
        self.s3_prefix = f"t{uuid.uuid4().hex[:12]}/"
        self.given = dict(options or {})
        self.cert = self.key = self.proc = None
        if tls:
            self.cert, self.key = make_certificate(self.work)
            self.trust(self.cert)
        self.ports()

    def ports(self):
        self.port, self.admin_port = free_port(), free_port()

    def options(self):
        """Everything that goes into the configuration file."""
        o = {"server.listen": f"127.0.0.1:{self.port}", "server.admin_listen": f"127.0.0.1:{self.admin_port}",
             "tls.enabled": "true" if self.tls else "false", "auth.mode": "tokens",
             "auth.tokens_file": str(self.tokens_file), "storage.backend": STORAGE,
             "storage.disk.root": str(self.root), "sessions.store": SESSIONS}
        if self.tls:
            o |= {"tls.cert_file": str(self.cert), "tls.key_file": str(self.key)}
        if STORAGE == "s3":
            e = os.environ
            o |= {"storage.s3.endpoint": e["BLOBD_TEST_S3_ENDPOINT"], "storage.s3.bucket": e["BLOBD_TEST_S3_BUCKET"],
                  "storage.s3.cred_id": e["BLOBD_TEST_S3_KEY"], "storage.s3.cred_secret": e["BLOBD_TEST_S3_SECRET"],
                  "storage.s3.region": e.get("BLOBD_TEST_S3_REGION", "us-east-1"),
                  "storage.s3.driver": e.get("BLOBD_TEST_S3_DRIVER", "sigv4"), "storage.s3.prefix": self.s3_prefix,
                  "sessions.path": str(self.root / "sessions.db")}
        o |= self.given
        if o["sessions.store"] == "redis":
            if not self.redis:
                self.redis, self.owns_redis = Redis(self.work / "redis"), True
            o.setdefault("sessions.redis.url", f"redis://127.0.0.1:{self.redis.port}/0")
            o.pop("sessions.path", None)
        return {k: v for k, v in o.items() if v is not None}

    def write_config(self):
        sections = {}
        for name, value in self.options().items():
            section, _, key = name.rpartition(".")
            sections.setdefault(section, []).append(f"{key}={value}")
        self.config_file.write_text("".join(f"[{s}]\n" + "\n".join(lines) + "\n\n" for s, lines in sections.items()))

    # -- life

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
            self.check_log()

    def clean_up(self):
        if self.running:
            self.proc.kill()
            self.proc.wait(10)
        if self.owns_redis:
            self.redis.stop()

    @property
    def running(self):
        return self.proc is not None and self.proc.poll() is None

    def spawn(self):
        """Starts the process without waiting for it to be ready."""
        self.write_config()
        env = {k: v for k, v in os.environ.items() if not k.startswith("BLOBD_")} | self.env
        with open(self.log_path, "ab") as log:
            self.proc = subprocess.Popen([self.binary, "-c", str(self.config_file), *self.args], cwd=self.work, env=env,
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def start(self, timeout=30.0):
        for attempt in range(5):
            self.spawn()
            if self.await_ready(timeout):
                return self
            if "in use" not in self.log() and "taken" not in self.log():
                break
            self.ports()  # somebody took the port between choosing and binding it
        raise AssertionError(f"blobd did not become ready (exit {self.proc.poll()}):\n{self.log()[-3000:]}")

    def await_ready(self, timeout):
        end = time.monotonic() + timeout
        while self.running and time.monotonic() < end:
            try:
                if self.admin("/readyz", timeout=5).status == 200:
                    return True
            except (OSError, wire.Closed):
                pass
            time.sleep(0.02)
        return False

    def signal(self, number):
        self.proc.send_signal(number)

    def wait(self, timeout=60.0):
        return self.proc.wait(timeout)

    def stop(self, timeout=60.0):
        """TERM; the server must end by itself, with status 0."""
        if not self.running:
            raise AssertionError(f"blobd had ended before (exit {self.proc and self.proc.poll()}):\n{self.log()[-3000:]}")
        self.signal(signal.SIGTERM)
        status = self.wait(timeout)
        assert status == 0, f"exit status {status} after TERM:\n{self.log()[-3000:]}"

    def kill(self):
        """kill -9."""
        self.proc.kill()
        self.proc.wait(10)

    def restart(self, hard=False):
        """Stops (hard: kill -9) and starts again on the same data and ports."""
        self.kill() if hard else self.stop()
        return self.start()

    # -- talking to it

    def admin(self, path, timeout=10.0):
        with wire.Connection("127.0.0.1", self.admin_port, timeout=timeout) as c:
            return c.request("GET", path)

    def metric(self, name):
        """Sum of a metric family over its labels; None when there is none."""
        values = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", self.admin("/metrics").body.decode(), re.M)
        return sum(map(float, values)) if values else None

    # -- looking at it

    def memory(self, field):
        return int(re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{self.proc.pid}/status").read_text(), re.M)[1]) * 1024

    def rss(self):
        return self.memory("VmRSS")

    def peak_rss(self):
        return self.memory("VmHWM")

    def open_files(self):
        return len(os.listdir(f"/proc/{self.proc.pid}/fd"))

    def log(self):
        return self.log_path.read_text(errors="replace")

    def check_log(self):
        found = SANITIZED.search(self.log())
        assert not found, f"in the server's log:\n{self.log()[max(0, found.start() - 200):found.start() + 4000]}"

    def files(self, under=""):
        """Regular files below the storage root, relative, with their sizes."""
        base = self.root / under
        return {str(p.relative_to(self.root)): p.stat().st_size for p in base.rglob("*") if p.is_file()}


def start_up(options, *args, **kw):
    """Starts a blobd that is to end by itself: (exit status, what it wrote, seconds)"""
    srv = Blobd(options, args=args, **kw)
    began = time.monotonic()
    srv.spawn()
    try:
        status = srv.wait(30)
    finally:
        srv.clean_up()
    return status, srv.log(), time.monotonic() - began


def need(program):
    if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
        raise Skip(f"{program} is not installed")


def on_disk():
    """For tests that look into the storage root."""
    if STORAGE != "disk":
        raise Skip(f"looks at local files; storage is {STORAGE}")


def with_embedded_sessions():
    if SESSIONS != "embedded":
        raise Skip(f"about embedded sessions; the store is {SESSIONS}")
