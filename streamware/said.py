"""What the sources of a bundle's members said of them, kept by member as columns.

The rule of this file: it gives back what it was told, and one answer costs bytes and not objects.
"""

from __future__ import annotations

from streamware.columns import Numbers, Texts
from streamware.model import Facts

__all__ = ["UNKNOWN", "Said"]

UNKNOWN = Facts()
_MAX_TYPES = 255
_NOTHING = (None,) * 6


class Said:
    """Facts by the index of a member; UNKNOWN where none were told.

    Not for several threads that put at a time. What is rarely said of many members is kept as it is.
    """

    def __init__(self) -> None:
        self._sizes = Numbers()
        self._times = Numbers()
        self._sums = Numbers()  # CRC-32
        self._validators = Texts()
        self._identities = Texts()
        self._types = Numbers()
        self._type_numbers: dict[str, int] = {}
        self._whole: dict[int, Facts] = {}
        self._told = False

    def put(self, index: int, facts: Facts) -> None:
        self._told = True
        kind = facts.media_type
        columns = Facts(facts.size, facts.modified, facts.validator, facts.crc32, None, kind, facts.identity)
        known = kind is None or kind in self._type_numbers or len(self._type_numbers) < _MAX_TYPES
        if facts != columns or not known:
            self._whole[index] = facts
            return
        self._sizes.put(index, facts.size)
        self._times.put(index, facts.modified)
        self._sums.put(index, facts.crc32)
        self._validators.put(index, facts.validator)
        self._identities.put(index, facts.identity)
        self._types.put(index, None if kind is None else self._type_numbers.setdefault(kind, len(self._type_numbers)))

    def __getitem__(self, index: int) -> Facts:
        if not self._told:
            return UNKNOWN
        if index in self._whole:
            return self._whole[index]
        size, validator, number = self._sizes[index], self._validators[index], self._types[index]
        modified, identity, crc = self._times[index], self._identities[index], self._sums[index]
        if (size, validator, number, modified, identity, crc) == _NOTHING:
            return UNKNOWN
        kind = None if number is None else tuple(self._type_numbers)[number]
        return Facts(size, modified, validator, crc, None, kind, identity)
