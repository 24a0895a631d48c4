"""An upload client with the three manners of keeping its place that real clients have, and content to send.

    fixed      shows the token of init for ever: every append adds
    rotating   shows the token of the last answer: a repeat after a lost answer is recognised
    offset     says Upload-Offset: a wrong place is refused
"""

import hashlib
import random

from wire import Closed, target

MODES = ("fixed", "rotating", "offset")


class Content:
    """Pseudo-random bytes of any size, cheap to make twice; no two blocks that a server might confuse are equal,
    because the period is no multiple of any block size."""

    PERIOD = (1 << 20) + 7

    def __init__(self, size, seed=0):
        self.size = size
        self.block = random.Random(seed).randbytes(min(size, self.PERIOD))

    def read(self, offset, count):
        end, parts = min(offset + count, self.size), []
        while offset < end:
            at = offset % self.PERIOD
            piece = self.block[at:at + end - offset]
            parts.append(piece)
            offset += len(piece)
        return b"".join(parts)

    def pieces(self, offset=0, size=1 << 20):
        while offset < self.size:
            piece = self.read(offset, size)
            yield piece
            offset += len(piece)

    def digest(self):
        h = hashlib.sha256()
        for piece in self.pieces():
            h.update(piece)
        return h.hexdigest()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Refused(AssertionError):
    """An upload that was not created; answer says why."""

    def __init__(self, answer):
        super().__init__(repr(answer))
        self.answer = answer


class Upload:
    """One upload. Every method checks nothing but keeps what the answer says; the tests judge."""

    def __init__(self, srv, mode="rotating", who="alice", connection=None, **query):
        self.srv, self.mode, self.who, self.connection = srv, mode, who, connection
        self.answer = self.http("POST", target("/api/blobs/uploads", **query), {})
        if self.answer.status != 202:
            raise Refused(self.answer)
        self.id = self.answer["PortSIP-Upload-ID"]
        self.first_token = self.token = self.answer["PortSIP-Upload-Token"]
        self.offset = 0  # what the server has acknowledged

    def http(self, method, where, headers, body=None, **kw):
        if self.connection:
            return self.connection.request(method, where, self.srv.authorized(headers, self.who), body, **kw)
        return self.srv.http(method, where, headers, body, who=self.who, **kw)

    def path(self, operation, **query):
        return target(f"/api/blobs/uploads/{self.id}/{operation}", **query)

    def headers(self):
        """What this kind of client sends along with an append or complete."""
        h = {"PortSIP-Upload-Token": self.first_token if self.mode == "fixed" else self.token}
        if self.mode == "offset":
            h["Upload-Offset"] = str(self.offset)
        return h

    def note(self, answer):
        """Keeps token and offset of any answer that shows them."""
        if "PortSIP-Upload-Token" in answer:
            self.token = answer["PortSIP-Upload-Token"]
        if "Upload-Offset" in answer:
            self.offset = int(answer["Upload-Offset"])
        return answer

    def append(self, body, headers=None, **kw):
        return self.note(self.http("POST", self.path("append"), {**self.headers(), **(headers or {})}, body, **kw))

    def status(self, **kw):
        return self.note(self.http("GET", self.path("status"), {}, **kw))

    def complete(self, digest, body=None, headers=None, **kw):
        where = self.path("complete", digest=digest)
        return self.note(self.http("POST", where, {**self.headers(), **(headers or {})}, body, **kw))

    def destroy(self, headers=None):
        return self.http("POST", self.path("destroy"), headers or {"PortSIP-Upload-Token": self.token})

    def begin(self, operation="append", length=None, headers=None, connection=None, **query):
        """Sends the head of an append (or complete) with a body of `length` (None: chunked) and leaves the rest to the
        caller. Returns the connection."""
        c = connection or self.srv.connect()
        framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
        c.send_head("POST", self.path(operation, **query),
                    self.srv.authorized({**self.headers(), **(headers or {}), **framing}, self.who))
        return c

    def cut_append(self, body, sent, reset=True):
        """An append whose link is lost after `sent` bytes of its body."""
        c = self.begin(length=len(body))
        c.send(body[:sent])
        c.abort() if reset else c.close()

    def send_all(self, data, rng, cut_chance=0.0, biggest=65536):
        """Uploads data from the present offset in random pieces, some of them cut, and resumes as its kind does.
        Returns how many were cut."""
        cuts = 0
        while self.offset < len(data):
            piece = data[self.offset:self.offset + rng.randint(1, biggest)]
            if rng.random() < cut_chance:
                self.cut_append(piece, rng.randint(0, len(piece)), reset=rng.random() < 0.5)
                cuts += 1
                answer = self.status()
                assert answer.status == 204, answer
                continue
            answer = self.append(piece)
            if answer.status in (409, 416):  # what the cut append had left was still on its way
                assert self.status().status == 204
                continue
            assert answer.status == 203, answer
        return cuts


def store(srv, data, name=None, who="alice", temporary=None):
    """Uploads data in one piece and returns the JSON of the 201."""
    up = Upload(srv, who=who, filename=name, temporary=temporary)
    answer = up.complete(sha256(data), data)
    assert answer.status == 201, answer
    return answer.json()


def download(srv, digest, **kw):
    return srv.get(f"/api/blobs/{digest}", **kw)


__all__ = ["MODES", "Closed", "Content", "Refused", "Upload", "download", "sha256", "store"]
