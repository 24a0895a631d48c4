"""Settings: checked before anything starts, printed so that they can be read back, wrong ones named to the line."""

import os
import re
import subprocess

import harness
from harness import Blobd, on_disk, temp_dir


def blobd(*args, env=None, text=""):
    """Runs the binary with a configuration file of this text; returns (status, stdout, stderr, file)."""
    work = temp_dir()
    file = work / "blobd.ini"
    file.write_text(text)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BLOBD_")} | (env or {})
    p = subprocess.run([harness.BINARY, "-c", str(file), *args], capture_output=True, text=True, timeout=20, env=clean)
    return p.returncode, p.stdout, p.stderr, file


def good(**more):
    """The text of a configuration that is right, with changes: {"section": {key: value}}."""
    work = temp_dir()
    harness.write_tokens(work / "tokens", harness.TOKENS)
    (work / "data").mkdir()
    sections = {"server": {"listen": "127.0.0.1:1", "admin_listen": "127.0.0.1:2"}, "tls": {"enabled": "false"},
                "auth": {"tokens_file": work / "tokens"}, "storage.disk": {"root": work / "data"}}
    for section, pairs in more.items():
        section = section.replace("__", ".")
        sections[section] = {**sections.get(section, {}), **pairs}
    return "".join(f"[{s}]\n" + "".join(f"{k}={v}\n" for k, v in pairs.items()) for s, pairs in sections.items())


def line_of(text, start):
    return next(i for i, line in enumerate(text.splitlines(), 1) if line.startswith(start))


def test_check_config_accepts_a_right_file():
    status, out, err, _ = blobd("--check-config", text=good())
    assert status == 0, err


def test_check_config_reads_the_files_that_settings_name():
    work = temp_dir()
    cert, key = harness.make_certificate(work)
    (work / "bad").write_text("no PEM, no token\n")
    tls = {"enabled": "true", "cert_file": cert, "key_file": key}
    status, out, err, _ = blobd("--check-config", text=good(tls=tls))
    assert status == 0 and "the settings are right" in out, out + err
    for section, key in (("tls", "cert_file"), ("tls", "key_file"), ("auth", "tokens_file")):
        for file, reason in ((work / "none", "No such file"), (work / "bad", "")):
            text = good(**{"tls": tls, section: {**(tls if section == "tls" else {}), key: file}})
            status, out, err, _ = blobd("--check-config", text=text)
            assert status == 2 and "are right" not in out, (key, out, err)
            assert str(file) in err and reason in err, (key, err)
    off = {**tls, "enabled": "false", "cert_file": work / "none"}
    status, out, err, _ = blobd("--check-config", text=good(tls=off, auth={"mode": "none", "tokens_file": work / "none"}))
    assert status == 0, f"what no start reads was refused: {err}"
    both = good(tls={**tls, "cert_file": work / "none"}, auth={"tokens_file": work / "absent"})
    status, out, err, _ = blobd("--check-config", text=both)
    assert all(str(work / name) in err for name in ("none", "absent")), f"not both were told: {err}"


def test_check_config_names_file_line_and_key_of_every_error():
    cases = [("server", "listen", "nonsense"), ("server", "worker_threads", "-1"), ("server", "worker_threads", "many"),
             ("server", "max_memory", "512X"), ("server", "max_memory", "-5M"), ("server", "idle_timeout", "60 parsecs"),
             ("server", "idle_timeout", "0.5"), ("server", "head_timeout", "99999999999999999999s"), ("tls", "enabled", "perhaps"),
             ("auth", "mode", "sometimes"), ("auth", "downloads", "private"), ("storage", "backend", "tape"), ("sessions", "store", "memcached"),
             ("sessions", "timeout", "0s"), ("uploads", "sync", "maybe"), ("uploads", "max_size", "1.5.2G"), ("downloads", "media_type", "text"),
             ("retention", "sweep_interval", "10ms"), ("log", "level", "loud"), ("log", "format", "xml"), ("server", "no_such_key", "1")]
    for section, key, value in cases:
        text = good(**{section.replace(".", "__"): {key: value}})
        status, out, err, file = blobd("--check-config", text=text)
        said = out + err
        assert status != 0, f"[{section}] {key}={value} was accepted"
        assert f"{file}:{line_of(text, key + '=')}" in said, f"{key}={value}: {said}"
        assert key in said, said


def test_all_errors_are_reported_at_once():
    text = good(server={"worker_threads": "many", "max_memory": "big"}, log={"level": "loud"})
    status, out, err, _ = blobd("--check-config", text=text)
    assert status != 0 and all(k in out + err for k in ("worker_threads", "max_memory", "level")), out + err


