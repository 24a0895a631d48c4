"""What a power cut may leave of a staged file beyond what was acknowledged is never told, nor completed.

The cut is played: the server is killed, and the file made longer, as one whose length was on the disk and whose content
was not.
"""

from harness import Blobd, on_disk
from uploader import Content, Upload, download, sha256

ACKNOWLEDGED, TOTAL, LEFT = 100000, 1200000, 900000


def cut_power(srv, up, left):
    """The server's host goes down; `left` bytes of the upload's file are there when it comes back."""
    srv.kill()
    staged = srv.root / "uploads" / up.id[:2] / up.id
    with open(staged, "r+b") as f:
        f.truncate(left)
    for f in srv.root.glob("sessions.db*"):
        f.unlink()  # embedded sessions do not survive another boot
    srv.start()


def goes_on_from_what_was_acknowledged(**options):
    on_disk()
    data = Content(TOTAL, 3).read(0, TOTAL)
    with Blobd({**options}) as srv:
        up = Upload(srv, mode="offset", filename="cut.bin")
        assert up.append(data[:ACKNOWLEDGED]).status == 203
        srv.restart()  # what the journal had is in the files now
        cut_power(srv, up, LEFT)
        answer = up.status()
        assert answer.status == 204 and up.offset == ACKNOWLEDGED, answer
        answer = up.append(data[ACKNOWLEDGED:])
        assert answer.status == 203 and up.offset == TOTAL, answer
        assert up.complete(sha256(data)).status == 201
        assert download(srv, sha256(data)).body == data


def test_tail_is_not_told_with_the_journal():
    goes_on_from_what_was_acknowledged()


def test_tail_is_not_told_without_the_journal():
    goes_on_from_what_was_acknowledged(**{"storage.disk.journal": "false"})


def test_tail_does_not_override_the_right_offset_in_redis():
    goes_on_from_what_was_acknowledged(**{"sessions.store": "redis"})


def test_tail_on_shared_storage_does_not_override_the_right_offset_in_redis():
    goes_on_from_what_was_acknowledged(**{"sessions.store": "redis", "storage.disk.shared": "true"})


def test_body_that_was_rolled_back_does_not_come_back_with_the_power():
    on_disk()
    data = Content(TOTAL, 4).read(0, TOTAL)
    for options in ({}, {"storage.disk.journal": "false"}):
        with Blobd({"uploads.checkpoint_bytes": "64K", **options}) as srv:
            up = Upload(srv, mode="offset", filename="back.bin")
            assert up.append(data[:ACKNOWLEDGED]).status == 203
            answer = up.complete(sha256(b"other"), data[ACKNOWLEDGED:])
            assert answer.status == 400 and answer.code == "DIGEST_INVALID", answer
            cut_power(srv, up, TOTAL)
            answer = up.status()
            assert answer.status == 204 and up.offset == ACKNOWLEDGED, answer
            assert up.append(data[ACKNOWLEDGED:]).status == 203
            assert up.complete(sha256(data)).status == 201
            assert download(srv, sha256(data)).body == data
