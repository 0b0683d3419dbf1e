"""Real servers for tests of whole apps: an upstream that can misbehave, and gunicorn or uvicorn with an app inside.

The rule of this file: nothing here knows streamware; what it measures (who closed a connection, and when) it measures
at its own sockets.
"""

from __future__ import annotations

import http.client
import re
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from tests.hosts.servers import ROOT, python_process, until

__all__ = ["ROOT", "Answer", "File", "Host", "Node", "hosting", "until"]

MODIFIED = "Tue, 05 Nov 2024 06:07:08 GMT"
ENDLESS = 1 << 30  # bytes that ``Node.endless`` and ``Node.silent`` promise

_COMMANDS = {
    "wsgi": "gunicorn --worker-class gthread --threads 8 --bind 127.0.0.1:0 --no-control-socket",
    "asgi": "uvicorn --host 127.0.0.1 --port 0 --lifespan off",
}
_READY = re.compile(r"(?:Listening at: http://127\.0\.0\.1:|running on http://127\.0\.0\.1:)(\d+)")


# --- upstream ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class File:
    """A file of a Node. ``headers`` replace and add; each line of a value is a header, an empty value none.

    ``cut``: bytes that are really sent, None for all.
    """

    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


class Request(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]  # names in lower case


class Node:
    """An upstream on 127.0.0.1 that serves ``files`` with validators, ranges and conditions (RFC 9110).

    Paths in ``endless`` give bytes for as long as anybody reads, those in ``silent`` stop after 100,000 of them.
    ``left`` maps such a path to the moment (``time.monotonic``) at which the other side was found gone; ``busy`` is the
    number of responses that are being sent.
    """

    def __init__(self, files: Mapping[str, File | bytes] | None = None) -> None:
        self.files = {p: f if isinstance(f, File) else File(f) for p, f in (files or {}).items()}
        self.endless: set[str] = set()
        self.silent: set[str] = set()
        self.requests: list[Request] = []
        self.left: dict[str, float] = {}
        self.busy = 0
        self.lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.node = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path == path]

    def close(self) -> None:
        """Go down: nothing listens, and connections that are open break. Idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        for connection in list(self._server.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    node: Node

    def __init__(self, *arguments: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a connection that broke; whose doing it was is for the test to say


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        node = self.server.node
        with node.lock:
            node.requests.append(Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            node.busy += 1
        try:
            if self.path in node.endless or self.path in node.silent:
                self._on_and_on(node)
            else:
                self._file(node.files.get(self.path))
        except OSError:
            self.close_connection = True
        finally:
            with node.lock:
                node.busy -= 1

    do_HEAD = do_GET  # noqa: N815

    def _file(self, file: File | None) -> None:
        if file is None:
            self._head(404, {"Content-Type": "text/plain", "Content-Length": "9"})
            self._body(b"not here\n")
            return
        body = file.body
        etag = file.headers.get("ETag", f'"{len(body)}-{sum(body[:4096])}"')
        headers = {"Content-Type": "text/plain", "ETag": etag, "Last-Modified": MODIFIED, "Accept-Ranges": "bytes"}
        headers.update(file.headers)
        if self.headers.get("If-None-Match") == etag:
            self._head(304, {"ETag": etag})
            return
        status = 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and self.headers.get("If-Range", etag) == etag:
            start, stop = int(asked[1]), min(int(asked[2] or len(body)) + 1, len(body))
            if start >= len(body):
                self._head(416, {"Content-Range": f"bytes */{len(body)}", "Content-Length": "0"})
                return
            status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{len(body)}"
            body = body[start:stop]
        headers.setdefault("Content-Length", str(len(body)))
        self._head(status, headers)
        self._body(body[: file.cut])
        self.close_connection = file.cut is not None

    def _on_and_on(self, node: Node) -> None:
        headers = {"Content-Type": "text/plain", "ETag": '"on"', "Content-Length": str(ENDLESS)}
        self._head(200, headers)
        self.close_connection = True
        if self.command == "HEAD":
            return
        try:
            if self.path in node.silent:
                self._body(bytes(100_000))
                select.select([self.connection], [], [], 60)
            else:
                for _ in range(6000):
                    self._body(bytes(10_000))
                    time.sleep(0.01)
        finally:
            node.left[self.path] = time.monotonic()

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            for line in value.splitlines():
                self.send_header(name, line)
        self.end_headers()

    def _body(self, data: bytes) -> None:
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


# --- hosts -------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """A response, read to its end. Repeated headers are joined; names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Host:
    """A server process with an app inside."""

    kind: str
    port: int
    log: Path

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own. ``If_Range`` stands for ``If-Range``.

        :raises http.client.IncompleteRead: the body broke off.
        """
        connection = self.connect()
        try:
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            found: dict[str, str] = {}
            for name, value in response.getheaders():
                key = name.lower()
                found[key] = f"{found[key]}, {value}" if key in found else value
            return Answer(response.status, found, response.read())
        finally:
            connection.close()


@contextmanager
def hosting(
    kind: str, target: str, *, log: Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Iterator[Host]:
    """Run ``target`` ("module:attribute" or "module:factory()") under gunicorn ("wsgi") or uvicorn ("asgi").

    What leaked is an error: the log must not speak of an unclosed resource when the server has ended.
    """
    server, *options = _COMMANDS[kind].split()
    if kind == "asgi" and target.endswith("()"):
        target, options = target[:-2], [*options, "--factory"]
    command = ["-W", "always::ResourceWarning", "-m", server, *options, target]
    with python_process(command, _READY, {"PYTHONPATH": str(ROOT), **(env or {})}, log=log, cwd=cwd) as port:
        yield Host(kind, port, log)
    said = log.read_text()
    for sign in ("ResourceWarning", "was never awaited", "was never retrieved", "was destroyed but"):
        assert sign not in said, said
