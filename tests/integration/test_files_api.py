"""/api/files: listing, searching, ordering, paging, looking up, destroying; and whose files they are."""

import base64
import hashlib
import json
import re
import time
import uuid
from urllib.parse import quote

from api import common, refused, whole
from harness import Blobd, on_disk, with_embedded_sessions
from uploader import Upload, download, sha256, store
from wire import wait_for

NAMES = ["beta.wav", "Alpha.wav", "gamma.TXT", "Übung.wav", "10% off.pdf", "under_score", "alpha.wav", "zeta"]
WHEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def filled(srv, names=NAMES, who="alice"):
    return [store(srv, f"{i} {name}".encode() * (i + 1), name, who=who) for i, name in enumerate(names)]


def listing(srv, query="", who="alice"):
    a = common(srv.get("/api/files" + query, who=who))
    assert a.status == 200, a
    body = a.json()
    assert list(body) == ["count", "items"], a
    return body


def names(srv, query, who="alice"):
    return [i["name"] for i in listing(srv, query, who)["items"]]


def test_empty_listing():
    with Blobd() as srv:
        assert listing(srv) == {"count": 0, "items": []}


def test_items_carry_id_name_size_media_type_and_created_at():
    with Blobd() as srv:
        made = store(srv, b"12345", "five.wav")
        body = listing(srv)
        item = body["items"][0]
        assert list(item) == ["id", "name", "size", "media_type", "created_at"], item
        assert (item["id"], item["name"], item["size"]) == (made["id"], "five.wav", 5)
        assert WHEN.fullmatch(item["created_at"]) and "/" in item["media_type"], item
        now = time.strftime("%Y-%m-%dT%H:%M", time.gmtime())
        assert item["created_at"][:13] == now[:13], item


def test_one_file_is_found_by_its_id_with_digest_and_url():
    with Blobd() as srv:
        made = store(srv, b"12345", "five.wav")
        a = common(srv.get(f"/api/files/{made['id']}"))
        assert a.status == 200, a
        file = a.json()
        item = listing(srv)["items"][0]
        assert {k: file[k] for k in item} == item
        assert file["digest"] == sha256(b"12345") and file["file_url"] == f"/api/blobs/{file['digest']}", file
        whole(srv.get(file["file_url"]), b"12345")


def test_default_order_is_by_creation_and_paging_covers_everything_once():
    with Blobd() as srv:
        made = filled(srv)
        everything = [i["id"] for i in listing(srv)["items"]]
        assert everything == [m["id"] for m in made]
        paged = []
        for skip in range(0, 12, 3):
            page = listing(srv, f"?skip={skip}&top=3")
            assert page["count"] == len(NAMES)
            paged += [i["id"] for i in page["items"]]
        assert paged == everything


def test_orderby_name_size_and_created_at_in_both_directions():
    with Blobd() as srv:
        filled(srv)
        by_size = names(srv, "?orderby=size")
        assert by_size == names(srv, "?orderby=size%20asc") == names(srv, "?orderby=size%20desc")[::-1]
        sizes = [i["size"] for i in listing(srv, "?orderby=size")["items"]]
        assert sizes == sorted(sizes)
        by_name = names(srv, "?orderby=name")
        assert by_name.index("beta.wav") < by_name.index("gamma.TXT") < by_name.index("zeta")
        assert sorted(by_name) == sorted(NAMES)
        assert names(srv, "?orderby=created_at%20desc") == NAMES[::-1]
        assert names(srv, "?orderby=" + quote("created_at asc")) == NAMES


def test_orderby_takes_several_fields():
    with Blobd() as srv:
        for i, (name, size) in enumerate((("b", 2), ("a", 2), ("c", 1))):
            store(srv, bytes([i]) * size, name)
        assert names(srv, "?orderby=" + quote("size desc,name asc")) == ["a", "b", "c"]
        assert names(srv, "?orderby=" + quote("size, name desc")) == ["c", "b", "a"]


