"""A member on another server: asked about, opened at any offset, and never taken for another version of itself.

The rule of this file: the bytes of a member come from the answer whose size was promised, or from one that proved to be
the same version (RFC 9110 section 8.8.1). Who asks over which connection is the client's affair (``streamware.proxy``),
what a head says is judged in ``streamware.heads``, and the bytes are counted in ``streamware.exchange``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from streamware.errors import (
    MemberChanged,
    MemberError,
    SizeMismatch,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from streamware.exchange import Exchange, UpstreamChunks
from streamware.heads import Head, facts_of_part, facts_of_whole, refusal, same_version, where
from streamware.model import Chunks, Facts, Url
from streamware.reply import BytesBody
from streamware.semantics import is_strong

__all__ = ["Client", "UpstreamSource"]

# Read and thrown away at most where a server knows no ranges: five seconds of 100 Mbit/s, well inside the patience of
# whoever waits for the first byte.
_SKIP_BYTES = 64 * 1024 * 1024

_T = TypeVar("_T")


class Client(Protocol):
    """Who asks upstreams. Redirects are followed and every hop checked; ``opened``, ``retried``, ``failed`` count."""

    def ask(self, method: str, url: str, content: Url, own: Mapping[str, str], extra: Mapping[str, str]) -> Exchange:
        """``own`` headers stay with the origin they were given for. Raises UpstreamError, NotAllowed."""

    def spare(self, content: Url) -> bool:
        """Whether an answer may be opened now whose turn comes later."""

    def opened(self) -> None: ...

    def retried(self) -> None: ...

    def failed(self) -> None: ...


class UpstreamSource:
    """A ``Source`` over a URL and its mirrors; used by one thread at a time.

    :param own: the headers every request for it carries.
    :param size: bytes the content must have, None if that is to be found out.
    :param etag: the entity-tag it must carry, or None.
    :param chunk_bytes: the most one read asks for.
    :param held_seconds: how long a kept answer is good for, where asking anew can be proved to give the same.

    The first answer settles what is open; every later one must agree. A mirror need not share the main URL's
    validator, unless ``etag`` is given or bytes from both would be joined. A start above 0 needs a strong validator, or
    a given size; with the size alone nothing proves the version, so whoever joins the bytes checks their sum.
    """

    def __init__(
        self,
        client: Client,
        content: Url,
        own: Mapping[str, str],
        *,
        size: int | None,
        etag: str | None,
        chunk_bytes: int,
        held_seconds: float = 20.0,
    ) -> None:
        self._client = client
        self._content = content
        self._own = own
        self._chunk_bytes = chunk_bytes
        self._given_size = self._size = size
        self._given_etag = self._pin = etag
        self._seen: dict[str, str] = {}  # URL -> validator it showed
        self._held_seconds = held_seconds
        self._kept: tuple[Exchange, Facts, float] | None = None

    def probe(self, *, keep: bool = False) -> Facts:
        """Ask with HEAD, and with GET where that says too little or anything bad; with ``keep`` with GET at once, as
        long as there are answers to spare.

        :raises MemberError: neither the URL nor any mirror gives what was promised.
        """
        self.close()
        keep = keep and self.spare()
        return self._first(lambda url: self._probe(url, keep))

    def spare(self) -> bool:
        """Whether it may be opened before its turn: too many answers that wait keep out those whose turn it is."""
        return self._client.spare(self._content)

    def open(self, start: int, length: int | None) -> Chunks:
        """Open ``length`` bytes from ``start``; see ``Source.open``. The caller closes the result.

        :raises SizeMismatch: the member is not as long as was promised.
        :raises MemberChanged: its validator differs, or cannot prove the version.
        :raises UpstreamError: neither the URL nor any mirror gave a usable answer.
        """
        size = self._size
        if size is not None and start + (length or 0) > size:
            raise SizeMismatch(f"{start + (length or 0)} bytes are wanted of {size}")
        if length == 0 and (start or size):
            return BytesBody()
        if start == 0 and self._kept is not None:
            chunks = self._kept_chunks(size if length is None else length)
            if chunks is not None:
                return chunks
        self.close()
        return self._first(lambda url: self._open(url, start, length))

    def close(self) -> None:
        """Give up what ``probe(keep=True)`` kept. Idempotent."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[0].discard()

    def _first(self, attempt: Callable[[str], _T]) -> _T:
        """The first success among the URL and its mirrors; else the URL's own error."""
        first: MemberError | None = None
        for url in (self._content.url, *self._content.mirrors):
            try:
                return attempt(url)
            except MemberError as error:
                self._client.failed()
                if first is None:
                    first = error
                else:
                    first.detail += f"; then {error.detail}"
        assert first is not None
        raise first

    # --- one URL ---

    def _probe(self, url: str, keep: bool) -> Facts:
        if not keep:
            facts = self._ask_head(url)
            if facts is not None:
                return self._settled(url, facts)
        exchange, facts = self._get(url)
        if keep:
            self._kept = exchange, facts, time.monotonic()
            self._client.opened()
        else:
            exchange.discard()
        return facts

    def _ask_head(self, url: str) -> Facts | None:
        """What HEAD says, if it is good and of use; it never decides alone, as many servers give it little thought."""
        try:
            exchange = self._client.ask("HEAD", url, self._content, self._own, {})
            exchange.discard()
            facts = facts_of_whole(exchange.head)
            if not facts.size:  # some frameworks measure the body they did not make, and say 0
                return None
            self._check(url, facts)
        except (UpstreamTimeout, UpstreamUnreachable):
            raise
        except MemberError:
            return None
        return facts

    def _get(self, url: str) -> tuple[Exchange, Facts]:
        """GET the whole; the answer agrees with all that is promised."""
        # RFC 9110 section 13.1.1: a server that knows it has another version need not send it.
        extra = {"If-Match": self._given_etag} if self._given_etag and is_strong(self._given_etag) else {}
        exchange = self._client.ask("GET", url, self._content, self._own, extra)
        try:
            if extra and exchange.head.status == 412:
                raise MemberChanged(f"{where(url)}: it no longer has the version {self._given_etag}")
            facts = self._whole(exchange.head)
            self._check(url, facts)
        except BaseException:
            exchange.discard()
            raise
        return exchange, self._settled(url, facts)

    def _whole(self, head: Head) -> Facts:
        facts = facts_of_whole(head)
        if facts.size is None and not head.chunked and self._given_size is None:
            raise UpstreamError(
                f"{head.url}: a body without length that ends when the connection does: its end proves nothing"
            )
        return facts

    def _open(self, url: str, start: int, length: int | None) -> Chunks:
        """Open one URL at an offset: here a member that broke off is taken up again, wherever it is."""
        size = self._size
        if start == 0 and (length is None or size is None or length == size):
            exchange, facts = self._get(url)
            promise = length if length is not None else self._size
            return self._chunks(exchange, facts, promise, 0)
        stop = size if length is None else start + length
        exchange = self._client.ask("GET", url, self._content, self._own, self._range(start, stop))
        try:
            head = exchange.head
            if head.status == 206:
                facts, skip = facts_of_part(head, start, stop), 0
            elif head.status == 200:
                facts, skip = self._whole(head), start
            elif head.status == 416:
                raise SizeMismatch(f"{head.url}: there is no byte {start}")
            else:
                raise refusal(head)
            self._check(url, facts)
            if start:
                self._prove(url, facts)
            if skip > _SKIP_BYTES:
                raise UpstreamError(f"{head.url}: no ranges, and {skip} bytes would have to be thrown away")
        except BaseException:
            exchange.discard()
            raise
        self._settled(url, facts)
        end = facts.size if stop is None else stop
        return self._chunks(exchange, facts, None if end is None else end - start, skip)

    def _chunks(self, exchange: Exchange, facts: Facts, promise: int | None, skip: int) -> UpstreamChunks:
        self._client.opened()
        self._continue_from(facts)
        return UpstreamChunks(exchange, promise, self._chunk_bytes, skip=skip, failed=self._client.failed)

    def _kept_chunks(self, promise: int | None) -> UpstreamChunks | None:
        """The kept answer with its first bytes read; None if its connection died while it waited."""
        assert self._kept is not None
        (exchange, facts, since), self._kept = self._kept, None
        if is_strong(facts.validator) and time.monotonic() - since > self._held_seconds:
            # Servers give up an answer that nobody reads, in the middle of what is on its way; that asking anew gives
            # the same version can be proved, so it is the safer of the two.
            exchange.discard()
            return None
        chunks = UpstreamChunks(exchange, promise, self._chunk_bytes, failed=self._client.failed)
        try:
            chunks.start()
        except UpstreamError:
            self._client.retried()
            return None
        self._continue_from(facts)
        return chunks

    # --- promises ---

    def _range(self, start: int, stop: int | None) -> dict[str, str]:
        headers = {"Range": f"bytes={start}-{'' if stop is None else stop - 1}"}
        if is_strong(self._pin):
            assert self._pin is not None
            headers["If-Range"] = self._pin
        elif start and self._given_size is None:
            raise MemberChanged("without a strong validator no part can be proved to be of one version")
        return headers

    def _continue_from(self, facts: Facts) -> None:
        if self._given_etag is None:
            self._pin = facts.validator

    def _check(self, url: str, facts: Facts) -> None:
        size, pin = self._size, self._given_etag or self._seen.get(url)
        if size is not None and facts.size is not None and facts.size != size:
            raise SizeMismatch(f"{where(url)}: {facts.size} bytes, and {size} were promised")
        if pin is not None and not same_version(pin, facts.validator):
            raise MemberChanged(f"{where(url)}: the validator is {facts.validator}, and {pin} was expected")

    def _prove(self, url: str, facts: Facts) -> None:
        if is_strong(self._pin) and facts.validator != self._pin:
            raise MemberChanged(
                f"{where(url)}: the validator is {facts.validator}, and earlier bytes were of {self._pin}"
            )

    def _settled(self, url: str, facts: Facts) -> Facts:
        """Hold later answers to these facts."""
        if facts.validator is not None:
            self._seen[url] = facts.validator
            if self._pin is None:
                self._pin = facts.validator
        if self._size is None:
            self._size = facts.size
        if facts.size == self._size:
            return facts
        return Facts(self._size, facts.modified, facts.validator, media_type=facts.media_type)
