"""The servers that are measured: how each is configured, started and stopped."""

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
PATH = os.environ["PATH"] + ":/usr/sbin"  # where Debian has nginx
TOKEN = "bench-token"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def first_line(*command):
    """First line with a version number in what a command prints."""
    out = subprocess.run(command, executable=shutil.which(command[0], path=PATH), capture_output=True, text=True, timeout=20)
    return next((x.strip() for x in (out.stdout + out.stderr).splitlines() if re.search(r"\d+\.\d+", x)), "")


class Server:
    """In a with block: started fresh on an empty directory, which is removed afterwards."""

    name = ""       # row label, and what --servers takes
    dialect = ""    # of the load generator
    program = ""
    sync = ""       # what is on the disk before it answers
    hashes = ""     # does it check the digest
    skip = ()       # workloads it has no part in

    def __init__(self, base):
        self.work = Path(tempfile.mkdtemp(dir=base))
        self.data = self.work / "data"
        self.data.mkdir()
        self.port, self.proc = free_port(), None

    def command(self):
        raise NotImplementedError

    def load_options(self):
        return ["--dialect", self.dialect, "--port", str(self.port)]

    @classmethod
    def missing(cls):
        """Why it cannot be measured here, or None."""
        return None if shutil.which(cls.program, path=PATH) else f"{cls.program} is not installed"

    @classmethod
    def version(cls):
        return first_line(cls.program, "--version")

    def __enter__(self):
        command = self.command()
        with open(self.work / "server.log", "wb") as log:
            self.proc = subprocess.Popen(command, executable=shutil.which(command[0], path=PATH), cwd=self.work,
                                         stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + 15
        while self.proc.poll() is None and time.monotonic() < end:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.05)
        tail = self.log_tail()
        self.__exit__()
        raise RuntimeError(f"{self.name} did not start: {tail}")

    def __exit__(self, *exc):
        if self.proc.poll() is None:
            self.proc.send_signal(signal.SIGTERM)
            try:
                self.proc.wait(15)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                self.proc.wait(10)
        shutil.rmtree(self.work, ignore_errors=True)

    def log_tail(self):
        return (self.work / "server.log").read_text(errors="replace")[-800:]


class Blobd(Server):
    """As it comes: the default, durable configuration; plain HTTP, a token, no access log (the peers write none)."""
    name = dialect = "blobd"
    program = os.environ.get("BLOBD_BIN") or str(REPO / "build" / "blobd")
    sync = "all it acknowledged"
    hashes = "streamed"

    def settings(self):
        tokens = self.work / "tokens"
        tokens.write_text(f"bench {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
        return {"server.listen": f"127.0.0.1:{self.port}", "server.admin_listen": f"127.0.0.1:{free_port()}",
                "tls.enabled": "false", "auth.tokens_file": tokens, "storage.disk.root": self.data,
                "log.level": "warn", "log.access": "false"}

    def command(self):
        return [self.program, *(x for k, v in self.settings().items() for x in ("--set", f"{k}={v}"))]

    def load_options(self):
        return super().load_options() + ["--token", TOKEN]


class BlobdRedis(Blobd):
    """With its sessions and index in a Redis of its own, which writes an append-only file and shares the machine."""
    name = "blobd-redis"
    redis = None

    def url(self):
        return f"redis://127.0.0.1:{self.redis_port}/0"

    def settings(self):
        return super().settings() | {"sessions.store": "redis", "sessions.redis.url": self.url()}

    @classmethod
    def missing(cls):
        return super().missing() or (None if shutil.which("redis-server") else "redis-server is not installed")

    def __enter__(self):
        self.redis_port, self.socket = free_port(), self.work / "socket"
        self.redis = subprocess.Popen(["redis-server", "--bind", "127.0.0.1", "--port", str(self.redis_port), "--unixsocket",
                                       str(self.socket), "--dir", str(self.work), "--appendonly", "yes", "--save", ""],
                                      stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        return super().__enter__()

    def __exit__(self, *exc):
        super().__exit__(*exc)
        self.redis.kill()
        self.redis.wait(10)
        shutil.rmtree(self.work, ignore_errors=True)


class BlobdRedisUnix(BlobdRedis):
    name = "blobd-redis-unix"

    def url(self):
        return f"unix://{self.socket}?db=0"


class Registry(Server):
    """Docker's registry (distribution): the peer that does the same job."""
    name = dialect = "registry"
    program = "docker-registry"
    sync = "data and state, 16 fsync/upload"
    hashes = "streamed"

    def command(self):
        conf = self.work / "registry.yml"
        conf.write_text(f"""\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {self.data}, maxthreads: 1000}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: '127.0.0.1:{self.port}', secret: bench}}
""")
        return [self.program, "serve", str(conf)]


class Nginx(Server):
    """PUT by WebDAV: no hash, no resuming, no sync. The floor for uploads, the ceiling for downloads."""
    name = "nginx"
    dialect = "dav"
    program = "nginx"
    sync = "none"
    hashes = "no"
    skip = ("W1b",)  # PUT has no append

    def command(self):
        (self.work / "tmp").mkdir()
        conf = self.work / "nginx.conf"
        temp = "".join(f"{x}_temp_path {self.work}/tmp; " for x in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        conf.write_text(f"""\
worker_processes 2;
{"user root;" if os.geteuid() == 0 else ""}
pid {self.work}/nginx.pid;
error_log stderr error;
daemon off;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_max_body_size 0;
    client_body_buffer_size 256k;
    {temp}
    server {{
        listen 127.0.0.1:{self.port} backlog=4096;
        root {self.data};
        location / {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
""")
        return [self.program, "-p", str(self.work), "-c", str(conf)]

    @classmethod
    def version(cls):
        return first_line(cls.program, "-v")


ALL = [Blobd, Registry, Nginx]
SESSIONS = [Blobd, BlobdRedis, BlobdRedisUnix]
