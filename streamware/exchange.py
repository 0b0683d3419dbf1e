"""The body of one answer, counted: as many bytes as were promised, or an error; and the word that ends it all.

The rule of this file: bytes are counted against the promise, and a body that was ended from outside never looks whole.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from streamware.errors import BodyClosed, SizeMismatch, StreamwareError, UpstreamError, UpstreamTimeout
from streamware.heads import Head

__all__ = ["Exchange", "Stop", "UpstreamChunks"]


class Stop:
    """Whether somebody has said, from any thread, that nothing more is wanted; ends waits, and what else is blocked."""

    __slots__ = ("_end", "_event", "_lock")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """From any thread, more than once."""
        with self._lock:
            self._event.set()
            if self._end is not None:
                self._end()

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than until it is set; then raise BodyClosed."""
        if self._event.wait(seconds):
            raise BodyClosed("ended by abort()")

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Inside, ``end`` is called as soon as it is set; never after. One at a time."""
        with self._lock:
            self._end = end
            if self._event.is_set():
                end()
        try:
            yield
        finally:
            with self._lock:
                self._end = None


class Exchange(Protocol):
    """One answer whose body is still to be read, by one thread.

    Whoever got it ends it, with ``finish``, ``discard`` or ``close``.
    """

    @property
    def head(self) -> Head: ...

    def read(self, limit: int) -> bytes:
        """At most ``limit`` bytes as soon as there are any; b"" at the end. Raises UpstreamError."""

    def readable(self) -> bool:
        """Whether ``read`` will return without waiting."""

    def broken(self) -> bool:
        """Whether ``read`` will find the connection ended, and that before the body's end, as far as can be seen."""

    def abort(self) -> None:
        """From any thread: make a blocked ``read`` return or raise at once."""

    def finish(self) -> None:
        """Everything wanted was read: keep the connection if the body really ends here, else close it."""

    def discard(self) -> None:
        """Nothing was read, and nothing is wanted: keep the connection if that needs no waiting, else close it."""

    def close(self) -> None:
        """Give up in the middle: close the connection."""


class UpstreamChunks:
    """The bytes of one answer as they come: ``Chunks``, and a ``ReplyBody`` too.

    :param length: bytes it gives, exactly; None: as many as there are until the answer ends.
    :param ends: the body must end behind these bytes, which its head does not say.
    :param skip: bytes to throw away first; ``until`` is the time (``monotonic``) by which that must be done.
    :param failed: called if the body breaks off.
    """

    __slots__ = (
        *("_aborted", "_chunk_bytes", "_closed", "_ends", "_exchange", "_failed", "_first", "_left", "_skip", "_until"),
        "length",
    )

    def __init__(
        self,
        exchange: Exchange,
        length: int | None,
        chunk_bytes: int,
        *,
        ends: bool = False,
        skip: int = 0,
        until: float | None = None,
        failed: Callable[[], None] | None = None,
    ) -> None:
        self.length = length
        self._exchange = exchange
        self._chunk_bytes = chunk_bytes
        self._left = length
        self._ends = ends
        self._skip = skip
        self._until = until
        self._failed = failed
        self._first = b""
        self._aborted = False
        self._closed = False

    @property
    def url(self) -> str:
        """What the log may show of the URL that answered."""
        return self._exchange.head.url

    def start(self) -> None:
        """Wait for the first bytes and hold them. Raises as ``next()`` does, and is then closed."""
        if self._left != 0:
            self._first = self._read()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._aborted:
            raise BodyClosed("read after abort()")
        if self._left == 0:
            if self._ends and not self._closed:
                self._prove_end()
            self.close()
            raise StopIteration
        if self._closed:
            raise BodyClosed("read after close()")
        piece, self._first = self._first, b""
        if not piece:
            piece = self._read()
            if not piece:
                self._left = 0
                self.close()
                raise StopIteration
        if self._left is not None:
            self._left -= len(piece)
        return piece

    def ready(self) -> bool:
        """Whether the next piece needs no waiting; while bytes are thrown away it does."""
        if self._left == 0 or self._closed or self._aborted or self._first:
            return True
        return not self._skip and self._exchange.readable()

    def broken(self) -> bool:
        """Whether the next piece will be an error, as far as that can be seen without waiting."""
        if self._left == 0 or self._closed or self._aborted or self._first:
            return False
        return self._exchange.broken()

    def abort(self) -> None:
        """From any thread: a blocked ``next()``, and every later one, raises BodyClosed."""
        self._aborted = True
        self._exchange.abort()

    def close(self) -> None:
        """Let go of the connection: kept for others if the answer was read to its end, else closed."""
        if self._closed:
            return
        self._closed = True
        if self._left == 0 and not self._aborted:
            self._exchange.finish()
        else:
            self._exchange.close()

    def _read(self) -> bytes:
        try:
            while self._skip:
                if self._until is not None and monotonic() > self._until:
                    raise UpstreamTimeout(f"{self.url}: no ranges, and what is to be skipped takes too long")
                self._skip -= len(self._wanted(self._skip))
            piece = self._exchange.read(self._chunk_bytes) if self._left is None else self._wanted(self._left)
            if self._aborted:  # what came out of a connection that was being shut down is not to be trusted
                raise BodyClosed("ended by abort()")
            return piece
        except StreamwareError as error:
            self.close()
            if self._aborted and not isinstance(error, BodyClosed):
                raise BodyClosed("ended by abort()") from error
            if self._failed is not None and not self._aborted:
                self._failed()
            raise
        except BaseException:
            self.close()
            raise

    def _prove_end(self) -> None:
        """See that nothing follows. An end that does not come, or comes badly, takes nothing from what is there."""
        try:
            more = self._exchange.read(1)
        except UpstreamError:
            more = b""
        if self._aborted:
            self.close()
            raise BodyClosed("ended by abort()")
        if more:
            self.close()
            if self._failed is not None:
                self._failed()
            raise SizeMismatch(f"{self.url}: the body goes on behind the promised {self.length} bytes")

    def _wanted(self, most: int) -> bytes:
        piece = self._exchange.read(min(most, self._chunk_bytes))
        if not piece:
            raise SizeMismatch(f"{self.url}: the body ended {self._left} bytes short of the promised {self.length}")
        return piece
