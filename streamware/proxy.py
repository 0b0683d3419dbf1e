"""Other servers' files: pools of connections, members opened at any offset, and plain forwarding.

The rules of this file: it is the only one that knows urllib3; whatever urllib3, http.client, ssl or a socket raises
leaves through one gate as an error of ours; what a manifest names is only ever asked over connections whose address was
judged, and shares none with what code names; and no body is believed to be what it should be: length, coding, validator
and range of every answer are checked before its first byte is given, and the bytes are counted.

What heads say is judged in ``heads``; here is what needs a connection.
"""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from http.client import HTTPException
from io import DEFAULT_BUFFER_SIZE
from types import TracebackType
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as PoolTimeout
from urllib3.util import Retry, Timeout, parse_url
from urllib3.util.connection import allowed_gai_family

from streamware.answer import Answer
from streamware.dial import dial
from streamware.errors import (
    InvalidManifest,
    InvalidTarget,
    RequestError,
    UpstreamBusy,
    UpstreamError,
    UpstreamStatus,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from streamware.exchange import Stop, UpstreamChunks
from streamware.heads import Head, framed_length, given_headers, harmless, next_hop, own_headers, passed_back, where
from streamware.model import Observer, Url
from streamware.policy import Policy
from streamware.reply import BytesBody, Reply
from streamware.semantics import is_entity_tag
from streamware.slots import Slot, Slots
from streamware.sources.upstream import UpstreamSource
from streamware.traces import let_go

__all__ = ["Upstream", "UpstreamChunks", "UpstreamSource"]

_log = logging.getLogger(__name__)

_HOSTS = 64  # pools kept; the one unused for longest is given up
_SMALL_BYTES = 64 * 1024  # of one read of an answer beyond the first few (``slots.Slot.large``)
_REDIRECTS = (301, 302, 303, 307, 308)
_NO_RETRIES = Retry(False, redirect=False)  # what is repeated is decided here
_OUTSIDE = (HTTPError, HTTPException, OSError)
_asking = threading.local()  # ``stop``: what ends the request this thread is about to make, or None
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
        self._trusted = self._pools(_Connection, _TlsConnection)
        self._guarded = self._pools(_GuardedConnection, _GuardedTlsConnection)

    def _pools(self, plain: type[_Connection], tls: type[_TlsConnection]) -> urllib3.PoolManager:
        policy = self._policy
        pools = urllib3.PoolManager(
            num_pools=_HOSTS,
            maxsize=policy.pool_connections,
            block=False,
            retries=_NO_RETRIES,
            timeout=Timeout(connect=policy.connect_timeout_seconds, read=policy.read_timeout_seconds),
        )
        # Other users of urllib3 in this process keep their own classes.
        own = {"policy": policy, "retried": staticmethod(self.retried)}
        pools.pool_classes_by_scheme = {
            "http": type("_Pool", (HTTPConnectionPool,), {"ConnectionCls": type("_Plain", (plain,), own)}),
            "https": type("_TlsPool", (HTTPSConnectionPool,), {"ConnectionCls": type("_Tls", (tls,), own)}),
        }
        return pools

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
                _parse(url)
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

    def _reply(self, method: str, exchange: _Exchange) -> Reply:
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
        for manager in (self._trusted, self._guarded):
            pools = manager.pools
            for key in pools.keys():  # noqa: SIM118 - a container that refuses to be iterated
                pool = pools.get(key)
                if pool is not None:
                    pool.close()
            manager.clear()

    # --- what sources need: see sources.upstream.Client ---

    def ask(
        self,
        method: str,
        url: str,
        content: Url,
        own: Mapping[str, str],
        extra: Mapping[str, str],
        stop: Stop | None = None,
    ) -> _Exchange:
        """Ask one URL of a member. ``own`` headers stay with the origin they were given for, ``extra`` go anywhere.

        Where as many answers of that host are open as may be, it waits for one of them to end, at most for
        ``read_timeout_seconds``. ``stop`` ends that wait and the one for the answer at once; a connection that is being
        made is given up only after its time.
        """
        return self._follow(
            method,
            url,
            {**own, **extra} if extra else own,
            elsewhere={**_BASE, **extra},
            hops=self._policy.redirects(content),
            admit=not content.trusted,
            stop=stop,
        )

    def spare(self, content: Url) -> bool:
        """Whether an answer may be opened before its turn: at most half of those of a host, lest the ones that wait for
        their turn keep out the ones whose turn it is. Asks nobody and never waits.
        """
        if not isinstance(content.url, str):
            return True  # where it leads is found out when it is opened
        try:
            return self._slots.spare(_origin(content.url))
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
    ) -> _Exchange:
        """Ask, and follow at most ``hops`` redirects; ``elsewhere`` are the headers once the origin has changed."""
        origin = url
        for hop in range(hops + 1):
            try:
                if hop and _origin(url) != _origin(origin):
                    headers = elsewhere
                if admit:
                    self._policy.admit_url(url)
                exchange = self._exchange(method, url, headers, self._guarded if admit else self._trusted, stop)
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

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], pools: urllib3.PoolManager, stop: Stop | None
    ) -> _Exchange:
        scheme, host, port, target = _parse(url)
        gate = _Gate(where(url))
        slot = self._slots.take(
            _origin(url), self._policy.read_timeout_seconds, lambda: stop is not None and stop.is_set
        )
        if slot is None:
            if stop is not None:
                stop.wait(0.0)  # raises where that is why
            raise UpstreamBusy(
                f"{where(url)}: {self._policy.opens_per_host} answers of its server are open, and none ended in time",
                retry_after=self._policy.overload_retry_seconds,
            )
        try:
            with gate:
                pool = pools.connection_from_host(
                    host, port, scheme, pool_kwargs={"ssl_context": self._tls} if scheme == "https" else None
                )
                _asking.stop = stop
                response = pool.urlopen(
                    method,
                    target,
                    headers=headers,
                    retries=_NO_RETRIES,
                    redirect=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                )
        except BaseException:
            slot.free()
            raise
        finally:
            _asking.stop = None
        return _Exchange(response, gate, slot)

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Reading the certificates takes some 20 ms: done once, and only where they are needed.
        return ssl.create_default_context()


