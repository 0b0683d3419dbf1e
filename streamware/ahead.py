"""Read-ahead: members that come next are opened, and small ones read, while an earlier one streams.

The rules of this file. What was early makes nothing fail, fail sooner, or come in another order: an error waits for its
member's turn, and what may have gone wrong only by being early is tried once more there. Nobody waits for a thread: a
member whose turn has come is opened by whoever needs it, unless some thread is at it already; so bundles inside of
bundles cannot wait for each other in a circle. And what is open and what is held are bounded, also while nobody reads.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from streamware.early import Early, Slot, State, Taken, breaks, passes
from streamware.early_line import EarlyLine
from streamware.errors import BodyClosed, UpstreamBusy
from streamware.flights import Flights
from streamware.model import Chunks
from streamware.openings import Opening, Place

__all__ = ["Ahead"]


class Ahead(EarlyLine):
    """The read-ahead of one body. One thread at a time takes; ``abort()`` may come from any.

    :param source_of: gives the source of a member; called on the crew's threads too.
    :param early: what may be done early of a member, by its index.
    :param crew: whose threads open and read; where it has none to spare, everything waits for its turn.
    """

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
            if slot.state is State.RUNNING:
                # No longer than an opening or a read takes, which have their own limits.
                self._wanted = slot
                self._news.wait_for(lambda: self._stopped or slot.state is not State.RUNNING)
                self._wanted = None
            begun = slot.state is State.DONE
            if self._stopped:
                raise BodyClosed("aborted")
            if not begun:
                self._of(slot).remove(slot)
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
            self._grounded.clear()
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
            begun = [slot.source for slot in slots if slot.source is not None and slot.state is State.COMING]
        for chunks in left:
            chunks.close()
        for source in begun:
            source.close()

    # --- on the crew's threads ---

    def _work(self) -> None:
        flights = Flights()
        while True:
            with self._news:
                if self._stopped:
                    slots = []
                elif self._waiting:
                    slots = [*self._waiting]
                    self._waiting.clear()
                elif self._grounded and not flights:
                    slots = [self._grounded.popleft()]
                else:
                    slots = []
                for slot in slots:
                    slot.state = State.RUNNING
                    self._running.add(slot)
                long = bool(slots) and slots[0].long
                if long or not slots:
                    self._awake -= 1
                    self._call()
                if not slots and not flights:
                    return
            if long:
                self._alone(slots[0])
            elif slots:
                self._send(flights, slots)
            else:
                ended = flights.wait()
                with self._news:
                    self._awake += 1
                    self._landed(ended)

    def _send(self, flights: Flights, slots: list[Slot]) -> None:
        """Ask for each of them; those that cannot be asked for at once are left to other threads."""
        grounded = []
        for slot in slots:
            try:
                source = slot.source = self._source_of(slot.opening.member)
                if slot.dropped or self._stopped or not flights.launch(slot, source):
                    grounded.append(slot)
            except BaseException as error:
                slot.error = error
                self._ended(slot)
        if grounded or self._stopped:
            with self._news:
                for slot in grounded:
                    self._ground(slot)
                self._call()
                stopped = [*self._running] if self._stopped else []
            for slot in stopped:  # abort() came while there was nothing yet that it could have stopped
                slot.abort()

    def _alone(self, slot: Slot) -> None:
        try:
            self._fetch(slot)
        except BaseException as error:
            slot.error = error
        left = self._ended(slot, awake=True)
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
        source = slot.source = slot.source or self._source_of(opening.member)
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
