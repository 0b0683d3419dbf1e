"""A member on another server: asked about, opened at any offset, and never taken for another version of itself.

The rule of this file: the bytes of a member come from the answer whose size was promised, or from one that proved to be
the same version (RFC 9110 section 8.8.1). What answers must agree on is in ``streamware.terms``, who asks for them in
``sources.places`` and ``sources.probe``, and the bytes are counted in ``streamware.exchange``.
"""

from __future__ import annotations

from collections.abc import Mapping

from streamware.errors import SizeMismatch
from streamware.exchange import Stop, UpstreamChunks
from streamware.heads import is_just, same_version
from streamware.model import Chunks, Facts, Url
from streamware.policy import Policy
from streamware.reply import BytesBody
from streamware.semantics import is_entity_tag, is_strong
from streamware.sources.client import Client
from streamware.sources.healing import HealingChunks, Tries
from streamware.sources.places import Places
from streamware.sources.probe import Probe
from streamware.sources.proof import ProvedChunks
from streamware.terms import Terms

__all__ = ["UpstreamSource"]

_HEAD_BYTES = 4 * 1024  # of an answer's head, as a rule


class UpstreamSource:
    """A ``Source`` over a URL and its mirrors; used by one thread at a time.

    :param own: the headers every request for it carries.
    :param size: with ``etag``, ``digest`` and ``proved`` what was declared of it, see ``Terms``.

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
        self._policy = policy
        self._terms = Terms(size=size, etag=etag, digest=digest, proved=proved)
        self._places = Places(client, content, own, self._terms, policy)
        self._probe = Probe(client, self._places, self._terms, policy)
        self._opening: Stop | None = None
        self._aborted = False

    @property
    def instant(self) -> bool:
        return self._probe.held is not None

    @property
    def coding(self) -> str | None:
        """Of the answer whose bytes are given."""
        return self._terms.coding

    @property
    def size(self) -> int | None:
        """Bytes there are, as declared or as an answer told."""
        return self._terms.size

    @property
    def keeps(self) -> bool:
        """Whether the next opening is of an answer that came already."""
        return self._probe.kept is not None or self._probe.held is not None

    @property
    def held_bytes(self) -> int:
        return len(self._probe.held or b"")

    def take_gzip(self) -> None:
        """From here on a gzip-coded body is as good as another: what is promised and given is the representation,
        and ``coding`` says which it is once its first byte has come (RFC 9110 section 8.4).
        """
        self._terms.gzip = True

    def probe(self, *, keep: bool = False, hold: int = 0) -> Facts:
        """Ask with HEAD, and with GET where that says too little or anything bad; with ``keep`` with GET at once, as
        long as there are answers to spare; with ``hold`` for so many bytes, which may be all there are.

        :raises MemberError: neither the URL nor any mirror gives what was promised.
        """
        self.close()
        stop = self._stopped()
        keep = keep and self.spare()
        return self._tries(stop).open(lambda place: self._probe.ask(place, keep=keep, hold=hold, stop=stop))

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
        terms, probe = self._terms, self._probe
        size = terms.size
        if size is not None and start + (length or 0) > size:
            raise SizeMismatch(f"{start + (length or 0)} bytes are wanted of {size}")
        if length == 0 and (start or size):
            return BytesBody()
        held, probe.held = probe.held, None
        if held is not None and start == 0 and length in (None, len(held)):
            return BytesBody(held)
        stop = self._stopped()
        tries = self._tries(stop)
        chunks = None
        if start == 0 and probe.kept is not None:
            chunks = probe.take(size if length is None else length, stop)
        if chunks is None:
            probe.close()
            chunks = tries.open(lambda place: self._places.open(place, start, length, stop))
        whole = start == 0 and length in (None, terms.size)
        healing = HealingChunks(chunks, _Reading(self._places, terms, start, length, stop, whole=whole), tries, stop)
        if terms.digest is not None and terms.given_digest is None and whole:
            return ProvedChunks(healing, terms.digest)
        return healing

    def abort(self) -> None:
        """From any thread: what is being asked ends at once, and nothing more is asked."""
        self._aborted = True
        opening = self._opening
        if opening is not None:
            opening.set()
        flight = self._places.flight
        if flight is not None:
            flight.shut_down()

    def close(self) -> None:
        """Give up what ``probe()`` kept, and what was launched. Idempotent."""
        self._places.close()
        self._probe.close()

    # --- small members: see flights.Flying ---

    def launch(self, start: int, length: int, *, all_of_it: bool) -> int | None:
        if start or length != self._terms.size or self._aborted or self.keeps:
            return None
        return self._places.launch(large=not all_of_it)

    def come(self, *, all_of_it: bool) -> bool:
        flight, size = self._places.flight, self._terms.size
        assert flight is not None
        assert size is not None
        return flight.come(size * all_of_it + _HEAD_BYTES, all_of_it=all_of_it)

    def landed(self) -> bytes | Chunks | None:
        flight, size, pin = self._places.flight, self._terms.size, self._terms.expected(0)
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
        self._places.flight = None
        self._client.opened()
        return flight.landed()

    def _stopped(self) -> Stop:
        """A stop for what begins now: ending one reading leaves others of the same source alone."""
        stop = self._opening = Stop()
        if self._aborted:
            stop.set()
        return stop

    def _tries(self, stop: Stop) -> Tries:
        return Tries(len(self._places.urls), self._policy, stop, self._client.retried)


class _Reading:
    """One run of a member's bytes, over as many answers as it takes (``healing.Reading``); it has just been opened.

    :param whole: it is the whole content.
    """

    def __init__(
        self, places: Places, terms: Terms, start: int, length: int | None, stop: Stop, *, whole: bool
    ) -> None:
        self._places = places
        self._terms = terms
        self._start = start
        self._length = length
        self._stop = stop
        self._pin = terms.pin  # the validator of the bytes given so far
        self._proved = terms.proved and whole

    @property
    def _sums(self) -> bool:
        """Whether what is joined wrongly shows at its end, and right bytes are the same wherever they come from; two
        gzip-coded bodies of one content need not be.
        """
        return self._proved and self._terms.coding is None

    def joins(self, given: int) -> bool:
        size, wanted = self._terms.size, self._length
        if wanted is None and size is not None:
            wanted = size - self._start
        if given == wanted:  # nothing is missing
            return False
        return self._sums or is_strong(self._pin)

    def again(self, place: int, given: int, until: float) -> UpstreamChunks:
        places, terms, start, length = self._places, self._terms, self._start, self._length
        if not given:
            chunks = places.open(place, start, length, self._stop)
            self._pin = terms.pin
            return chunks
        end = terms.size if length is None else start + length
        # A mirror's own validator says no more than that its version is the one it had before.
        asked, pin = (terms.seen.get(place), None) if self._sums else (self._pin, self._pin)
        with places.counted(self._stop):
            return places.part(place, start + given, end, self._stop, asked, pin, until)[0]
