"""Bytes that are made on several threads, and given in the order in which they were asked for.

The rules of this file. What is made is the same whoever makes it and when, so nobody can tell by the bytes how many
threads there were. Nobody waits for work that no thread is at: it is done by whoever needs it, so that everything goes
on, only slower, where there are no threads to be had. And what is held is bounded, also while nobody reads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator

from streamware.crew import Crew
from streamware.errors import BodyClosed, StreamwareError

__all__ = ["ALL_BEFORE", "Late", "Line", "in_order"]

_THREAD = 4 * 1024 * 1024  # bytes that a thread of such a library holds
_SHARE = 256 * 1024  # bytes that every body may have under way, whatever all of them together have


class Late:
    """Bytes that have their place before they are there, or ``then`` something that has to be done at that place.

    :param make: gives them, on any thread.
    :param weight: how many bytes it holds, about.
    :param here: it is not worth waking a thread for.
    :param then: takes them when all before them were given, in order, and gives what comes out in their place.
    """

    __slots__ = ("claimed", "data", "error", "here", "make", "then", "weight")

    def __init__(
        self,
        make: Callable[[], bytes] | None = None,
        weight: int = 0,
        then: Callable[[bytes], bytes] | None = None,
        *,
        here: bool = False,
    ) -> None:
        self.make = make  # None: it is made
        self.weight = weight
        self.here = here
        self.then = then
        self.claimed = False  # some thread is at it
        self.data = b""
        self.error: BaseException | None = None

    @classmethod
    def of(cls, data: bytes, then: Callable[[bytes], bytes] | None = None) -> Late:
        """Bytes that are there, but have to wait for those before them."""
        late = cls(None, len(data), then)
        late.data = data
        return late

    def run(self) -> None:
        """Make them, once. What is raised is kept."""
        make = self.make
        if make is None:
            return
        try:
            self.data = make()
        except BaseException as error:
            self.error = error
        self.make = None  # from here on they can be taken; and what they are made of is let go

    def result(self) -> bytes:
        if self.error is not None:
            raise self.error
        return self.data if self.then is None else self.then(self.data)


ALL_BEFORE = Late()  # among parts: what follows must not be asked for before all that stands before it was given


class Line:
    """The work of one body that is under way. One thread at a time puts and takes; ``abort()`` may come from any.

    :param crew: whose threads work along; None: whoever takes does all.
    :param most: bytes that may be under way, beside one piece.
    """

    def __init__(self, crew: Crew | None = None, most: int = 0) -> None:
        self.position = 0  # bytes given so far
        self.held = 0  # bytes under way
        self._crew = crew
        self._most = most
        self._news = threading.Condition()  # guards all below
        self._waiting: deque[Late] = deque()  # those that no thread is at
        self._starting = 0  # threads on their way to them
        self._borrowed = 0  # bytes from the room that all bodies share
        self._wanted: Late | None = None
        self._stopped = False

    def takes(self, weight: int) -> bool:
        """Whether so many bytes more may be under way."""
        return self.held + weight <= self._most or not self.held

    def put(self, late: Late) -> bool:
        """Have some thread make it, now or soon. False: there is no room for it beside others, or no thread ever."""
        wanted = self.held + late.weight - _SHARE - self._borrowed
        if self._crew is None or (wanted > 0 and not self._crew.room.lend(wanted)):
            late.weight = 0
            return False
        self._borrowed += max(0, wanted)
        self.held += late.weight
        if late.make is None or late.here:
            return True
        with self._news:
            if self._stopped:
                return False
            self._waiting.append(late)
            if len(self._waiting) > self._starting and self._crew.start(self._work):
                self._starting += 1
        return True

    def take(self, late: Late) -> bytes:
        """Its bytes; what no thread is at is made here.

        :raises BodyClosed: ``abort()`` came.
        """
        if late.make is not None:
            with self._news:
                mine = not late.claimed
                if mine:
                    if self._waiting and self._waiting[0] is late:
                        self._waiting.popleft()
                else:
                    self._wanted = late
                    self._news.wait_for(lambda: late.make is None or self._stopped)
                    self._wanted = None
                if self._stopped:
                    raise BodyClosed("aborted")
            if mine:
                late.run()
        out = late.result()
        self.position += len(out)
        return out

    def passed(self, late: Late) -> None:
        """It was given, and holds nothing any more."""
        self.held -= late.weight
        self._give_back(self._borrowed - max(0, self.held - _SHARE))

    def threads(self) -> int:
        """How many threads of a library's own may work for this body: one, and others while there is room for them."""
        count = 1
        if self._crew is not None:
            while count < self._crew.most and self._crew.room.lend(_THREAD):
                self._borrowed += _THREAD
                count += 1
        return count

    def abort(self) -> None:
        """From any thread, at once. What a thread is at, it ends: one piece, of which nobody takes the bytes."""
        with self._news:
            self._stopped = True
            self._waiting.clear()
            self._news.notify_all()

    def close(self) -> None:
        self.abort()
        self.held = 0
        self._give_back(self._borrowed)

    def __del__(self) -> None:
        self._give_back(self._borrowed)  # of a body that nobody closed

    def _give_back(self, count: int) -> None:
        if self._crew is not None and count > 0:
            self._borrowed -= count
            self._crew.room.give_back(count)

    def _work(self) -> None:
        """On one of the crew's threads: as long as there is something that no other is at."""
        started = False
        while True:
            with self._news:
                self._starting -= not started
                started = True
                if not self._waiting:
                    return
                late = self._waiting.popleft()
                late.claimed = True
            late.run()
            if self._wanted is late:
                with self._news:
                    self._news.notify_all()
            del late  # hold nothing of it while waiting for the lock


def in_order(parts: Generator[bytes | Late | None, None, None], line: Line) -> Generator[bytes | None, None, None]:
    """The bytes of all parts in order, while later ones are being made.

    None means "the next part may have to be waited for": what is under way comes before that. Where the parts break
    off, all that came before is given first.
    """
    held: deque[Late] = deque()
    try:
        while True:
            try:
                part = next(parts)
            except StopIteration:
                break
            except StreamwareError:  # of a part; what fails at its place below is followed by nothing
                yield from _given(held, line)
                raise
            if part is None or part is ALL_BEFORE:
                yield from _given(held, line)
                if part is None:
                    yield None
            elif not held and isinstance(part, bytes):
                line.position += len(part)
                # Not held here while the client takes its time.
                given, part = [part], None
                yield given.pop()
            else:
                late, part = Late.of(part) if isinstance(part, bytes) else part, None
                if held or late.make is not None:
                    yield from _given(held, line, late.weight)
                    held.append(late)
                    if not line.put(late):
                        del late
                        yield from _given(held, line)
                elif out := line.take(late):
                    yield out
        yield from _given(held, line)
    finally:
        parts.close()
        held.clear()


def _given(held: deque[Late], line: Line, weight: int | None = None) -> Iterator[bytes]:
    """What is held, in order: all of it; with a ``weight`` what is made, and what has to go to make room for that."""
    while held and (weight is None or held[0].make is None or not line.takes(weight)):
        late = held.popleft()
        out = line.take(late)
        line.passed(late)
        del late
        if out:
            yield out