def test_search_finds_a_part_of_the_name_in_any_case():
    with Blobd() as srv:
        filled(srv)
        for text, found in (("alpha", {"Alpha.wav", "alpha.wav"}), ("ALPHA", {"Alpha.wav", "alpha.wav"}), ("wav", {n for n in NAMES if "wav" in n}),
                            ("übung", {"Übung.wav"}), ("%", {"10% off.pdf"}), ("_", {"under_score"}), ("nothing", set()),
                            ("'; DROP TABLE files; --", set()), ("*", set()), ("?", set()), ("\\", set())):
            body = listing(srv, "?search=" + quote(text))
            assert {i["name"] for i in body["items"]} == found and body["count"] == len(found), (text, body)
        assert listing(srv, "?search=")["count"] == len(NAMES)


def test_count_is_what_matches_not_what_is_shown():
    with Blobd() as srv:
        filled(srv)
        body = listing(srv, "?search=wav&top=1")
        assert body["count"] == sum("wav" in n for n in NAMES) and len(body["items"]) == 1
        assert listing(srv, "?skip=1000") == {"count": len(NAMES), "items": []}


def test_top_is_100_by_default_and_at_most():
    with Blobd() as srv, srv.connect() as c:
        for i in range(105):
            up = Upload(srv, connection=c, filename=f"{i:03}")
            assert up.complete(sha256(b"%d" % i), b"%d" % i).status == 201
        body = listing(srv)
        assert body["count"] == 105 and len(body["items"]) == 100
        assert len(listing(srv, "?top=100")["items"]) == 100
        assert len(listing(srv, "?skip=100")["items"]) == 5


def test_bad_queries_are_400_and_name_the_field():
    with Blobd() as srv:
        for field, values in (("top", ("0", "101", "-1", "x", "", "1.5", "99999999999999999999")),
                              ("skip", ("-1", "x", "", "1.5", "99999999999999999999999")),
                              ("orderby", ("id", "name up", "name;size", "name asc desc", ",", "name,,size", "digest")),
                              ("filter", ("name eq 'x'",)), ("search", ("%ff",))):
            for value in values:
                query = value if value.startswith("%") else quote(value)
                refused(srv.get(f"/api/files?{field}={query}"), "VALIDATE_FAILED", field)


def test_unknown_and_malformed_file_ids_are_404():
    with Blobd() as srv:
        made = store(srv, b"x", "x")
        other = made["id"][:-2] + ("AA" if not made["id"].endswith("AA") else "BB")
        for bad, code in ((other, "FILE_UNKNOWN"), ("x", "FILE_UNKNOWN"), ("a.b", "FILE_UNKNOWN"), (made["digest"], "FILE_UNKNOWN"),
                          ("A" * 300, "FILE_UNKNOWN"), ("%00", "VALIDATE_FAILED")):
            refused(srv.get(f"/api/files/{bad}"), code)
            refused(srv.post(f"/api/files/{bad}/destroy"), code)


def test_destroyed_file_is_gone_at_once_and_its_blob_with_the_last_name():
    with Blobd() as srv:
        data = b"shared content" * 1000
        one, two = store(srv, data, "one"), store(srv, data, "two")
        a = common(srv.post(f"/api/files/{one['id']}/destroy"))
        assert a.status == 204 and a.body == b"" and "Content-Length" not in a, a
        refused(srv.get(f"/api/files/{one['id']}"), "FILE_UNKNOWN")
        refused(srv.post(f"/api/files/{one['id']}/destroy"), "FILE_UNKNOWN")
        assert names(srv, "") == ["two"]
        whole(download(srv, one["digest"]), data)
        assert srv.post(f"/api/files/{two['id']}/destroy").status == 204
        refused(download(srv, one["digest"]), "BLOB_UNKNOWN")
        assert listing(srv)["count"] == 0


def test_destroyed_content_can_be_uploaded_again():
    with Blobd() as srv:
        data = b"comes back" * 5000
        for _ in range(3):
            made = store(srv, data, "again")
            whole(download(srv, made["digest"]), data)
            assert srv.post(f"/api/files/{made['id']}/destroy").status == 204
            refused(download(srv, made["digest"]), "BLOB_UNKNOWN")


def test_destroyed_file_stays_destroyed_after_a_restart_and_kill_9():
    with Blobd() as srv:
        keep, gone = store(srv, b"keep", "keep"), store(srv, b"gone", "gone")
        assert srv.post(f"/api/files/{gone['id']}/destroy").status == 204
        srv.restart(hard=True)
        assert names(srv, "") == ["keep"]
        refused(srv.get(f"/api/files/{gone['id']}"), "FILE_UNKNOWN")
        refused(download(srv, gone["digest"]), "BLOB_UNKNOWN")
        srv.restart()
        whole(download(srv, keep["digest"]), b"keep")


