"""An upstream whose every byte a test decides: a real socket server, one thread a connection.

    def script(request, peer):
        peer.send(answer(b"hello", "ETag: \\"v1\\""))

    with ScriptedUpstream(script) as upstream:
        ... upstream.url("/a") ... upstream.requests ...

The rules of this file: nothing waits without end, and leaving the ``with`` closes every socket, ends every thread and
raises what a script raised. A peer that has gone away is no error: that is what many tests are about.
"""

from __future__ import annotations

import contextlib
import gc
import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import NamedTuple

from streamware.model import Chunks
from streamware.policy import Policy
from streamware.reply import ReplyBody
from streamware.upstreams import Upstream

__all__ = [
    "Peer",
    "Request",
    "Script",
    "ScriptedUpstream",
    "Tally",
    "answer",
    "asking",
    "content",
    "free_port",
    "in_turn",
    "read",
]

PATIENCE = 10.0  # seconds any single wait may take


class Tally:
    """An observer that counts."""

    def __init__(self) -> None:
        self.opened = self.retries = self.failures = 0

    def download_started(self) -> None: ...

    def first_byte(self, seconds: float) -> None: ...

    def download_ended(self, outcome: str, *, members: int, bytes_out: int, bytes_in: int) -> None: ...

    def upstream_opened(self) -> None:
        self.opened += 1

    def upstream_retried(self) -> None:
        self.retries += 1

    def upstream_failed(self) -> None:
        self.failures += 1


@contextlib.contextmanager
def asking(policy: Policy, tally: Tally) -> Iterator[Upstream]:
    """An Upstream that leaves no socket behind: an unclosed one warns when it is collected, and warnings are errors."""
    upstream = Upstream(policy, tally)
    try:
        yield upstream
    finally:
        upstream.close()
        gc.collect()


def read(body: Chunks | ReplyBody) -> bytes:
    try:
        return b"".join(body)
    finally:
        body.close()


class Request(NamedTuple):
    """A request as it came. ``headers`` are by lower-case name; ``connection`` counts connections from 1."""

    method: str
    target: str
    headers: dict[str, str]
    connection: int


class Left(Exception):
    """The other side closed or reset the connection, or the test is over."""


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, sock: socket.socket, stopping: threading.Event) -> None:
        self._sock = sock
        self._stopping = stopping
        self._buffer = b""
        self.closed = False

    def send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise Left from error

    def drip(self, data: bytes, *, size: int = 1, seconds: float = 0.0) -> None:
        """Send piece by piece, with a pause after each."""
        for start in range(0, len(data), size):
            self.send(data[start : start + size])
            self.pause(seconds)

    def pause(self, seconds: float) -> None:
        """Wait, but not longer than the test lasts."""
        if self._stopping.wait(min(seconds, PATIENCE)):
            raise Left

    def stall(self) -> None:
        """Say nothing more until the client leaves or the test is over."""
        deadline = time.monotonic() + PATIENCE
        self._sock.settimeout(0.02)
        while not self._stopping.is_set() and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                try:
                    if not self._sock.recv(65536):
                        raise Left
                except OSError as error:
                    if isinstance(error, TimeoutError):
                        raise
                    raise Left from error
        raise Left

    def close(self) -> None:
        """End the connection properly, after what was sent."""
        self.closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def reset(self) -> None:
        """End it with a RST."""
        self.closed = True
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def receive(self, connection: int) -> Request | None:
        """The next request's head; None once the client has closed. Bodies are not read: GET and HEAD have none."""
        while b"\r\n\r\n" not in self._buffer:
            try:
                data = self._sock.recv(65536)
            except OSError:
                return None
            if not data:
                return None
            self._buffer += data
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"the client sent {name} twice"
            headers[name.lower()] = value.strip()
        return Request(method, target, headers, connection)


Script = Callable[[Request, Peer], None]


