"""Key pairs that rotate: no restart, no refused client where another pair is at hand, and a clear word where none is."""

import signal
import time
import urllib.parse
from contextlib import contextmanager

from api import accepted, created, refused, whole
from faulty_s3 import FaultyS3
from harness import Blobd, temp_dir
from key_issuer import KeyIssuer
from s3_bucket import Bucket
from uploader import Content, Upload, download, sha256, store
from wire import wait_for

MIB = 1 << 20


def write_keys(file, key, token=""):
    """As a careful tool does: the file is replaced as a whole."""
    fresh = file.with_suffix(".new")
    fresh.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n"
                     + (f"aws_session_token = {token}\n" if token else ""))
    fresh.rename(file)


def bare(s3, **more):
    """Options without a key pair."""
    return Bucket(s3).options(storage__s3__cred_id=None, storage__s3__cred_secret=None, storage__s3__retry_timeout="2s",
                              downloads__cache="0", **more)


@contextmanager
def on_file(**more):
    """A blobd whose key pair is in a file: (endpoint, server, file)."""
    file = temp_dir() / "credentials"
    with FaultyS3() as s3:
        write_keys(file, "FIRST")
        s3.take_only({"FIRST": ""})
        with Blobd(bare(s3, storage__s3__cred_file=str(file), **more)) as srv:
            yield s3, srv, file


def test_file_that_changes_is_read_again_for_both_drivers():
    for driver in ("sigv4", "libs3"):
        with on_file(storage__s3__driver=driver) as (s3, srv, file):
            content = Content(3 * MIB, 1)
            up = Upload(srv)
            accepted(up.append(content.read(0, MIB)), 203, MIB, up)
            write_keys(file, "SECOND")
            time.sleep(1.1)
            s3.take_only({"SECOND": ""})
            before = s3.count.get("refused keys", 0)
            accepted(up.append(content.read(MIB, 2 * MIB)), 203, content.size, up)
            created(up.complete(content.digest()), content.digest(), content.size)
            whole(download(srv, content.digest()), content.read(0, content.size))
            assert s3.count.get("refused keys", 0) == before, f"{driver}: the old pair was still used"
            assert "secret" not in srv.log() and "were renewed from storage.s3.cred_file" in srv.log(), srv.log()


def test_refusal_has_the_file_read_again_at_once():
    with on_file() as (s3, srv, file):
        time.sleep(1.1)
        store(srv, b"looked at the file just now")
        write_keys(file, "SECOND", "a session's")
        s3.take_only({"SECOND": "a session's"})
        store(srv, b"by the second")
        assert srv.admin("/readyz").status == 200
        assert "are refused" not in srv.log(), srv.log()


def test_refused_pair_is_a_503_loud_everywhere_and_cured_by_another():
    content = Content(9 * MIB, 1)
    with on_file() as (s3, srv, file):
        up = Upload(srv, mode="offset")
        accepted(up.append(content.read(0, 6 * MIB)), 203, 6 * MIB, up)
        store(srv, b"there")
        s3.take_only({"SECOND": ""})
        for answer in (up.append(content.read(6 * MIB, MIB)), up.complete(content.digest()), download(srv, sha256(b"there")),
                       srv.post("/api/blobs/uploads")):
            refused(answer, "UNAVAILABLE")
            assert answer.status == 503 and int(answer["Retry-After"]) >= 1, answer
        ready = srv.admin("/readyz")
        assert ready.status == 503 and b"storage.s3.cred_id" in ready.body, ready.body
        assert "S3 credentials from storage.s3.cred_file are refused: InvalidAccessKeyId" in srv.log(), srv.log()
        assert srv.log().count("are refused") == 1, "one line a half minute will do"
        assert srv.metric("blobd_store_denied_total") > 0
        write_keys(file, "SECOND")
        wait_for(lambda: srv.admin("/readyz").status == 200, 5, what="the new pair to be found")
        assert up.status().status == 204
        accepted(up.append(content.read(up.offset, content.size)), 203, content.size, up)
        created(up.complete(content.digest()), content.digest(), content.size)
        whole(download(srv, sha256(b"there")), b"there")
        assert "S3 takes the credentials from storage.s3.cred_file again" in srv.log(), srv.log()


