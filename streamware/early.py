"""One opening that is made before its turn: what may be done of it, where it stands, and its bytes when it is taken.

The rule of this file: nothing fails because it was early. What may have gone wrong only for that reason is opened once
more at its turn, as long as none of its bytes were given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto

from streamware.errors import BodyClosed, SizeMismatch, UpstreamError, UpstreamStatus
from streamware.model import Chunks, Source
from streamware.openings import Opening

__all__ = ["Early", "Slot", "State", "Taken", "breaks", "early_of", "passes"]


class Early(Enum):
    """What of a member may be done before its turn, by another thread."""

    NOTHING = auto()
    READING = auto()  # only all at once: what that thread opens, it also reads and closes
    OPENING = auto()


def early_of(source: object) -> Early:
    """What the optional attributes of a source allow (``model.Source``)."""
    if getattr(source, "instant", False) or getattr(source, "serial", False):
        return Early.NOTHING
    return Early.READING if getattr(source, "bound", False) else Early.OPENING


class State(Enum):
    COMING = auto()  # no thread is at it
    RUNNING = auto()
    DONE = auto()


class Slot:
    """One opening that is done early, from its place in the queue to its last byte."""

    __slots__ = (
        "chunks",
        "counted",
        "dropped",
        "error",
        "long",
        "opened",
        "opening",
        "pieces",
        "reserved",
        "since",
        "source",
        "state",
    )

    def __init__(self, opening: Opening, reserved: int) -> None:
        self.opening = opening
        self.state = State.COMING
        self.reserved = reserved  # bytes of the budget
        self.counted = True  # among the open ones
        self.dropped = False  # nobody will take it: whoever runs it closes it
        self.long = False  # it is opened by a thread that does nothing else
        self.opened = False
        self.since = 0.0
        self.source: Source | None = None  # while it is being opened
        self.chunks: Chunks | None = None  # what is left to be read
        self.pieces: deque[bytes] = deque()
        self.error: BaseException | None = None

    def ready(self) -> bool:
        """Whether ``take`` will not wait, as far as can be told."""
        return self.state is State.DONE and self.error is None

    def abort(self) -> None:
        """From any thread: end what somebody waits for."""
        source, chunks = self.source, self.chunks
        if source is not None:
            getattr(source, "abort", _nothing)()
        if chunks is not None:
            chunks.abort()


class Taken:
    """``Chunks`` of what was opened early: first what is held, then what is left.

    :param opened: opens it, in the thread that takes.
    :param ended: told once, when it is closed.
    """

    __slots__ = ("_aborted", "_again", "_chunks", "_ended", "_given", "_opened", "_pieces", "_slot")

    def __init__(self, slot: Slot, opened: Callable[[Slot], Chunks], ended: Callable[[Slot], object]) -> None:
        self._opened = opened
        self._ended = ended
        self._slot: Slot | None = slot
        self._chunks, slot.chunks = slot.chunks, None
        self._pieces = slot.pieces
        self._given = False
        self._again = False
        self._aborted = False

    def open_anew(self) -> None:
        """At its turn, in the thread that takes, once. Raises as ``Source.open``, and is then closed."""
        slot = self._slot
        assert slot is not None
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            chunks.close()
        self._pieces.clear()
        self._again = True
        try:
            self._chunks = self._opened(slot)
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
            if self._given or self._again or self._aborted or not breaks(error):
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
            self._ended(slot)


def passes(error: BaseException) -> bool:
    """Whether an opening that failed so may succeed a little later."""
    return isinstance(error, UpstreamError) and not isinstance(error, UpstreamStatus)


def breaks(error: BaseException) -> bool:
    """Whether an answer may have ended so because nobody read it."""
    return passes(error) or isinstance(error, SizeMismatch)


def _nothing() -> None:
    """For sources that cannot be told to stop."""