def _with_base(headers: Mapping[str, str]) -> dict[str, str]:
    names = {name.lower() for name in headers}
    return {**{name: value for name, value in _BASE.items() if name.lower() not in names}, **headers}


def _origin(url: str) -> tuple[str, str, int]:
    scheme, host, port, _ = _parse(url)
    return scheme, host, port or urllib3.connection.port_by_scheme[scheme]


@lru_cache(maxsize=1024)
def _parse(url: str) -> tuple[str, str, int | None, str]:
    """Scheme, host, port and request target of an absolute URL, as urllib3 reads it.

    :raises InvalidTarget: it is not http(s), has no host, carries a user name, or cannot be parsed.
    """
    try:
        parts = parse_url(url)
    except LocationParseError as error:
        raise InvalidTarget("A URL cannot be parsed.") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise InvalidTarget("A URL must be absolute, with http or https.")
    if parts.auth is not None:
        raise InvalidTarget("A URL must not carry a user name or password; use headers for credentials.")
    return parts.scheme, parts.host, parts.port, parts.request_uri


# --- one answer --------------------------------------------------------------------------------------------------


class _Gate:
    """The one gate through which errors of urllib3, http.client, ssl and sockets leave, as ours."""

    __slots__ = ("where",)

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, _OUTSIDE):
            own = _translated(error)(f"{self.where}: {error}")
            own.passing = not isinstance(error, SSLError | ssl.SSLError)  # a certificate will be no better soon
            let_go(error)  # urllib3 keeps it in a frame of its traceback
            try:
                raise own from error
            finally:
                del own, error  # else each would hold itself, by this frame in its traceback


def _translated(error: Exception) -> type[UpstreamError]:
    if isinstance(error, NewConnectionError | SSLError | ssl.SSLError):  # refused, no route, no such name; TLS
        return UpstreamUnreachable
    if isinstance(error, PoolTimeout | TimeoutError):
        return UpstreamTimeout
    return UpstreamError


