"""Download clients that are cut off and go on: curl, wget and aria2c as they are, and a reader that stops at a byte.

The rule of this file: every client writes to a file and goes on from what stands there, and every wait has an end.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import judge

__all__ = ["HOST", "Got", "Tool", "aria2c", "curl", "curl_held", "digest", "head", "read_into", "scan", "wget"]

SECONDS = 120.0
# Replicas are one site to their clients, whichever of them answers: what an app answers may depend on the name it is
# asked by, so that under two names nothing would be known to be the same.
HOST = "bundles.test"
# No proxy of the machine's stands between a client and a loopback address.
_ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}


@dataclass(frozen=True)
class Got:
    """What an answer said, names in lower case, and how many bytes of its body were taken."""

    status: int
    headers: Mapping[str, str]
    count: int
    sha256: str

    @property
    def etag(self) -> str:
        return self.headers["etag"]


@contextmanager
def _answer(
    method: str, url: str, start: int, stop: int | None, headers: Mapping[str, str] | None
) -> Iterator[tuple[http.client.HTTPConnection, http.client.HTTPResponse]]:
    at = urlsplit(url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=SECONDS)
    try:
        asked = {"Host": HOST, **(headers or {})}
        if start or stop is not None:
            asked["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        connection.request(method, f"{at.path}?{at.query}" if at.query else at.path, headers=asked)
        response = connection.getresponse()
        try:
            yield connection, response
        finally:
            response.close()
    finally:
        connection.close()


def head(url: str) -> Got:
    with _answer("HEAD", url, 0, None, None) as (_, response):
        return Got(response.status, _fields(response), 0, "")


def _fields(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def scan(
    url: str,
    *,
    start: int = 0,
    stop: int | None = None,
    count: int | None = None,
    into: Any = None,
    headers: Mapping[str, str] | None = None,
    at_end: Callable[[], object] | None = None,
) -> Got:
    """Read an answer and keep its hash only.

    :param start, stop: asked for by Range; 0 and None ask for the whole.
    :param count: bytes after which the client leaves at once, however much is still under way; None for all.
    :param into: takes the bytes, a hash or a file.
    :param at_end: called with the last byte taken and the connection still open.
    :raises http.client.IncompleteRead, OSError: the body broke off earlier.
    """
    own = hashlib.sha256()
    taken = 0
    with _answer("GET", url, start, stop, headers) as (connection, response):
        if response.status >= 400:
            return Got(response.status, _fields(response), 0, response.read(4000).decode("utf-8", "replace"))
        block = memoryview(bytearray(256 * 1024))
        while count is None or taken < count:
            wanted = block if count is None else block[: min(len(block), count - taken)]
            got = response.readinto(wanted)
            if not got:
                break
            own.update(block[:got])
            if into is not None:
                (into.update if hasattr(into, "update") else into.write)(block[:got])
            taken += got
        length = response.getheader("content-length")
        if taken != (int(length or taken) if count is None else count):
            raise http.client.IncompleteRead(b"", int(length or 0) - taken)
        if at_end is not None:
            at_end()
        if count is not None and connection.sock is not None:
            # Leave as a killed process does: unread bytes are dropped and the other side is told at once.
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return Got(response.status, _fields(response), taken, own.hexdigest())


def read_into(
    path: Path, url: str, upto: int, *, if_range: str | None = None, at_end: Callable[[], object] | None = None
) -> Got:
    """Go on with a file up to a byte, then leave at once. The answer must fit what stands there."""
    have = path.stat().st_size if path.exists() else 0
    headers = {} if if_range is None or not have else {"If-Range": if_range}
    with path.open("ab") as file:
        got = scan(url, start=have, count=upto - have, into=file, headers=headers, at_end=at_end)
    assert got.status == (206 if have else 200), (got.status, got.sha256)
    if have:
        assert got.headers["content-range"].startswith(f"bytes {have}-"), got.headers
    return got


def digest(path: Path) -> str:
    own = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            own.update(piece)
    return own.hexdigest()


class Tool:
    """A program that downloads. ``path`` is the file it writes to."""

    def __init__(self, path: Path, *command: str) -> None:
        self.path = path
        self._process = subprocess.Popen(
            command,
            env=_ENVIRONMENT,
            cwd=path.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def wait_for(self, size: int, seconds: float = 60.0) -> None:
        """Until so many bytes are on the disk, or the program has ended."""
        deadline = time.monotonic() + seconds
        while self._process.poll() is None and self._written() < size:
            assert time.monotonic() < deadline, f"{self.path.name}: {self._written()} of {size} bytes in {seconds} s"
            time.sleep(0.002)

    def _written(self) -> int:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return 0
        return min(found.st_size, found.st_blocks * 512 + 4096) if found.st_size > 4096 else found.st_size

    def kill(self) -> None:
        """At once, in the middle of whatever it does."""
        self._process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = SECONDS) -> tuple[int, str]:
        """Its exit code, and what it said."""
        try:
            said, _ = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        return self._process.returncode, said.decode("utf-8", "replace")


def _curl() -> list[str]:
    return [judge("curl"), "-q", "-sS", "-H", f"Host: {HOST}", "-m", "110"]


def curl(path: Path, url: str, *more: str, rate: int | None = None) -> Tool:
    """``curl -C -``; ``rate`` in bytes a second."""
    slow = () if rate is None else ("--limit-rate", str(max(1, rate)))
    return Tool(path, *_curl(), "-C", "-", *slow, *more, "-o", path.name, url)


def curl_held(url: str, start: int, count: int, meanwhile: Callable[[], object]) -> tuple[int, bytes, str]:
    """``curl`` from a byte on, of which nobody takes more than ``count`` bytes until ``meanwhile()`` has returned.

    Its exit code, what came in all, and what it said.
    """
    line = [*_curl(), "-C", str(start), url]
    with subprocess.Popen(line, env=_ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.read(count)
        meanwhile()
        rest, said = process.communicate(timeout=SECONDS)  # it ends by itself before that
        return process.returncode, first + rest, said.decode("utf-8", "replace")


def wget(path: Path, url: str) -> Tool:
    same = ("--no-config", "-nv", f"--header=Host: {HOST}", "-t", "1", "-T", "60")
    return Tool(path, judge("wget"), *same, "-c", "-O", path.name, url)


def aria2c(path: Path, url: str, *more: str) -> Tool:
    """Eight connections from the start; a connection that breaks is tried again, a second later."""
    many = ("-x8", "-s8", "-k1M", "-m", "40", "--retry-wait=1", "-t", "60", "--connect-timeout=5")
    quiet = ("--no-conf", "--file-allocation=none", "--console-log-level=error", "--summary-interval=0")
    same = f"--header=Host: {HOST}"
    return Tool(path, judge("aria2c"), *quiet, *many, same, *more, "-d", str(path.parent), "-o", path.name, url)