def test_unknown_section_is_an_error():
    status, out, err, file = blobd("--check-config", text=good(nonsense={"a": "b"}))
    assert status != 0 and "nonsense" in out + err and str(file) in out + err, out + err


def test_line_without_a_value_is_an_error():
    text = good() + "[log]\nlevel\n"
    status, out, err, file = blobd("--check-config", text=text)
    assert status != 0 and f"{file}:{len(text.splitlines())}" in out + err, out + err


def test_server_does_not_start_with_a_wrong_setting():
    status, out, err, file = blobd(text=good(log={"level": "loud"}))
    assert status != 0 and "level" in out + err, out + err


def test_missing_file_is_named():
    p = subprocess.run([harness.BINARY, "-c", "/no/such/blobd.ini"], capture_output=True, text=True, timeout=20)
    assert p.returncode != 0 and "/no/such/blobd.ini" in p.stderr, p.stderr


def test_what_a_mode_needs_is_asked_for():
    for more, key in (({"tls": {"enabled": "true"}}, "cert_file"), ({"auth": {"mode": "verify"}}, "verify_url"),
                      ({"auth": {"tokens_file": ""}}, "tokens_file"), ({"storage__disk": {"root": ""}}, "root"),
                      ({"storage": {"backend": "s3"}}, "bucket"), ({"sessions": {"store": "redis"}}, "url")):
        status, out, err, _ = blobd("--check-config", text=good(**more))
        assert status != 0 and key in out + err, (more, out + err)


def test_set_overrides_the_environment_which_overrides_the_file():
    text = good(log={"level": "error"})
    environment = {"BLOBD_LOG_LEVEL": "warn"}
    level = lambda out: re.search(r"^level\s*=\s*(\w+)", out, re.M)[1]
    assert level(blobd("--print-config", text=text)[1]) == "error"
    assert level(blobd("--print-config", text=text, env=environment)[1]) == "warn"
    assert level(blobd("--print-config", "--set", "log.level=debug", text=text, env=environment)[1]) == "debug"


def test_errors_in_environment_and_set_name_the_variable_and_the_option():
    status, out, err, _ = blobd("--check-config", text=good(), env={"BLOBD_SERVER_WORKER_THREADS": "many"})
    assert status != 0 and "BLOBD_SERVER_WORKER_THREADS" in out + err, out + err
    for option in ("server.worker_threads=many", "server.nothing=1", "nothing", "=", "server.worker_threads"):
        status, out, err, _ = blobd("--check-config", "--set", option, text=good())
        assert status != 0 and option.split("=")[0] in out + err, (option, out + err)


def test_unknown_blobd_variable_warns():
    status, out, err, _ = blobd("--check-config", text=good(), env={"BLOBD_SERVER_LISTNE": "x"})
    assert status == 0 and "BLOBD_SERVER_LISTNE" in out + err, out + err


def test_nested_section_is_set_by_the_environment():
    status, out, err, _ = blobd("--print-config", text=good(), env={"BLOBD_STORAGE_DISK_ROOT": "/srv/elsewhere"})
    assert status == 0 and "/srv/elsewhere" in out, out + err


def test_print_config_can_be_read_back():
    text = good(server={"max_memory": "300M", "idle_timeout": "1500ms"}, retention={"temp_file_retention": "45d"})
    status, first, err, _ = blobd("--print-config", text=text)
    assert status == 0, err
    status, second, err, _ = blobd("--print-config", text=first)
    assert status == 0 and second == first, err


def test_print_config_masks_secrets():
    text = good(storage__s3={"cred_secret": "very-secret"}, sessions__redis={"url": "redis://:also-secret@127.0.0.1:6379/0"})
    status, out, err, _ = blobd("--print-config", text=text)
    assert status == 0 and "very-secret" not in out + err and "also-secret" not in out + err, out


def test_sizes_and_durations_take_units():
    for key, values in (("max_memory", ("64M", "1G", "100000K", "67108864")), ("idle_timeout", ("1500ms", "15s", "10m", "1h"))):
        for value in values:
            status, out, err, _ = blobd("--check-config", text=good(server={key: value}))
            assert status == 0, (key, value, err)


def test_help_and_version():
    for option, word in (("--help", "server.listen"), ("--version", "blobd")):
        p = subprocess.run([harness.BINARY, option], capture_output=True, text=True, timeout=20)
        assert p.returncode == 0 and word in p.stdout, p.stdout + p.stderr


def test_unknown_option_is_refused_with_a_hint():
    p = subprocess.run([harness.BINARY, "--frobnicate"], capture_output=True, text=True, timeout=20)
    assert p.returncode != 0 and "help" in p.stderr, p.stderr


