"""File services in processes of their own, in every shape that is promised, which can be killed and come back.

The rule of this file: a service keeps its port and its place for life, so that whoever was cut off finds it again; a
``Place`` is what replicas share, a store and a database, and nobody else's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from streamware import Policy
from streamware.filestore import FileStore
from tests.files.nursery import Nursery
from tests.files.s3 import S3
from tests.hosts.postgres import Cluster
from tests.resume.replicas import Replica

__all__ = ["Place", "Service", "World", "gone"]

_numbers = count(1)
# Small parts, so that a file of a few hundred KiB has several; a lost minute of upload is some KiB here.
# An unfinished upload outlives every test, and the sweep that is played as if it were days later.
SMALL_PARTS: Mapping[str, Any] = {
    "upload_part_bytes": 192 * 1024,
    "upload_seconds": 100 * 24 * 3600.0,
    "allow_delete": True,
}


@dataclass(frozen=True)
class Place:
    """Where files are kept: URLs of the object store and of the database, and what obstore is told besides."""

    store: str
    database: str
    options: Mapping[str, str] = field(default_factory=dict)

    def open(self, **policy: Any) -> FileStore:
        """The same files from this process. Whoever opens it closes it."""
        return FileStore(self.store, self.database, policy=Policy(**{**SMALL_PARTS, **policy}), options=self.options)

    @property
    def folder(self) -> Path | None:
        return Path(self.store.removeprefix("file://")) if self.store.startswith("file://") else None


class Service(Replica):
    """One serving process: "gunicorn", "uvicorn" or "serve".

    :param place: None: "serve" on its embedded default, in the folder ``state``.
    :param policy: fields of Policy, for apps of ours; ``options`` go onto the command line.
    :param crash: a folder for crash points, see ``crashing``; under gunicorn a worker that dies is followed by a new
        one of the same master.
    """

    def __init__(
        self,
        kind: str,
        place: Place | None,
        work: Path,
        nursery: Nursery | None = None,
        *,
        state: Path | None = None,
        crash: Path | None = None,
        sweeping: bool = False,
        policy: Mapping[str, Any] | None = None,
        ledger: str | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        if place is None:
            assert kind == "serve"
            assert state is not None
            place = Place(f"file://{state}/streamware/files", f"sqlite:///{state}/streamware/state.sqlite3")
            where: list[str] = []
        else:
            where = ["--store", place.store, "--state", place.database]
        self.kind = kind
        self.place = place
        self._nursery = nursery
        self._pid: int | None = None
        settings = {
            "store": place.store,
            "database": place.database,
            "options": dict(place.options),
            "policy": {**SMALL_PARTS, **(policy or {})},
            "ledger": ledger,
            "crash": None if crash is None else str(crash),
            "sweeping": sweeping,
        }
        env = {"FILES_APP": json.dumps(settings), "PYTHONUNBUFFERED": "1", **_variables(place)}
        if state is not None:
            env["XDG_STATE_HOME"] = str(state)
        command = [sys.executable, "-m", *_command(kind, where, work, options)]
        super().__init__(command, work / f"{kind}-{next(_numbers)}.log", env)

    def start(self) -> None:
        if self._nursery is None:
            super().start()
            return
        self._pid = self._nursery.bear(self._command[2:], self._log, self._env)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert _lives(self._pid), self.said()[-8000:]
            assert time.monotonic() < deadline, self.said()[-8000:]
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        return super().pid if self._pid is None else self._pid

    @property
    def running(self) -> bool:
        return self._pid is not None or super().running

    def kill(self) -> None:
        """``kill -9`` of all its processes. Nothing of it is left when this returns."""
        if self._pid is None:
            super().kill()
            return
        pid, self._pid = self._pid, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        gone(pid, 10)

    def stop(self) -> None:
        if self._pid is None:
            super().stop()
            return
        pid, self._pid = self._pid, None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            try:
                gone(pid, 15)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)

    def forget_ledger(self) -> None:
        """Have nothing left of what bundles have taught it, while it is down."""
        assert not self.running
        with sa.create_engine(self.place.database, poolclass=sa.NullPool).begin() as connection:
            for name in {"streamware_blocks", "streamware_coded"} & set(sa.inspect(connection).get_table_names()):
                connection.execute(sa.text(f"DELETE FROM {name}"))

    def check_log(self) -> None:
        """What it said must be free of failures of its own."""
        said = self.said()
        for sign in ("Traceback", "ResourceWarning", "never awaited", "never retrieved"):
            assert sign not in said, said[-8000:]


def _variables(place: Place) -> dict[str, str]:
    """What ``serve`` learns of an object store by the environment, as programs of the cloud do."""
    names = ("aws_endpoint", "aws_access_key_id", "aws_secret_access_key", "aws_region", "allow_http")
    found = {name.upper(): place.options[name] for name in names if name in place.options}
    if "ALLOW_HTTP" in found:
        found["AWS_ALLOW_HTTP"] = found["ALLOW_HTTP"]
    return found


def _command(kind: str, where: list[str], work: Path, options: tuple[str, ...]) -> list[str]:
    if kind == "gunicorn":
        threads = ["--worker-class", "gthread", "--threads", "16", "--graceful-timeout", "2", "--no-control-socket"]
        return ["gunicorn", *threads, *options, "--bind", "127.0.0.1:{port}", "tests.files.apps:wsgi()"]
    if kind == "uvicorn":
        quiet = ["--lifespan", "off", "--log-level", "warning", "--timeout-graceful-shutdown", "2", "--factory"]
        return ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", *quiet, *options, "tests.files.apps:asgi"]
    assert kind == "serve"
    root = work / "root"
    root.mkdir(exist_ok=True)
    key = work / "link.key"
    if not key.exists():
        key.write_text("a key for tests alone, " * 3)
        key.chmod(0o600)
    same = ["--bind", "127.0.0.1:{port}", "--link-key", str(key), "--allow-delete"]
    return ["streamware", "serve", str(root), *same, *where, *options]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with contextlib.suppress(FileNotFoundError):
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def gone(pid: int, seconds: float) -> None:
    """Wait until a process that the nursery bore, and all it has started, have ended."""
    deadline = time.monotonic() + seconds
    for alive in (os.kill, os.killpg):  # one that was just born leads no group yet
        while True:
            try:
                alive(pid, 0)
            except ProcessLookupError:
                break
            assert time.monotonic() < deadline, f"{pid} does not end"
            time.sleep(0.005)


class World:
    """What tests of a module share: the nursery, one PostgreSQL, one S3 endpoint. ``close`` ends all of it."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._stack = ExitStack()
        self.nursery = self._stack.enter_context(Nursery(work / "nursery.log"))
        self._cluster: Cluster | None = None
        self._s3: S3 | None = None

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            self._cluster = Cluster(self.work / "postgres.log")
            self._stack.callback(self._cluster.remove)
        return self._cluster

    def local(self) -> Place:
        """A new folder and a new SQLite database."""
        folder = self.work / f"place{next(_numbers)}"
        folder.mkdir()
        return Place(f"file://{folder}/objects", f"sqlite:///{folder}/files.sqlite3")

    @property
    def s3(self) -> S3:
        if self._s3 is None:
            self._s3 = S3(self.work / "s3.log")
            self._stack.callback(self._s3.stop)
        return self._s3

    def shared(self) -> Place:
        """A new bucket and a new PostgreSQL database, for replicas to share."""
        return Place(self.s3.bucket(), self.cluster.database(), self.s3.options)

    def service(self, kind: str, place: Place, **how: Any) -> Service:
        """A service that has started; it is stopped when the world ends, or before."""
        service = Service(kind, place, self.work, self.nursery, **how)
        self._stack.callback(service.stop)
        service.start()
        return service

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
