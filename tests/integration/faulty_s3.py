#!/usr/bin/env python3
"""An S3 endpoint that misbehaves on demand, for what a real one does too rarely to test.

It keeps objects in memory and checks no signatures. A key that begins with FAULT.N/ meets that fault in its first N
requests (N = all: in every one); the faults are the methods fault_* below, their names with - for _. Other keys are
served as they should be.

    with FaultyS3() as s3:
        s3.endpoint, s3.tls_endpoint, s3.ca_file
        with s3.fault("slowdown", "PUT .*/data/", times=5): …   # the same for what a server asks for
"""

import email.utils
import hashlib
import re
import ssl
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace
from xml.sax.saxutils import escape

from harness import make_certificate

CLOCK_AHEAD = {"skewed": 3600, "far-skewed": 4 * 3600, "ahead": 7200, "ahead-503": 7200}  # by fault, in seconds
LATE = 3            # a late answer
FAR = 0.1           # each answer of an endpoint that is far away


def etag_of(data):
    return '"' + hashlib.md5(data).hexdigest() + '"'


def iso(seconds):
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Gone(Exception):
    """The connection is dropped without a word."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16
    disable_nagle_algorithm = True

    # -- plumbing

    def log_message(self, *args):
        pass

    def handle_expect_100(self):
        if self.fault() == "no-continue":
            return True
        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.wfile.flush()
        return True

    def key(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        return path.lstrip("/").partition("/")[2]

    def query(self):
        return urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, keep_blank_values=True)

    def fault(self):
        if self.armed:
            return self.armed
        found = re.match(r"([a-z0-9-]+)\.(\d+|all)/", self.key() or self.query().get("prefix", [""])[0])
        if not found:
            return None
        name, times = found.groups()
        if times == "all" or self.server.count[self.key()] <= int(times):
            return name
        return None

    def body(self):
        if self.have_body is None:
            self.have_body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return self.have_body

    def send(self, status, data=b"", headers=(), names=str, date=None):
        self.body()
        if date is None and self.fault() in CLOCK_AHEAD:
            date = time.time() + CLOCK_AHEAD[self.fault()]
        self.wfile.write(f"HTTP/1.1 {status} X\r\n".encode())
        out = {"Date": email.utils.formatdate(date, usegmt=True), "Server": "faulty"} | dict(headers)
        if status != 204:
            out.setdefault("Content-Length", str(len(data)))
        for name, value in out.items():
            self.wfile.write(f"{names(name)}: {value}\r\n".encode())
        self.wfile.write(b"\r\n")
        if self.command != "HEAD":
            self.wfile.write(data)
        self.wfile.flush()

    def error(self, status, code, extra="", headers=(), date=None):
        xml = f'<?xml version="1.0"?>\n<Error><Code>{code}</Code><Message>m</Message>{extra}</Error>'
        self.send(status, xml.encode(), headers, date=date)

    def parse_request(self):
        """Counts the request, before 100 Continue is decided on."""
        self.requestline = str(self.raw_requestline, "iso-8859-1").rstrip("\r\n")
        method, self.path = (self.requestline.split() + ["", ""])[:2]
        with self.server.lock:
            self.server.count[self.key()] = self.server.count.get(self.key(), 0) + 1
            self.rule = self.server.rule
            self.armed = self.rule.take(method + " " + self.path) if self.rule else None
        return super().parse_request()

    def key_is_refused(self):
        """True when the request was answered, since its key pair is not one of those that count."""
        if self.server.keys is None:
            return False
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        named = re.search(r"Credential=([^/]+)/|AWS ([^:]+):", self.headers.get("Authorization", ""))
        key = query["X-Amz-Credential"][0].partition("/")[0] if "X-Amz-Credential" in query else named and (named[1] or named[2])
        token = query.get("X-Amz-Security-Token", [self.headers.get("x-amz-security-token", "")])[0]
        if self.server.keys.get(key) == token:
            return False
        with self.server.lock:
            self.server.count["refused keys"] = self.server.count.get("refused keys", 0) + 1
        if key not in self.server.keys:
            self.error(403, "InvalidAccessKeyId")
        else:
            self.error(400, "ExpiredToken")
        return True

    def do(self):
        self.have_body = None
        try:
            if self.key_is_refused():
                return
            fault = self.fault()
            handler = getattr(self, "fault_" + fault.replace("-", "_"), None) if fault else None
            if not handler or not handler():
                self.serve()
        except (Gone, ConnectionError, TimeoutError):
            self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = do

    # -- S3, as far as the client goes

    def lacks(self, query):
        """True where the endpoint does not know the operation."""
        operation = {("POST", "uploads"): "multipart", ("POST", "uploadId"): "Complete", ("GET", "uploadId"): "ListParts"}
        return any(self.command == method and name in query and lacking in self.server.lacks
                   for (method, name), lacking in operation.items())

    def condition(self, name):
        """The header, unless the endpoint takes no notice of it."""
        value = self.headers.get(name)
        if value:
            with self.server.lock:
                self.server.count[name] = self.server.count.get(name, 0) + 1
        return None if name in self.server.lacks else value

    def serve(self, names=str):
        query = self.query()
        key, objects = self.key(), self.server.objects
        if self.lacks(query):
            return self.error(405, "MethodNotAllowed")
        if self.command == "POST" and "uploads" in query:
            upload = hashlib.md5(f"{key}{time.monotonic_ns()}".encode()).hexdigest()
            self.server.uploads[upload] = {}
            self.server.begun[upload] = key, time.time()
            xml = f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            return self.send(200, xml.encode(), names=names)
        if self.command == "POST" and "uploadId" in query:
            parts = self.server.uploads.pop(query["uploadId"][0], None)
            if parts is None:
                return self.error(404, "NoSuchUpload")
            objects[key] = b"".join(parts[n] for n in sorted(parts))
            xml = f"<CompleteMultipartUploadResult><ETag>{escape(etag_of(objects[key]))}</ETag></CompleteMultipartUploadResult>"
            return self.send(200, xml.encode(), names=names)
        if self.command == "PUT" and "uploadId" in query:
            parts = self.server.uploads.get(query["uploadId"][0])
            if parts is None:
                return self.error(404, "NoSuchUpload")
            parts[int(query["partNumber"][0])] = self.body()
            return self.send(200, headers={"ETag": etag_of(self.body())}, names=names)
        if self.command == "PUT":
            wanted, create_only, data = self.condition("If-Match"), self.condition("If-None-Match"), self.body()
            with self.server.lock:
                now = etag_of(objects[key]) if key in objects else None
                fits = now is None if create_only == "*" else wanted in (None, now)
                if fits:
                    objects[key] = data
                    self.server.modified[key] = time.time()
            if not fits:
                return self.error(404, "NoSuchKey") if now is None else self.error(412, "PreconditionFailed")
            return self.send(200, headers={"ETag": etag_of(self.body())}, names=names)
        if self.command == "DELETE" and "uploadId" in query:
            self.server.uploads.pop(query["uploadId"][0], None)
            return self.send(204, names=names)
        if self.command == "DELETE":
            objects.pop(key, None)
            return self.send(204, names=names)
        if not key:
            return self.list_uploads(query) if "uploads" in query else self.list(query)
        if "uploadId" in query:
            return self.list_parts(query["uploadId"][0])
        if key not in objects:
            return self.error(404, "NoSuchKey")
        self.get(objects[key], etag_of(objects[key]), names)

    def list(self, query, at_most=None):
        prefix, after = query.get("prefix", [""])[0], query.get("start-after", query.get("marker", [""]))[0]
        keys = sorted(k for k in self.server.objects if k.startswith(prefix) and k > after)
        limit = int(query.get("max-keys", ["1000"])[0])
        keys = keys[:at_most]
        xml = "".join(f"<Contents><Key>{escape(k)}</Key><Size>{len(self.server.objects[k])}</Size><ETag>x</ETag>"
                      f"<LastModified>{self.when(k)}</LastModified></Contents>" for k in keys[:limit])
        more = "true" if len(keys) > limit else "false"
        self.send(200, f"<ListBucketResult><IsTruncated>{more}</IsTruncated>{xml}</ListBucketResult>".encode(),
                  {"Content-Type": "application/xml"})

    def when(self, key):
        return iso(self.server.modified.get(key, time.time()))

    def list_uploads(self, query):
        prefix = query.get("prefix", [""])[0]
        marker = query.get("key-marker", [""])[0], query.get("upload-id-marker", [""])[0]
        found = sorted((key, upload, at) for upload, (key, at) in self.server.begun.items()
                       if upload in self.server.uploads and key.startswith(prefix) and (key, upload) > marker)
        xml = "".join(f"<Upload><Key>{escape(key)}</Key><UploadId>{upload}</UploadId><Initiated>{iso(at)}</Initiated>"
                      f"</Upload>" for key, upload, at in found)
        self.send(200, f"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{xml}"
                       f"</ListMultipartUploadsResult>".encode(), {"Content-Type": "application/xml"})

    def list_parts(self, upload):
        if upload not in self.server.uploads:
            return self.error(404, "NoSuchUpload")
        xml = "".join(f"<Part><PartNumber>{n}</PartNumber><Size>{len(data)}</Size><ETag>{escape(etag_of(data))}</ETag></Part>"
                      for n, data in sorted(self.server.uploads[upload].items()))
        self.send(200, f"<ListPartsResult><IsTruncated>false</IsTruncated>{xml}</ListPartsResult>".encode())

    def get(self, data, etag, names=str):
        modified = self.server.modified.get(self.key(), time.time())
        headers = {"ETag": etag, "Last-Modified": email.utils.formatdate(modified, usegmt=True)}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not found:
            return self.send(200, data, headers, names)
        first, last = int(found[1]), min(int(found[2]), len(data) - 1)
        if first > last:
            return self.error(416, "InvalidRange")
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self.send(206, data[first:last + 1], headers, names)

    # -- faults: True when the request has been answered

    def fault_empty_503(self):
        self.send(503)
        return True

    def fault_html_502(self):
        self.send(502, b"<html><body>Bad Gateway</body></html>", {"Content-Type": "text/html"})
        return True

    def fault_early_503(self):
        self.have_body = b""
        self.send(503, headers={"Connection": "close"})
        raise Gone

    def fault_slowdown(self):
        self.error(503, "SlowDown")
        return True

    def fault_too_many(self):
        self.send(429, headers={"Retry-After": "1"})
        return True

    def fault_internal(self):
        self.error(500, "InternalError")
        return True

    def fault_drop(self):
        raise Gone

    def fault_drop_get(self):
        """The same for GET alone."""
        return self.fault_drop() if self.command == "GET" else False

    def fault_drop_after(self):
        """It was done, but the answer is lost."""
        self.body()
        with tempfile.TemporaryFile() as sink:
            kept, self.wfile = self.wfile, sink
            self.serve()
            self.wfile = kept
        raise Gone

    def fault_drop_after_post(self):
        """The same for CompleteMultipartUpload alone."""
        return self.fault_drop_after() if self.command == "POST" and "uploadId" in self.path else False

    def fault_held(self):
        """Comes late: it is done when the test lets it go."""
        self.body()
        self.rule.held.set()
        self.rule.released.wait(60)
        return False

    def fault_late(self):
        self.body()
        time.sleep(LATE)
        return False

    def fault_far(self):
        """An endpoint that is far away."""
        self.body()
        time.sleep(FAR)
        return False

    def range(self):
        """What a GET asks for: the status, the bytes, and the headers that belong to them."""
        data = self.server.objects[self.key()]
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(found[1]), min(int(found[2]), len(data) - 1)) if found else (0, len(data) - 1)
        return 206 if found else 200, data[first:last + 1], {"Content-Length": str(last + 1 - first),
                                                             "Content-Range": f"bytes {first}-{last}/{len(data)}"}

    def fault_cut_body(self):
        """Half of what Content-Length promised."""
        if self.command != "GET" or self.key() not in self.server.objects:
            return False
        status, data, headers = self.range()
        self.send(status, data[:len(data) // 2], headers)
        raise Gone

    def fault_stall_body(self):
        """Half of it, then nothing for a while."""
        if self.command != "GET":
            return False
        status, data, headers = self.range()
        self.send(status, data[:len(data) // 2], headers)
        time.sleep(LATE)
        raise Gone

    def fault_drip(self):
        """A byte now and then, so that it never quite stands still."""
        if self.command != "GET":
            return False
        status, data, headers = self.range()
        self.send(status, data[:1], headers)
        for at in range(1, LATE * 20):
            time.sleep(0.05)
            self.wfile.write(data[at:at + 1])
            self.wfile.flush()
        raise Gone

    def fault_chunked(self):
        """The right bytes, in chunks, beside a length that is not heeded then."""
        if self.command != "GET":
            return False
        status, data, headers = self.range()
        self.send(status, b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data), headers | {"Transfer-Encoding": "chunked"})
        return True

    def fault_surplus(self):
        """More than Content-Length says: what looks like the answer to the next request."""
        if self.command != "GET":
            return False
        status, data, headers = self.range()
        self.send(status, b"", headers)
        time.sleep(0.05)
        self.wfile.write(data + b"HTTP/1.1 206 X\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/10\r\n\r\nsmuggled!!")
        self.wfile.flush()
        return True

    def fault_no_status(self):
        if self.command != "GET":
            return False
        self.wfile.write(b"HTTP/1.1    \r\n\r\n" + b" " * 20000)
        raise Gone

    def fault_no_length(self):
        """Ends with the connection, so that nobody can tell whether it is whole."""
        if self.command != "GET":
            return False
        data = self.server.objects[self.key()]
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + data[:len(data) // 2])
        self.wfile.flush()
        raise Gone

    def fault_ignore_range(self):
        if self.command != "GET":
            return False
        del self.headers["Range"]
        return False

    def fault_other_range(self):
        if self.command != "GET":
            return False
        data = self.server.objects[self.key()]
        self.send(206, data[:10], {"Content-Range": f"bytes 0-9/{len(data)}"})
        return True

    def fault_wrong_bytes(self):
        if self.command != "GET" or self.key() not in self.server.objects:
            return False
        data = bytearray(self.server.objects[self.key()])
        data[len(data) // 2] ^= 1
        self.get(bytes(data), '"x"')
        return True

    def fault_other_bytes(self):
        """The same under the right ETag."""
        if self.command != "GET" or self.key() not in self.server.objects:
            return False
        data = self.server.objects[self.key()]
        self.get(data[:-1] + bytes([data[-1] ^ 1]), etag_of(data))
        return True

    def fault_keep_other(self):
        """An upload is acknowledged, and other bytes are kept."""
        if self.command != "PUT":
            return False
        self.serve()
        data = self.body()
        self.server.objects[self.key()] = data[:-1] + bytes([data[-1] ^ 1])
        return True

    def fault_keep_short(self):
        """The same for fewer bytes, by an endpoint whose ETags are no MD5s."""
        if self.command == "HEAD":
            self.get(self.server.objects[self.key()], '"encrypted"')
            return True
        if self.command != "PUT":
            return False
        self.serve()
        self.server.objects[self.key()] = self.body()[:-1]
        return True

    def fault_lower_case(self):
        self.serve(names=str.lower)
        return True

    def fault_upper_case(self):
        self.serve(names=str.upper)
        return True

    def fault_error_in_200(self):
        """CompleteMultipartUpload after a while: the head has long been sent."""
        if "uploadId" not in self.path or self.command != "POST":
            return False
        self.send(200, b'<?xml version="1.0"?>\n   \n<Error><Code>InternalError</Code></Error>')
        return True

    def fault_empty_200(self):
        if "uploadId" not in self.path or self.command != "POST":
            return False
        self.send(200)
        return True

    def fault_wrong_size(self):
        """Parts lost while they were put together."""
        if self.command == "POST" and "uploadId" in self.path:
            for parts in self.server.uploads.values():
                parts.update({n: data[:-1] for n, data in parts.items()})
        return False

    def lead(self, name):
        """To the same server by another name."""
        if self.headers["Host"].startswith(name + ":"):
            with self.server.lock:
                self.server.count["by another name"] = self.server.count.get("by another name", 0) + 1
            return False
        self.error(307, "TemporaryRedirect", headers={"Location": f"http://{name}:{self.server.server_port}{self.path}"})
        return True

    def fault_redirect(self):
        """Temporarily elsewhere: the bucket's own name below localhost."""
        return self.lead("testbucket.localhost")

    def fault_astray(self):
        """To a host that is not the endpoint's."""
        return self.lead("stranger.localhost")

    def fault_circle(self):
        self.error(307, "TemporaryRedirect", headers={"Location": f"http://{self.headers['Host']}{self.path}"})
        return True

    def fault_moved(self):
        self.error(301, "PermanentRedirect", headers={"x-amz-bucket-region": "eu-central-1"})
        return True

    def fault_other_region(self):
        self.error(400, "AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>")
        return True

    def fault_ahead_503(self):
        """Fails, with a Date that is ahead. The fault "ahead" answers well with such a Date."""
        self.send(503)
        return True

    def fault_far_skewed(self):
        return self.fault_skewed()

    def fault_skewed(self):
        """Refuses what was signed for another time than its own."""
        there = time.time() + CLOCK_AHEAD[self.fault()]
        sent = self.headers.get("x-amz-date")
        sent = datetime.strptime(sent, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc).timestamp() if sent else 0
        if abs(sent - there) < 900:
            return False
        self.error(403, "RequestTimeTooSkewed", date=there)
        return True

    def page(self, result, items):
        self.send(200, f"<{result}><IsTruncated>true</IsTruncated>{items}</{result}>".encode())
        return True

    def fault_same_page(self):
        """Listings that begin anew with each page, and say that there is more."""
        query = self.query()
        prefix = escape(query.get("prefix", [""])[0])
        if "uploadId" in query:
            return self.page("ListPartsResult", "<Part><PartNumber>1</PartNumber><Size>5</Size><ETag>x</ETag></Part>")
        if "uploads" in query:
            one = "<Upload><Key>{}x</Key><UploadId>{}</UploadId><Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
            return self.page("ListMultipartUploadsResult", "".join(one.format(prefix, n) for n in "12"))
        return self.page("ListBucketResult", f"<Contents><Key>{prefix}x</Key><Size>1</Size></Contents>")

    def fault_empty_list(self):
        """A listing of objects that shows none, whatever there is."""
        query = self.query()
        if self.key() or "uploads" in query:
            return False
        self.send(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        return True

    def fault_cut_list(self):
        """A listing of objects that shows the first two, and says that this is all."""
        query = self.query()
        if self.key() or "uploads" in query:
            return False
        self.list(query, at_most=2)
        return True

    def fault_more_of_nothing(self):
        query = self.query()
        names = {"uploadId": "ListPartsResult", "uploads": "ListMultipartUploadsResult"}
        return self.page(next((names[q] for q in names if q in query), "ListBucketResult"), "")

    def fault_html_404(self):
        self.send(404, b"<html><body>Not Found</body></html>")
        return True

    def fault_head_404(self):
        if self.command != "HEAD":
            return False
        self.send(404)
        return True

    def fault_garbage(self):
        self.wfile.write(b"\x16\x03\x01 what is this\r\n\r\n")
        raise Gone


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, state):
        super().__init__(("127.0.0.1", 0), Handler)
        self.server_port = self.server_address[1]
        self.objects, self.uploads, self.begun, self.modified, self.count, self.lock = state
        self.rule = self.keys = None
        self.lacks = set()

    def handle_error(self, *args):
        pass


