"""An app's answer, held back until it is known whether it is a list that an archive is to take the place of.

The rule of this file: an answer that is no list goes on untouched and at once; one that is is kept from the client and
taken in, within a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

from streamware.edge import App, Message, Receive, Scope, Send
from streamware.errors import LimitExceeded, SourceError
from streamware.inner import headers_in, headers_of
from streamware.list_head import ListHead

__all__ = ["HeldSend", "HeldStart", "LateAnswer"]


class HeldStart:
    """The app's ``start_response``: holds back the head of a list, passes on every other.

    ``passed`` and ``head`` say which it was; neither, as long as the app has not called.
    """

    def __init__(self, start_response: Callable[..., Any], environ: dict[str, Any], limit: int) -> None:
        self.start_response = start_response
        self.passed = False
        self.head: ListHead | None = None
        self.written: list[bytes] = []
        self._environ = environ
        self._limit = limit

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
        if not self.passed:
            self.head = self._list_head(status, headers)
            if self.head is not None:
                return self._write
            self.passed = True
        try:
            result: Callable[[bytes], Any] = (
                self.start_response(status, headers)
                if exc_info is None
                else self.start_response(status, headers, exc_info)
            )
            return result
        finally:
            exc_info = None  # else the traceback and this frame would hold each other

    def _list_head(self, status: str, headers: list[tuple[str, str]]) -> ListHead | None:
        if not any(name.lower() == "x-archive-files" for name, _ in headers):
            return None
        method = self._environ["REQUEST_METHOD"]
        head = ListHead(int(status[:3]), headers, method)
        return head if head.asks_for_archive(method, headers_of(self._environ)) else None

    def _write(self, data: bytes) -> None:
        self.written.append(data)
        if sum(map(len, self.written)) > self._limit:
            raise LimitExceeded(f"A manifest may have {self._limit} bytes, and this one has more.")


class LateAnswer:
    """The answer of an app that calls ``start_response`` only when its iterable is asked for the first item."""

    def __init__(
        self,
        result: Iterable[bytes],
        watch: HeldStart,
        replace: Callable[[HeldStart, Iterator[bytes], Callable[[], None]], Iterable[bytes]],
    ) -> None:
        self._result = result
        self._watch = watch
        self._replace = replace
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._pieces is None:
            self._pieces = iter(self._result)
        piece = next(self._pieces, None)
        if self._watch.head is not None:
            self._result = self.replaced(() if piece is None else (piece,))
            self._watch.head = None
            self._pieces = iter(self._result)
            piece = next(self._pieces, None)
        if piece is None:
            raise StopIteration
        return piece

    def replaced(self, first: tuple[bytes, ...]) -> Iterable[bytes]:
        """The archive in place of the list that begins with ``first``."""
        rest = iter(self._result) if self._pieces is None else self._pieces
        return self._replace(self._watch, chain(self._watch.written, first, rest), self.close)

    def close(self) -> None:
        result, self._result = self._result, ()
        close = getattr(result, "close", None)
        if close is not None:
            close()


class HeldSend:
    """The app's ``send``: takes in a list, passes on everything else. ``head`` is the list's, None if there is none."""

    def __init__(self, send: Send, scope: Scope, limit: int) -> None:
        self.head: ListHead | None = None
        self._send = send
        self._scope = scope
        self._limit = limit
        self._status = 0
        self._body = bytearray()
        self._complete = False
        self._too_long = False

    async def run(self, app: App, scope: Scope, receive: Receive) -> None:
        try:
            await app(scope, receive, self)
        except Exception:
            if not self._too_long:  # else it is our own, or came of it
                raise

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start" and not self._status:
            self._status = message["status"]
            self.head = self._list_head(message)
        if self.head is None:
            await self._send(message)
        elif kind == "http.response.body":
            self._take(message.get("body", b""))
            self._complete = not message.get("more_body", False)
        elif kind in ("http.response.pathsend", "http.response.zerocopysend"):
            self.head.whole = False  # what is not sent as bytes is asked for once more, as bytes

    def second_head(self) -> ListHead:
        """Where this was the second asking: the head of the list.

        :raises SourceError: there was none.
        """
        headers = [] if self.head is None else self.head.headers
        return ListHead.of_second(self._status, headers)

    def listed(self) -> bytes:
        """The list.

        :raises LimitExceeded: it is too long.
        :raises SourceError: the app ended before its list did.
        """
        if self._too_long:
            raise self._limit_exceeded()
        if not self._complete:
            raise SourceError("the app ended before its list did")
        return bytes(self._body)

    def _list_head(self, message: Message) -> ListHead | None:
        if not any(name.lower() == b"x-archive-files" for name, _ in message.get("headers", ())):
            return None
        method = self._scope["method"]
        head = ListHead(message["status"], headers_in(message), method)
        return head if head.asks_for_archive(method, headers_in(self._scope)) else None

    def _take(self, data: bytes) -> None:
        assert self.head is not None
        if self.head.whole:
            self._body += data
            if len(self._body) > self._limit:
                self._too_long = True
                raise self._limit_exceeded()

    def _limit_exceeded(self) -> LimitExceeded:
        return LimitExceeded(f"A manifest may have {self._limit} bytes, and this one has more.")
