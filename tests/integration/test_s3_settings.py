"""What an operator sets: mistakes told at start by the name of the setting, redirects, TLS, the check command."""

import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from api import whole
from faulty_s3 import FaultyS3
from harness import Blobd, free_port, make_certificate, make_expired_certificate, start_up, temp_dir
from s3_bucket import Bucket, endpoint, rgw
from uploader import Content, download, sha256, store

MIB = 1 << 20


def in_time(options, *args):
    """(exit status, what it wrote) of a blobd that ends by itself while an operator waits."""
    status, log, seconds = start_up(options, *args)
    assert seconds < 20, "an answer that an operator waits for"
    return status, log


def refuses(place, *words, **settings):
    status, log = in_time(place.options(**settings))
    assert status != 0, f"{settings}: started"
    for word in words:
        assert word in log, f"{word} is not in: {log}"
    assert place.s3.secret not in log, "the secret in the log"


def test_mistakes_are_told_at_start_by_the_name_of_the_setting_and_what_to_do():
    with endpoint() as s3:
        place = Bucket(s3)
        refuses(place, "does not know storage.s3.cred_id: correct it", storage__s3__cred_id="nobody")
        refuses(place, "storage.s3.cred_secret does not belong to cred_id: correct it",
                storage__s3__cred_secret="not-the-secret")
        refuses(place, "set storage.s3.cred_id and cred_secret", storage__s3__cred_id=None, storage__s3__cred_secret=None)
        refuses(place, "storage.s3.cred_id: must be set beside", storage__s3__cred_id=None)
        refuses(place, "storage.s3.cred_secret: must be set beside", storage__s3__cred_secret=None)
        refuses(place, "no-such-bucket", "there is no such bucket: create it, or correct storage.s3.bucket",
                storage__s3__bucket="no-such-bucket")
        refuses(place, "no connection to", "check storage.s3.endpoint",
                storage__s3__endpoint=f"http://127.0.0.1:{free_port()}")
        refuses(place, "no-such-host.invalid cannot be resolved", "check storage.s3.endpoint",
                storage__s3__endpoint="http://no-such-host.invalid")
        refuses(place, "no TLS with", "check storage.s3.endpoint", storage__s3__endpoint=s3.endpoint.replace("http:", "https:"))


def test_endpoint_that_is_no_s3_or_has_another_clock_is_told():
    with FaultyS3() as s3:
        place = Bucket(s3)
        with s3.fault("skewed"):
            refuses(place, "this machine's clock is", "set it right (NTP)")
        with s3.fault("html-404"):
            refuses(place, "a 404 that is not S3's: is storage.s3.endpoint an S3 endpoint?")
        with s3.fault("other-region"):
            refuses(place, "set storage.s3.region", "the bucket is in eu-central-1")


def test_certificate_that_is_not_trusted_is_told_and_ca_file_cures_it():
    cert, key = make_certificate(temp_dir())
    pem = temp_dir() / "rgw.pem"
    pem.write_text(cert.read_text() + key.read_text())
    with rgw(tls_pem=pem) as s3:
        place = Bucket(s3)
        refuses(place, "is not trusted", "set storage.s3.ca_file to its CA", storage__s3__endpoint=s3.tls_endpoint)
        refuses(place, "is not trusted", "set storage.s3.endpoint to a name that it has", storage__s3__ca_file=str(cert),
                storage__s3__endpoint=s3.tls_endpoint.replace("127.0.0.1", "127.0.0.1.localhost"))
        data = Content(12 * MIB, 1).read(0, 12 * MIB)
        with Blobd(place.options(storage__s3__endpoint=s3.tls_endpoint, storage__s3__ca_file=str(cert))) as srv:
            store(srv, data)
            whole(download(srv, sha256(data)), data)


def test_certificate_that_has_expired_is_told_as_such():
    certificate = make_expired_certificate()
    with FaultyS3(certificate) as s3:
        tls = {"storage__s3__endpoint": s3.tls_endpoint, "storage__s3__ca_file": str(certificate[0])}
        refuses(Bucket(s3), f"the certificate of {s3.tls_endpoint.partition('//')[2]} is not trusted", "expired",
                "renew it, or set this machine's clock right", **tls)


def test_store_json_that_is_not_ours_stops_the_start():
    with endpoint() as s3:
        place, file = Bucket(s3), temp_dir() / "store.json"
        for text, words in (('{"format":9999,"store_id":"00000000-0000-4000-8000-000000000000"}', "of a newer blobd"),
                            ("<html>", "is not blobd's: is storage.s3.prefix right?")):
            file.write_text(text)
            place.s3cmd("put", str(file), place.url + "store.json")
            refuses(place, "store.json", words)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args):
        return None