def test_storage_root_that_cannot_be_used_stops_the_start_and_is_named():
    on_disk()
    file = temp_dir() / "a-file"
    file.write_text("in the way")
    srv = Blobd({"storage.disk.root": str(file)})
    srv.spawn()
    assert srv.wait(20) != 0 and str(file) in srv.log(), srv.log()


def test_storage_root_without_a_parent_and_the_like_name_their_setting():
    on_disk()
    absent = temp_dir() / ("x" * 200) / ("y" * 200)
    for option, why in (("storage.disk.root", "does not exist; make that"), ("sessions.path", "No such file or directory")):
        srv = Blobd({option: str(absent / "here")})
        srv.spawn()
        assert srv.wait(20) == 1 and option in srv.log() and why in srv.log(), srv.log()
        assert "/xxxxx" in srv.log() and "[...]" in srv.log() and "here" in srv.log(), srv.log()


    text = good(log={"file": absent / "here"})
    status, out, err, file = blobd("--check-config", text=text)
    assert status == 2 and f"{file}:{line_of(text, 'file=')}: log.file: " in err and str(absent) in err, err


def test_arguments_that_contradict_each_other_are_refused():
    status, out, err, file = blobd("-c", "/dev/null", text=good())
    assert status == 2 and "-c is given twice" in err and str(file) in err, err
    status, out, err, _ = blobd("--check-config", "--print-config", text=good())
    assert status == 2 and "--check-config and --print-config" in err and not out, (out, err)
    status, out, err, _ = blobd("--chek-config", text=good())
    assert status == 2 and "did you mean --check-config?" in err, err
    assert blobd("--check-config", "--set", "log.level=warn", "--set", "log.format=json", text=good())[0] == 0


def test_certificate_that_ends_is_warned_of_and_one_that_does_not_is_not():
    for days, said in ((13, "ends soon"), (15, None)):
        cert, key = harness.make_certificate(temp_dir(), days=days)
        text = good(tls={"enabled": "true", "cert_file": cert, "key_file": key})
        status, out, err, _ = blobd("--check-config", text=text)
        assert status == 0 and "are right" in out, (out, err)
        assert (f"tls.cert_file {cert}" in err and said in err) if said else "certificate" not in err, (days, err)


def test_encrypted_key_is_refused_with_what_to_do():
    work = temp_dir()
    cert, key = harness.make_certificate(work)
    for form, name in ((["pkey"], "pkcs8.pem"), (["ec"], "old.pem")):
        locked = work / name
        subprocess.run(["openssl", *form, "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(locked)],
                       check=True, capture_output=True)
        text = good(tls={"enabled": "true", "cert_file": cert, "key_file": locked})
        status, out, err, _ = blobd("--check-config", text=text)
        assert status == 2 and f"tls.key_file {locked}: the key is encrypted" in err and "openssl pkey" in err, err


def test_ca_file_that_is_not_there_is_an_error_used_or_not():
    file = temp_dir() / "ca.pem"
    for section, key in (("auth", "verify_ca_file"), ("storage__s3", "ca_file")):
        name = section.replace("__", ".") + "." + key
        lines = good() + f"[{section.replace('__', '.')}]\n{key}={file}\n"
        status, out, err, path = blobd("--check-config", text=lines)
        number = lines.count("\n")
        assert status == 2 and f":{number}: {name}: " in err and str(file) in err and "No such file" in err, err
        file.touch()
        status, out, err, _ = blobd("--check-config", text=lines)
        assert status == 0, err
        file.unlink()


def test_check_config_warns_of_no_token():
    tokens = temp_dir() / "tokens"
    tokens.touch()
    status, out, err, _ = blobd("--check-config", text=good(auth={"tokens_file": tokens}))
    assert status == 0 and "0 tokens: nobody can upload" in err, (out, err)


def test_bare_command_tells_what_to_do():
    p = subprocess.run([harness.BINARY], capture_output=True, text=True, timeout=20)
    assert p.returncode == 2 and "must be set" in p.stderr, p.stderr
    assert all(hint in p.stderr for hint in ("blobd -c FILE", "--help", "./scripts/run")), p.stderr
    p = subprocess.run([harness.BINARY, "--set", "server.listen=x:1"], capture_output=True, text=True, timeout=20)
    assert "./scripts/run" not in p.stderr, p.stderr


def test_documentation_of_the_settings_is_up_to_date():
    page = harness.REPO / "docs" / "configuration.md"
    if not page.exists():
        raise harness.Skip("docs/configuration.md is not there")
    p = subprocess.run([harness.BINARY, "--help"], capture_output=True, text=True, timeout=20)
    names = set(re.findall(r"^\s+([a-z_0-9]+(?:\.[a-z_0-9]+)+)", p.stdout, re.M))
    assert names, p.stdout[:500]
    missing = [n for n in names if n.rpartition(".")[2] not in page.read_text()]
    assert not missing, missing
