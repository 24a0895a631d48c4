"""Downloads: conditions, ranges, HEAD, names, types, caching, and who may."""

import base64
import hashlib
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote

from api import accepted, common, refused, whole
from harness import STORAGE, Blobd, on_disk, temp_dir
from s3_bucket import bucket_of
from uploader import Content, Upload, download, sha256, store
from wire import Closed, wait_for

DATA = Content(300000, 1).read(0, 300000)
HEX = sha256(DATA)
ABSENT = sha256(b"never stored")


def stored(srv, name="call.wav"):
    return store(srv, DATA, name)


def test_download_answers_200_with_length_etag_and_digest():
    with Blobd() as srv:
        stored(srv)
        a = whole(common(download(srv, HEX, who=None)), DATA)
        assert a["ETag"] == f'"{HEX}"', a
        assert a["Accept-Ranges"] == "bytes", a
        assert a["Content-Type"] == "application/octet-stream", a
        want = base64.b64encode(hashlib.sha256(DATA).digest()).decode()
        assert f"sha-256=:{want}:" in a["Repr-Digest"], a


def test_blobs_of_every_size_come_back_whole():
    with Blobd() as srv, srv.connect() as c:
        for size in (0, 1, 2, 4095, 4096, 32767, 32768, 32769, 65536, 262143, 262144, 262145, 1 << 20, (5 << 20) + 3):
            data = Content(size, size).read(0, size)
            store(srv, data)
            whole(c.request("GET", f"/api/blobs/{sha256(data)}"), data)


def test_downloads_of_every_size_come_back_whole_over_tls():
    with Blobd(tls=True) as srv, srv.connect() as c:
        for size in (0, 1, 32768, 32769, 262145, (5 << 20) + 3):
            data = Content(size, size).read(0, size)
            store(srv, data)
            whole(c.request("GET", f"/api/blobs/{sha256(data)}"), data)


def test_digest_is_taken_in_every_form():
    with Blobd() as srv:
        stored(srv)
        for form in (HEX, HEX.upper(), "sha256:" + HEX, "SHA256:" + HEX.upper(), "sha256%3A" + HEX):
            whole(download(srv, form), DATA)


def test_unknown_and_malformed_digests():
    with Blobd() as srv:
        refused(download(srv, ABSENT), "BLOB_UNKNOWN")
        refused(srv.http("GET", f"/api/blobs/{ABSENT}", {"Range": "bytes=0-1"}), "BLOB_UNKNOWN")
        for bad in ("x", HEX[:-1], HEX + "0", "g" * 64, "md5:" + HEX[:32], "sha512:" + HEX, "sha256:", "sha256:" + HEX[:-1]):
            refused(download(srv, bad), "DIGEST_INVALID")
        refused(download(srv, HEX[:63] + "%00"), "DIGEST_INVALID")


def test_head_answers_as_get_without_a_body():
    with Blobd() as srv:
        stored(srv)
        with srv.connect() as c:
            get = c.request("GET", f"/api/blobs/{HEX}")
            head = c.request("HEAD", f"/api/blobs/{HEX}")
            for name in ("ETag", "Content-Length", "Content-Type", "Content-Disposition", "Accept-Ranges", "Cache-Control",
                         "Repr-Digest"):
                assert head[name] == get[name], f"{name}: {head!r}"
            assert head.status == 200 and head.body == b""
            missing = c.request("HEAD", f"/api/blobs/{ABSENT}")
            assert missing.status == 404 and missing.body == b""
            whole(c.request("GET", f"/api/blobs/{HEX}"), DATA)


def test_if_none_match_answers_304():
    with Blobd() as srv:
        stored(srv)
        for value in (f'"{HEX}"', f'W/"{HEX}"', "*", f'"other", "{HEX}"', f'"a" ,W/"{HEX}"'):
            for method in ("GET", "HEAD"):
                a = srv.http(method, f"/api/blobs/{HEX}", {"If-None-Match": value})
                assert a.status == 304 and a.body == b"" and a["ETag"] == f'"{HEX}"', a
                assert a["Cache-Control"], a
        for value in ('"other"', f'"{HEX[:-1]}"', f'"{HEX}x"'):
            whole(srv.get(f"/api/blobs/{HEX}", {"If-None-Match": value}), DATA)


