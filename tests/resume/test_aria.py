"""aria2c with eight connections on a bundle that nobody knows anything about: 256 MiB, 1 GiB in the soak.

Whoever comes to the end of a member needs the checksum of all of it, also of what its neighbours are still at, and
reads that once more. How much that is depends on how the members lie across the eight parts: docs/performance.md.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import SOAK, judge
from tests.resume.clients import aria2c, digest, scan
from tests.resume.replicas import Replica, save_link, serve_command
from tests.resume.upstream import MIB, origin

BUNDLE = 1024 * MIB if SOAK else 256 * MIB


@pytest.mark.judge("nginx", "aria2c", "unzip")
@pytest.mark.parametrize("members", [1, 4, 16, 40] if SOAK else [16, 40])
def test_eight_ranges_at_once_cost_little_more_than_one_download(members: int, tmp_path: Path) -> None:
    size = BUNDLE // members
    sizes = [size + 1001 * (number - members // 2) for number in range(members)]
    (tmp_path / "empty").mkdir()
    with origin(tmp_path, sizes) as upstream:
        command = serve_command(tmp_path / "empty", tmp_path, allow=upstream.url)
        with Replica(command, tmp_path / "log") as replica:
            url = f"{replica.url}{save_link(replica.url, upstream.manifest('b.zip'))}"
            out, since = tmp_path / "b.zip", time.time()
            code, said = aria2c(out, url).wait(300)
            assert code == 0, said
            delivered = upstream.delivered(since)
            total = out.stat().st_size
            print(f"{members} members: the upstream delivered {delivered / total:.3f} times the bundle")
            assert delivered <= 1.5 * total
            whole = scan(url)
            assert (whole.count, whole.sha256) == (total, digest(out))
            done = subprocess.run([judge("unzip"), "-tqq", out], capture_output=True, text=True, timeout=120)
            assert (done.returncode, done.stderr) == (0, "")
