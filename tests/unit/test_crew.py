"""Threads that come and go: no more than allowed, none for nothing, and nobody waits for them."""

from __future__ import annotations

import threading
import time

import pytest

from streamware import crew as module
from streamware.crew import Crew, Room


class Work:
    """Blocks until it is released."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.release = threading.Event()
        self.thread: threading.Thread | None = None

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.began.set()
        self.release.wait(10)


def test_no_more_threads_than_allowed_and_no_queue() -> None:
    crew = Crew(2, "crew-test", Room(0))
    first, second, third = Work(), Work(), Work()
    assert crew.start(first)
    assert crew.start(second)
    assert not crew.start(third)
    first.release.set()
    deadline = time.monotonic() + 5
    while not crew.start(third):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert third.began.wait(5)
    assert third.thread is first.thread
    second.release.set()
    third.release.set()
    crew.close()
    assert not [t for t in threading.enumerate() if t.name == "crew-test"]
    assert not crew.start(Work())


def test_threads_end_when_there_is_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.01)
    crew = Crew(4, "crew-test", Room(0))
    works = [Work() for _ in range(4)]
    for work in works:
        assert crew.start(work)
        work.release.set()
    for work in works:
        assert work.began.wait(5)
        assert work.thread is not None
        work.thread.join(5)
        assert not work.thread.is_alive()
    again = Work()
    again.release.set()
    assert crew.start(again)
    crew.close()


def test_close_does_not_wait_long_for_a_thread_that_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_SECONDS", 0.05)
    crew = Crew(1, "crew-test", Room(0))
    stuck = Work()
    assert crew.start(stuck)
    began = time.monotonic()
    crew.close()
    assert time.monotonic() - began < 2
    stuck.release.set()
    assert stuck.thread is not None or stuck.began.wait(5)
    assert stuck.thread is not None
    stuck.thread.join(5)


def test_work_that_fails_leaves_the_thread_for_others(caplog: pytest.LogCaptureFixture) -> None:
    crew = Crew(1, "crew-test", Room(0))

    def fails() -> None:
        raise SystemExit(3)

    assert crew.start(fails)
    good = Work()
    good.release.set()
    deadline = time.monotonic() + 5
    while not crew.start(good):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert good.began.wait(5)
    crew.close()
    assert "failed" in caplog.text


def test_room_is_lent_while_there_is_some() -> None:
    room = Room(10)
    assert room.lend(6)
    assert not room.lend(5)
    assert room.lend(4)
    room.give_back(6)
    assert not room.lend(7)
    assert room.lend(6)
