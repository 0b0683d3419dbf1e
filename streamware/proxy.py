"""Connections to other servers: pools of them, kept warm, and one answer over each at a time.

The rules of this file: it is the only one that knows urllib3; whatever urllib3, http.client, ssl or a socket raises
leaves through one gate as an error of ours; and what a manifest names is only ever asked over connections whose address
was judged, and shares none with what code names.

urllib3 has the pools and makes the connections, TLS included. A request is sent as ready bytes and its answer is read
by ``answer.Answer``.
"""

from __future__ import annotations

import select
import socket
import ssl
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, lru_cache
from http.client import HTTPException
from types import TracebackType
from typing import Any

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
from urllib3.util import Timeout, parse_url
from urllib3.util.connection import allowed_gai_family

from streamware.answer import Answer
from streamware.answered import Answered, Flight
from streamware.dial import dial
from streamware.errors import InvalidTarget, UpstreamBusy, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from streamware.exchange import Stop
from streamware.heads import where
from streamware.idle import Idle
from streamware.origin import DEFAULT_PORTS, Origin, plain, rendered
from streamware.policy import Policy
from streamware.slots import Slots
from streamware.traces import let_go

__all__ = ["Connections", "parse"]

_HOSTS = 64  # pools kept; the one unused for longest is given up
_OUTSIDE = (HTTPError, HTTPException, OSError)


def parse(url: str) -> tuple[Origin, str]:
    """Origin and request target of an absolute URL, as urllib3 reads it.

    :raises InvalidTarget: it is not http(s), has no host, carries a user name, or cannot be parsed.
    """
    return plain(url) or _parsed(url)


@lru_cache(maxsize=1024)
def _parsed(url: str) -> tuple[Origin, str]:
    try:
        parts = parse_url(url)
    except LocationParseError as error:
        raise InvalidTarget("A URL cannot be parsed.") from error
    if parts.scheme not in ("http", "https") or not parts.host:
        raise InvalidTarget("A URL must be absolute, with http or https.")
    if parts.auth is not None:
        raise InvalidTarget("A URL must not carry a user name or password; use headers for credentials.")
    return Origin(parts.scheme, parts.host, parts.port or DEFAULT_PORTS[parts.scheme]), parts.request_uri


class Connections:
    """One pool of connections for each origin, of one kind. Used from any thread.

    :param guarded: every address is judged before it is dialled.
    :param retried: called when a request is sent again.
    """

    def __init__(self, policy: Policy, slots: Slots, *, guarded: bool, retried: Any) -> None:
        self._policy = policy
        self._slots = slots
        # Other users of urllib3 in this process keep their own classes.
        own = {"policy": policy, "retried": staticmethod(retried)}
        plain, tls = (_GuardedConnection, _GuardedTlsConnection) if guarded else (_Connection, _TlsConnection)
        kept = {"QueueCls": Idle}
        self._kinds: dict[str, type[HTTPConnectionPool]] = {
            "http": type("_Pool", (HTTPConnectionPool,), {"ConnectionCls": type("_Plain", (plain,), own), **kept}),
            "https": type("_TlsPool", (HTTPSConnectionPool,), {"ConnectionCls": type("_Tls", (tls,), own), **kept}),
        }
        self._lock = threading.Lock()
        self._pools: OrderedDict[Origin, HTTPConnectionPool] = OrderedDict()

    def ask(self, method: str, url: str, headers: Mapping[str, str], stop: Stop | None) -> Answered:
        """Send a request and wait for the head of its answer.

        :raises InvalidTarget: the URL cannot be asked.
        :raises UpstreamError: there is no answer.
        """
        origin, target = parse(url)
        slot = self._slots.take(origin, self._policy.read_timeout_seconds, lambda: stop is not None and stop.is_set)
        if slot is None:
            if stop is not None:
                stop.wait(0.0)  # raises where that is why
            raise UpstreamBusy(
                f"{where(url)}: {self._policy.opens_per_host} answers of its server are open, and none ended in time",
                retry_after=self._policy.overload_retry_seconds,
            )
        gate = Gate(where(url))
        try:
            with gate:
                pool = self._pool(origin)
                connection: _Connection = pool._get_conn()  # type: ignore[assignment]
                request = rendered(method, origin, target, headers)
                try:
                    answer = connection.asked(method, request, gate.where, stop)
                except BaseException:
                    connection.close()
                    raise
        except BaseException:
            slot.free()
            raise
        return Answered(answer, connection, pool._put_conn, gate, slot)

    def launch(self, url: str, headers: Mapping[str, str], *, large: bool) -> Flight | None:
        """Send a GET, if that takes no waiting: over a connection that is there; None: it is to be asked for."""
        origin, target = parse(url)
        pool = self._pool(origin)
        idle: Any = pool.pool
        connection: _Connection | None = None if idle is None else idle.idle()
        if connection is None:
            return None
        slot = self._slots.take_now(origin, large=large)
        if slot is None or not connection.is_connected:
            pool._put_conn(connection)  # one that has died is looked at once more, by whoever may make another
            if slot is not None:
                slot.free()
            return None
        request = rendered("GET", origin, target, headers)
        try:
            answer = connection.post("GET", request, where(url))
        except OSError:
            connection.close()
            slot.free()
            return None
        return Flight(answer, connection, pool._put_conn, Gate(answer.url), slot)

    def close(self) -> None:
        """Close the idle connections. Answers that are still being read go on, and close theirs when they end."""
        with self._lock:
            pools = tuple(self._pools.values())
            self._pools.clear()
        for pool in pools:
            pool.close()

    def _pool(self, origin: Origin) -> HTTPConnectionPool:
        with self._lock:
            pool = self._pools.get(origin)
            if pool is not None:
                self._pools.move_to_end(origin)
                return pool
            policy = self._policy
            secure: Any = {"ssl_context": self._tls} if origin.scheme == "https" else {}
            pool = self._pools[origin] = self._kinds[origin.scheme](
                origin.host,
                origin.port,
                maxsize=policy.pool_connections,
                block=False,
                timeout=Timeout(connect=policy.connect_timeout_seconds, read=policy.read_timeout_seconds),
                **secure,
            )
            old = self._pools.popitem(last=False)[1] if len(self._pools) > _HOSTS else None
        if old is not None:
            old.close()
        return pool

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Reading the certificates takes some 20 ms: done once, and only where they are needed.
        return ssl.create_default_context()


