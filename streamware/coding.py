"""Bytes through a compressor, in blocks of one size that are coded each by itself.

The rule of this file: the same content gives the same coded bytes, whatever pieces it came in and however many threads
there were. So it is cut into blocks of one size, and each is coded from nothing but itself and the end of the one
before. None in a run of pieces ("the next one may have to be waited for") passes through.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache, partial
from hashlib import blake2b

from streamware.checksums import ENGINE, Compressor, crc32, deflate, zstandardizer
from streamware.errors import StreamwareError
from streamware.formats.framing import open_frames
from streamware.ledger import key_near
from streamware.line import Late, Line, in_order
from streamware.plan import Method

__all__ = ["BLOCK", "LEAD", "Parts", "Pieces", "coded_key", "deflated", "gzipped", "signature", "zstandardized"]

Pieces = Generator[bytes | None, None, None]
Parts = Generator[bytes | Late | None, None, None]

# Content coded at a time. PERF: 0.5 ms of the quickest engine, to 10 us for handing it to a thread; the text of logs
# comes out no larger than in one run, as the blocks of four times the size do, and those hold four times the memory.
BLOCK = 256 * 1024
LEAD = 512  # bytes of a compressed archive that leave at once: a first header, so that a download is seen to begin

_REACH = 32 * 1024  # of the block before; DEFLATE refers no farther back
_PROBE = 64 * 1024  # bytes tried before a member is compressed
_WORTH = 0.95  # compressing must save at least a twentieth of them

# RFC 1952 section 2.3: DEFLATE, no name, no time (so that the same input gives the same bytes), any system.
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


@lru_cache
def signature(coding: str | None = None, level: int | None = None) -> str:
    """What a compressor makes of a sample, hashed: compressors of one signature give the same bytes.

    A version number would not do: the accelerated ones also take other paths on other processors.

    :param coding: "gzip" or "zstd"; None for a member's raw DEFLATE.
    :param level: 1 to 9; None for the quickest.
    """
    sample = b"".join(b"%d %x\n" % (n, n * n * 2654435761 & 0xFFFFFFFF) for n in range(20_000))  # two blocks
    pieces = (piece for piece in (sample,))
    if coding == "zstd":
        parts = zstandardized(pieces)
    else:
        parts = in_order(gzipped(pieces, level) if coding else deflated(pieces, level, probe=False), Line())
    # Of two levels the sample may come out the same.
    digest = blake2b(f"{BLOCK} {_PROBE} {level} ".encode(), digest_size=8)
    for part in parts:
        digest.update(part or b"")
    return digest.hexdigest()


def coded_key(version: bytes, method: Method, level: int | None) -> bytes:
    """The ledger's key for what a member comes to when it is compressed: 16 bytes."""
    return key_near(version, f"{method:d} {signature(None, level)}".encode())


def deflated(pieces: Pieces, level: int | None, *, probe: bool) -> Parts:
    """A member's content as raw DEFLATE; with ``probe`` in stored blocks where its beginning would not shrink."""
    if probe:
        start: list[bytes] = []
        count = 0
        try:
            for piece in pieces:
                if piece is None:
                    yield None
                    continue
                start.append(piece)
                count += len(piece)
                if count > _PROBE:
                    break
        except StreamwareError:
            yield deflate(b"".join(start), level=level, last=False)
            raise
        first = b"".join(start)
        if count <= _PROBE:  # all there is
            yield Late(partial(_better, first, level), len(first), here=count < _worth(level))
            return
        sample = first[:_PROBE]
        pieces = _chain(first, pieces)
        del first, start, piece
        if not _shrinks(sample, deflate(sample, level=level)):
            yield from open_frames(pieces)
            return
    yield from _blocks(pieces, level)


def gzipped(pieces: Pieces, level: int | None) -> Parts:
    """All pieces as one gzip member (RFC 1952), whose first bytes come out without waiting for more."""
    crc = size = 0

    def passing() -> Pieces:
        nonlocal crc, size
        for piece in pieces:
            if piece is not None:
                crc = crc32(piece, crc)
                size += len(piece)
            yield piece

    yield _GZIP_HEADER
    yield from _blocks(passing(), level, lead=LEAD)
    yield crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def zstandardized(pieces: Pieces, threads: int = 1) -> Pieces:
    """All pieces as one frame (RFC 8878), whose first bytes come out without waiting for more.

    Where the pieces break off, what came before comes out in full, so that a reader meets the failing member.
    """
    coder: Compressor = zstandardizer(threads)
    lead = LEAD
    try:
        for block, _ in _cut(pieces, lead):
            if block is None:
                yield None
                continue
            out = coder.compress(block)
            if lead and block:
                lead, out = 0, out + coder.pause()
            if out:
                yield out
    except StreamwareError:
        yield coder.pause()
        raise
    yield coder.finish()


def _blocks(pieces: Pieces, level: int | None, *, lead: int = 0) -> Parts:
    """All pieces as raw DEFLATE, each block by itself. Where they break off, the stream does not end."""
    before = b""
    for block, last in _cut(pieces, lead):
        if block is None:
            yield None
            continue
        here = len(block) < _worth(level)
        yield Late(partial(deflate, block, before, level=level, last=last), len(block), here=here)
        before = (block if len(block) >= _REACH else before + block)[-_REACH:]


def _worth(level: int | None) -> int:
    """How many bytes have to be coded that another thread is woken for them.

    PERF: 10 us to wake it, and both wait for the interpreter: for 50 KiB of the quickest engine it took 12 % more CPU
    time and saved none of the clock's, for 32 KiB at level 6 it took 3 % and saved 20 %.
    """
    return 64 * 1024 if level is None and ENGINE == "isal" else 16 * 1024


def _better(content: bytes, level: int | None) -> bytes:
    """A whole content, deflated or in stored blocks."""
    out = deflate(content, level=level)
    return out if _shrinks(content, out) else b"".join(open_frames([content]))


def _shrinks(content: bytes, out: bytes) -> bool:
    return len(out) <= len(content) * _WORTH


def _cut(pieces: Pieces, lead: int = 0) -> Generator[tuple[bytes | None, bool], None, None]:
    """The same bytes in blocks of one size, the last one shorter and perhaps empty.

    The first one of ``lead`` bytes if that is not 0. With each whether it is the last. Where the pieces break off, the
    bytes held so far come first, and are not.
    """
    held: list[bytes] = []
    count = 0
    wanted = lead or BLOCK
    try:
        for piece in pieces:
            if piece is None:
                yield None, False
                continue
            held.append(piece)
            count += len(piece)
            if count < wanted:
                continue
            joined, at = b"".join(held), 0
            del piece
            held.clear()
            while count - at >= wanted:
                yield joined[at : at + wanted], False
                at += wanted
                wanted = BLOCK
            if at < count:
                held.append(joined[at:])
            count -= at
            del joined
    except StreamwareError:
        if held:
            yield b"".join(held), False
        raise
    yield b"".join(held), True


def _chain(first: bytes, rest: Pieces) -> Pieces:
    yield first
    del first
    yield from rest
