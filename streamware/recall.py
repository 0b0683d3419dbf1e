"""The checksums of one reading's members: summed block by block as bytes pass, else recalled from the ledger.

The rule of this file: what passes outweighs what is remembered. A block that passes and differs from what the ledger
said makes all it said of that version forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice

from streamware.checksums import combine, crc32
from streamware.ledger import BLOCK_BYTES, Ledger
from streamware.plan import Table

__all__ = ["Recall", "Sums"]

_log = logging.getLogger("streamware")

_AT_ONCE = 500  # versions asked of the ledger together: the directory wants one member after another


class Sums:
    """The CRC-32 of a run of content from ``start`` on, and of every aligned block that lies in it whole.

    :param told: called with the index, checksum and length of each such block, as soon as its last byte has passed.
    """

    __slots__ = ("_at", "_block", "_since", "_told", "_total")

    def __init__(self, start: int, told: Callable[[int, int, int], None] | None = None) -> None:
        self._at = self._since = start
        self._told = told
        self._block = 0  # CRC-32 from _since on, where the block or the run began
        self._total = 0  # and of everything before that

    def feed(self, piece: bytes | memoryview) -> None:
        end = self._at + len(piece)
        edge = (self._at // BLOCK_BYTES + 1) * BLOCK_BYTES
        if end < edge:
            self._block = crc32(piece, self._block)
            self._at = end
            return
        rest = memoryview(piece)
        while end >= edge:
            self._block = crc32(rest[: edge - self._at], self._block)
            rest = rest[edge - self._at :]
            self._at = edge
            self._close_block()
            edge += BLOCK_BYTES
        self._block = crc32(rest, self._block)
        self._at = end

    def finish(self) -> int:
        """The content ends here: its last block may be short. The CRC-32 of the whole run."""
        if self._at > self._since:
            self._close_block()
        return self._total

    def _close_block(self) -> None:
        length = self._at - self._since
        if self._told is not None and self._since % BLOCK_BYTES == 0:
            self._told(self._since // BLOCK_BYTES, self._block, length)
        self._total = combine(self._total, self._block, length)
        self._block, self._since = 0, self._at


class Recall:
    """What one reading knows of the blocks of its members.

    :param version_of: the ledger's key of a member, by index; None for one that nothing pins.
    """

    def __init__(self, ledger: Ledger, entries: Table, version_of: Callable[[int], bytes | None]) -> None:
        self._ledger = ledger
        self._entries = entries
        self._version_of = version_of
        self._recalled: dict[int, dict[int, int]] = {}  # of the last members asked for
        self._passed: dict[int, dict[int, int]] = {}  # of members that passed in part

    def sums(self, member: int, start: int) -> Sums:
        """Sums over a run of a member's content that is about to pass."""
        version = self._version_of(member)
        if version is None or self._entries[member].crc32 is not None:
            return Sums(start)

        def told(block: int, crc: int, length: int) -> None:
            self._passed.setdefault(member, {})[block] = crc
            self._learn(member, version, block, crc, length)

        return Sums(start, told)

    def whole(self, member: int, data: bytes) -> int:
        """The CRC-32 of a member all of which has passed at once."""
        if len(data) > BLOCK_BYTES:
            sums = self.sums(member, 0)
            sums.feed(data)
            crc = sums.finish()
            self.done(member)
            return crc
        crc = crc32(data)
        version = self._version_of(member) if self._entries.crcs[member] < 0 else None
        if version is not None:
            self._learn(member, version, 0, crc, len(data))
        return crc

    def _learn(self, member: int, version: bytes, block: int, crc: int, length: int) -> None:
        if self._recalled.get(member, {}).get(block, crc) != crc:
            _log.warning("the ledger knew another checksum of member %d, block %d: forgotten", member, block)
            self._ledger.forget(version)
            self._recalled[member] = {}
        self._ledger.learn(version, block, crc, length)

    def done(self, member: int) -> None:
        """The whole checksum of a member is known: its blocks are no longer wanted."""
        self._passed.pop(member, None)

    def missing(self, member: int) -> list[tuple[int, int]]:
        """The runs of content, half-open, whose blocks are not known."""
        size = self._entries[member].size
        assert size is not None
        known = self._blocks(member)
        runs: list[tuple[int, int]] = []
        for block in range(-(-size // BLOCK_BYTES)):
            if block in known:
                continue
            start, stop = block * BLOCK_BYTES, min(size, (block + 1) * BLOCK_BYTES)
            if runs and runs[-1][1] == start:
                runs[-1] = (runs[-1][0], stop)
            else:
                runs.append((start, stop))
        return runs

    def total(self, member: int) -> int:
        """The CRC-32 of a member all of whose blocks are known."""
        size = self._entries[member].size
        assert size is not None
        known = self._blocks(member)
        total = 0
        for block in range(-(-size // BLOCK_BYTES)):
            total = combine(total, known[block], min(BLOCK_BYTES, size - block * BLOCK_BYTES))
        return total

    def _blocks(self, member: int) -> dict[int, int]:
        if member not in self._recalled:
            self._ask(member)
        return {**self._recalled[member], **self._passed.get(member, {})}

    def _ask(self, first: int) -> None:
        """Ask the ledger for this member, and for those after it that will be wanted next."""
        wanted: dict[int, bytes] = {}
        for member in islice(range(first, len(self._entries)), _AT_ONCE):
            version = self._version_of(member)
            if version is not None and self._entries[member].crc32 is None:
                wanted[member] = version
        found = self._ledger.sums(list(wanted.values())) if wanted else {}
        self._recalled = {member: dict(found.get(version, {})) for member, version in wanted.items()}
        self._recalled.setdefault(first, {})
