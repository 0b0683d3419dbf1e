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
from enum import Enum, auto
from functools import partial
from math import inf

from streamware.crew import Crew
from streamware.errors import BodyClosed, SizeMismatch, UpstreamError, UpstreamStatus
from streamware.model import Chunks, Source
from streamware.openings import Opening, Place
from streamware.policy import Policy

__all__ = ["Ahead", "Early"]

# Small members that are read already hold no connection; some more of them than may be open keep all connections busy
# while the first of the line is late.
_QUEUED = 4  # times Policy.ahead_members


class Early(Enum):
    """What of a member may be done before its turn, by another thread."""

    NOTHING = auto()
    READING = auto()  # only all at once: what that thread opens, it also reads and closes
    OPENING = auto()


class _State(Enum):
    COMING = auto()  # no thread is at it
    RUNNING = auto()
    DONE = auto()


class _Slot:
    """One opening that is done early, from its place in the queue to its last byte."""

    __slots__ = ("chunks", "counted", "dropped", "error", "opened", "opening", "pieces", "reserved", "since", "state")

    def __init__(self, opening: Opening, reserved: int) -> None:
        self.opening = opening
        self.state = _State.COMING
        self.reserved = reserved  # bytes of the budget
        self.counted = True  # among the open ones
        self.dropped = False  # nobody will take it: whoever runs it closes it
        self.opened = False
        self.since = 0.0
        self.chunks: Chunks | None = None  # what is left to be read
        self.pieces: deque[bytes] = deque()
        self.error: BaseException | None = None

    def ready(self) -> bool:
        """Whether ``take`` will not wait, as far as can be told."""
        return self.state is _State.DONE and self.error is None


class Ahead:
    """The read-ahead of one body. One thread at a time takes; ``abort()`` may come from any.

    At most ``Policy.ahead_members`` answers are open at once, the one that is being taken included, and at most
    ``ahead_bytes`` of content are held. A member that is small beside that is read and its answer closed; of one of
    unknown size a share is read, any other is only opened. None is opened while more than ``ahead_bytes`` stand before.

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
        self._queue: deque[_Slot] = deque()  # in order
        self._waiting: deque[_Slot] = deque()  # those that no thread is at
        self._current: _Slot | None = None
        self._open = 0
        self._held = 0  # bytes reserved
        self._running = 0
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

    def turn(self, place: Place, start: int, length: int | None) -> _Slot | None:
        """A member's turn has come: what was begun of just this opening, to be taken; None: open it as always."""
        with self._news:
            self._place = max(place, self._place)
            found = None
            while self._queue and self._queue[0].opening.place <= place:
                slot = self._queue.popleft()
                if slot.opening.place == place and slot.opening[3:] == (start, length):
                    found = slot
                    self._passed = slot.opening.at
                else:
                    self._drop(slot)
            self._current = found
            self._fill()
        return found

    def take(self, slot: _Slot) -> Chunks:
        """Its bytes; the caller closes the result. Waits for a thread that is at it, else opens it here.

        :raises BodyClosed: ``abort()`` came.
        :raises MemberError: as ``Source.open``.
        """
        with self._news:
            begun = slot.state is not _State.COMING
            if begun:
                # No longer than an opening or a read takes, which have their own limits.
                self._news.wait_for(lambda: self._stopped or slot.state is _State.DONE)
            if self._stopped:
                raise BodyClosed("aborted")
            if not begun:
                self._waiting.remove(slot)
                slot.state = _State.DONE
        error, slot.error = slot.error, None
        if error is not None and not (_breaks(error) if slot.opened else _passes(error)):
            self.done_with(slot)
            raise error
        taken = _Taken(self, slot)
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
            slots = [*self._queue, *((self._current,) if self._current else ())]
            live = [slot.chunks for slot in slots if slot.chunks is not None]
            for slot in slots:
                slot.dropped = slot.dropped or slot.state is _State.RUNNING
            self._news.notify_all()
        for chunks in live:
            chunks.abort()

    def close(self) -> None:
        """Close what nobody took; threads that are at something close it as they end, and are not waited for."""
        self.abort()
        with self._news:
            slots, self._queue = self._queue, deque()
            self._coming, self._next = iter(()), None
            if self._current is not None:
                slots.append(self._current)
                self._current = None
            left = [slot.chunks for slot in slots if slot.chunks is not None and slot.state is _State.DONE]
            for slot in slots:
                slot.pieces.clear()
        for chunks in left:
            chunks.close()

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
                if self._held + (reserved or 0) > self._budget:
                    break
                if reserved is not None:
                    slot = _Slot(opening, reserved)
                    self._queue.append(slot)
                    self._waiting.append(slot)
                    self._open += 1
                    self._held += reserved
            self._next = None
        while not self._stopped and self._workers < self._running + len(self._waiting):
            if not self._crew.start(partial(self._context.copy().run, self._work)):
                return
            self._workers += 1

    def _weight(self, opening: Opening) -> int | None:
        """How many bytes of it will be held; None: it is to wait for its turn."""
        if opening.length is not None and opening.length <= self._share:
            return opening.length
        if self._early(opening.member) is not Early.OPENING:
            return None
        return self._share if opening.length is None else 0

    def _drop(self, slot: _Slot) -> None:
        """Give up what will not be taken."""
        if slot.state is _State.COMING:
            if not self._stopped:
                self._waiting.remove(slot)
        elif slot.state is _State.RUNNING:
            slot.dropped = True
        elif slot.chunks is not None:
            slot.chunks.close()
        self._release(slot)

    def _release(self, slot: _Slot) -> None:
        """It holds no memory and, unless it is being run, no answer any more."""
        self._held -= slot.reserved
        slot.reserved = 0
        if slot.state is not _State.RUNNING:
            self._count(slot, False)

    def _count(self, slot: _Slot, as_open: bool) -> None:
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
                slot.state = _State.RUNNING
                self._running += 1
            try:
                self._fetch(slot)
            except BaseException as error:
                slot.error = error
            left = slot.chunks
            with self._news:
                self._running -= 1
                slot.state = _State.DONE
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
                    self._held += held - slot.reserved
                    slot.reserved = held
                self._news.notify_all()
                self._fill()
            if left is not None:
                left.close()

    def _fetch(self, slot: _Slot) -> None:
        """Open, and read what is to be held."""
        chunks = self.opened(slot)
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

    def opened(self, slot: _Slot) -> Chunks:
        opening = slot.opening
        with self._news:
            self._count(slot, True)
        source = self._source_of(opening.member)
        try:
            return source.open(opening.start, opening.length)
        except BaseException:
            source.close()
            raise

    def done_with(self, slot: _Slot) -> None:
        with self._news:
            if self._current is slot:
                self._current = None
            self._release(slot)
            self._fill()


