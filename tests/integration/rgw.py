#!/usr/bin/env python3
"""A real S3 endpoint for tests: one Ceph monitor, one OSD and radosgw as plain processes on loopback, without systemd.

    with Rgw(directory) as s3:           # up in two to four seconds
        s3.endpoint, s3.bucket, s3.access, s3.secret

    rgw.py up DIRECTORY [PORT]           the same for the command line; prints what to export
    rgw.py down DIRECTORY

The directory's path must be short: its sockets' names have room for 107 bytes. The OSD keeps everything in memory
unless durable=True. Debian: radosgw ceph-mon ceph-osd ceph-common, without recommended packages.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "ceph-authtool", "monmaptool", "openssl", "curl")

# cephx is needed: without it radosgw-admin is refused. Without tcp_nodelay a kept-alive GET takes 40 ms. The short GC
# times let a test see that deleted objects really go.
CONFIG = """
[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:{mon_port}/0
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_msgr1 = false
ms_bind_ipv4 = true
ms_bind_ipv6 = false
ms_bind_port_min = {port_min}
ms_bind_port_max = {port_max}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {dir}/keyring
run_dir = {dir}/run
admin_socket = {dir}/run/$name.$pid.asok
log_file = {dir}/log/$name.log
log_to_stderr = false
err_to_stderr = true
crash_dir = {dir}/log
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data_avail_warn = 1
mon_data_avail_crit = 1
paxos_propose_interval = 0.05
paxos_min_wait = 0.01
[mon]
mon_data = {dir}/mon
mon_cluster_log_file = {dir}/log/cluster.log
[osd]
osd_data = {dir}/osd
osd_objectstore = {store}
memstore_device_bytes = 4294967296
bluestore_block_size = 4294967296
bluestore_fsck_on_mount = false
osd_memory_target = 939524096
osd_class_load_list = *
osd_class_default_list = *
osd_max_object_size = 134217728
[client]
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1{tls}
rgw_thread_pool_size = 32
rgw_dynamic_resharding = false
rgw_gc_obj_min_wait = 2
rgw_gc_processor_period = 3
rgw_gc_processor_max_time = 3
rgw_dns_name = localhost
rgw_data = {dir}/run
"""


def free_block(size=64):
    """A port with a stretch of free ones behind it, for the OSD's listeners."""
    for base in range(20000 + os.getpid() * 97 % 8000, 32000, size):
        try:
            for port in (base, base + 1, base + 10):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", port))
            return base
        except OSError:
            continue
    raise RuntimeError("no free ports")


class Rgw:
    def __init__(self, directory, port=None, durable=False, tls_pem=None):
        self.dir = Path(directory).resolve()
        self.port = port or free_block()
        self.durable, self.tls_pem = durable, tls_pem
        self.access, self.secret, self.bucket, self.region = "testaccess", "testsecret", "testbucket", "us-east-1"
        self.conf = self.dir / "ceph.conf"
        self.procs = {}

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_endpoint(self):
        return f"https://127.0.0.1:{self.port + 1}"

    def settings(self, driver="sigv4"):
        """What the harness and the suites read from their environment."""
        return {"BLOBD_TEST_STORAGE": "s3", "BLOBD_TEST_S3_ENDPOINT": self.endpoint, "BLOBD_TEST_S3_BUCKET": self.bucket,
                "BLOBD_TEST_S3_KEY": self.access, "BLOBD_TEST_S3_SECRET": self.secret,
                "BLOBD_TEST_S3_REGION": self.region, "BLOBD_TEST_S3_DRIVER": driver}

    def run(self, *command, timeout=60):
        env = dict(os.environ, CEPH_CONF=str(self.conf), CEPH_ARGS=f"--conf {self.conf}")
        p = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
        if p.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {p.stderr.strip()[-500:]}")
        return p.stdout

    def spawn(self, name, *command):
        with open(self.dir / "log" / f"{name}.out", "ab") as log:
            proc = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                    env=dict(os.environ, CEPH_CONF=str(self.conf), CEPH_ARGS=f"--conf {self.conf}"))
        self.procs[name] = proc
        (self.dir / "run" / f"{name}.pid").write_text(str(proc.pid))

    def until(self, what, seconds, condition):
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"ceph: {what} not within {seconds} s, see {self.dir}/log")
            time.sleep(0.1)

    def answers(self):
        try:
            with urllib.request.urlopen(self.endpoint + "/", timeout=2) as r:
                return r.status == 200
        except OSError:
            return False

    def mon_is_up(self):
        try:
            self.run("ceph", "--connect-timeout", "3", "mon", "stat", timeout=5)
            return True
        except (RuntimeError, subprocess.TimeoutExpired):
            return False

    def start(self):
        missing = [p for p in PROGRAMS if not shutil.which(p)]
        if missing:
            raise RuntimeError(f"missing: {', '.join(missing)}")
        for name in ("mon", "osd", "run", "log"):
            (self.dir / name).mkdir(parents=True)
        fsid = str(uuid.uuid4())
        tls = f" ssl_endpoint=127.0.0.1:{self.port + 1} ssl_certificate={self.tls_pem}" if self.tls_pem else ""
        self.conf.write_text(CONFIG.format(fsid=fsid, dir=self.dir, port=self.port, mon_port=self.port + 10,
                                           port_min=self.port + 20, port_max=self.port + 60, tls=tls,
                                           store="bluestore" if self.durable else "memstore"))
        keyring = str(self.dir / "keyring")
        self.run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        for name in ("client.admin", "client.rgw.a", "osd.0"):
            self.run("ceph-authtool", keyring, "--gen-key", "-n", name, "--cap", "mon", "allow *", "--cap", "osd", "allow *",
                     "--cap", "mgr", "allow *")
        monmap = str(self.dir / "monmap")
        self.run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{self.port + 10}]", monmap)
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self.spawn("mon", "ceph-mon", "-f", "-i", "a")
        self.until("the monitor", 20, self.mon_is_up)
        osd = str(uuid.uuid4())
        self.run("ceph", "osd", "new", osd, "0")
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.spawn("osd", "ceph-osd", "-f", "-i", "0")
        self.start_gateway()
        self.run("radosgw-admin", "-n", "client.rgw.a", "user", "create", "--uid=test", "--display-name=test",
                 f"--access-key={self.access}", f"--secret-key={self.secret}")
        self.make_bucket(self.bucket)
        return self

    def start_gateway(self):
        self.spawn("rgw", "radosgw", "-f", "-n", "client.rgw.a")
        self.until("radosgw", 30, self.answers)

    def make_bucket(self, name):
        """radosgw takes V2 signatures too, which need no more than openssl."""
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        sign = subprocess.run(["openssl", "dgst", "-sha1", "-hmac", self.secret, "-binary"], check=True,
                              input=f"PUT\n\n\n{date}\n/{name}".encode(), capture_output=True).stdout
        b64 = subprocess.run(["openssl", "base64", "-A"], input=sign, capture_output=True, check=True).stdout.decode()
        req = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT",
                                     headers={"Date": date, "Authorization": f"AWS {self.access}:{b64}"})
        with urllib.request.urlopen(req, timeout=30):
            pass

    def signal(self, name, number):
        """name: rgw or osd; SIGSTOP and SIGCONT make the endpoint stall."""
        self.procs[name].send_signal(number)

    def kill_gateway(self):
        self.procs["rgw"].kill()
        self.procs["rgw"].wait(10)

    def stop(self):
        for name in ("rgw", "osd", "mon"):
            proc = self.procs.get(name)
            if proc and proc.poll() is None:
                proc.send_signal(signal.SIGCONT)
                proc.kill()
            if proc:
                proc.wait(10)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *exc):
        self.stop()


def down(directory):
    """Ends what `up` left running there, after making sure that a pid is still Ceph's."""
    for name in ("rgw", "osd", "mon"):
        file = Path(directory) / "run" / f"{name}.pid"
        if not file.exists():
            continue
        pid = int(file.read_text())
        try:
            if any(word in Path(f"/proc/{pid}/cmdline").read_text() for word in ("ceph-", "radosgw")):
                os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass
        file.unlink()


def main():
    if len(sys.argv) >= 3 and sys.argv[1] == "up":
        s3 = Rgw(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else None)
        try:
            s3.start()
        except BaseException:
            s3.stop()
            raise
        print("\n".join(f"export {name}={value}" for name, value in s3.settings().items()))
    elif len(sys.argv) == 3 and sys.argv[1] == "down":
        down(sys.argv[2])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