class _Exchange:
    """One answer over urllib3; see ``exchange.Exchange``."""

    __slots__ = ("_answer", "_gate", "_response", "_slot", "head")

    def __init__(self, response: urllib3.BaseHTTPResponse, gate: _Gate, slot: Slot) -> None:
        connection = response.connection
        assert isinstance(connection, _Connection)
        answer = connection.answer
        assert answer is not None
        connection.answer = None  # which lives on in the pool
        self.head = Head(gate.where, response.status, answer.version, answer.chunked, response.headers)
        self._response = response
        self._answer = answer
        self._gate = gate
        self._slot = slot

    def lines(self) -> Iterable[tuple[str, str]]:
        """The head's fields line by line."""
        return self._response.headers.iteritems()

    def read(self, limit: int) -> bytes:
        with self._gate:
            return self._response.read1(limit if self._slot.large else min(limit, _SMALL_BYTES))

    def readable(self) -> bool:
        with self._gate:
            return self._answer.at_hand()

    def at_leisure(self) -> None:
        """For bodies that are passed on as they come, a stream of events perhaps: no rate is too low."""
        self._answer.at_leisure()

    def broken(self) -> bool:
        with self._gate:
            return self._answer.cut_off()

    def abort(self) -> None:
        if self._response.connection is not None:  # else it is back in the pool, and may be a neighbour's by now
            self._answer.shut_down()

    def finish(self) -> None:
        answer = self._answer
        at_end = answer.at_end()
        if at_end and not answer.isclosed():
            self._drain()
        elif at_end is False and answer.chunked:
            _log.warning("%s: more bytes came than were promised; they are left out", self.head.url)
        self.close()

    def discard(self) -> None:
        if self._answer.in_hand:
            self._drain()
        self.close()

    def close(self) -> None:
        try:
            self._response.close()
            self._response.release_conn()
        finally:
            self._slot.free()

    def _drain(self) -> None:
        """Let http.client and urllib3 see the end of a body, which puts the connection back into its pool."""
        try:
            while self.read(DEFAULT_BUFFER_SIZE):
                pass
        except UpstreamError:
            pass  # whatever became of the connection, nothing more is wanted of it


class _Connection(HTTPConnection):
    """A connection that may have died unnoticed while it waited in the pool.

    A request over a connection that was used before and ends before any answer is sent once more, over a new one:
    GET and HEAD may be repeated (RFC 9110 section 9.2.2), and here are no others.
    """

    policy: Policy
    answer: Answer | None = None
    _used: tuple[str, str, Any, dict[str, Any]] | None = None

    @staticmethod
    def retried() -> None:
        """Called when a request is sent again."""

    def response_class(  # type: ignore[override]  # http.client calls what is a class there
        self, sock: socket.socket, debuglevel: int = 0, method: str | None = None
    ) -> Answer:
        pace = self.policy.min_rate_bytes, self.policy.min_rate_seconds
        self.answer = Answer(sock, debuglevel, method, pace=pace)
        return self.answer

    def request(self, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> None:
        self._used = None if self.sock is None else (method, url, headers, options)
        super().request(method, url, body, headers, **options)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        stop: Stop | None = _asking.stop
        try:
            if stop is None:
                return self._awaited(lambda: False)
            with stop.ending(self._shut_down):
                return self._awaited(lambda: stop.is_set)
        except BaseException:
            if self.answer is not None:  # it holds the socket, for as long as somebody holds the error
                self.answer.close()
            raise

    def _shut_down(self) -> None:
        sock = self.sock
        if sock is not None:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # the plain socket's method, for TLS too

    def _awaited(self, stopped: Callable[[], bool]) -> urllib3.HTTPResponse:
        try:
            return super().getresponse()
        except ConnectionError:  # http.client's RemoteDisconnected is one; a failed send too is met only here
            if self._used is None or stopped():
                raise
        (method, url, headers, options), self._used = self._used, None
        self.retried()
        self.close()
        patience, self.timeout = self.timeout, self.policy.connect_timeout_seconds
        super().request(method, url, None, headers, **options)
        self.timeout = patience
        return super().getresponse()


class _TlsConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _GuardedConnection(_Connection):
    """One that only goes where Policy lets the host's name lead; Host, SNI and the certificate's name stay the name.

    Every new connection resolves the name again and is judged again, the one made for a request's second try too. The
    refusal is none of urllib3's errors, so nothing takes it for a failure that another try could mend.
    """

    def _new_conn(self) -> socket.socket:
        def judge(address: str) -> None:
            self.policy.admit_address(self._dns_host, address)

        try:
            sock = dial(
                self._dns_host,
                self.port,
                judge,
                family=allowed_gai_family(),
                options=self.socket_options or (),
                seconds=self.policy.connect_timeout_seconds,
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from error
        except OSError as error:
            raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock


class _GuardedTlsConnection(_GuardedConnection, _TlsConnection):
    """The same over TLS."""
