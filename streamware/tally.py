"""What a member comes to in the archive where that is settled only when its bytes have passed.

The rule of this file: no more bytes go out than were promised, and what is learned is what all of them came to.
"""

from __future__ import annotations

from collections.abc import Callable

from streamware.coding import Parts
from streamware.errors import MemberTooLarge, SizeMismatch, StreamwareError
from streamware.formats.zip_records import MAX_32
from streamware.line import Late

__all__ = ["Tally"]


class Tally:
    """Lets ``[low, high)`` of a member's coded bytes through, and counts all of them, in the order they are sent in.

    :param length: what they were promised to come to; None: nothing was.
    :param bounded: whether 32-bit framing has to hold whatever they come to.
    :param ended: told what they came to.
    :param named: names the member in an error.
    """

    __slots__ = ("_bounded", "_ended", "_high", "_length", "_low", "_named", "count")

    def __init__(
        self,
        length: int | None,
        low: int,
        high: int | None,
        *,
        bounded: bool,
        ended: Callable[[int], object],
        named: Callable[[StreamwareError], StreamwareError],
    ) -> None:
        self._length = length
        self._low = low
        self._high = high
        self._bounded = bounded
        self._ended = ended
        self._named = named
        self.count = 0

    def of(self, parts: Parts) -> Parts:
        """The same parts; of what lies behind the window no more than is under way already."""
        for part in parts:
            if part is None:
                yield None
                continue
            late = part if isinstance(part, Late) else Late.of(part)
            late.then = self._passes
            del part
            yield late
            del late
            if self._high is not None and self._high != self._length and self.count >= self._high:
                return
        yield Late(then=self._ends)

    def _passes(self, piece: bytes) -> bytes:
        low, high, start = self._low, self._high, self.count
        self.count = count = start + len(piece)
        if count >= MAX_32 and self._bounded:
            raise self._named(
                MemberTooLarge(f"a member of unknown size, not announced with may_exceed_4gib, came to {count} bytes")
            )
        if self._length is not None and count > self._length:
            return b""  # the rest passes only to be counted
        if start >= low and (high is None or count <= high):
            return piece
        return piece[max(0, low - start) : None if high is None else max(0, high - start)]

    def _ends(self, _: bytes) -> bytes:
        self._ended(self.count)
        if self._length not in (None, self.count):
            raise self._named(
                SizeMismatch(f"a member came to {self.count} bytes in the archive, and {self._length} were promised")
            )
        return b""
