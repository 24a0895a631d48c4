"""Appends that survive a lost answer: tokens, repeats, explicit offsets, takeovers, cut bodies, repeated completes."""

import os
import random
import threading
import time

import harness
from api import accepted, created, mismatch, refused, whole
from harness import Blobd, on_disk, temp_dir, with_embedded_sessions
from uploader import MODES, Content, Upload, download, sha256
from wire import Closed, wait_for

MIB = 1 << 20


def finish(srv, up, data):
    """Completes, and proves that exactly data was kept."""
    created(up.complete(sha256(data)), sha256(data), len(data))
    whole(download(srv, sha256(data)), data)


def with_token(token, **more):
    return {"PortSIP-Upload-Token": token, **more}


# ---- tokens ----------------------------------------------------------------------------------------------------------

def test_missing_token_is_400_before_the_body():
    with Blobd() as srv:
        up = Upload(srv)
        for where in (up.path("append"), up.path("complete", digest=sha256(b"x"))):
            a = srv.post(where, {}, b"x", expect=True)
            refused(a, "VALIDATE_FAILED")
            assert a.interim == []
            refused(srv.post(where, {"PortSIP-Upload-Token": ""}, b"x"), "VALIDATE_FAILED")
        accepted(up.status(), 204, 0, up)


def test_token_of_another_upload_is_403_and_writes_nothing():
    with Blobd() as srv:
        up, other = Upload(srv), Upload(srv)
        other.append(b"z")
        for token in (other.first_token, other.token):
            refused(up.append(b"x", with_token(token)), "UPLOAD_TOKEN_INVALID")
            refused(up.complete(sha256(b"x"), b"x", with_token(token)), "UPLOAD_TOKEN_INVALID")
        accepted(up.status(), 204, 0, up)


def test_every_token_issued_for_the_upload_authorises_a_complete_of_a_fixed_client():
    with Blobd() as srv:
        up = Upload(srv, mode="fixed")
        up.append(b"one")
        finish(srv, up, b"one")


def test_fixed_token_gets_plain_appends():
    with Blobd() as srv:
        up = Upload(srv, mode="fixed")
        for i in range(1, 6):
            accepted(up.append(b"again"), 203, 5 * i, up)
        finish(srv, up, b"again" * 5)


def test_fixed_client_may_look_at_status_without_becoming_rotating():
    with Blobd() as srv:
        up = Upload(srv, mode="fixed")
        for i in range(1, 4):
            accepted(up.append(b"again"), 203, 5 * i, up)
            accepted(up.status(), 204, 5 * i, up)
        finish(srv, up, b"again" * 3)


def test_rotating_repeat_of_the_last_chunk_is_the_same_203_and_adds_nothing():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"first")
        t1 = up.token
        accepted(up.append(b"second"), 203, 11, up)
        for _ in range(3):
            accepted(up.append(b"second", with_token(t1)), 203, 11, up)
        accepted(up.append(b"third"), 203, 16, up)
        finish(srv, up, b"firstsecondthird")


def test_rotating_repeat_of_a_large_chunk_is_recognised_by_its_hash():
    with Blobd() as srv:
        up, chunk = Upload(srv), Content(5 * MIB, 9).read(0, 5 * MIB)
        up.append(b"x")
        t1 = up.token
        accepted(up.append(chunk), 203, 1 + len(chunk), up)
        accepted(up.append(chunk, with_token(t1)), 203, 1 + len(chunk), up)
        accepted(up.append([chunk[:77777], chunk[77777:]], with_token(t1), chunked=True), 203, 1 + len(chunk), up)
        changed = chunk[:-1] + bytes([chunk[-1] ^ 1])
        mismatch(up.append(changed, with_token(t1)), 1 + len(chunk))
        finish(srv, up, b"x" + chunk)


def test_rotating_repeat_with_other_bytes_is_416_and_adds_nothing():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"first")
        t1 = up.token
        up.append(b"second")
        for other in (b"SECOND", b"secon", b"second!", b"", b"s" * MIB):
            mismatch(up.append(other, with_token(t1)), 11)
            mismatch(up.append([other], with_token(t1), chunked=True), 11)
        finish(srv, up, b"firstsecond")


def test_token_in_a_416_goes_on():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"first")
        t1 = up.token
        up.append(b"second")
        a = mismatch(up.append(b"other", with_token(t1)), 11)
        accepted(up.append(b"third", with_token(a["PortSIP-Upload-Token"])), 203, 16, up)
        finish(srv, up, b"firstsecondthird")


