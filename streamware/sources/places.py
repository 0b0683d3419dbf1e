"""The places of one member, its URL and the mirrors: asking any of them, and opening what it answers at an offset.

The rule of this file: a body is handed on only after its head has agreed with the member's terms; every other answer is
discarded here, before a byte of it was given.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from streamware.errors import (
    InvalidTarget,
    MemberChanged,
    MemberError,
    SizeMismatch,
    SourceError,
    StreamwareError,
    UpstreamError,
)
from streamware.exchange import Exchange, Stop, UpstreamChunks
from streamware.heads import facts_of_part, refusal
from streamware.model import Facts, Url
from streamware.policy import Policy
from streamware.semantics import is_strong
from streamware.sources.client import Client, Flight
from streamware.terms import Terms

__all__ = ["Places"]

# Read and thrown away at most where a server knows no ranges: five seconds of 100 Mbit/s, well inside the patience of
# whoever waits for the first byte.
_SKIP_BYTES = 64 * 1024 * 1024
_GZIP = {"Accept-Encoding": "gzip, identity;q=0.5"}  # RFC 9110 section 12.5.3


class Places:
    """Where a member is asked for, by number: its URL is place 0, mirrors follow. One thread at a time.

    ``flight`` is what was launched to place 0, if anything: the next request there goes on with it.

    :param own: the headers every request for it carries.
    """

    __slots__ = ("_client", "_content", "_own", "_policy", "_terms", "flight", "urls")

    def __init__(self, client: Client, content: Url, own: Mapping[str, str], terms: Terms, policy: Policy) -> None:
        self._client = client
        self._content = content
        self._own = own
        self._terms = terms
        self._policy = policy
        self.urls = (content.url, *content.mirrors)
        self.flight: Flight | None = None

    def launch(self, *, large: bool) -> int | None:
        """Send a GET for the whole to place 0 if that takes no waiting: a descriptor to poll, or None."""
        url = self.urls[0]
        if not isinstance(url, str):
            return None
        flight = self.flight = self._client.launch(url, self._content, self._own, self._terms.if_match(), large=large)
        return None if flight is None else flight.fd

    def close(self) -> None:
        """Give up what was launched. Idempotent."""
        flight, self.flight = self.flight, None
        if flight is not None:
            flight.close()

    @contextmanager
    def counted(self, stop: Stop) -> Iterator[None]:
        """Around one attempt: its failure is counted, unless ``stop`` made it fail."""
        try:
            yield
        except MemberError:
            if not stop.is_set:
                self._client.failed()
            raise

    def ask(self, method: str, place: int, extra: Mapping[str, str], stop: Stop) -> Exchange:
        """Ask one place; the caller ends what it answers.

        :raises SourceError: the place is a function, and has no usable URL to give.
        :raises UpstreamError, NotAllowed, InvalidTarget: as ``Client.ask`` does.
        """
        url = self.urls[place]
        if self._terms.gzip:
            extra = {**extra, **_GZIP}
        if isinstance(url, str):
            flight = None
            if place == 0:
                flight, self.flight = self.flight, None
            return self._client.ask(method, url, self._content, self._own, extra, stop, flight)
        try:
            made = url()
        except StreamwareError:
            raise
        except Exception as error:
            raise SourceError(f"the function that makes a URL failed: {error!r}") from error
        if not isinstance(made, str):
            raise SourceError(f"the function that makes a URL gave a {type(made).__name__}")
        try:
            return self._client.ask(method, made, self._content, self._own, extra, stop)
        except InvalidTarget as error:
            raise SourceError(f"the function that makes a URL gave one that cannot be asked: {error}") from error

    def get(self, place: int, stop: Stop) -> tuple[Exchange, Facts]:
        """GET the whole; the answer agrees with the terms, and the caller ends it."""
        terms = self._terms
        extra = terms.if_match()
        exchange = self.ask("GET", place, extra, stop)
        try:
            if extra and exchange.head.status == 412:
                raise MemberChanged(f"{exchange.head.url}: it no longer has the version {terms.given_etag}")
            facts = terms.whole(exchange.head)
            terms.check(place, exchange.head, facts)
        except BaseException:
            exchange.discard()
            raise
        return exchange, terms.settle(place, facts)

    def open(self, place: int, start: int, length: int | None, stop: Stop) -> UpstreamChunks:
        """Open one place at an offset; nothing has been given yet."""
        with self.counted(stop):
            return self._opened(place, start, length, stop)

    def _opened(self, place: int, start: int, length: int | None, stop: Stop) -> UpstreamChunks:
        terms = self._terms
        size = terms.size
        if start == 0 and (length is None or size is None or length == size):
            if terms.gzip:
                terms.forget()
            exchange, facts = self.get(place, stop)
            terms.go_on_with(facts)
            promise = length if length is not None else terms.size
            return self.chunks(exchange, promise, ends=terms.needs_end(exchange.head, promise))
        end = size if length is None else start + length
        pin = terms.pin
        if start and not is_strong(pin) and terms.given_size is None:
            raise MemberChanged("without a strong validator no part can be proved to be of one version")
        chunks, facts = self.part(place, start, end, stop, pin, pin, time.monotonic() + self._policy.heal_seconds)
        terms.go_on_with(facts)
        return chunks

    def part(
        self, place: int, start: int, end: int | None, stop: Stop, asked: str | None, pin: str | None, until: float
    ) -> tuple[UpstreamChunks, Facts]:
        """A part of the version ``asked`` for, if that is strong; ``pin`` is what bytes given before are of.

        :param until: the time (``monotonic``) by which its first byte must be reached.
        """
        terms = self._terms
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if asked is not None and is_strong(asked):
            headers["If-Range"] = asked
        exchange = self.ask("GET", place, headers, stop)
        try:
            head = exchange.head
            if head.status == 206:
                facts, skip = facts_of_part(head, start, end, gzip=terms.gzip), 0
            elif head.status == 200:
                facts, skip = terms.whole(head), start
            elif head.status == 416:
                raise SizeMismatch(f"{head.url}: there is no byte {start}")
            else:
                raise refusal(head)
            terms.check(place, head, facts)
            if start and facts.coding != terms.coding:
                raise MemberChanged(f"{head.url}: coded as {facts.coding}, and earlier bytes as {terms.coding}")
            if start and is_strong(pin) and facts.validator != pin:
                raise MemberChanged(f"{head.url}: the validator is {facts.validator}, and earlier bytes were of {pin}")
            if skip > _SKIP_BYTES:
                raise UpstreamError(f"{head.url}: no ranges, and {skip} bytes would have to be thrown away")
        except BaseException:
            exchange.discard()
            raise
        terms.settle(place, facts)
        end = facts.size if end is None else end
        promise = None if end is None else end - start
        return self.chunks(exchange, promise, ends=terms.needs_end(head, end), skip=skip, until=until), facts

    def chunks(
        self, exchange: Exchange, promise: int | None, *, ends: bool, skip: int = 0, until: float | None = None
    ) -> UpstreamChunks:
        """The bytes of an answer that is counted as opened from here on; see ``UpstreamChunks``."""
        self._client.opened()
        return self.of_counted(exchange, promise, ends=ends, skip=skip, until=until)

    def of_counted(
        self, exchange: Exchange, promise: int | None, *, ends: bool, skip: int = 0, until: float | None = None
    ) -> UpstreamChunks:
        """The bytes of one that was counted before."""
        return UpstreamChunks(
            exchange,
            promise,
            self._policy.chunk_bytes,
            ends=ends,
            skip=skip,
            until=until,
            failed=self._client.failed,
        )