# --- errors --------------------------------------------------------------------------------------------------


class Gate:
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


class _Connection(HTTPConnection):
    """A connection that may have died unnoticed while it waited in the pool.

    A request over a connection that was used before and ends before any answer is sent once more, over a new one:
    GET and HEAD may be repeated (RFC 9110 section 9.2.2), and here are no others.
    """

    policy: Policy
    _poll: select.poll | None = None
    _again: tuple[str, bytes] | None = None  # the request, while it may be sent once more

    @staticmethod
    def retried() -> None:
        """Called when a request is sent again."""

    @property
    def is_connected(self) -> bool:
        """Whether it is there, and nothing has come that nobody asked for."""
        if self.sock is None:
            return False
        if self._poll is None:
            self._poll = select.poll()  # not select(), which knows no descriptor above 1023
            self._poll.register(self.sock.fileno(), select.POLLIN)
        return not self._poll.poll(0)

    def connect(self) -> None:
        self.timeout = self.policy.connect_timeout_seconds
        super().connect()
        self.sock.settimeout(self.policy.read_timeout_seconds)

    def close(self) -> None:
        self._poll = None
        super().close()

    def asked(self, method: str, request: bytes, url: str, stop: Stop | None) -> Answer:
        """Send a request, and wait for the head of its answer; ``stop`` ends that wait."""
        return self.awaited(self.post(method, request, url), stop)

    def post(self, method: str, request: bytes, url: str) -> Answer:
        """Send a request; its answer is yet to come."""
        self._again = None if self.sock is None else (method, request)
        if self.sock is None:
            self.connect()
        with suppress(ConnectionError):  # it is met again where the answer is read; one may have come before
            self.sock.sendall(request)
        return Answer(self.sock, method, url, (self.policy.min_rate_bytes, self.policy.min_rate_seconds))

    def awaited(self, answer: Answer, stop: Stop | None) -> Answer:
        if stop is None:
            return self._begun(answer, lambda: False)
        with stop.ending(self._shut_down):
            return self._begun(answer, lambda: stop.is_set)

    def _shut_down(self) -> None:
        sock = self.sock
        if sock is not None:
            with suppress(OSError):  # closed already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # the plain socket's method, for TLS too

    def _begun(self, answer: Answer, stopped: Callable[[], bool]) -> Answer:
        try:
            answer.begin()
            return answer
        except ConnectionError:
            if self._again is None or stopped():
                raise
        method, request = self._again
        self.retried()
        self.close()
        answer = self.post(method, request, answer.url)
        answer.begin()
        return answer


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
