"""curl as everybody's download client: what it got, and how it ended.

The rule of this file: curl judges, so nothing is told to it that would make it forgive (no retries, no ranges).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import judge

__all__ = ["BROKEN", "Download", "Running", "bundle"]

BROKEN = (18, 56)  # fewer bytes than announced, or no last chunk; the connection was reset

_ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}


@dataclass(frozen=True)
class Download:
    """``code`` is curl's exit code, ``status`` 0 where no head came; the body is in ``path``."""

    code: int
    status: int
    media_type: str
    said: str
    path: Path

    @property
    def body(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    @property
    def whole(self) -> bool:
        """An archive that curl takes for complete."""
        return self.code == 0 and self.status == 200

    @property
    def broken(self) -> bool:
        """An archive that was begun, and whose end curl missed."""
        return self.code in BROKEN and self.status == 200

    @property
    def refused(self) -> bool:
        """A problem in place of the archive."""
        return self.code == 0 and self.status >= 400 and self.media_type == "application/problem+json"

    @property
    def problem(self) -> dict[str, object]:
        assert self.refused, self
        found: dict[str, object] = json.loads(self.body)
        return found


class Running:
    """A curl at work. ``manifest`` is posted; None makes it a GET."""

    def __init__(
        self,
        url: str,
        path: Path,
        manifest: Mapping[str, object] | None = None,
        *,
        seconds: float = 60.0,
        rate: int | None = None,
        more: tuple[str, ...] = (),
    ) -> None:
        self.path = path
        command = [
            judge("curl"),
            "-q",
            "-sS",
            "-m",
            str(seconds),
            "-o",
            str(path),
            "-w",
            "%{http_code} %{content_type}",
        ]
        if rate is not None:
            command += ["--limit-rate", str(rate)]
        if manifest is not None:
            command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        self._input = None if manifest is None else json.dumps(manifest).encode()
        self._process = subprocess.Popen(
            [*command, *more, url],
            env=_ENVIRONMENT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        if self._input:
            self._process.stdin.write(self._input)
        self._process.stdin.close()
        self._process.stdin = None

    def size(self) -> int:
        """Bytes on the disk so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float = 90.0) -> Download:
        try:
            out, said = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise
        status, _, media_type = out.decode().partition(" ")
        return Download(self._process.returncode, int(status), media_type, said.decode("utf-8", "replace"), self.path)


def bundle(
    url: str,
    path: Path,
    manifest: Mapping[str, object] | None = None,
    *,
    seconds: float = 60.0,
    more: tuple[str, ...] = (),
) -> Download:
    """One download to its end."""
    return Running(url, path, manifest, seconds=seconds, more=more).wait(seconds + 30)
