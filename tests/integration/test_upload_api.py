"""Every upload operation of the contract: what it answers, with which headers, and what it refuses."""

import random
import time

from api import accepted, common, created, mismatch, refused, whole
from harness import Blobd
from s3_bucket import stored
from uploader import Content, Upload, download, sha256, store
from wire import target, wait_for

NOWHERE = "00000000-0000-4000-8000-000000000000"


def test_init_answers_202_with_id_token_range_and_offset():
    with Blobd() as srv:
        a = accepted(srv.post("/api/blobs/uploads?filename=a.wav"), 202, 0)
        assert a["Location"].endswith("/api/blobs/uploads/" + a["PortSIP-Upload-ID"]), a
        assert "no-store" in a["Cache-Control"], a


def test_location_of_an_upload_answers_as_its_status_does():
    with Blobd() as srv:
        a = accepted(srv.post("/api/blobs/uploads"), 202, 0)
        for method in ("GET", "HEAD"):
            with srv.connect() as c:
                accepted(c.request(method, a["Location"], srv.authorized({}, "alice")), 204, 0)
        refused(srv.get(f"/api/blobs/uploads/{NOWHERE}"), "UPLOAD_UNKNOWN")


def test_init_needs_no_filename_and_ignores_a_small_body():
    with Blobd() as srv:
        accepted(srv.post("/api/blobs/uploads"), 202, 0)
        with srv.connect() as c:
            a = c.request("POST", "/api/blobs/uploads", srv.authorized({}, "alice"), b"{}")
            assert a.status in (202, 400), a
            if not a.closes:
                accepted(c.request("POST", "/api/blobs/uploads", srv.authorized({}, "alice")), 202, 0)


def test_ids_and_tokens_of_two_uploads_differ():
    with Blobd() as srv:
        one, two = Upload(srv), Upload(srv)
        assert one.id != two.id and one.token != two.token


def test_append_answers_203_with_offset_and_a_fresh_token():
    with Blobd() as srv:
        up = Upload(srv)
        first = accepted(up.append(b"x" * 1000), 203, 1000, up)
        second = accepted(up.append(b"y"), 203, 1001, up)
        assert len({up.first_token, first["PortSIP-Upload-Token"], second["PortSIP-Upload-Token"]}) == 3


def test_range_cannot_tell_zero_bytes_from_one_but_upload_offset_does():
    with Blobd() as srv:
        up = Upload(srv)
        assert up.answer["Range"] == "0-0" and up.answer["Upload-Offset"] == "0"
        one = up.append(b"x")
        assert one["Range"] == "0-0" and one["Upload-Offset"] == "1"


def test_append_of_nothing_is_accepted_and_adds_nothing():
    with Blobd() as srv:
        up = Upload(srv)
        accepted(up.append(b""), 203, 0, up)
        accepted(up.append(b"abc"), 203, 3, up)
        accepted(up.append(b""), 203, 3, up)
        accepted(up.append([], chunked=True), 203, 3, up)
        created(up.complete(sha256(b"abc")), sha256(b"abc"), 3)


def test_chunked_bodies_of_every_chunk_size_arrive_whole():
    with Blobd() as srv:
        rng = random.Random(1)
        for sizes in ([1] * 300, [65536] * 20, [1 << 20], [3 << 20], [1, 65535, 65536, 65537, 262144, 262145, 7]):
            data = rng.randbytes(sum(sizes))
            pieces, at = [], 0
            for n in sizes:
                pieces.append(data[at:at + n])
                at += n
            up = Upload(srv)
            accepted(up.append(pieces, chunked=True), 203, len(data), up)
            created(up.complete(sha256(data)), sha256(data), len(data))
            whole(download(srv, sha256(data)), data)


def test_chunk_extensions_and_trailers_are_read_over():
    with Blobd() as srv:
        up = Upload(srv)
        c = up.begin()
        c.send(b"5;name=value\r\nhello\r\n6;q=\"a b\"\r\n world\r\n0\r\nX-Trailer: yes\r\n\r\n")
        accepted(c.read_response(), 203, 11, up)
        accepted(c.request("GET", up.path("status"), srv.authorized({}, "alice")), 204, 11, up)


def test_complete_answers_201_with_id_first_then_digest_size_and_name():
    with Blobd() as srv:
        data = b"hello, voicemail"
        up = Upload(srv, filename="greeting.wav")
        up.append(data)
        created(up.complete(sha256(data)), sha256(data), len(data), "greeting.wav")
        whole(download(srv, sha256(data), who=None), data)


