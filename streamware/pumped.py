"""A body that is moved by threads into a queue bounded in bytes, for a consumer that must not wait for a thread.

The rules of this file. A step holds a thread only while bytes move: it ends where the queue is full or a source would
have to be waited for while there is something to send. A body is never stepped or closed by two at once. And the
consumer is woken only if it has said that it waits.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from streamware.pumps import Pumps
from streamware.reply import ReplyBody

__all__ = ["Pumped"]

_log = logging.getLogger("streamware")


class Pumped:
    """One body and its queue. All methods but the steps themselves are the consumer's, called from one thread.

    :param news: called from a pump thread when the consumer ``waits`` and something came: a piece, the end, an error.
    :param closed: called from a pump thread when the body has been closed; once.
    """

    def __init__(self, body: ReplyBody, pumps: Pumps, news: Callable[[], object], closed: Callable[[], object]) -> None:
        self.over = False  # nothing is added to the queue any more
        self.error: BaseException | None = None  # why, if that was not the end
        self.waits = False
        self._body = body
        self._pumps = pumps
        self._news = news
        self._tell_closed = closed
        self._pieces: deque[bytes] = deque()
        self._put = 0  # bytes; written by steps only
        self._taken = 0  # written by the consumer only
        self._most = 0
        self._lock = threading.Lock()  # guards all below; the first two say who closes
        self._stepping = False
        self._closing = False
        self._unwanted = False  # the consumer has gone

    @property
    def held(self) -> int:
        """Bytes that lie in the queue."""
        return self._put - self._taken

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to take, and something still to come."""
        return not self._pieces and not self.over

    def pull(self, most: int) -> None:
        """Have the queue filled up to ``most`` bytes, by one piece in any case; nothing happens while a step runs.

        :raises RuntimeError: there is no thread for it; the interpreter is ending.
        """
        with self._lock:
            if self._stepping or self._closing or self.over:
                return
            self._stepping = True
        self._most = most
        try:
            self._pumps.submit(self._step)
        except RuntimeError:
            self._stepping = False
            raise

    def take(self) -> bytes | None:
        """The next piece; None: there is none just now."""
        if not self._pieces:
            return None
        piece = self._pieces.popleft()
        self._taken += len(piece)
        return piece

    def close_soon(self) -> None:
        """Close the body after the step that runs, if one does, and end that. Idempotent; waits for nobody."""
        with self._lock:
            self.error = None  # its traceback holds the body, and nobody is to be told of it any more
            self._unwanted = True
            if self._closing:
                return
            self._closing = True
            stepping = self._stepping
            body = self._body
        if not self.over:
            body.abort()
        if not stepping:  # else the step closes as it ends
            try:
                self._pumps.submit(self._close)
            except RuntimeError:  # the interpreter is ending
                self._close()

    def _step(self) -> None:
        try:
            self._fill()
        except StopIteration:
            self.over = True
        except BaseException as error:
            self.error = error  # what came before it goes out first
            self.over = True
        with self._lock:
            if self._unwanted:
                self.error = None
            self._stepping = False
            last = self._closing = self._closing or self.over
        self._wake()
        if last:
            self._close()

    def _fill(self) -> None:
        body, made = self._body, 0
        if self._pieces and self.held >= self._most:
            return
        while not self._unwanted:
            piece = next(body)
            if not piece:
                continue
            made += len(piece)
            self._put += len(piece)
            self._pieces.append(piece)  # not joined: each is worth a send, and a join would hold its bytes twice
            del piece
            if self._put - self._taken >= self._most:
                return
            if made >= self._most or not body.ready():
                # What is there goes out before anybody is waited for. This thread waits on, for the consumer will want
                # more at once, but not where others wait for a thread.
                if self._pumps.wanted:
                    return
                self._wake()

    def _wake(self) -> None:
        if self.waits:
            self.waits = False
            self._news()

    def _close(self) -> None:
        body = self._body
        del self._body  # whoever is told of the end may look whether it has gone
        try:
            body.close()
        except Exception:
            _log.exception("a body failed while it was closed")
        del body
        closed = self._tell_closed
        self._news = self._tell_closed = _nobody  # they hold the consumer, and that holds this
        closed()


def _nobody() -> None:
    """Is told when there is nothing more to tell."""
