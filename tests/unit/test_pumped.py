"""A body in a queue: how full it gets, when its consumer is woken, who closes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from streamware.errors import BodyClosed, SizeMismatch
from streamware.pumped import Pumped
from streamware.pumps import Pumps
from tests.hosts.servers import until


class Given:
    """A ReplyBody of pieces of 100 bytes, ready as long as ``ready_for`` says."""

    length = None

    def __init__(self, pieces: int, *, ready_for: int = 1000, error: Exception | None = None) -> None:
        self.given = 0
        self.aborted = threading.Event()
        self.closed = threading.Event()
        self._pieces = pieces
        self._ready_for = ready_for
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.given >= self._ready_for:
            assert self.aborted.wait(5)
            raise BodyClosed("aborted")
        if self.given == self._pieces:
            raise self._error or StopIteration
        self.given += 1
        return b"x" * 100

    def ready(self) -> bool:
        return self.given < self._ready_for

    def abort(self) -> None:
        self.aborted.set()

    def close(self) -> None:
        assert not self.closed.is_set()
        self.closed.set()


@pytest.fixture
def pumps() -> Pumps:
    return Pumps(4, "pumped-under-test")


class Told:
    def __init__(self) -> None:
        self.news = 0
        self.closed = 0

    def come(self) -> None:
        self.news += 1

    def end(self) -> None:
        self.closed += 1


def pumped(body: Given, pumps: Pumps) -> tuple[Pumped, Told]:
    told = Told()
    return Pumped(body, pumps, told.come, told.end), told


def test_it_is_filled_up_to_what_is_asked_for_and_again_as_it_is_emptied(pumps: Pumps) -> None:
    body = Given(50)
    queue, told = pumped(body, pumps)
    queue.pull(1000)
    until(lambda: queue.held == 1000)
    assert body.given == 10
    for _ in range(6):
        assert queue.take() == b"x" * 100
    queue.pull(1000)
    until(lambda: queue.held == 1000)
    assert body.given == 16
    assert told.news == 0  # nobody has waited
    queue.close_soon()
    assert body.closed.wait(5)


@pytest.mark.parametrize("most", [0, 1, 100])
def test_one_piece_comes_however_little_is_asked_for(pumps: Pumps, most: int) -> None:
    body = Given(50)
    queue, _ = pumped(body, pumps)
    queue.pull(most)
    until(lambda: queue.held == 100)
    queue.pull(most)  # there is one
    queue.close_soon()
    assert body.closed.wait(5)
    assert body.given == 1


def test_a_step_waits_for_nobody_while_there_is_something_to_send(pumps: Pumps) -> None:
    body = Given(50, ready_for=3)
    queue, told = pumped(body, pumps)
    queue.pull(1000)
    until(lambda: queue.held == 300)
    queue.pull(1000)  # were that to block, nothing but abort() would end it
    queue.close_soon()
    assert body.closed.wait(5)
    assert body.given == 3
    assert told.closed == 1


def test_only_a_consumer_that_waits_is_woken_and_once(pumps: Pumps) -> None:
    queue, told = pumped(Given(50), pumps)
    queue.waits = True
    queue.pull(1000)
    until(lambda: queue.held == 1000)
    assert told.news == 1
    assert not queue.waits
    queue.close_soon()


@pytest.mark.parametrize("error", [None, SizeMismatch("short")])
def test_the_end_comes_behind_what_came_before_it(pumps: Pumps, error: Exception | None) -> None:
    body = Given(3, error=error)
    queue, told = pumped(body, pumps)
    queue.pull(1000)
    assert body.closed.wait(5)
    assert queue.over
    assert queue.error is error
    assert not queue.quiet
    assert [queue.take() for _ in range(4)] == [b"x" * 100] * 3 + [None]
    queue.close_soon()
    assert told.closed == 1
    assert queue.error is None


def test_a_consumer_that_leaves_ends_what_blocks_and_hears_no_error(pumps: Pumps) -> None:
    body = Given(50, ready_for=0)
    queue, told = pumped(body, pumps)
    queue.pull(1000)
    queue.close_soon()
    queue.close_soon()
    assert body.closed.wait(5)
    until(lambda: told.closed == 1)
    assert queue.error is None
    queue.pull(1000)  # is nothing any more


def test_a_step_that_waits_makes_room_for_others(pumps: Pumps) -> None:
    """With one thread and a body that its source keeps waiting, another body still gets its turn."""
    alone = Pumps(1, "pumped-under-test")
    gate = threading.Semaphore(0)

    class Trickle(Given):
        def __next__(self) -> bytes:
            assert gate.acquire(timeout=5)
            return super().__next__()

        def ready(self) -> bool:
            return False

    trickle, other = Trickle(50), Given(50)
    first, _ = pumped(trickle, alone)
    second, _ = pumped(other, alone)
    first.pull(10_000)
    second.pull(10_000)
    gate.release()
    until(lambda: other.given == 50)
    assert trickle.given == 1
    first.pull(10_000)
    gate.release()
    until(lambda: trickle.given == 2)
    gate.release()  # nobody else wants the thread: it was kept
    until(lambda: trickle.given == 3)
    for _ in range(50):
        gate.release()
    for queue, body in ((first, trickle), (second, other)):
        queue.close_soon()
        assert body.closed.wait(5)


def test_a_consumer_is_woken_once_for_many_pieces(pumps: Pumps) -> None:
    body = Given(50, ready_for=20)
    queue, told = pumped(body, pumps)
    queue.waits = True
    queue.pull(100_000)
    until(lambda: told.news == 1)
    assert queue.held == 2000
    queue.close_soon()
    assert body.closed.wait(5)
