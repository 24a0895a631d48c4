"""Stands in for what hands out credentials in a cloud: STS, a container's agent, an instance's metadata.

    with KeyIssuer(s3, life=4) as issuer:       # pairs that s3 takes, and that end after so many seconds
        Blobd(options, env=issuer.instance())

Each question is answered with a new pair, once what it must carry was right; the endpoint then takes the newest alone.
"""

import json
import threading
import time
import urllib.parse
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import temp_dir

ROLE = "arn:aws:iam::123456789012:role/blobd"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def give(self, as_json=True):
        issuer = self.server.issuer
        if issuer.away:
            return self.answer(503, "")
        key, token, ends = issuer.issue()
        if as_json:
            return self.answer(200, json.dumps({"Code": "Success", "AccessKeyId": key, "SecretAccessKey": "secret", "Token": token,
                                                "Expiration": ends}))
        return self.answer(200, f"""<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>{token}</SessionToken><Expiration>{ends}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>""")

    def do_POST(self):
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode(), strict_parsing=True)
        issuer = self.server.issuer
        right = (self.path == "/" and form["Action"] == ["AssumeRoleWithWebIdentity"] and form["Version"] == ["2011-06-15"]
                 and form["RoleArn"] == [ROLE] and form["RoleSessionName"] == ["blobd"]
                 and form["WebIdentityToken"] == [issuer.token] and
                 self.headers["Content-Type"] == "application/x-www-form-urlencoded")
        if not right:
            return self.answer(400, "<ErrorResponse><Error><Code>InvalidIdentityToken</Code></Error></ErrorResponse>")
        self.give(as_json=False)

    def do_PUT(self):
        if self.path != "/latest/api/token" or not self.headers.get("X-aws-ec2-metadata-token-ttl-seconds"):
            return self.answer(400, "")
        self.answer(200, "metadata token")

    def do_GET(self):
        issuer, root = self.server.issuer, "/latest/meta-data/iam/security-credentials/"
        if self.path == "/container":
            return self.give() if self.headers.get("Authorization") == issuer.token else self.answer(401, "")
        if self.headers.get("X-aws-ec2-metadata-token") != "metadata token":
            return self.answer(401, "")
        if self.path == root:
            return self.answer(200, "blobd-role")
        return self.give() if self.path == root + "blobd-role" else self.answer(404, "")


class KeyIssuer:
    def __init__(self, s3, life):
        self.s3, self.life, self.issued, self.away, self.lock = s3, life, 0, False, threading.Lock()
        self.file = temp_dir() / "token"
        self.rotate()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads, self.server.issuer = True, self

    def rotate(self):
        """A new token in the file; the old one is refused from now on."""
        self.token = f"proof + {time.monotonic_ns()}"
        self.file.write_text(self.token + "\n")

    def issue(self):
        with self.lock:
            self.issued += 1
            key, token = f"KEY{self.issued}", f"session/{self.issued}+"
            self.s3.take_only({key: token})
            ends = datetime.fromtimestamp(time.time() + self.life, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            return key, token, ends

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def web_identity(self):
        return {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(self.file), "AWS_ENDPOINT_URL_STS": self.url}

    def container(self):
        return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": self.url + "/container",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(self.file)}

    def instance(self):
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
