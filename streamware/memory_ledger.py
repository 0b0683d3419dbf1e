"""The ledger of one process, in memory: bounded, and what was of no use for longest leaves first.

The rule of this file: whoever learns or asks waits for nobody but another who does, and that takes microseconds.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import islice

from streamware.errors import LedgerError
from streamware.ledger import BLOCK_BYTES, EXPIRY_SECONDS, Learned, Ledger, plausible
from streamware.singles import Singles

__all__ = ["MemoryLedger"]

_AGAIN_SECONDS = 3600.0  # what is known so long is news again when it is learned again
_CRC = 2**32 - 1
_TIME = 2**48 - 1
_TIMES = 2  # that stand before the blocks of a version
_AT_NEW = 256
_TOGETHER = 64  # versions that leave together: looking for the oldest is what costs


class MemoryLedger(Ledger):
    """A ledger of this process alone, bounded; what was of no use for longest leaves first.

    A version of one block takes some 40 bytes, one of more some 250 and 8 for every block.

    :param seconds: how long something is remembered since it was last learned.
    :param max_links: number of links, and ``max_link_bytes`` their size together; further ones are refused.
    """

    def __init__(
        self,
        *,
        max_versions: int = 100_000,
        max_blocks: int = 1_000_000,
        seconds: float = EXPIRY_SECONDS,
        max_links: int = 10_000,
        max_link_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self._max_versions = max_versions
        self._max_blocks = max_blocks
        self._milliseconds = int(seconds * 1000)
        self._again = int(min(_AGAIN_SECONDS, seconds / 2) * 1000)
        self._max_links = max_links
        self._max_link_bytes = max_link_bytes
        self._lock = threading.Lock()
        # PERF: a block alone costs 3 us between a download's other work, and 1 us among many.
        self._new: list[Learned] = []  # not yet in the others
        # The order of what follows is that of last use, the longest ago first; times are in milliseconds.
        self._singles = Singles(max_versions)  # most versions: those of which the first block alone is known
        # The others: the times of the last news and the last use, then (block index, CRC-32) in the order of blocks.
        self._versions: dict[bytes, array[int]] = {}
        self._coded: dict[bytes, int] = {}  # (length, time of the last news)
        self._links: dict[str, tuple[bytes, int]] = {}
        self._blocks = 0  # of the others
        self._link_bytes = 0
        with _forking:
            _all.add(self)

    def sums(self, versions: Sequence[bytes]) -> dict[bytes, dict[int, int]]:
        found = {}
        now = _now()
        oldest = now - self._milliseconds
        with self._lock:
            self._settle()
            for version in versions:
                single = self._singles.pop(version)
                if single is not None:
                    _, crc, since, _ = single
                    if since >= oldest:
                        self._singles.put(version, crc, since, now)
                        found[version] = {0: crc}
                    continue
                known = self._versions.pop(version, None)
                if known is None:
                    continue
                if known[0] < oldest:
                    self._blocks -= len(known) - _TIMES
                    continue
                known[1] = now
                self._versions[version] = known
                found[version] = dict(_pairs(known))
        return found

    def learn(self, version: bytes, block: int, crc32: int, length: int = BLOCK_BYTES) -> None:
        self._new.append((version, block, crc32))
        if len(self._new) >= _AT_NEW:
            self.learn_all(())

    def learn_all(self, blocks: Iterable[Learned]) -> list[Learned]:
        """``learn`` many blocks, and those of them that are news to whoever keeps them elsewhere.

        Once in a while that is all of a version, for what is kept elsewhere may get lost or expire.
        """
        news: list[Learned] = []
        with self._lock:
            self._settle()
            now = _now()
            for version, block, crc32 in blocks:
                if plausible(version, block, crc32):
                    self._learn(version, block, crc32, now, news)
        return news

    def _settle(self) -> None:
        """Take in what was learned since the last time, in its order; others may add to it meanwhile."""
        if count := len(self._new):
            new, now = self._new[:count], _now()
            del self._new[:count]
            for version, block, crc32 in new:
                if plausible(version, block, crc32):
                    self._learn(version, block, crc32, now, None)

    def _learn(self, version: bytes, block: int, crc32: int, now: int, news: list[Learned] | None) -> None:
        single = self._singles.pop(version)
        known = self._versions.pop(version, None) if single is None else None
        since = single[2] if single is not None else now if known is None else known[0]
        again = since + self._again < now
        if again:
            since = now
        if block == 0 and known is None:
            changed = single is None or single[1] != crc32
            self._singles.put(version, crc32, since, now)
        else:
            if known is None:
                known = array("Q", (0, 0) if single is None else (0, 0, single[1]))
                self._blocks += single is not None
            known[0], known[1] = since, now
            changed = self._put(known, block, crc32)
            self._versions[version] = known
        if news is not None and again:
            news.extend((version, *pair) for pair in (((0, crc32),) if known is None else _pairs(known)))
        elif news is not None and changed:
            news.append((version, block, crc32))
        singles = self._singles.count
        if len(self._versions) + singles > self._max_versions or self._blocks + singles > self._max_blocks:
            self._shrink()

    def _put(self, known: array[int], block: int, crc32: int) -> bool:
        item = block << 32 | crc32
        place = bisect_left(known, block << 32, _TIMES)
        if place == len(known) or known[place] >> 32 != block:
            if len(known) - _TIMES >= self._max_blocks:
                return False
            known.insert(place, item)
            self._blocks += 1
            return True
        news = known[place] != item
        known[place] = item
        return news

    def forget(self, version: bytes) -> None:
        with self._lock:
            self._settle()
            self._drop(version)

    def coded(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        found = {}
        oldest = _now() - self._milliseconds
        with self._lock:
            for key in keys:
                known = self._coded.pop(key, None)
                if known is not None and known & _TIME >= oldest:
                    self._coded[key] = known
                    found[key] = known >> 48
        return found

    def learn_coded(self, key: bytes, length: int) -> None:
        self.learn_coded_news(key, length)

    def learn_coded_news(self, key: bytes, length: int) -> bool:
        """``learn_coded``, and whether it is news to whoever keeps it elsewhere."""
        if not plausible(key, 0, 0) or type(length) is not int or not 0 <= length < 2**63:
            return False
        now = _now()
        with self._lock:
            known = self._coded.pop(key, None)
            news = known is None or known >> 48 != length or (known & _TIME) + self._again < now
            self._coded[key] = length << 48 | now if known is None or news else known
            if len(self._coded) > self._max_versions:
                for oldest in list(islice(self._coded, 1 + min(_TOGETHER, self._max_versions // _TOGETHER))):
                    del self._coded[oldest]
        return news

    def flush(self) -> None:
        self.learn_all(())

    def save(self, token: str, body: bytes, expires: int) -> None:
        with self._lock:
            for full in (False, True):
                if full:
                    for old in [old for old, link in self._links.items() if link[1] < time.time()]:
                        self._unlink(old)
                links = len(self._links) + (token not in self._links)
                size = self._link_bytes + len(body) - len(self._links.get(token, (b"", 0))[0])
                if links <= self._max_links and size <= self._max_link_bytes:
                    self._unlink(token)
                    self._links[token] = (body, expires)
                    self._link_bytes += len(body)
                    return
        raise LedgerError(f"{len(self._links)} links of {self._link_bytes} bytes are kept in memory, and no more fit")

    def load(self, token: str) -> tuple[bytes, int] | None:
        return self._links.get(token)

    def close(self) -> None:
        """There is nothing to let go of."""

    # --- with the lock held ---

    def _unlink(self, token: str) -> None:
        if token in self._links:
            self._link_bytes -= len(self._links.pop(token)[0])

    def _drop(self, version: bytes) -> None:
        known = self._versions.pop(version, None)
        if known is not None:
            self._blocks -= len(known) - _TIMES
        else:
            self._singles.pop(version)

    def _count(self) -> int:
        return len(self._versions) + self._singles.count

    def _shrink(self) -> None:
        """Make room, and somewhat more than is needed right now."""
        versions = self._max_versions - min(_TOGETHER, self._max_versions // _TOGETHER)
        blocks = self._max_blocks - self._max_blocks // _TOGETHER
        old: list[bytes] = []  # of the others, the one of last use first
        while self._count() > versions or (self._blocks + self._singles.count > blocks and self._count() > 1):
            if not old:
                old = list(islice(self._versions, _TOGETHER))[::-1]
            used = self._singles.oldest()
            if used is None or (old and self._versions[old[-1]][1] < used):
                self._drop(old.pop())  # never the one that has just been of use, which is the last
            else:
                self._singles.drop_oldest()


def _pairs(known: array[int]) -> tuple[tuple[int, int], ...]:
    return tuple((item >> 32, item & _CRC) for item in islice(known, _TIMES, None))


def _now() -> int:
    return int(time.monotonic() * 1000)


# A fork copies the locks as they stand and none of the threads that hold them, so it waits until they are free.
_all: weakref.WeakSet[MemoryLedger] = weakref.WeakSet()
_forking = threading.Lock()
_held: list[threading.Lock] = []


def _before_fork() -> None:
    _forking.acquire()
    for ledger in list(_all):
        ledger._lock.acquire()
        _held.append(ledger._lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