def test_complete_appends_its_body_first():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"one ")
        created(up.complete(sha256(b"one two"), b"two"), sha256(b"one two"), 7)
        up = Upload(srv)
        created(up.complete(sha256(b"in chunks"), [b"in ", b"chunks"], chunked=True), sha256(b"in chunks"), 9)


def test_digest_is_taken_bare_or_prefixed_in_any_case():
    with Blobd() as srv:
        for form in ("{}", "sha256:{}", "SHA256:{}", "Sha256:{}"):
            for change in (str.lower, str.upper):
                data = (form + change("x")).encode()
                up = Upload(srv)
                up.append(data)
                created(up.complete(form.format(change(sha256(data)))), sha256(data), len(data))


def test_equal_content_gets_two_file_ids_and_one_blob():
    with Blobd() as srv:
        a, b = store(srv, b"same" * 5000, "a"), store(srv, b"same" * 5000, "b")
        assert a["id"] != b["id"] and a["digest"] == b["digest"]
        assert srv.get("/api/files").json()["count"] == 2
        whole(download(srv, a["digest"]), b"same" * 5000)


def test_upload_without_bytes_completes_to_the_empty_blob():
    with Blobd() as srv:
        up = Upload(srv, filename="empty")
        created(up.complete(sha256(b"")), sha256(b""), 0, "empty")
        whole(download(srv, sha256(b"")), b"")


def test_wrong_digest_is_400_with_both_digests_and_keeps_the_upload():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"right")
        e = refused(up.complete(sha256(b"wrong")), "DIGEST_INVALID")
        assert sha256(b"wrong") in e["detail"]["expected"] and sha256(b"right") in e["detail"]["actual"], e
        accepted(up.status(), 204, 5, up)
        created(up.complete(sha256(b"right")), sha256(b"right"), 5)


def test_wrong_digest_rolls_back_the_body_that_came_with_it():
    with Blobd() as srv:
        for body in (b"more", b"m" * 3000000):
            for chunked in (False, True):
                up = Upload(srv)
                up.append(b"base")
                refused(up.complete(sha256(b"other"), body, chunked=chunked), "DIGEST_INVALID")
                accepted(up.status(), 204, 4, up)
                up.append(b"!")
                created(up.complete(sha256(b"base!")), sha256(b"base!"), 5)


def test_empty_and_malformed_digests_are_refused_before_the_body():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"abc")
        twice = [f"digest={sha256(b'abc')}"] * 2
        for query in ("digest=", "digest", "digest=sha256:", "digest=%20", "digest=x&digest=x", "&".join(twice)):
            where = f"{up.path('complete')}?{query}"
            refused(up.http("POST", where, up.headers()), "DIGEST_INVALID")
            a = up.http("POST", where, up.headers(), b"x" * 100, expect=True)
            refused(a, "DIGEST_INVALID")
            assert a.interim == []
        accepted(up.status(), 204, 3, up)


def test_status_changes_nothing():
    with Blobd() as srv:
        up = Upload(srv, mode="fixed")
        up.append(b"12345")
        for _ in range(20):
            accepted(up.status(), 204, 5, up)
        accepted(up.append(b"12345"), 203, 10, up)


def test_destroy_releases_the_upload():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(Content(2 << 20).read(0, 2 << 20))
        a = common(up.destroy())
        assert a.status == 204 and a.body == b"" and "Content-Length" not in a
        refused(up.status(), "UPLOAD_UNKNOWN")
        refused(up.append(b"x"), "UPLOAD_UNKNOWN")
        refused(up.complete(sha256(b"")), "UPLOAD_UNKNOWN")
        refused(up.destroy(), "UPLOAD_UNKNOWN")


def test_destroy_leaves_nothing_of_the_upload_behind():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"x" * 3000000)
        assert [name for name in stored(srv) if up.id in name]
        up.destroy()
        wait_for(lambda: not [name for name in stored(srv) if up.id in name], what="what it stored to go")


def test_destroy_asks_for_no_token():
    with Blobd() as srv:
        up = Upload(srv)
        assert up.destroy({"X-None": "1"}).status == 204


