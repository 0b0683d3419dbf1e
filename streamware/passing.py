"""Members that come deflated already: what their source hands over, and how that goes on into the archive.

A source that may give either (``sources.gzipped``) says which in the first byte of its first piece: ``PLAIN``, and the
rest is content; or ``DEFLATED``, and the rest is raw DEFLATE, but for the last piece, which is ``TRAILER`` with the
checksum and size of the content. So it fits through whatever reads ahead and knows only pieces.

The rule of this file: the last bytes of a deflated member are held back until its trailer has come, and that comes only
when the source has proved it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct

from streamware.coding import Pieces
from streamware.errors import ChecksumMismatch, SizeMismatch
from streamware.model import Chunks
from streamware.plan import Entry

__all__ = ["DEFLATED", "PLAIN", "TRAILER", "Rest", "passed"]

PLAIN, DEFLATED = b"\0", b"\1"
TRAILER = Struct("<IQ")  # CRC-32 and size


class Rest:
    """``Chunks`` of what is left behind a first piece that was taken already; its bytes, if any, come again."""

    __slots__ = ("_chunks", "_first", "abort", "close")

    def __init__(self, first: bytes, chunks: Chunks) -> None:
        self._first = first
        self._chunks = chunks
        self.abort, self.close = chunks.abort, chunks.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        first, self._first = self._first, b""
        return first or next(self._chunks)

    def ready(self) -> bool:
        return bool(self._first) or self._chunks.ready()


def passed(pieces: Pieces, entry: Entry, proved: Callable[[int, int, int], None]) -> Pieces:
    """The DEFLATE bytes of a member; ``pieces`` are the source's, without the first byte.

    :param proved: told, before the last of them, the checksum and size of the content, and the bytes that came.
    :raises SizeMismatch, ChecksumMismatch: the content is not what was declared.
    """
    held = last = b""  # the last two: DEFLATE, and perhaps the trailer
    coded = 0
    for piece in pieces:
        if not piece:
            if piece is None:
                yield None
            continue
        if held:
            # Not held here while the client takes its time.
            given, held = [held], b""
            yield given.pop()
        held, last = last, piece
        coded += len(piece)
    crc, size = TRAILER.unpack(last)
    if entry.size not in (None, size):
        raise SizeMismatch(f"{size} bytes of content came deflated, and {entry.size} were promised")
    if entry.crc32 not in (None, crc):
        raise ChecksumMismatch(f"CRC-32 is {crc:08x}, and {entry.crc32:08x} was promised")
    proved(crc, size, coded)
    yield held
