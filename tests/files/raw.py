"""A client that sends exactly what it is told, and says all that came back.

The rule of this file: bare sockets on loopback, every wait has an end, and nothing is interpreted but status lines.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Heard", "Line", "chunk", "head"]

_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")


@dataclass(frozen=True)
class Heard:
    """All that a connection gave. ``ended``: by its end ("close", "reset"), or not within the time ("open")."""

    data: bytes
    ended: str
    seconds: float

    @property
    def statuses(self) -> list[int]:
        return [int(match[1]) for match in _STATUS.finditer(self.data)]

    @property
    def status(self) -> int | None:
        """The first final one."""
        return next((status for status in self.statuses if status >= 200), None)

    @property
    def document(self) -> dict[str, Any]:
        """The JSON that the last answer ends with."""
        found: dict[str, Any] = json.loads(self.data[self.data.rindex(b"\r\n\r\n") + 4 :])
        return found

    @property
    def problem(self) -> str | None:
        """The last part of a problem's type."""
        match = re.search(rb"urn:streamware:problem:([a-z-]+)", self.data)
        return None if match is None else match[1].decode()


class Line:
    """One connection. Used as a context manager."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 5)
        self.sent = 0
        self.broke = False  # the server took no more

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def send(self, *pieces: bytes) -> Line:
        """Send as much as the server takes."""
        for piece in pieces:
            view = memoryview(piece)
            while view and not self.broke:
                try:
                    count = self._socket.send(view[:65536])
                except OSError:
                    self.broke = True
                else:
                    self.sent += count
                    view = view[count:]
        return self

    def end(self) -> None:
        """Say that nothing more comes, and leave it open for an answer."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server has ended it already

    def reset(self) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def drip(self, piece: bytes, pause: float, seconds: float) -> Heard:
        """Send so much with such pauses until something is heard, or so long."""
        began = time.monotonic()
        while time.monotonic() - began < seconds and not self.broke:
            self.send(piece)
            heard = self.hear(pause, answers=1)
            if heard.data and heard.ended == "open":  # its head came first
                heard = self.hear(answers=1, before=heard.data)
            if heard.data or heard.ended != "open":
                return Heard(heard.data, heard.ended, time.monotonic() - began)
        return Heard(b"", "reset" if self.broke else "open", time.monotonic() - began)

    def hear(
        self, seconds: float = 5.0, answers: int | None = None, until: bytes | None = None, before: bytes = b""
    ) -> Heard:
        """Listen until the connection ends, so many final answers or a text have come, or the time is over.

        :param before: what has been heard already.
        """
        began, data, ended = time.monotonic(), before, "open"
        while (left := began + seconds - time.monotonic()) > 0:
            if (answers is not None and _whole(data) >= answers) or (until is not None and until in data):
                break
            self._socket.settimeout(left)
            try:
                block = self._socket.recv(65536)
            except TimeoutError:
                break
            except OSError:
                ended = "reset"
                break
            if not block:
                ended = "close"
                break
            data += block
        return Heard(data, ended, time.monotonic() - began)


def _whole(data: bytes) -> int:
    """How many final answers are there to their end, as their Content-Length says."""
    count = 0
    for match in _STATUS.finditer(data):
        length = re.search(rb"(?im)^content-length: *([0-9]+)", match[2])
        bare = match[1] in (b"204", b"304")
        if match[1] >= b"200" and (bare or (length and len(data) - match.end() >= int(length[1]))):
            count += 1
    return count


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/1.1", "Host: x", *lines, "")).encode("latin-1")


def chunk(data: bytes, size: int = 50_000) -> bytes:
    """Data in chunks, without the last one, which is ``chunk(b"")``."""
    if not data:
        return b"0\r\n\r\n"
    return b"".join(_chunks(data, size))


def _chunks(data: bytes, size: int) -> Iterable[bytes]:
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        yield b"%x\r\n%s\r\n" % (len(piece), piece)