class Rule:
    """Which requests meet a fault: the first `times` whose method and path, query included, the pattern finds."""

    def __init__(self, name, pattern, times):
        self.name, self.pattern, self.left, self.met = name, re.compile(pattern), times, 0
        self.held, self.released = threading.Event(), threading.Event()

    def take(self, request):
        if self.left <= 0 or not self.pattern.search(request):
            return None
        self.left -= 1
        self.met += 1
        return self.name


class FaultyS3:
    """Both listeners serve the same objects."""

    bucket, access, secret, region = "testbucket", "testaccess", "testsecret", "us-east-1"

    def __init__(self, certificate=None, lacks=()):
        """lacks: of "multipart", "Complete", "ListParts", "If-Match", "If-None-Match"."""
        self.objects, self.modified, self.count = {}, {}, {}  # by key: bytes, when (now, unless told), how many requests
        self.state = (self.objects, {}, {}, self.modified, self.count, threading.Lock())
        self.plain, self.tls = Server(self.state), Server(self.state)
        self.plain.lacks = self.tls.lacks = set(lacks)
        self.ca_file, key = certificate or make_certificate(tempfile.mkdtemp())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_file, key)
        self.tls.socket = context.wrap_socket(self.tls.socket, server_side=True)

    def take_only(self, keys):
        """From now on only these count: {key id: session token or ""}."""
        self.plain.keys = self.tls.keys = keys

    @contextmanager
    def fault(self, name, pattern=".", times=1 << 30):
        rule = self.plain.rule = self.tls.rule = Rule(name, pattern, times)
        try:
            yield rule
        finally:
            self.plain.rule = self.tls.rule = None
            rule.released.set()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.plain.server_port}"

    @property
    def tls_endpoint(self):
        return f"https://127.0.0.1:{self.tls.server_port}"

    def settings(self, driver="sigv4"):
        return {"BLOBD_TEST_S3_ENDPOINT": self.endpoint, "BLOBD_TEST_S3_TLS_ENDPOINT": self.tls_endpoint,
                "BLOBD_TEST_S3_CA_FILE": str(self.ca_file), "BLOBD_TEST_S3_BUCKET": self.bucket,
                "BLOBD_TEST_S3_KEY": self.access, "BLOBD_TEST_S3_SECRET": self.secret, "BLOBD_TEST_S3_DRIVER": driver}

    def __enter__(self):
        for server in (self.plain, self.tls):
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        for server in (self.plain, self.tls):
            server.shutdown()
            server.server_close()


@contextmanager
def apart():
    """One without faults in a process of its own, where many ask at once: threads of one interpreter wait for each other."""
    with subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True) as process:
        try:
            told = dict(process.stdout.readline().removeprefix("export BLOBD_TEST_S3_").rstrip("\n").split("=", 1)
                        for _ in range(6))
            yield SimpleNamespace(endpoint=told["ENDPOINT"], tls_endpoint=told["TLS_ENDPOINT"], ca_file=told["CA_FILE"],
                                  bucket=told["BUCKET"], access=told["KEY"], secret=told["SECRET"], region=FaultyS3.region)
        finally:
            process.kill()


if __name__ == "__main__":
    with FaultyS3() as s3:
        print("\n".join(f"export {name}={value}" for name, value in s3.settings().items()), flush=True)
        threading.Event().wait()