class ScriptedUpstream:
    """Answers each request with a script: one for all, or one for each path (before ``?``).

    :param tls: a server-side context makes it speak https. :param bind: the address it listens on.
    """

    def __init__(
        self,
        script: Script | Mapping[str, Script],
        *,
        tls: ssl.SSLContext | None = None,
        bind: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._script = script
        self._tls = tls
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server((bind, port), backlog=64)
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.requests: list[Request] = []
        self.connections = 0  # accepted so far
        self.port: int = self._listener.getsockname()[1]

    def url(self, path: str = "/", *, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}{path}"

    @property
    def asked(self) -> list[str]:
        """What was asked for so far, as "METHOD target"."""
        return [f"{request.method} {request.target}" for request in self.requests]

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._sockets)

    def wait_closed(self, left: int = 0) -> None:
        """Until at most ``left`` connections are open; AssertionError if that takes too long."""
        deadline = time.monotonic() + PATIENCE / 2
        while self.open_connections > left:
            assert time.monotonic() < deadline, f"{self.open_connections} connections are still open"
            time.sleep(0.005)

    def __enter__(self) -> ScriptedUpstream:
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)  # for TLS too: ends a read in its own thread
        for thread in list(self._threads):
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a script did not end"
        if error is None and self._errors:
            raise self._errors[0]

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True, name="scripted-upstream")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(sock)
                self.connections += 1
            self._spawn(self._serve, sock, self.connections)

    def _serve(self, raw: socket.socket, number: int) -> None:
        sock = raw
        try:
            if self._tls is not None:
                raw.settimeout(PATIENCE)
                try:
                    sock = self._tls.wrap_socket(raw, server_side=True)
                except OSError:
                    return  # the client did not like us
                with self._lock:
                    self._sockets.remove(raw)
                    self._sockets.add(sock)
                sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer = Peer(sock, self._stopping)
            while not peer.closed and not self._stopping.is_set():
                request = peer.receive(number)
                if request is None:
                    return
                self.requests.append(request)
                self._route(request.target)(request, peer)
        except Left:
            pass
        except BaseException as error:
            self._errors.append(error)
        finally:
            sock.close()
            raw.close()
            with self._lock:
                self._sockets.discard(sock)

    def _route(self, target: str) -> Script:
        if callable(self._script):
            return self._script
        return self._script.get(target.partition("?")[0], _not_found)


def answer(
    body: bytes = b"", *lines: str, status: str = "200 OK", length: int | str | None = -1, version: str = "1.1"
) -> bytes:
    """A whole answer. ``length`` None leaves Content-Length out, -1 tells the truth, anything else is sent as it is."""
    head = [f"HTTP/{version} {status}", *lines]
    if length is not None:
        head.append(f"Content-Length: {len(body) if length == -1 else length}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def _not_found(request: Request, peer: Peer) -> None:
    peer.send(answer(b"nothing here", status="404 Not Found"))


def in_turn(*scripts: Script) -> Script:
    """The first request gets the first script, and so on; the last one serves all the rest."""
    turns: Iterator[Script] = iter(scripts)
    lock = threading.Lock()
    last = scripts[-1]

    def script(request: Request, peer: Peer) -> None:
        with lock:
            chosen = next(turns, last)
        chosen(request, peer)

    return script


def content(
    data: bytes, *lines: str, etag: str | None = '"v1"', ranges: bool = True, head: bool = True, chunked: bool = False
) -> Script:
    """A well-behaved server of one file: HEAD, single ranges, If-Range. Switches take single virtues away."""

    def script(request: Request, peer: Peer) -> None:
        fields = [*lines, *([f"ETag: {etag}"] if etag else [])]
        if request.method == "HEAD":
            if head:
                peer.send(answer(b"", *fields, length=len(data)))
            else:
                peer.send(answer(b"", status="405 Method Not Allowed"))
            return
        asked = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", request.headers.get("range", ""))
        if asked and ranges and request.headers.get("if-range", etag) == etag:
            start, stop = int(asked[1]), min(int(asked[2]) + 1 if asked[2] else len(data), len(data))
            if start >= len(data):
                peer.send(answer(b"", f"Content-Range: bytes */{len(data)}", status="416 Range Not Satisfiable"))
                return
            part = f"Content-Range: bytes {start}-{stop - 1}/{len(data)}"
            peer.send(answer(data[start:stop], part, *fields, status="206 Partial Content"))
        elif chunked:
            peer.send(answer(b"", "Transfer-Encoding: chunked", *fields, length=None))
            for begin in range(0, len(data), 1000):
                piece = data[begin : begin + 1000]
                peer.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            peer.send(b"0\r\n\r\n")
        else:
            peer.send(answer(data, *fields))

    return script


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