def test_repeat_older_than_the_last_chunk_is_416():
    with Blobd() as srv:
        up = Upload(srv)
        tokens, chunks = [up.token], [b"one", b"two", b"three"]
        for chunk in chunks:
            up.append(chunk)
            tokens.append(up.token)
        mismatch(up.append(chunks[0], with_token(tokens[0])), 11)
        mismatch(up.append(chunks[1], with_token(tokens[1])), 11)
        accepted(up.append(chunks[2], with_token(tokens[2])), 203, 11, up)
        finish(srv, up, b"onetwothree")


def test_first_token_is_old_once_a_later_one_was_shown():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"aaaa")
        up.append(b"bbbb")  # shows the token of the first append: rotates from here
        mismatch(up.append(b"cccc", with_token(up.first_token)), 8)
        finish(srv, up, b"aaaabbbb")


def test_lost_answer_of_the_first_chunk_is_recognised_when_status_was_asked_first():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"aaaa")
        up.token = up.first_token  # as if its answer had been lost
        assert up.status().status == 204 and up.offset == 4
        accepted(up.append(b"bbbb"), 203, 8, up)
        finish(srv, up, b"aaaabbbb")


def test_status_token_counts_as_the_present_one():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"aaaa")
        t1 = up.token
        up.status()
        accepted(up.append(b"bbbb"), 203, 8, up)  # shows the token of status
        accepted(up.append(b"bbbb", with_token(t1)), 203, 8, up)  # t1 is as old as it: a repeat
        mismatch(up.append(b"cccc", with_token(t1)), 8)
        finish(srv, up, b"aaaabbbb")


def test_rotating_complete_with_an_older_token_is_416_where_it_brings_a_body():
    with Blobd() as srv:
        for first in (True, False):
            up = Upload(srv)
            up.append(b"aaaa")
            older = up.first_token if first else up.token
            up.append(b"bbbb")
            data = b"aaaabbbb"
            mismatch(up.complete(sha256(data + b"c"), b"c", headers=with_token(older)), 8)
            mismatch(up.complete(sha256(data + b"c"), [b"c"], headers=with_token(older), chunked=True), 8)
            mismatch(up.complete(sha256(data), headers={**with_token(older), "Upload-Offset": "4"}), 8)
            accepted(up.status(), 204, 8, up)
            created(up.complete(sha256(data), headers=with_token(older)), sha256(data), 8)


# ---- explicit offsets ------------------------------------------------------------------------------------------------

def test_upload_offset_decides_whatever_the_token():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"aaaa")
        t1 = up.token
        up.append(b"bbbb")
        accepted(up.append(b"cccc", with_token(t1, **{"Upload-Offset": "8"})), 203, 12, up)
        accepted(up.append(b"dddd", with_token(up.first_token, **{"Upload-Offset": "12"})), 203, 16, up)
        finish(srv, up, b"aaaabbbbccccdddd")


def test_wrong_offset_is_416_with_the_right_one_and_writes_nothing():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"12345")
        for wrong in ("0", "4", "6", "999999999999"):
            for headers in ({"Upload-Offset": wrong}, {"Content-Range": f"bytes {wrong}-{int(wrong) + 2}/*"}):
                a = mismatch(up.append(b"abc", headers, expect=True), 5)
                assert a.interim == [], a
                mismatch(up.append(b"abc", headers), 5)
        finish(srv, up, b"12345")


def test_repeat_of_an_offset_client_is_416_and_tells_where_to_go_on():
    with Blobd() as srv:
        up = Upload(srv, mode="offset")
        accepted(up.append(b"aaaa"), 203, 4, up)
        mismatch(up.append(b"aaaa", {"Upload-Offset": "0"}), 4)
        accepted(up.append(b"bbbb"), 203, 8, up)
        finish(srv, up, b"aaaabbbb")


def test_content_range_is_taken_in_every_form():
    with Blobd() as srv:
        up = Upload(srv)
        for i, form in enumerate(("bytes {}-{}/*", "{}-{}", "bytes {}-{}/1000")):
            accepted(up.append(b"0123456789", {"Content-Range": form.format(10 * i, 10 * i + 9)}), 203, 10 * i + 10, up)
        accepted(up.append([b"01234", b"56789"], {"Content-Range": "bytes 30-39/*"}, chunked=True), 203, 40, up)
        finish(srv, up, b"0123456789" * 4)


