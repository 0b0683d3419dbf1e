"""Those who download: one that reads as fast as it can, and a crowd of slow ones.

The rule of this file: a client costs as little as it can, keeps its connection open as browsers do, reads to the end,
and says so where the answer is no whole archive. Every wait has an end.
"""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Broken", "Crowd", "Download", "download", "slow_crowd", "until"]

_BLOCK = bytearray(1 << 20)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_TAIL = 4096
_RECORD = b"PK\x05\x06"  # begins the last record of a ZIP


class Broken(Exception):
    """An answer that is no whole archive."""


class Download(NamedTuple):
    bytes: int  # of the body, as it came: a chunked one with its framing
    first_byte: float  # seconds to the first byte of the body
    seconds: float
    length_told: bool


def download(
    port: int, path: str, *, seconds: float = 300.0, start: int = 0, upto: int | None = None, archive: bool = True
) -> Download:
    """GET from a server on 127.0.0.1, throwing the bytes away.

    :param start: asked for by Range, and must be answered with 206; 0 asks for all.
    :param upto: bytes of body after which to leave; None reads to the end, which must then be a right end.
    :param archive: whether it must be one; otherwise any body that is whole will do.
    :raises Broken: another status than 200 or 206, or a body that ended early.
    :raises OSError: the connection failed, or nothing came for ``seconds``.
    """
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        began = time.perf_counter()
        asked = f"Range: bytes={start}-\r\n" if start else ""
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n{asked}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head or head.endswith(b"\r\n\r\n"):
            piece = connection.recv(65536)
            if not piece:
                break
            head += piece
        first_byte = time.perf_counter() - began
        end = _End(head, 206 if start else 200, _RECORD if archive else b"")
        while not end.over and (upto is None or end.count < upto):
            got = connection.recv_into(_BLOCK)
            if not got:
                break
            end.take(got)
        if upto is None:
            end.check()
        return Download(end.count, first_byte, time.perf_counter() - began, end.length is not None)


class _End:
    """Counts a body and knows whether its end is one."""

    def __init__(self, head: bytes, status: int, record: bytes = _RECORD) -> None:
        self._record = record
        fields, _, body = head.partition(b"\r\n\r\n")
        if not fields.startswith(b"HTTP/1.1 %d" % status):
            raise Broken(f"no {status}: {head[:200]!r}")
        length = _LENGTH.search(fields)
        self.length = int(length[1]) if length else None
        self._chunked = bool(_CHUNKED.search(fields))
        self.count = len(body)
        self._tail = body[-_TAIL:]

    def take(self, got: int) -> None:
        self.count += got
        piece = bytes(_BLOCK[max(0, got - _TAIL) : got])
        self._tail = piece if got >= _TAIL else (self._tail + piece)[-_TAIL:]

    @property
    def over(self) -> bool:
        """Whether all has come. Never where only the connection's end tells it."""
        if self.length is not None:
            return self.count >= self.length
        return self._chunked and self._tail.endswith(b"\r\n0\r\n\r\n") and self._record in self._tail

    def check(self) -> None:
        whole = self.over or (self.length is None and not self._chunked)
        if not whole or self._record not in self._tail:
            raise Broken(f"the answer broke off after {self.count} bytes of {self.length or 'an unknown number'}")


@dataclass(slots=True)
class Crowd:
    done: int  # clients that got a whole answer
    seconds: float  # until the last of them, or until time was up
    first_byte: float  # the longest wait for one
    bytes: int  # of all


class _Slow:
    def __init__(self, port: int, path: str, window: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        self.socket.setblocking(False)
        self.end: _End | None = None
        self.first_byte = 0.0
        self.whole = False


def slow_crowd(port: int, path: str, clients: int, rate: int, seconds: float) -> Crowd:
    """Clients that read ``rate`` bytes a second each, all from the same moment.

    They are paced together: whoever has read its share of the time that went by waits for the next slice, so that one
    that was served late may catch up as a real one would, no faster than a socket's buffer allows.
    """
    window = max(16384, rate // 16)
    all_of_them = [_Slow(port, path, window) for _ in range(clients)]
    began = time.perf_counter()
    going = list(all_of_them)
    try:
        while going and time.perf_counter() - began < seconds:
            slice_began = time.perf_counter()
            allowed = (slice_began - began) * rate
            going = [each for each in going if _read(each, allowed, slice_began - began)]
            time.sleep(max(0.0, 0.02 - (time.perf_counter() - slice_began)))
        took = time.perf_counter() - began
    finally:
        for each in all_of_them:
            each.socket.close()
    counts = [each.end.count if each.end else 0 for each in all_of_them]
    waits = [each.first_byte or took for each in all_of_them]
    return Crowd(sum(each.whole for each in all_of_them), took, max(waits), sum(counts))


def _read(client: _Slow, allowed: float, now: float) -> bool:
    """Take what is there, up to what is allowed by now; whether there is more to come."""
    while client.end is None or client.end.count < allowed:
        most = 65536 if client.end is None else max(1, min(len(_BLOCK), int(allowed - client.end.count)))
        try:
            got = client.socket.recv_into(_BLOCK, most)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if client.end is None:
            client.first_byte = now
            client.end = _End(bytes(_BLOCK[:got]), 200)
        else:
            client.end.take(got)
        if not got or client.end.over:
            with suppress(Broken):
                client.end.check()
                client.whole = True
            client.socket.close()
            return False
    return True


def until(port: int, seconds: float = 30.0) -> None:
    """Wait until somebody listens on a port.

    :raises TimeoutError: nobody did.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens on port {port}") from None
            time.sleep(0.02)
        else:
            return
