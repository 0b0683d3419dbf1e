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
from enum import IntEnum
from typing import NamedTuple, Protocol

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


class Method(IntEnum):
    """How a member's bytes stand in the archive; what each means in bytes is the format's affair."""

    PLAIN = 0  # as they are
    DEFLATE = 1  # really compressed: the length is known only afterwards
    DIRECTORY = 2  # no bytes at all
    AUTO = 3  # as DEFLATE, unless the first block shows that it would not shrink


class Entry(NamedTuple):
    """One member with its facts settled: all that decides its place and its records.

    ``name`` is clean, unique UTF-8 in NFC; a directory's ends in ``/``. ``size`` and ``crc32`` None: not known before
    the bytes have passed. ``modified`` is Unix seconds, ``mode`` the permission bits.
    """

    name: bytes
    size: int | None
    crc32: int | None
    modified: int
    mode: int
    method: Method
    comment: bytes = b""
    may_exceed_4gib: bool = False
    coded: int | None = None  # the size it is known to come to when it is really compressed
    passthrough: bool = False  # its source may give it deflated already; else it is as ``method`` says


class Hash(Protocol):
    """What ``hashlib`` makes."""

    def update(self, data: bytes, /) -> None: ...


class Table:
    """A sequence of entries kept in columns: about 100 bytes a member beside its name."""

    __slots__ = ("_coded", "_comments", "_crcs", "_flags", "_modes", "_modified", "_names", "_sizes")

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._sizes = array("q")
        self._crcs = array("q")
        self._modified = array("q")
        self._modes = array("H")
        self._flags = array("B")
        self._comments: dict[int, bytes] = {}
        self._coded: dict[int, int] = {}

    def append(self, entry: Entry) -> None:
        if entry.comment:
            self._comments[len(self._names)] = entry.comment
        if entry.coded is not None:
            self._coded[len(self._names)] = entry.coded
        self._names.append(entry.name)
        self._sizes.append(-1 if entry.size is None else entry.size)
        self._crcs.append(-1 if entry.crc32 is None else entry.crc32)
        self._modified.append(entry.modified)
        self._modes.append(entry.mode)
        self._flags.append(entry.method | entry.may_exceed_4gib << 7 | entry.passthrough << 6)

    def digest(self, into: Hash) -> None:
        """Feed everything that decides the layout to a hash, unambiguously."""
        for column in (self._sizes, self._crcs, self._modified, self._modes, self._flags):
            into.update(column.tobytes())
        into.update(b"\0".join(self._names))  # a clean name holds no NUL
        into.update(repr(sorted(self._comments.items())).encode())

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Entry:
        size, crc, flags = self._sizes[index], self._crcs[index], self._flags[index]
        return Entry(
            self._names[index],
            None if size < 0 else size,
            None if crc < 0 else crc,
            self._modified[index],
            self._modes[index],
            _METHODS[flags & 0x3F],
            self._comments.get(index, b"") if self._comments else b"",
            flags >= 0x80,
            self._coded.get(index) if self._coded else None,
            flags & 0x40 != 0,
        )

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self._names)))


_METHODS = tuple(Method)


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

    def segments(self, item: int, known: Known) -> tuple[Segment, ...]: ...


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
        layout = self.layout
        offsets = array("q")
        known = Known(layout.members, offsets)
        position = 0
        for item in range(layout.items):
            offsets.append(position)
            for segment in layout.segments(item, known):
                if segment.length is None:
                    return
                position += segment.length
        self.offsets = offsets
        self.length = position

    def known(self) -> Known:
        """A fresh state for one reading."""
        return Known(self.layout.members, self.offsets)

    def locate(self, offset: int) -> int:
        """The item that holds the byte at ``offset``. Only for a plan of known length."""
        assert self.offsets is not None
        return bisect_right(self.offsets, offset) - 1