def test_both_offset_headers_must_agree():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"12345")
        for a, b in ((5, "bytes 4-6/*"), (4, "bytes 5-7/*"), (0, "5-7")):
            refused(up.append(b"abc", {"Upload-Offset": str(a), "Content-Range": b}, expect=True), "VALIDATE_FAILED")
        accepted(up.append(b"abc", {"Upload-Offset": "5", "Content-Range": "bytes 5-7/*"}), 203, 8, up)


def test_range_unlike_the_body_is_400_and_writes_nothing():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"12345")
        for form in ("bytes 5-6/*", "bytes 5-8/*", "5-5", "bytes 5-4/*", "bytes 5-104/*"):
            a = up.append(b"abc", {"Content-Range": form}, expect=True)
            refused(a, "VALIDATE_FAILED")
            assert a.interim == [], a
            refused(up.append([b"a", b"bc"], {"Content-Range": form}, chunked=True), "VALIDATE_FAILED")
            accepted(up.status(), 204, 5, up)
        finish(srv, up, b"12345")


def test_malformed_offsets_are_400():
    with Blobd() as srv:
        up = Upload(srv)
        for wrong in ("", "-1", "+0", "0x0", "0 0", "1.0", "99999999999999999999", "zero", "0,0"):
            refused(up.append(b"abc", {"Upload-Offset": wrong}), "VALIDATE_FAILED")
        for wrong in ("", "bytes", "bytes 0", "bytes 0-", "bytes -2", "bytes */3", "items 0-2/*", "0-2-4", "bytes 0-2/x",
                      "bytes 0-2/2", "bytes 0-99999999999999999999/*", "bytes=0-2", "2-0"):
            refused(up.append(b"abc", {"Content-Range": wrong}), "VALIDATE_FAILED")
        accepted(up.status(), 204, 0, up)


def test_repeated_offset_header_lines_are_400():
    with Blobd() as srv:
        up = Upload(srv)
        headers = [*up.headers().items(), ("Upload-Offset", "0"), ("Upload-Offset", "0")]
        refused(srv.post(up.path("append"), headers, b"abc"), "VALIDATE_FAILED")
        accepted(up.status(), 204, 0, up)


def test_complete_obeys_offsets_with_and_without_a_body():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"12345")
        data = b"12345678"
        mismatch(up.complete(sha256(b"12345"), headers={"Upload-Offset": "4"}), 5)
        mismatch(up.complete(sha256(data), b"678", headers={"Upload-Offset": "4"}), 5)
        mismatch(up.complete(sha256(data), b"678", headers={"Content-Range": "bytes 2-4/*"}), 5)
        refused(up.complete(sha256(data), b"678", headers={"Content-Range": "bytes 5-8/*"}), "VALIDATE_FAILED")
        refused(up.complete(sha256(data), b"678", headers={"Upload-Offset": "x"}), "VALIDATE_FAILED")
        accepted(up.status(), 204, 5, up)
        created(up.complete(sha256(data), b"678", headers={"Content-Range": "bytes 5-7/8"}), sha256(data), 8)
        up = Upload(srv)
        up.append(b"abc")
        created(up.complete(sha256(b"abc"), headers={"Upload-Offset": "3"}), sha256(b"abc"), 3)


# ---- cut bodies ------------------------------------------------------------------------------------------------------

def cut_and_look(srv, sent, length, **begin):
    data = Content(length, 4).read(0, length)
    up = Upload(srv, mode="offset")
    with up.begin(length=None if begin else length) as c:
        if begin:
            c.send(b"%x\r\n" % length)
        c.send(data[:sent])
    wait_for(lambda: up.status().status == 204 and up.offset == sent, what=f"the {sent} bytes that arrived, have {up.offset}")
    accepted(up.append(data[sent:]), 203, length, up)
    finish(srv, up, data)


def test_cut_body_keeps_every_byte_that_arrived():
    with Blobd() as srv:
        for sent, length in ((1, 10), (300000, MIB), (3 * MIB + 17, 4 * MIB)):
            cut_and_look(srv, sent, length)


def test_chunked_body_cut_in_a_chunk_keeps_every_byte_that_arrived():
    with Blobd() as srv:
        for sent, length in ((1, 10), (300000, MIB), (3 * MIB + 17, 4 * MIB)):
            cut_and_look(srv, sent, length, chunked=True)


