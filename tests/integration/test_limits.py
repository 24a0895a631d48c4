"""What one client may have, who the client is behind a proxy, and who is believed about it."""

import contextlib
import ipaddress
import re
import signal
import socket
import struct
import subprocess
import time

from api import refused
from harness import Blobd, free_port, need, temp_dir
from uploader import Upload, download, sha256, store
from wire import Closed, Connection, wait_for

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL = SIGNATURE + b"\x20\0\0\0"


def proxied(source, port=4711, tail=b""):
    """The PROXY header, version 2, of a connection from source."""
    a = ipaddress.ip_address(source)
    to = ipaddress.ip_address("192.0.2.9" if a.version == 4 else "2001:db8::9")
    body = a.packed + to.packed + struct.pack(">HH", port, 443) + tail
    return SIGNATURE + bytes([0x21, 0x11 if a.version == 4 else 0x21]) + struct.pack(">H", len(body)) + body


def too_many(answer):
    refused(answer, "TOO_MANY_REQUESTS")
    assert 1 <= int(answer["Retry-After"]) <= 60, answer
    return answer


def remote_of(srv, name):
    """What the access log says of the request with this id."""
    return wait_for(lambda: re.search(rf"request_id={name} remote=(\S+)", srv.log()), what=f"the access line of {name}")[1]


def ask(srv, name, headers=None, **kw):
    """One request from somewhere; (answer, remote)."""
    with srv.connect(**kw) as c:
        a = c.request("GET", "/api/files", srv.authorized({"X-Request-ID": name} | (headers or {}), "alice"))
        assert a.status == 200, a
        return remote_of(srv, name)


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_connections_of_one_address_are_limited_and_others_unharmed():
    for tls in (False, True):
        with Blobd({"limits.connections_per_address": "5"}, tls=tls) as srv:
            held = [srv.connect(source="127.0.0.2") for _ in range(5)]
            for c in held:
                assert c.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200
            with srv.connect(source="127.0.0.2") as c:
                a = too_many(c.request("GET", "/api/files", srv.authorized({}, "alice")))
                assert a.closes, a
            with srv.connect(source="127.0.0.3") as c:
                assert c.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200
            assert srv.metric("blobd_limited_total") >= 1
            held.pop().close()

            def room():
                with srv.connect(source="127.0.0.2") as c:
                    return c.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200

            wait_for(room, what="room for another")
            [c.close() for c in held]


def test_one_address_cannot_keep_the_others_out_as_it_comes():
    with Blobd({"server.max_connections": "200"}) as srv:
        held = []
        for _ in range(600):
            with contextlib.suppress(OSError):  # closed before it was ready
                held.append(Connection(srv.host, srv.port, source="127.0.0.2"))
        try:
            began = time.monotonic()
            for _ in range(3):
                with srv.connect(source="127.0.0.3") as c:
                    assert c.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200
            assert time.monotonic() - began < 5
            assert srv.metric("blobd_http_connections") <= 200
        finally:
            [c.close() for c in held]


def test_requests_in_flight_are_limited_by_address_and_by_identity():
    with Blobd({"limits.requests_per_address": "4", "limits.requests_per_identity": "3"}) as srv:
        ups = [Upload(srv) for _ in range(4)]
        held = [up.begin(length=10) for up in ups[:3]]
        wait_for(lambda: srv.metric("blobd_http_requests_in_flight") == 3, what="three requests in flight")
        assert "identity" in srv.get("/api/files").error["message"]
        assert srv.get("/api/files", who="bob").status == 200
        up = Upload(srv, who="bob")
        held.append(up.begin(length=10))
        wait_for(lambda: srv.metric("blobd_http_requests_in_flight") == 4, what="four requests in flight")
        assert "address" in srv.get("/api/files", who="root").error["message"]
        too_many(srv.get("/api/blobs/" + "0" * 64, who=None))
        with srv.connect(source="127.0.0.2") as c:
            assert c.request("GET", "/api/files", srv.authorized({}, "root")).status == 200
        for c in held:
            c.send(b"x" * 10)
            assert c.read_response().status == 203
        assert srv.get("/api/files").status == 200
        [c.close() for c in held]
        for c in [u.begin(length=10) for u in ups[:3]]:  # what breaks off is given back too
            c.abort()
        wait_for(lambda: srv.get("/api/files").status == 200, what="room after lost connections")