def test_if_match_lets_through_or_answers_412():
    with Blobd() as srv:
        stored(srv)
        for value in (f'"{HEX}"', "*", f'"x", "{HEX}"'):
            whole(srv.get(f"/api/blobs/{HEX}", {"If-Match": value}), DATA)
        for value in ('"other"', f'W/"{HEX}"'):  # weak never matches here
            refused(srv.get(f"/api/blobs/{HEX}", {"If-Match": value}), "PRECONDITION_FAILED")


def test_conditions_on_several_lines_are_one_list():
    """RFC 9110, section 5.3: the lines of a field that is a list are to be read as one line, joined by commas."""
    with Blobd() as srv:
        stored(srv)
        ours, other = f'"{HEX}"', '"other"'
        for method in ("GET", "HEAD"):
            for lines in ((other, ours), (ours, other), (other, '"more"', f"W/{ours}"), ("", ours), (f"{other}, {ours}", other)):
                a = srv.http(method, f"/api/blobs/{HEX}", [("If-None-Match", line) for line in lines])
                assert a.status == 304 and a.body == b"", (lines, a)
            for lines in ((other, ours), (ours, other), ("", ours), (other, f'"more" , {ours}')):
                a = srv.http(method, f"/api/blobs/{HEX}", [("If-Match", line) for line in lines])
                assert a.status == 200, (lines, a)
        whole(srv.get(f"/api/blobs/{HEX}", [("If-None-Match", other), ("If-None-Match", f'"{HEX[:-1]}"')]), DATA)
        for lines in ((other, '"more"'), (other, f"W/{ours}")):
            refused(srv.get(f"/api/blobs/{HEX}", [("If-Match", line) for line in lines]), "PRECONDITION_FAILED")


def test_fields_that_stand_once_select_nothing_when_repeated():
    """Which of two ranges is meant nobody can tell: the whole is always right, the first of them may be wrong."""
    with Blobd() as srv:
        stored(srv)
        for second in ("bytes=20-29", "bytes=10-19"):
            whole(srv.get(f"/api/blobs/{HEX}", [("Range", "bytes=10-19"), ("Range", second)]), DATA)
        ours = f'"{HEX}"'
        for first, second in ((ours, '"other"'), (ours, ours)):
            whole(srv.get(f"/api/blobs/{HEX}", [("Range", "bytes=10-19"), ("If-Range", first), ("If-Range", second)]), DATA)


def partial(answer, first, last, data=DATA):
    assert answer.status == 206, answer
    assert answer["Content-Range"] == f"bytes {first}-{last}/{len(data)}", answer
    assert answer["Content-Length"] == str(last - first + 1), answer
    assert answer.body == data[first:last + 1]
    assert answer["ETag"] == f'"{sha256(data)}"', answer


def test_one_range_answers_206():
    with Blobd() as srv:
        stored(srv)
        n = len(DATA)
        for spec, first, last in (("0-0", 0, 0), ("0-99", 0, 99), ("100-", 100, n - 1), ("-1", n - 1, n - 1), ("-500", n - 500, n - 1),
                                  (f"-{n * 2}", 0, n - 1), (f"0-{n * 2}", 0, n - 1), (f"{n - 1}-{n - 1}", n - 1, n - 1),
                                  ("1000-200999", 1000, 200999), ("5-99999999999999999999", 5, n - 1)):
            partial(srv.get(f"/api/blobs/{HEX}", {"Range": f"bytes={spec}"}), first, last)
        partial(srv.get(f"/api/blobs/{HEX}", {"Range": "Bytes=0-9"}), 0, 9)


def test_ranges_of_a_large_blob_over_tls():
    with Blobd(tls=True) as srv, srv.connect() as c:
        data = Content(3000000, 2).read(0, 3000000)
        store(srv, data)
        for first, last in ((0, 2999999), (262143, 262145), (1, 2500000), (2999999, 2999999)):
            partial(c.request("GET", f"/api/blobs/{sha256(data)}", {"Range": f"bytes={first}-{last}"}), first, last, data)


def test_head_with_a_range_has_no_body():
    with Blobd() as srv, srv.connect() as c:
        stored(srv)
        a = c.request("HEAD", f"/api/blobs/{HEX}", {"Range": "bytes=0-9"})
        assert a.status in (200, 206) and a.body == b"", a
        whole(c.request("GET", f"/api/blobs/{HEX}"), DATA)


