"""One thread's connection to the ledger's database, and the log of what goes wrong with it.

The rule of this file: a connection on which anything went wrong is not used again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import sqlalchemy as sa

    from streamware.ledger_tables import Tables

__all__ = ["Complaints", "Session", "Task"]

_log = logging.getLogger("streamware")

T = TypeVar("T")
Task = Callable[["sa.Connection"], T]

_COMPLAIN_SECONDS = 60.0


class Complaints:
    """What is wrong with one database, for the log: one line a minute of each kind."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._until: dict[str, float] = {}

    def __call__(self, kind: str, text: str, error: BaseException | None = None) -> None:
        now = time.monotonic()
        if self._until.get(kind, 0.0) <= now:
            self._until[kind] = now + _COMPLAIN_SECONDS
            cause = getattr(error, "orig", None) or error
            why = "" if cause is None else f": {type(cause).__name__}: {' '.join(str(cause).split())}"
            _log.warning("the ledger's database %s: %s%s", self._name, text, why)

    def end(self) -> None:
        """All is well again; the next complaint is news."""
        if self._until:
            self._until = {}
            _log.info("the ledger's database %s answers again", self._name)


class Session:
    """The one connection of one thread, opened when it is needed and given up at the first error. Retries nothing.

    :param durable: what is written must outlive a power failure.
    """

    def __init__(self, tables: Tables, *, durable: bool) -> None:
        self._tables = tables
        self._durable = durable
        self._engine: sa.Engine | None = None
        self._connection: sa.Connection | None = None
        self._file: tuple[int, int] | None = None
        self.busy = threading.Lock()  # held while the connection is in use

    def run(self, task: Task[T], *, write: bool) -> T:
        """Run a task as one transaction. Raises whatever goes wrong."""
        with self.busy:
            try:
                connection = self._open()
                connection.exec_driver_sql(self._tables.begin(write=write, durable=self._durable))
                result = task(connection)
                connection.exec_driver_sql("COMMIT")
                return result
            except BaseException:
                self.give_up()
                raise

    def _open(self) -> sa.Connection:
        if self._connection is not None and self._identity() != self._file:
            self.give_up()  # the file was replaced: what is written to the old one is lost
        if self._connection is None:
            if self._tables.path is not None:
                # Links are for those they were given to: nobody else on this machine reads along.
                with suppress(FileExistsError):
                    self._tables.path.touch(0o600, exist_ok=False)
            self._engine = self._engine or self._tables.engine()
            self._connection = self._engine.connect()
            self._tables.prepare(self._connection, durable=self._durable)
            self._file = self._identity()
        return self._connection

    def _identity(self) -> tuple[int, int] | None:
        if self._tables.path is None:
            return None
        try:
            found = self._tables.path.stat()
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino

    def close(self, timeout: float) -> bool:
        """Give up the connection once it is not in use; False if that takes too long."""
        if not self.busy.acquire(timeout=timeout):
            return False
        self.give_up()
        self.busy.release()
        return True

    def give_up(self) -> None:
        """Give up the connection, with ``busy`` held."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception as error:  # it was given up because it is broken
                _log.info("a connection to the ledger's database did not close well: %s", error)
