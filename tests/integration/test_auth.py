"""Who may do what: tokens, the PBX asked, nobody asked; and whose uploads are whose."""

import http.server
import os
import re
import signal
import socket
import threading
import time

from api import accepted, created, refused, whole
from faulty_s3 import FaultyS3
from harness import Blobd, write_tokens
from s3_bucket import Bucket
from uploader import Upload, download, sha256, store
from wire import wait_for


class Pbx:
    """A PBX that is asked about bearers. answers: {token: status}; anything else gets 401. Counts the questions."""

    def __init__(self, answers):
        self.answers, self.asked, self.delay = dict(answers), [], 0
        self.identities = {}  # {token: [bytes of X-Auth-Identity, a line each]}
        pbx = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                header = self.headers.get("Authorization", "")
                pbx.asked.append(header)
                time.sleep(pbx.delay)
                token = header.removeprefix("Bearer ")
                self.send_response(pbx.answers.get(token, 401))
                for value in pbx.identities.get(token, ()):
                    self.send_header("X-Auth-Identity", value.decode("latin-1"))
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_POST = do_GET

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/api/users/me"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()


def verified(pbx, **more):
    return {"auth.mode": "verify", "auth.verify_url": pbx.url, "auth.tokens_file": None, **more}


def asks_for_bearer(answer):
    refused(answer, "UNAUTHORIZED")
    assert answer["WWW-Authenticate"].startswith("Bearer"), answer


def test_every_operation_but_download_asks_for_a_token():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"abc")
        made = store(srv, b"stored")
        token = {"PortSIP-Upload-Token": up.token}
        for method, where, headers in (("POST", "/api/blobs/uploads", {}), ("POST", up.path("append"), token),
                                       ("POST", up.path("complete", digest=sha256(b"abc")), token),
                                       ("GET", up.path("status"), {}), ("POST", up.path("destroy"), token),
                                       ("GET", "/api/files", {}), ("GET", f"/api/files/{made['id']}", {}),
                                       ("POST", f"/api/files/{made['id']}/destroy", {})):
            for who in (None, "wrong-token", "alice-secret-toke", "alice-secret-token2", ""):
                asks_for_bearer(srv.http(method, where, headers, who=who))
        accepted(up.status(), 204, 3, up)
        whole(download(srv, made["digest"], who=None), b"stored")


def test_malformed_authorization_is_401():
    with Blobd() as srv:
        for value in ("", "Bearer", "Bearer ", "Basic YWxpY2U6eA==", "alice-secret-token", "Bearer  ", "Token alice-secret-token",
                      "Bearer " + "x" * 5000, "Bearer alice-secret-token, Bearer x"):
            asks_for_bearer(srv.get("/api/files", {"Authorization": value}, who=None))


def test_scheme_is_taken_in_any_case():
    with Blobd() as srv:
        for scheme in ("Bearer", "bearer", "BEARER"):
            assert srv.get("/api/files", {"Authorization": f"{scheme} alice-secret-token"}, who=None).status == 200


def test_two_authorization_lines_are_refused():
    with Blobd() as srv:
        a = srv.get("/api/files", [("Authorization", "Bearer alice-secret-token"), ("Authorization", "Bearer bob-secret-token")], who=None)
        assert a.status in (400, 401), a


def test_refused_body_leaves_the_connection_in_a_defined_state():
    with Blobd() as srv:
        up = Upload(srv)
        for size in (10, 100000, 5000000):
            with srv.connect() as c:
                a = c.request("POST", up.path("append"), {"PortSIP-Upload-Token": up.token}, b"x" * size)
                asks_for_bearer(a)
                if a.closes:
                    assert c.ended()
                else:
                    accepted(c.request("GET", up.path("status"), srv.authorized({}, "alice")), 204, 0, up)


def test_upload_belongs_to_its_creator_and_is_404_to_others():
    with Blobd() as srv:
        up = Upload(srv, who="alice")
        up.append(b"abc")
        for who in ("bob",):
            up.who = who
            refused(up.append(b"x"), "UPLOAD_UNKNOWN")
            refused(up.status(), "UPLOAD_UNKNOWN")
            refused(up.complete(sha256(b"abc")), "UPLOAD_UNKNOWN")
            refused(up.destroy(), "UPLOAD_UNKNOWN")
        up.who = "alice"
        created(up.complete(sha256(b"abc")), sha256(b"abc"), 3)


def test_none_mode_asks_nobody():
    with Blobd({"auth.mode": "none", "auth.tokens_file": None}) as srv:
        up = Upload(srv, who=None, filename="open")
        up.append(b"abc")
        created(up.complete(sha256(b"abc")), sha256(b"abc"), 3)
        assert srv.get("/api/files", who=None).json()["count"] == 1


