"""A server's corner of a bucket, seen by a client that shares nothing with blobd: s3cmd.

    with endpoint() as s3:
        place = Bucket(s3)
        with Blobd(place.options()) as srv: …
        place.objects("data/")
"""

import hashlib
import os
import shutil
import subprocess
import uuid
from contextlib import contextmanager
from types import SimpleNamespace

from harness import STORAGE, need, temp_dir
from rgw import Rgw


@contextmanager
def rgw(**kw):
    """A Ceph RGW of the test's own, to be stopped and killed."""
    directory = temp_dir()
    with Rgw(directory, **kw) as s3:
        yield s3
    shutil.rmtree(directory, ignore_errors=True)


def endpoint_of_environment():
    e = os.environ
    return SimpleNamespace(endpoint=e["BLOBD_TEST_S3_ENDPOINT"], bucket=e["BLOBD_TEST_S3_BUCKET"],
                           access=e["BLOBD_TEST_S3_KEY"], secret=e["BLOBD_TEST_S3_SECRET"],
                           region=e.get("BLOBD_TEST_S3_REGION", "us-east-1"))


@contextmanager
def endpoint():
    """The endpoint that the environment names, or an RGW for as long as this lasts."""
    if "BLOBD_TEST_S3_ENDPOINT" in os.environ:
        yield endpoint_of_environment()
        return
    with rgw() as s3:
        yield s3


def bucket_of(srv):
    """What a server of the suite, run over S3, has of the bucket."""
    return Bucket(endpoint_of_environment(), srv.s3_prefix.rstrip("/"))


def stored(srv, under=""):
    """Names of what a server's storage holds: of files below its root, or of objects below its prefix."""
    return list(srv.files(under) if STORAGE == "disk" else bucket_of(srv).objects(under))


class Bucket:
    def __init__(self, s3, prefix=None):
        self.s3, self.prefix, self.work = s3, prefix or f"t{uuid.uuid4().hex[:12]}", temp_dir()
        self.config = self.work / "s3cfg"
        host = s3.endpoint.split("//")[1]
        self.config.write_text(f"[default]\naccess_key = {s3.access}\nsecret_key = {s3.secret}\nhost_base = {host}\n"
                               f"host_bucket = {host}\nuse_https = False\n")

    def options(self, **more):
        """Of a blobd on it. In names given here, __ stands for the dot: storage__s3__download="redirect"."""
        o = {"storage.backend": "s3", "storage.s3.endpoint": self.s3.endpoint, "storage.s3.bucket": self.s3.bucket,
             "storage.s3.cred_id": self.s3.access, "storage.s3.cred_secret": self.s3.secret,
             "storage.s3.region": self.s3.region, "storage.s3.prefix": self.prefix, "sessions.path": "sessions.db"}
        return o | {name.replace("__", "."): value for name, value in more.items()}

    def s3cmd(self, *args):
        need("s3cmd")
        p = subprocess.run(["s3cmd", "-c", str(self.config), "--no-progress", *args], capture_output=True, timeout=120)
        assert p.returncode == 0, p.stderr.decode(errors="replace")
        return p.stdout.decode()

    @property
    def url(self):
        return f"s3://{self.s3.bucket}/{self.prefix}/"

    def objects(self, below=""):
        """{key below the prefix: size}"""
        found = {}
        for line in self.s3cmd("ls", "-r", self.url + below).splitlines():
            _, _, size, url = line.split(None, 3)
            found[url[len(self.url):]] = int(size)
        return found

    def unfinished(self):
        """Keys of multipart uploads that nobody has completed or aborted."""
        lines = self.s3cmd("multipart", f"s3://{self.s3.bucket}/").splitlines()
        return [line for line in lines if f"/{self.prefix}/" in line]

    def digests(self, below="data/"):
        """{key below the prefix: SHA-256 of what a GET of it gives}"""
        copy = temp_dir()
        self.s3cmd("get", "-r", self.url + below, str(copy) + "/")
        found = {}
        for path in copy.rglob("*"):
            if path.is_file():
                with open(path, "rb") as f:
                    found[below + str(path.relative_to(copy))] = hashlib.file_digest(f, "sha256").hexdigest()
        shutil.rmtree(copy)
        return found

    def below(self, *prefixes):
        return sorted(key for key in self.objects() if key.startswith(prefixes))
