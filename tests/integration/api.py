"""A server's API as the tests call it: an address, who one is, and what every answer must look like."""

import json
import re
import ssl

import wire


class Api:
    """tokens: {name: (secret, admin)}. Requests name who sends them: such a name, a literal token, or None."""

    def __init__(self, host, port, tokens):
        self.host, self.port, self.tokens, self.context = host, port, tokens, None

    def trust(self, cert):
        """Speaks TLS from now on, and believes this certificate only."""
        self.context = ssl.create_default_context(cafile=str(cert))
        self.context.check_hostname = False

    def connect(self, **kw):
        return wire.Connection(self.host, self.port, self.context, **kw)

    def authorized(self, headers, who):
        pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or ())
        return pairs if who is None else [("Authorization", "Bearer " + self.tokens.get(who, (who,))[0])] + pairs

    def http(self, method, target, headers=None, body=None, who="alice", **kw):
        """One request on a connection of its own."""
        with self.connect() as c:
            return c.request(method, target, self.authorized(headers, who), body, **kw)

    def get(self, target, headers=None, who="alice", **kw):
        return self.http("GET", target, headers, who=who, **kw)

    def post(self, target, headers=None, body=None, who="alice", **kw):
        return self.http("POST", target, headers, body, who=who, **kw)

    def raw(self, data, timeout=10.0):
        """Sends bytes and returns all that comes back until the server closes or is silent for `timeout`."""
        with self.connect(timeout=timeout) as c:
            c.send(data)
            try:
                while True:
                    c.fill()
            except (wire.Closed, TimeoutError):
                return c.buffer


# ---- what answers must look like -----------------------------------------------------------------------------------

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
CODE_STATUS = {"VALIDATE_FAILED": 400, "BAD_REQUEST": 400, "DIGEST_INVALID": 400, "UNAUTHORIZED": 401,
               "UPLOAD_TOKEN_INVALID": 403, "UPLOAD_UNKNOWN": 404, "BLOB_UNKNOWN": 404, "FILE_UNKNOWN": 404,
               "NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "REQUEST_TIMEOUT": 408, "UPLOAD_SUPERSEDED": 409,
               "UPLOAD_COMPLETED": 409, "UPLOAD_BUSY": 409, "PRECONDITION_FAILED": 412, "SIZE_LIMIT_EXCEEDED": 413,
               "URI_TOO_LONG": 414, "UPLOAD_OFFSET_MISMATCH": 416, "RANGE_INVALID": 416, "TOO_MANY_REQUESTS": 429,
               "HEADERS_TOO_LARGE": 431, "UNKNOWN": 500, "UNAVAILABLE": 503, "INSUFFICIENT_STORAGE": 507}


def common(answer):
    """What every answer carries."""
    assert answer.header("X-Content-Type-Options") == "nosniff", answer
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", answer["X-Request-ID"]), answer
    assert answer.header("Cache-Control"), answer
    return answer


def refused(answer, code, field=None):
    """An error in PortSIP's form, with the status that belongs to the code."""
    assert answer.status == CODE_STATUS[code], f"want {code}: {answer!r}"
    common(answer)
    assert answer["Content-Type"].split(";")[0] == "application/json", answer
    body = json.loads(answer.body)
    assert list(body) == ["errors"] and body["errors"], answer
    first = body["errors"][0]
    assert first["code"] == code, answer
    assert isinstance(first["message"], str) and len(first["message"]) > 5, answer
    if field:
        assert first.get("detail", {}).get("field", "").lower() == field.lower(), answer
    return first


def accepted(answer, status, offset, upload=None):
    """What every good upload answer shows of the upload."""
    assert answer.status == status, f"want {status}: {answer!r}"
    common(answer)
    assert UUID4.fullmatch(answer["PortSIP-Upload-ID"]), answer
    if upload:
        assert answer["PortSIP-Upload-ID"] == upload.id, answer
    assert answer["PortSIP-Upload-Token"], answer
    assert answer["Upload-Offset"] == str(offset), f"want offset {offset}: {answer!r}"
    assert answer["Range"] == f"0-{max(offset - 1, 0)}", answer
    assert answer.body == b"", answer
    if status == 204:
        assert "Content-Length" not in answer, answer
    else:
        assert answer["Content-Length"] == "0", answer
    return answer


def mismatch(answer, offset):
    """416 that tells where the upload really is, with a token to go on with."""
    refused(answer, "UPLOAD_OFFSET_MISMATCH")
    assert answer["Upload-Offset"] == str(offset), answer
    assert answer["Range"] == f"0-{max(offset - 1, 0)}", answer
    assert answer["PortSIP-Upload-Token"], answer
    return answer


def created(answer, digest, size=None, name=None):
    """The 201 of a complete; returns its JSON."""
    assert answer.status == 201, f"want 201: {answer!r}"
    common(answer)
    assert answer["Content-Type"].split(";")[0] == "application/json", answer
    assert answer["Location"] == f"/api/blobs/{digest}", answer
    body = answer.json()
    assert next(iter(body)) == "id" and re.fullmatch(r"[A-Za-z0-9_-]+", body["id"]), answer
    assert body["id"] != digest, answer
    assert body["digest"] == digest, answer
    if size is not None:
        assert body["size"] == size, answer
    if name is not None:
        assert body["name"] == name, answer
    return body


def whole(answer, data):
    """A full download of exactly these bytes."""
    assert answer.status == 200, answer
    assert answer["Content-Length"] == str(len(data)), answer
    assert answer.body == data, f"{len(answer.body)} bytes that differ from the {len(data)} stored"
    return answer