def test_uploads_begun_are_limited_by_address_and_by_identity():
    with Blobd({"limits.uploads_per_address": "6", "limits.uploads_per_identity": "4"}) as srv:
        def begin(who, source="127.0.0.1"):
            with srv.connect(source=source) as c:
                return c.request("POST", "/api/blobs/uploads", srv.authorized({}, who))

        assert [begin("alice").status for _ in range(4)] == [202] * 4
        a = too_many(begin("alice"))
        assert "identity" in a.error["message"] and int(a["Retry-After"]) >= 10, a  # four a minute: one in 15 s
        too_many(begin("alice", "127.0.0.2"))
        assert begin("bob").status == 202
        assert "address" in too_many(begin("bob")).error["message"]
        assert begin("bob", "127.0.0.2").status == 202
        assert srv.get("/api/files").status == 200


def test_limits_change_on_hup():
    with Blobd() as srv:
        for limit in ("2", None, "1"):
            srv.given["limits.uploads_per_identity"] = limit
            srv.write_config()
            before = srv.log().count("info  reloaded")
            srv.signal(signal.SIGHUP)
            wait_for(lambda: srv.log().count("info  reloaded") > before, what="the reload")
            statuses = [srv.post("/api/blobs/uploads").status for _ in range(5)]
            assert statuses.count(202) == {"2": 2, None: 5}.get(limit, statuses.count(202)) and (limit or 429 not in statuses)


def test_wrong_networks_are_named():
    for name in ("server.proxy_protocol_from", "server.forwarded_from"):
        for value in ("localhost", "10.0.0.1/8", "10.0.0.0/33", "::1/129", "10.0.0.0/8;"):
            srv = Blobd({name: value})
            srv.spawn()
            assert srv.wait(20) == 2, value
            assert name.rpartition(".")[2] in srv.log() and "addresses and networks" in srv.log(), srv.log()


# ---- X-Forwarded-For -------------------------------------------------------------------------------------------------


def test_forwarded_address_is_believed_from_configured_peers_only():
    with Blobd({"server.forwarded_from": "127.0.0.2 10.0.0.0/8"}) as srv:
        good = {"1.2.3.4": "1.2.3.4", "6.6.6.6, 1.2.3.4": "1.2.3.4", "6.6.6.6, 1.2.3.4, 10.1.1.1,10.2.2.2": "1.2.3.4",
                "1.2.3.4:5678": "1.2.3.4", "2001:db8::5": "2001:db8::5", "[2001:db8::5]:99": "2001:db8::5",
                "::ffff:1.2.3.4": "1.2.3.4", "10.9.9.9, 10.1.1.1": "10.9.9.9", "  1.2.3.4 ,": "1.2.3.4", ", ,1.2.3.4": "1.2.3.4",
                "nonsense, 1.2.3.4": "1.2.3.4", "1.2.3.4, nonsense, 10.1.1.1": "10.1.1.1"}
        for i, (text, client) in enumerate(good.items()):
            assert ask(srv, f"good-{i}", {"X-Forwarded-For": text}, source="127.0.0.2") == client, text
        for i, text in enumerate(("nonsense", "", "unknown", "1.2.3.4.5", "[::1", "1.2.3.4:5:6", "x" * 5000, "," * 5000)):
            assert ask(srv, f"bad-{i}", {"X-Forwarded-For": text}, source="127.0.0.2").startswith("127.0.0.2:"), text
        assert ask(srv, "spoofed", {"X-Forwarded-For": "1.2.3.4"}).startswith("127.0.0.1:")
        with srv.connect(source="127.0.0.2") as c:  # several lines are one list
            c.request("GET", "/api/files", srv.authorized([("X-Request-ID", "lines"), ("X-Forwarded-For", "1.1.1.1"),
                                                           ("X-Forwarded-For", "2.2.2.2")], "alice"))
        assert remote_of(srv, "lines") == "2.2.2.2"


def test_limits_are_the_forwarded_clients_and_not_the_proxys():
    with Blobd({"server.forwarded_from": "127.0.0.2", "limits.uploads_per_address": "2", "limits.connections_per_address": "3"}) as srv:
        held = [srv.connect(source="127.0.0.2") for _ in range(10)]  # a proxy's connections are not one client's

        def begin(client, c):
            return c.request("POST", "/api/blobs/uploads", srv.authorized({"X-Forwarded-For": client}, "alice"))

        for c in held:
            assert c.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200
        for client in ("1.1.1.1", "2.2.2.2", "2001:db8:0:1::1"):
            assert [begin(client, held[i]).status for i in range(3)] == [202, 202, 429], client
            held[2] = srv.connect(source="127.0.0.2")
        too_many(begin("2001:db8:0:1:ffff::2", held[3]))  # the same /64
        with srv.connect(source="127.0.0.3") as c:  # who is not believed has one address, whatever it says
            assert [begin(f"9.9.9.{i}", c).status for i in range(3)] == [202, 202, 429]
        [c.close() for c in held]


