"""Transactions of many threads that are committed at once, where a database takes one writer at a time.

The rule of this file: each of them succeeds or fails by itself, but for the commit, which is that of all; nobody is
told of success before it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from streamware.sessions import Pool, Task

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Together"]

T = TypeVar("T")

_AT_ONCE = 64  # in one transaction
# PERF: what takes long is to have a commit survive a loss of power: while others write gigabytes to the same disk, a
# second or more, and 64 threads that queued for it one by one gave up after 15 s.


class _Job:
    """What one thread wants to be done. ``over``: it was done, or has failed, and ``error`` says why."""

    __slots__ = ("error", "over", "result", "task")

    def __init__(self, task: Task[Any]) -> None:
        self.task = task
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None


class Together:
    """Runs transactions of any number of threads, by whichever of them comes first for all that have come by then.

    :param pool: of one connection, which nobody else uses.
    :param wait: seconds that a caller waits for its turn.
    """

    def __init__(self, pool: Pool, *, wait: float) -> None:
        self._pool = pool
        self._wait = wait
        self._start()
        _all.add(self)

    def _start(self) -> None:
        self._changed = threading.Condition()  # guards what follows; told when a transaction of several has ended
        self._waiting: deque[_Job] = deque()
        self._led = False  # somebody runs the jobs of others besides its own

    def run(self, task: Task[T]) -> T:
        """Run a task as a transaction, which it may share. Raises whatever goes wrong, in bounded time.

        :raises TimeoutError: its turn did not come in time.
        """
        job = _Job(task)
        with self._changed:
            self._waiting.append(job)
            if not self._changed.wait_for(lambda: job.over or not self._led, self._wait):
                if job in self._waiting:
                    self._waiting.remove(job)
                    raise TimeoutError(f"others were writing for {self._wait:g} s")
                if not self._changed.wait_for(lambda: job.over, self._wait):
                    raise TimeoutError(f"others were writing for {2 * self._wait:g} s")
            lead = not job.over
            if lead:
                self._led = True
        if lead:
            self._lead(job)
        if job.error is not None:
            raise job.error
        result: T = job.result
        return result

    def _lead(self, job: _Job) -> None:
        try:
            while not job.over:
                with self._changed:
                    batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
                self._run(batch)
                with self._changed:
                    self._changed.notify_all()
        finally:
            with self._changed:
                self._led = False
                self._changed.notify_all()

    def _run(self, batch: Sequence[_Job]) -> None:
        try:
            self._pool.run(lambda connection: _each(connection, batch), write=True)
        except BaseException as error:
            plain = isinstance(error, Exception)
            for job in batch:
                if job.error is None:
                    job.error = error if plain else TimeoutError("who wrote for all was interrupted")
            if not plain:
                raise
        finally:
            for job in batch:
                job.over = True


def _each(connection: sa.Connection, batch: Sequence[_Job]) -> None:
    if len(batch) == 1:
        batch[0].result = batch[0].task(connection)
        return
    for job in batch:
        connection.exec_driver_sql("SAVEPOINT one")
        try:
            job.result = job.task(connection)
        except Exception as error:
            job.error = error
            connection.exec_driver_sql("ROLLBACK TO one")
        connection.exec_driver_sql("RELEASE one")


# --- forks: who waits is not copied ---

_all: weakref.WeakSet[Together] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for together in list(_all):
        together._start()


os.register_at_fork(after_in_child=_after_fork_in_child)
