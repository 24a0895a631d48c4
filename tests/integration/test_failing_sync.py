"""A sync that fails, once, as Linux tells it: what was acknowledged is what is read back, or is honestly refused.

The server runs on a disk whose n-th sync fails and drops what it could not write (tests/preload/failing_sync.c). The
client behaves as a real one: after an answer that is no success it asks the status and goes on from there, and where the
server says that it is not ready any more, it is started again, as its supervisor would.
"""

import os

import harness
from harness import Blobd, Skip, on_disk, with_embedded_sessions
from uploader import Content, Refused, Upload, download, sha256

PIECES = (3 << 20, 3 << 20, 70000, 1 << 20)  # by the file's own syncs, and by the journal
TRIES = 12


def failing(nth, where):
    library = os.path.join(os.path.dirname(harness.BINARY), "failing_sync.so")
    if not os.path.exists(library):
        raise Skip(f"{library} is not built")
    # A sanitizer's runtime wants to be the first library.
    return {"LD_PRELOAD": library, "FAILING_SYNC": f"{nth}:{where}",
            "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


def ready(srv):
    return srv.admin("/readyz").status == 200


def started_anew(srv):
    """On the same data, and a disk that is well again."""
    if srv.running:
        srv.kill()
    srv.env = {}
    srv.start()


def started_failing(srv, nth, where):
    """It may find at once that it cannot go on, and say so."""
    srv.stop()
    srv.env = failing(nth, where)
    srv.spawn()
    if not srv.await_ready(2):
        started_anew(srv)


def failed_honestly(answer):
    assert answer.status in (500, 503), answer


def create(srv):
    for _ in range(TRIES):
        try:
            return Upload(srv, mode="offset", filename="failing.bin")
        except Refused as e:
            failed_honestly(e.answer)
            if not ready(srv):
                started_anew(srv)
    raise AssertionError("no upload could be begun")


def send(srv, up, data, bounds):
    """Sends data, and never believes more than was acknowledged."""
    acknowledged = 0
    for _ in range(TRIES):
        if acknowledged == len(data):
            return
        end = min(b for b in bounds if b > acknowledged)
        answer = up.append(data[acknowledged:end])
        if answer.status == 203:
            assert up.offset == end, answer
        else:
            failed_honestly(answer)
            if not ready(srv):
                started_anew(srv)
            answer = up.status()
            assert answer.status == 204, answer
            assert acknowledged <= up.offset <= end, f"{up.offset} after {acknowledged} was acknowledged: {answer!r}"
        acknowledged = up.offset
    assert acknowledged == len(data), "no end of failures"


def complete(srv, up, digest):
    for _ in range(TRIES):
        answer = up.complete(digest)
        if answer.status == 201:
            return
        failed_honestly(answer)
        if not ready(srv):
            started_anew(srv)
    raise AssertionError("the upload could not be completed")


def holds_to_it(nth, where, **options):
    on_disk()
    data = Content(sum(PIECES), nth).read(0, sum(PIECES))
    bounds = [sum(PIECES[:i + 1]) for i in range(len(PIECES))]
    digest = sha256(data)
    with Blobd({"uploads.checkpoint_bytes": "1M", **options}) as srv:
        started_failing(srv, nth, where)
        up = create(srv)
        send(srv, up, data, bounds)
        complete(srv, up, digest)
        assert download(srv, digest).body == data, f"sync {nth} of {where}: other bytes are read back"
        failed = "failing_sync: sync" in srv.log()
        started_anew(srv)
        assert download(srv, digest).body == data, f"sync {nth} of {where}: other bytes are read back after a start"
    return failed


def failures(where, numbers, **options):
    failed = [n for n in numbers if holds_to_it(n, where, **options)]
    assert failed, f"none of {list(numbers)} syncs of {where} came"
    print(f"syncs {failed} of {where} failed")


def test_failed_sync_of_an_uploads_file_or_directory_is_final():
    failures("uploads/", (1, 2, 3, 4, 6, 8))


def test_failed_sync_of_the_journal_is_final():
    failures("journal/", (4, 5, 6, 8))


def test_failed_syncfs_is_final():
    failures("syncfs", (2, 3))


def test_failed_sync_without_the_journal_is_final():
    for where, numbers in (("uploads/", (1, 2, 4, 5)), ("tmp/", (1, 2)), ("records/", (1, 2)), ("blobs/", (1, 2))):
        failures(where, numbers, **{"storage.disk.journal": "false"})


def test_sessions_whose_files_could_not_be_synced_at_the_end_are_not_trusted():
    """They would say what was true at the start before: an offset that acknowledged bytes have long passed."""
    on_disk()
    with_embedded_sessions()
    data = Content(300000, 1).read(0, 300000)
    for where in ("sessions.db-wal$", "sessions.db$"):
        with Blobd() as srv:
            up = create(srv)
            send(srv, up, data[:100000], [100000])
            started_failing(srv, 1, where)
            answer = up.append(data[100000:200000])
            assert answer.status == 203 and up.offset == 200000, answer
            srv.stop()
            assert "failing_sync: sync 1" in srv.log(), srv.log()[-2000:]
            srv.env = {}
            srv.start()
            answer = up.status()
            assert answer.status == 204 and up.offset == 200000, f"{where}: {answer!r}"
            assert up.append(data[200000:]).status == 203
            complete(srv, up, sha256(data))
            assert download(srv, sha256(data)).body == data


def until_it_fails(srv, step, good):
    """Repeats a step that is to succeed until it does, with True, or until the server can make nothing durable, with
    False."""
    for _ in range(TRIES):
        answer = step()
        if answer.status == good:
            return True
        failed_honestly(answer)
        if not ready(srv):
            return False
    raise AssertionError(f"neither {good} nor an end: {answer!r}")


def is_not_answered_for(srv, step):
    """What failed to become durable may be seen in memory, or by a name that is not on the disk."""
    for _ in range(3):
        failed_honestly(step())


def completed_though_it_failed(nth, where, **options):
    """Whether this sync came when a completion was to be made durable."""
    data = Content(3000, nth).read(0, 3000)
    with Blobd({**options}) as srv:
        up = create(srv)
        assert up.append(data).status == 203
        started_failing(srv, nth, where)
        came = not until_it_fails(srv, lambda: up.complete(sha256(data)), 201)
        if came:
            is_not_answered_for(srv, lambda: up.complete(sha256(data)))
            started_anew(srv)
            complete(srv, up, sha256(data))
        assert download(srv, sha256(data)).body == data
        return came


def destroyed_though_it_failed(nth, where, **options):
    data = Content(3000, nth).read(0, 3000)
    with Blobd({**options}) as srv:
        up = create(srv)
        assert up.append(data).status == 203
        file = f"/api/files/{up.complete(sha256(data)).json()['id']}"
        started_failing(srv, nth, where)
        came = not until_it_fails(srv, lambda: srv.post(file + "/destroy"), 204)
        if came:
            is_not_answered_for(srv, lambda: srv.post(file + "/destroy"))
            assert srv.get(file).status in (200, 500, 503)  # not gone
            started_anew(srv)
            assert srv.post(file + "/destroy").status in (204, 404)
        assert srv.get(file).status == 404
        return came


def test_what_a_failed_sync_was_to_make_durable_is_told_to_nobody():
    on_disk()
    for where, numbers, options in (("journal/", (2, 3, 4), {}), ("records/", (1, 2), {"storage.disk.journal": "false"})):
        for fails in (completed_though_it_failed, destroyed_though_it_failed):
            came = [n for n in numbers if fails(n, where, **options)]
            print(f"{fails.__name__}: syncs {came} of {where}")
            assert came, f"{fails.__name__}: no sync of {where} came in time"


for test in (test_failed_sync_of_an_uploads_file_or_directory_is_final, test_failed_sync_of_the_journal_is_final,
             test_failed_sync_without_the_journal_is_final, test_what_a_failed_sync_was_to_make_durable_is_told_to_nobody):
    test.timeout = 120