class _Taken:
    """``Chunks`` of what was opened early: first what is held, then what is left."""

    __slots__ = ("_aborted", "_again", "_ahead", "_chunks", "_given", "_pieces", "_slot")

    def __init__(self, ahead: Ahead, slot: _Slot) -> None:
        self._ahead = ahead
        self._slot: _Slot | None = slot
        self._chunks, slot.chunks = slot.chunks, None
        self._pieces = slot.pieces
        self._given = False
        self._again = False
        self._aborted = False

    def open_anew(self) -> None:
        """At its turn, in the thread that takes, once."""
        slot = self._slot
        assert slot is not None
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            chunks.close()
        self._pieces.clear()
        self._again = True
        try:
            self._chunks = self._ahead.opened(slot)
        except BaseException:
            self.close()
            raise
        if self._aborted:
            self._chunks.abort()

    @property
    def ended(self) -> bool:
        """Whether nothing of it is left to be read."""
        return self._chunks is None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._aborted:
            raise BodyClosed("aborted")
        if not self._pieces:
            return self._read()
        self._given = True
        return self._pieces.popleft()

    def _read(self) -> bytes:
        if self._chunks is None:
            raise StopIteration
        try:
            piece = next(self._chunks)
        except (UpstreamError, SizeMismatch) as error:
            if self._given or self._again or self._aborted or not _breaks(error):
                raise
            self.open_anew()
            piece = next(self._chunks)
        self._given = True
        return piece

    def ready(self) -> bool:
        chunks = self._chunks
        return bool(self._pieces) or self._aborted or chunks is None or chunks.ready()

    def abort(self) -> None:
        self._aborted = True
        chunks = self._chunks
        if chunks is not None:
            chunks.abort()

    def close(self) -> None:
        slot, self._slot = self._slot, None
        if slot is None:
            return
        self._pieces.clear()
        chunks = self._chunks
        try:
            if chunks is not None:
                chunks.close()
        finally:
            self._ahead.done_with(slot)


def _passes(error: BaseException) -> bool:
    """Whether an opening that failed so may succeed a little later."""
    return isinstance(error, UpstreamError) and not isinstance(error, UpstreamStatus)


def _breaks(error: BaseException) -> bool:
    """Whether an answer may have ended so because nobody read it."""
    return _passes(error) or isinstance(error, SizeMismatch)
