"""Real servers for tests: wsgiref in a thread, others as processes; and a client that hides nothing.

The rules of this file: loopback and free ports only; every wait has an end; whoever started a server stops it, and a
process that does not stop in time is killed.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

__all__ = ["Broken", "Response", "Server", "gunicorn", "hypercorn", "until", "uvicorn", "waitress", "wsgiref_server"]

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS = 20.0
STOP_SECONDS = 10.0

_GUNICORN_READY = re.compile(r"Listening at: http://127\.0\.0\.1:([0-9]+)")
_UVICORN_READY = re.compile(r"running on http://127\.0\.0\.1:([0-9]+)")
_HYPERCORN_READY = re.compile(r"Running on http://127\.0\.0\.1:([0-9]+)")
_WAITRESS_READY = re.compile(r"Serving on http://127\.0\.0\.1:([0-9]+)")


class Broken(AssertionError):
    """The connection broke before the response was whole; ``body`` is what had come."""

    def __init__(self, body: bytes) -> None:
        super().__init__(f"broke after {len(body)} bytes")
        self.body = body


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass
class Server:
    """A server that is up. ``log()`` is what it has printed so far."""

    port: int
    log: Callable[[], str]

    def connect(self, seconds: float = 20.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Response:
        return self.request("GET", path, headers)

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | Iterator[bytes] | None = None,
    ) -> Response:
        """One request on a connection of its own, read to the end.

        :raises Broken: the body ended before it was whole.
        """
        connection = self.connect()
        try:
            try:
                connection.request(method, path, body, dict(headers or {}), encode_chunked=not isinstance(body, bytes))
            except BrokenPipeError:
                pass  # the server has answered without reading to the end
            response = connection.getresponse()
            got = bytearray()
            try:
                while piece := response.read(65536):
                    got += piece
            except (http.client.IncompleteRead, ConnectionError) as error:
                raise Broken(bytes(got) + getattr(error, "partial", b"")) from error
            length = response.headers.get("content-length")
            if method != "HEAD" and response.status not in (204, 304) and length not in (None, str(len(got))):
                raise Broken(bytes(got))
            return Response(response.status, response.getheaders(), bytes(got))
        finally:
            connection.close()


def until(what: Callable[[], object], seconds: float = 10.0) -> float:
    """Wait until ``what()`` is true; return how many seconds that took. Fails after ``seconds``."""
    began = time.monotonic()
    while not what():
        assert time.monotonic() - began < seconds, f"it did not come true in {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - began


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Tests speak for themselves."""

    def get_stderr(self) -> Any:
        return self.server.errors  # type: ignore[attr-defined]


@contextmanager
def wsgiref_server(app: Any) -> Iterator[Server]:
    """A WSGI app under wsgiref, one thread a connection, in this process."""
    with tempfile.TemporaryFile("w+") as errors:
        server = make_server("127.0.0.1", 0, app, _ThreadingServer, _QuietHandler)
        server.errors = errors  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()

        def log() -> str:
            errors.flush()
            errors.seek(0)
            return errors.read()

        try:
            yield Server(server.server_port, log)
        finally:
            server.shutdown()
            server.server_close()
            thread.join(STOP_SECONDS)


def gunicorn(app: str, *, threads: int = 8, env: Mapping[str, str] | None = None) -> Any:
    """A WSGI app, as ``module:name``, under gunicorn with one gthread worker. A context manager that gives a Server."""
    arguments = ["gunicorn", app, "--bind", "127.0.0.1:0", "--worker-class", "gthread", "--threads", str(threads)]
    return _process([*arguments, "--graceful-timeout", "3", "--no-control-socket"], _GUNICORN_READY, env)


def uvicorn(app: str, *, env: Mapping[str, str] | None = None, lifespan: str = "off") -> Any:
    """An ASGI app, as ``module:name``, under uvicorn. A context manager that gives a Server."""
    arguments = ["uvicorn", app, "--host", "127.0.0.1", "--port", "0", "--lifespan", lifespan]
    return _process([*arguments, "--timeout-graceful-shutdown", "3"], _UVICORN_READY, env)


def waitress(app: str, *, env: Mapping[str, str] | None = None) -> Any:
    """A WSGI app, as ``module:name``, under waitress. A context manager that gives a Server."""
    _need("waitress")
    return _process(["waitress", "--listen=127.0.0.1:0", app], _WAITRESS_READY, env)


def hypercorn(app: str, *, env: Mapping[str, str] | None = None) -> Any:
    """An ASGI app, as ``module:name``, under hypercorn. A context manager that gives a Server."""
    _need("hypercorn")
    return _process(["hypercorn", "--bind", "127.0.0.1:0", "--graceful-timeout", "3", app], _HYPERCORN_READY, env)


def _need(package: str) -> None:
    """A visible skip where a server is not installed, or a failure under ``CI=true``."""
    if find_spec(package) is None:
        reason = f"the server {package!r} is not installed (pip install {package})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


@contextmanager
def _process(arguments: list[str], ready: re.Pattern[str], env: Mapping[str, str] | None) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "log"
        with path.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            found = _wait_for(process, path, ready)
            yield Server(int(found[1]), lambda: path.read_text(errors="replace"))
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)


def _wait_for(process: subprocess.Popen[bytes], path: Path, ready: re.Pattern[str]) -> re.Match[str]:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        text = path.read_text(errors="replace")
        found = ready.search(text)
        if found:
            return found
        if process.poll() is not None:
            break
        time.sleep(0.02)
    raise AssertionError(f"the server did not come up:\n{path.read_text(errors='replace')}")