def test_cut_before_the_first_body_byte_changes_nothing():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"base")
        up.begin(length=1000).close()
        time.sleep(0.3)
        accepted(up.status(), 204, 4, up)
        finish(srv, up, b"base")


def test_reset_connection_leaves_a_true_offset():
    with Blobd() as srv:
        data = Content(6 * MIB, 5).read(0, 6 * MIB)
        up = Upload(srv, mode="offset")
        rng = random.Random(5)
        for _ in range(8):
            piece = data[up.offset:]
            up.cut_append(piece, rng.randint(0, min(len(piece), MIB)), reset=True)
            assert up.status().status == 204
        while up.append(data[up.offset:]).status == 416:
            pass
        finish(srv, up, data)


def test_cut_complete_keeps_its_body_and_completes_nothing():
    with Blobd() as srv:
        data = Content(200000, 6).read(0, 200000)
        up = Upload(srv, mode="offset")
        with up.begin("complete", length=len(data), digest=sha256(data)) as c:
            c.send(data[:120000])
        wait_for(lambda: up.status() and up.offset == 120000, what="the bytes that arrived")
        assert up.status().header("Upload-Complete") in (None, "?0")
        refused(download(srv, sha256(data)), "BLOB_UNKNOWN")
        assert srv.get("/api/files").json()["count"] == 0
        created(up.complete(sha256(data), data[120000:]), sha256(data), len(data))


def test_random_cuts_in_every_manner_end_in_the_right_bytes():
    with Blobd() as srv:
        rng = random.Random(11)
        for i in range(12):
            data = rng.randbytes(rng.randint(1, 400000))
            up = Upload(srv, mode="offset" if i % 2 else "rotating")
            up.send_all(data, rng, cut_chance=0.3)
            finish(srv, up, data)


# ---- takeover --------------------------------------------------------------------------------------------------------

def test_newer_append_stops_an_older_one_that_stalls():
    with Blobd() as srv:
        data = Content(4 * MIB, 8).read(0, 4 * MIB)
        up = Upload(srv, mode="offset")
        old = up.begin(length=len(data))
        old.send(data[:MIB])
        wait_for(lambda: up.status() and up.offset == MIB, what="a checkpoint of the trickling body")
        began = time.monotonic()
        accepted(up.append(data[MIB:2 * MIB]), 203, 2 * MIB, up)
        assert time.monotonic() - began < 5
        refused(old.read_response(), "UPLOAD_SUPERSEDED")
        accepted(up.append(data[2 * MIB:]), 203, len(data), up)
        finish(srv, up, data)


def test_bytes_of_a_trickling_body_are_acknowledged_by_status_within_seconds():
    with Blobd() as srv:
        up = Upload(srv)
        with up.begin(length=1000) as c:
            for i in range(1, 4):
                c.send(b"x" * 100)
                wait_for(lambda: up.status() and up.offset == 100 * i, timeout=5, what=f"{100 * i} bytes at status")


def test_stopped_append_cannot_add_a_byte_after_the_newer_one_began():
    with Blobd() as srv:
        up = Upload(srv, mode="offset")
        old = up.begin(length=MIB)
        old.send(b"o" * 1000)
        wait_for(lambda: up.status() and up.offset == 1000, what="the checkpoint")
        accepted(up.append(b"n" * 1000), 203, 2000, up)
        try:
            old.send(b"o" * (MIB - 1000))
            refused(old.read_response(), "UPLOAD_SUPERSEDED")
        except (BrokenPipeError, ConnectionResetError, Closed):
            pass
        accepted(up.status(), 204, 2000, up)
        finish(srv, up, b"o" * 1000 + b"n" * 1000)


def test_destroy_ends_an_append_in_flight():
    with Blobd() as srv:
        up = Upload(srv)
        c = up.begin(length=MIB)
        c.send(b"x" * 1000)
        time.sleep(0.2)
        assert up.destroy().status == 204
        try:
            c.send(b"x" * (MIB - 1000))
            assert c.read_response().status in (404, 409)
        except (BrokenPipeError, ConnectionResetError, Closed):
            pass
        refused(up.status(), "UPLOAD_UNKNOWN")