# ---- the PROXY protocol ----------------------------------------------------------------------------------------------


def test_proxy_header_tells_the_client():
    for tls in (False, True):
        with Blobd({"server.proxy_protocol_from": "127.0.0.2"}, tls=tls) as srv:
            def via(name, header):
                return ask(srv, name, source="127.0.0.2", preface=header)

            assert via("v4", proxied("1.2.3.4")) == "1.2.3.4:4711"
            assert via("v6", proxied("2001:db8::5")) == "[2001:db8::5]:4711"
            assert via("mapped", proxied("::ffff:1.2.3.4")) == "1.2.3.4:4711"
            assert via("tlvs", proxied("1.2.3.4", tail=b"\x04\xff\xf0" + b"\0" * 65264)) == "1.2.3.4:4711"
            assert via("local", LOCAL).startswith("127.0.0.2:")
            assert ask(srv, "direct").startswith("127.0.0.1:")
            with srv.connect(source="127.0.0.2", preface=proxied("1.2.3.4")) as c:  # one header a connection
                for i in range(3):
                    c.request("GET", "/api/files", srv.authorized({"X-Request-ID": f"kept-{i}"}, "alice"))
                    assert remote_of(srv, f"kept-{i}") == "1.2.3.4:4711"


def test_proxy_header_in_pieces_and_with_the_request_behind_it():
    with Blobd({"server.proxy_protocol_from": "127.0.0.2"}) as srv:
        head = b"GET /api/files HTTP/1.1\r\nHost: x\r\nX-Request-ID: %s\r\n\r\n"
        with Connection(srv.host, srv.port, source="127.0.0.2") as c:
            for byte in proxied("1.2.3.4"):
                c.send(bytes([byte]))
                time.sleep(0.002)
            c.send(head % b"pieces")
            assert c.read_response().status == 401
        assert remote_of(srv, "pieces") == "1.2.3.4:4711"
        with Connection(srv.host, srv.port, source="127.0.0.2") as c:
            c.send(proxied("1.2.3.5") + head % b"at-once" + head % b"pipelined")
            assert c.read_response().status == c.read_response().status == 401
        assert remote_of(srv, "at-once") == remote_of(srv, "pipelined") == "1.2.3.5:4711"


def test_wrong_proxy_headers_are_cut_off_and_named():
    wrong = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n".encode(): "does not begin", b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n": "version 1",
             SIGNATURE + b"\x31\x11\0\x0c" + b"\0" * 12: "unknown version", SIGNATURE + b"\x21\x11\0\x04\1\2\3\4": "too short",
             SIGNATURE + b"\x21\x51\0\x0c" + b"\0" * 12: "unknown family", b"\x16\x03\x01\x02\0\x01": "does not begin"}
    for tls in (False, True):
        with Blobd({"server.proxy_protocol_from": "127.0.0.2", "server.head_timeout": "1s"}, tls=tls) as srv:
            for data, fault in wrong.items():
                before = len(srv.log())
                with Connection(srv.host, srv.port, source="127.0.0.2") as c:
                    c.send(data)
                    assert c.ended()
                wait_for(lambda: fault in srv.log()[before:], what=f"a line about {fault}")
            parts = b"", SIGNATURE, proxied("1.2.3.4")[:-1]  # never whole: the time for a head is its time
            for c in [Connection(srv.host, srv.port, source="127.0.0.2", preface=part) for part in parts]:
                assert c.ended()
                c.close()
            for _ in range(50):
                Connection(srv.host, srv.port, source="127.0.0.2", preface=SIGNATURE).abort()
            before = srv.open_files()
            wait_for(lambda: srv.metric("blobd_http_connections") == 0, what="no connection left")
            wait_for(lambda: srv.open_files() <= before, what="no descriptor left")


def test_proxy_header_of_a_stranger_is_not_believed():
    with Blobd({"server.proxy_protocol_from": "127.0.0.2"}) as srv:
        with Connection(srv.host, srv.port, preface=proxied("1.2.3.4") + b"GET /api/files HTTP/1.1\r\nHost: x\r\n\r\n") as c:
            refused(c.read_response(), "BAD_REQUEST")
        assert "1.2.3.4" not in srv.log()
    with Blobd({"server.proxy_protocol_from": "127.0.0.2"}, tls=True) as srv:
        with Connection(srv.host, srv.port, preface=proxied("1.2.3.4")) as c:
            with contextlib.suppress(Closed):
                c.fill()
        assert "1.2.3.4" not in srv.log()


