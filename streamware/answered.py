"""One answer over a connection of a pool, until that is given back: waited for, or taken as it comes.

The rule of this file: a connection goes back once, and only after the end of an answer behind which nothing came; any
other is closed. Errors leave through the gate that whoever has the pool gives along.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Protocol

from streamware.answer import Answer
from streamware.errors import UpstreamError
from streamware.exchange import Stop
from streamware.heads import Head
from streamware.slots import Slot

__all__ = ["Answered", "Flight"]

_log = logging.getLogger("streamware")

_SMALL_BYTES = 64 * 1024  # of one read of an answer beyond the first few (``slots.Slot.large``)
_DRAIN_BYTES = 8 * 1024

PutBack = Callable[[Any], object]


class Line(Protocol):
    """A connection."""

    def awaited(self, answer: Answer, stop: Stop | None) -> Answer:
        """Wait for the head of an answer, or of the one to the same request when that had to be sent again."""

    def close(self) -> None: ...


class Gate(Protocol):
    """Inside, what is no error of ours becomes one."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Answered:
    """One answer over a connection of a pool; see ``exchange.Exchange``."""

    __slots__ = ("_answer", "_connection", "_gate", "_put_back", "_slot", "head")

    def __init__(self, answer: Answer, connection: Line, put_back: PutBack, gate: Gate, slot: Slot) -> None:
        self.head: Head = answer.head
        self._answer = answer
        self._connection: Line | None = connection
        self._put_back = put_back
        self._gate = gate
        self._slot = slot

    def lines(self) -> Iterable[tuple[str, str]]:
        """The head's fields line by line."""
        return self._answer.lines

    def read(self, limit: int) -> bytes:
        if self._connection is None:
            return b""
        with self._gate:
            return self._answer.read(limit if self._slot.large else min(limit, _SMALL_BYTES))

    def readable(self) -> bool:
        if self._connection is None:
            return True
        with self._gate:
            return self._answer.at_hand()

    def at_leisure(self) -> None:
        """For bodies that are passed on as they come, a stream of events perhaps: no rate is too low."""
        self._answer.at_leisure()

    def broken(self) -> bool:
        if self._connection is None:
            return False
        with self._gate:
            return self._answer.cut_off()

    def abort(self) -> None:
        if self._connection is not None:  # else it is back in the pool, and may be a neighbour's by now
            self._answer.shut_down()

    def finish(self) -> None:
        answer = self._answer
        if self._connection is not None and answer.at_end() is False and answer.chunked:
            _log.warning("%s: more bytes came than were promised; they are left out", self.head.url)
        self.close()

    def discard(self) -> None:
        if self._connection is not None and self._answer.whole:
            try:
                while self.read(_DRAIN_BYTES):
                    pass
            except UpstreamError:
                pass  # whatever became of the connection, nothing more is wanted of it
        self.close()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                if not self._answer.clean():
                    connection.close()
                self._put_back(connection)
        finally:
            self._slot.free()

    def __del__(self) -> None:
        if self._connection is not None:  # nobody closed it
            self.close()


class Flight:
    """A request that was sent over a connection that was there; its answer is taken as it comes, without waiting.

    Whoever launched it ends it, with ``landed``, ``answered`` or ``close``.
    """

    __slots__ = ("_answer", "_connection", "_gate", "_put_back", "_slot", "fd")

    def __init__(self, answer: Answer, connection: Line, put_back: PutBack, gate: Gate, slot: Slot) -> None:
        self._answer = answer
        self._connection: Line | None = connection
        self._put_back = put_back
        self._gate = gate
        self._slot = slot
        self.fd = answer.fileno()

    def come(self, most: int, *, all_of_it: bool) -> bool:
        """Take at most so many bytes that are there: whether there is nothing more to be taken in this way."""
        return self._answer.come(most, all_of_it=all_of_it)

    @property
    def head(self) -> Head | None:
        """The head, if that has come."""
        return self._answer.head if self._answer.begun else None

    @property
    def whole(self) -> bool:
        """Whether the whole body has come."""
        return self._answer.whole

    def landed(self) -> bytes:
        """The body of an answer that is here whole; the connection goes back."""
        data = self._answer.rest()
        self._give_back()
        return data

    def answered(self, stop: Stop | None) -> Answered:
        """Wait for the answer as always, with what has come of it. Raises UpstreamError, and is then closed."""
        connection, answer = self._connection, self._answer
        if connection is None:
            raise UpstreamError("a request that was given up")
        self._connection = None
        try:
            with self._gate:
                try:
                    answer = connection.awaited(answer, stop)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            self._slot.free()
            raise
        return Answered(answer, connection, self._put_back, self._gate, self._slot)

    def shut_down(self) -> None:
        """From any thread: nothing more comes."""
        if self._connection is not None:  # else it is back in the pool, and may be a neighbour's by now
            self._answer.shut_down()

    def close(self) -> None:
        """Give up. Idempotent."""
        self._answer.keeps = False
        self._give_back()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if not self._answer.clean():
            connection.close()
        self._put_back(connection)
        self._slot.free()
