"""How much lies ready in memory for one client of an event loop, judged by how it takes what it is given.

The rule of this file: it only reckons. No clock, no thread, no loop; whoever asks says what time it is.
"""

from __future__ import annotations

from math import inf

__all__ = ["Pace"]

# A client that waited so long before it took more is a slow one, until it took so many bytes without a pause: more than
# the systems on both ends usually take in for one that reads nothing.
_SLOW_SECONDS = 0.05
_SWALLOWED_BYTES = 32 * 1024 * 1024
# Of a new one nothing is known. A hundred that come at once may all turn out to be slow, with a step lying there for
# each; so those that are there at the same time share this much.
_UNKNOWN_BYTES = 4 * 1024 * 1024
_SMALL_BYTES = 64 * 1024  # of one piece for any but quick clients; a server holds about two of them as well


class Pace:
    """Of one body. ``most``: bytes that a step for a quick client may fill."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._slow = False
        self._taken = 0  # bytes without a pause
        self._gave = inf

    def asked(self, now: float) -> None:
        """The client wants more."""
        if now - self._gave > _SLOW_SECONDS:
            self._slow, self._taken = True, 0

    def gave(self, count: int, now: float) -> None:
        self._taken += count
        self._gave = now

    def budget(self, bodies: int) -> int:
        """Bytes that the next step may fill; 0: one piece, however small.

        :param bodies: how many there are, this one included.
        """
        if self._gave == inf:
            return 0  # the first bytes leave at once
        if self._taken >= _SWALLOWED_BYTES:
            return self._most
        return 0 if self._slow else min(self._most, _UNKNOWN_BYTES // max(1, bodies))

    def cut(self, piece: bytes, bodies: int) -> list[bytes]:
        """A piece as it is to be given, in order: whole where a step may be larger, else in small ones of one size."""
        count = len(piece) // _SMALL_BYTES
        if count < 2 or self.budget(bodies) >= len(piece):
            return [piece]
        size = -(-len(piece) // count)
        return [piece[at : at + size] for at in range(0, len(piece), size)]
