"""DEFLATE stored blocks: a compressed stream that compresses nothing, and whose length is therefore known ahead.

A member whose checksum is not known before it passes cannot be STORED: its checksum has to follow it, and readers of
a pipe find the end of such a member only where the data itself says so. Stored blocks (RFC 1951 section 3.2.4) say so,
cost 5 bytes in 65,535, and any byte of them is found by arithmetic.

The rule of this file: whoever frames the same content gets the same bytes, whatever the cuts of the pieces and whether
or not the size was known ahead.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from io import BytesIO
from struct import Struct
from typing import TypeVar

from streamware.errors import SizeMismatch

__all__ = ["BLOCK", "FullBlocks", "content_span", "framed_length", "frames", "full_blocks", "open_frames"]

BLOCK = 65535  # bytes of content in a full block: LEN is a 16-bit field
_HEADER = 5  # BFINAL and BTYPE padded to a byte, LEN, NLEN
_STRIDE = _HEADER + BLOCK

_header = Struct("<BHH").pack
_FULL = _header(0, BLOCK, 0)

# Sources may put None among their pieces, for "nothing yet"; it is handed on in its place.
_Piece = TypeVar("_Piece", bytes, bytes | None)


def framed_length(size: int) -> int:
    """How many bytes ``size`` bytes of content take in stored blocks; no content takes one empty block."""
    return size + _HEADER * (-(-size // BLOCK) or 1)


def content_span(size: int, start: int, stop: int) -> tuple[int, int]:
    """Which bytes of the content, half-open, stand in the framed bytes [``start``, ``stop``)."""
    return _content_before(size, start), _content_before(size, stop)


def _content_before(size: int, position: int) -> int:
    block, within = divmod(position, _STRIDE)
    return min(size, block * BLOCK + max(0, within - _HEADER))


def _header_of(block: int, size: int) -> bytes:
    left = size - block * BLOCK
    return _FULL if left > BLOCK else _header(1, left, left ^ 0xFFFF)


def frames(pieces: Iterable[_Piece], size: int, start: int, stop: int) -> Generator[_Piece, None, None]:
    """The framed bytes [``start``, ``stop``) of content of ``size`` bytes, about one output piece for each input piece.

    ``pieces`` give exactly ``content[slice(*content_span(size, start, stop))]``, cut anywhere, and must not change
    afterwards. Raises SizeMismatch when they give more or less.
    """
    position = start
    for piece in pieces:
        if piece is None:
            yield piece
            continue
        view = memoryview(piece)
        given = len(view)
        taken = 0
        parts: list[bytes | memoryview] = []
        while taken < given:
            block, within = divmod(position, _STRIDE)
            if within < _HEADER:
                parts.append(_header_of(block, size)[within:])
                position += _HEADER - within
                within = _HEADER
            step = min(_STRIDE - within, given - taken)
            parts.append(view[taken : taken + step])
            taken += step
            position += step
        if position > stop:
            raise SizeMismatch(f"more content than fits in the framed bytes [{start}, {stop})")
        if parts:
            framed = b"".join(parts)
            # What it was made of would be held beside it for as long as the client takes.
            parts, view, piece = [], memoryview(b""), b""
            yield framed
    if position < stop:
        # What may be left is the part of a header whose content lies beyond the window.
        block, within = divmod(position, _STRIDE)
        rest = _header_of(block, size)[within : within + stop - position]
        if len(rest) != stop - position:
            raise SizeMismatch(f"content ended at {position} of the framed bytes [{start}, {stop})")
        yield rest


def full_blocks(start: int, stop: int) -> int:
    """How many whole full blocks the framed bytes [``start``, ``stop``) begin with, counting only those that more of
    the content follows there."""
    return 0 if start % _STRIDE else max(0, (stop - start - _HEADER - 1) // _STRIDE)


class FullBlocks:
    """``count`` full blocks at a time, none of them a member's last, whose content is read right into its places.

    The headers stand ready in two buffers, which are used in turn. What is given is never touched again while anybody
    holds it (``BytesIO`` sees to that): whoever lets go of a piece before taking the next but one spares a copy. The
    one thing that a piece may show of an earlier one is its ``hash()``, if somebody took that and let go of it.

    PERF: of 500 files of 1 MiB each, read, summed and framed, 0.35 s/GiB instead of 0.6: nothing is copied to frame
    them, and no memory is asked of the system and given back for every one.
    """

    __slots__ = ("_turns", "count")

    def __init__(self, count: int) -> None:
        self.count = count
        template = (_FULL + bytes(BLOCK)) * count
        self._turns = [BytesIO(template), BytesIO(template)]

    def fill(self, read: Callable[[list[memoryview]], None]) -> bytes:
        """The blocks, once ``read`` has filled the places of their content, in order, to the last byte."""
        self._turns.reverse()
        made = self._turns[0]  # copied just now, if somebody still holds what it held
        places = _places(made.getbuffer())
        read(places)
        for place in places:
            place.release()
        return made.getvalue()

    def contents(self, piece: bytes) -> list[memoryview]:
        """The content in such a piece."""
        return _places(memoryview(piece))


def _places(blocks: memoryview) -> list[memoryview]:
    with blocks:
        return [blocks[at : at + BLOCK] for at in range(_HEADER, len(blocks), _STRIDE)]


def open_frames(pieces: Iterable[_Piece]) -> Generator[_Piece, None, None]:
    """All of a content whose size is not known, framed: full blocks, then a last one of 1 to 65,535 bytes (0 if empty).

    A full block is held back until more content comes, because the last one has to say that it is the last.
    """
    held: list[bytes | memoryview] = []
    total = 0
    for piece in pieces:
        if not piece:
            if piece is None:
                yield piece
            continue
        held.append(piece)
        total += len(piece)
        if total <= BLOCK:
            continue
        parts: list[bytes | memoryview] = []
        room = 0
        full = (total - 1) // BLOCK  # at least one byte stays for the last block
        left = full * BLOCK
        total -= left
        for part in held:
            view = memoryview(part)
            while left and len(view):
                if not room:
                    parts.append(_FULL)
                    room = BLOCK
                step = min(room, len(view))
                parts.append(view[:step])
                view = view[step:]
                room -= step
                left -= step
        # Everything but the end of the last piece has gone; a copy lets go of the piece itself.
        held = [bytes(view)]
        yield b"".join(parts)
    yield b"".join([_header(1, total, total ^ 0xFFFF), *held])