def test_hup_reloads_the_tokens():
    with Blobd() as srv:
        asks_for_bearer(srv.get("/api/files", who="new-token"))
        write_tokens(srv.tokens_file, {"carol": ("new-token", False)})
        srv.signal(signal.SIGHUP)
        wait_for(lambda: srv.get("/api/files", who="new-token").status == 200, what="the new token")
        asks_for_bearer(srv.get("/api/files", who="alice"))


def test_hup_takes_another_tokens_file():
    with Blobd() as srv:
        other = srv.work / "other-tokens"
        write_tokens(other, {"carol": ("new-token", False)})
        srv.given["auth.tokens_file"] = str(other)
        srv.write_config()
        srv.signal(signal.SIGHUP)
        wait_for(lambda: srv.get("/api/files", who="new-token").status == 200, what="the other file's token")
        asks_for_bearer(srv.get("/api/files", who="alice"))
        write_tokens(other, {"dave": ("newer-token", False)})
        srv.config_file.write_text("[server]\nnonsense=1\n")  # what cannot be read changes no path back
        srv.signal(signal.SIGHUP)
        wait_for(lambda: srv.get("/api/files", who="newer-token").status == 200, what="the other file, read again")
        asks_for_bearer(srv.get("/api/files", who="new-token"))


def test_tokens_file_that_is_not_there_keeps_the_old_one_on_hup():
    with Blobd() as srv:
        missing = srv.work / "missing"
        srv.given["auth.tokens_file"] = str(missing)
        srv.write_config()
        srv.signal(signal.SIGHUP)
        wait_for(lambda: str(missing) in srv.log() and "reloaded" in srv.log(), what="a line about the tokens file")
        assert re.search(r" warn +reloaded, but", srv.log()) and not re.search(r"reloaded$", srv.log(), re.M), srv.log()
        assert srv.get("/api/files", who="alice").status == 200
        write_tokens(srv.tokens_file, {"carol": ("new-token", False)})
        srv.given["auth.tokens_file"] = str(srv.tokens_file)
        srv.write_config()
        srv.signal(signal.SIGHUP)
        wait_for(lambda: srv.get("/api/files", who="new-token").status == 200, what="the file of before, read again")
        asks_for_bearer(srv.get("/api/files", who="alice"))


def test_tokens_file_without_a_token_is_told_at_start_and_on_hup():
    with Blobd() as srv:
        said = f"auth.tokens_file {srv.tokens_file}: 0 tokens: nobody can upload"
        assert said not in srv.log()
        srv.tokens_file.write_text("# nobody\n")
        srv.signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in srv.log(), what="the reload")
        assert re.search(r" warn +" + re.escape(said), srv.log()), srv.log()
        asks_for_bearer(srv.get("/api/files", who="alice"))
        srv.restart()
        assert srv.log().count(said) == 2, srv.log()


def test_broken_tokens_file_keeps_the_old_tokens_on_hup_and_says_why():
    with Blobd() as srv:
        srv.tokens_file.write_text("carol not-a-hash\n")
        srv.signal(signal.SIGHUP)
        wait_for(lambda: f"auth.tokens_file {srv.tokens_file}:1: " in srv.log(), what="a line about the tokens file")
        assert srv.get("/api/files", who="alice").status == 200


def test_pbx_decides_by_status_and_gets_the_same_header():
    with Pbx({"good": 200, "created": 204, "forbidden": 403, "broken": 500, "gone": 404, "moved": 302}) as pbx, Blobd(verified(pbx)) as srv:
        for token in ("good", "created"):
            assert srv.get("/api/files", who=token).status == 200
        for token in ("unknown", "forbidden"):
            asks_for_bearer(srv.get("/api/files", who=token))
        for token in ("broken", "gone", "moved"):
            a = srv.get("/api/files", who=token)
            refused(a, "UNAVAILABLE")
            assert int(a["Retry-After"]) >= 1, a
        assert "Bearer good" in pbx.asked
        asks_for_bearer(srv.get("/api/files", who=None))
        assert "" not in pbx.asked


def test_pbx_is_asked_once_while_its_answer_is_remembered():
    with Pbx({"good": 200}) as pbx, Blobd(verified(pbx)) as srv:
        with srv.connect() as c:
            for _ in range(20):
                assert c.request("GET", "/api/files", srv.authorized({}, "good")).status == 200
        assert pbx.asked.count("Bearer good") == 1, pbx.asked


def test_remembered_answers_are_forgotten_in_time():
    with Pbx({"good": 200}) as pbx:
        with Blobd(verified(pbx, **{"auth.verify_cache": "1s", "auth.verify_negative_cache": "1s"})) as srv:
            assert srv.get("/api/files", who="good").status == 200
            asks_for_bearer(srv.get("/api/files", who="late"))
            pbx.answers = {"late": 200}
            wait_for(lambda: srv.get("/api/files", who="good").status == 401, what="a withdrawn token to be refused")
            wait_for(lambda: srv.get("/api/files", who="late").status == 200, what="a new token to be taken")


