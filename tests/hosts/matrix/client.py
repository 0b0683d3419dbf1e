"""What a client sees, told by curl: it speaks HTTP/1.0, 1.1 and 2, and its exit status says whether a body was whole.

The rule of this file: every request has an end, and a process that was started is waited for.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
import time
import zipfile
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from tests.conftest import judge

__all__ = ["VISIBLE", "Download", "Got", "fetch", "open_files", "refused", "shown", "unpacked"]

_WAITED = 28  # curl's exit status where it had waited long enough
VISIBLE = "visible"


@dataclass(frozen=True)
class Got:
    """``exit`` is curl's: 0 only for a whole response. ``status`` is 0 where there was none."""

    exit: int
    status: int
    headers: Message
    body: bytes

    @property
    def length(self) -> int | None:
        found = self.headers["content-length"]
        return None if found is None else int(found)


def _command(url: str, options: tuple[str, ...], data: str | None, seconds: float) -> list[str]:
    command = [judge("curl"), "-q", "-s", "--noproxy", "*", "--max-time", f"{seconds:g}", *options]
    if data is not None:
        command += ["-H", "Content-Type: application/json", "--data-binary", data]
    return [*command, url]


def fetch(url: str, *options: str, data: str | None = None, seconds: float = 10) -> Got:
    """One request, read to its end. ``data``: a JSON manifest to POST."""
    command = _command(url, ("-D", "/dev/stderr", *options), data, seconds)
    done = subprocess.run(command, capture_output=True, timeout=seconds + 5, check=False)
    return _got(done.returncode, done.stderr, done.stdout)


def _got(code: int, head: bytes, body: bytes) -> Got:
    line, _, rest = head.rpartition(b"HTTP/")[2].partition(b"\r\n")
    words = line.split()
    return Got(code, int(words[1]) if len(words) > 1 else 0, message_from_bytes(rest), body)


# --- what it means ---


def unpacked(got: Got, kind: str = "zip") -> dict[str, bytes]:
    """The members of a whole archive, judged by the standard library's readers."""
    assert (got.exit, got.status) == (0, 200), got
    if kind == "zip":
        with zipfile.ZipFile(io.BytesIO(got.body)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(fileobj=io.BytesIO(got.body)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def refused(got: Got, status: int) -> bool:
    """Whether it is the refusal of an archive whose end could not be trusted."""
    if (got.exit, got.status) != (0, status):
        return False
    return str(json.loads(got.body)["type"]).endswith(":length-unknown")


def shown(got: Got) -> str:
    """How a client can tell that a download broke off. Never that it is whole."""
    if got.exit == _WAITED:
        return "**hangs**"
    assert got.exit or got.status >= 500, f"a broken archive looks whole: {got.status}, {len(got.body)} bytes"
    return VISIBLE


# --- downloads that go on ---


class Download:
    """A download that goes on while the test does other things; its bytes go to ``file``."""

    def __init__(self, file: Path, url: str, *options: str, data: str | None = None, seconds: float = 20) -> None:
        self._file = file
        self._head = file.with_suffix(".head")
        command = _command(url, ("-N", "-D", str(self._head), *options), data, seconds)
        with file.open("wb") as output:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output)

    @property
    def size(self) -> int:
        return self._file.stat().st_size

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait_for(self, size: int, seconds: float = 10) -> None:
        """Until that many bytes have come."""
        deadline = time.monotonic() + seconds
        while self.size < size:
            assert not self.ended, f"it ended with {self._process.returncode} after {self.size} bytes"
            assert time.monotonic() < deadline, f"only {self.size} bytes came"
            time.sleep(0.005)

    def pause(self) -> None:
        """Take nothing more, and stay."""
        self._process.send_signal(signal.SIGSTOP)

    def leave(self) -> None:
        """Be gone, at once and without a word."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(5)

    def end(self, seconds: float = 20) -> Got:
        """Wait for its end."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.leave()
            raise
        return _got(self._process.returncode, self._head.read_bytes(), self._file.read_bytes())


def open_files(pid: int) -> int:
    """Files and sockets that a process and all its children hold open."""
    count = 0
    for process in _family(pid):
        try:
            count += len(os.listdir(f"/proc/{process}/fd"))
        except OSError:
            pass  # it has just ended
    return count


def _family(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in task.read_text().split():
                found += _family(int(child))
        except OSError:
            pass
    return found
