"""A line between a client and a service that is cut at an exact byte, and a hand that strikes at that moment.

The rule of this file: until then, and afterwards, it passes on every byte in both directions and knows nothing of what
they mean. It listens on one port for life, so that clients keep their URLs.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Cutter"]

_PIECE = 64 * 1024
_Pair = tuple[socket.socket, socket.socket]


class Cutter:
    """In front of a service on ``target`` (a port). Whoever makes it closes it."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._lock = threading.Lock()
        self._striking = threading.Lock()
        self._left: dict[str, int | None] = {"up": None, "down": None}
        self._strike: Callable[[], object] | None = None
        self.struck = threading.Event()
        self._pairs: dict[_Pair, int] = {}  # and how many of their ways have ended
        self._closed = False
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def arm(self, count: int, strike: Callable[[], object] | None = None, *, way: str = "up") -> None:
        """Once ``count`` more bytes were passed on, ``way`` "up" (requests) or "down" (answers), in all connections
        together: call ``strike``, then reset every connection there is.
        """
        with self._striking, self._lock:
            self.struck.clear()
            self._left = {"up": None, "down": None, way: count}
            self._strike = strike

    def disarm(self) -> None:
        """Cut nothing any more. What is just being struck has been when this returns."""
        with self._striking, self._lock:
            self._left = {"up": None, "down": None}
            self._strike = None

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), 10)
            except OSError:
                _reset(near)
                continue
            for end in (near, far):
                end.settimeout(120)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs[near, far] = 0
            for way, source, sink in (("up", near, far), ("down", far, near)):
                threading.Thread(target=self._pass, args=(way, source, sink, (near, far)), daemon=True).start()

    def _pass(
        self, way: str, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        try:
            while True:
                # At most as much as is left: what the hand strikes at has then taken in no more than that.
                with self._lock:
                    left = self._left[way]
                piece = source.recv(_PIECE if left is None else min(_PIECE, left))
                if not piece:
                    with suppress(OSError):
                        sink.shutdown(socket.SHUT_WR)
                    return
                if not self._last(way, len(piece)):
                    sink.sendall(piece)
                    continue
                with self._striking:
                    sink.sendall(piece)
                    self._cut()
                return
        except OSError:
            for end in pair:
                _reset(end)
        finally:
            with self._lock:
                ended = self._pairs.get(pair, 0) + 1
                if pair in self._pairs:
                    self._pairs[pair] = ended
                if ended == 2:
                    self._pairs.pop(pair, None)
            if ended == 2:
                for end in pair:
                    end.close()

    def _last(self, way: str, count: int) -> bool:
        """Whether so many bytes are the last before the hand strikes."""
        with self._lock:
            left = self._left[way]
            if left is None:
                return False
            self._left[way] = left - count if left > count else None
            return left <= count

    def _cut(self) -> None:
        with self._lock:
            strike, self._strike = self._strike, None
        try:
            if strike is not None:
                strike()
        finally:
            with self._lock:
                pairs, self._pairs = self._pairs, {}
            for pair in pairs:
                for end in pair:
                    _reset(end)
            self.struck.set()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10)
        with self._lock:
            pairs, self._pairs = self._pairs, {}
        for pair in pairs:
            for end in pair:
                _reset(end)

    def __enter__(self) -> Cutter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
