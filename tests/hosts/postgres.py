"""A real PostgreSQL of the test's own: a new cluster on a free port of 127.0.0.1, thrown away at the end."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import judge

__all__ = ["Cluster", "postgres"]

_SECONDS = 60.0


class Cluster:
    """A cluster that can be stopped, frozen and started again at the same place. Whoever makes it calls ``remove``."""

    def __init__(self, log: Path) -> None:
        self._programs = Path(judge("postgres")).resolve().parent
        self._log = log
        # PostgreSQL refuses to run as root, and nobody else may enter pytest's own directories.
        self._user = {"user": "postgres", "group": "postgres", "extra_groups": ()} if os.geteuid() == 0 else {}
        self._home = Path(tempfile.mkdtemp(prefix="streamware-postgres-"))
        if self._user:
            shutil.chown(self._home, "postgres", "postgres")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count()
        try:
            options = ("-U", "tester", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
            self._run("initdb", "-D", f"{self._home}/data", *options)
            self.start()
        except BaseException:
            self.remove()
            raise

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            cwd=self._home,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            **self._user,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/{database}"

    def database(self, *options: str) -> str:
        """The URL of a new, empty database, made with options of ``createdb``."""
        name = f"test{next(self._numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", *options, name)
        return self.url(name)

    def start(self) -> None:
        arguments = ["-D", f"{self._home}/data", "-k", str(self._home), "-h", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", *arguments, "-F"],
                cwd=self._home,
                stdout=log,
                stderr=log,
                **self._user,  # type: ignore[call-overload]
            )
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                self._run("pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port), "-d", "postgres", "-U", "tester")
                return
            except AssertionError:
                assert self._process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        """End it, with a word to its clients."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_SECONDS)
            self._process = None

    def kill(self) -> None:
        """End all its processes at once, as a crash of the machine does."""
        assert self._process is not None
        with self.frozen():  # so that none is born meanwhile
            for pid in self._pids():
                os.kill(pid, signal.SIGKILL)
        self._process.wait(_SECONDS)
        self._process = None

    def _pids(self) -> list[int]:
        assert self._process is not None
        pid = self._process.pid
        return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stand still: connections are accepted and nothing is answered."""
        pids = self._pids()
        try:
            for each in pids:
                os.kill(each, signal.SIGSTOP)
            yield
        finally:
            for each in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGCONT)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)


@contextmanager
def postgres(work: Path) -> Iterator[str]:
    """The URL of an empty database, as a ledger takes it. The server's log is ``work/postgres.log``."""
    work.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(work / "postgres.log")
    try:
        yield cluster.database()
    finally:
        cluster.remove()
