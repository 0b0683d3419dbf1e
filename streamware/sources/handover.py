"""An answer that comes about on another thread: the reader's half of it, which knows no event loop.

The rules of this file: an app is never far ahead of its reader, and every wait for it has an end.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from streamware.errors import BodyClosed, SourceError, UpstreamTimeout

__all__ = ["Handover"]

_log = logging.getLogger("streamware")

_AHEAD_BYTES = 256 * 1024  # what an app may be ahead of its reader
_CLOSE_SECONDS = 5.0  # how long a reader waits for an app to end; it goes on ending without being waited for
_HEAD_SECONDS = 1.0  # how long an app may go on after it has answered a HEAD


class Handover(ABC):
    """An answer on its way from the thread an app runs on to the one that reads it, with few bytes in between.

    The reader calls ``begin`` and then has a ``subrequest.Answer``. The app's side calls ``put_head``, ``put`` and
    ``finish`` on its own thread, and waits when ``put`` says so. The three abstract methods are called from any thread
    and must not wait; each says whether the app's thread is still there to hear it.

    :param seconds: the longest silence of the app.
    :param head: the request is a HEAD.
    """

    def __init__(self, *, seconds: float, head: bool) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self._seconds = seconds
        self._head = head
        self._news = threading.Condition()
        self._pieces: list[bytes] = []
        self._held = 0
        self._full = False
        self._complete = False  # the answer's end has come
        self._ended = False  # the app has returned, or failed
        self._aborted = False
        self._error: BaseException | None = None

    @abstractmethod
    def start_app(self) -> bool: ...

    @abstractmethod
    def resume_app(self) -> bool:
        """There is room again after ``put`` returned True."""

    @abstractmethod
    def stop_app(self) -> bool:
        """Nobody reads any more. An app whose answer is complete may end in its own time."""

    # --- the reader's side ---

    def begin(self) -> None:
        """Start the app, and wait until it has given a status.

        :raises SourceError: it failed, or ended without one.
        :raises UpstreamTimeout: it did neither in time.
        """
        try:
            self._tell(self.start_app)
            self._wait(lambda: bool(self.status))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._wait(lambda: bool(self._pieces) or self._complete)
        with self._news:
            pieces, self._pieces, self._held = self._pieces, [], 0
            full, self._full = self._full, False
        if full:
            self._tell(self.resume_app)
        if not pieces:
            raise StopIteration
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def ready(self) -> bool:
        return bool(self._pieces) or self._complete or self._ended or self._aborted

    def abort(self) -> None:
        with self._news:
            self._aborted = True
            self._news.notify_all()
        self._tell(self.stop_app)

    def close(self) -> None:
        """End the app; wait for its end, within bounds, unless its answer is complete. Not on the app's own thread."""
        with self._news:
            if self._head and self.status and not self._aborted:
                self._news.wait_for(lambda: self._complete or self._ended or self._full, timeout=_HEAD_SECONDS)
        self.abort()
        with self._news:
            if not self._news.wait_for(lambda: self._complete or self._ended, timeout=_CLOSE_SECONDS):
                _log.warning("an app goes on for more than %.0f s after it was told to stop", _CLOSE_SECONDS)

    def _wait(self, enough: Callable[[], bool]) -> None:
        with self._news:
            came = self._news.wait_for(lambda: self._aborted or self._ended or enough(), timeout=self._seconds)
            if self._aborted:
                raise BodyClosed("aborted")
            if not came:
                raise UpstreamTimeout(f"the app gave nothing for {self._seconds} s")
            if not enough():
                raise SourceError(f"the app ended before its answer did: {self._error!r}") from self._error

    def _tell(self, call: Callable[[], bool]) -> None:
        if not call():
            self.finish(None)

    # --- the app's side ---

    def put_head(self, status: int, headers: list[tuple[str, str]]) -> None:
        with self._news:
            if not self.status:
                self.headers = headers
                self.status = status
                self._news.notify_all()

    def put(self, data: bytes, *, last: bool) -> bool:
        """Hand over a piece of the body. True: wait for room before the next."""
        with self._news:
            if self._complete or self._aborted:
                return False
            if data and not self._head:
                self._pieces.append(data)
                self._held += len(data)
            self._complete = last
            # An app that sends a body for a HEAD is held at its first piece, and stopped there.
            self._full = not last and (self._held >= _AHEAD_BYTES or (self._head and bool(data)))
            self._news.notify_all()
            return self._full

    def finish(self, error: BaseException | None) -> None:
        """The app has ended; ``error`` is what it raised."""
        with self._news:
            self._error = error
            self._ended = True
            self._news.notify_all()