def test_redirected_downloads_carry_the_name_and_expire():
    content, name = Content(9 * MIB, 1), 'Überfall "1"; rm.wav'
    with endpoint() as s3:
        place = Bucket(s3)
        settings = place.options(storage__s3__download="redirect", storage__s3__presign_expiry="2s")
        with Blobd(settings) as srv:
            digest = store(srv, content.read(0, content.size), name)["digest"]
            direct = download(srv, digest)
            assert direct.status == 307, direct
            assert "no-store" in direct["Cache-Control"], direct
            url = direct["Location"]
            assert url.startswith(f"{s3.endpoint}/{s3.bucket}/{place.prefix}/data/"), url
            assert urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["X-Amz-Expires"] == ["2"], url
            assert s3.secret not in url
            with urllib.request.urlopen(url, timeout=10) as r:
                assert sha256(r.read()) == digest
                disposition = r.headers["Content-Disposition"]
                assert r.headers["Content-Type"] == "application/octet-stream"
            assert disposition.startswith("attachment;") and "filename*=UTF-8''%C3%9Cberfall%20%221%22" in disposition, disposition
            head = srv.http("HEAD", f"/api/blobs/{digest}")
            assert head.status == 200 and head["Content-Disposition"] == disposition, (head, disposition)
            time.sleep(3)
            try:
                urllib.request.urlopen(url, timeout=10)
                raise AssertionError("the URL has not expired")
            except urllib.error.HTTPError as e:
                assert e.code == 403, e
            missing = download(srv, "0" * 64)
            assert missing.status == 404, missing


def presigned(srv, digest):
    """The URL that a bearer is led to, and for how many seconds it is good."""
    answer = download(srv, digest, who="alice")
    assert answer.status == 307, answer
    return answer["Location"], int(urllib.parse.parse_qs(urllib.parse.urlsplit(answer["Location"]).query)["X-Amz-Expires"][0])


def test_presigned_url_outlives_no_bearer_by_more_than_a_minute():
    with FaultyS3() as s3:
        place = Bucket(s3)
        for downloads, wanted, given in (("public", "1h", 3600), ("bearer", "1h", 60), ("bearer", "20s", 20)):
            with Blobd(place.options(storage__s3__download="redirect", storage__s3__presign_expiry=wanted,
                                     auth__downloads=downloads)) as srv:
                digest = store(srv, b"for a while")["digest"]
                assert presigned(srv, digest)[1] == given, f"{downloads}, {wanted}"
                anonymous = download(srv, digest, who=None)
                assert anonymous.status == (401 if downloads == "bearer" else 307), anonymous
                assert ("presigned URLs end after 60 s" in srv.log()) == (given == 60), srv.log()


def status_of(url, headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as r:
            return r.status
    except urllib.error.HTTPError as e:
        return e.code


def test_bearer_must_not_go_along_to_the_presigned_url():
    """What docs/s3.md tells clients: Ceph refuses a request that is authorised twice."""
    with endpoint() as s3:
        with Blobd(Bucket(s3).options(storage__s3__download="redirect", auth__downloads="bearer")) as srv:
            url, _ = presigned(srv, store(srv, b"once is enough")["digest"])
            assert status_of(url, {"Authorization": "Bearer " + srv.tokens["alice"][0]}) == 400
            assert status_of(url, {}) == 200


def test_check_storage_tries_everything_and_leaves_nothing():
    with endpoint() as s3:
        place = Bucket(s3)
        status, said = in_time(place.options(), "--check-storage")
        assert status == 0, said
        for word in ("PutObject", "GetObject", "range", "ListBucket", "If-None-Match", "If-Match", "CreateMultipartUpload",
                     "ListBucketMultipartUploads", "DeleteObject", "clock", "s3:AbortMultipartUpload",
                     f"arn:aws:s3:::{s3.bucket}/{place.prefix}/*"):
            assert word in said, f"{word} is not in: {said}"
        assert "FAIL" not in said, said
        assert list(place.objects()) == ["store.json"]
        status, said = in_time(place.options(storage__s3__cred_secret="wrong"), "--check-storage")
        assert status != 0 and "storage.s3.cred_secret" in said, said


def test_secrets_come_from_the_environment_too_and_are_never_shown():
    with endpoint() as s3:
        place = Bucket(s3)
        bare = place.options(storage__s3__cred_id=None, storage__s3__cred_secret=None)
        keys = {"AWS_ACCESS_KEY_ID": s3.access, "AWS_SECRET_ACCESS_KEY": s3.secret}
        with Blobd(bare, env=keys) as srv:
            store(srv, b"by environment")
            assert s3.secret not in srv.log()
        file = temp_dir() / "credentials"
        file.write_text(f"[default]\naws_access_key_id = {s3.access}\naws_secret_access_key = {s3.secret}\n")
        with Blobd(bare | {"storage.s3.cred_file": str(file)}) as srv:
            whole(download(srv, sha256(b"by environment")), b"by environment")
        with Blobd(place.options()) as srv:
            shown = subprocess.run([srv.binary, "-c", str(srv.config_file), "--print-config"], capture_output=True, text=True)
            assert shown.returncode == 0 and s3.secret not in shown.stdout and place.prefix in shown.stdout, shown
            assert s3.secret not in srv.log()
