"""A ledger in a database that several processes share, with a memory of this process's own in front.

The rule of this file: nobody who asks or tells waits for the database longer than stated, whatever state it is in, for
every statement is run by one of two threads of the ledger's own. What they meet is logged, the database left alone for
a while, and the memory carries on.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from streamware.database import NewerSchema
from streamware.errors import LedgerError
from streamware.ledger import BLOCK_BYTES, EXPIRY_SECONDS, Ledger
from streamware.ledger_tables import Answer, Tables
from streamware.ledger_writer import IDLE_SECONDS, Pause, Writer
from streamware.memory_ledger import MemoryLedger
from streamware.sessions import Session, Task

__all__ = ["SqlLedger"]

T = TypeVar("T")

_TOGETHER = 500  # versions in one query
_READ_SECONDS = 1.5  # one call's wait for what may be read again instead
_LEAST_SECONDS = 0.1  # of these left, another question is worth it
_SLOW_SECONDS = 1.0  # a database that needs so long is left alone, too
_LINK_SECONDS = 5.0  # the wait for what was promised to somebody
_START_SECONDS = 6.0
_CLOSE_SECONDS = 3.0
_FORK_SECONDS = 1.0
_MAX_TOKEN = 512  # characters


class _Asker:
    """A thread that runs tasks one after another, for callers who wait as long as each of them likes."""

    def __init__(self, tables: Tables) -> None:
        self.session = Session(tables.database, durable=True)  # links are written here
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._late: Future[Any] | None = None  # what the thread is still at, its caller gone

    def ask(self, task: Task[T], seconds: float, *, write: bool = False) -> T:
        """What the task returns. Raises what it raises.

        :raises LedgerError: it did not end in time, or an earlier one still has not.
        """
        future: Future[T] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self.session.run(task, write=write))
                except BaseException as error:
                    future.set_exception(error)

        with self._lock:
            if self._late is not None and not self._late.done():
                raise LedgerError("the database has not answered an earlier question yet")
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="streamware-ledger-asker", daemon=True)
                thread.start()
                self._thread = thread
            self._tasks.put(run)
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError:
            if not future.cancel():
                self._late = future
            raise LedgerError(f"the database did not answer within {seconds:.1f} s") from None

    def stop(self, seconds: float) -> None:
        """End the thread and its connection, unless they are stuck. The next question starts them anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._tasks.put(None)
        if thread is not None:
            thread.join(seconds)
        self.session.close(0.0)

    def _run(self) -> None:
        while True:
            try:
                run = self._tasks.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                self.session.close(0.0)
                run = self._tasks.get()
            if run is None:
                return
            run()
            del run  # with its answer, which may be large


