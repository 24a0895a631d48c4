#!/usr/bin/env python3
"""blobd beside docker-registry and nginx: the same uploads and downloads against each, on this machine, in one run.

Each (repetition, workload, server) starts that server fresh on an empty directory; the servers take turns within a
workload, so that the machine's drift meets all alike. Medians go to stdout and, with --record, to docs/performance.md.
A wrong answer, a failed upload or a wrong digest is an error: the figure is left out and the exit status is 1.
docs/performance.md says how to read the figures.
"""

import argparse
import hashlib
import http.client
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import servers

HERE = Path(__file__).resolve().parent
REPORT = servers.REPO / "docs" / "performance.md"
MARKS = ("<!-- figures: begin (written by scripts/bench --record) -->", "<!-- figures: end -->")
MIB, GIB = 1 << 20, 1 << 30
EVERY = list(dict.fromkeys(servers.ALL + servers.SESSIONS))
BUSY = 25  # percent of a core that other programs may use beside a run that counts as quiet


class Failed(Exception):
    pass


# ---- clients ---------------------------------------------------------------------------------------------------------

class Client:
    """Runs the load generator and wrk against one server."""

    seeds = iter(range(1, 1 << 30))  # no two uploads of a run share a blob

    def __init__(self, server, loadgen):
        self.server, self.loadgen, self.pid = server, loadgen, server.proc.pid

    def load(self, **options):
        """One run of the load generator; a sample of what it uploaded is read back and hashed."""
        args = [x for k, v in options.items() for x in ("--" + k.replace("_", "-"), str(v))]
        command = [self.loadgen, *self.server.load_options(), "--seed", str(next(self.seeds)), *args]
        p = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if p.returncode not in (0, 1):
            raise Failed(f"loadgen: {p.stderr.strip()}")
        r = json.loads(p.stdout)
        if r["failed"]:
            raise Failed(f"{r['failed']} uploads failed, {r['uploads']} succeeded: {r['first_error']}")
        return r

    def measured(self, **options):
        """A load with the server's CPU and memory."""
        cpu = machine.cpu_seconds(self.pid)
        r = self.load(**options)
        cpu = machine.cpu_seconds(self.pid) - cpu
        peak = machine.memory(self.pid, "VmHWM")
        self.verify(r["samples"])
        return r | {"rate_mb": r["bytes"] / r["seconds"] / 1e6, "cpu_s": cpu, "cpu_gib": cpu / (r["bytes"] / GIB),
                    "peak_mib": peak / MIB, "client_cpu": 100 * r["client_cpu_s"] / r["seconds"]}

    def verify(self, samples):
        if not samples:
            raise Failed("nothing to verify")
        conn = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        for s in samples:
            conn.request("GET", s["path"])
            r, h = conn.getresponse(), hashlib.sha256()
            while block := r.read(MIB):
                h.update(block)
            if r.status != 200 or h.hexdigest() != s["sha256"]:
                raise Failed(f"GET {s['path']}: status {r.status}, sha256 {h.hexdigest()}, want {s['sha256']}")
        conn.close()

    def wrk(self, paths, seconds):
        cpu = machine.cpu_seconds(self.pid)
        p = subprocess.run(["wrk", "-t2", "-c64", f"-d{seconds}s", "-s", str(HERE / "wrk.lua"),
                            f"http://127.0.0.1:{self.server.port}", "--", *paths],
                           capture_output=True, text=True, timeout=seconds + 60)
        if p.returncode:
            raise Failed(f"wrk: {p.stderr.strip()}")
        r = json.loads(p.stdout.strip().splitlines()[-1])
        if r["errors"] or not r["requests"]:
            raise Failed(f"wrk: {r['errors']} errors in {r['requests']} requests")
        return r | {"cpu_us": (machine.cpu_seconds(self.pid) - cpu) / r["requests"] * 1e6}

    def curl(self, path):
        """GB/s of one download."""
        p = subprocess.run(["curl", "-sS", "-f", "-o", os.devnull, "-w", "%{speed_download}",
                            f"http://127.0.0.1:{self.server.port}{path}"], capture_output=True, text=True, timeout=120)
        if p.returncode:
            raise Failed(f"curl: {p.stderr.strip()}")
        return float(p.stdout) / 1e9


# ---- workloads -------------------------------------------------------------------------------------------------------

def one_request(client, size):
    return client.measured(size=size["big"], chunk=0, samples=1)


def appends(client, size):
    return client.measured(size=size["big"], chunk="16m", samples=1)


def parallel(client, size):
    return client.measured(size=size["each"], chunk="4m", clients=32, count=32, samples=2)


def small(client, size):
    r = client.measured(size="16k", clients=16, count=2000000, seconds=size["seconds"], samples=20)
    return r | {"per_s": r["uploads"] / r["seconds"], "cpu_us": r["cpu_s"] / r["uploads"] * 1e6}