def test_what_is_not_in_memory_comes_back_whole():
    """Plain and over TLS, with keep_cached=0, so that the download itself has to bring it from the disk."""
    data = Content(20 << 20, 5).read(0, (20 << 20) - 77)
    for tls in (False, True):
        with Blobd({"storage.disk.keep_cached": "0"}, tls=tls) as srv, srv.connect() as c:
            store(srv, data)
            for first, last in ((9 << 20, (9 << 20) + 5), (3000001, 15000000)):
                partial(c.request("GET", f"/api/blobs/{sha256(data)}", {"Range": f"bytes={first}-{last}"}), first, last, data)
            whole(c.request("GET", f"/api/blobs/{sha256(data)}"), data)
            whole(c.request("GET", f"/api/blobs/{sha256(data)}"), data)


def test_several_ranges_and_strange_ones_answer_the_whole():
    with Blobd() as srv:
        stored(srv)
        for spec in ("bytes=0-1,5-6", "bytes=0-0,-1", "items=0-5", "bytes", "bytes=", "bytes=a-b", "bytes=5-2", "bytes=-", "0-5",
                     "bytes=1-2x"):
            whole(srv.get(f"/api/blobs/{HEX}", {"Range": spec}), DATA)


def test_range_that_cannot_be_met_is_416_with_the_size():
    with Blobd() as srv:
        stored(srv)
        store(srv, b"")
        for digest, size, spec in ((HEX, len(DATA), f"bytes={len(DATA)}-"), (HEX, len(DATA), "bytes=99999999-"),
                                   (HEX, len(DATA), "bytes=-0"), (sha256(b""), 0, "bytes=0-0")):
            a = srv.get(f"/api/blobs/{digest}", {"Range": spec})
            refused(a, "RANGE_INVALID")
            assert a["Content-Range"] == f"bytes */{size}", a


def test_if_range_decides_whether_the_range_counts():
    with Blobd() as srv:
        stored(srv)
        with_range = {"Range": "bytes=10-19"}
        partial(srv.get(f"/api/blobs/{HEX}", {**with_range, "If-Range": f'"{HEX}"'}), 10, 19)
        for value in ('"other"', f'W/"{HEX}"', "Wed, 21 Oct 2015 07:28:00 GMT", "nonsense"):
            whole(srv.get(f"/api/blobs/{HEX}", {**with_range, "If-Range": value}), DATA)


def test_condition_comes_before_the_range():
    with Blobd() as srv:
        stored(srv)
        a = srv.get(f"/api/blobs/{HEX}", {"Range": "bytes=0-1", "If-None-Match": f'"{HEX}"'})
        assert a.status == 304, a
        refused(srv.get(f"/api/blobs/{HEX}", {"Range": "bytes=0-1", "If-Match": '"x"'}), "PRECONDITION_FAILED")


def disposition(srv, name):
    data = b"named " + name.encode()
    store(srv, data, name)
    value = download(srv, sha256(data))["Content-Disposition"]
    assert value.startswith("attachment"), value
    plain = re.search(r'filename="((?:[^"\\]|\\.)*)"', value)
    star = re.search(r"filename\*=UTF-8''([A-Za-z0-9!#$&+.^_`|~%-]*)", value)
    return value, plain and plain[1], star and star[1]


def test_disposition_is_as_documented_for_plain_names():
    with Blobd() as srv:
        for name in ("example", "call.wav", "a b.wav", "x" * 255):
            assert disposition(srv, name)[0] == f'attachment; filename="{name}"'


def test_disposition_carries_other_names_by_rfc_8187_with_an_ascii_fallback():
    with Blobd() as srv:
        for name in ("Grüße.wav", "通话记录.wav", 'quo"te.wav', "back;semi=colon.wav", "per%41cent.wav", "emoji📞.ogg", "é" * 127):
            value, plain, star = disposition(srv, name)
            assert value.isascii() and plain, value
            if not re.fullmatch(r"[A-Za-z0-9._ -]*", name):
                unescaped = re.sub(r"\\(.)", r"\1", plain)
                assert (star and unquote(star) == name) or unescaped == name, value


def test_download_without_a_name_is_called_by_its_digest():
    with Blobd() as srv:
        stored(srv, None)
        assert HEX in download(srv, HEX)["Content-Disposition"]


