"""A full disk: 507, the upload intact, and on it goes once there is room."""

import os
import subprocess
from contextlib import contextmanager

from api import accepted, created, refused, whole
from harness import Blobd, Skip, on_disk, temp_dir, with_embedded_sessions
from uploader import Content, Upload, download, sha256, store

MIB = 1 << 20


@contextmanager
def small_disk(kind, mib=64):
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
    with open(path, "wb") as f:
        while size > 0:
            size -= f.write(bytes(min(size, MIB)))
        f.flush()
        os.fsync(f.fileno())
    return path


def fills_and_goes_on(kind):
    with small_disk(kind) as mount, Blobd(root=mount / "data") as srv:
        old = b"stored before" * 100
        store(srv, old)
        weight = ballast(mount, 12 * MIB)
        data = Content(24 * MIB, 1).read(0, 24 * MIB)
        up = Upload(srv, mode="offset", filename="grows")
        acknowledged, full = 0, None
        while acknowledged < len(data):
            answer = up.append(data[acknowledged:acknowledged + MIB])
            if answer.status != 203:
                full = answer
                break
            acknowledged = up.offset
        assert full is not None, "24 MiB went into 12"
        refused(full, "INSUFFICIENT_STORAGE")
        whole(download(srv, sha256(old)), old)
        assert up.status().status == 204 and up.offset >= acknowledged, (up.offset, acknowledged)
        assert srv.get("/api/files").json()["count"] == 1
        a = up.append(data[up.offset:], expect=True)
        assert a.status == 507 and up.status().status == 204, a
        weight.unlink()
        while up.offset < len(data):
            assert up.append(data[up.offset:]).status == 203
        created(up.complete(sha256(data)), sha256(data), len(data))
        whole(download(srv, sha256(data)), data)
        srv.restart()
        whole(download(srv, sha256(data)), data)
        whole(download(srv, sha256(old)), old)


def test_full_tmpfs_is_507_with_the_upload_intact_and_goes_on_after_space_is_freed():
    fills_and_goes_on("tmpfs")


def test_full_ext4_is_507_with_the_upload_intact_and_goes_on_after_space_is_freed():
    fills_and_goes_on("ext4")


def test_body_larger_than_the_disk_is_refused_before_it_is_sent():
    with small_disk("tmpfs") as mount, Blobd(root=mount / "data") as srv:
        up = Upload(srv)
        with up.begin(length=10 << 30, headers={"Expect": "100-continue"}) as c:
            refused(c.read_response(stop_at_interim=True), "INSUFFICIENT_STORAGE")
        accepted(up.status(), 204, 0, up)


def test_server_survives_a_full_disk_at_every_small_operation_and_kill_9_on_it():
    with small_disk("ext4", 48) as mount, Blobd(root=mount / "data") as srv:
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
        store(srv, b"room again" * 10000)


def test_destroying_on_a_full_disk_frees_it():
    with small_disk("ext4", 48) as mount, Blobd({"retention.sweep_interval": "1s", "retention.sweep_grace": "1s"}, root=mount / "data") as srv:
        up = Upload(srv, mode="offset")
        data = Content(8 * MIB, 2).read(0, 8 * MIB)
        accepted(up.append(data), 203, len(data), up)
        ballast(mount, 0)
        assert up.destroy().status == 204
        again = Upload(srv, mode="offset")
        accepted(again.append(data[:4 * MIB]), 203, 4 * MIB, again)
