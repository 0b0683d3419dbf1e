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
# One that has shown to be quick may pause, as long as it takes so much a second with its pauses: processors have other
# things to do at times, on either end.
_QUICK_BYTES = 128 * 1024 * 1024
# Of a new one nothing is known. A hundred that come at once may all turn out to be slow, with a step lying there for
# each; so those that are there at the same time share this much.
_UNKNOWN_BYTES = 4 * 1024 * 1024
_SMALL_BYTES = 64 * 1024  # of one piece for any but quick clients; a server holds about two of them as well


class Pace:
    """Of one body. ``most``: bytes that may lie ready for a quick client."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.quick = False
        self._slow = False
        self._taken = 0  # bytes without a pause
        self._gave = inf

    def asked(self, now: float) -> None:
        """The client wants more."""
        pause = now - self._gave
        if pause > _SLOW_SECONDS:
            self.quick = self.quick and self._taken >= _QUICK_BYTES * pause
            self._slow, self._taken = not self.quick, 0

    def gave(self, count: int, now: float) -> None:
        self._taken += count
        if self._taken >= _SWALLOWED_BYTES:
            self.quick, self._slow = True, False
        self._gave = now

    def budget(self, bodies: int) -> int:
        """Bytes that may lie ready; 0: one piece, however small.

        :param bodies: how many there are, this one included.
        """
        if self.quick:
            return self.most
        if self._slow or self._gave == inf:
            return 0  # and the first bytes leave at once
        return min(self.most, _UNKNOWN_BYTES // max(1, bodies))

    def cut(self, piece: bytes, bodies: int) -> list[bytes]:
        """A piece as it is to be given, in order: whole where a step may be larger, else in small ones of one size."""
        count = len(piece) // _SMALL_BYTES
        if count < 2 or self.budget(bodies) >= len(piece):
            return [piece]
        size = -(-len(piece) // count)
        return [piece[at : at + size] for at in range(0, len(piece), size)]
