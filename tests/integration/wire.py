"""A small HTTP/1.1 client over raw sockets.

http.client is too polite for tests: this one sends exactly the bytes it is told to, in pieces if asked, can stop in
the middle of anything, and shows interim answers, repeated headers and how the connection ended.
"""

import json
import socket
import ssl
import struct
import time
from urllib.parse import quote


class Closed(Exception):
    """The peer closed or reset the connection where an answer, or more of one, was due."""


class Response:
    def __init__(self, status, reason, headers, body=b"", interim=(), version="HTTP/1.1"):
        self.status, self.reason, self.headers, self.body = status, reason, headers, body
        self.interim, self.version = list(interim), version

    def all(self, name):
        return [v for k, v in self.headers if k.lower() == name.lower()]

    def header(self, name, default=None):
        values = self.all(name)
        return values[0] if values else default

    def __contains__(self, name):
        return bool(self.all(name))

    def __getitem__(self, name):
        values = self.all(name)
        if not values:
            raise KeyError(f"no {name} in the answer: {self!r}")
        return values[0]

    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """The first error of a PortSIP error body: {"code", "message", "detail"}."""
        return self.json()["errors"][0]

    @property
    def code(self):
        return self.error["code"]

    @property
    def closes(self):
        return "close" in self.header("Connection", "").lower()

    def __repr__(self):
        lines = [f"{self.status} {self.reason}"] + [f"{k}: {v}" for k, v in self.headers] + [repr(self.body[:300])]
        return " | ".join(lines)


class Connection:
    """One TCP (or TLS) connection. Every read has a deadline of `timeout` seconds."""

    def __init__(self, host, port, context=None, timeout=30.0, rcvbuf=None, source=None, preface=b"", mss=None):
        """mss: of the segments that are sent here; loopback's have 64 KiB, and the kernel keeps ready for a peer by it.
        source: the local address. preface: bytes before anything else, TLS' included."""
        self.host, self.port, self.timeout = host, port, timeout
        sock = socket.socket()
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if mss:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        if source:
            sock.bind((source, 0))
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((host, port))
        sock.sendall(preface)
        self.sock = context.wrap_socket(sock, server_hostname=host) if context else sock
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    # -- sending

    def send(self, data):
        self.sock.sendall(data)

    def head(self, method, target, headers=None, version="HTTP/1.1", host=True):
        """The bytes of a request head. headers: dict, or list of pairs where names repeat."""
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or ())
        lines = [f"{method} {target} {version}"]
        if host and not any(k.lower() == "host" for k, _ in pairs):
            lines.append(f"Host: {self.host}:{self.port}")
        lines += [f"{k}: {v}" for k, v in pairs]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def send_head(self, method, target, headers=None, **kw):
        self.send(self.head(method, target, headers, **kw))

    def send_chunk(self, data):
        self.send(b"%x\r\n" % len(data) + data + b"\r\n")

    def request(self, method, target, headers=None, body=None, chunked=False, expect=False):
        """Sends a whole request and reads its answer.

        body: bytes, or an iterable of bytes together with `chunked`. expect: waits for 100 Continue; a final answer
        in its place is returned and the body is not sent.
        """
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or ())
        if chunked:
            pairs.append(("Transfer-Encoding", "chunked"))
        elif body is not None or method in ("POST", "PUT"):
            pairs.append(("Content-Length", str(len(body or b""))))
        if expect:
            pairs.append(("Expect", "100-continue"))
        head = self.head(method, target, pairs)
        interim = []
        if expect:
            self.send(head)
            first = self.read_response(method, stop_at_interim=True)
            if first.status != 100:
                return first
            interim = [100]
            head = b""
        try:
            if chunked:
                self.send(head)
                for piece in ([body] if isinstance(body, (bytes, bytearray, memoryview)) else body or ()):
                    if len(piece):
                        self.send_chunk(bytes(piece))
                self.send(b"0\r\n\r\n")
            else:
                self.send(head + bytes(body or b"") if len(body or b"") < 65536 else head)
                if len(body or b"") >= 65536:
                    self.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer tells why
        response = self.read_response(method)
        response.interim = interim + response.interim
        return response

    # -- receiving

    def fill(self):
        try:
            data = self.sock.recv(262144)
        except (ConnectionResetError, ssl.SSLEOFError, ssl.SSLZeroReturnError, BrokenPipeError) as e:
            raise Closed(f"reset: {e}") from None
        if not data:
            raise Closed("closed by the server")
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def take(self, count):
        parts, got = [], 0
        while got < count:
            if not self.buffer:
                self.fill()
            piece, self.buffer = self.buffer[: count - got], self.buffer[count - got:]
            parts.append(piece)
            got += len(piece)
        return b"".join(parts)

    def read_head(self):
        status_line = self.line().decode("latin-1")
        version, _, rest = status_line.partition(" ")
        status, _, reason = rest.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not status.isdigit():
            raise AssertionError(f"not a status line: {status_line!r}")
        headers = []
        while line := self.line():
            name, colon, value = line.decode("latin-1").partition(":")
            assert colon and name == name.strip(), f"not a header line: {line!r}"
            headers.append((name, value.strip()))
        return Response(int(status), reason, headers, version=version)

    def body_length(self, response, method):
        """How many body bytes follow; -1: chunked, None: until the connection closes."""
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return 0
        if response.header("Transfer-Encoding", "").lower() == "chunked":
            return -1
        lengths = response.all("Content-Length")
        assert len(lengths) <= 1, f"Content-Length twice: {response!r}"
        return int(lengths[0]) if lengths else None

    def read_response(self, method="GET", stop_at_interim=False):
        interim = []
        while True:
            response = self.read_head()
            if response.status >= 200 or stop_at_interim:
                break
            interim.append(response.status)
        response.interim = interim
        length = self.body_length(response, method)
        if length == -1:
            parts = []
            while size := int(self.line().split(b";")[0], 16):
                parts.append(self.take(size))
                assert self.take(2) == b"\r\n", "chunk without its end"
            while self.line():
                pass
            response.body = b"".join(parts)
        elif length is None:
            try:
                while True:
                    self.fill()
            except Closed:
                response.body, self.buffer = self.buffer, b""
        else:
            response.body = self.take(length)
        return response

    def stream_body(self, length, sink):
        """Passes `length` body bytes to sink(bytes) without keeping them."""
        while length:
            if not self.buffer:
                self.fill()
            piece, self.buffer = self.buffer[:length], self.buffer[length:]
            length -= len(piece)
            sink(piece)

    # -- ending

    def ended(self, timeout=5.0):
        """True when the server closes the connection within timeout, having sent nothing more."""
        self.sock.settimeout(timeout)
        try:
            data = self.buffer or self.sock.recv(1)
        except (ConnectionResetError, ssl.SSLError):
            return True
        except (TimeoutError, socket.timeout):
            return False
        finally:
            self.sock.settimeout(self.timeout)
        assert not data, f"more came: {data!r}"
        return True

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def abort(self):
        """Ends the connection with a reset, as a lost link that a middlebox cleans up."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def target(path, **query):
    """path?name=value…, percent-encoded; None values are left out."""
    pairs = [f"{quote(k, safe='')}={quote(str(v), safe='')}" for k, v in query.items() if v is not None]
    return path + ("?" + "&".join(pairs) if pairs else "")


def wait_for(condition, timeout=10.0, interval=0.05, what="condition"):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(interval)
