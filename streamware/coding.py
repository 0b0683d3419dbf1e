"""Bytes through a compressor, in blocks of one size.

The rule of this file: the same content gives the same coded bytes whatever pieces it came in, so blocks of one size go
into the compressor. None in a run of pieces ("the next one may have to be waited for") passes through.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import lru_cache
from hashlib import blake2b

from streamware.checksums import Compressor, deflater, gzipper, zstandardizer
from streamware.errors import StreamwareError
from streamware.formats.framing import open_frames
from streamware.ledger import key_near
from streamware.plan import Method

__all__ = ["CODERS", "Pieces", "blocks", "coded", "coded_key", "deflated", "signature"]

Pieces = Generator[bytes | None, None, None]

CODERS: dict[str, Callable[[], Compressor]] = {"gzip": gzipper, "zstd": zstandardizer}

_PROBE = 64 * 1024  # bytes tried before a member is compressed
_WORTH = 0.95  # compressing must save at least a twentieth of them


@lru_cache
def signature(coding: str | None = None) -> str:
    """What a compressor makes of a sample, hashed: compressors of one signature give the same bytes.

    A version number would not do: the accelerated ones also take other paths on other processors.

    :param coding: "gzip" or "zstd"; None for a member's raw DEFLATE.
    """
    sample = b"".join(b"%d %x\n" % (n, n * n * 2654435761 & 0xFFFFFFFF) for n in range(20_000))
    coder = deflater() if coding is None else CODERS[coding]()
    return blake2b(coder.compress(sample) + coder.finish(), digest_size=8).hexdigest()


def coded_key(version: bytes, method: Method, block_bytes: int) -> bytes:
    """The ledger's key for what a member comes to when it is compressed: 16 bytes."""
    return key_near(version, f"{method:d} {block_bytes} {signature()}".encode())


def coded(pieces: Pieces, coder: Compressor, block_bytes: int, *, lead: int = 0) -> Pieces:
    """All pieces through one compressor; the first ``lead`` bytes come out without waiting for more.

    Where the pieces break off, what came before comes out in full, so that a reader meets the failing member.
    """
    try:
        for block in blocks(pieces, block_bytes, lead=lead):
            if block is None:
                yield None
                continue
            out = coder.compress(block)
            if lead:
                lead, out = 0, out + coder.pause()
            if out:
                yield out
    except StreamwareError:
        yield coder.pause()
        raise
    yield coder.finish()


def deflated(pieces: Pieces, block_bytes: int, *, probe: bool) -> Pieces:
    """A member's content as raw DEFLATE; with ``probe`` in stored blocks where its first block would not shrink."""
    if probe:
        run = blocks(pieces, block_bytes)
        first = b""
        for block in run:
            if block is not None:
                first = block
                break
            yield None
        trial, sample = deflater(), first[:_PROBE]
        if len(trial.compress(sample)) + len(trial.finish()) > len(sample) * _WORTH:
            yield from open_frames(_chain(first, run))
            return
        pieces = _chain(first, run)
    yield from coded(pieces, deflater(), block_bytes)


def blocks(pieces: Pieces, size: int, *, lead: int = 0) -> Pieces:
    """The same bytes in blocks of exactly ``size``, the last one shorter; the first of ``lead`` bytes if that is set.

    Where the pieces break off, the bytes held so far come first.
    """
    held: list[bytes] = []
    count = 0
    wanted = lead or size
    try:
        for piece in pieces:
            if piece is None:
                yield None
                continue
            held.append(piece)
            count += len(piece)
            if count < wanted:
                continue
            joined, at = b"".join(held), 0
            while count - at >= wanted:
                yield joined[at : at + wanted]
                at += wanted
                wanted = size
            held = [joined[at:]] if at < count else []
            count -= at
    except StreamwareError:
        if held:
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)


def _chain(first: bytes, rest: Pieces) -> Pieces:
    if first:
        yield first
    yield from rest
