"""The archive as data: what bytes stand where, before any of them is fetched.

A plan is a run of *items* (members, directory records, end records). Each item is a few *segments*, and a segment
either holds its bytes or says how to come by them. The rules of this file: no I/O, no clock; and the length of an
archive is the sum of the lengths of the segments that will be sent - there is no second formula.

Items are made on demand and thrown away again, so a plan of 100,000 members costs the table of their facts and one
number an item.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from streamware.entries import Entry, Method, Table

__all__ = [
    "Coded",
    "Derived",
    "Entry",
    "Extent",
    "Framed",
    "Known",
    "Layout",
    "Literal",
    "Method",
    "Passed",
    "Plan",
    "Segment",
    "Table",
    "Window",
]


class Known:
    """What one reading of a plan knows beyond the entries: where items began, and what passing bytes have shown.

    It never changes a layout, only fills it in: checksums for the records that quote them, and, in a plan of unknown
    length, the sizes and offsets that came out.
    """

    __slots__ = ("_crcs", "coded", "offsets", "sizes", "skipped")

    def __init__(self, members: int, offsets: array[int] | None = None) -> None:
        self.offsets: array[int] = array("q") if offsets is None else offsets
        self._crcs = array("q", [-1]) * members
        self.sizes: dict[int, int] = {}  # bytes of content, for members whose entry has no size
        self.coded: dict[int, int] = {}  # bytes in the archive, for members whose coded size cannot be computed
        self.skipped: set[int] = set()  # members left out while an archive of unknown length is made

    def crc32(self, member: int) -> int | None:
        crc = self._crcs[member]
        return None if crc < 0 else crc

    def learn_crc32(self, member: int, crc32: int) -> None:
        self._crcs[member] = crc32


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are known."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Extent:
    """All bytes of a member as they are; ``length`` None: until the source ends."""

    member: int
    length: int | None


@dataclass(frozen=True, slots=True)
class Framed:
    """All bytes of a member as DEFLATE stored blocks (RFC 1951 section 3.2.4).

    ``size`` is the content's, ``length`` the frames'; both None: until the source ends.
    """

    member: int
    size: int | None
    length: int | None


@dataclass(frozen=True, slots=True)
class Coded:
    """All bytes of a member, really deflated.

    With ``probe`` the first block is tried first, and a member that would not shrink goes in stored blocks instead.
    ``length`` is what it is known to come to from an earlier time; None: it comes out afterwards.
    """

    member: int
    probe: bool = False
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Passed:
    """A member as DEFLATE: as its source gives it, or else made of its content in the way of ``otherwise``.

    Its length comes out afterwards.
    """

    member: int
    otherwise: Framed | Coded

    @property
    def length(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Derived:
    """A record of known length that quotes the checksum of ``member``: rendered when that is known."""

    member: int
    length: int
    render: Callable[[Known], bytes]


Segment = Literal | Extent | Framed | Coded | Passed | Derived


class Layout(Protocol):
    """A format's answer to "what stands where": pure, stateless between calls.

    The first ``members`` items are the members in order; the rest are the format's own records. ``segments(item,
    known)`` may look at ``known.offsets[:item + 1]``. Where every entry has a size and none is really compressed, each
    segment has a length, and that length depends on the entries and offsets alone.
    """

    @property
    def members(self) -> int: ...

    @property
    def items(self) -> int: ...

    @property
    def inline_bytes(self) -> int:
        """Members of known size up to this, of method PLAIN, stand as ``around`` says."""

    def segments(self, item: int, known: Known) -> tuple[Segment, ...]: ...

    def around(self, member: int, crc32: int) -> tuple[bytes, bytes]:
        """What stands before and behind the content of such a member, or of a directory: the same that ``segments``
        holds, once the checksum is known.
        """

    def records(self, item: int, stop: int, known: Known, most: int) -> list[bytes]:
        """The records at the items from ``item`` on, as ``segments`` would give them, of a plan of known length; no
        further than to ``stop``, to where a checksum is not known, or to the one that makes them ``most`` bytes.
        """

    def lengths(self, known: Known) -> Iterator[int | None]:
        """What the lengths of each item's segments come to, in order, while none is skipped; None: that comes out.

        ``known.offsets`` gets an item's offset before its length is asked for. It is told by segments that were made:
        by those of another item only where nothing but lengths that both name makes them differ.
        """


@dataclass(frozen=True, slots=True)
class Window:
    """A half-open range of an archive's bytes; ``stop`` None: up to the end, wherever that will be."""

    start: int
    stop: int | None

    @property
    def length(self) -> int | None:
        return None if self.stop is None else self.stop - self.start


class Plan:
    """A layout with its offsets settled. ``length`` in bytes is None when some member's is not known.

    :param etag: the archive's entity-tag as on the wire, or None.
    :param coding: a compression around the whole ("gzip", "zstd"), which makes the length unknown.
    :param level: at which DEFLATE compresses, 1 to 9; None: as is quickest.
    """

    __slots__ = ("coding", "etag", "layout", "length", "level", "offsets")

    def __init__(
        self, layout: Layout, *, etag: str | None = None, coding: str | None = None, level: int | None = None
    ) -> None:
        self.layout = layout
        self.etag = etag
        self.coding = coding
        self.level = level
        self.offsets: array[int] | None = None
        self.length: int | None = None
        if coding is None:
            self._measure()

    def _measure(self) -> None:
        offsets = array("q")
        known = Known(self.layout.members, offsets)
        position = 0
        lengths = self.layout.lengths(known)
        for _ in range(self.layout.items):
            offsets.append(position)
            length = next(lengths)
            if length is None:
                return
            position += length
        self.offsets = offsets
        self.length = position

    def known(self) -> Known:
        """A fresh state for one reading."""
        return Known(self.layout.members, self.offsets)

    def locate(self, offset: int) -> int:
        """The item that holds the byte at ``offset``. Only for a plan of known length."""
        assert self.offsets is not None
        return bisect_right(self.offsets, offset) - 1