def test_pbx_away_is_503_and_downloads_go_on():
    with Pbx({"good": 200}) as pbx:
        with Blobd(verified(pbx, **{"auth.verify_cache": "1s"})) as srv:
            made = store(srv, b"kept", who="good")
            pbx.server.shutdown()
            pbx.server.server_close()
            time.sleep(1.2)
            a = srv.get("/api/files", who="good")
            refused(a, "UNAVAILABLE")
            assert "Retry-After" in a
            whole(download(srv, made["digest"], who=None), b"kept")


def test_equal_bearers_are_asked_about_once():
    with Pbx({"good": 200}) as pbx, Blobd(verified(pbx)) as srv:
        pbx.delay = 1
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(srv.get("/api/files", who="good"))) for _ in range(6)]
        [t.start() for t in threads]
        [t.join(20) for t in threads]
        assert [a.status for a in answers] == [200] * 6, answers
        assert pbx.asked == ["Bearer good"], pbx.asked


def test_made_up_bearers_do_not_keep_out_a_known_one():
    """Many clients show bearers that the PBX, which is slow, has to be asked about."""
    with Pbx({"good": 200}) as pbx, Blobd(verified(pbx, **{"auth.verify_cache": "2s"})) as srv:
        assert srv.get("/api/files", who="good").status == 200
        pbx.delay = 0.7
        stop = threading.Event()

        def attack(number):
            i = 0
            while not stop.is_set():
                srv.get("/api/files", who=f"made-up-{number}-{i}")
                i += 1
                time.sleep(0.005)

        attackers = [threading.Thread(target=attack, args=(n,)) for n in range(16)]
        [t.start() for t in attackers]
        try:
            answers, waits, end = [], [], time.monotonic() + 8
            while time.monotonic() < end:
                began = time.monotonic()
                answers.append(srv.get("/api/files", who="good").status)
                waits.append(time.monotonic() - began)
                time.sleep(0.2)
        finally:
            stop.set()
            [t.join(20) for t in attackers]
        assert answers == [200] * len(answers), answers
        assert pbx.asked.count("Bearer good") >= 3, "it was not renewed"
        assert sum(w > 0.6 for w in waits) < 2, waits  # a machine may stumble; the PBX is waited for by nobody
        print(f"{len(answers)} answers, the slowest after {max(waits) * 1000:.0f} ms")


def test_slow_pbx_times_out_and_holds_up_no_download():
    with Pbx({"good": 200}) as pbx, Blobd(verified(pbx, **{"auth.verify_timeout": "1s"})) as srv:
        made = store(srv, b"kept", who="good")
        pbx.delay = 4
        answers = []
        threads = [threading.Thread(target=lambda i=i: answers.append(srv.get("/api/files", who=f"t{i}"))) for i in range(8)]
        [t.start() for t in threads]
        began = time.monotonic()
        whole(download(srv, made["digest"], who=None), b"kept")
        assert time.monotonic() - began < 1
        [t.join(20) for t in threads]
        assert [a.status for a in answers] == [503] * 8, answers


