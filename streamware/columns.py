"""Columns: what is known of many members, kept by row, so that a row costs bytes and not objects.

The rule of this file: what comes out equals what was put in, None included; and rows that were never set take nothing
where none behind them was.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import chain, repeat

__all__ = ["Blobs", "Numbers", "Texts"]

_NONE = -(2**63)
_NONES = array("q", [_NONE])


class Numbers:
    """Whole numbers: 8 bytes a row, more for one that 64 bits do not hold."""

    __slots__ = ("_odd", "_values")

    def __init__(self) -> None:
        self._values = array("q")
        self._odd: dict[int, int] = {}

    def put(self, row: int, value: int | None) -> None:
        values = self._values
        if row >= len(values):
            if value is None:
                return
            values.extend(_NONES * (row + 1 - len(values)))
        if self._odd:
            self._odd.pop(row, None)
        if value is None:
            values[row] = _NONE
            return
        values[row] = _NONE
        try:
            values[row] = value
        except (TypeError, OverflowError):  # another's mistake shows where the number is used, as it always did
            self._odd[row] = value
        else:
            if value == _NONE:
                self._odd[row] = value

    def __getitem__(self, row: int) -> int | None:
        values = self._values
        if row >= len(values):
            return None
        value = values[row]
        return value if value != _NONE else self._odd.get(row)

    def all(self, rows: int) -> Iterator[int | None]:
        """The first ``rows``, in order; faster than one by one."""
        values = self._values
        if not values:
            return repeat(None, rows)
        if self._odd:
            return map(self.__getitem__, range(rows))
        return chain((None if v == _NONE else v for v in values), repeat(None, rows - len(values)))

    def copy(self) -> Numbers:
        made = Numbers()
        made._values, made._odd = self._values[:], self._odd.copy()
        return made


class Blobs:
    """Bytes: 12 a row beside their own. What is replaced stays behind until all goes."""

    __slots__ = ("_bytes", "_lengths", "_starts")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._starts = array("q")
        self._lengths = array("I")

    def put(self, row: int, value: bytes | None) -> None:
        starts = self._starts
        if row >= len(starts):
            if value is None:
                return
            more = row + 1 - len(starts)
            starts.extend(_NONES * more)
            self._lengths.frombytes(bytes(self._lengths.itemsize * more))
        if value is None:
            starts[row] = _NONE
            return
        starts[row], self._lengths[row] = len(self._bytes), len(value)
        self._bytes += value

    def __bool__(self) -> bool:
        """Whether any row was ever set."""
        return bool(self._starts)

    def __getitem__(self, row: int) -> bytes | None:
        found = self.find(row)
        return None if found is None else bytes(found)

    def all(self, rows: int) -> Iterator[bytes | None]:
        """The first ``rows``, in order."""
        return (None if found is None else bytes(found) for found in self.find_all(rows))

    def find(self, row: int) -> bytearray | None:
        """A copy of what stands in a row, for who makes something else of it."""
        if row >= len(self._starts):
            return None
        start = self._starts[row]
        return None if start == _NONE else self._bytes[start : start + self._lengths[row]]

    def find_all(self, rows: int) -> Iterator[bytearray | None]:
        """``find`` of the first ``rows``, in order; faster than one by one."""
        together = self._bytes
        found = (
            None if start == _NONE else together[start : start + length]
            for start, length in zip(self._starts, self._lengths, strict=True)
        )
        return chain(found, repeat(None, rows - len(self._starts)))

    def copy(self) -> Blobs:
        made = Blobs()
        made._bytes, made._starts, made._lengths = self._bytes[:], self._starts[:], self._lengths[:]
        return made


class Texts:
    """Texts, whatever stands in them: 12 bytes a row beside their UTF-8; as objects they would take 49."""

    __slots__ = ("_blobs",)

    def __init__(self) -> None:
        self._blobs = Blobs()

    def __bool__(self) -> bool:
        """Whether any row was ever set."""
        return bool(self._blobs)

    def put(self, row: int, value: str | None) -> None:
        self._blobs.put(row, None if value is None else value.encode("utf-8", "surrogatepass"))

    def __getitem__(self, row: int) -> str | None:
        raw = self._blobs.find(row)
        return None if raw is None else raw.decode("utf-8", "surrogatepass")

    def all(self, rows: int) -> Iterator[str | None]:
        """The first ``rows``, in order."""
        found = self._blobs.find_all(rows)
        return (None if raw is None else raw.decode("utf-8", "surrogatepass") for raw in found)

    def copy(self) -> Texts:
        made = Texts()
        made._blobs = self._blobs.copy()
        return made
