"""Starting, signals, draining, health, and what a second server may not do."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
import time

import wire
from api import accepted, created, refused, whole
from harness import Blobd, on_disk, temp_dir, with_embedded_sessions
from uploader import Content, Upload, download, sha256, store
from wire import Closed, wait_for

SLOW = "BLOBD_TEST_SLOW" in os.environ


def ready(srv):
    try:
        return srv.admin("/readyz").status
    except (OSError, Closed):
        return None


def refuses_connections(srv):
    try:
        srv.connect(timeout=2).close()
        return False
    except OSError:
        return True


def test_term_lets_an_append_in_flight_finish():
    with Blobd() as srv:
        up = Upload(srv, mode="offset")
        c = up.begin(length=2000)
        c.send(b"x" * 1000)
        time.sleep(0.3)
        srv.signal(signal.SIGTERM)
        assert wait_for(lambda: ready(srv) == 503, what="/readyz to fail while draining")
        wait_for(lambda: refuses_connections(srv), what="the listener to close")
        assert srv.running
        c.send(b"x" * 1000)
        a = accepted(c.read_response(), 203, 2000, up)
        assert a.closes, a
        assert srv.wait(20) == 0, srv.log()
        srv.start()
        accepted(up.status(), 204, 2000, up)


def test_term_lets_a_download_in_flight_finish():
    with Blobd() as srv:
        data = Content(16 << 20, 1).read(0, 16 << 20)
        store(srv, data)
        c = srv.connect(rcvbuf=65536)
        c.send_head("GET", f"/api/blobs/{sha256(data)}")
        head = c.read_head()
        srv.signal(signal.SIGTERM)
        time.sleep(0.5)
        parts = []
        c.stream_body(int(head["Content-Length"]), parts.append)
        assert b"".join(parts) == data
        assert srv.wait(20) == 0, srv.log()
        srv.start()


def test_readyz_has_failed_when_the_listener_is_closed():
    with Blobd() as srv:
        up = Upload(srv)
        c = up.begin(length=10)  # holds the drain open
        time.sleep(0.2)
        srv.signal(signal.SIGTERM)
        wait_for(lambda: refuses_connections(srv), interval=0, what="the listener to close")
        assert ready(srv) == 503
        assert srv.admin("/healthz").status == 200
        c.send(b"x" * 10)
        accepted(c.read_response(), 203, 10, up)
        assert srv.wait(20) == 0
        srv.start()


def test_drain_timeout_bounds_the_drain_and_keeps_what_came():
    with Blobd({"server.drain_timeout": "2s"}) as srv:
        up = Upload(srv)
        c = up.begin(length=1000000)
        c.send(b"x" * 5000)
        wait_for(lambda: up.status() and up.offset == 5000, what="the checkpoint")
        began = time.monotonic()
        srv.signal(signal.SIGTERM)
        srv.wait(20)
        assert 1 < time.monotonic() - began < 10
        srv.start()
        accepted(up.status(), 204, 5000, up)


def test_second_signal_stops_a_drain_at_once_and_loses_nothing():
    with Blobd({"server.drain_timeout": "60s"}) as srv:
        assert f"listening on http://127.0.0.1:{srv.port}\n" in srv.log(), srv.log()
        up, done = Upload(srv), Upload(srv)
        accepted(done.append(b"y" * 70000), 203, 70000, done)
        c = up.begin(length=1000000)
        c.send(b"x" * 5000)
        wait_for(lambda: up.status() and up.offset == 5000, what="the checkpoint")
        for number in (signal.SIGINT, signal.SIGTERM):  # as by a terminal and a script in it: that is one
            srv.signal(number)
        time.sleep(1)
        assert srv.running and "draining, at most 60 s; a second signal" in srv.log(), srv.log()
        srv.signal(signal.SIGHUP)
        time.sleep(0.1)
        assert srv.running
        srv.signal(signal.SIGINT)
        assert srv.wait(10) == 0 and "stopped at once" in srv.log(), srv.log()
        srv.start()
        accepted(up.status(), 204, 5000, up)
        accepted(done.status(), 204, 70000, done)
        accepted(up.append(b"x" * 10), 203, 5010, up)


def test_idle_connections_do_not_hold_the_drain():
    with Blobd() as srv:
        idle = [srv.connect() for _ in range(20)]
        for c in idle[:10]:
            c.request("GET", "/api/files", srv.authorized({}, "alice"))
        began = time.monotonic()
        srv.stop()
        assert time.monotonic() - began < 5
        srv.start()


def test_int_stops_as_term_does():
    with Blobd() as srv:
        srv.signal(signal.SIGINT)
        assert srv.wait(20) == 0, srv.log()
        srv.start()


def test_stop_under_load_loses_no_acknowledged_byte():
    with Blobd() as srv:
        stored, stop = [], threading.Event()

        def load(seed):
            i = 0
            while not stop.is_set():
                data = Content(20000, seed * 1000 + i).read(0, 20000)
                i += 1
                try:
                    stored.append(store(srv, data, f"{seed}-{i}")["digest"])
                except (OSError, Closed, AssertionError):
                    if not srv.running:
                        return

        threads = [threading.Thread(target=load, args=(i,)) for i in range(4)]
        [t.start() for t in threads]
        time.sleep(1)
        srv.stop()
        stop.set()
        [t.join() for t in threads]
        assert stored
        srv.start()
        for digest in stored:
            a = download(srv, digest)
            assert a.status == 200 and sha256(a.body) == digest


def test_usr1_reopens_the_log_file():
    path = temp_dir() / "blobd.log"
    with Blobd({"log.file": str(path)}) as srv:
        srv.get("/api/files", {"X-Request-ID": "before-rotation"})
        wait_for(lambda: "before-rotation" in path.read_text(), what="the access line")
        old = path.rename(path.with_suffix(".1"))
        srv.signal(signal.SIGUSR1)
        wait_for(path.exists, what="the new log file")
        srv.get("/api/files", {"X-Request-ID": "after-rotation"})
        wait_for(lambda: "after-rotation" in path.read_text(), what="the line in the new file")
        assert "after-rotation" not in old.read_text()


def test_hup_reloads_the_log_level():
    with Blobd({"log.level": "error", "log.access": "true"}) as srv:
        srv.given["log.level"] = "info"
        srv.write_config()
        srv.signal(signal.SIGHUP)
        wait_for(lambda: srv.get("/api/files", {"X-Request-ID": "now-visible"}) and "now-visible" in srv.log(), what="info lines after HUP")


def test_hup_with_a_broken_file_keeps_running():
    with Blobd() as srv:
        srv.config_file.write_text("[server]\nnonsense=1\n")
        srv.signal(signal.SIGHUP)
        wait_for(lambda: "nonsense" in srv.log(), what="the error in the log")
        assert srv.get("/api/files").status == 200


def test_hup_names_every_change_that_needs_a_restart_and_no_other():
    with Blobd() as srv:
        srv.given |= {"auth.downloads": "bearer", "server.idle_timeout": "7s", "uploads.max_size": "1G", "log.level": "debug"}
        srv.write_config()
        srv.signal(signal.SIGHUP)
        wait_for(lambda: "reloaded" in srv.log(), what="the end of the reload")
        named = re.findall(r" warn +(\S+): the change takes effect after a restart$", srv.log(), re.M)
        assert sorted(named) == ["auth.downloads", "server.idle_timeout", "uploads.max_size"], srv.log()
        assert re.search(r" warn +reloaded, but", srv.log()), srv.log()
        for name in ("auth.downloads", "server.idle_timeout", "uploads.max_size"):
            del srv.given[name]
        srv.write_config()
        srv.signal(signal.SIGHUP)
        wait_for(lambda: re.search(r" info +reloaded$", srv.log(), re.M), what="a reload of everything")


def test_hup_switches_the_access_log():
    with Blobd() as srv:
        for access in ("false", "true", "false"):
            srv.given["log.access"] = access
            srv.write_config()
            before = srv.log().count(" info  reloaded")
            srv.signal(signal.SIGHUP)
            wait_for(lambda: srv.log().count(" info  reloaded") > before, what="the end of the reload")
            name = f"while-{access}-{before}"
            srv.get("/api/files", {"X-Request-ID": name})
            time.sleep(0.1)
            assert (name in srv.log()) == (access == "true"), srv.log()


def test_access_log_as_json_has_every_field():
    with Blobd({"log.format": "json"}) as srv:
        up = Upload(srv)
        up.append(b"x" * 123, {"X-Request-ID": "line-1"})
        line = wait_for(lambda: next((x for x in srv.log().splitlines() if "line-1" in x), None), what="the access line")
        entry = json.loads(line)
        for key in ("time", "request_id", "remote", "identity", "method", "path", "status", "bytes_in", "bytes_out", "duration_ms"):
            assert key in entry, (key, entry)
        assert (entry["method"], entry["status"], entry["bytes_in"], entry["identity"]) == ("POST", 203, 123, "alice"), entry
        assert entry["path"].startswith(f"/api/blobs/uploads/{up.id}/append"), entry
        for text in srv.log().splitlines():
            json.loads(text)


def test_access_log_can_be_switched_off():
    with Blobd({"log.access": "false"}) as srv:
        srv.get("/api/files", {"X-Request-ID": "unseen"})
        time.sleep(0.3)
        assert "unseen" not in srv.log()


def test_health_and_metrics_are_on_the_admin_port_only():
    with Blobd() as srv:
        assert srv.admin("/healthz").status == 200 and srv.admin("/readyz").status == 200
        store(srv, b"counted")
        text = srv.admin("/metrics")
        assert text.status == 200 and text["Content-Type"].startswith("text/plain"), text
        families = [x for x in text.body.decode().splitlines() if x and not x.startswith("#")]
        assert families and all(x.startswith("blobd_") for x in families), families[:5]
        for path in ("/healthz", "/readyz", "/metrics"):
            refused(srv.get(path), "NOT_FOUND")
        assert srv.admin("/api/files").status == 404


def test_second_server_on_the_port_is_refused_and_the_first_unharmed():
    with Blobd() as srv:
        other = Blobd()
        other.ports = lambda: None
        other.port = srv.port
        other.spawn()
        assert other.wait(20) != 0
        assert str(srv.port) in other.log(), other.log()
        for _ in range(20):
            assert srv.get("/api/files").status == 200


def test_port_of_another_program_is_refused():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        srv = Blobd()
        srv.port = s.getsockname()[1]
        srv.spawn()
        assert srv.wait(20) != 0 and str(srv.port) in srv.log(), srv.log()


def test_second_server_on_the_same_root_is_refused_and_the_first_unharmed():
    on_disk()
    with_embedded_sessions()
    with Blobd() as srv:
        made = store(srv, b"mine")
        other = Blobd(root=srv.root)
        other.spawn()
        assert other.wait(20) != 0, "two servers share a storage root"
        assert str(srv.root) in other.log() and "in use" in other.log(), other.log()
        whole(download(srv, made["digest"]), b"mine")
        store(srv, b"still mine")


def test_second_server_on_the_same_sessions_is_refused_and_told_of_redis():
    with_embedded_sessions()
    path = temp_dir() / "sessions.db"
    with Blobd({"sessions.path": str(path)}) as srv:
        other = Blobd({"sessions.path": str(path)})
        other.spawn()
        assert other.wait(20) != 0, "two servers share a session database"
        assert str(path) in other.log() and "redis" in other.log().lower(), other.log()
        store(srv, b"unharmed")


def test_nothing_in_the_storage_root_is_for_everybody_and_a_first_start_warns_of_nothing():
    on_disk()
    with_embedded_sessions()
    srv = Blobd()
    srv.root.mkdir(exist_ok=True)
    srv.root.chmod(0o755)  # made by hand, before the first start
    before = os.umask(0o022)
    try:
        with srv:
            assert " warn " not in srv.log(), srv.log()
            store(srv, b"x")
            assert (srv.root / "sessions.db-wal").exists(), "the sessions are elsewhere"
            for path in srv.root.rglob("*"):
                if "tmp" not in path.parts[len(srv.root.parts):]:  # what is there comes and goes
                    assert path.stat().st_mode & 0o007 == 0, f"{path} is {path.stat().st_mode:o}"
    finally:
        os.umask(before)


def test_unknown_store_format_is_refused():
    on_disk()
    with Blobd() as srv:
        store(srv, b"x")
        srv.stop()
        marker = srv.root / "store.json"
        body = json.loads(marker.read_text())
        known = body["format"]
        body["format"] = 9999
        marker.write_text(json.dumps(body))
        srv.spawn()
        assert srv.wait(20) != 0 and "store.json" in srv.log(), srv.log()
        body["format"] = known
        marker.write_text(json.dumps(body))
        srv.start()


def test_start_tells_systemd_when_it_is_ready():
    path = str(temp_dir() / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        s.settimeout(10)
        with Blobd(env={"NOTIFY_SOCKET": path}) as srv:
            assert b"READY=1" in s.recv(1000)
            srv.signal(signal.SIGTERM)
            assert b"STOPPING=1" in s.recv(1000)
            srv.wait(20)
            srv.start()


def test_restarts_are_quick_and_leave_no_file_descriptor_or_temporary_file():
    with Blobd() as srv:
        for _ in range(3):
            store(srv, os.urandom(100000))
            began = time.monotonic()
            srv.restart()
            assert time.monotonic() - began < 5
        assert srv.open_files() < 100


def test_empty_admin_listen_means_no_admin_port():
    srv = Blobd({"server.admin_listen": ""})
    srv.spawn()
    try:
        wait_for(lambda: not refuses_connections(srv), what="the server")
        assert srv.get("/api/files").status == 200
        try:
            wire.Connection(srv.host, srv.admin_port, timeout=2).close()
            raise AssertionError("an admin port is open")
        except OSError:
            pass
        srv.stop()
    finally:
        srv.clean_up()


def test_more_connections_than_allowed_are_turned_away_with_503():
    with Blobd({"server.max_connections": "20"}) as srv:
        held = []
        try:
            for _ in range(20):
                c = srv.connect()
                assert c.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200
                held.append(c)
            with srv.connect() as c:
                try:
                    a = c.request("GET", "/api/files", srv.authorized({}, "alice"))
                    assert a.status == 503 and "Retry-After" in a, a
                except Closed:
                    raise AssertionError("closed without an answer")
        finally:
            [c.close() for c in held]
        wait_for(lambda: srv.get("/api/files").status == 200, what="room again")


def test_connections_that_hold_the_admin_port_do_not_keep_health_from_being_asked():
    heads = {"silent": b"", "unfinished": b"GET /rea", "idle": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
             "faulty": b"nonsense\r\n\r\n"}
    with Blobd() as srv:
        for kind, head in heads.items():
            held = [wire.Connection("127.0.0.1", srv.admin_port) for _ in range(100)]
            try:
                for c in held:
                    with contextlib.suppress(OSError):  # it was the oldest, and is closed already
                        c.send(head)
                for _ in range(5):
                    began = time.monotonic()
                    assert srv.admin("/readyz", timeout=5).status == 200, kind
                    assert time.monotonic() - began < 2 or SLOW, kind
                assert srv.metric("blobd_store_errors_total") == 0
                if kind == "silent":  # room for one was made by closing the oldest, and no other
                    assert held[0].ended() and not held[-1].ended(timeout=0.2)
            finally:
                [c.close() for c in held]


def test_completed_uploads_are_there_right_after_the_start():
    with Blobd() as srv:
        up = Upload(srv, filename="a")
        up.append(b"abc")
        created(up.complete(sha256(b"abc")), sha256(b"abc"), 3)
        srv.restart(hard=True)
        whole(download(srv, sha256(b"abc")), b"abc")
        assert srv.get("/api/files").json()["count"] == 1
