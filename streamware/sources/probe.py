"""Asking what an upstream's member is, and what of it came along with the answer: the answer itself, or all its bytes.

The rule of this file: no way of asking decides alone that a member cannot be had, for many servers know only the plain
GET well; and what came along is kept for the opening only as long as it is what the opening would give.
"""

from __future__ import annotations

import time
from contextlib import closing
from hashlib import sha256

from streamware.errors import (
    MemberError,
    SizeMismatch,
    SourceError,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from streamware.exchange import Exchange, Stop, UpstreamChunks
from streamware.heads import facts_of_part, facts_of_whole
from streamware.model import Facts
from streamware.policy import Policy
from streamware.semantics import is_strong
from streamware.sources.client import Client
from streamware.sources.places import Places
from streamware.terms import Terms

__all__ = ["Probe"]

_SOON_SECONDS = 0.5  # within which an answer of unknown length must have come whole to be held
_LOOK_SECONDS = 0.005


class Probe:
    """Asks a member's places; one thread at a time.

    ``kept`` is an answer of which nothing has been read, with its facts and when it came; ``held`` are all the bytes of
    the content. Both are None as a rule, and one of them at least always.
    """

    __slots__ = ("_client", "_places", "_policy", "_terms", "held", "kept")

    def __init__(self, client: Client, places: Places, terms: Terms, policy: Policy) -> None:
        self._client = client
        self._places = places
        self._terms = terms
        self._policy = policy
        self.kept: tuple[Exchange, Facts, float] | None = None
        self.held: bytes | None = None

    def close(self) -> None:
        """Give up what came along. Idempotent."""
        self.held = None
        kept, self.kept = self.kept, None
        if kept is not None:
            kept[0].discard()

    def ask(self, place: int, *, keep: bool, hold: int, stop: Stop) -> Facts:
        """What one place says of the member; see ``UpstreamSource.probe``.

        :raises MemberError: it does not give what was promised.
        """
        with self._places.counted(stop):
            if hold and self._terms.size != 0:
                facts = self._read_along(place, hold, stop)
                if facts is not None:
                    return facts
            if not keep and self._terms.size != 0:
                facts = self._ask_head(place, stop)
                if facts is not None:
                    return self._terms.settle(place, facts)
            return self._get(place, keep, stop)

    def take(self, promise: int | None, stop: Stop) -> UpstreamChunks | None:
        """The kept answer with its first bytes read; None: there is none, or its connection died while it waited."""
        if self.kept is None:
            return None
        (exchange, facts, since), self.kept = self.kept, None
        if is_strong(facts.validator) and time.monotonic() - since > self._policy.held_seconds:
            # Servers give up an answer that nobody reads, in the middle of what is on its way; that asking anew gives
            # the same version can be proved, so it is the safer of the two.
            exchange.discard()
            return None
        chunks = self._places.of_counted(exchange, promise, ends=self._terms.needs_end(exchange.head, promise))
        try:
            with stop.ending(chunks.abort):
                chunks.start()
        except (UpstreamError, SizeMismatch):
            self._client.retried()
            return None
        self._terms.go_on_with(facts)
        return chunks

    def _get(self, place: int, keep: bool, stop: Stop) -> Facts:
        exchange, facts = self._places.get(place, stop)
        if facts.size == 0:  # it will not be opened, so here is where it must show
            with closing(self._places.chunks(exchange, None, ends=False)) as chunks:
                if next(chunks, b""):
                    raise SizeMismatch(f"{exchange.head.url}: there are bytes, and 0 were promised")
        elif keep:
            self.kept = exchange, facts, time.monotonic()
            self._client.opened()
        else:
            exchange.discard()
        return facts

    def _read_along(self, place: int, most: int, stop: Stop) -> Facts | None:
        """Ask for the first bytes, and hold them if they are all; None: it is to be asked in another way.

        One that is not so small costs these bytes in vain, and its connection only where a server knows no ranges.
        """
        terms = self._terms
        try:
            exchange = self._places.ask("GET", place, {"Range": f"bytes=0-{most - 1}"}, stop)
            head = exchange.head
            try:
                if head.status == 206:
                    facts = facts_of_part(head, 0, most, at_most=True, gzip=terms.gzip)
                else:
                    facts = terms.whole(head)
                terms.check(place, head, facts)
            except BaseException:
                exchange.discard()
                raise
        except (UpstreamTimeout, UpstreamUnreachable, SourceError):
            raise
        except MemberError as error:
            if isinstance(error, UpstreamStatus) and error.upstream_status != 416:  # so an empty one is answered
                raise
            return None
        size = facts.size
        if size is None and terms.gzip:  # coded on the fly, and not longer for that
            return self._read_open(exchange, facts, most, stop)
        if size is None or (head.status == 200 and size > most):
            exchange.discard()
            return terms.settle(place, facts)
        chunks = self._places.chunks(exchange, min(size, most), ends=False)
        try:
            data = b"".join(chunks)
        except (UpstreamError, SizeMismatch):
            return None
        finally:
            chunks.close()
        if size <= most:
            self._hold(data, facts)
        return terms.settle(place, facts)

    def _read_open(self, exchange: Exchange, facts: Facts, most: int, stop: Stop) -> Facts | None:
        """Read an answer whose end only its last chunk tells, and hold it if that comes soon enough."""
        data, until = bytearray(), time.monotonic() + _SOON_SECONDS
        with closing(self._places.chunks(exchange, None, ends=False)) as chunks:
            try:
                while True:
                    while not chunks.ready():  # one that is made as it goes is not waited for before all others
                        if time.monotonic() > until:
                            return facts
                        stop.wait(_LOOK_SECONDS)
                    piece = next(chunks, b"")
                    data += piece
                    if len(data) > most:
                        return facts
                    if not piece:
                        break
            except (UpstreamError, SizeMismatch):
                return None
        self._hold(bytes(data), facts)
        return facts

    def _hold(self, data: bytes, facts: Facts) -> None:
        if facts.digest in (None, sha256(data).digest()):
            self.held = data
            self._terms.coding = facts.coding

    def _ask_head(self, place: int, stop: Stop) -> Facts | None:
        """What HEAD says, if it is good and of use; it never decides alone, as many servers give it little thought."""
        try:
            exchange = self._places.ask("HEAD", place, {}, stop)
            exchange.discard()
            facts = facts_of_whole(exchange.head, gzip=self._terms.gzip)
            if not facts.size and facts.coding is None:  # some frameworks measure the body they did not make, and say 0
                return None
            self._terms.check(place, exchange.head, facts)
        except (UpstreamTimeout, UpstreamUnreachable, SourceError):
            raise
        except MemberError:
            return None
        return facts
