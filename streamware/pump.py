"""The pump: the body of an answer, counted, joined into pieces worth sending, and ended properly.

The rules of this file: what was promised is what is sent, or an exception, and that exception again at every further
``next()`` until it is closed, so that nobody can take a broken body for a finished one. Small parts are joined; as soon
as somebody would have to be waited for, what is there goes out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from streamware.ahead import Ahead
from streamware.errors import BodyClosed, MemberError, SizeMismatch, StreamwareError
from streamware.foreign import Foreign, own
from streamware.ledger import Ledger
from streamware.line import Line
from streamware.model import Source
from streamware.plan import Plan, Table, Window
from streamware.policy import Policy
from streamware.traces import let_go
from streamware.walk import Walk

__all__ = ["Body", "Witness"]

_JOIN = 64 * 1024  # parts from this size on go out as they are; smaller ones are joined


class Witness(Protocol):
    """Told once each of a body's first piece and of its end; ``error`` None: all bytes were given."""

    def first_byte(self) -> None: ...

    def ended(self, body: Body, error: BaseException | None) -> None: ...


class Body:
    """The bytes of some windows of a plan, with literal bytes between them (``multipart/byteranges``).

    Iterate once, from one thread at a time. Whoever iterates calls ``close()``; ``abort()`` may come from any thread.
    ``length`` is the exact number of bytes, or None. ``next()`` raises StreamwareError where the promise breaks.

    :param source_of: gives the source of a member by its index; asked when the member is opened.
    :param version_of: gives the ledger's key of a member by its index; None for one that nothing pins.
    :param failures: with a list, members that cannot be opened are left out and their errors appended (only in plans of
        unknown length: elsewhere it would break the promise of length).
    :param places: the caller's number of each member, which errors carry as ``index``; None: they are the same.
    :param ahead: opens members before their turn, for this body alone; it ends with it. None: none is.
    :param line: compresses blocks side by side, for this body alone; it ends with it. None: one after another.
    """

    def __init__(
        self,
        plan: Plan,
        entries: Table,
        source_of: Callable[[int], Source],
        pieces: Iterable[bytes | Window],
        *,
        policy: Policy,
        ledger: Ledger,
        version_of: Callable[[int], bytes | None],
        failures: list[MemberError] | None = None,
        places: Sequence[int] | None = None,
        witness: Witness | None = None,
        ahead: Ahead | None = None,
        line: Line | None = None,
    ) -> None:
        pieces = tuple(pieces)
        lengths = [len(p) if isinstance(p, bytes) else p.length for p in pieces]
        self.length: int | None = None if None in lengths else sum(n for n in lengths if n is not None)
        self.bytes_out = 0
        self._piece_bytes = policy.chunk_bytes
        self._seconds = policy.max_bundle_seconds
        self._witness = witness
        self._ledger = ledger
        self._walk = Walk(plan, entries, source_of, version_of, ledger, policy, failures, places, ahead, line)
        self._passage = self._walk.passage
        self._parts = self._walk.parts(pieces)
        self._gathered: list[bytes] = []
        self._next_large = b""  # a part that was met while small ones were joined
        self._error: StreamwareError | None = None
        self._aborted = False
        self._ended = False
        self._complete = False

    @property
    def bytes_in(self) -> int:
        """Bytes of content read from the sources so far."""
        return self._passage.bytes_in

    @property
    def members(self) -> int:
        """Members opened so far."""
        return self._walk.members

    def prepare(self) -> None:
        """Open the first member that the windows need, so that its failure can still be answered with a status.

        :raises StreamwareError: it cannot be opened; the body is then closed.
        """
        size = 0
        try:
            while self.members == 0 and size < _JOIN:
                part = next(self._parts)
                if part:
                    self._gathered.append(part)
                    size += len(part)
        except StopIteration:
            return
        except StreamwareError as error:
            failure, cause = self._failed(error), error.__cause__
            if isinstance(error, Foreign) and cause is not None and not isinstance(cause, OSError):
                # A mistake in the caller's code, and no head yet that would forbid to say so.
                raise cause from cause.__cause__
            raise failure from cause
        except BaseException as error:
            self._end(error)
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._error is not None:
            self._end(self._error)  # if the last piece went out in between
            raise self._error
        if self._complete:
            raise StopIteration
        if self._aborted or self._ended:
            raise BodyClosed("read after close() or abort()")
        piece = self._next_piece()
        if not piece:
            if self.length not in (None, self.bytes_out):
                raise self._failed(SizeMismatch(f"{self.bytes_out} bytes came, and {self.length} were promised"))
            self._complete = True
            self._end(None)
            raise StopIteration
        if not self.bytes_out:
            if self._seconds is not None:
                self._passage.deadline = time.monotonic() + self._seconds
            if self._witness is not None:
                self._witness.first_byte()
        self.bytes_out += len(piece)
        if self.length is not None and self.bytes_out > self.length:
            raise self._failed(SizeMismatch(f"more than the promised {self.length} bytes came"))
        return piece

    def ready(self) -> bool:
        """Whether the next piece needs no waiting for anybody."""
        return self._error is not None or bool(self._next_large) or self._passage.ready()

    def abort(self) -> None:
        """Stop at once, from any thread; a read that is blocked ends with an error."""
        self._aborted = True
        self._passage.abort()

    def close(self) -> None:
        """Close what is open. Not while another thread is inside ``next()``: ``abort()`` and wait for that first."""
        if self._ended:
            pass
        elif self.bytes_out == self.length:
            self._complete = self._complete or self._error is None  # the last piece was taken, if not the end after it
            self._end(self._error)
        else:
            self._end(self._error or BodyClosed("closed before the end"))
        self._error = None  # its traceback holds this body, and with it what else would have to wait to be collected
        self._gathered.clear()
        self._next_large = b""

    def _next_piece(self) -> bytes:
        """One part if it is large, else several joined until somebody would have to be waited for; b"" at the end."""
        if self._next_large:
            large, self._next_large = self._next_large, b""
            return large
        joined, self._gathered = self._gathered, []
        passage = self._passage
        size = sum(map(len, joined))
        try:
            while size < self._piece_bytes:
                passage.hurry = bool(joined)
                part = next(self._parts)
                if part is None:
                    if joined:
                        break
                elif len(part) >= (_JOIN if passage.sparing or not joined else self._piece_bytes):
                    if not joined:
                        return part
                    # PERF: to copy it for the sake of the header before it costs more than to send that alone. And
                    # what was read in small pieces stays small: joined again, it cost 100 slow clients 0.2 of the CPU
                    # time on gunicorn, 0.3 on uvicorn, and twice the memory.
                    self._next_large = part
                    break
                elif part:
                    joined.append(part)
                    size += len(part)
        except StopIteration:
            pass
        except Exception as error:
            # What was joined holds the failing member's header: it goes out first, the error comes at the next call.
            failure = self._noted(own(error))
            try:
                if not joined:
                    self._end(failure)
                    raise failure from failure.__cause__
            finally:
                del failure  # its traceback holds this frame
        except BaseException as error:
            self._failed(BodyClosed(f"interrupted: {error!r}"))
            raise
        return b"".join(joined)

    def _failed(self, error: StreamwareError) -> StreamwareError:
        """Note the error, and end."""
        error = self._noted(error)
        self._end(error)
        return error

    def _noted(self, error: StreamwareError) -> StreamwareError:
        """The error for this and every further ``next()``."""
        if self._aborted and not isinstance(error, BodyClosed):
            closed = BodyClosed("aborted")
            closed.__cause__ = error
            error = closed
        let_go(error)
        self._error = error
        return error

    def _end(self, error: BaseException | None) -> None:
        if self._ended:
            return
        self._ended = True
        try:
            self._parts.close()
        finally:
            self._passage.close()
            self._ledger.flush()
            if self._witness is not None:
                self._witness.ended(self, error)