def downloads(client, size):
    paths = []
    for what, count in (("10k", 1), ("1m", 16), (size["big"], 1)):
        r = client.load(size=what, count=count, samples=count)
        client.verify(r["samples"])
        paths.append([s["path"] for s in r["samples"]])
    tiny, medium = client.wrk(paths[0], size["wrk_seconds"]), client.wrk(paths[1], size["wrk_seconds"])
    return {"per_s": tiny["requests"] / tiny["seconds"], "cpu_us": tiny["cpu_us"], "p99_ms": tiny["p99_ms"],
            "gb_1m": medium["bytes"] / medium["seconds"] / 1e9, "gb_big": client.curl(paths[2][0]),
            "peak_mib": machine.memory(client.pid, "VmHWM") / MIB}


def slow(client, size):
    seconds, n = size["seconds"], size["slow_clients"]
    with machine.Sampler(client.pid) as s:
        r = client.measured(size="4m", clients=n, count=n, slow="64k", slow_seconds=seconds, samples=5)
    rows = [x for x in s.rows if r["began"] + 1.5 <= x[0] <= r["began"] + seconds - 0.2]
    if not rows:
        raise Failed("no samples of the slow phase")
    return r | {"slow_mib": max(x[1] for x in rows) / MIB,
                "slow_cpu": 100 * (rows[-1][2] - rows[0][2]) / (rows[-1][0] - rows[0][0])}


# (key, heading, decimals, relative to the registry, or to blobd where that has no part?)
BULK = [("rate_mb", "MB/s", 0, True), ("cpu_gib", "CPU s/GiB", 2, True), ("peak_mib", "peak MiB", 0, True),
        ("client_cpu", "client CPU %", 0, False)]
WORKLOADS = {
    "W1a": ("one big blob in one request", one_request, BULK),
    "W1b": ("one big blob in 16 MiB appends", appends, BULK),
    "W2": ("32 clients, a blob each, 4 MiB appends (nginx: whole files)", parallel, BULK),
    "W3": ("16 clients, whole uploads of 16 KiB", small,
           [("per_s", "uploads/s", 0, True), ("cpu_us", "CPU µs/upload", 0, True), ("p50_ms", "p50 ms", 1, False),
            ("p99_ms", "p99 ms", 1, False), ("peak_mib", "peak MiB", 0, True)]),
    "W4": ("downloads: 64 connections, 10 KiB and 1 MiB; then the big blob alone", downloads,
           [("per_s", "10 KiB req/s", 0, True), ("cpu_us", "CPU µs/req", 0, True), ("p99_ms", "p99 ms", 1, False),
            ("gb_1m", "1 MiB GB/s", 2, True), ("gb_big", "big GB/s", 2, True), ("peak_mib", "peak MiB", 0, True)]),
    "W5": ("slow uploads at once, 64 KiB/s each", slow,
           [("uploads", "succeeded", 0, False), ("slow_mib", "slow MiB", 0, True), ("slow_cpu", "slow CPU %", 1, True),
            ("peak_mib", "peak MiB", 0, True)]),
}
FULL = {"big": "1g", "each": "64m", "seconds": 10, "wrk_seconds": 8, "slow_clients": 1000, "repeat": 3}
QUICK = {"big": "128m", "each": "8m", "seconds": 3, "wrk_seconds": 2, "slow_clients": 200, "repeat": 1}


# ---- figures ---------------------------------------------------------------------------------------------------------

def quiet(run):
    return run["others"] <= BUSY


def median(runs, key):
    """Of the runs beside which the machine was quiet, where there are any."""
    return statistics.median(r[key] for r in [r for r in runs if quiet(r)] or runs)


def cell(value, base, decimals):
    text = f"{value:.{decimals}f}"
    if not base:
        return text
    ratio = value / base
    return f"{text} ({ratio:.{1 if ratio >= 0.995 else 2 if ratio >= 0.0995 else 3}f}×)"


def rows_of(key, results):
    """Heading and rows of a workload's table."""
    columns, rows = WORKLOADS[key][2], []
    for cls in EVERY:
        runs = results.get(cls.name)
        if not runs:
            continue
        base = results.get("registry") or results.get("blobd")
        cells = [cell(median(runs, k), relative and base and median(base, k), decimals) for k, _, decimals, relative in columns]
        first = [r[columns[0][0]] for r in runs]
        rows.append([cls.name, cls.hashes, cls.sync, *cells, f"{min(first):.0f}–{max(first):.0f}",
                     f"{sum(map(quiet, runs))}/{len(runs)}"])
    return ["server", "SHA-256", "on disk before it answers", *(c[1] for c in columns), "spread", "quiet"], rows


def tables(results):
    """All tables, in Markdown that is legible as it stands."""
    out = []
    for key, (title, _, _) in WORKLOADS.items():
        if key not in results:
            continue
        head, rows = rows_of(key, results[key])
        width = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
        out += [f"**{key}** {title}", ""]
        for r in [head, ["-" * w for w in width], *rows]:
            out.append("| " + " | ".join(c.ljust(w) for c, w in zip(r, width)) + " |")
        out.append("")
    return "\n".join(out)