def called(srv, who, **kw):
    a = srv.http("HEAD", f"/api/blobs/{HEX}", who=who, **kw)
    assert a.status == 200, a
    return re.search(r'filename="([^"]*)"', a["Content-Disposition"])[1], a


def test_own_newest_name_is_shown_and_to_others_the_first():
    for mode in ("public", "bearer"):
        with Blobd({"auth.downloads": mode}) as srv:
            store(srv, DATA, "first.wav", who="bob")
            for who in ("alice", "bob"):
                name, a = called(srv, who)
                assert name == "first.wav" and ("public" in a["Cache-Control"]) == (mode == "public"), a
            store(srv, DATA, "old.wav")
            store(srv, DATA, "new.wav")
            for who, name in (("alice", "new.wav"), ("bob", "first.wav"), ("alice", "new.wav")):
                assert called(srv, who)[0] == name, (mode, who)
            if mode == "public":
                for who in (None, "no such token"):
                    name, a = called(srv, who)
                    assert name == "first.wav" and "public" in a["Cache-Control"], a
                assert "public" not in called(srv, "alice")[1]["Cache-Control"]
            item = next(i for i in srv.get("/api/files").json()["items"] if i["name"] == "new.wav")
            assert srv.post(f"/api/files/{item['id']}/destroy").status == 204
            assert called(srv, "alice")[0] == "old.wav", mode


def test_names_that_turn_the_direction_are_shown_straight():
    with Blobd() as srv:
        value, plain, star = disposition(srv, "invoice\u202egnp.\u2066exe\u200f")
        assert value == 'attachment; filename="invoicegnp.exe"', value
        data = b"nothing left"
        store(srv, data, "\u202e\u200e")
        assert sha256(data) in download(srv, sha256(data))["Content-Disposition"]


def test_stored_media_type_is_served_when_set():
    with Blobd({"downloads.media_type": "stored"}) as srv:
        stored(srv, "call.wav")
        a = download(srv, HEX)
        item = srv.get("/api/files").json()["items"][0]
        assert a["Content-Type"] == item["media_type"] and "/" in item["media_type"], (a, item)
        assert a["X-Content-Type-Options"] == "nosniff" and a["Content-Disposition"].startswith("attachment")


def test_public_downloads_are_cached_for_ever_and_errors_are_not():
    with Blobd() as srv:
        stored(srv)
        value = download(srv, HEX)["Cache-Control"]
        assert "immutable" in value and "public" in value and re.search(r"max-age=\d{6,}", value), value
        for a in (download(srv, ABSENT), srv.get("/api/files")):
            assert "immutable" not in a["Cache-Control"] and "public" not in a["Cache-Control"], a


def test_bearer_downloads_ask_for_a_token_and_are_not_public():
    with Blobd({"auth.downloads": "bearer"}) as srv:
        stored(srv)
        for who in (None, "wrong"):
            a = download(srv, HEX, who=who)
            refused(a, "UNAUTHORIZED")
            assert a["WWW-Authenticate"].startswith("Bearer"), a
        a = whole(download(srv, HEX), DATA)
        assert "public" not in a["Cache-Control"], a
        whole(download(srv, HEX, who="bob"), DATA)


def test_public_downloads_need_no_token_and_take_a_wrong_one():
    with Blobd() as srv:
        stored(srv)
        whole(download(srv, HEX, who=None), DATA)
        whole(download(srv, HEX, who="nobody-knows-this"), DATA)


def test_open_upload_cannot_be_downloaded():
    with Blobd() as srv:
        up = Upload(srv)
        accepted(up.append(DATA), 203, len(DATA), up)
        refused(download(srv, HEX), "BLOB_UNKNOWN")


def test_slow_reader_gets_every_byte_and_holds_up_nobody():
    with Blobd() as srv:
        size = 24 << 20
        big = Content(size, 3)
        up = Upload(srv)
        for piece in big.pieces(size=4 << 20):
            accepted(up.append(piece), 203, up.offset, up)
        assert up.complete(big.digest()).status == 201
        stored(srv)
        slow = [srv.connect(rcvbuf=65536, timeout=60) for _ in range(20)]
        for c in slow:
            c.send_head("GET", f"/api/blobs/{big.digest()}")
        for _ in range(20):
            whole(download(srv, HEX), DATA)
        for c in slow[:3]:
            a = c.read_head()
            h = hashlib.sha256()
            c.stream_body(int(a["Content-Length"]), h.update)
            assert h.hexdigest() == big.digest()
        for c in slow:
            c.close()
        wait_for(lambda: srv.metric("blobd_http_requests_in_flight") in (0, None), what="the abandoned downloads to end")
        whole(download(srv, HEX), DATA)