def test_each_identity_sees_and_destroys_its_own_files_and_an_admin_all():
    with Blobd() as srv:
        mine, theirs = store(srv, b"mine", "mine", who="alice"), store(srv, b"theirs", "theirs", who="bob")
        assert names(srv, "", "alice") == ["mine"] and names(srv, "", "bob") == ["theirs"]
        assert sorted(names(srv, "", "root")) == ["mine", "theirs"]
        assert listing(srv, "?search=theirs", "alice")["count"] == 0
        refused(srv.get(f"/api/files/{theirs['id']}", who="alice"), "FILE_UNKNOWN")
        refused(srv.post(f"/api/files/{theirs['id']}/destroy", who="alice"), "FILE_UNKNOWN")
        assert srv.get(f"/api/files/{theirs['id']}", who="root").status == 200
        assert srv.post(f"/api/files/{theirs['id']}/destroy", who="root").status == 204
        assert names(srv, "", "bob") == []
        assert srv.post(f"/api/files/{mine['id']}/destroy", who="alice").status == 204


def test_names_with_quotes_and_controls_come_back_as_valid_json():
    with Blobd() as srv:
        for name in ('a"b', "a'b", "tab-less", "<b>&amp;", "🎧.ogg", " lead", "trail "):
            made = store(srv, name.encode(), name)
            assert srv.get(f"/api/files/{made['id']}").json()["name"] == name


def test_file_without_a_name_is_listed():
    with Blobd() as srv:
        made = store(srv, b"no name")
        item = listing(srv)["items"][0]
        assert item["id"] == made["id"] and item["name"] in ("", None, made["digest"]), item


def test_listing_keeps_up_with_uploads():
    with Blobd() as srv:
        for i in range(30):
            made = store(srv, b"%d" % i, f"{i}")
            assert made["id"] in {x["id"] for x in listing(srv)["items"]}


def test_new_index_after_a_restart_equals_the_old():
    with Blobd() as srv:
        filled(srv)
        before = listing(srv)
        srv.restart(hard=True)
        assert wait_for(lambda: listing(srv) == before, what="the same listing")


RECORDS = 6000


def make_records(root, owner):
    """Puts file records into the storage of a stopped server. Returns one of their ids."""
    for i in range(RECORDS):
        digest, number = hashlib.sha256(b"%d" % i).digest(), (1 << 63) + i
        file_id = base64.urlsafe_b64encode(digest + number.to_bytes(8, "big")).decode().rstrip("=")
        record = {"id": file_id, "name": f"{i}.wav", "digest": digest.hex(), "size": 1, "media_type": "audio/wav",
                  "temporary": False, "owner": owner, "upload": str(uuid.UUID(int=i, version=4)),
                  "created_at": "2026-01-31T09:05:00.250Z"}
        directory = root / "records" / "files" / digest.hex()[:3]
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{digest.hex()},{number:016x}").write_text(json.dumps(record))
    return file_id


def test_listing_is_whole_or_503_after_a_power_cut_and_all_else_goes_on():
    """The sessions begin empty then; what is listed before the index is rebuilt would be less than there is."""
    on_disk()
    with_embedded_sessions()
    with Blobd() as srv:
        store(srv, b"one", name="one")
        srv.stop()
        file_id = make_records(srv.root, "alice")
        for file in srv.root.glob("sessions.db*"):
            file.unlink()
        srv.start()
        refusals, end = 0, time.monotonic() + 30
        while time.monotonic() < end:
            answer = srv.get("/api/files?top=1")
            assert srv.admin("/readyz").status == 200
            if answer.status == 200:
                break
            refused(answer, "UNAVAILABLE")
            assert answer["Retry-After"], answer
            refusals += 1
            assert srv.get(f"/api/files/{file_id}").status == 200
            assert download(srv, sha256(b"one")).body == b"one"
            store(srv, b"two %d" % refusals, name="two")
        assert answer.json()["count"] == RECORDS + 1 + refusals, f"{answer.json()['count']} of {RECORDS + 1 + refusals} files"
        print(f"{refusals} listings refused before the one that was whole")
