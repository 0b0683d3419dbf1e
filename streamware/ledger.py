"""The ledger: what was learned of members' content while it passed, never the content itself.

The rule of this file: what the ledger knows saves reading and decides nothing else, so asking it and telling it may
fail in silence, and none of it raises or waits on the way of a download's bytes. Only links, which somebody was
promised, are kept or refused aloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Protocol

__all__ = [
    "BLOCK_BYTES",
    "EXPIRY_SECONDS",
    "MAX_BLOCK",
    "Learned",
    "Ledger",
    "key_near",
    "plausible",
    "version_key",
]

Learned = tuple[bytes, int, int]  # a version, the index of a block, its CRC-32

BLOCK_BYTES = 4 * 1024 * 1024  # content is remembered by aligned blocks of this size
MAX_BLOCK = 2**31 - 1  # the highest index a block may have; 8 PiB
EXPIRY_SECONDS = 30 * 24 * 3600.0
_KEY_BYTES = 16
_PLACE_BYTES = 4
_CRC = 2**32 - 1


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
