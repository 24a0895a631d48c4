"""The S3 client and store: what they promise, against a real Ceph RGW, and against an endpoint that misbehaves."""

import os
import subprocess
import tempfile

from faulty_s3 import FaultyS3
from harness import REPO
from rgw import Rgw

BUILD = os.environ.get("BLOBD_BUILD", str(REPO / "build"))


def run_suite(program, settings):
    p = subprocess.run([f"{BUILD}/tests/{program}"], env=os.environ | settings, capture_output=True, text=True, cwd=REPO)
    assert p.returncode == 0, p.stdout + p.stderr


def on_rgw(driver):
    with tempfile.TemporaryDirectory(prefix="rgw-") as directory, Rgw(directory) as s3:
        run_suite("s3_client_suite", s3.settings(driver))


def test_store_on_ceph_rgw():
    with tempfile.TemporaryDirectory(prefix="rgw-") as directory, Rgw(directory) as s3:
        for driver in ("sigv4", "libs3"):
            run_suite("s3_contract_suite", s3.settings(driver))
            run_suite("s3_store_suite", s3.settings(driver))
            run_suite("s3_removal_suite", s3.settings(driver))


def test_sigv4_on_ceph_rgw():
    on_rgw("sigv4")


def test_libs3_on_ceph_rgw():
    on_rgw("libs3")


def against_faults(driver):
    with FaultyS3() as s3:
        run_suite("s3_fault_suite", s3.settings(driver))


def test_sigv4_against_faults():
    against_faults("sigv4")


def test_libs3_against_faults():
    against_faults("libs3")


test_store_on_ceph_rgw.timeout = test_sigv4_against_faults.timeout = test_libs3_against_faults.timeout = 180
