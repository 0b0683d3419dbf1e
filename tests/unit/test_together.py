"""Transactions that share a commit, in a real SQLite."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy")

from streamware.database import Database, Waits
from streamware.sessions import Pool
from streamware.together import Together


class Tally:
    """A table of numbers, and what writes into it."""

    def __init__(self, path: Path) -> None:
        waits = Waits(read=2.0, write=5.0, lock=1.0)
        self.database = Database(f"sqlite:///{path}", user="test", waits=waits, version="tally", migrations=())
        self.table = self.database.table(
            "tally", self.database.column("n", self.database.sql.BigInteger(), primary_key=True)
        )
        self.pool = Pool(self.database, size=1, wait=5.0)
        self.together = Together(self.pool, wait=5.0)
        self.commits = 0
        run = self.pool.run

        def counted(task: Any, *, write: bool) -> Any:
            self.commits += 1
            return run(task, write=write)

        self.pool.run = counted  # type: ignore[method-assign]

    def add(self, n: int) -> int:
        def task(connection: Any) -> int:
            connection.execute(self.table.insert(), {"n": n})
            if n % 7 == 6:
                raise ValueError(n)
            time.sleep(0.002)  # so that others come meanwhile
            return n

        return self.together.run(task)

    def there(self) -> list[int]:
        query = self.database.sql.select(self.table.c.n).order_by(self.table.c.n)
        return self.pool.run(lambda connection: list(connection.scalars(query)), write=False)


@pytest.fixture
def tally(tmp_path: Path) -> Iterator[Tally]:
    tally = Tally(tmp_path / "tally.sqlite3")
    yield tally
    tally.pool.close()


def test_each_succeeds_or_fails_by_itself_and_few_commits_do(tally: Tally) -> None:
    def add(n: int) -> int | None:
        try:
            return tally.add(n)
        except ValueError as error:
            return None if error.args == (n,) else -1

    with ThreadPoolExecutor(32) as pool:
        results = list(pool.map(add, range(320)))
    assert results == [None if n % 7 == 6 else n for n in range(320)]
    assert tally.commits < 100
    assert tally.there() == [n for n in range(320) if n % 7 != 6]


def test_a_commit_that_fails_fails_for_all(tally: Tally) -> None:
    began, go = threading.Event(), threading.Event()

    def first(connection: Any) -> None:
        began.set()
        go.wait(5)

    def breaks(connection: Any) -> None:
        connection.exec_driver_sql("ROLLBACK")  # as SQLite does by itself when its disk is full

    def told(task: Any) -> str:
        try:
            tally.together.run(task)
        except Exception as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(4) as pool:
        leading = pool.submit(told, first)
        assert began.wait(5)
        jobs = [pool.submit(told, breaks)]
        while len(tally.together._waiting) < 1:
            time.sleep(0.001)
        jobs.append(pool.submit(told, lambda connection: connection.execute(tally.table.insert(), {"n": 1})))
        while len(tally.together._waiting) < 2:
            time.sleep(0.001)
        go.set()
        assert leading.result() == "done"
        assert all(job.result() == "OperationalError" for job in jobs)
    assert tally.there() == []
    assert tally.add(2) == 2
    assert tally.there() == [2]


def test_nobody_waits_for_ever(tally: Tally) -> None:
    tally.together._wait = 0.1
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(tally.together.run, lambda connection: go.wait(5))
        while not tally.together._led:
            time.sleep(0.001)
        with pytest.raises(TimeoutError):
            tally.add(1)
        go.set()
        assert leading.result()
    assert tally.there() == []
    assert tally.add(1) == 1


def test_nobody_who_waits_for_a_connection_is_overtaken(tally: Tally) -> None:
    order: list[int] = []

    def take(n: int) -> None:
        tally.pool.run(lambda connection: order.append(n), write=False)

    go, begun = threading.Event(), threading.Event()

    def hold(connection: Any) -> None:
        begun.set()
        go.wait(5)

    with ThreadPoolExecutor(32) as pool:
        held = pool.submit(tally.pool.run, hold, write=False)
        assert begun.wait(5)
        for n in range(30):
            pool.submit(take, n)
            while len(tally.pool._queue) <= n:
                time.sleep(0.001)
        go.set()
        held.result()
    assert order == list(range(30))
