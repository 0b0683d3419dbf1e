"""Other servers' files: members opened at any offset, and plain forwarding; who is asked, and where redirects lead.

The rule of this file: no body is believed to be what it should be: length, coding, validator and range of every answer
are checked before its first byte is given, and the bytes are counted.

What heads say is judged in ``heads``; connections are the affair of ``proxy``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from streamware.answered import Answered, Flight
from streamware.errors import (
    InvalidManifest,
    InvalidTarget,
    RequestError,
    StreamwareError,
    UpstreamError,
    UpstreamStatus,
)
from streamware.exchange import Stop, UpstreamChunks
from streamware.heads import framed_length, given_headers, harmless, next_hop, own_headers, passed_back, where
from streamware.model import Observer, Url
from streamware.policy import Policy
from streamware.proxy import Connections, parse
from streamware.reply import BytesBody, Reply
from streamware.semantics import is_entity_tag
from streamware.slots import Slots
from streamware.sources.upstream import UpstreamSource

__all__ = ["Upstream", "UpstreamChunks", "UpstreamSource"]

_REDIRECTS = (301, 302, 303, 307, 308)
_BASE = {"Accept-Encoding": "identity", "User-Agent": "streamware"}


class Upstream:
    """Asks other servers, over one pool of connections for each. Used from any thread.

    No proxy is used and the environment is not looked at, except that OpenSSL finds its certificates where
    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` say.

    :param observer: told of answers opened, requests repeated and attempts failed; None for nobody.
    """

    def __init__(self, policy: Policy, observer: Observer | None = None) -> None:
        self._policy = policy
        self._observer = observer
        self._slots = Slots(policy.opens_per_host)
        self._trusted = Connections(policy, self._slots, guarded=False, retried=self.retried)
        self._guarded = Connections(policy, self._slots, guarded=True, retried=self.retried)

    def source(
        self,
        content: Url,
        *,
        size: int | None = None,
        etag: str | None = None,
        digest: bytes | None = None,
        proved: bool = False,
    ) -> UpstreamSource:
        """A source for a member. Asks nobody yet.

        :param size: bytes the content must have; None: find out. :param etag: the entity-tag it must carry, or None.
        :param digest: the SHA-256 it must have, which whoever reads it whole checks; None: not known.
        :param proved: whoever reads it whole checks a declared size and checksum.
        :raises InvalidTarget: a URL or one of the member's own headers cannot be sent.
        :raises InvalidManifest: ``etag`` is no entity-tag.
        """
        if etag is not None and not is_entity_tag(etag):
            raise InvalidManifest("An etag must be an entity-tag, with its quotes.")
        for url in (content.url, *content.mirrors):
            if isinstance(url, str):
                parse(url)
        own = _with_base(own_headers(content.headers)) if content.headers else _BASE
        return UpstreamSource(
            self,
            content,
            own,
            size=size,
            etag=etag,
            digest=digest,
            proved=proved,
            policy=self._policy,
        )

    def representation(self, content: Url, *, etag: str | None, proved: bool) -> UpstreamSource:
        """A source for what a member's server sends, gzip-coded or not; ``coding`` tells which. See ``source``.

        :param proved: whoever reads it whole, and not gzip-coded, checks a declared size and checksum.
        """
        made = self.source(content, etag=etag, proved=proved)
        made.take_gzip()
        return made

    def forward(self, url: str, *, method: str = "GET", headers: Iterable[tuple[str, str]] = ()) -> Reply:
        """Ask for one file and pass the answer on as it comes, whatever its status. The caller closes the body.

        The URL is trusted. ``headers`` are sent as given, less those that concern one connection, so the caller puts in
        what the upstream is to know: Range and conditionals of the client, credentials of its own. Where a redirect
        leads to another origin, only Accept, Accept-Language, User-Agent, Range and conditionals go along. The body's
        length is the announced one, or None; a body that breaks off raises.

        :raises RequestError: ``method`` is neither GET nor HEAD (status 405), or a header cannot be sent.
        :raises UpstreamError: there is no answer, or one whose framing cannot be relied on.
        """
        if method not in ("GET", "HEAD"):
            error = RequestError("Only GET and HEAD can be forwarded.")
            error.status = 405
            raise error
        given = given_headers(headers)
        try:
            exchange = self._follow(
                method,
                url,
                _with_base(given),
                elsewhere=_with_base(harmless(given)),
                hops=self._policy.max_redirects_code,
                admit=False,
            )
            reply = self._reply(method, exchange)
        except UpstreamError:
            self.failed()
            raise
        self.opened()
        return reply

    def _reply(self, method: str, exchange: Answered) -> Reply:
        head = exchange.head
        bodiless = method == "HEAD" or head.status in (204, 304)
        try:
            if head.status < 200:
                raise UpstreamError(f"{head.url}: an interim status ({head.status}) as the last word")
            length = framed_length(head)
            told = None if head.status in (204, 304) else length
            headers = tuple(passed_back(head, exchange.lines(), told))
            if not bodiless:
                exchange.at_leisure()
                chunks = UpstreamChunks(exchange, length, self._policy.chunk_bytes, failed=self.failed)
                return Reply(head.status, headers, chunks)
            reply = Reply(head.status, headers, BytesBody())
        except BaseException:
            exchange.discard()
            raise
        exchange.discard()
        return reply

    def close(self) -> None:
        """Close the idle connections. Answers that are still being read go on, and close theirs when they end."""
        self._trusted.close()
        self._guarded.close()

    # --- what sources need: see sources.upstream.Client ---

    def ask(
        self,
        method: str,
        url: str,
        content: Url,
        own: Mapping[str, str],
        extra: Mapping[str, str],
        stop: Stop | None = None,
        flight: Flight | None = None,
    ) -> Answered:
        """Ask one URL of a member. ``own`` headers stay with the origin they were given for, ``extra`` go anywhere.

        Where as many answers of that host are open as may be, it waits for one of them to end, at most for
        ``read_timeout_seconds``. ``stop`` ends that wait and the one for the answer at once; a connection that is being
        made is given up only after its time. ``flight``: what ``launch`` gave of the same.
        """
        return self._follow(
            method,
            url,
            {**own, **extra} if extra else own,
            elsewhere={**_BASE, **extra},
            hops=self._policy.redirects(content),
            admit=not content.trusted,
            stop=stop,
            flight=flight,
        )

    def launch(
        self, url: str, content: Url, own: Mapping[str, str], extra: Mapping[str, str], *, large: bool
    ) -> Flight | None:
        """Send what ``ask`` would with GET, where that takes no waiting; None: it is to be asked for.

        What comes of it is the caller's to end: ``ask`` goes on with it.
        """
        try:
            if not content.trusted:
                self._policy.admit_url(url)
            connections = self._trusted if content.trusted else self._guarded
            return connections.launch(url, {**own, **extra} if extra else own, large=large)
        except StreamwareError:
            return None  # asking for it will say so

    def spare(self, content: Url) -> bool:
        """Whether an answer may be opened before its turn: at most half of those of a host, lest the ones that wait for
        their turn keep out the ones whose turn it is. Asks nobody and never waits.
        """
        if not isinstance(content.url, str):
            return True  # where it leads is found out when it is opened
        try:
            return self._slots.spare(parse(content.url)[0])
        except InvalidTarget:
            return True  # opening it will say so

    def opened(self) -> None:
        if self._observer is not None:
            self._observer.upstream_opened()

    def retried(self) -> None:
        if self._observer is not None:
            self._observer.upstream_retried()

    def failed(self) -> None:
        if self._observer is not None:
            self._observer.upstream_failed()

    # --- asking ---

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        elsewhere: Mapping[str, str],
        hops: int,
        admit: bool,
        stop: Stop | None = None,
        flight: Flight | None = None,
    ) -> Answered:
        """Ask, and follow at most ``hops`` redirects; ``elsewhere`` are the headers once the origin has changed."""
        origin = url
        for hop in range(hops + 1):
            try:
                if hop and parse(url)[0] != parse(origin)[0]:
                    headers = elsewhere
                if admit:
                    self._policy.admit_url(url)
                if flight is not None:
                    exchange, flight = flight.answered(stop), None
                else:
                    exchange = (self._guarded if admit else self._trusted).ask(method, url, headers, stop)
            except InvalidTarget as error:
                if hop == 0:
                    raise
                raise UpstreamError(f"{where(url)}: a redirect that cannot be followed") from error
            head = exchange.head
            location = head.fields.get("location") if head.status in _REDIRECTS else None
            if location is None:
                return exchange
            exchange.discard()
            url = next_hop(url, location)
        raise UpstreamStatus(f"{head.url}: more than {hops} redirects", upstream_status=head.status)


def _with_base(headers: Mapping[str, str]) -> dict[str, str]:
    names = {name.lower() for name in headers}
    return {**{name: value for name, value in _BASE.items() if name.lower() not in names}, **headers}