class SqlLedger(Ledger):
    """A ledger in SQLite (one file, for processes on one machine) or in PostgreSQL.

    A database that cannot be reached is no error, at the start or later: all but links is remembered meanwhile.

    :param url: ``sqlite:///PATH`` or ``postgresql://USER:PASSWORD@HOST:PORT/NAME``.
    :param seconds: how long what is learned is kept since it was last of use.
    :param memory: what this process remembers by itself; None makes one.
    :raises ValueError: the URL cannot be used, a package is missing, or a later streamware made the tables.
    """

    def __init__(self, url: str, *, seconds: float = EXPIRY_SECONDS, memory: MemoryLedger | None = None) -> None:
        self._tables = Tables(url, seconds=seconds)
        self._complain = self._tables.database.complain
        self._memory = memory or MemoryLedger(seconds=seconds)
        self._closed = False
        self._start()
        try:
            self._asker.ask(lambda connection: None, _START_SECONDS)
        except NewerSchema:
            raise
        except Exception as error:
            self._complain("read", "it cannot be used", error)
        finally:
            # Whoever forks next, as a server does that loads the app first, forks no thread of ours and no connection.
            self._asker.stop(_CLOSE_SECONDS)
        with _forking:
            _all.add(self)

    def _start(self) -> None:
        """The state of a process that has not used the database yet."""
        self._asker = _Asker(self._tables)
        self._writer = Writer(self._tables, self._memory, self._complain, self._wrote)
        self._pause = Pause()
        self._heeded: set[int] = set()  # numbers of the latest versions that anybody forgot

    def sums(self, versions: Sequence[bytes]) -> dict[bytes, dict[int, int]]:
        self._writer.settle()
        found = self._memory.sums(versions)
        asked = time.monotonic()
        for first in range(0, len(versions), _TOGETHER):
            some = versions[first : first + _TOGETHER]
            task = partial(self._tables.read, versions=some, after=max(self._heeded, default=0))
            answer = self._read(task, asked)
            if answer is None:
                break
            self._merge(found, answer, asked)
        return found

    def _merge(self, found: dict[bytes, dict[int, int]], answer: Answer, asked: float) -> None:
        """Add what the database said to what the memory said, but for what was forgotten meanwhile."""
        for number, version in answer.forgotten.items():
            if number not in self._heeded:
                self._memory.forget(version)
                found.pop(version, None)
        self._heeded = set(answer.forgotten)
        gone = self._writer.forgotten_since(asked)
        wrong = answer.damaged - gone
        again: dict[bytes, list[tuple[int, int]]] = {}
        for version, block, crc, old in answer.blocks:
            if version in gone or version in wrong:
                continue
            known = found.setdefault(version, {})
            if known.setdefault(block, crc) != crc:
                wrong.add(version)
                continue
            self._memory.learn(version, block, crc)
            if old:
                again.setdefault(version, []).append((block, crc))
        for version in wrong:
            self._complain("damage", "checksums of one version are damaged or contradict each other: all are forgotten")
            self.forget(version)
            found.pop(version, None)
        for version in again.keys() - wrong:
            self._writer.learn_again(version, again[version])

    def learn(self, version: bytes, block: int, crc32: int, length: int = BLOCK_BYTES) -> None:
        self._writer.learn(version, block, crc32, length)

    def forget(self, version: bytes) -> None:
        self._writer.forget(version)
        self._memory.forget(version)

    def coded(self, keys: Sequence[bytes]) -> dict[bytes, int]:
        found = self._memory.coded(keys)
        asked = time.monotonic()
        unknown = [key for key in keys if key not in found]
        for first in range(0, len(unknown), _TOGETHER):
            some = unknown[first : first + _TOGETHER]
            answer = self._read(partial(self._tables.read_coded, keys=some), asked)
            if answer is None:
                break
            for key, length in answer.items():
                self._memory.learn_coded(key, length)
            found.update(answer)
        return found

    def learn_coded(self, key: bytes, length: int) -> None:
        if self._memory.learn_coded_news(key, length):
            self._writer.learn_coded(key, length)

    def flush(self) -> None:
        self._writer.flush()

    def save(self, token: str, body: bytes, expires: int) -> None:
        if not _can_be_token(token):
            raise LedgerError("this cannot be the token of a link")
        self._insist(partial(self._tables.write_link, token=token, body=body, expires=expires), write=True)

    def load(self, token: str) -> tuple[bytes, int] | None:
        if not _can_be_token(token):
            return None
        return self._insist(partial(self._tables.read_link, token=token))

    def close(self) -> None:
        self._closed = True
        self._writer.close(_CLOSE_SECONDS)
        self._asker.stop(_CLOSE_SECONDS)

    # --- asking the database ---

    def _read(self, task: Task[T], asked: float) -> T | None:
        """What the database says, or None where it does not in time."""
        now = time.monotonic()
        left = asked + _READ_SECONDS - now
        if self._closed or left < _LEAST_SECONDS or now < self._pause.until:
            return None
        try:
            answer = self._asker.ask(task, left)
        except Exception as error:
            self._complain("read", "it cannot be asked; what it knows may have to be read again", error)
            self._pause.begin()
            return None
        if time.monotonic() - now > _SLOW_SECONDS:
            self._complain("slow", f"it took more than {_SLOW_SECONDS:g} s to answer, and is asked less")
            self._pause.begin()
        else:
            self._answered()
        return answer

    def _insist(self, task: Task[T], *, write: bool = False) -> T:
        if self._closed:
            raise LedgerError("the ledger is closed")
        try:
            answer = self._asker.ask(task, _LINK_SECONDS, write=write)
        except Exception as error:
            self._complain("link", "a link cannot be kept or looked up", error)
            raise LedgerError(f"the ledger's database cannot be used: {error}") from error
        self._answered()
        return answer

    def _answered(self) -> None:
        if self._pause.end():
            self._complain.end()
            self._writer.soon()

    def _wrote(self, success: bool) -> None:
        if success:
            self._answered()
        else:
            # SQLite's connections of one process share what they know of a file; one that may not write would keep the
            # others from it after the file's mode was changed.
            self._asker.session.close(0.0)

    # --- forks: a thread is not copied; connections are looked after where they are made ---

    def _after_fork_in_child(self) -> None:
        self._memory.learn_all(self._writer.unsettled())
        if not self._closed:
            self._start()


def _can_be_token(token: str) -> bool:
    return 0 < len(token) <= _MAX_TOKEN and token.isascii() and token.isprintable()


_all: weakref.WeakSet[SqlLedger] = weakref.WeakSet()
_forking = threading.Lock()


def _after_fork_in_child() -> None:
    for ledger in list(_all):
        ledger._after_fork_in_child()
    _forking.release()


@atexit.register
def _at_exit() -> None:
    for ledger in list(_all):
        ledger.close()


os.register_at_fork(before=_forking.acquire, after_in_parent=_forking.release, after_in_child=_after_fork_in_child)
