"""Processes that serve: started on their core, waited for, ended.

The rule of this file: whoever starts one ends it, what it said is kept in a file, and clients and upstreams never run
on the core of the server that is measured.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.clients import until

__all__ = ["ROOT", "Cores", "Server", "find_cores", "find_program", "free_port"]

ROOT = Path(__file__).resolve().parent.parent
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


class Cores(NamedTuple):
    """Where the measured server runs, and where everybody else does. None: nobody is pinned."""

    server: int | None
    others: int | None
    every: tuple[int, ...] = ()

    @property
    def pinned(self) -> bool:
        return self.server is not None


def find_cores() -> Cores:
    """The first two cores this process may use; none where there is but one, or no taskset."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2 or shutil.which("taskset") is None:
        return Cores(None, None)
    return Cores(available[1], available[0], tuple(available))


def find_program(name: str) -> str | None:
    """Its path; None where it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SBIN}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Server:
    """A serving process and its children, from ``with`` to its end.

    :param command: ``{port}`` in it stands for the port.
    :param cores: the only ones it may use; none lets it use those this process may use.
    :raises RuntimeError: it ended instead of listening.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cores: Iterable[int | None] = (),
        env: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = free_port() if port is None else port
        allowed = ",".join(str(core) for core in cores if core is not None)
        pin = ["taskset", "-c", allowed] if allowed else []
        self._command = [*pin, *(part.replace("{port}", str(self.port)) for part in command)]
        self._log = log
        path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)
        self._env = {**os.environ, "PYTHONPATH": path, **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Server:
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            until(self.port)
        except TimeoutError:
            self.__exit__()
            raise RuntimeError(f"{self._command} did not listen:\n{self.said[-4000:]}") from None
        return self

    def __exit__(self, *exc: object) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # At once: what it was measured for is over, and some wait a second and more for clients that have left.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
