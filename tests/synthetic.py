"""Content of any size that costs no memory: what tests serve as members, and how they read an archive by ranges."""

from __future__ import annotations

import io
from collections.abc import Iterator

from streamware import Archiver, Bundle, Conditions
from streamware.checksums import crc32
from streamware.model import Facts

_PERIOD = bytes(range(1, 252)) * 523  # 131,273 bytes: a prime number of periods, so that no block looks like the next


def content(size: int, seed: int, start: int = 0) -> bytes:
    """Bytes ``start`` to ``size`` of the content that a seed stands for."""
    at = (start + seed * 7919) % len(_PERIOD)
    count = size - start
    return (_PERIOD[at:] + _PERIOD * (count // len(_PERIOD) + 1))[:count]


class Synthetic:
    """A pinned source of ``size`` bytes, given in pieces of ``cut`` bytes; ``opened`` lists the ranges asked for."""

    def __init__(
        self,
        size: int,
        seed: int = 0,
        *,
        cut: int = 65536,
        size_known: bool = True,
        crc_known: bool = False,
        instant: bool = True,
        zeros: bool = False,
        unnamed: bool = False,
    ) -> None:
        self.size = size
        self.seed = seed
        self.cut = cut
        self.size_known = size_known
        self.crc_known = crc_known
        self.instant = instant
        self.zeros = zeros
        self.unnamed = unnamed
        self.opened: list[tuple[int, int | None]] = []
        self.live = 0

    def probe(self, *, keep: bool = False) -> Facts:
        crc = None
        if self.crc_known:
            crc = 0
            for piece in self._pieces(0, self.size):
                crc = crc32(piece, crc)
        return Facts(
            size=self.size if self.size_known else None,
            modified=1_700_000_000 + self.seed,
            validator=f'"{self.size}-{self.seed}"',
            crc32=crc,
            identity=None if self.unnamed else f"synthetic:{id(self)}",
        )

    def open(self, start: int, length: int | None) -> SyntheticChunks:
        self.opened.append((start, length))
        self.live += 1
        return SyntheticChunks(self, self._pieces(start, self.size if length is None else start + length))

    def close(self) -> None:
        pass

    def _pieces(self, start: int, stop: int) -> Iterator[bytes]:
        block = bytes(self.cut) if self.zeros else b""
        while start < stop:
            end = min(stop, start + self.cut)
            if self.zeros:
                yield block[: end - start]
            else:
                yield content(end, self.seed, start)
            start = end


class SyntheticChunks:
    def __init__(self, source: Synthetic, pieces: Iterator[bytes]) -> None:
        self._source = source
        self._pieces = pieces
        self._open = True

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def ready(self) -> bool:
        return self._source.instant

    def abort(self) -> None:
        self._pieces = iter(())

    def close(self) -> None:
        if self._open:
            self._open = False
            self._source.live -= 1


def read(archiver: Archiver, bundle: Bundle) -> bytes:
    """The whole archive, through the public API."""
    body = archiver.open(bundle)
    try:
        data = b"".join(body)
        assert body.length in (None, len(data))
        return data
    finally:
        body.close()


def ranged(archiver: Archiver, bundle: Bundle, header: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and body of a request with a Range header."""
    reply = archiver.respond(bundle, Conditions(range=header))
    try:
        return reply.status, {n.lower(): v for n, v in reply.headers}, b"".join(reply.body)
    finally:
        reply.body.close()


class RangeFile(io.RawIOBase):
    """An archive as a seekable file whose every read is a range request: what lies between is never made."""

    def __init__(self, archiver: Archiver, bundle: Bundle) -> None:
        self._archiver = archiver
        self._bundle = bundle
        self._at = 0
        reply = archiver.respond(bundle, Conditions("HEAD"))
        reply.body.close()
        self.length = int(reply.header("Content-Length") or "")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self.length)[whence]
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self.length - self._at)
        if wanted <= 0:
            return 0
        status, headers, data = ranged(self._archiver, self._bundle, f"bytes={self._at}-{self._at + wanted - 1}")
        assert status == 206, status
        assert headers["content-range"] == f"bytes {self._at}-{self._at + wanted - 1}/{self.length}"
        assert len(data) == wanted
        buffer[:wanted] = data
        self._at += wanted
        return wanted