def record(text):
    """Puts the figures between the marks of docs/performance.md."""
    page = REPORT.read_text()
    before, _, rest = page.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    REPORT.write_text(f"{before}{MARKS[0]}\n\n{text}\n{MARKS[1]}{after}")


# ---- main ------------------------------------------------------------------------------------------------------------

def build_loadgen(build):
    if not (build / "CMakeCache.txt").exists():
        subprocess.run(["cmake", "-S", str(servers.REPO), "-B", str(build)], check=True, stdout=subprocess.DEVNULL)
    targets = ["loadgen"] if "BLOBD_BIN" in os.environ else ["loadgen", "blobd"]
    subprocess.run(["cmake", "--build", str(build), "--target", *targets, "-j", str(os.cpu_count())], check=True, stdout=subprocess.DEVNULL)
    return str(build / "tests" / "bench" / "loadgen")


def arguments():
    names = [c.name for c in EVERY]
    p = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split("\n")[0])
    p.add_argument("--servers", default=",".join(c.name for c in servers.ALL), help="comma separated, of " + ", ".join(names))
    p.add_argument("--workloads", default=",".join(WORKLOADS), help="comma separated, of " + ", ".join(WORKLOADS))
    p.add_argument("--sessions", action="store_true", help="what Redis sessions cost: blobd with either, in W1a, W2 and W3")
    p.add_argument("--repeat", type=int, help="repetitions (3)")
    p.add_argument("--quick", action="store_true", help="small sizes, one repetition: about two minutes")
    p.add_argument("--work", help="where the servers keep their data (the system's temporary directory)")
    p.add_argument("--build", type=Path, default=servers.REPO / "build", help="build directory of the load generator")
    p.add_argument("--record", action="store_true", help="write the tables into docs/performance.md")
    p.add_argument("--memory", action="store_true", help="given first: memory beside server.max_memory; --help behind it")
    a = p.parse_args()
    if a.memory:
        p.error("--memory goes first")
    if a.sessions and a.record:
        p.error("--record is for the figures beside other servers")
    if a.sessions:
        a.servers, a.workloads = ",".join(c.name for c in servers.SESSIONS), "W1a,W2,W3"
    for given, known in ((a.servers, names), (a.workloads, WORKLOADS)):
        for x in given.split(","):
            if x not in known:
                p.error(f"unknown {x}")
    return a


def available(wanted):
    chosen = []
    for cls in EVERY:
        if cls.name in wanted.split(","):
            why = cls.missing()
            print(f"{cls.name}: {'skipped, ' + why if why else cls.version()}")
            if not why:
                chosen.append(cls)
    return chosen


def one_run(cls, key, size, work, loadgen):
    with cls(work) as server:
        try:
            with machine.Others() as others:
                r = WORKLOADS[key][1](Client(server, loadgen), size)
        except Exception:
            print(server.log_tail(), file=sys.stderr)
            raise
    return r | {"others": others.percent}


def measure(a, size, chosen, work, loadgen):
    results, errors, repeat = {}, [], a.repeat or size["repeat"]
    for rep in range(repeat):
        for key in a.workloads.split(","):
            for cls in chosen:
                if key in cls.skip:
                    continue
                os.sync()
                label = f"[{rep + 1}/{repeat}] {key} {cls.name}:"
                try:
                    r = one_run(cls, key, size, work, loadgen)
                except (Failed, RuntimeError, OSError, subprocess.SubprocessError, http.client.HTTPException) as e:
                    errors.append(f"{label} {e}")
                    print("ERROR", errors[-1], file=sys.stderr, flush=True)
                    continue
                results.setdefault(key, {}).setdefault(cls.name, []).append(r)
                column, title, _, _ = WORKLOADS[key][2][0]
                busy = "" if quiet(r) else f" (other programs used {r['others']:.0f} % of a core)"
                print(f"{label} {title} {r[column]:.0f}{busy}", file=sys.stderr, flush=True)
    return results, errors


def main():
    a = arguments()
    size = QUICK if a.quick else FULL
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loadgen = build_loadgen(a.build.resolve())
    chosen = available(a.servers)
    work = tempfile.mkdtemp(prefix="bench-", dir=a.work)
    try:
        where = machine.describe(work)
        results, errors = measure(a, size, chosen, work, loadgen)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    versions = "; ".join(f"{c.name}: {c.version()}" for c in chosen)
    sizes = f"big {size['big']}, W2 {size['each']} each, W5 {size['slow_clients']} clients; medians of {a.repeat or size['repeat']}"
    text = f"{time.strftime('%Y-%m-%d', time.gmtime())}, {where}. {sizes}. {versions}.\n\n{tables(results)}"
    print("\n" + text)
    for e in errors:
        print("ERROR", e)
    if a.record and not errors:
        record(text)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
