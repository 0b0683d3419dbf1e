"""Clients that read slowly or not at all, and somebody who asks meanwhile whether the server is well.

The rule of this file: one thread reads for all of them, so that they cost no more than what they ask for.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.hosts.processes import Usage

__all__ = ["MIB", "RATE", "Client", "Probe", "run"]

MIB = 1 << 20
RATE = MIB  # bytes a second of each reader
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


def run(
    readers: list[Client], stalled: list[Client], seconds: float, pid: int | None = None, rate: int = RATE
) -> float:
    """Read ``rate`` bytes a second each, then leave; the most MiB that a process held meanwhile."""
    peak, began = 0.0, time.monotonic()
    try:
        while (passed := time.monotonic() - began) < seconds:
            for reader in readers:
                reader.read(int(passed * rate))
            if pid is not None:
                peak = max(peak, Usage.of(pid).resident)
            time.sleep(TICK)
    finally:
        for client in (*readers, *stalled):
            client.close()
    return peak
