"""What comes over a socket: waited for, and not too slow; or just what is there.

The rule of this file: a wait ends with the socket's own timeout or with too little in too long, and is in one place.
"""

from __future__ import annotations

import os
import select
import ssl
from math import inf
from socket import socket
from time import monotonic

__all__ = ["Pace", "at_once", "has_some"]


class Pace:
    """How fast an answer comes. A time limit for each read alone never ends one that comes byte by byte.

    Only the waiting counts, so that a reader who takes his time is not held against the sender.

    :param enough: bytes that make up for all waiting before them; :param seconds: how long they may be waited for.
    """

    __slots__ = ("_came", "_enough", "_seconds", "_waited")

    def __init__(self, enough: float, seconds: float) -> None:
        self._enough = enough
        self._seconds = seconds
        self._came = 0
        self._waited = 0.0

    def restart(self) -> None:
        """From here on count anew."""
        self._came, self._waited = 0, 0.0

    def lift(self) -> None:
        """From here on any pace is fast enough."""
        self._seconds = inf

    def receive(self, sock: socket, most: int) -> bytes:
        """At most so many bytes; b"" at the connection's end. Raises TimeoutError where they come too slowly."""
        if self._waited >= self._seconds:
            raise TimeoutError(f"{self._came} bytes came in {self._waited:.1f} s of waiting")
        began = monotonic()
        data = sock.recv(most)
        self._came += len(data)
        if self._came >= self._enough:
            self._came, self._waited = 0, 0.0
        else:
            self._waited += monotonic() - began
        return data


def has_some(sock: socket) -> bool:
    """Whether there is something to be received without waiting, the connection's end perhaps."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    poll = select.poll()  # not select(), which knows no descriptor above 1023
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def at_once(sock: socket, most: int) -> bytes:
    """At most so many bytes that are there. Raises BlockingIOError or SSLWantReadError if there are none."""
    if not isinstance(sock, ssl.SSLSocket):
        return os.read(sock.fileno(), most)  # a socket with a timeout does not block by itself
    patience = sock.gettimeout()
    sock.settimeout(0)
    try:
        return sock.recv(most)
    finally:
        sock.settimeout(patience)
