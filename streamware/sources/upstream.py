"""A member on another server: asked about, opened at any offset, and never taken for another version of itself.

The rule of this file: the bytes of a member come from the answer whose size was promised, or from one that proved to be
the same version (RFC 9110 section 8.8.1). Who asks over which connection is the client's affair (``streamware.proxy``),
what a head says is judged in ``streamware.heads``, and the bytes are counted in ``streamware.exchange``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256

from streamware.errors import (
    ChecksumMismatch,
    InvalidTarget,
    MemberChanged,
    MemberError,
    SizeMismatch,
    SourceError,
    StreamwareError,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from streamware.exchange import Exchange, Stop, UpstreamChunks
from streamware.heads import Head, facts_of_part, facts_of_whole, framed_length, is_just, refusal, same_version
from streamware.model import Chunks, Facts, Url
from streamware.policy import Policy
from streamware.reply import BytesBody
from streamware.semantics import is_entity_tag, is_strong
from streamware.sources.client import Client, Flight
from streamware.sources.healing import HealingChunks, Tries
from streamware.sources.proof import ProvedChunks

__all__ = ["UpstreamSource"]

# Read and thrown away at most where a server knows no ranges: five seconds of 100 Mbit/s, well inside the patience of
# whoever waits for the first byte.
_SKIP_BYTES = 64 * 1024 * 1024
_SOON_SECONDS = 0.5  # within which an answer of unknown length must have come whole to be held
_LOOK_SECONDS = 0.005
_GZIP = {"Accept-Encoding": "gzip, identity;q=0.5"}  # RFC 9110 section 12.5.3
_HEAD_BYTES = 4 * 1024  # of an answer's head, as a rule
_NOTHING: Mapping[str, str] = {}


class UpstreamSource:
    """A ``Source`` over a URL and its mirrors; used by one thread at a time.

    :param own: the headers every request for it carries.
    :param size: bytes the content must have, None if that is to be found out.
    :param etag: the entity-tag it must carry, or None.
    :param digest: the SHA-256 it must have, or None; compared here with what is announced, not with the bytes.
    :param proved: a declared size and checksum of the whole are checked by whoever reads it whole.

    The first answer settles what is open; every later one must agree. A mirror need not share the main URL's
    validator, unless ``etag`` is given or bytes from both would be joined. Bytes are joined where a strong validator
    shows that they are of one version, or where ``proved`` holds and they are the whole. A start above 0 needs a strong
    validator, or a given size; with the size alone nothing proves the version, so whoever joins the bytes checks their
    sum.
    """

    holds = True

    def __init__(
        self,
        client: Client,
        content: Url,
        own: Mapping[str, str],
        *,
        size: int | None,
        etag: str | None,
        digest: bytes | None,
        proved: bool,
        policy: Policy,
    ) -> None:
        self._client = client
        self._content = content
        self._places = (content.url, *content.mirrors)
        self._own = own
        self._policy = policy
        self._given_size = self._size = size
        self._given_etag = self._pin = etag
        self._given_digest = self._digest = digest
        self._proved = proved
        self._gzip = False
        self.coding: str | None = None  # of the answer whose bytes are given
        self._seen: dict[int, str] = {}  # place -> validator it showed
        self._kept: tuple[Exchange, Facts, float] | None = None
        self._held: bytes | None = None  # all of the content
        self._flight: Flight | None = None
        self._opening: Stop | None = None
        self._aborted = False

    @property
    def instant(self) -> bool:
        return self._held is not None

    @property
    def size(self) -> int | None:
        """Bytes there are, as declared or as an answer told."""
        return self._size

    @property
    def keeps(self) -> bool:
        """Whether the next opening is of an answer that came already."""
        return self._kept is not None or self._held is not None

    @property
    def held_bytes(self) -> int:
        return len(self._held or b"")

    def take_gzip(self) -> None:
        """From here on a gzip-coded body is as good as another: what is promised and given is the representation,
        and ``coding`` says which it is once its first byte has come (RFC 9110 section 8.4).
        """
        self._gzip = True

    def probe(self, *, keep: bool = False, hold: int = 0) -> Facts:
        """Ask with HEAD, and with GET where that says too little or anything bad; with ``keep`` with GET at once, as
        long as there are answers to spare; with ``hold`` for so many bytes, which may be all there are.

        :raises MemberError: neither the URL nor any mirror gives what was promised.
        """
        self.close()
        stop = self._stopped()
        keep = keep and self.spare()

        def attempt(place: int) -> Facts:
            with self._counted(stop):
                if hold and self._size != 0:
                    facts = self._read_along(place, hold, stop)
                    if facts is not None:
                        return facts
                return self._probe(place, keep, stop)

        return self._tries(stop).open(attempt)

    def spare(self) -> bool:
        """Whether it may be opened before its turn: too many answers that wait keep out those whose turn it is."""
        return self._client.spare(self._content)

    def open(self, start: int, length: int | None) -> Chunks:
        """Open ``length`` bytes from ``start``; see ``Source.open``. The caller closes the result.

        A body that breaks off is gone on with, from the same URL or a mirror, where that can be proved the same.

        :raises SizeMismatch: the member is not as long as was promised.
        :raises MemberChanged: its validator differs, or cannot prove the version.
        :raises UpstreamError: neither the URL nor any mirror gave a usable answer.
        """
        size = self._size
        if size is not None and start + (length or 0) > size:
            raise SizeMismatch(f"{start + (length or 0)} bytes are wanted of {size}")
        if length == 0 and (start or size):
            return BytesBody()
        held, self._held = self._held, None
        if held is not None and start == 0 and length in (None, len(held)):
            return BytesBody(held)
        stop = self._stopped()
        tries = self._tries(stop)
        chunks = None
        if start == 0 and self._kept is not None:
            chunks = self._kept_chunks(size if length is None else length, stop)
        if chunks is None:
            self._give_up()
            chunks = tries.open(lambda place: self._open(place, start, length, stop))
        whole = start == 0 and length in (None, self._size)
        reading = _Reading(self, start, length, stop, self._pin, proved=self._proved and whole)
        healing = HealingChunks(chunks, reading, tries, stop)
        if self._digest is not None and self._given_digest is None and whole:
            return ProvedChunks(healing, self._digest)
        return healing

    def abort(self) -> None:
        """From any thread: what is being asked ends at once, and nothing more is asked."""
        self._aborted = True
        opening = self._opening
        if opening is not None:
            opening.set()
        flight = self._flight
        if flight is not None:
            flight.shut_down()

    def close(self) -> None:
        """Give up what ``probe()`` kept, and what was launched. Idempotent."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.close()
        self._give_up()

    # --- small members: see flights.Flying ---

    def launch(self, start: int, length: int, *, all_of_it: bool) -> int | None:
        url = self._places[0]
        if start or length != self._size or self._aborted or not isinstance(url, str):
            return None
        if self._kept is not None or self._held is not None:
            return None
        flight = self._flight = self._client.launch(
            url, self._content, self._own, self._if_match(), large=not all_of_it
        )
        return None if flight is None else flight.fd

    def come(self, *, all_of_it: bool) -> bool:
        assert self._flight is not None
        assert self._size is not None
        return self._flight.come(self._size * all_of_it + _HEAD_BYTES, all_of_it=all_of_it)

    def landed(self) -> bytes | Chunks | None:
        flight, size, pin = self._flight, self._size, self._given_etag or self._seen.get(0)
        assert flight is not None
        assert size is not None
        head = flight.head
        if head is None or self._aborted or not is_just(head, size):
            return None
        if pin is not None:
            etag = head.fields.get("etag")
            if etag is None or not is_entity_tag(etag) or not same_version(pin, etag):
                return None
        if not flight.whole:
            return self.open(0, size)  # which finds the head there
        self._flight = None
        self._client.opened()
        return flight.landed()

    def _give_up(self) -> None:
        self._held = None
        kept, self._kept = self._kept, None
        if kept is not None:
            kept[0].discard()

    def _stopped(self) -> Stop:
        """A stop for what begins now: ending one reading leaves others of the same source alone."""
        stop = self._opening = Stop()
        if self._aborted:
            stop.set()
        return stop

    def _tries(self, stop: Stop) -> Tries:
        return Tries(len(self._places), self._policy, stop, self._client.retried)

    @contextmanager
    def _counted(self, stop: Stop) -> Iterator[None]:
        try:
            yield
        except MemberError:
            if not stop.is_set:
                self._client.failed()
            raise

    # --- one place: the URL or a mirror ---

    def _ask(self, method: str, place: int, extra: Mapping[str, str], stop: Stop) -> Exchange:
        url = self._places[place]
        if self._gzip:
            extra = {**extra, **_GZIP}
        if isinstance(url, str):
            flight = None
            if place == 0:
                flight, self._flight = self._flight, None
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

    def _probe(self, place: int, keep: bool, stop: Stop) -> Facts:
        if not keep and self._size != 0:
            facts = self._ask_head(place, stop)
            if facts is not None:
                return self._settled(place, facts)
        exchange, facts = self._get(place, stop)
        if facts.size == 0:  # it will not be opened, so here is where it must show
            with closing(self._chunks(exchange, None, ends=False)) as chunks:
                if next(chunks, b""):
                    raise SizeMismatch(f"{exchange.head.url}: there are bytes, and 0 were promised")
        elif keep:
            self._kept = exchange, facts, time.monotonic()
            self._client.opened()
        else:
            exchange.discard()
        return facts

    def _read_along(self, place: int, most: int, stop: Stop) -> Facts | None:
        """Ask for the first bytes, and hold them if they are all; None: it is to be asked in another way.

        One that is not so small costs these bytes in vain, and its connection only where a server knows no ranges.
        """
        try:
            exchange = self._ask("GET", place, {"Range": f"bytes=0-{most - 1}"}, stop)
            head = exchange.head
            try:
                if head.status == 206:
                    facts = facts_of_part(head, 0, most, at_most=True, gzip=self._gzip)
                else:
                    facts = self._whole(head)
                self._check(place, head, facts)
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
        if size is None and self._gzip:  # coded on the fly, and not longer for that
            return self._read_open(exchange, facts, most, stop)
        if size is None or (head.status == 200 and size > most):
            exchange.discard()
            return self._settled(place, facts)
        chunks = self._chunks(exchange, min(size, most), ends=False)
        try:
            data = b"".join(chunks)
        except (UpstreamError, SizeMismatch):
            return None
        finally:
            chunks.close()
        if size <= most and facts.digest in (None, sha256(data).digest()):
            self._held = data
            self.coding = facts.coding
        return self._settled(place, facts)

    def _read_open(self, exchange: Exchange, facts: Facts, most: int, stop: Stop) -> Facts | None:
        """Read an answer whose end only its last chunk tells, and hold it if that comes soon enough."""
        data, until = bytearray(), time.monotonic() + _SOON_SECONDS
        with closing(self._chunks(exchange, None, ends=False)) as chunks:
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
        if facts.digest in (None, sha256(data).digest()):
            self._held = bytes(data)
            self.coding = facts.coding
        return facts

    def _ask_head(self, place: int, stop: Stop) -> Facts | None:
        """What HEAD says, if it is good and of use; it never decides alone, as many servers give it little thought."""
        try:
            exchange = self._ask("HEAD", place, {}, stop)
            exchange.discard()
            facts = facts_of_whole(exchange.head, gzip=self._gzip)
            if not facts.size and facts.coding is None:  # some frameworks measure the body they did not make, and say 0
                return None
            self._check(place, exchange.head, facts)
        except (UpstreamTimeout, UpstreamUnreachable, SourceError):
            raise
        except MemberError:
            return None
        return facts

    def _get(self, place: int, stop: Stop) -> tuple[Exchange, Facts]:
        """GET the whole; the answer agrees with all that is promised."""
        extra = self._if_match()
        exchange = self._ask("GET", place, extra, stop)
        try:
            if extra and exchange.head.status == 412:
                raise MemberChanged(f"{exchange.head.url}: it no longer has the version {self._given_etag}")
            facts = self._whole(exchange.head)
            self._check(place, exchange.head, facts)
        except BaseException:
            exchange.discard()
            raise
        return exchange, self._settled(place, facts)

    def _if_match(self) -> Mapping[str, str]:
        # RFC 9110 section 13.1.1: a server that knows it has another version need not send it.
        etag = self._given_etag
        return {"If-Match": etag} if etag and is_strong(etag) else _NOTHING

    def _whole(self, head: Head) -> Facts:
        facts = facts_of_whole(head, gzip=self._gzip)
        if facts.size is None and not head.chunked and self._given_size is None and self._given_digest is None:
            raise UpstreamError(
                f"{head.url}: a body without length that ends when the connection does: its end proves nothing"
            )
        return facts

    def _open(self, place: int, start: int, length: int | None, stop: Stop) -> UpstreamChunks:
        """Open one place at an offset; nothing has been given yet."""
        with self._counted(stop):
            return self._opened(place, start, length, stop)

    def _opened(self, place: int, start: int, length: int | None, stop: Stop) -> UpstreamChunks:
        size = self._size
        if start == 0 and (length is None or size is None or length == size):
            if self._gzip:  # nothing was given yet, and this answer may come in another coding
                self._seen.clear()
                self._size, self._digest, self._pin = self._given_size, self._given_digest, self._given_etag
            exchange, facts = self._get(place, stop)
            self._continue_from(facts)
            promise = length if length is not None else self._size
            return self._chunks(exchange, promise, ends=self._ends(exchange, promise))
        end = size if length is None else start + length
        pin = self._pin
        if start and not is_strong(pin) and self._given_size is None:
            raise MemberChanged("without a strong validator no part can be proved to be of one version")
        chunks, facts = self._part(place, start, end, stop, pin, pin, time.monotonic() + self._policy.heal_seconds)
        self._continue_from(facts)
        return chunks

    def _part(
        self, place: int, start: int, end: int | None, stop: Stop, asked: str | None, pin: str | None, until: float
    ) -> tuple[UpstreamChunks, Facts]:
        """A part of the version ``asked`` for, if that is strong; ``pin`` is what bytes given before are of.

        :param until: the time (``monotonic``) by which its first byte must be reached.
        """
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if asked is not None and is_strong(asked):
            headers["If-Range"] = asked
        exchange = self._ask("GET", place, headers, stop)
        try:
            head = exchange.head
            if head.status == 206:
                facts, skip = facts_of_part(head, start, end, gzip=self._gzip), 0
            elif head.status == 200:
                facts, skip = self._whole(head), start
            elif head.status == 416:
                raise SizeMismatch(f"{head.url}: there is no byte {start}")
            else:
                raise refusal(head)
            self._check(place, head, facts)
            if start and facts.coding != self.coding:
                raise MemberChanged(f"{head.url}: coded as {facts.coding}, and earlier bytes as {self.coding}")
            if start and is_strong(pin) and facts.validator != pin:
                raise MemberChanged(f"{head.url}: the validator is {facts.validator}, and earlier bytes were of {pin}")
            if skip > _SKIP_BYTES:
                raise UpstreamError(f"{head.url}: no ranges, and {skip} bytes would have to be thrown away")
        except BaseException:
            exchange.discard()
            raise
        self._settled(place, facts)
        end = facts.size if end is None else end
        promise = None if end is None else end - start
        return self._chunks(exchange, promise, ends=self._ends(exchange, end), skip=skip, until=until), facts

    def _chunks(
        self, exchange: Exchange, promise: int | None, *, ends: bool, skip: int = 0, until: float | None = None
    ) -> UpstreamChunks:
        self._client.opened()
        return UpstreamChunks(
            exchange,
            promise,
            self._policy.chunk_bytes,
            ends=ends,
            skip=skip,
            until=until,
            failed=self._client.failed,
        )

    def _ends(self, exchange: Exchange, stop: int | None) -> bool:
        """Whether only an answer's end at ``stop`` shows that it is as long as it should be: it does not say, and no
        checksum will.
        """
        if self._proved or stop is None or stop != self._size:
            return False
        return exchange.head.status == 200 and framed_length(exchange.head) is None

    def _kept_chunks(self, promise: int | None, stop: Stop) -> UpstreamChunks | None:
        """The kept answer with its first bytes read; None if its connection died while it waited."""
        assert self._kept is not None
        (exchange, facts, since), self._kept = self._kept, None
        if is_strong(facts.validator) and time.monotonic() - since > self._policy.held_seconds:
            # Servers give up an answer that nobody reads, in the middle of what is on its way; that asking anew gives
            # the same version can be proved, so it is the safer of the two.
            exchange.discard()
            return None
        chunks = UpstreamChunks(
            exchange,
            promise,
            self._policy.chunk_bytes,
            ends=self._ends(exchange, promise),
            failed=self._client.failed,
        )
        try:
            with stop.ending(chunks.abort):
                chunks.start()
        except (UpstreamError, SizeMismatch):
            self._client.retried()
            return None
        self._continue_from(facts)
        return chunks

    # --- promises ---

    def _continue_from(self, facts: Facts) -> None:
        self.coding = facts.coding
        if self._given_etag is None or facts.coding is not None:
            self._pin = facts.validator

    def _check(self, place: int, head: Head, facts: Facts) -> None:
        size, pin, digest = self._size, self._given_etag or self._seen.get(place), self._digest
        if size is not None and facts.size is not None and facts.size != size:
            raise SizeMismatch(f"{head.url}: {facts.size} bytes, and {size} were promised")
        if pin is not None and facts.coding is not None:
            pin = f"W/{pin.removeprefix('W/')}"  # a server that codes may weaken the tag (RFC 9110 section 8.8.1)
        if pin is not None and not same_version(pin, facts.validator):
            raise MemberChanged(f"{head.url}: the validator is {facts.validator}, and {pin} was expected")
        if digest is not None and facts.digest not in (None, digest):
            raise ChecksumMismatch(f"{head.url}: another SHA-256 is announced than the {digest.hex()} promised")

    def _settled(self, place: int, facts: Facts) -> Facts:
        """Hold later answers to these facts."""
        if facts.validator is not None:
            self._seen[place] = facts.validator
            if self._pin is None:
                self._pin = facts.validator
        if self._digest is None:
            self._digest = facts.digest
        if self._size is None:
            self._size = facts.size
        return facts if facts.size == self._size else replace(facts, size=self._size)