def test_hup_reads_the_file_and_keeps_the_old_pair_where_it_is_wrong():
    with on_file() as (s3, srv, file):
        file.write_text("[default]\naws_access_key_id = HALF\n")
        srv.signal(signal.SIGHUP)
        wait_for(lambda: "the old S3 credentials stay: S3 credentials from storage.s3.cred_file: the secret is missing" in srv.log(),
                 5, what="the file to be refused")
        store(srv, b"with the old pair")
        write_keys(file, "SECOND")
        srv.signal(signal.SIGHUP)
        wait_for(lambda: "were renewed from storage.s3.cred_file" in srv.log(), 5, what="the file to be read")
        s3.take_only({"SECOND": ""})
        store(srv, b"with the new pair")


def rotates(env_of, name):
    """The pair ends after a few seconds, and is renewed before: the endpoint refuses nothing."""
    with FaultyS3() as s3, KeyIssuer(s3, life=6) as issuer:
        with Blobd(bare(s3), env=env_of(issuer)) as srv:
            assert issuer.issued == 1, "one pair for all that is opened"
            issuer.rotate()
            for i in range(40):
                store(srv, b"%d" % i)
                if issuer.issued >= 3:
                    break
                time.sleep(0.2)
            assert 3 <= issuer.issued < 10, issuer.issued
            assert f"S3 credentials are from {name}" in srv.log() and "refused" not in srv.log(), srv.log()
            assert "session/" not in srv.log() and "proof" not in srv.log(), "a token in the log"


def test_web_identity_is_renewed_before_its_end():
    rotates(KeyIssuer.web_identity, "the web identity")


def test_pair_of_the_containers_agent_is_renewed_before_its_end():
    rotates(KeyIssuer.container, "the container's agent")


def test_pair_of_the_instances_metadata_is_renewed_before_its_end():
    rotates(KeyIssuer.instance, "the instance's metadata")


def test_pair_that_is_ended_early_is_renewed_when_s3_says_so():
    with FaultyS3() as s3, KeyIssuer(s3, life=3600) as issuer:
        with Blobd(bare(s3), env=issuer.instance()) as srv:
            store(srv, b"one")
            time.sleep(1.1)
            s3.take_only({"KEY1": "another session"})
            store(srv, b"two")
            assert issuer.issued == 2, issuer.issued


def test_pair_that_ends_while_nobody_hands_out_another_is_a_503_until_somebody_does():
    with FaultyS3() as s3, KeyIssuer(s3, life=2) as issuer:
        with Blobd(bare(s3), env=issuer.container()) as srv:
            store(srv, b"one")
            issuer.away = True
            wait_for(lambda: srv.admin("/readyz").status == 503, 10, what="the pair to end")
            assert b"have ended, and cannot be renewed" in srv.admin("/readyz").body, srv.admin("/readyz").body
            answer = download(srv, sha256(b"one"))
            refused(answer, "UNAVAILABLE")
            assert int(answer["Retry-After"]) >= 1, answer
            assert "S3 credentials from the container's agent cannot be renewed" in srv.log(), srv.log()
            issuer.away, issuer.life = False, 3600
            wait_for(lambda: srv.admin("/readyz").status == 200, 10, what="another pair")
            whole(download(srv, sha256(b"one")), b"one")


def test_presigned_url_promises_no_longer_than_its_pair_lives():
    with FaultyS3() as s3, KeyIssuer(s3, life=900) as issuer:
        options = bare(s3, storage__s3__download="redirect", storage__s3__presign_expiry="1h")
        with Blobd(options, env=issuer.instance()) as srv:
            url = download(srv, store(srv, b"for a while")["digest"])["Location"]
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
            assert 800 < int(query["X-Amz-Expires"][0]) <= 900, query
            assert query["X-Amz-Security-Token"] == ["session/1+"], query


def test_what_the_environment_says_wrongly_is_told_at_start():
    with FaultyS3() as s3, KeyIssuer(s3, life=900) as issuer:
        for env, words in (
                ({}, "no S3 credentials: set storage.s3.cred_id"),
                ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}, "AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE must both be set"),
                (issuer.web_identity() | {"AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere"}, "the token file /nowhere"),
                (issuer.web_identity() | {"AWS_ROLE_ARN": "arn:other"}, "it answers 400 InvalidIdentityToken"),
                ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://192.0.2.1/x"}, "must be https, or http to this machine"),
                ({"AWS_EC2_METADATA_SERVICE_ENDPOINT": s3.endpoint}, "no S3 credentials from the instance's metadata")):
            srv = Blobd(bare(s3), env=env)
            srv.spawn()
            try:
                assert srv.wait(20) == 1, env
            finally:
                srv.clean_up()
            assert words in srv.log(), f"{words} is not in: {srv.log()}"
