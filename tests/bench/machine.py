"""What a process tree used, what else the machine was doing, and what class of machine it is."""

import os
import re
import subprocess
import threading
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def tree(pid):
    """pid and its descendants."""
    pids = [pid]
    for p in pids:
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                pids += map(int, Path(f"/proc/{p}/task/{task}/children").read_text().split())
        except OSError:
            pass
    return pids


def stat(pid):
    """/proc/PID/stat from the state on, or None when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def cpu_seconds(pid):
    """User and system time of the tree, with that of its finished children."""
    return sum(sum(map(int, f[11:15])) for p in tree(pid) if (f := stat(p))) / TICK


def memory(pid, field):
    """VmRSS or VmHWM in bytes, summed over the tree."""
    total = 0
    for p in tree(pid):
        try:
            m = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{p}/status").read_text(), re.M)
        except OSError:
            continue
        total += int(m[1]) * 1024 if m else 0
    return total


class Others:
    """How much of a core programs outside this benchmark used, in percent, during a with block."""

    @staticmethod
    def seconds():
        mine, total = set(tree(os.getpid())), 0
        for p in map(int, filter(str.isdigit, os.listdir("/proc"))):
            f = stat(p)
            if f and p not in mine and p != 2 and f[1] != "2":  # 2: kernel threads
                total += sum(map(int, f[11:15]))
        return total / TICK

    def __enter__(self):
        self.began, self.cpu = time.monotonic(), self.seconds()
        return self

    def __exit__(self, *exc):
        self.percent = max(0, 100 * (self.seconds() - self.cpu) / (time.monotonic() - self.began))


class Sampler:
    """Records (time, VmRSS, CPU seconds) of a process tree ten times a second, during a with block."""

    def __init__(self, pid):
        self.pid, self.rows, self.quit = pid, [], threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.quit.wait(0.1):
            self.rows.append((time.monotonic(), memory(self.pid, "VmRSS"), cpu_seconds(self.pid)))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.quit.set()
        self.thread.join()


def describe(work):
    """Class of machine, in words that fit a table's caption."""
    model = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    fs = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", str(work)], capture_output=True, text=True).stdout.strip()
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return f"{os.cpu_count()} cores of {model[1] if model else 'an unnamed CPU'}, {memory_gib:.0f} GiB, {fs}"
