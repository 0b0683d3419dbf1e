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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from operator import sub
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

    def update(self, data: bytes | memoryview, /) -> None: ...


class Table:
    """A sequence of entries kept in columns: some 40 bytes a member beside its name.

    The columns may be read as they stand: ``sizes`` and ``crcs`` with -1 for what is not known; ``flags`` 0 is PLAIN
    with nothing special about it.
    """

    __slots__ = ("_coded", "_comments", "_ends", "_last", "_modes", "_names", "crcs", "flags", "modified", "sizes")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._names = bytearray()  # each with a NUL behind it
        self._ends = array("q")  # where those stand
        self.sizes = array("q")
        self.crcs = array("q")
        self.modified = array("q")
        self._modes = array("H")
        self.flags = array("B")
        self._comments: dict[int, bytes] = {}
        self._coded: dict[int, int] = {}
        self._last: tuple[int, Entry] | None = None
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        row = len(self._ends)
        if entry.comment:
            self._comments[row] = entry.comment
        if entry.coded is not None:
            self._coded[row] = entry.coded
        self._names += entry.name
        self._ends.append(len(self._names))
        self._names.append(0)
        self.sizes.append(-1 if entry.size is None else entry.size)
        self.crcs.append(-1 if entry.crc32 is None else entry.crc32)
        self.modified.append(entry.modified)
        self._modes.append(entry.mode)
        self.flags.append(entry.method | entry.may_exceed_4gib << 7 | entry.passthrough << 6)

    def digest(self, into: Hash) -> None:
        """Feed everything that decides the layout to a hash, unambiguously."""
        for column in (self.sizes, self.crcs, self.modified, self._modes, self.flags):
            into.update(column.tobytes())
        with memoryview(self._names) as names:
            into.update(names[:-1])  # a clean name holds no NUL
        into.update(repr(sorted(self._comments.items())).encode())

    @property
    def late(self) -> bool:
        """Whether something is compressed whose size is known from an earlier time."""
        return bool(self._coded)

    @property
    def ascii(self) -> bool:
        """Whether all names are in ASCII."""
        return self._names.isascii()

    def name_lengths(self) -> Iterator[int]:
        """Of each name, in bytes."""
        return map(sub, self._ends, chain((0,), (end + 1 for end in self._ends)))

    def comment_length(self, index: int) -> int:
        return len(self._comments[index]) if index in self._comments else 0

    def longest_comment(self) -> tuple[int, int]:
        """The length of the longest comment, and whose it is."""
        return max(((len(c), i) for i, c in self._comments.items()), default=(0, 0))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Entry:
        last = self._last
        if last is not None and last[0] == index:  # PERF: a member is looked at ten times in its turn
            return last[1]
        end, size, crc, flags = self._ends[index], self.sizes[index], self.crcs[index], self.flags[index]
        start = self._ends[index - 1] + 1 if index else 0
        entry = Entry(
            bytes(self._names[start:end]),
            None if size < 0 else size,
            None if crc < 0 else crc,
            self.modified[index],
            self._modes[index],
            _METHODS[flags & 0x3F],
            self._comments.get(index, b"") if self._comments else b"",
            flags >= 0x80,
            self._coded.get(index) if self._coded else None,
            flags & 0x40 != 0,
        )
        self._last = index, entry
        return entry

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self)))


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
