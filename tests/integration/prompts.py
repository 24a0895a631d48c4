"""A PBX's real files: Debian's asterisk-core-sounds-en-wav, uploaded over a link that keeps breaking.

Used by test_prompts.py and by scripts/demo.
"""

import time
from pathlib import Path
from urllib.parse import quote

from uploader import MODES, Upload, sha256

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")


def prompts():
    """[(name, path)], name being the path below the sounds' directory with its slashes replaced: names hold none."""
    return sorted((str(p.relative_to(SOUNDS)).replace("/", "--"), p) for p in SOUNDS.rglob("*.wav"))


def upload_all(api, files, rng, who, cut_chance=0.25, progress=lambda done: None):
    """Uploads every file in random pieces, a share of which is cut, as all three kinds of client. Returns
    ({name: (id, digest, size)}, statistics)."""
    stored, stats = {}, {"files": 0, "bytes": 0, "cuts": 0, "seconds": -time.monotonic()}
    for i, (name, path) in enumerate(files):
        data = path.read_bytes()
        # A client with a fixed token cannot tell what a lost answer had added; its links hold.
        mode = MODES[i % len(MODES)]
        up = Upload(api, mode=mode, who=who, filename=name)
        cuts = up.send_all(data, rng, cut_chance=0 if mode == "fixed" else cut_chance, biggest=max(1, len(data) // 3))
        answer = up.complete(sha256(data))
        assert answer.status == 201, f"{name}: {answer!r}"
        stored[name] = (answer.json()["id"], sha256(data), len(data))
        stats["files"] += 1
        stats["bytes"] += len(data)
        stats["cuts"] += cuts
        progress(i + 1)
    stats["seconds"] += time.monotonic()
    return stored, stats


def list_all(api, who, **query):
    """Every item of /api/files, page by page; waits for an index that is being rebuilt, as its clients do."""
    items, extra = [], "".join(f"&{k}={quote(str(v))}" for k, v in query.items())
    end = time.monotonic() + 20
    while True:
        page = api.get(f"/api/files?top=100&skip={len(items)}{extra}", who=who)
        if page.status == 503 and "Retry-After" in page and time.monotonic() < end:
            time.sleep(0.1)
            continue
        assert page.status == 200, page
        items += page.json()["items"]
        if not page.json()["items"] or len(items) >= page.json()["count"]:
            return items, page.json()["count"]


def verify_all(api, stored, who):
    """Every stored file is listed once with its name and size, and downloads to its digest. Returns bytes read."""
    items, _ = list_all(api, who, orderby="name")
    listed = {i["id"]: i for i in items}
    total = 0
    with api.connect() as c:
        for name, (file_id, digest, size) in stored.items():
            item = listed[file_id]
            assert item["name"] == name and item["size"] == size, f"{name}: listed as {item}"
            answer = c.request("GET", f"/api/blobs/{digest}", api.authorized({}, who))
            assert answer.status == 200, f"{name}: {answer!r}"
            assert sha256(answer.body) == digest and len(answer.body) == size, f"{name}: other bytes came back"
            total += size
    return total
