"""Connections to an SQL database: that of one thread, and a few that many threads share.

The rule of this file: a connection on which anything went wrong is not used again, nor is one from before a fork.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import sqlalchemy as sa

    from streamware.database import Database

__all__ = ["Pool", "Session", "Task"]

_log = logging.getLogger("streamware")

T = TypeVar("T")
Task = Callable[["sa.Connection"], T]

_FORK_SECONDS = 1.0
_IDLE_SECONDS = 60.0  # a shared connection that nobody needed for so long is closed
_LOOK_SECONDS = 0.5
_JOIN_SECONDS = 1.0
_KEEPER = "streamware-database-keeper"
_GRACE_SECONDS = 1.0  # for the database to end a statement by itself before its connection is cut


class Session:
    """One connection, opened when it is needed and given up at the first error.

    :param durable: what is written must outlive a power failure.
    :param shared: it is one of a ``Pool``: it can be cut, and a connection that turns out to have been lost since its
        last use is opened anew, once. Otherwise nothing is ever tried again.
    """

    def __init__(self, database: Database, *, durable: bool, shared: bool = False) -> None:
        self._database = database
        self._durable = durable
        self._shared = shared
        self._engine: sa.Engine | None = None
        self._connection: sa.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._cutting = threading.Lock()  # guards the next two against each other
        self._line: socket.socket | None = None  # the way to the server, to cut it
        self._driver: Any = None
        self.busy = threading.Lock()  # held while the connection is in use
        with _forking:
            _sessions.add(self)

    def run(self, task: Task[T], *, write: bool) -> T:
        """Run a task as one transaction. Raises whatever goes wrong."""
        with self.busy:
            try:
                connection = self._begin(write)
                result = task(connection)
                connection.exec_driver_sql("COMMIT")
                return result
            except BaseException:
                self.give_up()
                raise

    def _begin(self, write: bool) -> sa.Connection:
        used = self._connection is not None
        connection = self._open()
        statement = self._database.begin(write=write, durable=self._durable)
        try:
            connection.exec_driver_sql(statement)
        except Exception as error:
            if not (used and self._shared and self._database.path is None):
                raise
            _log.info("a connection to the %s's database was lost, and is made anew: %s", self._database.user, error)
            self.give_up()
            connection = self._open()
            connection.exec_driver_sql(statement)
        return connection

    def _open(self) -> sa.Connection:
        if self._connection is not None and self._identity() != self._file:
            self.give_up()  # the file was replaced: what is written to the old one is lost
        if self._connection is None:
            if self._database.path is not None:
                # What is kept there is for those it was given to: nobody else on this machine reads along.
                with suppress(FileExistsError):
                    self._database.path.touch(0o600, exist_ok=False)
            if self._engine is None:
                self._engine = self._database.engine()
                if self._shared:
                    # First of all that is done with a connection: SQLAlchemy itself asks the server some questions.
                    self._database.sql.event.listen(self._engine, "connect", self._connected, insert=True)
            self._connection = self._engine.connect()
            self._database.prepare(self._connection, durable=self._durable)
            self._file = self._identity()
        return self._connection

    def _identity(self) -> tuple[int, int] | None:
        if self._database.path is None:
            return None
        try:
            found = self._database.path.stat()
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino

    def _connected(self, driver: Any, record: object) -> None:
        with self._cutting:
            if self._database.path is not None:
                self._driver = driver
            else:
                # A descriptor of our own: that of the driver may be closed, and its number be another's, at any moment.
                if self._line is not None:
                    self._line.close()
                self._line = socket.socket(fileno=os.dup(driver.fileno()))

    def cut(self) -> None:
        """Make the statement that is running fail at once. From any thread."""
        with self._cutting:
            if self._line is not None:
                with suppress(OSError):  # it is cut already
                    self._line.shutdown(socket.SHUT_RDWR)
            if self._driver is not None:
                with suppress(self._driver.ProgrammingError):  # it is closed already
                    self._driver.interrupt()

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
        with self._cutting:
            line, self._line, self._driver = self._line, None, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception as error:  # it was given up because it is broken
                _log.info("a connection to the %s's database did not close well: %s", self._database.user, error)
        if line is not None:
            line.close()


class Pool:
    """A few connections for any number of threads, each opened when it is needed and closed when it long was not.

    What is written must outlive a power failure.

    :param size: so many connections at the most.
    :param wait: seconds that a caller waits for one.
    """

    def __init__(self, database: Database, *, size: int, wait: float) -> None:
        self._database = database
        self._size = size
        self._wait = wait
        self._closed = False
        self._start()
        with _forking:
            _pools.add(self)

    def _start(self) -> None:
        self._free = threading.Lock()  # guards all that follows
        self._queue: deque[threading.Event] = deque()  # who waits for a connection, in their order
        self._promised = 0  # connections for those whose turn has come
        self._idle: list[tuple[Session, float]] = []  # with the time of the last use; the latest is last
        self._busy: dict[Session, float] = {}  # with the time at which it is cut
        self._keeper: threading.Thread | None = None
        self._end = threading.Event()  # of the keeper

    def run(self, task: Task[T], *, write: bool) -> T:
        """Run a task as one transaction. Raises whatever goes wrong, in bounded time.

        A transaction that failed while it was being committed may have been, or not.

        :raises TimeoutError: no connection became free in time, or the pool is closed.
        """
        waits = self._database.waits
        session = self._take((waits.write if write else waits.read) + _GRACE_SECONDS)
        try:
            return session.run(task, write=write)
        finally:
            self._give(session)

    def _take(self, seconds: float) -> Session:
        queued = self._queue_up()
        with self._free:
            self._promised -= queued
            if self._closed:
                raise TimeoutError("it is closed")
            if self._keeper is None:
                self._end = threading.Event()
                keeper = threading.Thread(target=self._keep, args=(self._end,), name=_KEEPER, daemon=True)
                keeper.start()
                self._keeper = keeper
            # The one that was used last, so that those nobody needs become idle.
            session = self._idle.pop()[0] if self._idle else Session(self._database, durable=True, shared=True)
            self._busy[session] = time.monotonic() + seconds
            return session

    def _queue_up(self) -> bool:
        """Wait for one's turn, in the order of coming: of hundreds that wait, none is overtaken again and again.

        True: a connection is promised.
        """
        with self._free:
            if self._closed:
                return False
            turn = threading.Event()
            self._queue.append(turn)
            self._pass_on()
        try:
            if turn.wait(self._wait):
                return True
        except BaseException:  # whoever waits is interrupted
            with self._free:
                if turn.is_set():
                    self._promised -= 1
                    self._pass_on()
                else:
                    self._queue.remove(turn)
            raise
        with self._free:
            if turn.is_set():
                return True
            self._queue.remove(turn)
        raise TimeoutError(f"all {self._size} connections were in use for {self._wait:g} s")

    def _pass_on(self) -> None:
        """With the lock held: whose turn it is may go on."""
        while self._queue and (self._closed or len(self._busy) + self._promised < self._size):
            self._promised += 1
            self._queue.popleft().set()

    def _give(self, session: Session) -> None:
        with self._free:
            del self._busy[session]
            if not self._closed:
                self._idle.append((session, time.monotonic()))
            self._pass_on()
        if self._closed:
            session.close(0.0)

    def _keep(self, end: threading.Event) -> None:
        """Cut connections whose database does not answer, and close idle ones, as long as there are any."""
        while not end.wait(_LOOK_SECONDS):
            now = time.monotonic()
            with self._free:
                if end.is_set():
                    return
                late = [session for session, until in self._busy.items() if until <= now]
                old = [session for session, used in self._idle if used <= now - _IDLE_SECONDS]
                self._idle = [entry for entry in self._idle if entry[0] not in old]
                if not self._idle and not self._busy:
                    self._keeper = None
                    end.set()
            for session in late:
                session.cut()
            for session in old:
                session.close(0.0)

    def rest(self) -> None:
        """Close the connections that are not in use, and end the pool's thread if none is."""
        with self._free:
            idle, self._idle = self._idle, []
            keeper = self._keeper if not self._busy else None
            if keeper is not None:
                self._keeper = None
                self._end.set()
        for session, _ in idle:
            session.close(0.0)
        if keeper is not None:
            keeper.join(_JOIN_SECONDS)

    def close(self) -> None:
        """Nobody gets a connection any more; those in use are closed when they are given back. Idempotent."""
        with self._free:
            self._closed = True
            self._pass_on()
        self.rest()


# --- forks: a thread is not copied and a connection must not be shared ---

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()
_forking = threading.Lock()
_held: list[Session] = []
_left: list[Session] = []
_inherited: list[Session] = []


def _before_fork() -> None:
    _forking.acquire()
    until = time.monotonic() + _FORK_SECONDS
    for session in list(_sessions):
        if session.busy.acquire(timeout=max(0.0, until - time.monotonic())):
            session.give_up()
            _held.append(session)
        else:
            # Stuck, and copied as it stands. The copy must not be closed: that would end the parent's connection.
            _left.append(session)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().busy.release()
    _left.clear()
    _forking.release()


def _after_fork_in_child() -> None:
    while _held:
        _held.pop().busy.release()
    _inherited.extend(_left)
    _left.clear()
    for pool in list(_pools):
        pool._start()
    _forking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
