"""Read-ahead: members that come next are opened, and small ones read, while an earlier one streams.

The rules of this file. What was early makes nothing fail, fail sooner, or come in another order: an error waits for its
member's turn, and what may have gone wrong only by being early is tried once more there. Nobody waits for a thread: a
member whose turn has come is opened by whoever needs it, unless some thread is at it already; so bundles inside of
bundles cannot wait for each other in a circle. And what is open and what is held are bounded, also while nobody reads.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from math import inf

from streamware.crew import Crew
from streamware.early import Early, Slot, State, Taken, breaks, passes
from streamware.errors import BodyClosed, UpstreamBusy
from streamware.model import Chunks, Source
from streamware.openings import Opening, Place
from streamware.policy import Policy

__all__ = ["Ahead"]

# Small members that are read already hold no connection; some more of them than may be open keep all connections busy
# while the first of the line is late.
_QUEUED = 4  # times Policy.ahead_members


class Ahead:
    """The read-ahead of one body. One thread at a time takes; ``abort()`` may come from any.

    At most ``Policy.ahead_members`` answers are open at once, the one that is being taken included, and at most
    ``ahead_bytes`` of content are held, a share of that in any case and more while the crew has room. A member that is
    small beside that is read and its answer closed; of one of unknown size a share is read, any other is only opened.
    None is opened while more than ``ahead_bytes`` stand before.

    :param source_of: gives the source of a member; called on the crew's threads too.
    :param early: what may be done early of a member, by its index.
    :param crew: whose threads open and read; where it has none to spare, everything waits for its turn.
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
        self._current: Slot | None = None
        self._open = 0
        self._held = 0  # bytes reserved
        self._borrowed = 0  # of them from the room that all bundles share
        self._running: set[Slot] = set()
        self._workers = 0
        self._passed = 0  # bytes of content that the taker has seen, on the scale of Opening.at
        self._mark: float = inf  # what that must come to until the next may be opened
        self._stopped = False

    def cares(self, member: int) -> bool:
        """Whether anything of a member may be done early."""
        return self._early(member) is not Early.NOTHING

    def begin(self, coming: Iterator[Opening]) -> None:
        """Start on the openings that will be taken, in this order, some perhaps not at all."""
        with self._news:
            self._coming = coming
            self._fill()

    def passed(self, count: int) -> None:
        """Told by the taker of content that went out, whoever opened it."""
        self._passed += count
        if self._passed >= self._mark:
            with self._news:
                self._fill()

    def turn(self, place: Place, start: int, length: int | None) -> Slot | None:
        """A member's turn has come: what was begun of just this opening, to be taken; None: open it as always."""
        with self._news:
            self._place = max(place, self._place)
            found, dropped = None, []
            while self._queue and self._queue[0].opening.place <= place:
                slot = self._queue.popleft()
                if slot.opening.place == place and slot.opening[3:] == (start, length):
                    found = slot
                    self._passed = slot.opening.at
                else:
                    self._drop(slot)
                    dropped.append(slot)
            self._current = found or self._current
            self._fill()
        for slot in dropped:
            if slot.state is State.DONE and slot.chunks is not None:
                slot.chunks.close()
        return found

    def take(self, slot: Slot) -> Chunks:
        """Its bytes; the caller closes the result. Waits for a thread that is at it, else opens it here.

        :raises BodyClosed: ``abort()`` came.
        :raises MemberError: as ``Source.open``.
        """
        with self._news:
            begun = slot.state is not State.COMING
            if begun:
                # No longer than an opening or a read takes, which have their own limits.
                self._news.wait_for(lambda: self._stopped or slot.state is State.DONE)
            if self._stopped:
                raise BodyClosed("aborted")
            if not begun:
                self._waiting.remove(slot)
                slot.state = State.DONE
        error, slot.error = slot.error, None
        if error is not None and not (breaks(error) if slot.opened else passes(error)):
            self._done_with(slot)
            raise error
        taken = Taken(slot, self._opened, self._done_with)
        # Servers give up an answer that nobody reads, in the middle of what is on its way.
        stale = slot.since and not taken.ended and time.monotonic() - slot.since > self._held_seconds
        if not begun or error is not None or stale:
            taken.open_anew()
        return taken

    def abort(self) -> None:
        """From any thread, at once: end what is being waited for, and stop everything."""
        with self._news:
            self._stopped = True
            self._waiting.clear()
            slots = {*self._queue, *self._running, *((self._current,) if self._current else ())}
            for slot in self._running:
                slot.dropped = True
            self._news.notify_all()
        for slot in slots:
            slot.abort()

    def close(self) -> None:
        """Close what nobody took; threads that are at something close it as they end, and are not waited for."""
        self.abort()
        with self._news:
            slots, self._queue = self._queue, deque()
            self._coming, self._next = iter(()), None
            if self._current is not None:
                slots.append(self._current)
                self._current = None
            self._give_back(self._borrowed)
            left = [slot.chunks for slot in slots if slot.chunks is not None and slot.state is State.DONE]
            for slot in slots:
                if slot.state is State.DONE:
                    slot.pieces.clear()
        for chunks in left:
            chunks.close()

    def __del__(self) -> None:
        self._give_back(self._borrowed)  # of a body that nobody closed

    # --- with the lock held ---

    def _fill(self) -> None:
        """Queue what may be begun, and see that there are threads for it."""
        self._mark = inf
        while not self._stopped and self._open < self._most_open and len(self._queue) < self._most_queued:
            opening = self._next = self._next or next(self._coming, None)
            if opening is None:
                break
            if opening.place > self._place:
                if opening.at - self._passed > self._budget:
                    self._mark = opening.at - self._budget
                    break
                reserved = self._weight(opening)
                if reserved and not self._grow(reserved):
                    break
                if reserved is not None:
                    slot = Slot(opening, reserved)
                    self._queue.append(slot)
                    self._waiting.append(slot)
                    self._open += 1
            self._next = None
        while not self._stopped and self._workers < len(self._running) + len(self._waiting):
            if not self._crew.start(partial(self._context.copy().run, self._work)):
                return
            self._workers += 1

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
                self._waiting.remove(slot)
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

    # --- on the crew's threads ---

    def _work(self) -> None:
        while True:
            with self._news:
                if self._stopped or not self._waiting:
                    self._workers -= 1
                    return
                slot = self._waiting.popleft()
                slot.state = State.RUNNING
                self._running.add(slot)
            try:
                self._fetch(slot)
            except BaseException as error:
                slot.error = error
            left = slot.chunks
            with self._news:
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
            if left is not None:
                left.close()

    def _fetch(self, slot: Slot) -> None:
        """Open, and read what is to be held."""
        chunks = self._opened(slot, early=True)
        with self._news:
            slot.chunks = chunks
            slot.opened = True
        if slot.dropped:
            return
        length, held = slot.opening.length, 0
        # Of an unknown length the share is never exceeded by a whole piece.
        most = slot.reserved - self._chunk_bytes if length is None else length if slot.reserved else -1
        while held <= most and not slot.dropped:
            piece = next(chunks, b"")
            if not piece:
                chunks.close()
                slot.chunks = None
                return
            slot.pieces.append(piece)
            held += len(piece)

    # --- from anywhere ---

    def _opened(self, slot: Slot, *, early: bool = False) -> Chunks:
        opening = slot.opening
        with self._news:
            self._count(slot, True)
        source = slot.source = self._source_of(opening.member)
        try:
            if self._stopped or slot.dropped:
                raise BodyClosed("aborted")
            if early and not getattr(source, "spare", _always)():
                raise UpstreamBusy("too many answers of its server are open for one more before its turn")
            return source.open(opening.start, opening.length)
        except BaseException:
            source.close()
            raise
        finally:
            slot.source = None

    def _done_with(self, slot: Slot) -> None:
        with self._news:
            if self._current is slot:
                self._current = None
            self._release(slot)
            self._fill()


def _always() -> bool:
    """Of a source that does not count its open answers."""
    return True
