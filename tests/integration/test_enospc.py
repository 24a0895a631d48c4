"""A full disk: 507, the upload intact, and on it goes once there is room."""

import os
import subprocess
from contextlib import contextmanager

from api import accepted, created, refused, whole
from harness import Blobd, Skip, on_disk, temp_dir, with_embedded_sessions
from uploader import Content, Upload, download, sha256, store
from wire import wait_for

MIB = 1 << 20


@contextmanager
def small_disk(kind, mib=192):
    """A file system of its own, of that size; skips where mounting is not allowed."""
    on_disk()
    with_embedded_sessions()
    if os.geteuid() != 0:
        raise Skip("mounting needs root")
    base = temp_dir()
    mount = base / "mnt"
    mount.mkdir()
    if kind == "tmpfs":
        command = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(mount)]
    else:
        image = base / "image"
        with open(image, "wb") as f:
            f.truncate(mib * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True, env={**os.environ, "PATH": os.environ["PATH"] + ":/sbin"})
        command = ["mount", "-o", "loop", str(image), str(mount)]
    p = subprocess.run(command, capture_output=True, text=True)
    if p.returncode:
        raise Skip(f"cannot mount {kind}: {p.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


def ballast(mount, leave):
    """A file that leaves only so much room."""
    st = os.statvfs(mount)
    size = st.f_bavail * st.f_frsize - leave
    path = mount / "ballast"
    with open(path, "wb", buffering=0) as f:
        try:
            while size > 0:
                size -= f.write(bytes(min(size, MIB)))
            os.fsync(f.fileno())
        except OSError:
            pass  # full is full
    return path


def goes_on(up, data):
    """Appends the rest; the server may take a moment to see that there is room again."""
    answer = up.append(data[up.offset:])
    return answer.status == 203 or (up.status().status == 204 and up.offset == len(data))


RESERVE = 32 * MIB  # what the server keeps free of content


def fills_and_goes_on(kind, in_one_body):
    with small_disk(kind) as mount, Blobd(root=mount / "data") as srv:
        old = b"stored before" * 100
        store(srv, old)
        weight = ballast(mount, RESERVE + 12 * MIB)
        data = Content(60 * MIB, 1).read(0, 60 * MIB)
        up = Upload(srv, mode="offset", filename="grows")
        step = len(data) if in_one_body else MIB
        answer = up.answer
        while answer.status != 507:
            assert up.offset < len(data), "60 MiB went into 44"
            pieces = [data[at:at + 65536] for at in range(up.offset, min(up.offset + step, len(data)), 65536)]
            acknowledged = up.offset
            answer = up.append(pieces, chunked=True)
        refused(answer, "INSUFFICIENT_STORAGE")
        whole(download(srv, sha256(old)), old)
        assert up.status().status == 204 and acknowledged <= up.offset < len(data), (up.offset, acknowledged)
        wait_for(lambda: (a := up.append(data[up.offset:], expect=True)).status == 507 and a.interim == [] and
                 a.header("Upload-Offset") == str(up.offset) and int(a.header("Retry-After", "0")) > 0, timeout=5,
                 what="a body to be refused before it is sent")
        assert up.status().status == 204
        weight.unlink()
        wait_for(lambda: goes_on(up, data), timeout=5, what="room again")
        created(up.complete(sha256(data)), sha256(data), len(data))
        whole(download(srv, sha256(data)), data)
        srv.restart()
        whole(download(srv, sha256(data)), data)
        whole(download(srv, sha256(old)), old)


def test_upload_that_fills_a_tmpfs_is_507_and_goes_on_after_space_is_freed():
    fills_and_goes_on("tmpfs", in_one_body=False)


def test_upload_that_fills_an_ext4_is_507_and_goes_on_after_space_is_freed():
    fills_and_goes_on("ext4", in_one_body=False)


def test_body_that_runs_into_the_end_of_a_tmpfs_is_507_and_goes_on_after_space_is_freed():
    fills_and_goes_on("tmpfs", in_one_body=True)


def test_body_that_runs_into_the_end_of_an_ext4_is_507_and_goes_on_after_space_is_freed():
    fills_and_goes_on("ext4", in_one_body=True)


def test_listing_and_destroying_go_on_while_there_is_no_room_for_content():
    with small_disk("ext4") as mount, Blobd(root=mount / "data") as srv:
        made = store(srv, b"kept" * 1000, "kept")
        ballast(mount, RESERVE)
        wait_for(lambda: Upload(srv).append(b"x" * MIB).status == 507, timeout=5, what="the disk to count as full")
        assert srv.get("/api/files").json()["count"] == 1
        assert srv.post(f"/api/files/{made['id']}/destroy").status == 204
        assert srv.get("/api/files").json()["count"] == 0


def test_body_larger_than_the_disk_is_refused_before_it_is_sent():
    with small_disk("tmpfs") as mount, Blobd(root=mount / "data") as srv:
        up = Upload(srv)
        with up.begin(length=10 << 30, headers={"Expect": "100-continue"}) as c:
            refused(c.read_response(stop_at_interim=True), "INSUFFICIENT_STORAGE")
        accepted(up.status(), 204, 0, up)


def test_server_survives_a_full_disk_at_every_small_operation_and_kill_9_on_it():
    with small_disk("ext4") as mount, Blobd(root=mount / "data") as srv:
        kept = [store(srv, b"%d" % i * 1000, f"{i}")["digest"] for i in range(20)]
        weight = ballast(mount, 0)
        refusals = 0
        for i in range(60):
            a = srv.post("/api/blobs/uploads?filename=x")
            if a.status == 202:
                up_path = f"/api/blobs/uploads/{a['PortSIP-Upload-ID']}/complete?digest={sha256(b'%d' % i * 50000)}"
                a = srv.post(up_path, {"PortSIP-Upload-Token": a["PortSIP-Upload-Token"]}, b"%d" % i * 50000)
                if a.status == 201:
                    kept.append(a.json()["digest"])
                    continue
            assert a.status == 507, a
            refusals += 1
        assert refusals, "the disk never filled"
        srv.kill()
        weight.unlink()
        srv.start()
        for digest in kept:
            a = download(srv, digest)
            assert a.status == 200 and sha256(a.body) == digest
        wait_for(lambda: Upload(srv).complete(sha256(b"room"), b"room").status == 201, timeout=5, what="room again")


def test_destroying_on_a_full_disk_frees_it():
    with small_disk("ext4") as mount, Blobd({"retention.sweep_interval": "1s", "retention.sweep_grace": "1s"}, root=mount / "data") as srv:
        up = Upload(srv, mode="offset")
        data = Content(8 * MIB, 2).read(0, 8 * MIB)
        accepted(up.append(data), 203, len(data), up)
        ballast(mount, 0)
        assert up.destroy().status == 204
        again = wait_for(lambda: (a := srv.post("/api/blobs/uploads")).status == 202 and a, timeout=5, what="room for an upload")
        where = f"/api/blobs/uploads/{again['PortSIP-Upload-ID']}/append"
        token = {"PortSIP-Upload-Token": again["PortSIP-Upload-Token"]}
        wait_for(lambda: srv.post(where, {**token, "Upload-Offset": "0"}, data[:4 * MIB]).status == 203, timeout=5, what="room for its bytes")


def test_server_starts_on_a_full_disk_after_kill_9_and_takes_uploads_when_there_is_room():
    with small_disk("ext4") as mount, Blobd(root=mount / "data") as srv:
        kept = [store(srv, b"%d" % i * 1000, f"{i}")["digest"] for i in range(200)]
        weights = []
        for n in range(3):  # what the first start gives up is filled again
            weights.append(ballast(mount, 0).rename(mount / f"weight{n}"))
            srv.kill()
            srv.start()
            for digest in kept:
                a = download(srv, digest)
                assert a.status == 200 and sha256(a.body) == digest
            for _ in range(100):
                assert srv.post("/api/blobs/uploads?filename=x").status in (202, 507)
        for weight in weights:
            weight.unlink()
        wait_for(lambda: srv.post("/api/blobs/uploads").status == 202, timeout=10, what="room again")
        created(Upload(srv).complete(sha256(b"room"), b"room"), sha256(b"room"), 4)
        srv.kill()
        srv.start()
        assert download(srv, sha256(b"room")).status == 200
        wait_for(lambda: srv.get("/api/files").json().get("count") == len(kept) + 1, timeout=10, what="the whole listing")
