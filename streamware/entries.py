"""The members of an archive with their facts settled, as a table.

The rule of this file: no I/O, no clock; it holds what was settled, and settles nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import chain
from operator import sub
from typing import NamedTuple, Protocol

__all__ = ["METHOD", "PASSES", "Entry", "Method", "Table"]

# In a table's flags: the method, and two bits beside it.
METHOD, PASSES, _EXCEEDS = 0x3F, 0x40, 0x80


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
        name, size, crc32, modified, mode, method, comment, exceeds, coded, passthrough = entry
        names, ends = self._names, self._ends
        if comment:
            self._comments[len(ends)] = comment
        if coded is not None:
            self._coded[len(ends)] = coded
        names += name
        ends.append(len(names))
        names.append(0)
        self.sizes.append(-1 if size is None else size)
        self.crcs.append(-1 if crc32 is None else crc32)
        self.modified.append(modified)
        self._modes.append(mode)
        self.flags.append(method | exceeds * _EXCEEDS | passthrough * PASSES if exceeds or passthrough else method)

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

    def name(self, index: int) -> bytes:
        return bytes(self._names[self._ends[index - 1] + 1 if index else 0 : self._ends[index]])

    def mode(self, index: int) -> int:
        return self._modes[index]

    def comment(self, index: int) -> bytes:
        return self._comments.get(index, b"") if self._comments else b""

    def coded(self, index: int) -> int | None:
        """The size it is known to come to when it is really compressed."""
        return self._coded.get(index) if self._coded else None

    def name_lengths(self) -> Iterator[int]:
        """Of each name, in bytes."""
        return map(sub, self._ends, chain((0,), (end + 1 for end in self._ends)))

    def longest_comment(self) -> tuple[int, int]:
        """The length of the longest comment, and whose it is."""
        return max(((len(c), i) for i, c in self._comments.items()), default=(0, 0))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Entry:
        last = self._last
        if last is not None and last[0] == index:  # PERF: a member is looked at ten times in its turn
            return last[1]
        size, crc, flags = self.sizes[index], self.crcs[index], self.flags[index]
        entry = Entry(
            self.name(index),
            None if size < 0 else size,
            None if crc < 0 else crc,
            self.modified[index],
            self._modes[index],
            _METHODS[flags & METHOD],
            self.comment(index),
            flags & _EXCEEDS != 0,
            self.coded(index),
            flags & PASSES != 0,
        )
        self._last = index, entry
        return entry

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self)))


_METHODS = tuple(Method)
