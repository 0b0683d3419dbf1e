"""The checksums of many versions of one block, by their keys, in few bytes each; what was of no use for longest first.

The rule of this file: a version takes bytes of a table and no object; and a table is short enough to be searched.
"""

from __future__ import annotations

from struct import Struct

__all__ = ["Singles"]

_RECORD = Struct("<16sIQQ")  # key, CRC-32, and two times
_BYTES = _RECORD.size
_MEAN = 32  # records of a table, where all are full

_pack = _RECORD.pack
_unpack = _RECORD.unpack_from


class Singles:
    """Versions of one block. Not for several threads at a time.

    What is known of one is a tuple: its key, its CRC-32, when it was last news, and when of use.

    PERF: 100,000 take 4 MiB; in a dict of bytes and int they took 16. To look for one and put it takes 1 us.

    :param most: how many there will be, about; whoever puts them sees to it.
    """

    __slots__ = ("_hand", "_tables", "count")

    def __init__(self, most: int) -> None:
        # A table holds what was of use last at its end. Which one is a key's, Python's own hash says: nobody who
        # chooses keys can know that and fill one of them.
        self._tables = [bytearray() for _ in range(max(1, most // _MEAN))]
        self._hand = 0  # the table that has to give something up next
        self.count = 0  # of all versions

    def pop(self, version: bytes) -> tuple[bytes, int, int, int] | None:
        """Take a version out; None where it is not known."""
        tables = self._tables
        table = tables[hash(version) % len(tables)]
        at = table.find(version)
        if at < 0:
            return None
        while at % _BYTES:  # across two fields
            at = table.find(version, at + 1)
            if at < 0:
                return None
        known = _unpack(table, at)
        del table[at : at + _BYTES]
        self.count -= 1
        return known

    def put(self, version: bytes, crc32: int, since: int, used: int) -> None:
        """Add a version that is not there; no other is of later use."""
        tables = self._tables
        tables[hash(version) % len(tables)].extend(_pack(version, crc32, since, used))
        self.count += 1

    def oldest(self) -> int | None:
        """When the one that ``drop_oldest`` drops was last of use; None: there is none."""
        return _unpack(self._due())[3] if self.count else None

    def drop_oldest(self) -> None:
        del self._due()[:_BYTES]
        self.count -= 1
        self._hand = (self._hand + 1) % len(self._tables)

    def _due(self) -> bytearray:
        """The next table that is no shorter than others."""
        tables = self._tables
        least = (self.count // len(tables) or 1) * _BYTES
        while len(tables[self._hand]) < least:
            self._hand = (self._hand + 1) % len(tables)
        return tables[self._hand]
