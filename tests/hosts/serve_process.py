"""A real ``streamware serve`` in a process of its own, and plain HTTP to talk to it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import streamware

__all__ = ["Answer", "Served", "command", "refused"]

_SOURCE = str(Path(streamware.__file__).resolve().parent.parent)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "streamware", *arguments]


def environment() -> dict[str, str]:
    path = os.pathsep.join(p for p in (_SOURCE, os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "default"}


def refused(root: Path, *options: str) -> str:
    """What a server says that does not start."""
    done = subprocess.run(
        command("serve", str(root), "--bind", "127.0.0.1:0", *options),
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    return done.stderr


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Served:
    """``streamware serve`` on a free port, from ``with`` to its end. stderr is in ``log`` afterwards."""

    def __init__(self, root: Path | str, *options: str, bind: str = "127.0.0.1:0") -> None:
        self.process = subprocess.Popen(
            command("serve", str(root), "--bind", bind, *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline().decode()
        self.log = ""
        if not self.line:
            self.log = self._finish(10)
            raise AssertionError(f"serve did not start: {self.log}")
        self.url = self.line.split()[-1]
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        self.host, self.port = host.strip("[]"), int(port)

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exc: object) -> None:
        for _ in range(2):  # the second signal ends it at once, but not before it has tidied up
            if self.process.poll() is None:
                self.process.terminate()
                time.sleep(0.05)
        self._finish(10)

    def _finish(self, seconds: float) -> str:
        try:
            _, errors = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            _, errors = self.process.communicate(timeout=seconds)
        return errors.decode("utf-8", "replace")

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        """The exit code; the process must end by itself within the time."""
        code = self.process.wait(timeout=seconds)
        self.log = self._finish(10)
        return code

    def connect(self, seconds: float = 20) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, self.port, timeout=seconds)

    def ask(
        self, target: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, target, body=body, headers=dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def ask_raw(self, target: bytes, seconds: float = 10) -> bytes:
        """The whole answer to a GET whose target goes out byte for byte."""
        with socket.create_connection((self.host, self.port), timeout=seconds) as sock:
            sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        return answer