class _Reading:
    """One run of a member's bytes, over as many answers as it takes (``healing.Reading``)."""

    def __init__(
        self, source: UpstreamSource, start: int, length: int | None, stop: Stop, pin: str | None, *, proved: bool
    ) -> None:
        self._source = source
        self._start = start
        self._length = length
        self._stop = stop
        self._pin = pin  # the validator of the bytes given so far
        self._proved = proved

    @property
    def _sums(self) -> bool:
        """Whether what is joined wrongly shows at its end, and right bytes are the same wherever they come from; two
        gzip-coded bodies of one content need not be.
        """
        return self._proved and self._source.coding is None

    def joins(self, given: int) -> bool:
        size, wanted = self._source._size, self._length
        if wanted is None and size is not None:
            wanted = size - self._start
        if given == wanted:  # nothing is missing
            return False
        return self._sums or is_strong(self._pin)

    def again(self, place: int, given: int, until: float) -> UpstreamChunks:
        source, start, length = self._source, self._start, self._length
        if not given:
            chunks = source._open(place, start, length, self._stop)
            self._pin = source._pin
            return chunks
        end = source._size if length is None else start + length
        # A mirror's own validator says no more than that its version is the one it had before.
        asked, pin = (source._seen.get(place), None) if self._sums else (self._pin, self._pin)
        with source._counted(self._stop):
            return source._part(place, start + given, end, self._stop, asked, pin, until)[0]
