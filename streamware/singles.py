"""The checksums of many versions of one block, by their keys, in few bytes each; what was of no use for longest first.

The rule of this file: a version takes bytes of a table and no object; and a table is short enough to be searched.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

__all__ = ["Single", "Singles"]

_KEY = 16
_RECORD = Struct("<16sIQQ")  # key, CRC-32, and two times
_BYTES = _RECORD.size
_MEAN = 64  # records of a table, where all are full
_MOST = 4 * _MEAN  # of one that is fuller than others, which keys that somebody chose can bring about


class Single(NamedTuple):
    crc32: int
    since: int  # when it was last news
    used: int


class Singles:
    """Versions of one block. Not for several threads at a time.

    PERF: 100,000 take 4 MiB; in a dict of bytes and int they took 16. One more is found, and put last, in 1.5 us.

    :param most: how many there will be, about; whoever puts them sees to it.
    """

    __slots__ = ("_count", "_hand", "_tables")

    def __init__(self, most: int) -> None:
        # A table holds what was of use last at its end.
        self._tables = [bytearray() for _ in range(max(1, most // _MEAN))]
        self._count = 0
        self._hand = 0  # the table that has to give something up next

    def __len__(self) -> int:
        return self._count

    def pop(self, version: bytes) -> Single | None:
        """Take a version out; None where it is not known."""
        table = self._table(version)
        at = table.find(version)
        while at >= 0 and at % _BYTES:  # across two fields
            at = table.find(version, at + 1)
        if at < 0:
            return None
        _, *values = _RECORD.unpack_from(table, at)
        del table[at : at + _BYTES]
        self._count -= 1
        return Single(*values)

    def put(self, version: bytes, crc32: int, since: int, used: int) -> None:
        """Add a version that is not there; no other is of later use."""
        table = self._table(version)
        table += _RECORD.pack(version, crc32, since, used)
        self._count += 1
        if len(table) > _MOST * _BYTES:
            self._shorten(table)

    def oldest(self) -> Single | None:
        """One of those that were of no use for longest, which ``drop_oldest`` drops; None where there is none."""
        if not self._count:
            return None
        _, *values = _RECORD.unpack_from(self._due())
        return Single(*values)

    def drop_oldest(self) -> None:
        self._shorten(self._due())
        self._hand = (self._hand + 1) % len(self._tables)

    def _table(self, version: bytes) -> bytearray:
        return self._tables[int.from_bytes(version[-4:], "big") % len(self._tables)]

    def _due(self) -> bytearray:
        """The next table that is no shorter than others."""
        tables = self._tables
        mean = self._count // len(tables) or 1
        while len(tables[self._hand]) < mean * _BYTES:
            self._hand = (self._hand + 1) % len(tables)
        return tables[self._hand]

    def _shorten(self, table: bytearray) -> None:
        del table[:_BYTES]
        self._count -= 1
