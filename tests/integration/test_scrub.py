"""Damage on the disk: it is noticed, set aside, told, and healed by uploading the content again."""

import os
import shutil
import subprocess
import time

from api import refused, whole
from faulty_s3 import FaultyS3
from harness import Blobd, Skip, on_disk, temp_dir, with_embedded_sessions
from s3_bucket import Bucket
from uploader import Content, download, sha256, store
from wire import Closed, wait_for


def blob_file(srv, digest):
    return srv.root / "blobs" / digest[:2] / digest[2:4] / digest


def flip(path):
    """Changes a byte, and neither size nor time, as a disk does it."""
    stat = path.stat()
    with open(path, "r+b") as f:
        f.seek(stat.st_size // 2)
        byte = f.read(1)
        f.seek(stat.st_size // 2)
        f.write(bytes([byte[0] ^ 0x10]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def scrub(srv):
    srv.write_config()
    done = subprocess.run([str(srv.binary), "-c", str(srv.config_file), "--scrub"], capture_output=True, text=True,
                          timeout=60)
    return done.returncode, done.stdout, done.stderr


def get(srv, data):
    return download(srv, sha256(data))


def download_or_none(srv, data):
    """The answer, or None where it breaks off."""
    try:
        return get(srv, data)
    except (Closed, OSError):
        return None


def is_whole(srv, data):
    answer = download_or_none(srv, data)
    return answer is not None and answer.status == 200 and answer.body == data


def contents():
    sizes = [0, 1, 100, 5000, 32768, 40000, 300000, 1500000]
    return [Content(sizes[i % 8] + i, 100 + i).read(0, sizes[i % 8] + i) for i in range(26)]


def test_three_of_26_are_damaged_found_and_healed():
    on_disk()
    with_embedded_sessions()
    datas = contents()
    with Blobd() as srv:
        for i, data in enumerate(datas):
            store(srv, data, name=f"file {i}")
        # Locked by the running server: its pid, and what to do.
        status, said, complaint = scrub(srv)
        assert status == 1 and said == "", (status, said)
        assert f"process {srv.proc.pid}" in complaint and "stop that server" in complaint, complaint
        srv.stop()

        status, said, _ = scrub(srv)
        assert status == 0, said
        assert "26 blobs" in said and "0 damaged" in said and "26 files" in said, said

        bad = [datas[3], datas[12], datas[23]]
        for data in bad:
            flip(blob_file(srv, sha256(data)))
        status, said, _ = scrub(srv)
        assert status == 3, (status, said)
        assert said.count("\ndamaged ") + said.startswith("damaged ") == 3, said
        assert "26 blobs" in said and "3 damaged, 3 of them set aside" in said, said
        for i, data in zip((3, 12, 23), bad):
            assert sha256(data) in said and f'"file {i}"' in said, said
            assert (srv.root / "damaged" / sha256(data)).exists()
            assert not blob_file(srv, sha256(data)).exists()

        # Known since: still something to be told.
        status, said, _ = scrub(srv)
        assert status == 3 and "23 blobs" in said and "the blobs of 3 digests are missing" in said, said

        srv.start()
        for data in datas:
            if data in bad:
                refused(get(srv, data), "UNKNOWN")
                store(srv, data)
            whole(get(srv, data), data)
        srv.stop()
        status, said, _ = scrub(srv)
        assert status == 0 and "26 blobs" in said and "29 files" in said, said
        srv.start()


def test_damage_that_a_download_finds_is_set_aside_and_healed():
    on_disk()
    data = b"what it should be" * 50
    with Blobd() as srv:
        store(srv, data)
        flip(blob_file(srv, sha256(data)))
        refused(get(srv, data), "UNKNOWN")
        assert (srv.root / "damaged" / sha256(data)).exists()
        refused(get(srv, data), "UNKNOWN")
        store(srv, data)
        whole(get(srv, data), data)
        srv.stop()
        srv.start()
        whole(get(srv, data), data)


def test_damage_that_nobody_has_noticed_is_healed_by_an_upload():
    on_disk()
    for size in (900, 3 << 20):
        data = Content(size, 7).read(0, size)
        with Blobd() as srv:
            store(srv, data)
            flip(blob_file(srv, sha256(data)))
            store(srv, data)
            whole(get(srv, data), data)
            assert not (srv.root / "damaged").exists()
            srv.kill()
            srv.start()
            whole(get(srv, data), data)


def test_the_running_server_scrubs():
    on_disk()
    data = Content(200000, 9).read(0, 200000)
    with Blobd({"retention.scrub_rate": "100M", "retention.sweep_interval": "1s"}) as srv:
        store(srv, data)
        flip(blob_file(srv, sha256(data)))
        wait_for((srv.root / "damaged" / sha256(data)).exists, what="the damage to be found", timeout=30)
        refused(get(srv, data), "UNKNOWN")
        store(srv, data)
        whole(get(srv, data), data)
        time.sleep(1.5)
        whole(get(srv, data), data)


NOBODY = 65534


def give_away(path):
    for p in [path, *path.rglob("*")]:
        os.chown(p, NOBODY, NOBODY)


def of_root(path):
    return [str(p.relative_to(path)) for p in [path, *path.rglob("*")] if p.stat().st_uid != NOBODY]


def test_root_leaves_a_store_to_its_owner():
    """What the commands make when root runs them belongs to the user whose server goes on with it."""
    on_disk()
    with_embedded_sessions()
    if os.geteuid() != 0:
        raise Skip("only root can work on the store of another user")
    data = b"somebody's" * 2000
    with Blobd() as srv:
        store(srv, data)
        srv.kill()
        # Nothing but the journal is left of it: opening makes files, directories and segments.
        for name in ("blobs", "records", "uploads"):
            shutil.rmtree(srv.root / name)
        (srv.root / "journal" / "01").unlink()
        for p in (srv.work, srv.work.parent):
            p.chmod(0o755)
        give_away(srv.root)
        for command in ("--scrub", "--check-storage"):
            done = subprocess.run([str(srv.binary), "-c", str(srv.config_file), command], capture_output=True,
                                  text=True, timeout=60)
            assert done.returncode == 0, (command, done)
            assert of_root(srv.root) == [], (command, of_root(srv.root))
            assert f"as the owner of {srv.root}" in done.stderr and f"({NOBODY})" in done.stderr, done.stderr
        assert blob_file(srv, sha256(data)).stat().st_uid == NOBODY

        # To serve, root must read its key and bind its port: it is told to start it as that user instead.
        srv.spawn()
        assert srv.wait(20) == 1 and of_root(srv.root) == [], (of_root(srv.root), srv.log())
        assert all(w in srv.log() for w in (str(srv.root), "runuser -u nobody", "chown -R root")), srv.log()
        # That user is told what it may not open, and what to do.
        os.chown(srv.root / "lock", 0, 0)
        (srv.root / "lock").chmod(0o600)
        binary = shutil.copy(srv.binary, srv.work / "blobd")
        done = subprocess.run([str(binary), "--set", f"storage.disk.root={srv.root}", "--set", "tls.enabled=false", "--set",
                               "auth.mode=none", "--check-storage"], user=NOBODY, group=NOBODY, extra_groups=[],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and "Permission denied" in done.stderr, done
        assert f"chown -R {NOBODY}" in done.stderr and str(srv.root) in done.stderr, done
        os.chown(srv.root / "lock", NOBODY, NOBODY)

        # A root that is not there yet is made by whom the directory above belongs to.
        above = temp_dir()
        for p in (above, above.parent):
            p.chmod(0o755)
        os.chown(above, NOBODY, NOBODY)
        done = subprocess.run([str(srv.binary), "-c", str(srv.config_file), "--set",
                               f"storage.disk.root={above}/a/b", "--check-storage"], capture_output=True, text=True,
                              timeout=60)
        assert of_root(above) == [], (done, of_root(above))

        # Root's own store stays root's, without a word.
        for p in [srv.root, *srv.root.rglob("*")]:
            os.chown(p, 0, 0)
        status, said, complaint = scrub(srv)
        assert status == 0 and "owner" not in complaint, (status, said, complaint)
        srv.start()
        whole(get(srv, data), data)


def flip_object(s3, key):
    data = bytearray(s3.objects[key])
    data[len(data) // 2] ^= 0x10
    s3.objects[key] = bytes(data)


def test_damage_on_s3_is_set_aside_kept_and_healed():
    small, large = Content(900, 1).read(0, 900), Content(3 << 20, 2).read(0, 3 << 20)
    with FaultyS3() as s3:
        place = Bucket(s3)
        with Blobd(place.options(retention__sweep_interval="1s", retention__sweep_grace="1s")) as srv:
            def below(what):
                return sorted(k for k in s3.objects if k.startswith(f"{place.prefix}/{what}"))

            # On its way only: nobody is told, nothing is set aside.
            for data in (small, large):
                store(srv, data)
                with s3.fault("other-bytes", "GET .*data/", times=1):
                    download_or_none(srv, data)
                wait_for(lambda: is_whole(srv, data), what="the intact blob")
            time.sleep(2.5)
            assert below("damaged/") == [], below("damaged/")
            assert srv.metric("blobd_corrupt_blobs_total") == 0

            bad = below("data/")
            assert len(bad) == 2
            for key in bad:
                flip_object(s3, key)
            srv.stop()
            srv.start()
            refused(get(srv, small), "UNAVAILABLE")
            download_or_none(srv, large)
            wait_for(lambda: len(below("damaged/")) == 2, 20, what="both to be set aside")
            status, said, _ = scrub(srv)  # beside the server
            assert status == 3 and "the blobs of 2 digests are missing" in said, said
            for data in (small, large):
                refused(get(srv, data), "UNKNOWN")
                store(srv, data)
                whole(get(srv, data), data)
            at = srv.metric("blobd_janitor_sweeps_total")
            wait_for(lambda: srv.metric("blobd_janitor_sweeps_total") >= at + 3, 20, what="three sweeps")
            assert set(bad) < set(below("data/")) and len(below("data/")) == 4, below("data/")
            status, said, _ = scrub(srv)
            assert status == 0 and "2 blobs" in said, said
