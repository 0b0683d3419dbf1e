"""Serving processes that can be killed and come back, and two of them that share a ledger.

The rule of this file: a replica keeps its port for life, so that whoever was cut off finds it again; whoever started
one stops it, and what it said must not speak of a failure of its own.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urljoin

import streamware

__all__ = ["Replica", "asgi_command", "free_port", "metric", "save_link", "serve_command", "wsgi_command"]

_SOURCE = str(Path(streamware.__file__).resolve().parent.parent)
_READY_SECONDS = 30.0
_CAUSE = re.compile(
    r"^Traceback (?:(?!^Traceback ).)*?^The above exception was the direct cause[^\n]*\n\n", re.MULTILINE | re.DOTALL
)


def free_port() -> int:
    """A port below those the system gives to clients: it stays free while its server is down."""
    for _ in range(200):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


def serve_command(root: Path, work: Path, *, allow: str, state: str | None = None) -> list[str]:
    """``streamware serve`` with what its replicas share, in ``work``: a ledger (by default SQLite), and links' key."""
    key = work / "link.key"
    if not key.exists():
        key.write_text("a key for tests alone, " * 3)
        key.chmod(0o600)
    options = [
        "--allow",
        f"{allow}/",
        "--state",
        state or f"sqlite:///{work / 'state.sqlite3'}",
        "--link-key",
        str(key),
    ]
    return [sys.executable, "-m", "streamware", "serve", str(root), "--bind", "127.0.0.1:{port}", *options]


def wsgi_command(target: str) -> list[str]:
    options = ["--worker-class", "gthread", "--threads", "16", "--graceful-timeout", "2", "--no-control-socket"]
    return [sys.executable, "-m", "gunicorn", *options, "--bind", "127.0.0.1:{port}", target]


def asgi_command(target: str) -> list[str]:
    options = ["--lifespan", "off", "--log-level", "warning", "--timeout-graceful-shutdown", "2", "--factory"]
    return [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", "{port}", *options, target]


class Replica:
    """One serving process, from ``with`` to its end, killed and started as often as wanted in between."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [part.replace("{port}", str(self.port)) for part in command]
        self._log = log
        path = os.pathsep.join(p for p in (_SOURCE, os.environ.get("PYTHONPATH", "")) if p)
        self._env = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Replica:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=_SOURCE,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text(errors="replace")
            assert time.monotonic() < deadline, self._log.read_text(errors="replace")
            time.sleep(0.02)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            return True
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """``kill -9``, of a server's workers as well. Nothing of it is left when this returns."""
        process, self._process = self._process, None
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def wait(self, seconds: float) -> int:
        """Wait until it has ended by itself; its exit status."""
        assert self._process is not None
        return self._process.wait(seconds)

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        """Ask it to end; what it has said must be free of failures of its own."""
        process, self._process = self._process, None
        if process is None:
            return
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
            raise
        said = self.said()
        assert not re.search(r"ResourceWarning|never awaited|never retrieved", said), said[-8000:]
        # A download that had to be broken off is told by its host, with what it was broken off for.
        ends = re.findall(r"^Traceback .*\n(?:[ \t].*\n)*(\S.*)", _CAUSE.sub("", said), re.MULTILINE)
        assert all(end.startswith("streamware.errors.") for end in ends), said[-8000:]

    def said(self) -> str:
        return self._log.read_text(errors="replace")


def save_link(url: str, manifest: Mapping[str, object]) -> str:
    """Save a manifest behind a replica or a front; the path of the link, which holds on every replica."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request("POST", "/bundle/links", json.dumps(manifest).encode(), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 201, (answer.status, body)
        location = urljoin(f"{url}/bundle/links", answer.getheader("Location") or "")
        return location.removeprefix(url)
    finally:
        connection.close()


def metric(replica: Replica, name: str) -> float:
    """A figure of ``streamware serve``, 0 where it has not told it yet."""
    connection = http.client.HTTPConnection("127.0.0.1", replica.port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        found = re.search(rf"^{name} ([0-9.e+]+)$", connection.getresponse().read().decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0
    finally:
        connection.close()
