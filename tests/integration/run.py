#!/usr/bin/env python3
"""Runs the integration tests: every function test_* of every test_*.py beside this file.

Each test is a process of its own with its own temporary directory and time limit (the attribute `timeout` of the
function, 60 seconds by default). Those that may take longest begin first. Three run at a time, and up to twice as many while
they leave the processors idle, since most wait more than they work; a test with the attribute `alone` runs by itself. Prints
a line a test, with the last line it printed itself, and the count; the exit status is 0 when none failed.

With --again, up to five tests that failed are run once more at the end, each alone: what fails beside others on a busy
machine and passes by itself is named as such, and does not fail the run.

With --rgw the servers' storage is a Ceph RGW that is started for the run. A test that runs alone gets one to itself, since
what the largest blobs leave behind would fill it.
"""

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from contextlib import contextmanager, nullcontext
from pathlib import Path

from harness import BINARY, Skip
from rgw import Rgw

HERE = Path(__file__).resolve().parent
SKIPPED = 77
AGAIN_MAX = 5  # more than that is no accident


class Test:
    def __init__(self, module, name, function):
        self.module, self.function, self.name = module, name, f"{module}.{name}"
        self.timeout = getattr(function, "timeout", 60) * float(os.environ.get("BLOBD_TEST_SLOW", 1))
        self.alone = getattr(function, "alone", False)

    def run(self):
        """Returns (status, seconds, output)."""
        work = tempfile.mkdtemp(prefix=f"blobd-{self.function[:40]}-")
        env = dict(os.environ, BLOBD_TEST_TMP=work, PYTHONDONTWRITEBYTECODE="1")
        began = time.monotonic()
        proc = subprocess.Popen([sys.executable, __file__, "--child", self.module, self.function], env=env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True, errors="replace", start_new_session=True)
        try:
            output, _ = proc.communicate(timeout=self.timeout)
            status = proc.returncode
        except subprocess.TimeoutExpired:
            status, output = 1, f"not finished after {self.timeout:.0f} s"
        finally:
            self.end_group(proc)
        seconds = time.monotonic() - began
        if status not in (0, SKIPPED):
            output += self.server_logs(work)
        if status in (0, SKIPPED) or not os.environ.get("BLOBD_TEST_KEEP"):
            shutil.rmtree(work, ignore_errors=True)
        else:
            output += f"\nkept: {work}"
        return status, seconds, output

    @staticmethod
    def end_group(proc):
        """The test and every server it left running."""
        try:
            os.killpg(proc.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        proc.wait()
        if proc.stdout:
            proc.stdout.close()

    @staticmethod
    def server_logs(work):
        text = ""
        for log in sorted(Path(work).rglob("server.log")):
            text += f"\n-- {log.parent.name}/server.log, its end:\n" + "\n".join(line[:300] for line in log.read_text(errors="replace").splitlines()[-12:])
        return text


def child(module, function):
    try:
        getattr(importlib.import_module(module), function)()
    except Skip as e:
        print(e)
        return SKIPPED
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def discover(words, files):
    tests = []
    for path in sorted(HERE.glob("test_*.py")):
        if files and path.stem not in files:
            continue
        module = importlib.import_module(path.stem)
        for name, function in vars(module).items():
            full = f"{path.stem}.{name}"
            if name.startswith("test_") and callable(function) and getattr(function, "__module__", "") == path.stem:
                if not words or any(w in full for w in words):
                    tests.append(Test(path.stem, name, function))
    return tests


@contextmanager
def rgw_storage():
    """The tests that run meanwhile find a Ceph RGW in their environment."""
    driver = os.environ.get("BLOBD_TEST_S3_DRIVER", "sigv4")
    with tempfile.TemporaryDirectory(prefix="rgw-") as directory, Rgw(directory) as s3:
        os.environ.update(s3.settings(driver))
        yield


class Spare:
    """How much of the processors nobody needed lately. What runs at a lower priority (nice) gives way, and counts as
    nobody."""

    ENOUGH = 0.3
    EVERY = 1.0  # a test that has just begun shows in the next look

    def __init__(self):
        self.lock = threading.Lock()
        self.at, self.last = time.monotonic(), self.ticks()

    @staticmethod
    def ticks():
        """(free, all) since the machine started; None where the kernel does not tell."""
        try:
            user, nice, system, idle, wait, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
        except (OSError, ValueError):
            return None
        return nice + idle + wait, user + nice + system + idle + wait + sum(rest)

    def take(self):
        """May one more test begin? At most one does in each EVERY seconds."""
        with self.lock:
            if self.last is None or time.monotonic() - self.at < self.EVERY:
                return False
            now = self.ticks()
            free, whole = (b - a for a, b in zip(self.last, now))
            self.at, self.last = time.monotonic(), now
            return whole > 0 and free / whole >= self.ENOUGH


class Runner:
    """parallel: how many tests run at a time; most: how many, while the processors are idle."""

    def __init__(self, tests, parallel, most, again, storage):
        self.queue, self.parallel, self.most, self.again, self.storage = tests, parallel, most, again, storage
        self.lock, self.spare, self.in_flight = threading.Lock(), Spare(), 0
        self.passed = self.skipped = 0
        self.failed = []

    def one(self, test):
        status, seconds, output = test.run()
        with self.lock:
            if status == 0:
                self.passed += 1
                figures = f" ({output.strip().splitlines()[-1]})" if output.strip() else ""
                print(f"ok   {test.name} {seconds:.1f}{figures}", flush=True)
            elif status == SKIPPED:
                self.skipped += 1
                print(f"skip {test.name} {seconds:.1f} ({output.strip().splitlines()[-1]})", flush=True)
            else:
                self.failed.append(test)
                print(f"FAIL {test.name} {seconds:.1f}\n" + "".join(f"     {line}\n" for line in output.splitlines()), flush=True)

    def next(self, tests):
        """The next test, None where this worker must wait for its turn. IndexError: there is no more."""
        with self.lock:
            if self.in_flight < self.parallel or tests and self.spare.take():
                test = tests.pop(0)
                self.in_flight += 1
                return test
            if not tests:
                raise IndexError
        return None

    def worker(self, tests):
        while True:
            try:
                test = self.next(tests)
            except IndexError:
                return
            if test is None:
                time.sleep(0.2)
                continue
            self.one(test)
            with self.lock:
                self.in_flight -= 1

    def run(self):
        together = sorted((t for t in self.queue if not t.alone), key=lambda t: -t.timeout)
        alone = [t for t in self.queue if t.alone]
        if together:
            with self.storage():
                threads = [threading.Thread(target=self.worker, args=(together,)) for _ in range(self.most)]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
        for test in alone:
            with self.storage():
                self.one(test)
        if self.again and len(self.failed) <= AGAIN_MAX:
            self.run_again()

    def run_again(self):
        first, self.failed = self.failed, []
        for test in first:
            print(f"again, alone: {test.name}", flush=True)
            with self.storage():
                self.one(test)


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("-k", action="append", default=[], metavar="WORD", help="only tests whose name holds WORD; repeatable")
    p.add_argument("-j", type=int, choices=range(1, 9), help="how many at a time (3, and up to 6 while the processors are idle)")
    p.add_argument("--again", action="store_true", help="run what failed once more, alone")
    p.add_argument("--rgw", action="store_true", help="with storage.backend=s3, on a Ceph RGW of the run's own")
    p.add_argument("--list", action="store_true", help="print the names, run nothing")
    p.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    p.add_argument("file", nargs="*", help="only these files (test_resume or test_resume.py)")
    a = p.parse_args()
    if a.child:
        return child(*a.child)
    tests = discover(a.k, {Path(f).stem for f in a.file})
    if a.list:
        print("\n".join(t.name for t in tests))
        return 0
    if not os.access(BINARY, os.X_OK):
        sys.exit(f"no binary at {BINARY}: build it, or name another in BLOBD_BIN")
    began = time.monotonic()
    runner = Runner(tests, a.j or 3, a.j or 6, a.again, rgw_storage if a.rgw else nullcontext)
    runner.run()
    for test in runner.failed:
        print(f"failed: {test.name}")
    print(f"{runner.skipped} skipped, {time.monotonic() - began:.0f} s")
    print(f"{runner.passed} passed, {len(runner.failed)} failed")
    return 1 if runner.failed or not tests else 0


if __name__ == "__main__":
    sys.exit(main())