def test_a_storm_of_appends_by_offset_ends_in_the_right_bytes():
    with Blobd() as srv:
        data = Content(3 * MIB, 12).read(0, 3 * MIB)
        first = Upload(srv, mode="offset")
        errors = []

        def push(seed):
            rng, up = random.Random(seed), object.__new__(Upload)
            up.__dict__.update(first.__dict__)
            try:
                while up.status().status == 204 and up.offset < len(data):
                    piece = data[up.offset:up.offset + rng.randint(1, 200000)]
                    if rng.random() < 0.2:
                        up.cut_append(piece, rng.randint(0, len(piece)))
                        continue
                    a = up.append(piece)
                    if a.status not in (203, 409, 416):
                        errors.append(repr(a))
                        return
            except Exception as e:
                errors.append(repr(e))

        threads = [threading.Thread(target=push, args=(i,)) for i in range(4)]
        [t.start() for t in threads]
        [t.join(50) for t in threads]
        assert not errors, errors
        first.status()
        finish(srv, first, data)


# ---- completing ------------------------------------------------------------------------------------------------------

def test_concurrent_completes_end_in_one_file_and_one_id():
    with Blobd() as srv:
        for round_ in range(5):
            data = Content(100000, 20 + round_).read(0, 100000)
            up = Upload(srv, filename=f"{round_}")
            up.append(data)
            headers, answers = up.headers(), []
            where = up.path("complete", digest=sha256(data))
            threads = [threading.Thread(target=lambda: answers.append(srv.post(where, headers))) for _ in range(8)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            ids = {created(a, sha256(data), len(data))["id"] for a in answers}
            assert len(ids) == 1 and len(answers) == 8, ids
            assert srv.get("/api/files").json()["count"] == round_ + 1


def completed_upload(srv, name="kept.wav"):
    data = Content(70000, 30).read(0, 70000)
    up = Upload(srv, filename=name)
    up.append(data[:50000])
    answer = up.complete(sha256(data), data[50000:])
    return up, data, created(answer, sha256(data), len(data), name)["id"]


def repeats_equal(srv, up, data, first_id):
    for headers in (up.headers(), with_token(up.first_token)):
        assert created(up.complete(sha256(data), headers=headers), sha256(data), len(data))["id"] == first_id
    assert created(up.complete(sha256(data), data[50000:]), sha256(data), len(data))["id"] == first_id
    assert up.status()["Upload-Complete"] == "?1"
    refused(up.complete(sha256(b"other")), "DIGEST_INVALID")
    wait_for(lambda: srv.get("/api/files").json()["count"], what="the listing, which a kill -9 has made anew from records")
    assert srv.get("/api/files").json()["count"] == 1
    whole(download(srv, sha256(data)), data)


def test_complete_repeated_answers_the_same_201_and_id():
    with Blobd() as srv:
        up, data, first_id = completed_upload(srv)
        repeats_equal(srv, up, data, first_id)


def test_complete_repeated_after_a_restart_answers_the_same_id():
    with Blobd() as srv:
        up, data, first_id = completed_upload(srv)
        srv.restart()
        repeats_equal(srv, up, data, first_id)


def test_complete_repeated_after_kill_9_answers_the_same_id():
    with Blobd() as srv:
        up, data, first_id = completed_upload(srv)
        srv.restart(hard=True)
        repeats_equal(srv, up, data, first_id)


def lose_sessions(srv, path):
    """Stops the server and takes its sessions away: the file, or what Redis holds."""
    srv.stop()
    if harness.SESSIONS == "redis":
        srv.redis.command("FLUSHALL")
    else:
        lost = list(path.parent.glob(path.name + "*"))
        assert lost, "no sessions file to delete"
        for f in lost:
            f.unlink()
    srv.start()


def test_complete_repeated_after_the_sessions_are_lost_answers_the_same_id():
    path = temp_dir() / "sessions.db"
    with Blobd({"sessions.path": str(path)}) as srv:
        up, data, first_id = completed_upload(srv)
        lose_sessions(srv, path)
        repeats_equal(srv, up, data, first_id)


def test_open_upload_goes_on_after_the_sessions_are_lost():
    path = temp_dir() / "sessions.db"
    with Blobd({"sessions.path": str(path)}) as srv:
        for mode in MODES:
            data = Content(2 * MIB, 40).read(0, 2 * MIB)
            up = Upload(srv, mode=mode, filename=f"{mode}.wav")
            up.append(data[:MIB])
            up.append(data[MIB:MIB + 1000])
            lose_sessions(srv, path)
            accepted(up.append(data[MIB + 1000:]), 203, len(data), up)
            body = created(up.complete(sha256(data)), sha256(data), len(data), f"{mode}.wav")
            assert srv.get(f"/api/files/{body['id']}").json()["name"] == f"{mode}.wav"
            whole(download(srv, sha256(data)), data)


def test_files_are_listed_again_after_the_sessions_are_lost():
    path = temp_dir() / "sessions.db"
    with Blobd({"sessions.path": str(path)}) as srv:
        ids = [completed_upload(srv, f"{i}.wav")[2] for i in range(5)]
        lose_sessions(srv, path)
        listing = wait_for(lambda: (a := srv.get("/api/files").json())["count"] == 5 and a, what="the index to be rebuilt")
        assert {i["id"] for i in listing["items"]} == set(ids)
        assert {i["name"] for i in listing["items"]} == {f"{i}.wav" for i in range(5)}


def test_damaged_sessions_file_does_not_stop_the_server_from_serving():
    with_embedded_sessions()
    path = temp_dir() / "sessions.db"
    with Blobd({"sessions.path": str(path)}) as srv:
        up, data, first_id = completed_upload(srv)
        srv.stop()
        for f in path.parent.glob(path.name + "*"):
            f.write_bytes(b"not a database, " * 1000)
        srv.start()
        whole(download(srv, sha256(data)), data)
        repeats_equal(srv, up, data, first_id)


def modes(srv):
    """What others than the owner and his group may do, or may be done too much, of all that the server made."""
    found = [srv.root, *srv.root.rglob("*")]
    return [f"{oct(p.stat().st_mode)} {p}" for p in found if p.stat().st_mode & 0o777 & ~(0o750 if p.is_dir() else 0o640)]


def test_files_of_store_and_sessions_are_nobody_elses_whatever_the_umask():
    on_disk()
    with_embedded_sessions()
    os.umask(0)
    root = temp_dir() / "data"
    root.mkdir(mode=0o750)
    with Blobd({"sessions.path": str(root / "sessions.db")}, root=root) as srv:
        completed_upload(srv)
        Upload(srv, mode="offset").append(b"staged")
        assert not modes(srv), modes(srv)
        srv.kill()
        for path in root.glob("sessions.db*"):  # as an earlier version left them
            path.chmod(0o600 if path.name.endswith(".lock") else 0o644)
        srv.start()
        completed_upload(srv)
        for path in root.glob("sessions.db*"):
            if not path.name.endswith(".lock"):
                assert not path.stat().st_mode & 0o7, path
        srv.stop()
        for path in root.glob("sessions.db*"):
            if not path.name.endswith(".lock"):
                path.write_bytes(b"not a database, " * 1000)
        srv.start()
        assert any("damaged" in path.name for path in root.iterdir())
        assert not modes(srv), modes(srv)


def open_upload_survives(hard):
    with Blobd() as srv:
        for mode in MODES:
            data = Content(2 * MIB, 50).read(0, 2 * MIB)
            up = Upload(srv, mode=mode)
            up.append(data[:5])
            up.append(data[5:MIB])
            before = up.token
            srv.restart(hard)
            accepted(up.status(), 204, MIB, up)
            up.token = before
            accepted(up.append(data[MIB:]), 203, len(data), up)
            finish(srv, up, data)


def test_open_upload_survives_a_restart_with_offset_and_tokens():
    open_upload_survives(hard=False)


def test_open_upload_survives_kill_9_with_offset_and_tokens():
    open_upload_survives(hard=True)


def test_repeat_is_recognised_after_kill_9():
    with Blobd() as srv:
        up = Upload(srv)
        up.append(b"first")
        t1 = up.token
        up.append(b"second")
        srv.restart(hard=True)
        accepted(up.append(b"second", with_token(t1)), 203, 11, up)
        mismatch(up.append(b"SECOND", with_token(t1)), 11)
        finish(srv, up, b"firstsecond")


def relaxed_sync(sync):
    with Blobd({"uploads.sync": sync}) as srv:
        data = Content(3 * MIB, 60).read(0, 3 * MIB)
        up = Upload(srv, mode="offset")
        up.send_all(data, random.Random(60), cut_chance=0.1, biggest=500000)
        finish(srv, up, data)


def test_uploads_work_with_sync_at_complete():
    relaxed_sync("complete")


def test_uploads_work_without_sync():
    relaxed_sync("never")
