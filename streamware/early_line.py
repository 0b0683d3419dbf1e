"""The line of members that are opened before their turn: what may be begun, what is open, what is held.

The rule of this file: all of it is guarded by one lock, and nothing here waits. What is open and what is held are
bounded, also while nobody reads.
"""

from __future__ import annotations

import contextvars
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from math import inf

from streamware.crew import Crew
from streamware.early import Early, Slot, State
from streamware.model import Chunks, Source
from streamware.openings import Opening, Place
from streamware.policy import Policy

__all__ = ["EarlyLine"]

# Small members that are read already hold no connection; some more of them than may be open keep all connections busy
# while the first of the line is late.
_QUEUED = 4  # times Policy.ahead_members
_NO_LIMIT = 1 << 62


class EarlyLine(ABC):
    """What ``ahead.Ahead`` takes from and its threads work at; see there for the parameters.

    At most ``Policy.ahead_members`` answers are open at once, the one that is being taken included, and at most
    ``ahead_bytes`` of content are held, a share of that in any case and more while the crew has room. A member that is
    small beside that is read and its answer closed; of one of unknown size a share is read, any other is only opened.
    None is opened while more than ``ahead_bytes`` stand before.
    """

    def __init__(
        self, source_of: Callable[[int], Source], early: Callable[[int], Early], policy: Policy, crew: Crew
    ) -> None:
        self._early = early
        self._source_of = source_of
        self._crew = crew
        self._budget = policy.ahead_bytes
        self._share = policy.ahead_bytes // policy.ahead_members
        self._chunk_bytes = policy.chunk_bytes
        self._held_seconds = policy.held_seconds
        # One is left for the member whose turn it is, where all that a host may be asked at once is less.
        self._most_open = min(policy.ahead_members, max(1, policy.opens_per_host - 1))
        self._most_queued = _QUEUED * policy.ahead_members
        self._context = contextvars.copy_context()
        self._news = threading.Condition()  # guards all below
        self._coming: Iterator[Opening] = iter(())
        self._next: Opening | None = None
        self._place: Place = (-1, -1)
        self._queue: deque[Slot] = deque()  # in order
        self._waiting: deque[Slot] = deque()  # those that no thread is at
        self._grounded: deque[Slot] = deque()  # the same, of those that take a thread each
        self._current: Slot | None = None
        self._open = 0
        self._held = 0  # bytes reserved
        self._borrowed = 0  # of them from the room that all bundles share
        self._running: set[Slot] = set()
        self._awake = 0  # threads that look for more to do before they wait for anything
        self._resume = _NO_LIMIT  # no more are queued until so few are
        self._wanted: Slot | None = None  # which the taker waits for
        self._passed = 0  # bytes of content that the taker has seen, on the scale of Opening.at
        self._mark: float = inf  # what that must come to until the next may be opened
        self._stopped = False

    def __del__(self) -> None:
        self._give_back(self._borrowed)  # of a body that nobody closed

    @abstractmethod
    def _work(self) -> None:
        """What a thread of the crew does."""

    # --- with the lock held ---

    def _fill(self) -> None:
        """Queue what may be begun, and see that there are threads for it."""
        if len(self._queue) > self._resume:
            return
        self._mark, self._resume = inf, _NO_LIMIT
        while not self._stopped and self._open < self._most_open:
            if len(self._queue) >= self._most_queued:
                self._pause()
                break
            opening = self._next = self._next or next(self._coming, None)
            if opening is None:
                break
            if opening.place > self._place:
                if opening.at - self._passed > self._budget:
                    self._mark = opening.at - self._budget
                    break
                reserved = self._weight(opening)
                if reserved and not self._grow(reserved):
                    self._pause()
                    break
                if reserved is not None:
                    slot = Slot(opening, reserved)
                    self._queue.append(slot)
                    self._waiting.append(slot)
                    self._open += 1
            self._next = None
        self._call()

    def _pause(self) -> None:
        # PERF: a thread that is woken for each member that was taken costs more than what it does; so for several.
        self._resume = len(self._queue) * 3 // 4

    def _call(self) -> None:
        """See that there are threads for what waits for one: one for all that is sent and taken as it comes, and one
        for each of the others."""
        while not self._stopped and self._awake < len(self._grounded) + bool(self._waiting):
            if not self._crew.start(partial(self._context.copy().run, self._work)):
                return
            self._awake += 1

    def _of(self, slot: Slot) -> deque[Slot]:
        return self._grounded if slot.long else self._waiting

    def _grow(self, count: int) -> bool:
        """Whether so many bytes more may be held."""
        held = self._held + count
        wanted = max(0, held - self._share - self._borrowed)
        if held > self._budget or (wanted and not self._crew.room.lend(wanted)):
            return False
        self._held = held
        self._borrowed += wanted
        return True

    def _shrink(self, count: int) -> None:
        """So many bytes fewer are held."""
        self._held -= count
        self._give_back(self._borrowed - max(0, self._held - self._share))

    def _give_back(self, count: int) -> None:
        if count > 0:
            self._borrowed -= count
            self._crew.room.give_back(count)

    def _weight(self, opening: Opening) -> int | None:
        """How many bytes of it will be held; None: it is to wait for its turn."""
        if opening.length is not None and opening.length <= self._share:
            return opening.length
        if self._early(opening.member) is not Early.OPENING:
            return None
        return self._share if opening.length is None else 0

    def _drop(self, slot: Slot) -> None:
        """Give up what will not be taken."""
        if slot.state is State.COMING:
            if not self._stopped:
                self._of(slot).remove(slot)
            if slot.source is not None:
                slot.source.close()
        elif slot.state is State.RUNNING:
            slot.dropped = True
            slot.abort()
        self._release(slot)

    def _release(self, slot: Slot) -> None:
        """It holds no memory and, unless it is being run, no answer any more."""
        self._shrink(slot.reserved)
        slot.reserved = 0
        if slot.state is not State.RUNNING:
            self._count(slot, False)

    def _count(self, slot: Slot, as_open: bool) -> None:
        self._open += as_open - slot.counted
        slot.counted = as_open

    def _landed(self, ended: list[tuple[Slot, bytes | Chunks | None]]) -> None:
        """With the lock held: what has come is there to be taken."""
        now = time.monotonic()
        for slot, data in ended:
            if data is None and not slot.dropped and not self._stopped:
                self._ground(slot)
                continue
            source, slot.source = slot.source, None
            self._running.discard(slot)
            slot.state = State.DONE
            slot.opened = True
            slot.since = now
            kept = not slot.dropped and not self._stopped
            if isinstance(data, bytes):
                slot.pieces.extend([data] * kept)
            elif data is not None and kept:
                slot.chunks = data
            elif data is not None:
                data.close()
            elif source is not None:
                source.close()
            self._count(slot, slot.chunks is not None)
            if slot is self._wanted:
                self._news.notify_all()
        self._fill()

    def _ground(self, slot: Slot) -> None:
        """With the lock held: it waits for a thread of its own."""
        self._running.discard(slot)
        if slot.dropped or self._stopped:
            slot.state = State.DONE
            self._count(slot, False)
            source, slot.source = slot.source, None
            if source is not None:
                source.close()
            return
        slot.state = State.COMING
        slot.long = True
        self._grounded.append(slot)
        if slot is self._wanted:
            self._news.notify_all()  # whoever takes it need not wait for a thread

    def _ended(self, slot: Slot, awake: bool = False) -> Chunks | None:
        """It has been opened, or has failed; what is left of it that nobody will take."""
        left = slot.chunks
        with self._news:
            self._awake += awake
            self._running.discard(slot)
            slot.state = State.DONE
            slot.since = time.monotonic()
            if slot.dropped or slot.error is not None:
                slot.chunks = None
                slot.pieces.clear()
            else:
                left = None
            if slot.chunks is None:
                self._count(slot, False)
            if not slot.dropped:
                held = sum(map(len, slot.pieces))
                self._shrink(slot.reserved - held)
                slot.reserved = held
            self._news.notify_all()
            self._fill()
        return left
