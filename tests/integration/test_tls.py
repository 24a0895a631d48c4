"""TLS: which versions, reloading the certificate under load, and clients that do not finish their handshake."""

import shutil
import signal
import socket
import ssl
import threading
import time

from api import accepted, created, whole
from harness import Blobd, make_certificate
from uploader import Content, Upload, download, sha256, store
from wire import Closed, Connection, wait_for


def context(version=None, ciphers=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname, c.verify_mode = False, ssl.CERT_NONE
    if version:
        c.minimum_version, c.maximum_version = version, version
    if ciphers:
        c.set_ciphers(ciphers)
    return c


def served_certificate(srv):
    with Connection(srv.host, srv.port, context()) as c:
        return c.sock.getpeercert(binary_form=True)


def der(path):
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def test_tls_1_2_and_1_3_are_spoken():
    with Blobd(tls=True) as srv:
        for version, name in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
            with Connection(srv.host, srv.port, context(version)) as c:
                assert c.sock.version() == name
                assert c.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200


def test_older_versions_are_refused():
    with Blobd(tls=True) as srv:
        for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
            try:
                Connection(srv.host, srv.port, context(version, "ALL:@SECLEVEL=0")).close()
                raise AssertionError(f"{version} was spoken")
            except (ssl.SSLError, ConnectionResetError, Closed):
                pass
        assert srv.get("/api/files").status == 200


def test_plain_http_on_the_tls_port_is_turned_away():
    with Blobd(tls=True) as srv:
        with Connection(srv.host, srv.port, timeout=10) as c:
            c.send(b"GET /api/files HTTP/1.1\r\nHost: x\r\n\r\n")
            try:
                while True:
                    c.fill()
            except Closed:
                pass
            assert c.buffer.startswith(b"HTTP/1.1 400 "), c.buffer
            assert b"speaks HTTPS" in c.buffer and b"Connection: close" in c.buffer, c.buffer
        with Connection(srv.host, srv.port, timeout=10) as c:  # what is no HTTP is told nothing
            c.send(b"\x00\x01garbage" * 10)
            try:
                while True:
                    c.fill()
            except Closed:
                pass
            assert b"HTTP/" not in c.buffer, c.buffer
        assert srv.get("/api/files").status == 200


def test_uploads_resume_over_tls_after_lost_connections():
    with Blobd(tls=True) as srv:
        data = Content(3 << 20, 1).read(0, 3 << 20)
        up = Upload(srv, mode="offset")
        for sent in (1, 100000, 1 << 20):
            c = up.begin(length=len(data) - up.offset)
            c.send(data[up.offset:up.offset + sent])
            c.close()
            assert up.status().status == 204
        while up.offset < len(data):
            assert up.append(data[up.offset:]).status in (203, 416)
        created(up.complete(sha256(data)), sha256(data), len(data))
        whole(download(srv, sha256(data)), data)


def test_expect_and_chunked_work_over_tls():
    with Blobd(tls=True) as srv:
        up = Upload(srv)
        a = accepted(up.append([b"x" * 70000] * 5, chunked=True, expect=True), 203, 350000, up)
        assert a.interim == [100]
        accepted(up.append(b"y" * 70000, expect=True), 203, 420000, up)


def test_hup_reloads_the_certificate_under_load():
    with Blobd(tls=True) as srv:
        data = Content(2 << 20, 2).read(0, 2 << 20)
        store(srv, data)
        old = served_certificate(srv)
        assert old == der(srv.cert)
        srv.context = context()  # certificates change below
        failures, stop, done = [], threading.Event(), []

        def load():
            while not stop.is_set():
                try:
                    with srv.connect() as c:
                        for _ in range(3):
                            if c.request("GET", f"/api/blobs/{sha256(data)}").body != data:
                                failures.append("other bytes")
                    done.append(1)
                except Exception as e:
                    failures.append(repr(e))

        held = srv.connect()
        threads = [threading.Thread(target=load) for _ in range(3)]
        [t.start() for t in threads]
        try:
            for _ in range(5):
                cert, key = make_certificate(srv.work)
                shutil.copy(key, srv.key)
                shutil.copy(cert, srv.cert)
                srv.signal(signal.SIGHUP)
                wait_for(lambda: served_certificate(srv) == der(cert), what="the new certificate")
        finally:
            stop.set()
            [t.join() for t in threads]
        assert not failures, failures[:3]
        assert len(done) > 3
        assert held.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200
        held.close()


def test_hup_takes_another_certificate_and_key():
    with Blobd(tls=True) as srv:
        cert, key = make_certificate(srv.work)
        srv.given |= {"tls.cert_file": str(cert), "tls.key_file": str(key)}
        srv.write_config()
        srv.signal(signal.SIGHUP)
        wait_for(lambda: served_certificate(srv) == der(cert), what="the certificate of the other file")
        newer_cert, newer_key = make_certificate(srv.work)
        shutil.copy(newer_key, key)
        shutil.copy(newer_cert, cert)
        srv.signal(signal.SIGHUP)
        wait_for(lambda: served_certificate(srv) == der(newer_cert), what="the other file, read again")
        before = len(srv.log())
        srv.given["tls.key_file"] = str(make_certificate(srv.work)[1])  # a key of another certificate
        srv.write_config()
        srv.signal(signal.SIGHUP)
        wait_for(lambda: srv.given["tls.key_file"] in srv.log()[before:], what="a line about the key")
        wait_for(lambda: "reloaded, but" in srv.log()[before:], what="the end of the reload")
        assert served_certificate(srv) == der(newer_cert)


def test_wrong_certificate_on_hup_keeps_the_old_and_says_why():
    with Blobd(tls=True) as srv:
        old = served_certificate(srv)
        for text in ("not a certificate", make_certificate(srv.work)[0].read_text()):  # the latter is not of this key
            srv.cert.write_text(text)
            before = len(srv.log())
            srv.signal(signal.SIGHUP)
            wait_for(lambda: str(srv.cert) in srv.log()[before:] or str(srv.key) in srv.log()[before:], what="a line about the certificate")
            assert served_certificate(srv) == old


def test_end_of_the_certificate_is_told_and_measured():
    def end(srv):
        return srv.metric("blobd_tls_certificate_expiry_timestamp_seconds")

    with Blobd(tls=True) as srv:
        assert "ends soon" not in srv.log() and abs(end(srv) - time.time() - 30 * 86400) < 3600, end(srv)
        cert, key = make_certificate(srv.work, days=3)
        shutil.copy(cert, srv.cert)
        shutil.copy(key, srv.key)
        srv.signal(signal.SIGHUP)
        wait_for(lambda: f"tls.cert_file {srv.cert}: the certificate ends soon" in srv.log(), what="the warning")
        assert abs(end(srv) - time.time() - 3 * 86400) < 3600, end(srv)


def test_wrong_certificate_stops_the_start_and_is_named():
    for spoil in ("cert", "key"):
        srv = Blobd(tls=True)
        getattr(srv, spoil).write_text("nonsense")
        srv.spawn()
        assert srv.wait(20) != 0 and str(getattr(srv, spoil)) in srv.log(), srv.log()
        assert spoil == "cert" or f"tls.key_file {srv.key} is not a PEM private key" in srv.log(), srv.log()


def test_certificate_or_key_that_is_not_there_is_told_by_its_setting_and_the_reason():
    for setting in ("cert", "key"):
        srv = Blobd(tls=True)
        getattr(srv, setting).unlink()
        srv.spawn()
        assert srv.wait(20) != 0
        assert f"tls.{setting}_file {getattr(srv, setting)}: No such file or directory" in srv.log(), srv.log()


def test_key_of_another_certificate_stops_the_start():
    srv = Blobd(tls=True)
    shutil.copy(make_certificate(srv.work)[1], srv.key)
    srv.spawn()
    assert srv.wait(20) != 0
    assert f"tls.key_file {srv.key} is not the key of tls.cert_file's certificate" in srv.log(), srv.log()


def test_unfinished_handshakes_are_ended_and_hold_up_nobody():
    with Blobd({"server.head_timeout": "2s"}, tls=True) as srv:
        socks = []
        for i in range(50):
            s = socket.create_connection((srv.host, srv.port))
            if i % 2:
                s.send(b"\x16\x03\x01\x02\x00\x01\x00")
            socks.append(s)
        began = time.monotonic()
        assert srv.get("/api/files").status == 200
        assert time.monotonic() - began < 1
        for s in socks:
            s.settimeout(10)
            try:
                while s.recv(1000):
                    pass
            except ConnectionResetError:
                pass
            s.close()
        assert time.monotonic() - began < 9
