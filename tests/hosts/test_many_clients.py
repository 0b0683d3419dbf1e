"""Slow clients in numbers, and some that read nothing at all, on one worker: they cost little, and others are served.

120 of them with STREAMWARE_SOAK=1, a fixed share else. Half of the bundles hold a local file, half a file of nginx.
The second of two tries counts where the first was too slow, for the machine may have had other things to do.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.hosts.nginx import nginx
from tests.hosts.processes import Usage, linux, serving
from tests.hosts.serve_process import Served
from tests.hosts.servers import until

MIB = 1 << 20
RATE = MIB  # bytes a second of each reader
READERS, STALLED, SECONDS = (100, 20, 20.0) if SOAK else (40, 8, 5.0)
# What the 120 may hold is 64 MiB; of fewer each may hold as much, beside what the process itself grows by.
MOST = 64.0 if SOAK else 8 + (READERS + STALLED) * 56 / 120
LONGEST = 0.2  # seconds that /healthz may take
LARGE = 1 << 30
TICK = 0.05


class Client:
    """One download; ``allowed`` bytes may be read by now."""

    def __init__(self, address: tuple[str, int], request: bytes) -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        self._sock.settimeout(10)
        self._sock.connect(address)
        self._sock.sendall(request)
        self._sock.setblocking(False)
        self.came = 0

    def read(self, upto: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.came < upto:
                piece = self._sock.recv(min(upto - self.came, 256 * 1024))
                assert piece, f"the server ended it after {self.came} bytes"
                self.came += len(piece)

    def close(self) -> None:
        self._sock.close()


@dataclass
class Probe:
    """Asks for /healthz every 100 ms."""

    waits: list[float] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    @contextmanager
    def watching(self, port: int) -> Iterator[None]:
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.1):
                began = time.monotonic()
                try:
                    healthy(port)
                except BaseException as error:
                    self.errors.append(error)
                self.waits.append(time.monotonic() - began)

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(15)


def healthy(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        assert response.status == 200, response.read()
    finally:
        connection.close()


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


def run(readers: list[Client], stalled: list[Client], seconds: float, pid: int | None = None) -> float:
    """Read at the given rate, then leave; the most MiB that a process held meanwhile."""
    peak, began = 0.0, time.monotonic()
    try:
        while (passed := time.monotonic() - began) < seconds:
            for reader in readers:
                reader.read(int(passed * RATE))
            if pid is not None:
                peak = max(peak, Usage.of(pid).resident)
            time.sleep(TICK)
    finally:
        for client in (*readers, *stalled):
            client.close()
    return peak
