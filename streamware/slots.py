"""How many answers may be open at one upstream at a time, counted over all bundles of a process, and which of them may
be read in large pieces.

The rule of this file: every wait has an end, and a slot comes back whatever becomes of who held it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from queue import Empty, SimpleQueue
from weakref import WeakValueDictionary

__all__ = ["Slot", "Slots"]

_LOOK_SECONDS = 0.1  # a wait that is no longer wanted ends within this time
_LARGE = 16  # answers read in large pieces; a piece is what a client that does not read holds in memory


class Slots:
    """``most`` slots for each origin. Used from any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        # An origin is known for as long as a slot of it is held or waited for, so there is never a list to be tidied.
        self._origins: WeakValueDictionary[Hashable, _Free] = WeakValueDictionary()
        self._large = _Free(_LARGE)

    def take(self, origin: Hashable, seconds: float, given_up: Callable[[], bool] = lambda: False) -> Slot | None:
        """A slot, waited for at most ``seconds`` and while nobody has given up; None: there was none.

        Whoever took it frees it.
        """
        free = self._of(origin)
        deadline = time.monotonic() + seconds
        while True:
            left = deadline - time.monotonic()
            try:
                free.tokens.get(timeout=max(0.0, min(left, _LOOK_SECONDS)))
            except Empty:
                if left <= 0 or given_up():
                    return None
            else:
                return self._slot(free)

    def take_now(self, origin: Hashable, *, large: bool) -> Slot | None:
        """A slot if there is one to spare; not ``large``: for an answer that is read in one go. Waits for nobody."""
        free = self._of(origin)
        if free.tokens.qsize() * 2 <= self._most:
            return None
        try:
            free.tokens.get_nowait()
        except Empty:
            return None
        return self._slot(free) if large else Slot(free)

    def spare(self, origin: Hashable) -> bool:
        """Whether more than half of an origin's slots are free. Waits for nobody."""
        free = self._origins.get(origin)
        return free is None or free.tokens.qsize() * 2 > self._most

    def _slot(self, free: _Free) -> Slot:
        try:
            self._large.tokens.get_nowait()
        except Empty:
            return Slot(free)
        return Slot(free, self._large)

    def _of(self, origin: Hashable) -> _Free:
        with self._lock:
            free = self._origins.get(origin)
            if free is None:
                self._origins[origin] = free = _Free(self._most)
            return free


class Slot:
    """The right to have one answer open. ``free()`` is idempotent; one that is forgotten frees itself.

    ``large``: it is among the few that may be read in large pieces, wherever they lead.
    """

    __slots__ = ("_taken", "large")

    def __init__(self, *taken: _Free) -> None:
        self._taken = taken
        self.large = len(taken) > 1

    def free(self) -> None:
        taken, self._taken = self._taken, ()
        for free in taken:
            free.tokens.put(None)

    __del__ = free


class _Free:
    """The tokens of one origin that nobody holds: a SimpleQueue, as that may be put to by ``__del__``, which can run at
    any moment, inside of ``put`` itself too.
    """

    __slots__ = ("__weakref__", "tokens")

    def __init__(self, most: int) -> None:
        self.tokens: SimpleQueue[None] = SimpleQueue()
        for _ in range(most):
            self.tokens.put(None)
