"""The commands a newcomer pastes: what scripts/run prints works as it stands; scripts/demo verifies every prompt."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster
import harness
import prompts
from api import Api
from harness import REPO, Skip, free_port, temp_dir
from uploader import Upload
from wire import wait_for


def run_environment():
    return {**os.environ, "BLOBD_RUN_BIN": harness.BINARY, "BLOBD_RUN_PORT": str(free_port()),
            "BLOBD_RUN_ADMIN_PORT": str(free_port()), "BLOBD_RUN_VAR": str(temp_dir())}


def default_interrupt():
    """Whoever runs the tests in the background may have SIGINT ignored, and no shell can trap what was ignored at its start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(env, **kw):
    """scripts/run in the background; returns it and the tour it printed."""
    proc = subprocess.Popen([str(REPO / "scripts" / "run")], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, **kw, preexec_fn=default_interrupt)
    tour, printed = [], []
    for line in proc.stdout:
        printed.append(line)
        if line.startswith("# ---- end of the tour"):
            return proc, "".join(tour)
        if tour or line.startswith("# ---- tour"):
            tour.append(line)
    raise AssertionError("scripts/run ended early:\n" + "".join(printed))


def stop(proc):
    proc.send_signal(signal.SIGTERM)
    assert proc.wait(40) == 0


def test_the_tour_that_run_prints_works_when_pasted_twice():
    env = run_environment()
    proc, tour = start(env)
    assert "curl" in tour and "--cacert" in tour
    for _ in range(2):
        p = subprocess.run(["bash"], input=tour, capture_output=True, text=True, timeout=60, cwd=temp_dir())
        assert "the download equals the recording" in p.stdout, p.stdout + p.stderr
        assert "the server has 3000000 bytes" in p.stdout, p.stdout
        assert "curl: (28)" in p.stderr, "the connection was not lost on the way:\n" + p.stderr
        assert '"id"' in p.stdout and '"count"' in p.stdout, p.stdout
    stop(proc)


def test_run_starts_again_on_what_it_left():
    env = run_environment()
    for _ in range(2):
        proc, tour = start(env)
        stop(proc)
    assert len(os.listdir(env["BLOBD_RUN_VAR"])) >= 6


def test_run_tells_that_it_drains_and_stops_at_the_second_signal():
    env = run_environment()
    proc, _ = start(env, start_new_session=True)
    var = Path(env["BLOBD_RUN_VAR"])
    api = Api("127.0.0.1", int(env["BLOBD_RUN_PORT"]), {"alice": ((var / "token").read_text().strip(), True)})
    api.trust(var / "cert.pem")
    up = Upload(api)
    c = up.begin(length=100)
    c.send(b"x" * 10)
    wait_for(lambda: up.status() and up.offset == 10, what="the append to be under way")
    os.killpg(proc.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    for line in proc.stdout:
        if line.startswith("draining"):
            break
    assert "at most 30s; Ctrl-C again to stop at once" in line, line
    time.sleep(1)
    assert proc.poll() is None
    os.killpg(proc.pid, signal.SIGINT)
    assert proc.wait(10) == 0
    c.close()


def test_run_says_why_when_the_port_is_taken():
    env = run_environment()
    proc, _ = start(env)
    other = {**env, "BLOBD_RUN_VAR": str(temp_dir()), "BLOBD_RUN_ADMIN_PORT": str(free_port())}
    p = subprocess.run([str(REPO / "scripts" / "run")], env=other, capture_output=True, text=True, timeout=60)
    assert p.returncode != 0 and env["BLOBD_RUN_PORT"] in p.stderr, p.stdout + p.stderr
    stop(proc)


def test_demo_verifies_every_prompt():
    if not prompts.prompts():
        raise Skip("asterisk-core-sounds-en-wav is not installed")
    env = run_environment()
    p = subprocess.run([str(REPO / "scripts" / "demo")], env=env, capture_output=True, text=True, timeout=200)
    count = len(prompts.prompts())
    assert p.returncode == 0 and f"{count} of {count} with the right name" in p.stdout, p.stdout + p.stderr


def test_bench_gives_a_figure_for_small_uploads():
    build = os.path.dirname(harness.BINARY)
    if not os.path.exists(os.path.join(build, "CMakeCache.txt")):
        raise Skip("the binary is not in a build directory")
    command = [sys.executable, str(REPO / "tests/bench/bench.py"), "--quick", "--servers", "blobd", "--workloads", "W3", "--build", build]
    p = subprocess.run(command, env={**os.environ, "BLOBD_BIN": harness.BINARY}, capture_output=True, text=True, timeout=110)
    assert p.returncode == 0 and "| blobd" in p.stdout and "ERROR" not in p.stdout, p.stdout + p.stderr


def shipped(name):
    return (cluster.PROXY / name).read_text()


def test_the_proxy_files_lead_nowhere_but_to_the_nodes_that_are_there():
    one, two = "127.0.0.1:1001", "127.0.0.1:1002"
    for name in ("haproxy.cfg", "nginx.conf"):
        text = shipped(name)
        assert len(cluster.PLACEHOLDER.findall(text)) == 2 == len(set(cluster.ADDRESS.findall(text))), name
        for nodes in ([one], [one, two]):
            filled = cluster.fill_in(text, nodes)
            assert all(filled.count(f"server {n}") + filled.count(f" {n}") for n in nodes), filled
            assert set(cluster.ADDRESS.findall(filled)) == {"127.0.0.1"}, filled


def refuses(text, nodes):
    try:
        cluster.fill_in(text, nodes)
    except AssertionError:
        return True
    return False


def test_a_placeholder_that_is_left_over_is_refused():
    text = shipped("haproxy.cfg")
    assert refuses(text.replace("192.0.2.12", "10.0.0.12"), ["127.0.0.1:1"]), "another address was let pass"
    assert refuses(text, ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]), "a node without a line was let pass"
    assert refuses(text, ["10.0.0.11:8887", "127.0.0.1:2"]), "an address beyond this machine was let pass"


