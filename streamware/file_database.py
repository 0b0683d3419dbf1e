"""Asking the database of a file service: within which bounds, and what it means when it does not answer.

The rule of this file: whatever goes wrong with the database is logged and leaves as ``StoreUnavailable``, in bounded
time. That error does not say that nothing was written, for the answer to a commit may have been lost: bytes that a row
was to name may be named by it, and must not be deleted on that account.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

from streamware.database import NewerSchema
from streamware.file_tables import OPEN, WHOLE, FileTables
from streamware.sessions import Pool, Task
from streamware.together import Together
from streamware.upload_errors import StoreFailed, StoreUnavailable

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["FileDatabase"]

T = TypeVar("T")

_READERS = 3  # connections to SQLite, beside the one that writes
_CONNECTIONS = 8  # to PostgreSQL
_POOL_SECONDS = 15.0  # the longest wait for one of them
_RETRY_SECONDS = 5
_DAY_MS = 24 * 3600 * 1000


class FileDatabase:
    """The tables, a few connections, locks and leases. Blocking, from any thread.

    A database that cannot be reached is no error at the start: each call tries it anew.

    :param url: ``sqlite:///PATH`` (the file is made, for its owner only) or ``postgresql://USER:PASSWORD@HOST/NAME``.
        It may be the ledger's.
    :raises ValueError: it cannot be used, a package is missing, or a later streamware made the tables.
    """

    def __init__(self, url: str) -> None:
        self._tables = FileTables(url)
        self._database = self._tables.database
        self._holder = secrets.token_hex(8)
        self._down = False
        self._together: Together | None = None
        if self._database.path is None:
            self._writers = self._readers = Pool(self._database, size=_CONNECTIONS, wait=_POOL_SECONDS)
        else:
            # SQLite has one writer at a time. Ours queue here in their order; there, each would try again and again.
            self._writers = Pool(self._database, size=1, wait=_POOL_SECONDS)
            self._together = Together(self._writers, wait=_POOL_SECONDS)
            self._readers = Pool(self._database, size=_READERS, wait=_POOL_SECONDS)
        try:
            self._writers.run(lambda connection: None, write=False)
        except NewerSchema:
            raise
        except Exception as error:
            self._complain(error)
        finally:
            self._writers.rest()  # whoever forks next forks no thread of ours and no connection

    def close(self) -> None:
        """Let go of the database; whoever asks from now on is told that it is unavailable. Idempotent."""
        self._writers.close()
        self._readers.close()

    def claim(self, task: str, seconds: float, now: float) -> bool:
        """Whether it is this process that does a task, for so many seconds from ``now`` on.

        Who has it may claim it again before that ends, to go on; all others are refused until then.
        """
        leases, begin, until = self._tables.leases, round(now * 1000), round((now + seconds) * 1000)
        holder = f"{self._holder}-{os.getpid()}"  # a fork is somebody else
        free = (leases.c.holder == holder) | (leases.c.until <= begin) | (leases.c.until > until + _DAY_MS)
        take = leases.update().where(leases.c.task == task, free).values(holder=holder, until=until)
        known = leases.select().where(leases.c.task == task)

        def claim(connection: sa.Connection) -> bool:
            if connection.execute(known).first() is None:
                self._lock(connection, f"lease {task}")
                if connection.execute(known).first() is None:
                    connection.execute(leases.insert().values(task=task, holder=holder, until=until))
                    return True
            return connection.execute(take).rowcount == 1

        return self._write(claim)

    # --- for transactions ---

    def _lock(self, connection: sa.Connection, name: str) -> None:
        """Nobody else who names the same goes on from here until this transaction ends."""
        if self._database.path is None:  # in SQLite one that writes is alone anyway
            number = int.from_bytes(blake2b(f"streamware {name}".encode(), digest_size=8).digest(), "big", signed=True)
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (number,))

    def _used(self, connection: sa.Connection, owner: str) -> tuple[int, int]:
        """How many files and bytes are an owner's. No others are added until the transaction ends."""
        self._lock(connection, f"owner {owner}")
        table, sql = self._tables.files, self._database.sql
        size = sql.case((table.c.length > table.c.received, table.c.length), else_=table.c.received)
        query = sql.select(sql.func.count(), sql.func.coalesce(sql.func.sum(size), 0))
        row = connection.execute(query.where(table.c.owner == owner, table.c.state.in_((OPEN, WHOLE)))).one()
        return int(row[0]), int(row[1])

    def _has_room(self, connection: sa.Connection, id: str, end: int, max_bytes: int) -> bool:
        """Whether its owner may have an upload that goes on to ``end``. What it was counted for before, it may."""
        table = self._tables.files
        query = self._database.plain(table.c.owner, table.c.length, table.c.received)
        row = connection.execute(query.where(table.c.id == id, table.c.state == OPEN)).first()
        if row is None or end <= (row[1] or 0):
            return True
        _, size = self._used(connection, row[0])
        return bool(size - max(row[1] or 0, row[2]) + end <= max_bytes)

    # --- asking ---

    def _read(self, task: Task[T]) -> T:
        return self._told(lambda: self._readers.run(task, write=False))

    def _write(self, task: Task[T]) -> T:
        together = self._together
        if together is not None:
            return self._told(lambda: together.run(task))
        return self._told(lambda: self._writers.run(task, write=True))

    def _told(self, run: Callable[[], T]) -> T:
        try:
            result = run()
        except Exception as error:
            self._complain(error)
            raise StoreUnavailable(f"the database: {error}", retry_after=_RETRY_SECONDS) from error
        if self._down:
            self._down = False
            self._database.complain.end()
        return result

    def _complain(self, error: Exception) -> None:
        self._down = True
        self._database.complain("use", "it cannot be used", error)

    def _believed(self, id: str, value: T | None) -> T:
        if value is None:
            self._database.complain("damage", f"the rows of {id} are damaged")
            raise StoreFailed(f"the rows of {id} are damaged")
        return value