def test_unknown_upload_is_404_for_every_operation():
    with Blobd() as srv:
        up = Upload(srv)
        up.id, base = NOWHERE, up.id
        assert base != NOWHERE
        refused(up.append(b"x"), "UPLOAD_UNKNOWN")
        refused(up.append(b"x", expect=True), "UPLOAD_UNKNOWN")
        refused(up.complete(sha256(b"")), "UPLOAD_UNKNOWN")
        refused(up.status(), "UPLOAD_UNKNOWN")
        refused(up.destroy(), "UPLOAD_UNKNOWN")


def test_upload_ids_are_found_in_any_case():
    with Blobd() as srv:
        up = Upload(srv)
        accepted(srv.get(f"/api/blobs/uploads/{up.id.upper()}/status"), 204, 0, up)


def test_wrong_methods_are_405_and_name_the_right_ones():
    with Blobd() as srv:
        up = Upload(srv)
        digest = store(srv, b"x")["digest"]
        for method, where, allow in (("GET", "/api/blobs/uploads", "POST"), ("PUT", "/api/blobs/uploads", "POST"),
                                     ("GET", up.path("append"), "POST"), ("PATCH", up.path("append"), "POST"),
                                     ("GET", up.path("complete"), "POST"), ("POST", up.path("status"), "GET"),
                                     ("DELETE", up.path("destroy"), "POST"), ("POST", f"/api/blobs/{digest}", "GET"),
                                     ("DELETE", "/api/files", "GET")):
            a = srv.http(method, where)
            refused(a, "METHOD_NOT_ALLOWED")
            assert allow in a["Allow"], a
        accepted(up.status(), 204, 0, up)


def test_unknown_paths_are_404():
    with Blobd() as srv:
        up = Upload(srv)
        for where in ("/", "/api", "/api/", "/api/nothing", "/api/blobs", "/api/blobs/", f"/api/blobs/uploads/{up.id}/other",
                      f"/api/blobs/uploads/{up.id}/status/x", "/blobs/uploads", "/api/filesx"):
            a = srv.get(where)
            assert a.status in (404, 405), f"{where}: {a!r}"
            refused(a, "NOT_FOUND" if a.status == 404 else "METHOD_NOT_ALLOWED")


def test_after_completion_status_says_so_and_append_and_destroy_are_409():
    with Blobd() as srv:
        up = Upload(srv)
        data = b"finished"
        up.append(data)
        first = created(up.complete(sha256(data)), sha256(data), 8)
        a = accepted(up.status(), 204, 8, up)
        assert a["Upload-Complete"] == "?1", a
        refused(up.append(b"more"), "UPLOAD_COMPLETED")
        refused(up.append(b"more" * 100000, expect=True), "UPLOAD_COMPLETED")
        refused(up.destroy(), "UPLOAD_COMPLETED")
        refused(up.complete(sha256(b"other")), "DIGEST_INVALID")
        assert created(up.complete(sha256(data)), sha256(data), 8)["id"] == first["id"]
        whole(download(srv, sha256(data)), data)


def test_status_of_an_open_upload_does_not_say_complete():
    with Blobd() as srv:
        assert Upload(srv).status().header("Upload-Complete") in (None, "?0")


def test_max_size_bounds_the_whole_upload_and_is_refused_before_the_body():
    with Blobd({"uploads.max_size": "1M"}) as srv:
        up = Upload(srv)
        accepted(up.append(b"x" * 700000), 203, 700000, up)
        a = up.append(b"y" * 700000, expect=True)
        refused(a, "SIZE_LIMIT_EXCEEDED")
        assert a.interim == []
        refused(up.append(b"y" * 700000), "SIZE_LIMIT_EXCEEDED")
        refused(up.complete(sha256(b""), b"y" * 700000), "SIZE_LIMIT_EXCEEDED")
        accepted(up.status(), 204, 700000, up)
        rest = b"z" * ((1 << 20) - 700000)
        data = b"x" * 700000 + rest
        created(up.complete(sha256(data), rest), sha256(data), 1 << 20)


def test_max_size_stops_a_chunked_body():
    with Blobd({"uploads.max_size": "1M"}) as srv:
        up = Upload(srv)
        a = up.append([b"x" * 65536] * 64, chunked=True)
        refused(a, "SIZE_LIMIT_EXCEEDED")
        status = up.status()
        assert status.status == 204 and up.offset <= 1 << 20


def test_expect_100_continue_is_honoured():
    with Blobd() as srv:
        up = Upload(srv)
        a = accepted(up.append(b"x" * 100000, expect=True), 203, 100000, up)
        assert a.interim == [100], a
        a = accepted(up.append([b"y" * 1000], chunked=True, expect=True), 203, 101000, up)
        assert a.interim == [100], a


