"""Slow clients in numbers, and some that read nothing at all, on one worker: they cost little, and others are served.

120 of them with STREAMWARE_SOAK=1, a fixed share else. Half of the bundles hold a local file, half a file of nginx.
The second of two tries counts where the first was too slow, for the machine may have had other things to do.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.hosts.nginx import nginx
from tests.hosts.processes import Usage, linux, serving
from tests.hosts.serve_process import Served
from tests.hosts.servers import until
from tests.hosts.slow_clients import MIB, Client, Probe, run

READERS, STALLED, SECONDS = (100, 20, 20.0) if SOAK else (40, 8, 5.0)
# What the 120 may hold is 64 MiB; of fewer each may hold as much, beside what the process itself grows by.
MOST = 64.0 if SOAK else 8 + (READERS + STALLED) * 56 / 120
LONGEST = 0.2  # seconds that /healthz may take
LARGE = 1 << 30


def requests(upstream: str) -> tuple[bytes, bytes]:
    """A bundle of a local file, and one of a file of another server."""
    body = json.dumps({"name": "b.zip", "members": [{"name": "large", "url": f"{upstream}/large"}]}).encode()
    head = f"Host: test\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (
        b"GET /bundle?path=/tree/large&name=b.zip HTTP/1.1\r\nHost: test\r\n\r\n",
        b"POST /bundle HTTP/1.1\r\n" + head.encode() + body,
    )


@linux
@pytest.mark.case(28, 29)
@pytest.mark.judge("nginx")
def test_slow_and_stalled_clients_cost_little_and_hold_up_nobody(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with (root / "large").open("wb") as file:
        file.truncate(LARGE)
    with nginx(root, tmp_path / "nginx") as upstream:
        grown, worst = measured(root, upstream)
        if grown > MOST or worst > LONGEST:
            grown, worst = measured(root, upstream)
    assert grown <= MOST
    assert worst <= LONGEST


def measured(root: Path, upstream: str) -> tuple[float, float]:
    """How many MiB a new server grew by, and the longest that /healthz took."""
    with Served(root, "--allow", f"{upstream}/") as served:
        address = (served.host, served.port)
        asked = requests(upstream)
        warm = [Client(address, asked[number % 2]) for number in range(4)]
        run(warm, [], 1.0)
        time.sleep(0.5)
        pid = serving(served.process.pid)
        idle = Usage.of(pid)
        probe = Probe()
        with probe.watching(served.port):
            stalled = [Client(address, asked[number % 2]) for number in range(STALLED)]
            readers = [Client(address, asked[number % 2]) for number in range(READERS)]
            peak = run(readers, stalled, SECONDS, pid)
        assert not probe.errors, probe.errors[:3]
        worst, grown = max(probe.waits), peak - idle.resident
        came = sorted(reader.came / MIB / SECONDS for reader in readers)
        print(
            f"{READERS} readers, {STALLED} stalled, {SECONDS:.0f} s: +{grown:.1f} MiB, /healthz {worst * 1000:.0f} ms"
            f" at worst of {len(probe.waits)}, readers got {came[0]:.2f} to {came[-1]:.2f} MiB/s, {Usage.of(pid)}"
        )
        until(lambda: Usage.of(pid).files <= idle.files + 32, 5)  # connections to nginx may be kept
    return grown, worst
