"""Clients that keep a ledger of what the server acknowledged, for tests that kill it.

Their claims: an acknowledged offset never regresses, an upload that was answered 202 is not forgotten, every 201 reads
back with its hash, repeated completes give the same id, and a blob that is served is whole.
"""

import random
import threading
import time

from prompts import list_all
from uploader import Content, Refused, Upload, download, sha256
from wire import Closed

LOST = (Closed, OSError, TimeoutError)


class Broken(AssertionError):
    """The server broke a promise."""


class Crashload:
    def __init__(self, srv, clients=4, seed=1, biggest=400000, patience=30.0):
        self.srv, self.patience = srv, patience
        self.stored, self.failures = {}, []  # digest: (content, id)
        self.lock, self.quit = threading.Lock(), threading.Event()
        self.uploads = self.appends = self.retries = 0
        self.biggest = biggest
        self.threads = [threading.Thread(target=self.client, args=(seed * 100 + i,), daemon=True) for i in range(clients)]

    def start(self):
        [t.start() for t in self.threads]
        return self

    def stop(self, timeout=60):
        """Lets every client finish the upload it is at."""
        self.quit.set()
        for t in self.threads:
            t.join(timeout)
            if t.is_alive():
                raise Broken("a client could not finish its upload")
        self.check()

    def check(self):
        if self.failures:
            raise Broken("\n".join(self.failures[:5]))

    def client(self, seed):
        rng, number = random.Random(seed), 0
        while not self.quit.is_set() and not self.failures:
            try:
                self.one_upload(rng, seed * 100000 + number)
                number += 1
            except Exception as e:
                with self.lock:
                    self.failures.append(f"client {seed}, upload {number}: {type(e).__name__}: {e}")

    def persist(self, act):
        """act() until the server gives an answer other than 'not now'."""
        end = time.monotonic() + self.patience
        while True:
            try:
                answer = act()
                if answer is not None and answer.status not in (503, 429):
                    return answer
            except LOST:
                pass
            with self.lock:
                self.retries += 1
            if time.monotonic() > end:
                raise Broken(f"no answer for {self.patience:.0f} s")
            time.sleep(0.02)

    def create(self, name):
        holder = []

        def act():
            try:
                holder[:] = [Upload(self.srv, mode="offset", filename=name)]
            except Refused as e:
                return e.answer
            return holder[0].answer

        answer = self.persist(act)
        if answer.status != 202:
            raise Broken(f"create: {answer!r}")
        return holder[0]

    def where(self, up, acknowledged, size):
        """The offset the server stands by; never below what it had acknowledged."""
        answer = self.persist(up.status)
        if answer.status != 204:
            raise Broken(f"status of an acknowledged upload: {answer!r}")
        if up.offset < acknowledged:
            raise Broken(f"offset {up.offset} after {acknowledged} had been acknowledged")
        if up.offset > size:
            raise Broken(f"offset {up.offset} of an upload of {size}")
        return up.offset

    def one_upload(self, rng, number):
        size = rng.choice((rng.randint(0, 3000), rng.randint(0, 60000), rng.randint(0, self.biggest)))
        data = Content(size, number).read(0, size)
        digest = sha256(data)
        up = self.create(f"{number}.bin")
        acknowledged = 0
        while acknowledged < size and rng.random() > 0.15:  # or the rest goes with complete
            piece = data[acknowledged:acknowledged + rng.randint(1, self.biggest // 3)]
            try:
                answer = up.append(piece)
            except LOST:
                answer = None
            if answer is not None and answer.status == 203:
                if up.offset != acknowledged + len(piece):
                    raise Broken(f"203 with offset {up.offset}, not {acknowledged + len(piece)}")
                acknowledged = up.offset
                with self.lock:
                    self.appends += 1
            elif answer is None or answer.status in (409, 416, 503):
                acknowledged = self.where(up, acknowledged, size)
            else:
                raise Broken(f"append: {answer!r}")
            if rng.random() < 0.1:
                self.not_half(digest, data)
        self.finish(up, rng, data, digest, acknowledged)

    def finish(self, up, rng, data, digest, acknowledged):
        def act():
            nonlocal acknowledged
            answer = up.complete(digest, data[acknowledged:])
            if answer.status in (409, 416):
                acknowledged = self.where(up, acknowledged, len(data))
                return None
            return answer

        def lost_or_not():
            nonlocal acknowledged
            try:
                return act()
            except LOST:
                acknowledged = self.where(up, acknowledged, len(data))
                return None

        answer = self.persist(lost_or_not)
        if answer.status != 201 or answer.json()["digest"] != digest:
            raise Broken(f"complete: {answer!r}")
        file_id = answer.json()["id"]
        if rng.random() < 0.3:
            up.offset = len(data)
            again = self.persist(lambda: up.complete(digest))
            if again.status != 201 or again.json()["id"] != file_id:
                raise Broken(f"repeated complete: {again!r}, first id {file_id}")
        with self.lock:
            self.stored[digest] = (data, file_id)
            self.uploads += 1

    def not_half(self, digest, data):
        """Whatever is served under a digest is the whole blob."""
        try:
            answer = download(self.srv, digest)
        except LOST:
            return
        if answer.status == 200 and answer.body != data:
            raise Broken(f"half a blob was served: {len(answer.body)} of {len(data)} bytes")

    def verify(self, sample=None):
        """Every acknowledged blob (or a sample) reads back."""
        with self.lock:
            items = list(self.stored.items())
        if sample and len(items) > sample:
            items = items[-sample // 2:] + random.sample(items, sample // 2)
        with self.srv.connect() as c:
            for digest, (data, file_id) in items:
                answer = c.request("GET", f"/api/blobs/{digest}")
                if answer.status != 200 or answer.body != data:
                    raise Broken(f"a blob answered with 201 reads as {answer!r}"[:500])
        return len(items)

    def verify_listing(self):
        """Exactly one file for each upload, with the id the client was told."""
        items, count = list_all(self.srv, "alice")
        listed, told = sorted(i["id"] for i in items), sorted(file_id for _, file_id in self.stored.values())
        if listed != told or count != len(told):
            raise Broken(f"{len(told)} files were acknowledged, {count} are listed; "
                         f"missing {len(set(told) - set(listed))}, too many {len(set(listed) - set(told))}")