def test_every_refusal_that_needs_no_body_comes_before_100_continue():
    with Blobd({"uploads.max_size": "1M"}) as srv:
        up, body = Upload(srv), b"x" * 1000
        up.append(b"abc")
        token = up.token
        other = Upload(srv).token
        cases = [("UNAUTHORIZED", "nobody", {"PortSIP-Upload-Token": token}),
                 ("VALIDATE_FAILED", "alice", {}),
                 ("UPLOAD_TOKEN_INVALID", "alice", {"PortSIP-Upload-Token": other}),
                 ("UPLOAD_OFFSET_MISMATCH", "alice", {"PortSIP-Upload-Token": token, "Upload-Offset": "7"}),
                 ("VALIDATE_FAILED", "alice", {"PortSIP-Upload-Token": token, "Upload-Offset": "seven"}),
                 ("VALIDATE_FAILED", "alice", {"PortSIP-Upload-Token": token, "Content-Range": "bytes 3-4/*"})]
        for code, who, headers in cases:
            a = srv.post(up.path("append"), headers, body, who=who, expect=True)
            refused(a, code)
            assert a.interim == [], f"{code}: {a!r}"
        accepted(up.status(), 204, 3, up)


def test_whole_upload_runs_on_one_connection():
    with Blobd() as srv, srv.connect() as c:
        data = Content(900000, 3).read(0, 900000)
        up = Upload(srv, connection=c)
        for at in range(0, len(data), 100000):
            accepted(up.append(data[at:at + 100000]), 203, at + 100000, up)
        accepted(up.status(), 204, len(data), up)
        created(up.complete(sha256(data)), sha256(data), len(data))
        whole(c.request("GET", f"/api/blobs/{sha256(data)}"), data)


def test_pipelined_requests_are_answered_in_order():
    with Blobd() as srv, srv.connect() as c:
        ups = [Upload(srv) for _ in range(3)]
        sent = b""
        for i, up in enumerate(ups):
            headers = srv.authorized({**up.headers(), "Content-Length": str(i + 1)}, "alice")
            sent += c.head("POST", up.path("append"), headers) + b"p" * (i + 1)
            sent += c.head("GET", up.path("status"), srv.authorized({}, "alice"))
        c.send(sent)
        for i, up in enumerate(ups):
            accepted(c.read_response(), 203, i + 1, up)
            accepted(c.read_response(), 204, i + 1, up)


def test_request_id_is_kept_when_sane_and_replaced_when_not():
    with Blobd() as srv:
        assert srv.get("/api/files", {"X-Request-ID": "call-42.a_B"})["X-Request-ID"] == "call-42.a_B"
        assert srv.get("/api/files", {"X-Request-ID": "x" * 128})["X-Request-ID"] == "x" * 128
        for bad in ("", "x" * 129, "has space", "semi;colon", "<script>"):
            got = common(srv.get("/api/files", {"X-Request-ID": bad}))["X-Request-ID"]
            assert got != bad and got, got
        twice = srv.get("/api/files", [("X-Request-ID", "one"), ("X-Request-ID", "two")])["X-Request-ID"]
        assert twice not in ("one", "two") and common(srv.get("/api/files"))["X-Request-ID"] != twice
        ids = {srv.get("/api/files")["X-Request-ID"] for _ in range(5)}
        assert len(ids) == 5


def test_request_id_is_in_the_access_log_and_secrets_are_not():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"secret body", {"X-Request-ID": "look-for-me"})
        wait_for(lambda: "look-for-me" in srv.log(), what="the access line")
        for secret in ("alice-secret-token", up.token, up.first_token, "secret body"):
            assert secret not in srv.log()


def test_problem_json_only_for_those_who_ask():
    with Blobd() as srv:
        where = f"/api/blobs/uploads/{NOWHERE}/status"
        a = srv.get(where, {"Accept": "application/problem+json"})
        assert a.status == 404 and a["Content-Type"].startswith("application/problem+json"), a
        assert a.json()["status"] == 404, a
        for accept in ("*/*", "application/json", "text/html", ""):
            refused(srv.get(where, {"Accept": accept}), "UPLOAD_UNKNOWN")


