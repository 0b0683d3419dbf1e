"""The ledger: what was learned of members' content while it passed, never the content itself.

The rule of this file: what the ledger knows saves reading and decides nothing else, so asking it and telling it may
fail in silence, and none of it raises or waits on the way of a download's bytes. Only links, which somebody was
promised, are kept or refused aloud.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from typing import Protocol

from streamware.errors import LedgerError

__all__ = [
    "BLOCK_BYTES",
    "EXPIRY_SECONDS",
    "MAX_BLOCK",
    "Learned",
    "Ledger",
    "MemoryLedger",
    "key_near",
    "plausible",
    "version_key",
]

Learned = tuple[bytes, int, int]  # a version, the index of a block, its CRC-32

BLOCK_BYTES = 4 * 1024 * 1024  # content is remembered by aligned blocks of this size
MAX_BLOCK = 2**31 - 1  # the highest index a block may have; 8 PiB
EXPIRY_SECONDS = 30 * 24 * 3600.0
_AGAIN_SECONDS = 3600.0  # what is known so long is news again when it is learned again
_KEY_BYTES = 16
_PLACE_BYTES = 4
_CRC = 2**32 - 1
_TIME = 2**48 - 1
_AT_NEW = 256
_TOGETHER = 64  # versions that leave together: looking for the oldest is what costs


class Ledger(Protocol):
    """What can be asked and told of member versions and links. Safe to use from any number of threads.

    A version is 16 bytes that name one content for good, a key of ``coded`` 16 bytes that name one way to compress it.
    """

    def sums(self, versions: Sequence[bytes]) -> dict[bytes, dict[int, int]]:
        """The CRC-32 of blocks, by version and block index; versions of which nothing is known are left out.

        May wait, two seconds at the most. Raises nothing.
        """

    def learn(self, version: bytes, block: int, crc32: int, length: int = BLOCK_BYTES) -> None:
        """Remember the CRC-32 of the block from ``block * BLOCK_BYTES`` on (a version's last may be short).

        Waits for nobody and raises nothing.

        :param length: of the block in bytes: what has to be read again if this is lost before it is safe.
        """

    def forget(self, version: bytes) -> None:
        """Drop all of a version, here and soon wherever it is shared: something of it was contradicted."""

    def coded(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        """Compressed sizes in bytes; unknown ones are left out. Waits and raises as ``sums`` does."""

    def learn_coded(self, key: bytes, length: int) -> None:
        """Remember a compressed size in bytes. Waits for nobody and raises nothing."""

    def flush(self) -> None:
        """A download ended: what was learned should be safe soon. Waits for nobody and raises nothing."""

    def save(self, token: str, body: bytes, expires: int) -> None:
        """Keep a link's body until ``expires`` (Unix seconds). What the token held before is replaced.

        :raises LedgerError: it cannot be kept.
        """

    def load(self, token: str) -> tuple[bytes, int] | None:
        """The body and the expiry of a link, or None. One that has expired may be returned until it is swept.

        :raises LedgerError: the ledger cannot be asked.
        """

    def close(self) -> None:
        """Write what is pending, within bounds of time, and let go of everything. Idempotent."""


def version_key(identity: str, validator: str, size: int) -> bytes:
    """The 16 bytes that name a member version: content of this identity, strong validator and size in bytes.

    Versions of neighbors, whose identities agree up to the last slash before any query, have keys that begin alike.
    PERF: what one download learns then belongs together in a database's tree; with keys all over a tree of 300,000 rows
    each new one cost 10 us, mostly for pages, and now 2.
    """
    place = identity.partition("?")[0].rpartition("/")[0]
    name = repr((identity, validator, size))
    return _place(place) + _digest(name.encode("utf-8", "surrogateescape"), _KEY_BYTES - _PLACE_BYTES)


@lru_cache(maxsize=64)
def _place(place: str) -> bytes:
    # PERF: 0.1 us instead of 0.6; neighbors mostly come together.
    return _digest(place.encode("utf-8", "surrogateescape"), _PLACE_BYTES)


def key_near(version: bytes, name: bytes) -> bytes:
    """16 bytes for something else that is learned of a version, which begin as its key does."""
    return version[:_PLACE_BYTES] + _digest(version + name, _KEY_BYTES - _PLACE_BYTES)


def _digest(data: bytes, count: int) -> bytes:
    return blake2b(data, digest_size=count).digest()


def plausible(version: bytes, block: int, crc32: int) -> bool:
    """Whether these can be a version, a block index and a CRC-32 at all; they may come out of a damaged database."""
    return (
        type(version) is bytes
        and len(version) == _KEY_BYTES
        and type(block) is int
        and 0 <= block <= MAX_BLOCK
        and type(crc32) is int
        and 0 <= crc32 <= _CRC
    )


class MemoryLedger(Ledger):
    """A ledger of this process alone, bounded; what was of no use for longest leaves first.

    A version of one block takes some 200 bytes, every further block 8.

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
        # The order of the first two is that of last use, the longest ago first. A time, in milliseconds, is that of the
        # last news. PERF: most versions are one block long; then it is an int (time, CRC-32), half the size of the
        # smallest array. An array holds the time, then (block index, CRC-32) in the order of blocks.
        self._versions: dict[bytes, int | array[int]] = {}
        self._coded: dict[bytes, int] = {}  # (length, time)
        self._links: dict[str, tuple[bytes, int]] = {}
        self._blocks = 0
        self._link_bytes = 0
        with _forking:
            _all.add(self)

    def sums(self, versions: Sequence[bytes]) -> dict[bytes, dict[int, int]]:
        found = {}
        oldest = _now() - self._milliseconds
        with self._lock:
            self._settle()
            for version in versions:
                known = self._versions.pop(version, None)
                if known is None:
                    continue
                if _since(known) < oldest:
                    self._blocks -= _count(known)
                    continue
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
        known = self._versions.pop(version, None)
        since = now if known is None else _since(known)
        again = since + self._again < now
        if again:
            since = now
        if block == 0 and not isinstance(known, array):
            changed = known is None or known & _CRC != crc32
            self._blocks += known is None
            known = since << 32 | crc32
        else:
            if not isinstance(known, array):
                known = array("Q", (0,) if known is None else (0, known & _CRC))
            known[0] = since
            changed = self._put(known, block, crc32)
        self._versions[version] = known
        if news is not None and again:
            news.extend((version, *pair) for pair in _pairs(known))
        elif news is not None and changed:
            news.append((version, block, crc32))
        if len(self._versions) > self._max_versions or self._blocks > self._max_blocks:
            self._shrink()

    def _put(self, known: array[int], block: int, crc32: int) -> bool:
        item = block << 32 | crc32
        place = bisect_left(known, block << 32, 1)
        if place == len(known) or known[place] >> 32 != block:
            if len(known) > self._max_blocks:
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
            self._blocks -= _count(known)

    def _shrink(self) -> None:
        """Make room, and somewhat more than is needed right now."""
        versions = self._max_versions - min(_TOGETHER, self._max_versions // _TOGETHER)
        blocks = self._max_blocks - self._max_blocks // _TOGETHER
        for oldest in list(islice(self._versions, max(0, len(self._versions) - versions))):
            self._drop(oldest)
        while self._blocks > blocks and len(self._versions) > 1:  # never the one that has just been of use
            for oldest in list(islice(self._versions, min(_TOGETHER, len(self._versions) - 1))):
                if self._blocks > blocks:
                    self._drop(oldest)


def _count(known: int | array[int]) -> int:
    return 1 if isinstance(known, int) else len(known) - 1


def _since(known: int | array[int]) -> int:
    return known >> 32 if isinstance(known, int) else known[0]


def _pairs(known: int | array[int]) -> tuple[tuple[int, int], ...]:
    if isinstance(known, int):
        return ((0, known & _CRC),)
    return tuple((item >> 32, item & _CRC) for item in islice(known, 1, None))


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