def test_limits_are_the_proxied_clients():
    with Blobd({"server.proxy_protocol_from": "127.0.0.2", "limits.connections_per_address": "3"}) as srv:
        held = [srv.connect(source="127.0.0.2", preface=proxied(f"1.2.3.{i}", port)) for i in range(20) for port in (1, 2, 3)]
        for c in held:
            assert c.request("GET", "/api/files", srv.authorized({}, "alice")).status == 200
        with srv.connect(source="127.0.0.2", preface=proxied("1.2.3.7")) as c:
            too_many(c.request("GET", "/api/files", srv.authorized({}, "alice")))
        many = []
        for i in range(200):  # told nothing any more
            with contextlib.suppress(OSError):
                many.append(srv.connect(source="127.0.0.2", preface=proxied("1.2.3.7")))
        assert srv.get("/api/files").status == 200
        [c.close() for c in held + many]
        wait_for(lambda: srv.metric("blobd_http_connections") == 0, what="no connection left")


def test_both_address_families_are_one_client_on_a_dual_listener():
    srv = Blobd({"server.forwarded_from": "127.0.0.0/8"})
    srv.given["server.listen"] = f"[::]:{srv.port}"
    with srv:
        assert ask(srv, "mapped-peer", {"X-Forwarded-For": "1.2.3.4"}, source="127.0.0.2") == "1.2.3.4"
        with socket.create_connection(("::1", srv.port)) as s:
            s.sendall(b"GET /api/files HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\nX-Request-ID: six\r\n\r\n")
            s.recv(100)
        assert remote_of(srv, "six").startswith("[::1]:")


# ---- real proxies ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(args, port):
    proc = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def listens():
        assert proc.poll() is None, proc.stderr.read()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True

    try:
        wait_for(listens, what=f"{args[0]} to listen")
        yield
    finally:
        proc.terminate()
        proc.wait(10)
        proc.stderr.close()


def upload_and_download(srv, port):
    """As a client of the proxy on port."""
    direct, srv.port = srv.port, port
    try:
        for size in (100, 300000):
            data = bytes(range(256)) * (size // 256 + 1)
            store(srv, data, "a.bin")
            a = download(srv, sha256(data))
            assert a.status == 200 and a.body == data
    finally:
        srv.port = direct


def test_haproxy_tells_its_clients_by_the_proxy_protocol():
    need("haproxy")
    for tls in (False, True):
        with Blobd({"server.proxy_protocol_from": "127.0.0.9"}, tls=tls) as srv:
            port, config = free_port(), temp_dir() / "haproxy.cfg"
            config.write_text(f"""
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen blobd
    bind 127.0.0.1:{port}
    source 127.0.0.9
    server one 127.0.0.1:{srv.port} check inter 200ms send-proxy-v2{" check-ssl verify none" if tls else ""}
""")
            with running(["haproxy", "-db", "-f", str(config)], port):
                upload_and_download(srv, port)
                with Connection("127.0.0.1", port, srv.context, source="127.0.0.7") as c:
                    assert c.request("GET", "/api/files", srv.authorized({"X-Request-ID": "by-haproxy"}, "alice")).status == 200
                assert remote_of(srv, "by-haproxy").startswith("127.0.0.7:")
            assert "proxy_protocol_from" not in srv.log(), srv.log()


def test_nginx_tells_its_clients_by_x_forwarded_for():
    need("nginx")
    with Blobd({"server.forwarded_from": "127.0.0.9"}) as srv:
        port, work = free_port(), temp_dir()
        (work / "nginx.conf").write_text(f"""
pid {work}/pid; error_log {work}/error.log; daemon off;
events {{}}
http {{
    access_log off; client_max_body_size 0;
    client_body_temp_path {work}/b; proxy_temp_path {work}/p; fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s;
    upstream blobd {{ server 127.0.0.1:{srv.port}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://blobd; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_bind 127.0.0.9;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_request_buffering off;
        }}
    }}
}}
""")
        with running(["nginx", "-p", str(work), "-c", str(work / "nginx.conf")], port):
            upload_and_download(srv, port)
            for i, source in enumerate(("127.0.0.6", "127.0.0.7", "127.0.0.6")):
                with Connection("127.0.0.1", port, source=source) as c:  # a lie before what nginx adds changes nothing
                    assert c.request("GET", "/api/files", srv.authorized({"X-Request-ID": f"n{i}", "X-Forwarded-For": "6.6.6.6"}, "alice")).status == 200
                assert remote_of(srv, f"n{i}") == source
