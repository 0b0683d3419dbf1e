"""Small answers that one thread waits for together: their requests are sent one after another, and taken as they come.

The rule of this file: it waits for all that it has sent at once, never for one, and for none of them long. What cannot
be sent without waiting, or does not come whole, soon and just as it should, is handed back, to be opened as always.
"""

from __future__ import annotations

import select
import time
from typing import Protocol

from streamware.early import Slot
from streamware.errors import MemberError
from streamware.model import Chunks, Source

__all__ = ["Flights", "Flying"]

_PATIENCE_SECONDS = 1.0  # an answer that takes longer is waited for by a thread of its own


class Flying(Protocol):
    """What a source can do besides (``model.Source``)."""

    def launch(self, start: int, length: int, *, all_of_it: bool) -> int | None:
        """Ask for what ``open`` would, if that takes no waiting: a descriptor to poll; None: nothing was done."""

    def come(self, *, all_of_it: bool) -> bool:
        """Take what is there, without waiting: whether that is all there is to do here, as the content has begun, or
        ``all_of_it`` has come.
        """

    def landed(self) -> bytes | Chunks | None:
        """All of it, or what ``open`` would give, if it is beyond doubt; None: ``open`` goes on with what came."""


class Flights:
    """The requests that one thread has sent.

    PERF: sixteen threads that wait for one answer each pass the interpreter's lock around: 80 futex calls and 100 us of
    a member's 180; here a member costs a send, a read, and its share of a poll.
    """

    def __init__(self) -> None:
        self._poll = select.poll()  # not select(), which knows no descriptor above 1023
        self._flying: dict[int, tuple[Slot, Flying, float]] = {}

    def __len__(self) -> int:
        return len(self._flying)

    def launch(self, slot: Slot, source: Source) -> bool:
        """Whether a member's bytes are on their way."""
        opening, launch = slot.opening, getattr(source, "launch", None)
        if launch is None or not opening.length or slot.reserved not in (0, opening.length):
            return False
        fd = launch(opening.start, opening.length, all_of_it=slot.reserved > 0)
        if fd is None:
            return False
        self._flying[fd] = (slot, source, time.monotonic() + _PATIENCE_SECONDS)  # type: ignore[assignment]
        self._poll.register(fd, select.POLLIN)
        return True

    def wait(self) -> list[tuple[Slot, bytes | Chunks | None]]:
        """What has landed, at least one if there are any, with what it brought; None: it is to be opened."""
        ended: list[tuple[Slot, bytes | Chunks | None]] = []
        while self._flying and not ended:
            now = time.monotonic()
            first = min(until for _, _, until in self._flying.values())
            come = {fd for fd, _ in self._poll.poll(max(0.0, first - now) * 1000)}
            now = time.monotonic()
            for fd in come or [fd for fd, (_, _, until) in self._flying.items() if until <= now]:
                slot, source, _ = self._flying[fd]
                if not come or source.come(all_of_it=slot.reserved > 0):
                    self._poll.unregister(fd)
                    del self._flying[fd]
                    ended.append((slot, _brought(source) if come else None))
        return ended


def _brought(source: Flying) -> bytes | Chunks | None:
    try:
        return source.landed()
    except MemberError:
        return None  # opening it will say so