def test_accept_is_a_list_on_one_line_or_several():
    with Blobd() as srv:
        where, problem = f"/api/blobs/uploads/{NOWHERE}/status", "application/problem+json"
        for lines in (("text/html", problem), (problem, "text/html"), ("", problem), (f"text/html;q=0,\t{problem}\t;\tq=0.5",),
                      (f"text/html, ,{problem.upper()};v=1",), ("text/html;q=0", f"{problem};q=0.001")):
            a = srv.get(where, [("Accept", line) for line in lines])
            assert a.status == 404 and a["Content-Type"] == problem, (lines, a)
        for lines in (("text/html", "application/json"), (f"{problem};q=0", "text/html"), (f"{problem} ; v=1;\tQ=0.000",),
                      (f'text/html;x="a, {problem}"',), (f"{problem}s",), (f"{problem}+json",)):
            refused(srv.get(where, [("Accept", line) for line in lines]), "UPLOAD_UNKNOWN")


def test_filenames_keep_utf8_and_lose_their_path():
    with Blobd() as srv:
        for given, kept in (("a.wav", "a.wav"), ("Grüße 通话.wav", "Grüße 通话.wav"), ("/etc/passwd", "passwd"),
                            ("C:\\Users\\x\\fax.tif", "fax.tif"), ("a/b\\c.wav", "c.wav"), ("x" * 255, "x" * 255),
                            ("é" * 127, "é" * 127), ('quo"te.wav', 'quo"te.wav'), ("per%cent", "per%cent"),
                            ("a+b", "a+b"), ("a b", "a b")):
            data = given.encode()
            up = Upload(srv, filename=given)
            created(up.complete(sha256(data), data), sha256(data), name=kept)


def test_bad_filenames_are_400():
    with Blobd() as srv:
        for query in ("filename=" + "x" * 256, "filename=" + "%C3%A9" * 128, "filename=a%00b", "filename=a%0Ab", "filename=a%7Fb",
                      "filename=a%1Fb", "filename=%FF%FE", "filename=%C0%AF", "filename=%ED%A0%80", "filename=%zz", "filename=%2",
                      "filename=%C2%85"):
            refused(srv.post("/api/blobs/uploads?" + query), "VALIDATE_FAILED", "filename")


def test_temporary_takes_booleans_only():
    with Blobd() as srv:
        for good in ("true", "false"):
            assert srv.post(target("/api/blobs/uploads", temporary=good)).status == 202
        for bad in ("yes?", "maybe", "2", "truefalse", "null"):
            refused(srv.post(target("/api/blobs/uploads", temporary=bad)), "VALIDATE_FAILED", "temporary")


def test_body_that_trickles_is_refused_with_408_and_keeps_its_bytes():
    with Blobd({"uploads.min_rate": "16K", "server.idle_timeout": "60s"}) as srv:
        up = Upload(srv)
        c = up.begin(length=1000000)
        c.send(b"x" * 50000)
        end = time.monotonic() + 40
        try:
            while time.monotonic() < end:  # a byte now and then does not save it
                c.send(b"x")
                time.sleep(0.5)
                c.sock.settimeout(0.01)
                try:
                    c.fill()
                    break
                except TimeoutError:
                    pass
        except (BrokenPipeError, ConnectionResetError):
            pass
        c.sock.settimeout(5)
        refused(c.read_response(), "REQUEST_TIMEOUT")
        wait_for(lambda: up.status() and up.offset >= 50000, what="the bytes that came to be kept")


test_body_that_trickles_is_refused_with_408_and_keeps_its_bytes.timeout = 90


def test_many_uploads_interleaved_on_many_connections_do_not_mix():
    with Blobd() as srv:
        rng = random.Random(7)
        conns = [srv.connect() for _ in range(4)]
        work = []
        for i in range(20):
            data = rng.randbytes(rng.randint(1, 60000))
            up = Upload(srv, mode=rng.choice(("fixed", "rotating", "offset")), filename=f"{i}.bin")
            work.append((up, data))
        live = list(work)
        while live:
            up, data = rng.choice(live)
            up.connection = rng.choice(conns)
            if up.offset == len(data):
                created(up.complete(sha256(data)), sha256(data), len(data))
                live.remove((up, data))
            else:
                piece = data[up.offset:up.offset + rng.randint(1, 9000)]
                accepted(up.append(piece), 203, up.offset, up)
        for up, data in work:
            whole(download(srv, sha256(data)), data)


def test_offset_mismatch_on_a_fresh_upload_tells_zero():
    with Blobd() as srv:
        up = Upload(srv)
        mismatch(up.append(b"x", {"Upload-Offset": "5"}), 0)