def cluster_tour(*arguments):
    """scripts/cluster with these arguments; its tour pasted into a shell; and its end."""
    env = {**os.environ, "BLOBD_BIN": harness.BINARY}
    command = [str(REPO / "scripts" / "cluster"), "--port", str(free_port()), "--dir", str(temp_dir()), *arguments]
    proc = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    printed = []
    for line in proc.stdout:
        printed.append(line)
        if line.startswith("# ---- end of the tour"):
            break
    tour = "".join(printed).partition("# ---- tour")[2]
    assert tour, "scripts/cluster ended early:\n" + "".join(printed)
    p = subprocess.run(["bash"], input="#" + tour, capture_output=True, text=True, timeout=60, cwd=temp_dir())
    for words in ("node 1: 1000000 bytes", "node 2: 4000000 bytes", '"id"', "the download equals the recording"):
        assert words in p.stdout, p.stdout + p.stderr
    stop(proc)


def test_the_tour_of_a_cluster_on_one_directory_works_when_pasted():
    harness.on_disk()
    harness.need("haproxy")
    cluster_tour()


def test_the_tour_of_a_cluster_on_s3_behind_nginx_works_when_pasted():
    harness.on_disk()  # it starts a radosgw of its own
    for program in ("radosgw", "ceph-osd", "nginx"):
        harness.need(program)
    cluster_tour("--storage", "s3", "--proxy", "nginx")


test_the_tour_of_a_cluster_on_s3_behind_nginx_works_when_pasted.timeout = 150
test_the_tour_that_run_prints_works_when_pasted_twice.timeout = 120
test_demo_verifies_every_prompt.timeout = 240
test_bench_gives_a_figure_for_small_uploads.timeout = 120


def test_scripts_answer_help_and_refuse_words_they_do_not_know():
    for name in ("test", "demo", "soak", "check-tour", "check-format"):
        done = subprocess.run([str(REPO / "scripts" / name), "--help"], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0 and len(done.stdout) > 60, (name, done)
        if name != "soak":  # its words are those of run.py
            done = subprocess.run([str(REPO / "scripts" / name), "wrong"], capture_output=True, text=True, timeout=20)
            assert done.returncode == 2 and "wrong" in done.stderr and "--help" in done.stderr, (name, done)
