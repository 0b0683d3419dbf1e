"""Threads that move bytes: work waits in line for them, the one busy last gets what comes next, idle ones end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from streamware import pumps as module
from streamware.pumps import Pumps
from tests.hosts.servers import until

NAME = "pumps-under-test"


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NAME]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Pumps]]:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.2)
    yield lambda most: Pumps(most, NAME)
    until(lambda: not ours(), 5)


def test_no_more_threads_than_may_be_and_everything_is_done_in_order(make: Callable[[int], Pumps]) -> None:
    pumps, gate, done = make(2), threading.Event(), []
    for number in range(50):
        pumps.submit(lambda number=number: (gate.wait(5), done.append(number)))
    until(lambda: len(ours()) == 2)
    gate.set()
    until(lambda: len(done) == 50)
    assert sorted(done) == list(range(50))
    assert done.index(49) >= 48  # the line is a line
    assert len(ours()) <= 2


def test_threads_are_made_only_as_they_are_needed(make: Callable[[int], Pumps]) -> None:
    pumps, used = make(8), set()
    for _ in range(20):
        done = threading.Event()
        pumps.submit(lambda done=done: (used.add(threading.get_ident()), done.set()))
        assert done.wait(5)
        time.sleep(0.005)  # it is idle a moment after it has said that it is done
    assert len(used) <= 2


def test_the_one_busy_last_gets_what_comes_next_so_the_others_end(make: Callable[[int], Pumps]) -> None:
    pumps, gate = make(8), threading.Event()
    for _ in range(8):
        pumps.submit(lambda: gate.wait(5))
    until(lambda: len(ours()) == 8)
    gate.set()
    ends = time.monotonic() + 5
    while len(ours()) > 2 and time.monotonic() < ends:
        pumps.submit(lambda: None)
        time.sleep(0.01)
    assert 1 <= len(ours()) <= 2


def test_what_fails_takes_no_thread_with_it(make: Callable[[int], Pumps], caplog: pytest.LogCaptureFixture) -> None:
    pumps, done = make(1), threading.Event()
    pumps.submit(lambda: 1 / 0)
    pumps.submit(done.set)
    assert done.wait(5)
    assert "ZeroDivisionError" in caplog.text


def test_work_that_comes_while_a_thread_is_about_to_end_is_done(make: Callable[[int], Pumps]) -> None:
    pumps = make(1)
    for pause in (0.19, 0.195, 0.2, 0.205, 0.21) * 4:
        done = threading.Event()
        pumps.submit(done.set)
        assert done.wait(5)
        time.sleep(pause)
