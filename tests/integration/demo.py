"""What scripts/demo runs; it says what this does."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import prompts
from api import Api

REPO = Path(__file__).resolve().parents[2]
PORT = int(os.environ.get("BLOBD_RUN_PORT", 8887))
VAR = (REPO / os.environ.get("BLOBD_RUN_VAR", "var")).resolve()


def listening():
    try:
        socket.create_connection(("127.0.0.1", PORT), 1).close()
        return True
    except OSError:
        return False


def start_server():
    """scripts/run, quietly; returns once it has printed its tour."""
    print("no server is running: starting scripts/run …", flush=True)
    proc = subprocess.Popen([str(REPO / "scripts" / "run")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    for line in proc.stdout:
        if "end of the tour" in line:
            return proc
    sys.exit("scripts/run ended early")


def progress(total):
    def show(done):
        if sys.stdout.isatty() or done == total:
            print(f"\r  {done} of {total}", end="\n" if done == total else "", flush=True)
    return show


def rate(count, seconds):
    return f"{count / seconds / 1e6:.1f} MB/s"


def demo():
    files = prompts.prompts()
    if not files:
        sys.exit("the prompts are not installed: apt-get install asterisk-core-sounds-en-wav")
    token = (VAR / "token").read_text().strip()
    api = Api("127.0.0.1", PORT, {"demo": (token, True)})
    api.trust(VAR / "cert.pem")

    print(f"uploading {len(files)} prompts; every fourth piece loses its connection on the way", flush=True)
    stored, up = prompts.upload_all(api, files, random.Random(), "demo", progress=progress(len(files)))
    print("listing them, downloading and hashing every one", flush=True)
    began = time.monotonic()
    read = prompts.verify_all(api, stored, "demo")
    seconds = time.monotonic() - began

    print(f"""
  uploaded    {up['files']} files, {up['bytes'] / 1e6:.1f} MB in {up['seconds']:.1f} s ({rate(up['bytes'], up['seconds'])})
  lost links  {up['cuts']}, each resumed from the offset the server told
  listed      {len(stored)} of {len(stored)} with the right name and size
  downloaded  {read / 1e6:.1f} MB in {seconds:.1f} s ({rate(read, seconds)}), every SHA-256 right
""")


def main():
    server = None if listening() else start_server()
    try:
        demo()
    except AssertionError as e:
        sys.exit(f"demo failed: {e}")
    finally:
        if server:
            server.send_signal(signal.SIGTERM)
            server.wait()


if __name__ == "__main__":
    main()