class Proxy:
    """Listens where the environment says that a proxy is, and must not be asked."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.env = {name: url for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")}

    def asked(self):
        try:
            self.listener.accept()
            return True
        except BlockingIOError:
            return False


def test_no_bearer_goes_to_a_proxy_of_the_environment():
    proxy = Proxy()
    with Pbx({"good": 200}) as pbx, Blobd(verified(pbx), env=proxy.env) as srv:
        assert srv.get("/api/files", who="good").status == 200
        assert "Bearer good" in pbx.asked and not proxy.asked()


def test_nothing_for_s3_goes_to_a_proxy_of_the_environment():
    for driver in ("sigv4", "libs3"):
        proxy = Proxy()
        with FaultyS3() as s3, Blobd(Bucket(s3).options(storage__s3__driver=driver), env=proxy.env) as srv:
            made = store(srv, b"kept")
            whole(download(srv, made["digest"]), b"kept")
            assert not proxy.asked(), driver


def test_two_pbx_users_do_not_share_uploads():
    with Pbx({"good": 200, "other": 200}) as pbx, Blobd(verified(pbx)) as srv:
        up = Upload(srv, who="good")
        up.who = "other"
        refused(up.status(), "UPLOAD_UNKNOWN")
        assert srv.get("/api/files", who="other").json()["count"] == 0


def test_pbx_names_whose_the_bearer_is():
    """One identity whatever the bearer, to the last byte that an owner may have; and each bearer its own without a name."""
    names = {"short": b"a", "blanks": b"\t ana maria \t", "utf8": "ł".encode() * 63 + b"x", "longest": b"n" * 127}
    with Pbx({}) as pbx, Blobd(verified(pbx, **{"log.level": "info"})) as srv:
        for kind, name in names.items():
            pbx.answers |= {f"{kind}-1": 200, f"{kind}-2": 204, f"{kind}-unnamed": 200}
            pbx.identities |= {f"{kind}-1": [name], f"{kind}-2": [name.strip()]}
            up = Upload(srv, who=f"{kind}-1")
            up.append(b"abc")
            up.who = f"{kind}-2"
            accepted(up.status(), 204, 3, up)
            up.who = f"{kind}-unnamed"
            refused(up.status(), "UPLOAD_UNKNOWN")


def test_identity_that_cannot_be_used_is_refused_and_changes_no_owner():
    """Cut, a name may be another's; overlooked, the bearer turns into somebody else who does not find what it had made."""
    unusable = {"empty": [b""], "long": [b"n" * 128], "longer": [b"n" * 4000], "latin1": [b"caf\xe9"], "overlong": [b"\xc0\xafx"],
                "control": [b"a\x01b"], "tab": [b"a\tb"], "del": [b"a\x7f"], "two": [b"alice", b"bob"], "twice": [b"alice", b"alice"]}
    with Pbx({}) as pbx, Blobd(verified(pbx, **{"auth.verify_cache": "1s"})) as srv:
        pbx.answers = {kind: 200 for kind in unusable} | {"good": 200}
        pbx.identities = dict(unusable, good=[b"alice"])
        made = store(srv, b"kept", who="good")
        for kind in unusable:
            a = srv.post("/api/blobs/uploads", who=kind)
            assert "identity" in refused(a, "UNAVAILABLE")["message"], (kind, a)
            assert int(a["Retry-After"]) >= 1, (kind, a)
        assert "X-Auth-Identity cannot be used: the name is too long" in srv.log(), srv.log()
        assert srv.metric("blobd_auth_unanswered_total") == len(unusable)
        # It is asked again at once, and a name that is mended is taken.
        pbx.identities["long"] = [b"alice"]
        assert srv.get("/api/files", who="long").json()["items"][0]["id"] == made["id"]
        # One that breaks while the bearer is in use is refused when it is asked for again, and finds its files afterwards.
        pbx.identities["good"] = [b"alice" * 100]
        wait_for(lambda: srv.get("/api/files", who="good").status == 503, what="the broken name to be refused")
        pbx.identities["good"] = [b"alice"]
        assert srv.get("/api/files", who="good").json()["items"][0]["id"] == made["id"]
        whole(download(srv, made["digest"], who=None), b"kept")


def test_bearer_never_reaches_the_log():
    with Pbx({"good-secret": 200}) as pbx, Blobd(verified(pbx, **{"log.level": "debug"})) as srv:
        srv.get("/api/files", who="good-secret")
        srv.get("/api/files", who="bad-secret")
        time.sleep(0.2)
        assert "good-secret" not in srv.log() and "bad-secret" not in srv.log()


def test_cors_preflight_is_answered_without_a_token_when_origins_are_configured():
    with Blobd({"server.cors_origins": "https://pbx.example https://app.example"}) as srv:
        a = srv.http("OPTIONS", "/api/blobs/uploads", {"Origin": "https://app.example", "Access-Control-Request-Method": "POST",
                     "Access-Control-Request-Headers": "authorization, portsip-upload-token, upload-offset"}, who=None)
        assert a.status == 204 and a["Access-Control-Allow-Origin"] == "https://app.example", a
        assert "POST" in a["Access-Control-Allow-Methods"], a
        allowed = a["Access-Control-Allow-Headers"].lower()
        for name in ("authorization", "portsip-upload-token", "upload-offset", "content-range"):
            assert name in allowed, a
        a = srv.post("/api/blobs/uploads", {"Origin": "https://app.example"})
        exposed = a["Access-Control-Expose-Headers"].lower()
        for name in ("portsip-upload-id", "portsip-upload-token", "range", "upload-offset", "retry-after"):
            assert name in exposed, a
        assert "Origin" in a["Vary"], a
        for origin in ("https://evil.example", "null", "https://app.example.evil"):
            assert "Access-Control-Allow-Origin" not in srv.post("/api/blobs/uploads", {"Origin": origin}), origin


def test_no_cors_headers_unless_configured():
    with Blobd() as srv:
        a = srv.post("/api/blobs/uploads", {"Origin": "https://app.example"})
        assert "Access-Control-Allow-Origin" not in a, a


def test_unreadable_tokens_file_stops_the_start():
    srv = Blobd()
    os.unlink(srv.tokens_file)
    srv.spawn()
    assert srv.wait(20) != 0 and str(srv.tokens_file) in srv.log(), srv.log()
