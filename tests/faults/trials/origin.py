"""A server of one file that goes wrong in a given way at a given byte, and then does better, or never does.

The rule of this file: what is wrong can be seen by whoever looks (a body cut short, a range or validator that does not
fit). Other bytes under the same validator, which nobody can tell, are not among the faults.
"""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.upstreams import Peer, Request, answer

__all__ = ["BREAKS", "File", "Origin", "text"]

BREAKS = ("reset", "short", "stall", "drip")
_DRIP_SECONDS = 8.0
_PIECE = 16 * 1024
_LETTERS = bytes(b"etaoinsh rdlucm\n"[n % 16] for n in range(256))
_STATUS = {"500": "500 Oops", "502": "502 Bad Gateway", "503": "503 Busy"}


def text(size: int, seed: str) -> bytes:
    """Content that is like no other, no part of it like another part, and that can be compressed."""
    return random.Random(seed).randbytes(size).translate(_LETTERS)


@dataclass(frozen=True)
class File:
    """What a server has: bytes under an entity-tag, or under none."""

    data: bytes
    etag: str | None


@dataclass
class Origin:
    """A script for ``ScriptedUpstream``.

    ``acts`` are what it does, one for each GET that wants byte ``at`` of it or what stands before, in turn: break off
    there (BREAKS), answer with a status ("500", "502", "503"), a range nobody asked for ("early", "late", "total"), or
    turn to the ``other`` version for good ("other"; "other-part" without a look at If-Range). Afterwards it behaves,
    unless ``always``: then the last act goes on.
    """

    file: File
    ranges: bool = True
    framing: str = "length"  # or "chunked", "close"
    heads: bool = True
    at: int = 0
    acts: Sequence[str] = ()
    always: bool = False
    other: File | None = None
    log: list[str] = field(default_factory=list)  # what was asked, and what was done

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0
        self._now = self.file

    def __call__(self, request: Request, peer: Peer) -> None:
        if request.method == "HEAD":
            self.log.append("HEAD")
            length = len(self._now.data) if self.framing == "length" else None
            peer.send(self._head("200 OK", length) if self.heads else answer(b"", status="405 Method Not Allowed"))
            return
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", request.headers.get("range", "")) if self.ranges else None
        act = self._act(int(asked[1]) if asked else 0)
        self.log.append(f"GET {request.headers.get('range', '')} {act}")
        if act in _STATUS:
            peer.send(answer(b"no", status=_STATUS[act]))
            return
        if act.startswith("other"):
            assert self.other is not None
            self._now = self.other
        fits = act == "other-part" or request.headers.get("if-range", self._now.etag) == self._now.etag
        if asked and fits:
            self._part(peer, int(asked[1]), asked[2], act)
        else:
            self._whole(peer, act)

    def _act(self, start: int) -> str:
        with self._lock:
            if not self.acts or start > self.at:
                return ""
            number, self._next = self._next, self._next + 1
            if number < len(self.acts):
                return self.acts[number]
            return self.acts[-1] if self.always else ""

    def _head(self, status: str, length: int | None, *lines: str) -> bytes:
        tag = [f"ETag: {self._now.etag}"] if self._now.etag else []
        return answer(b"", *tag, *lines, status=status, length=length)

    def _part(self, peer: Peer, start: int, last: str, act: str) -> None:
        data = self._now.data
        stop = min(int(last) + 1 if last else len(data), len(data))
        if start >= len(data):
            peer.send(self._head("416 Range Not Satisfiable", 0, f"Content-Range: bytes */{len(data)}"))
            return
        shift = {"early": -1, "late": 1}.get(act, 0)
        if not 0 <= start + shift < stop:
            shift = 0
        total = len(data) + (1 if act == "total" or (act in ("early", "late") and not shift) else 0)
        start += shift
        place = f"Content-Range: bytes {start}-{stop - 1}/{total}"
        peer.send(self._head("206 Partial Content", stop - start, place))
        self._body(peer, data[start:stop], start, act)

    def _whole(self, peer: Peer, act: str) -> None:
        if self.framing == "length":
            peer.send(self._head("200 OK", len(self._now.data)))
        elif self.framing == "chunked":
            peer.send(self._head("200 OK", None, "Transfer-Encoding: chunked"))
        else:
            peer.send(self._head("200 OK", None, "Connection: close"))
        self._body(peer, self._now.data, 0, act, self.framing)

    def _body(self, peer: Peer, data: bytes, start: int, act: str, framing: str = "length") -> None:
        upto = max(0, self.at - start) if act in BREAKS else len(data)
        self._send(peer, data[:upto], framing)
        if act == "reset":
            peer.reset()
        elif act == "short":
            peer.close()
        elif act == "stall":
            peer.stall()
        elif act == "drip":
            deadline = time.monotonic() + _DRIP_SECONDS
            for number in range(upto, len(data)):
                if time.monotonic() > deadline:
                    break
                self._send(peer, data[number : number + 1], framing)
                peer.pause(0.02)
            peer.close()
        elif framing == "chunked":
            peer.send(b"0\r\n\r\n")
        elif framing == "close":
            with contextlib.suppress(OSError):
                peer.close()

    def _send(self, peer: Peer, data: bytes, framing: str) -> None:
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            peer.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