def test_many_parallel_downloads_of_one_blob():
    with Blobd() as srv:
        stored(srv)
        failures = []

        def fetch():
            with srv.connect() as c:
                for _ in range(30):
                    if c.request("GET", f"/api/blobs/{HEX}").body != DATA:
                        failures.append("other bytes")

        threads = [threading.Thread(target=fetch) for _ in range(8)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        assert not failures


def test_pipelined_downloads_come_in_order():
    with Blobd() as srv, srv.connect() as c:
        blobs = [Content(n, n).read(0, n) for n in (10, 100000, 3, 400000, 0, 70000)]
        for b in blobs:
            store(srv, b)
        c.send(b"".join(c.head("GET", f"/api/blobs/{sha256(b)}") for b in blobs))
        for b in blobs:
            whole(c.read_response(), b)


def truncate_stored(srv, digest):
    """What a stopped server has stored of a blob is cut to nothing."""
    if STORAGE == "disk":
        path = wait_for(lambda: next((p for p in srv.root.rglob(f"*{digest}*") if p.is_file() and "blobs" in p.parts), None),
                        what="the blob's file, once it is out of the journal")
        with open(path, "r+b") as f:
            f.truncate(0)
        return
    place, empty = bucket_of(srv), temp_dir() / "empty"
    empty.touch()
    place.s3cmd("put", str(empty), place.url + next(key for key in place.objects("data/") if digest in key))


def test_truncated_blob_is_never_served_as_whole_and_a_new_upload_heals_it():
    with Blobd() as srv:
        data = Content(600000, 77).read(0, 600000)
        store(srv, data)
        srv.stop()
        truncate_stored(srv, sha256(data))
        srv.start()
        try:
            a = download(srv, sha256(data))
            assert a.status != 200, a
        except Closed:
            pass
        store(srv, data)
        whole(download(srv, sha256(data)), data)


def test_connection_close_is_honoured_after_a_download():
    with Blobd() as srv:
        stored(srv)
        with srv.connect() as c:
            whole(c.request("GET", f"/api/blobs/{HEX}", {"Connection": "close"}), DATA)
            assert c.ended()


def test_http_1_0_gets_its_answer_and_a_closed_connection():
    with Blobd() as srv:
        stored(srv)
        out = srv.raw(f"GET /api/blobs/{HEX} HTTP/1.0\r\n\r\n".encode())
        head, _, body = out.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0] and body == DATA, head


def read_slowly(srv, data, seconds, rate):
    """Reads a download at this pace for so long, without a pause, and then the rest at once. A small receive buffer
    acknowledges often; a large one tells of the room in it when a good part of it is free."""
    with srv.connect(rcvbuf=32768) as c:
        c.send_head("GET", f"/api/blobs/{sha256(data)}")
        began, length = time.monotonic(), c.body_length(c.read_head(), "GET")
        body, c.buffer = bytearray(c.buffer), b""
        while len(body) < length and (more := c.sock.recv(length if time.monotonic() > began + seconds else rate // 20)):
            body += more
            time.sleep(max(0, min(began + seconds, began + len(body) / rate) - time.monotonic()))
        return bytes(body)


def test_slow_reader_that_never_pauses_gets_everything():
    data = Content(8 << 20, 21).read(0, 8 << 20)
    servers = [Blobd({"server.idle_timeout": "1s"}, tls=tls) for tls in (False, True)]
    with servers[0], servers[1], ThreadPoolExecutor(2) as pool:
        for srv in servers:
            store(srv, data)
        for body in [pool.submit(read_slowly, srv, data, 3, 200_000) for srv in servers]:
            assert body.result() == data


def test_stored_bytes_that_are_wrong_are_a_500():
    on_disk()
    with Blobd() as srv:
        data = b"x" * 1000
        store(srv, data)
        srv.restart()
        [blob] = [srv.root / path for path in srv.files("blobs") if path.endswith(sha256(data))]
        blob.write_bytes(b"y" + data[1:])
        answer = download(srv, sha256(data))
        refused(answer, "UNKNOWN")
        assert "Retry-After" not in answer, answer
